//! Product files: what one is, and its rows in chunks. Synchronous; nothing here but reading.
//!
//! [`inspect`] looks at a file and refuses it or says what it is; [`read`]
//! reads it. A *sheet* is a table of a workbook; CSV has one without a name.
//!
//! Adding a format means implementing `Workbook` and `Rows` of `rows.rs`. No
//! bytes that anybody uploads make these functions panic; that they also need
//! bounded memory is argued at the top of each reader.

mod ahead;
mod archive;
mod calamine_cell;
mod charset;
mod child;
mod choice;
mod chunk;
mod delimited;
mod detect;
mod dialect;
mod formulas;
mod guess;
mod head;
mod inspection;
mod merged;
mod ods;
mod ole;
mod opened;
mod options;
mod package;
mod refusal;
mod relay;
mod rows;
mod scan;
mod stray_quote;
mod temporary;
mod text;
mod unpack;
mod well_formed;
mod xls;
mod xlsb;
mod xlsx;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use super::row::Chunk;
use super::row::cell::{Epoch, RowBuf};
use super::row::check::Rules;
use super::row::field::Aliases;
use super::row::header::cut;
pub use charset::Charset;
pub use child::{read_in_children, serve_if_asked};
pub use choice::{SheetRef, Sheets};
use chunk::{Reading, refuse_unknown_hidden};
use head::{Head, NoHeader};
pub use inspection::{FurtherSheet, Inspection, SheetHead, SkippedSheet, Summary};
pub use merged::MergedCells;
use merged::{Fill, Filled};
pub use opened::Opened;
pub use options::{ChildLimits, Dialect, Format, Options, Quote, StopFlag};
pub use refusal::Refusal;
use rows::Workbook;
pub(super) use temporary::file as nameless_file;

/// Cells of a delimited row that are looked at: those beyond the last header must be blank.
const CSV_COLUMNS: usize = 65_536;

/// Looks at a file: what it is, which sheet, where the header row is and what its columns mean.
///
/// The content decides, whatever `file_name` ends with; the name only tells people which file is
/// meant. Costs about as much as inflating the file once, and for xlsx reading its shared strings.
///
/// # Errors
///
/// A [`Refusal`], to be answered with status 400: the constants of [`Refusal`] say why.
pub fn inspect(path: &Path, file_name: &str, options: &Options) -> Result<Inspection, Refusal> {
    inspect_and_keep(path, file_name, options).map(|(inspection, _)| inspection)
}

/// As [`inspect`], for who reads the file next: with what it opened, where a reading can go on with
/// that.
///
/// # Errors
///
/// As [`inspect`].
pub fn inspect_and_keep(
    path: &Path,
    file_name: &str,
    options: &Options,
) -> Result<(Inspection, Option<Opened>), Refusal> {
    look(path, options).map_err(|refusal| Refusal {
        message: match file_name {
            "" => refusal.message,
            name => format!("{}: {}", cut(name, 100), refusal.message),
        },
        code: refusal.code,
    })
}

fn look(path: &Path, options: &Options) -> Result<(Inspection, Option<Opened>), Refusal> {
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
    let aliases = Aliases::new(&options.aliases).with(&options.mapping);
    let Some(format) = detect::detect(path, options.csv_charset)?.workbook() else {
        return look_at_text(path, &aliases, options).map(|inspection| (inspection, None));
    };
    let mut workbook = rows::open_to_look(path, format, options)?;
    let (found, others) = find_sheets(workbook.as_mut(), &aliases, options)?;
    let inspection = inspection(format, found, others, options);
    refuse_unused(&inspection, options)?;
    Ok((inspection, Opened::keep(workbook, source)))
}

/// Refuses what somebody says of headers that are not there: it is misspelt, and the column that was
/// meant would be something else.
fn refuse_unused(inspection: &Inspection, options: &Options) -> Result<(), Refusal> {
    let mappings = inspection.heads().map(|head| head.mapping);
    let unused = options.mapping.unused(mappings);
    if unused.is_empty() {
        return Ok(());
    }
    let columns = inspection.heads().flat_map(|head| &head.mapping.columns);
    let there: Vec<&str> = columns
        .map(|column| column.header.as_str())
        .take(30)
        .collect();
    Err(Refusal::new(
        Refusal::MISSING_HEADERS,
        format!(
            "the mapping names headers that are not there: {}; found: {}",
            cut(&unused.join(", "), 500),
            cut(&there.join(", "), 500)
        ),
    ))
}

