//! Tests of whole files: written, inspected, read.

mod archives;
mod csv;
mod damage;
mod differential;
mod formats;
mod merged;
mod open_documents;
mod opened;
mod packed;
mod refusals;
mod several;
mod workbooks;
mod xls;
mod xlsb;
mod xlsb_formats;

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rust_xlsxwriter::Workbook;
use tempfile::TempDir;

use super::super::row::{Chunk, ProductRow, RowError};
use super::*;
use xlsb::zipped;

/// A folder for one test's files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn bytes(&self, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join("file");
        File::create(&path)
            .unwrap()
            .write_all(bytes.as_ref())
            .unwrap();
        path
    }

    fn xlsx(&self, workbook: &mut Workbook) -> PathBuf {
        self.bytes(workbook.save_to_buffer().unwrap())
    }

    /// Writes an archive of these parts, in this order.
    fn zip(&self, parts: &[(&str, &[u8])]) -> PathBuf {
        self.bytes(zipped(parts))
    }
}

/// Everything a file came to.
#[derive(Debug, Default, PartialEq)]
struct ReadFile {
    rows: Vec<ProductRow>,
    errors: Vec<RowError>,
    chunks: Vec<(u32, u32, u32, u32)>,
    summary: Summary,
}

impl ReadFile {
    fn codes(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.code.as_str()).collect()
    }

    fn faults(&self) -> Vec<(u32, &str, &str)> {
        let column =
            |error: &'_ RowError| error.column.as_ref().map_or("", |c| c.as_str()).to_owned();
        let columns: Vec<String> = self.errors.iter().map(column).collect();
        let leaked = columns
            .into_iter()
            .map(|column| -> &'static str { column.leak() });
        let errors = self.errors.iter().zip(leaked);
        errors
            .map(|(e, column)| (e.row_no, column, e.code))
            .collect()
    }
}

fn read_all(path: &Path, options: &Options) -> Result<(Inspection, ReadFile), Refusal> {
    let inspection = inspect(path, "", options)?;
    let mut found = ReadFile::default();
    found.summary = read(path, &inspection, options, &mut |chunk: Chunk| {
        found
            .chunks
            .push((chunk.seq, chunk.n_rows, chunk.n_bad, chunk.last_row));
        found.rows.extend(chunk.rows);
        found.errors.extend(chunk.errors);
        ControlFlow::Continue(())
    })?;
    Ok((inspection, found))
}

fn read_ok(path: &Path) -> ReadFile {
    read_all(path, &Options::default()).unwrap().1
}

fn refused(path: &Path) -> Refusal {
    inspect(path, "", &Options::default()).unwrap_err()
}
