//! Events that write log line and metric together; the names of both.

mod exporter;
pub mod metric;
mod process;

pub use exporter::Exporter;
