//! The sample as CSV: UTF-8, commas.

use std::path::Path;

use anyhow::Context as _;
use chrono::DateTime;

use crate::product::{Cell, HEADERS, Sample};

/// Writes the sample.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn write(sample: &Sample, out: &Path) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_path(out)?;
    writer.write_record(HEADERS)?;
    for row in 0..sample.n_rows {
        for cell in sample.cells(row) {
            writer.write_field(text(cell)?)?;
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()?;
    Ok(())
}

fn text(cell: Cell) -> anyhow::Result<String> {
    Ok(match cell {
        Cell::Blank => String::new(),
        Cell::Text(text) => text,
        Cell::Number(number) => number.to_string(),
        Cell::Date(minutes) => DateTime::from_timestamp(minutes * 60, 0)
            .context("a date beyond all dates")?
            .format("%Y-%m-%dT%H:%M:%S")
            .to_string(),
        Cell::Error => "#N/A".to_owned(),
    })
}
