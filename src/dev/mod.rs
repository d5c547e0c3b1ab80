//! The private Postgres cluster and the sample data behind `ingestd dev`.