fn look_at_text(path: &Path, aliases: &Aliases, options: &Options) -> Result<Inspection, Refusal> {
    let scan = text::scan(File::open(path)?)?;
    if options.csv_charset.is_none() && scan.is_unlikely {
        return Err(Refusal::format(
            "the encoding of the text cannot be told; save it as UTF-8, or name its encoding",
        ));
    }
    let charset = options.csv_charset.unwrap_or(scan.charset);
    let dialect = dialect::detect(path, charset, aliases, options)?;
    let format = Format::Csv(dialect);
    let mut workbook = rows::open(path, format, options)?;
    let (found, others) = find_sheets(workbook.as_mut(), aliases, options)?;
    let mut inspection = inspection(format, found, others, options);
    let n_rows = scan.n_lines.saturating_sub(inspection.header_row.into());
    inspection.rows_at_most = Some(n_rows);
    inspection.sheet = None;
    refuse_unused(&inspection, options)?;
    Ok(inspection)
}

fn inspection(
    format: Format,
    found: Found,
    others: Vec<SkippedSheet>,
    options: &Options,
) -> Inspection {
    let (skipped, left_out) = match options.sheets {
        Some(_) => (others, Vec::new()),
        None => (Vec::new(), others),
    };
    let FurtherSheet {
        sheet,
        header_row,
        mapping,
    } = found.first;
    Inspection {
        format,
        sheet: Some(sheet),
        header_row,
        mapping,
        rows_at_most: found.rows_at_most,
        more: found.more,
        skipped,
        left_out,
    }
}

/// The sheets that have a header row.
struct Found {
    first: FurtherSheet,
    more: Vec<FurtherSheet>,
    rows_at_most: Option<u64>,
}

impl Found {
    /// Adds a sheet.
    fn with(found: Option<Self>, sheet: FurtherSheet, rows_at_most: Option<u64>) -> Self {
        let Some(mut found) = found else {
            return Self {
                first: sheet,
                more: Vec::new(),
                rows_at_most,
            };
        };
        let total = found.rows_at_most.zip(rows_at_most);
        found.rows_at_most = total.map(|(a, b)| a.saturating_add(b));
        found.more.push(sheet);
        found
    }
}

/// Takes the sheets asked for, or the first visible one that has a header row, and says why others
/// are passed over.
///
/// # Errors
///
/// When no sheet has a header row: of those that have none, why the one that was rather meant has not;
/// and where one of several has a header row that cannot be used.
fn find_sheets(
    workbook: &mut dyn Workbook,
    aliases: &Aliases,
    options: &Options,
) -> Result<(Found, Vec<SkippedSheet>), Refusal> {
    let chosen = choice::choose(workbook.sheets(), options)?;
    let mut found: Option<Found> = None;
    let mut without: Vec<(String, NoHeader)> = Vec::new();
    let mut names = chosen.names.into_iter();
    for sheet in names.by_ref() {
        let rows_at_most = workbook.verify(&sheet)?;
        // the header row is one of them
        let rows_at_most = rows_at_most.map(|n_rows| n_rows.saturating_sub(1));
        let head = read_head(workbook, &sheet, options)?;
        let (header_row, mapping) = match head.find(aliases, options.max_columns) {
            Ok(found) => found,
            Err(none) if options.sheets.is_some() && none.is_faulty() => {
                return Err(none.of_sheet(&sheet));
            }
            Err(none) => {
                without.push((sheet, none));
                continue;
            }
        };
        if options.merged_cells == MergedCells::Fill {
            workbook.merged(&sheet)?;
        }
        let sheet = FurtherSheet {
            sheet,
            header_row,
            mapping,
        };
        found = Some(Found::with(found, sheet, rows_at_most));
        if options.sheets.is_none() {
            break;
        }
    }
    match found {
        None => Err(no_header(without)),
        Some(found) => {
            let further = names.collect();
            let others = passed_over(without, further, chosen.hidden, chosen.repeated);
            Ok((found, others))
        }
    }
}

fn no_header(without: Vec<(String, NoHeader)>) -> Refusal {
    let mut best: Option<NoHeader> = None;
    for (_, none) in without {
        if best.as_ref().is_none_or(|best| none.rank() > best.rank()) {
            best = Some(none);
        }
    }
    best.map_or_else(
        || Refusal::new(Refusal::EMPTY_FILE, "the workbook has no sheet with cells"),
        |none| none.refusal,
    )
}

