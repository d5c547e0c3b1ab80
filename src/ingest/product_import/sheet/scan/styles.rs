//! What the number formats of a workbook's cells mean: a date, a length of time, leading zeros.

use std::collections::HashMap;
use std::io::Read;

use super::cursor::{Parsed, Place, Stop, Tag, number};
use super::text::{NO_UTF8, decode};
use super::window::{Halt, Window, root};

/// Most cell formats; Excel has 64,000 at most.
const MAX_STYLES: usize = 65_536;
/// Most number formats; a workbook has some dozens.
const MAX_FORMATS: usize = 65_536;

/// What a number with a format is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Meaning {
    /// A number.
    #[default]
    Number,
    /// A date, a time, or both.
    Moment,
    /// A length of time.
    Length,
}

/// A cell format, as far as it decides what a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    /// What the number is.
    pub(super) meaning: Meaning,
    /// Digits that a format such as `00000` asks for, else 0.
    pub(super) digits: u8,
}

/// Reads the cell formats of a part of styles, in the order in which cells name them.
///
/// # Errors
///
/// When the part is not in the dialect or damaged.
pub(super) fn read(part: impl Read) -> Result<Vec<Style>, Halt> {
    let mut window = Window::new(part);
    root(&mut window, b"styleSheet")?;
    let mut table = Table::default();
    loop {
        let is_end = window.parse(|cursor| {
            cursor.text()?;
            table.take(&cursor.tag()?)
        })?;
        if is_end {
            return Ok(table.cells);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Inside {
    #[default]
    Other,
    Formats,
    Cells,
}

#[derive(Default)]
struct Table {
    inside: Inside,
    formats: HashMap<Vec<u8>, Style>,
    cells: Vec<Style>,
}

impl Table {
    /// Takes the next tag; `true` at the end of the styles.
    fn take(&mut self, tag: &Tag<'_>) -> Parsed<bool> {
        tag.check()?;
        match (tag.name, tag.place) {
            (b"numFmts", Place::Start) => self.inside = Inside::Formats,
            (b"cellXfs", Place::Start) => self.inside = Inside::Cells,
            (b"numFmts" | b"cellXfs", Place::End) => self.inside = Inside::Other,
            (b"numFmt", Place::Start | Place::Empty) if self.inside == Inside::Formats => {
                self.add_format(tag)?;
            }
            (b"xf", Place::Start | Place::Empty) if self.inside == Inside::Cells => {
                self.add_cell(tag)?;
            }
            (b"styleSheet", Place::End) => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    fn add_format(&mut self, tag: &Tag<'_>) -> Parsed<()> {
        let id = tag.attribute(b"numFmtId")?;
        let code = tag.attribute(b"formatCode")?;
        if let (Some(id), Some(code)) = (id, code) {
            let mut text = Vec::new();
            decode(code, &mut text)?;
            let text = String::from_utf8(text).map_err(|_| Stop::Foreign(NO_UTF8))?;
            if self.formats.len() == MAX_FORMATS {
                return Err(Stop::Foreign("more number formats than a workbook has"));
            }
            self.formats.insert(id.to_vec(), style(&text));
        }
        Ok(())
    }

    fn add_cell(&mut self, tag: &Tag<'_>) -> Parsed<()> {
        if self.cells.len() == MAX_STYLES {
            return Err(Stop::Foreign("more cell formats than a workbook has"));
        }
        let id = tag.attribute(b"numFmtId")?.unwrap_or_default();
        let custom = self.formats.get(id).copied();
        self.cells.push(custom.unwrap_or_else(|| Style {
            meaning: built_in(id),
            digits: 0,
        }));
        Ok(())
    }
}

/// Returns what the formats mean that are not written down (ECMA-376 18.8.30), those of East Asia
/// with them.
fn built_in(id: &[u8]) -> Meaning {
    match number(id) {
        Some(14..=22 | 27..=36 | 45 | 47 | 50..=58) => Meaning::Moment,
        Some(46) => Meaning::Length,
        _ => Meaning::Number,
    }
}

fn style(code: &str) -> Style {
    Style {
        meaning: meaning(code),
        digits: least_digits(code),
    }
}

/// Returns how many digits a format asks for at least, as [`least_digits`]; `None` for one of dates,
/// times or lengths of time.
pub(in super::super) fn number_digits(code: &str) -> Option<u8> {
    let Style { meaning, digits } = style(code);
    (meaning == Meaning::Number).then_some(digits)
}

/// Returns how many digits a format such as `00000` asks for at least, 0 for any other one. Colours,
/// locales and gaps change nothing of what is shown, and the first section decides.
pub(in super::super) fn least_digits(code: &str) -> u8 {
    let mut chars = code.chars();
    let mut n_digits = 0_u8;
    while let Some(c) = chars.next() {
        match c {
            '0' => n_digits = n_digits.saturating_add(1),
            '_' | '*' => drop(chars.next()),
            '[' => drop(chars.find(|c| *c == ']')),
            ';' => break,
            _ => return 0,
        }
    }
    if n_digits > 1 { n_digits } else { 0 }
}

/// Returns what a format code makes of a positive number: its first section decides.
fn meaning(code: &str) -> Meaning {
    let mut chars = code.chars();
    let mut after_a = false;
    while let Some(c) = chars.next() {
        match c.to_ascii_lowercase() {
            // the next character is shown, or is as wide as a gap
            '\\' | '_' | '*' => drop(chars.next()),
            '"' => drop(chars.find(|c| *c == '"')),
            ';' => return Meaning::Number,
            '[' => {
                let unit: String = chars.by_ref().take_while(|c| *c != ']').collect();
                if is_unit(&unit) {
                    return Meaning::Length;
                }
            }
            'a' => after_a = true,
            // AM/PM or A/P; `a` alone is of General
            'p' | 'm' | '/' if after_a => return Meaning::Moment,
            'd' | 'm' | 'h' | 'y' | 's' if !after_a => return Meaning::Moment,
            _ => {}
        }
    }
    Meaning::Number
}

/// Whether brackets hold hours, minutes or seconds that go on counting, as in `[hh]:mm`.
fn is_unit(inside: &str) -> bool {
    ['h', 'm', 's']
        .iter()
        .any(|unit| !inside.is_empty() && inside.chars().all(|c| c.eq_ignore_ascii_case(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_dates_times_and_lengths() {
        for code in [
            "yyyy-mm-dd",
            "DD.MM.YY;@",
            "[$-407]d. mmmm yyyy",
            "h:mm AM/PM",
            "*-yyyy",
            "[Red]ss",
        ] {
            assert_eq!(meaning(code), Moment, "{code}");
        }
        for code in ["[h]:mm:ss", "[SS].000", "[>=1][m]", "[Blue]\\+[hh]:mm;0"] {
            assert_eq!(meaning(code), Length, "{code}");
        }
        for code in [
            "General",
            "0.00",
            "#,##0\\d",
            "0\" days\"",
            "0_m",
            "0*s",
            "0;yyyy",
            "[$-409]0",
            "#,##0 [$€-407]",
            "",
        ] {
            assert_eq!(meaning(code), Number, "{code}");
        }
    }

    use Meaning::{Length, Moment, Number};

    #[test]
    fn formats_of_nothing_but_digits() {
        for code in [
            "00000",
            "[$-407]00000",
            "[Red]00000",
            "00000;-00000",
            "00000;;",
            "00000;@",
            "00000_)",
            "*x00000",
        ] {
            assert_eq!(least_digits(code), 5, "{code}");
        }
        for code in [
            "0",
            "0.00",
            "#,##0",
            "000-000",
            "\"SKU-\"0000",
            "\\A0",
            "General",
            "",
            ";00",
        ] {
            assert_eq!(least_digits(code), 0, "{code}");
        }
        assert_eq!(least_digits(&"0".repeat(1_000)), u8::MAX);
        let codes = ["00000", "[Red]0.00", "[h]00", "yyyy"].map(number_digits);
        assert_eq!(codes, [Some(5), Some(0), None, None]);
    }

    #[test]
    fn cells_name_formats_that_are_written_down_or_built_in() {
        let xml = "<styleSheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\">\
            <numFmts count=\"2\"><numFmt numFmtId=\"164\" formatCode=\"00000\"/>\
            <numFmt numFmtId=\"165\" formatCode=\"yyyy&quot;-&quot;mm\"/></numFmts>\
            <cellStyleXfs><xf numFmtId=\"14\"/></cellStyleXfs>\
            <cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"164\"><alignment/></xf>\
            <xf numFmtId=\"165\"/><xf numFmtId=\"14\"/><xf numFmtId=\"46\"/><xf/></cellXfs>\
            <dxfs><dxf><numFmt numFmtId=\"0\" formatCode=\"000\"/></dxf></dxfs></styleSheet>";
        let styles = read(xml.as_bytes()).unwrap();
        let meanings: Vec<Meaning> = styles.iter().map(|style| style.meaning).collect();
        assert_eq!(meanings, [Number, Number, Moment, Moment, Length, Number]);
        let digits: Vec<u8> = styles.iter().map(|style| style.digits).collect();
        assert_eq!(digits, [0, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn no_more_are_kept_than_a_workbook_has() {
        let of = |formats: usize, cells: usize| {
            let format = |id| format!("<numFmt numFmtId=\"{id}\" formatCode=\"0\"/>");
            let formats: String = (0..formats).map(format).collect();
            let xml = format!(
                "<styleSheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\">\
                 <numFmts>{formats}</numFmts><cellXfs>{}</cellXfs></styleSheet>",
                "<xf/>".repeat(cells)
            );
            read(xml.as_bytes()).map(|styles| styles.len())
        };
        assert_eq!(of(MAX_FORMATS, MAX_STYLES).ok(), Some(MAX_STYLES));
        for (formats, cells) in [(MAX_FORMATS + 1, 1), (1, MAX_STYLES + 1)] {
            let declined = matches!(of(formats, cells), Err(Halt::Foreign(_)));
            assert!(declined, "{formats} {cells}");
        }
    }
}
