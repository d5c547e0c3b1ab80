//! Product files: what one is, and its rows in chunks. Synchronous; nothing here but reading.
//!
//! [`inspect`] looks at a file and refuses it or says what it is; [`read`]
//! reads it. A *sheet* is a table of a workbook; CSV has one without a name.
//!
//! Adding a format means implementing `Workbook` and `Rows` of `rows.rs`. No
//! bytes that anybody uploads make these functions panic; that they also need
//! bounded memory is argued at the top of each reader.

mod archive;
mod calamine_cell;
mod child;
mod chunk;
mod delimited;
mod detect;
mod dialect;
mod head;
mod ods;
mod ole;
mod options;
mod package;
mod refusal;
mod rows;
mod scan;
mod temporary;
mod text;
mod unpack;
mod xls;
mod xlsb;
mod xlsx;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use super::cell::{Epoch, RowBuf};
use super::check::{Checker, Rules};
use super::field::Aliases;
use super::header::{Mapping, cut};
use super::row::Chunk;
pub use child::{read_in_children, serve_if_asked};
use chunk::{Reading, refuse_unknown_hidden};
use head::{Head, NoHeader};
pub use options::{
    Charset, ChildLimits, Dialect, Format, Inspection, Options, Quote, StopFlag, Summary,
};
pub use refusal::Refusal;
use rows::{SheetName, Workbook};

/// Cells of a delimited row that are looked at: those beyond the last header must be blank.
const CSV_COLUMNS: usize = 65_536;
/// Sheets that are looked at for a header row.
const MAX_SHEETS: usize = 100;

/// Looks at a file: what it is, which sheet, where the header row is and what its columns mean.
///
/// The content decides, whatever `file_name` ends with; the name only tells people which file is
/// meant. Costs about as much as inflating the file once, and for xlsx reading its shared strings.
///
/// # Errors
///
/// A [`Refusal`], to be answered with status 400: the constants of [`Refusal`] say why.
pub fn inspect(path: &Path, file_name: &str, options: &Options) -> Result<Inspection, Refusal> {
    look(path, options).map_err(|refusal| Refusal {
        message: match file_name {
            "" => refusal.message,
            name => format!("{}: {}", cut(name, 100), refusal.message),
        },
        code: refusal.code,
    })
}

fn look(path: &Path, options: &Options) -> Result<Inspection, Refusal> {
    let n_bytes = std::fs::metadata(path)?.len();
    if n_bytes > options.max_file_bytes {
        return Err(Refusal::new(
            Refusal::FILE_TOO_LARGE,
            format!(
                "the file has {n_bytes} bytes; at most {} are read",
                options.max_file_bytes
            ),
        ));
    }
    let source = unpack::open(path)?;
    let path = source.path();
    let aliases = Aliases::new(&options.aliases);
    let Some(format) = detect::detect(path)?.workbook() else {
        return look_at_text(path, &aliases, options);
    };
    let mut workbook = rows::open(path, format, options)?;
    let found = find_sheet(workbook.as_mut(), &aliases, options)?;
    Ok(Inspection {
        format,
        sheet: Some(found.sheet),
        header_row: found.header_row,
        mapping: found.mapping,
        // the header row is one of them
        rows_at_most: found.rows_at_most.map(|n_rows| n_rows.saturating_sub(1)),
    })
}

fn look_at_text(path: &Path, aliases: &Aliases, options: &Options) -> Result<Inspection, Refusal> {
    let scan = text::scan(File::open(path)?)?;
    let charset = options.csv_charset.unwrap_or(scan.charset);
    let dialect = dialect::detect(path, charset, aliases, options)?;
    let format = Format::Csv(dialect);
    let mut workbook = rows::open(path, format, options)?;
    let found = find_sheet(workbook.as_mut(), aliases, options)?;
    Ok(Inspection {
        format,
        sheet: None,
        header_row: found.header_row,
        mapping: found.mapping,
        rows_at_most: Some(scan.n_lines.saturating_sub(found.header_row.into())),
    })
}

struct FoundSheet {
    sheet: String,
    header_row: u32,
    mapping: Mapping,
    rows_at_most: Option<u64>,
}

/// Takes the sheet asked for, or the first visible one that has a header row.
fn find_sheet(
    workbook: &mut dyn Workbook,
    aliases: &Aliases,
    options: &Options,
) -> Result<FoundSheet, Refusal> {
    let mut best: Option<NoHeader> = None;
    for sheet in candidates(workbook, options)? {
        let rows_at_most = workbook.verify(&sheet)?;
        let head = read_head(workbook, &sheet, options)?;
        match head.find(aliases, options.max_columns) {
            Ok((header_row, mapping)) => {
                return Ok(FoundSheet {
                    sheet,
                    header_row,
                    mapping,
                    rows_at_most,
                });
            }
            Err(none) => {
                let is_better = |best: &NoHeader| none.rank() > best.rank();
                if best.as_ref().is_none_or(is_better) {
                    best = Some(none);
                }
            }
        }
    }
    Err(best.map_or_else(
        || Refusal::new(Refusal::EMPTY_FILE, "the workbook has no sheet with cells"),
        |none| none.refusal,
    ))
}

