//! What is asked of an import beside its file: the mode, a dry run, what duplicates come to. Pure.
//!
//! [`Wish`] gathers it from names and values, whoever gives them: the fields of a form, a query
//! string, the command line. A new option is an arm of [`Wish::set`] and a line of [`NAMES`].

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::{
    row::{header_map::HeaderMap, locale::Locale},
    sheet::{Charset, MergedCells, Options, Quote, Sheets},
};
use crate::config::{self, ProductImport, SameFile};

/// What becomes of rows that the catalog has, lacks, or has otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// New rows are inserted, changed ones updated.
    #[default]
    Upsert,
    /// New rows are inserted; one whose product is there otherwise is a row error.
    InsertOnly,
    /// Changed rows are updated; one whose product is not there is a row error.
    UpdateOnly,
    /// As [`Mode::Upsert`], and at the end the owner's live products that the file lacks are archived.
    ReplaceAll,
}

/// What becomes of rows of one file that have the same code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// The first one counts, the others are row errors that name it.
    #[default]
    FirstWins,
    /// The last one counts, the others are row errors that name it.
    LastWins,
    /// All of them are row errors.
    Reject,
}

/// What an import does: part of `ingestd.runs.params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// What becomes of rows that the catalog has, lacks, or has otherwise.
    pub mode: Mode,
    /// Whether nothing is written and everything counted.
    pub dry_run: bool,
    /// What becomes of rows with the same code.
    pub duplicates: Duplicates,
    /// Of a hundred live products at most this many are archived by [`Mode::ReplaceAll`], else none.
    pub max_drop_percent: u8,
    /// How numbers and dates are written in text cells.
    pub locale: Locale,
    /// Whether hidden rows are passed over.
    pub skip_hidden_rows: bool,
    /// What the cells of merged ranges are worth.
    pub merged_cells: MergedCells,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            dry_run: false,
            duplicates: Duplicates::default(),
            max_drop_percent: 20,
            locale: Locale::default(),
            skip_hidden_rows: false,
            merged_cells: MergedCells::First,
        }
    }
}

impl Plan {
    /// Says whether the codes of the whole file must be known before its first row is written.
    #[must_use]
    pub fn needs_codes(&self) -> bool {
        self.mode == Mode::ReplaceAll || self.duplicates != Duplicates::FirstWins
    }

    /// Returns a number that changes whenever the same file could come to something else: `reading`
    /// is [`Inspection::fingerprint`](super::sheet::Inspection::fingerprint).
    #[must_use]
    pub fn hash(&self, reading: i64) -> i64 {
        let (mode, duplicates, locale) = (self.mode, self.duplicates, self.locale);
        let text = format!("{reading} {mode:?} {duplicates:?} {locale:?}");
        XxHash3_64::oneshot(text.as_bytes()).cast_signed()
    }

    /// Tells a reader's options what of it concerns the reader.
    pub fn apply(&self, options: &mut Options) {
        options.locale = self.locale;
        options.skip_hidden_rows = self.skip_hidden_rows;
        options.merged_cells = self.merged_cells;
        options.allow_duplicates = self.duplicates != Duplicates::FirstWins;
    }
}

/// The names of options, as forms, queries and this module's errors have them.
pub const NAMES: [&str; 18] = [
    "mode",
    "dry_run",
    "duplicates",
    "max_drop_percent",
    "on_duplicate_file",
    "priority",
    "sheet",
    "sheet_number",
    "sheets",
    "include_hidden_sheets",
    "skip_hidden_rows",
    "merged_cells",
    "mapping",
    "delimiter",
    "quote",
    "encoding",
    "decimal",
    "dates",
];

/// Everything that is asked for with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What the import does.
    pub plan: Plan,
    /// What becomes of a file that was imported before.
    pub same_file: SameFile,
    /// 0 urgent to 3 background; `None`: 1.
    pub priority: Option<i16>,
    /// How the file is to be looked at.
    pub look: Look,
}

/// Where in a file the rows are, and how its text is to be read; what is not said is found out.
///
/// What comes of it is kept with the import, so that its rows are read as they were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The sheet by its name; `None`: the first visible one that has the required headers.
    pub sheet: Option<String>,
    /// The sheet by its place, from 1, where no name is given.
    pub sheet_number: Option<u8>,
    /// The sheets where several are read; they count before `sheet` and `sheet_number`.
    pub sheets: Option<Sheets>,
    /// What headers mean.
    pub mapping: HeaderMap,
    /// The name of a saved mapping that says so; looked up before the file is looked at.
    pub saved_mapping: Option<String>,
    /// Whether hidden sheets are looked at, too.
    pub include_hidden_sheets: bool,
    /// The delimiter of delimited text.
    pub delimiter: Option<u8>,
    /// The quote of delimited text.
    pub quote: Option<Quote>,
    /// The encoding of delimited text.
    pub encoding: Option<Charset>,
}

