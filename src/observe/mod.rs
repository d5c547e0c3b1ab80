//! Events that write log line and metric together; the names of both.

pub mod metric;