fn candidates(workbook: &dyn Workbook, options: &Options) -> Result<Vec<String>, Refusal> {
    let sheets = workbook.sheets();
    if let Some(wanted) = &options.sheet {
        if sheets.iter().any(|sheet| sheet.name == *wanted) {
            return Ok(vec![wanted.clone()]);
        }
        return Err(Refusal::new(
            Refusal::NO_SUCH_SHEET,
            format!("there is no sheet \"{}\"", cut(wanted, 100)),
        ));
    }
    if let Some(number) = options.sheet_number {
        let place = usize::try_from(number)
            .ok()
            .and_then(|it| it.checked_sub(1));
        let sheet = place.and_then(|place| sheets.get(place));
        return sheet.map(|it| vec![it.name.clone()]).ok_or_else(|| {
            Refusal::new(
                Refusal::NO_SUCH_SHEET,
                format!("there is no sheet {number}; there are {}", sheets.len()),
            )
        });
    }
    let is_looked_at = |sheet: &SheetName| sheet.is_visible || options.include_hidden_sheets;
    let looked_at = sheets.into_iter().filter(is_looked_at);
    Ok(looked_at.take(MAX_SHEETS).map(|sheet| sheet.name).collect())
}

fn read_head(workbook: &mut dyn Workbook, sheet: &str, options: &Options) -> Result<Head, Refusal> {
    let epoch = workbook.epoch();
    let mut head = Head::default();
    workbook.with_rows(sheet, &mut |rows| {
        refuse_unknown_hidden(rows, options.skip_hidden_rows)?;
        head.read(rows, epoch, options.max_columns)
    })?;
    Ok(head)
}

/// Returns the sheets of a file by name, and whether each is shown, for people to choose from;
/// nothing for delimited text, which has none.
///
/// # Errors
///
/// As [`inspect`], but for what only a look at the rows shows.
pub fn list_sheets(path: &Path, options: &Options) -> Result<Vec<(String, bool)>, Refusal> {
    let source = unpack::open(path)?;
    let Some(format) = detect::detect(source.path())?.workbook() else {
        return Ok(Vec::new());
    };
    let sheets = rows::open(source.path(), format, options)?.sheets();
    Ok(sheets
        .into_iter()
        .map(|it| (it.name, it.is_visible))
        .collect())
}

/// Returns a number that the data rows of the file do not exceed, for a progress bar.
///
/// It comes from the inspection and costs nothing more. `None` for formats in which it cannot be
/// told without reading: xlsb, xls and ods.
#[must_use]
pub fn count_rows(_path: &Path, inspection: &Inspection) -> Option<u64> {
    inspection.rows_at_most
}

/// Reads the rows of an inspected file and hands them to `sink` in chunks.
///
/// The same file, inspection and options give the same chunks. The sink ends the reading with
/// [`ControlFlow::Break`]. Runs for seconds: call it on a blocking thread.
///
/// # Errors
///
/// A [`Refusal`] when the file is damaged behind what [`inspect`] looked at, or has more than
/// [`Options::max_rows`] rows; the chunks up to there have been handed on. Only
/// [`Refusal::READ_FAILED`] is worth another attempt.
pub fn read(
    path: &Path,
    inspection: &Inspection,
    options: &Options,
    sink: &mut dyn FnMut(Chunk) -> ControlFlow<()>,
) -> Result<Summary, Refusal> {
    let source = unpack::open(path)?;
    let mut workbook = rows::open(source.path(), inspection.format, options)?;
    let is_csv = matches!(inspection.format, Format::Csv(_));
    let mut checker = Checker::new(
        inspection.mapping.clone(),
        rules(workbook.epoch(), is_csv, options),
    );
    let n_rows = count_rows(path, inspection).unwrap_or_default();
    checker.expect_rows(n_rows.min(options.max_rows.into()));
    let last_column = inspection.mapping.columns.last();
    let n_columns = match last_column {
        Some(column) if !is_csv => column.index + 1,
        _ => CSV_COLUMNS,
    };
    let mut row = RowBuf::new(n_columns, options.max_cell_chars.saturating_mul(4));
    let mut reading = Reading::new(checker, options, sink);
    let sheet = inspection.sheet.as_deref().unwrap_or_default();
    workbook.with_rows(sheet, &mut |rows| {
        reading.run(rows, &mut row, inspection.header_row)
    })?;
    Ok(reading.summary())
}

/// Reads the rows of an inspected file as cells, the header row and those above it with them, and
/// hands them to `take`, which ends the reading with [`ControlFlow::Break`].
///
/// For a look at a file as it is, and for what reading costs without the checks.
///
/// # Errors
///
/// A [`Refusal`] when the file is damaged behind what [`inspect`] looked at.
pub fn walk(
    path: &Path,
    inspection: &Inspection,
    options: &Options,
    take: &mut dyn FnMut(&RowBuf) -> ControlFlow<()>,
) -> Result<(), Refusal> {
    let source = unpack::open(path)?;
    let mut workbook = rows::open(source.path(), inspection.format, options)?;
    let mut row = RowBuf::new(
        options.max_columns,
        options.max_cell_chars.saturating_mul(4),
    );
    let sheet = inspection.sheet.as_deref().unwrap_or_default();
    workbook.with_rows(sheet, &mut |rows| {
        while rows.next_row(&mut row)? {
            if take(&row).is_break() {
                break;
            }
        }
        Ok(())
    })
}

fn rules(epoch: Epoch, is_csv: bool, options: &Options) -> Rules {
    Rules {
        epoch,
        max_cell_chars: options.max_cell_chars,
        refuse_extra_cells: is_csv,
        locale: options.locale,
        allow_duplicates: options.allow_duplicates,
    }
}

#[cfg(test)]
mod tests;