fn passed_over(
    without: Vec<(String, NoHeader)>,
    further: Vec<String>,
    hidden: Vec<String>,
    repeated: Vec<String>,
) -> Vec<SkippedSheet> {
    let named = |names: Vec<String>, code: &'static str, message: &'static str| {
        let names = names.into_iter().take(choice::MAX_SHEETS);
        names.map(move |sheet| SkippedSheet {
            sheet,
            code: code.to_owned(),
            message: message.to_owned(),
        })
    };
    let further = named(
        further,
        SkippedSheet::FURTHER,
        "only the first sheet with the required columns is read; sheets=all reads this one, too",
    );
    let hidden = named(
        hidden,
        SkippedSheet::HIDDEN,
        "the sheet is hidden; include_hidden_sheets reads it",
    );
    let repeated = named(
        repeated,
        SkippedSheet::REPEATED,
        "another sheet has the same name; rename one of them",
    );
    let without = without.into_iter().map(|(sheet, none)| SkippedSheet {
        sheet,
        code: none.refusal.code.to_owned(),
        message: none.refusal.message,
    });
    let others = without.chain(further).chain(hidden);
    others.chain(repeated).collect()
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
    let Some(format) = detect::detect(source.path(), options.csv_charset)?.workbook() else {
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

/// Reads the rows of an inspected file and hands them to `sink` in chunks, sheet by sheet: no chunk
/// has rows of two.
///
/// The same file, inspection and options give the same chunks. The sink ends the reading with
/// [`ControlFlow::Break`]. Runs for seconds: call it on a blocking thread. Rows are checked, and the
/// sink is called, on a thread beside it, which is gone when this returns.
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
    sink: &mut (dyn FnMut(Chunk) -> ControlFlow<()> + Send),
) -> Result<Summary, Refusal> {
    read_on(None, path, inspection, options, sink)
}

/// As [`read`], with what [`inspect_and_keep`] opened of the same file, which may lie at another path
/// by now.
///
/// # Errors
///
/// As [`read`].
pub fn read_on(
    opened: Option<Opened>,
    path: &Path,
    inspection: &Inspection,
    options: &Options,
    sink: &mut (dyn FnMut(Chunk) -> ControlFlow<()> + Send),
) -> Result<Summary, Refusal> {
    let opened = opened.and_then(|opened| opened.go_on(path, options));
    let (_source, mut workbook) = match opened {
        Some(opened) => opened,
        None => open(path, inspection, options)?,
    };
    let is_csv = matches!(inspection.format, Format::Csv(_));
    let rules = rules(workbook.epoch(), is_csv, options);
    let mut reading = Reading::new(path, inspection, rules, options, sink);
    for (place, head) in inspection.heads().enumerate() {
        let n_columns = match head.mapping.columns.last() {
            Some(column) if !is_csv => column.index + 1,
            _ => CSV_COLUMNS,
        };
        let limits = (n_columns, options.max_cell_chars.saturating_mul(4));
        let sheet = head.sheet.unwrap_or_default();
        let mut fill = match options.merged_cells {
            MergedCells::First => None,
            MergedCells::Fill => Some(Fill::new(
                workbook.merged(sheet)?,
                head.header_row,
                n_columns,
            )),
        };
        reading.turn_to(place);
        workbook.with_rows(sheet, &mut |rows| match &mut fill {
            None => reading.run(rows, limits, head.header_row),
            Some(fill) => {
                let mut filled = Filled { fill, rows };
                reading.run(&mut filled, limits, head.header_row)
            }
        })?;
        if reading.summary().stopped {
            break;
        }
    }
    Ok(reading.summary())
}

/// Opens an inspected file.
fn open(
    path: &Path,
    inspection: &Inspection,
    options: &Options,
) -> Result<(unpack::Source, Box<dyn Workbook>), Refusal> {
    let source = unpack::open(path)?;
    let workbook = rows::open(source.path(), inspection.format, options)?;
    Ok((source, workbook))
}

/// Reads the rows of an inspected file's first sheet as cells, the header row and those above it with them, and
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
    let (_source, mut workbook) = open(path, inspection, options)?;
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
