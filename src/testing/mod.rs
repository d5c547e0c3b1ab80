//! Clusters and databases for tests and benchmarks.
