//! The sample as an Excel workbook, in memory that does not grow with its rows (but for the table of
//! shared strings).

use std::path::Path;

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Formula, Workbook, Worksheet};

use crate::product::{Cell, HEADERS, Sample};

/// Where the texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strings {
    /// In a table, in the order of the rows.
    Shared,
    /// In the cells.
    Inline,
    /// In a table, each column in an order of its own.
    Shuffled,
}

/// Columns whose texts are different in nearly every row.
const DIFFERENT: [usize; 5] = [0, 1, 2, 8, 9];
/// Minutes from 1970 to the day before 1900 that serial dates count from.
const EPOCH_MINUTES: i64 = 25_569 * 1440;

/// Writes the sample.
///
/// # Errors
///
/// When the file cannot be written, or has more rows than a sheet can.
pub(crate) fn write(sample: &Sample, strings: Strings, out: &Path) -> anyhow::Result<()> {
    let mut workbook = Workbook::new();
    let created = ExcelDateTime::from_ymd(2026, 1, 1)?;
    workbook.set_properties(&DocProperties::new().set_creation_datetime(&created));
    if strings == Strings::Shuffled {
        let sheet = workbook.add_worksheet_with_low_memory()?;
        sheet.set_name("Texts")?.set_hidden(true);
        write_shuffled(sheet, sample)?;
    }
    let sheet = match strings {
        Strings::Inline => workbook.add_worksheet_with_constant_memory()?,
        Strings::Shared | Strings::Shuffled => workbook.add_worksheet_with_low_memory()?,
    };
    sheet.set_name("Products")?.set_active(true);
    sheet.set_freeze_panes(1, 0)?;
    for (column, width) in (0..).zip([14, 30, 60, 16, 12, 10, 9, 8, 16, 40, 9, 18, 16]) {
        sheet.set_column_width(column, width)?;
    }
    write_rows(sheet, sample)?;
    workbook.save(out)?;
    Ok(())
}

fn write_rows(sheet: &mut Worksheet, sample: &Sample) -> anyhow::Result<()> {
    let bold = Format::new().set_bold();
    let price = Format::new().set_num_format("#,##0.00");
    let date = Format::new().set_num_format("yyyy-mm-dd hh:mm");
    sheet.write_row_with_format(0, 0, HEADERS, &bold)?;
    for row in 0..sample.n_rows {
        let at = u32::try_from(row + 1)?;
        for (column, cell) in (0..).zip(sample.cells(row)) {
            match cell {
                Cell::Blank => {}
                Cell::Text(text) => drop(sheet.write_string(at, column, text)?),
                Cell::Number(number) if column == 5 => {
                    sheet.write_number_with_format(at, column, number, &price)?;
                }
                Cell::Number(number) => drop(sheet.write_number(at, column, number)?),
                Cell::Date(minutes) => {
                    let minutes = i32::try_from(minutes + EPOCH_MINUTES)?;
                    let days = f64::from(minutes) / 1440.0;
                    sheet.write_number_with_format(at, column, days, &date)?;
                }
                Cell::Error => {
                    sheet.write_formula(at, column, Formula::new("=NA()").set_result("#N/A"))?;
                }
            }
        }
    }
    Ok(())
}

/// Writes the texts of the columns that are different in every row, each in an order of its own,
/// which is the order they get in the table.
fn write_shuffled(sheet: &mut Worksheet, sample: &Sample) -> anyhow::Result<()> {
    for row in 0..sample.n_rows {
        for (column, (of, step)) in
            (0..).zip(
                DIFFERENT
                    .into_iter()
                    .zip([100_003_u64, 200_003, 300_007, 400_009, 500_009]),
            )
        {
            // steps are prime, so each order visits every row once unless it divides their number
            let other = row.wrapping_mul(step) % sample.n_rows;
            if let Some(Cell::Text(text)) = sample.cells(other).get(of) {
                sheet.write_string(u32::try_from(row)?, column, text)?;
            }
        }
    }
    Ok(())
}