impl Look {
    /// Tells a reader's options.
    pub fn apply(&self, options: &mut Options) {
        options.sheet.clone_from(&self.sheet);
        options.sheet_number = self.sheet_number.map(u32::from);
        options.sheets.clone_from(&self.sheets);
        options.mapping.clone_from(&self.mapping);
        options.include_hidden_sheets = self.include_hidden_sheets;
        options.csv_delimiter = self.delimiter;
        options.csv_quote = self.quote;
        options.csv_charset = self.encoding;
    }
}

/// An option that is none, or a value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOption(String);

impl From<&ProductImport> for Wish {
    /// Asks for what the configuration says where nobody asks for anything.
    fn from(config: &ProductImport) -> Self {
        Self {
            plan: Plan {
                max_drop_percent: config.max_drop_percent,
                ..Plan::default()
            },
            same_file: config.on_duplicate_file,
            priority: None,
            look: Look::default(),
        }
    }
}

impl Wish {
    /// Takes an option by its name; case and the signs between words do not matter: `dryRun`,
    /// `dry-run`. Returns `false` where there is no such option.
    ///
    /// # Errors
    ///
    /// [`BadOption`] where the value does not fit; it names what does.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, BadOption> {
        let Some(name) = known(name) else {
            return Ok(false);
        };
        let value = value.trim();
        match name {
            "mode" => self.plan.mode = word(name, value)?,
            "dry_run" => self.plan.dry_run = truth(name, value)?,
            "duplicates" => self.plan.duplicates = word(name, value)?,
            "max_drop_percent" => {
                self.plan.max_drop_percent = number(name, value, 100)?;
            }
            "on_duplicate_file" => self.same_file = word(name, value)?,
            "priority" => self.priority = Some(number(name, value, 3)?.into()),
            "sheet" => self.look.sheet = (!value.is_empty()).then(|| value.to_owned()),
            "sheet_number" => {
                let place = number(name, value, u8::MAX)?;
                self.look.sheet_number = (place > 0).then_some(place);
            }
            "sheets" => {
                let sheets = Sheets::parse(value);
                self.look.sheets = Some(sheets.map_err(|why| BadOption(format!("sheets: {why}")))?);
            }
            "include_hidden_sheets" => self.look.include_hidden_sheets = truth(name, value)?,
            "skip_hidden_rows" => self.plan.skip_hidden_rows = truth(name, value)?,
            "merged_cells" => self.plan.merged_cells = word(name, value)?,
            "mapping" if value.starts_with('@') => {
                let name = value.trim_start_matches('@');
                let checked = super::saved_map::check_name(name);
                checked.map_err(|rule| BadOption(format!("mapping: @ and {rule}")))?;
                self.look.saved_mapping = Some(name.to_owned());
            }
            "mapping" => {
                let mapping = HeaderMap::parse(value);
                let mapping = mapping.map_err(|why| BadOption(format!("mapping {why}")))?;
                self.look.mapping = mapping;
                self.look.saved_mapping = None;
            }
            "delimiter" => self.look.delimiter = Some(delimiter(value)?),
            "quote" => self.look.quote = Some(word(name, value)?),
            "encoding" => self.look.encoding = Some(encoding(value)?),
            "decimal" => self.plan.locale.decimal = word(name, value)?,
            "dates" => self.plan.locale.dates = word(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Returns the option that somebody means.
pub(super) fn known(name: &str) -> Option<&'static str> {
    let folded = super::row::header::fold(name);
    let is = |known: &&&str| super::row::header::fold(known) == folded;
    NAMES.iter().find(is).copied()
}

/// Returns the option that somebody may have meant: one of a longer name that differs by a slip. What
/// is nearly a short one, as `date`, may be a form's own field.
pub(super) fn nearly(name: &str) -> Option<&'static str> {
    let long = NAMES
        .into_iter()
        .filter(|known| known.len() >= "dry_run".len());
    let written = name.to_lowercase().replace('-', "_");
    let near = config::nearest(&written, long)?;
    (strsim::osa_distance(&written, near) == 1).then_some(near)
}

/// Reads one of the words of an option, as serde writes them.
fn word<T: for<'de> Deserialize<'de>>(name: &str, value: &str) -> Result<T, BadOption> {
    let folded = value.to_lowercase().replace('-', "_");
    serde_json::from_value(folded.into()).map_err(|error| {
        // serde's own sentence names the words: unknown variant `x`, expected one of …
        BadOption(format!("{name}: {error}"))
    })
}

fn truth(name: &str, value: &str) -> Result<bool, BadOption> {
    match value.to_lowercase().as_str() {
        "" | "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        other => Err(BadOption(format!(
            "{name}: `{other}` is neither true nor false"
        ))),
    }
}

