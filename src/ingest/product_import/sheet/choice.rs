//! Which sheets of a workbook are read, as somebody asks for them.

use std::fmt;

use serde::Deserialize;

use super::super::row::header::cut;
use super::options::Options;
use super::refusal::Refusal;
use super::rows::SheetName;

/// Sheets of one import at most.
pub(super) const MAX_SHEETS: usize = 100;

/// The sheets of an import of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sheets {
    /// All of them, in the order of their tabs; hidden ones where [`Options::include_hidden_sheets`]
    /// says so.
    All,
    /// These, in this order, hidden or not.
    Listed(Vec<SheetRef>),
}

/// How a sheet is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SheetRef {
    /// By its place among those with cells, from 1.
    Place(u32),
    /// By its name.
    Name(String),
    /// By its name, or by its place where none has that name.
    #[serde(skip)]
    Either(String, u32),
}

impl Sheets {
    /// Reads `all`, names and places with commas between, or a JSON list of names and numbers: in
    /// the list a text is a name, whatever it is and has in it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("all") {
            return Ok(Self::All);
        }
        let listed: Vec<SheetRef> = if text.starts_with('[') {
            serde_json::from_str(text)
                .map_err(|_| format!("`{}` is no JSON list of names and numbers", cut(text, 100)))?
        } else {
            let names = text.split(',').map(str::trim);
            names
                .filter(|name| !name.is_empty())
                .map(|name| match name.parse() {
                    Ok(place) => SheetRef::Either(name.to_owned(), place),
                    Err(_) => SheetRef::Name(name.to_owned()),
                })
                .collect()
        };
        match listed.len() {
            0 => Err("names no sheet; `all` reads all of them".to_owned()),
            n if n > MAX_SHEETS => Err(format!("names {n} sheets; at most {MAX_SHEETS} are read")),
            _ => Ok(Self::Listed(listed)),
        }
    }
}

impl SheetRef {
    /// Returns the sheet that is meant.
    fn find<'s>(&self, sheets: &'s [SheetName]) -> Option<&'s SheetName> {
        let named = |name: &str| sheets.iter().find(|sheet| sheet.name == name);
        let at = |place: u32| sheets.get(usize::try_from(place).ok()?.checked_sub(1)?);
        match self {
            Self::Name(name) => named(name),
            Self::Place(place) => at(*place),
            Self::Either(name, place) => named(name).or_else(|| at(*place)),
        }
    }
}

impl fmt::Display for SheetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => write!(f, "{place}"),
            Self::Name(name) | Self::Either(name, _) => write!(f, "\"{}\"", cut(name, 100)),
        }
    }
}

/// Sheets to look at, in order, and those passed over without a look.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// Names, each once.
    pub(super) names: Vec<String>,
    /// Names of hidden sheets that are not looked at.
    pub(super) hidden: Vec<String>,
    /// Names that several sheets have: only the first of them can be told from the others.
    pub(super) repeated: Vec<String>,
}

impl Chosen {
    fn take(&mut self, name: &str) {
        // as the tables of row errors store it
        let same =
            |taken: &String| taken.replace('\0', "\u{fffd}") == name.replace('\0', "\u{fffd}");
        if self.names.iter().any(same) {
            self.repeated.push(name.to_owned());
        } else {
            self.names.push(name.to_owned());
        }
    }
}

/// Returns the sheets that are asked for, in the order in which they are looked at.
///
/// # Errors
///
/// [`Refusal::NO_SUCH_SHEET`] where one is asked for that is not there, or more than can be read.
pub(super) fn choose(sheets: Vec<SheetName>, options: &Options) -> Result<Chosen, Refusal> {
    match &options.sheets {
        Some(Sheets::Listed(listed)) => all_listed(&sheets, listed),
        Some(Sheets::All) => {
            let chosen = shown(sheets, options.include_hidden_sheets);
            match chosen.names.len() {
                0..=MAX_SHEETS => Ok(chosen),
                n => Err(Refusal::new(
                    Refusal::NO_SUCH_SHEET,
                    format!(
                        "the workbook has {n} sheets, and at most {MAX_SHEETS} are read in one \
                         import; list those to read"
                    ),
                )),
            }
        }
        None => one(sheets, options),
    }
}

