//! Events of ingestion: rows and bytes.

use tracing::trace;

use crate::observe::exporter::Exporter;
use crate::observe::label::{Direction, RowResult, SearchResult};
use crate::observe::metric;

/// A chunk's rows were committed.
#[derive(Debug)]
pub struct RowsIngested<'a> {
    /// The kind of the job that ingests.
    pub kind: &'a str,
    /// What became of the rows.
    pub result: RowResult,
    /// How many.
    pub n: u64,
}

impl RowsIngested<'_> {
    /// Counts the rows. Emit it after the commit, or a rolled back chunk counts twice.
    pub fn emit(self) {
        let Self { kind, result, n } = self;
        Exporter::get()
            .counter(&metric::INGEST_ROWS, &[kind, result.as_str()])
            .increment(n);
        trace!(kind, result = result.as_str(), n, "rows ingested");
    }
}

/// Bytes of input were read, or of output written.
#[derive(Debug)]
pub struct BytesIngested<'a> {
    /// The kind of the job that ingests.
    pub kind: &'a str,
    /// Which way they went.
    pub direction: Direction,
    /// How many.
    pub n: u64,
}

impl BytesIngested<'_> {
    /// Counts the bytes.
    pub fn emit(self) {
        let Self { kind, direction, n } = self;
        Exporter::get()
            .counter(&metric::INGEST_BYTES, &[kind, direction.as_str()])
            .increment(n);
        trace!(kind, direction = direction.as_str(), n, "bytes ingested");
    }
}

/// The search server answered for some documents.
#[derive(Debug)]
pub struct SearchDocuments {
    /// What became of them.
    pub result: SearchResult,
    /// How many.
    pub n: u64,
}

impl SearchDocuments {
    /// Counts the documents. Emit it once their notes are settled.
    pub fn emit(self) {
        let Self { result, n } = self;
        Exporter::get()
            .counter(&metric::SEARCH_DOCUMENTS, &[result.as_str()])
            .increment(n);
        trace!(result = result.as_str(), n, "search server told");
    }
}