fn delimiter(value: &str) -> Result<u8, BadOption> {
    match (value, value.as_bytes()) {
        ("tab", _) => Ok(b'\t'),
        (_, [sign]) if sign.is_ascii_punctuation() => Ok(*sign),
        _ => Err(BadOption(format!(
            "delimiter: `{value}` is neither one sign, such as ; or |, nor `tab`"
        ))),
    }
}

fn encoding(value: &str) -> Result<Charset, BadOption> {
    Charset::by_name(value).ok_or_else(|| {
        BadOption(format!(
            "encoding: `{value}` is none; there are utf8, utf16_le, utf16_be, and the names that \
             browsers know, such as windows-1252, windows-1250, windows-1251, iso-8859-2, shift_jis"
        ))
    })
}

fn number(name: &str, value: &str, max: u8) -> Result<u8, BadOption> {
    let number = value.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| BadOption(format!("{name}: `{value}` is no number from 0 to {max}")))
}

#[cfg(test)]
mod tests {
    use super::super::row::locale::{DateOrder, DecimalSign};
    use super::*;

    fn wish(options: &[(&str, &str)]) -> Result<Wish, BadOption> {
        let mut wish = Wish::from(&ProductImport::default());
        for (name, value) in options {
            assert!(wish.set(name, value)?, "{name}");
        }
        Ok(wish)
    }

    #[test]
    fn options_come_in_any_spelling() {
        let asked = wish(&[
            ("Mode", "replace-all"),
            ("dryRun", "1"),
            ("max-drop-percent", "35"),
            ("priority", "0"),
            ("decimal", "comma"),
            ("dates", "dmy"),
            ("delimiter", "tab"),
            ("encoding", "windows1250"),
            ("sheet-number", "2"),
            ("sheets", "all"),
        ])
        .unwrap();
        assert_eq!(asked.plan.mode, Mode::ReplaceAll);
        assert!(asked.plan.dry_run);
        let mut options = Options::default();
        asked.look.apply(&mut options);
        assert_eq!(options.csv_delimiter, Some(b'\t'));
        assert_eq!(options.csv_charset, Some(Charset::WINDOWS_1250));
        assert_eq!(options.sheet_number, Some(2));
        assert_eq!(options.sheets, Some(Sheets::All));
        assert_eq!((asked.plan.max_drop_percent, asked.priority), (35, Some(0)));
        assert_eq!(wish(&[]).unwrap().plan, Plan::default());
    }

    #[test]
    fn a_value_that_does_not_fit_names_those_that_do() {
        let said = wish(&[("mode", "merge")]).unwrap_err().to_string();
        assert!(
            said.contains("mode") && said.contains("replace_all"),
            "{said}"
        );
        for (name, value) in [
            ("dry_run", "maybe"),
            ("priority", "4"),
            ("max_drop_percent", "-1"),
            ("delimiter", "xx"),
            ("encoding", "ebcdic"),
            ("sheets", ","),
            ("merged_cells", "down"),
            ("mapping", "Artikelnr=kode"),
            ("mapping", "@a b"),
        ] {
            assert!(wish(&[(name, value)]).is_err(), "{name}");
        }
    }

    #[test]
    fn what_a_reader_does_otherwise_it_is_told() {
        let asked = wish(&[
            ("decimal", "comma"),
            ("dates", "mdy"),
            ("skip_hidden_rows", "1"),
            ("merged_cells", "fill"),
            ("duplicates", "last_wins"),
        ]);
        let mut options = Options::default();
        asked.unwrap().plan.apply(&mut options);
        let told = (options.skip_hidden_rows, options.merged_cells);
        assert_eq!(told, (true, MergedCells::Fill));
        assert!(options.allow_duplicates);
        assert_eq!(options.locale.decimal, DecimalSign::Comma);
        assert_eq!(options.locale.dates, DateOrder::Mdy);
        Plan::default().apply(&mut options);
        assert_eq!(options.locale, Locale::default());
        assert!(!options.allow_duplicates && !options.skip_hidden_rows);
    }

    #[test]
    fn a_file_that_is_read_otherwise_is_another() {
        let hash = |options: &[(&str, &str)]| wish(options).unwrap().plan.hash(7);
        let mut hashes = vec![hash(&[]), Plan::default().hash(8)];
        for option in [
            ("mode", "insert_only"),
            ("mode", "replace_all"),
            ("duplicates", "last_wins"),
            ("duplicates", "reject"),
            ("decimal", "comma"),
            ("decimal", "point"),
            ("dates", "dmy"),
        ] {
            hashes.push(hash(&[option]));
        }
        let n_hashes = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), n_hashes);
        assert_eq!(hash(&[]), hash(&[("priority", "0")]));
    }

    #[test]
    fn every_name_is_an_option() {
        for name in NAMES {
            let mut wish = Wish::from(&ProductImport::default());
            assert_ne!(wish.set(name, "?"), Ok(false), "{name}");
        }
        let mut wish = Wish::from(&ProductImport::default());
        assert_eq!(wish.set("moed", "upsert"), Ok(false));
    }
}