fn all_listed(sheets: &[SheetName], listed: &[SheetRef]) -> Result<Chosen, Refusal> {
    let mut chosen = Chosen::default();
    for wanted in listed {
        let found = wanted.find(sheets).ok_or_else(|| missing(sheets, wanted))?;
        if !chosen.names.contains(&found.name) {
            chosen.take(&found.name);
        }
    }
    Ok(chosen)
}

fn missing(sheets: &[SheetName], wanted: &SheetRef) -> Refusal {
    let names = sheets.iter().map(|sheet| sheet.name.as_str());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    let there = if names.is_empty() {
        "the file has no sheets".to_owned()
    } else {
        format!("there are: {}", cut(&names.join(", "), 500))
    };
    Refusal::new(
        Refusal::NO_SUCH_SHEET,
        format!("there is no sheet {wanted}; {there}"),
    )
}

/// Takes the sheets that are shown, and the hidden ones where they count, too.
fn shown(sheets: Vec<SheetName>, with_hidden: bool) -> Chosen {
    let mut chosen = Chosen::default();
    for sheet in sheets {
        if sheet.is_visible || with_hidden {
            chosen.take(&sheet.name);
        } else {
            chosen.hidden.push(sheet.name);
        }
    }
    chosen
}

/// Takes the one sheet asked for by name or place, or those of which the first that fits is read.
fn one(sheets: Vec<SheetName>, options: &Options) -> Result<Chosen, Refusal> {
    let wanted = match (&options.sheet, options.sheet_number) {
        (Some(name), _) => SheetRef::Name(name.clone()),
        (None, Some(place)) => SheetRef::Place(place),
        (None, None) => {
            let mut chosen = shown(sheets, options.include_hidden_sheets);
            chosen.names.truncate(MAX_SHEETS);
            return Ok(chosen);
        }
    };
    let found = wanted.find(&sheets);
    let found = found.ok_or_else(|| missing(&sheets, &wanted))?;
    Ok(Chosen {
        names: vec![found.name.clone()],
        ..Chosen::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[(&str, bool)]) -> Vec<SheetName> {
        let names = names.iter().map(|(name, is_visible)| SheetName {
            name: (*name).to_owned(),
            is_visible: *is_visible,
        });
        names.collect()
    }

    #[test]
    fn sheets_are_named_in_words_or_in_json() {
        assert_eq!(Sheets::parse(" ALL "), Ok(Sheets::All));
        let listed = |text| match Sheets::parse(text).unwrap() {
            Sheets::Listed(listed) => listed,
            Sheets::All => panic!("{text}"),
        };
        assert_eq!(
            listed("Lamps, 2024"),
            [
                SheetRef::Name("Lamps".into()),
                SheetRef::Either("2024".into(), 2024)
            ]
        );
        assert_eq!(
            listed("[\"A, B\", 2, \"all\"]"),
            [
                SheetRef::Name("A, B".into()),
                SheetRef::Place(2),
                SheetRef::Name("all".into())
            ]
        );
        for wrong in ["", ",", "[]", "[{}]", "[-1]", "[1", &"a,".repeat(101)] {
            assert!(Sheets::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_is_a_name_before_it_is_a_place() {
        let sheets = names(&[("A", true), ("1", false), ("2024", true)]);
        let found = |wanted: &str| {
            let Ok(Sheets::Listed(listed)) = Sheets::parse(wanted) else {
                panic!("{wanted}");
            };
            all_listed(&sheets, &listed).map(|chosen| chosen.names)
        };
        assert_eq!(found("1,2024,3").unwrap(), ["1", "2024"]);
        assert_eq!(found("[1, 2]").unwrap(), ["A", "1"]);
        assert_eq!(found("2").unwrap(), ["1"]);
        for missing in ["0", "4", "a", "A,B", "[0]"] {
            let refusal = found(missing).unwrap_err();
            assert_eq!(refusal.code, Refusal::NO_SUCH_SHEET);
            assert!(refusal.message.contains("A, 1, 2024"), "{refusal}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let sheets = names(&[("A", true), ("B", false), ("A", true), ("C", true)]);
        let chosen = shown(sheets.clone(), false);
        assert_eq!(
            (chosen.names, chosen.hidden, chosen.repeated),
            (
                vec!["A".to_owned(), "C".to_owned()],
                vec!["B".to_owned()],
                vec!["A".to_owned()]
            )
        );
        assert_eq!(shown(sheets, true).names, ["A", "B", "C"]);
    }
}
