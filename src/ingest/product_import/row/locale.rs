//! How numbers and dates are written in text cells, as the import says: never guessed. Pure.
//!
//! A number that is a number cell, and a date that is a date cell or ISO 8601 text, need none of
//! this and are read alike under every locale.

use std::borrow::Cow;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::{cell::Cell, fault::Fault, header::trim};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecimalSign {
    /// `1234.56` and nothing else.
    #[default]
    Plain,
    /// `1,234.56`, `1'234.56`, `1 234.56`, `$ 1234.56`.
    Point,
    /// `1.234,56`, `1 234,56`, `1234,56 €`.
    Comma,
}

/// How dates are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateOrder {
    /// `2026-01-31` and nothing else.
    #[default]
    Iso,
    /// `31.1.2026`, `31/01/2026`.
    Dmy,
    /// `1/31/2026`.
    Mdy,
    /// `2026/1/31`, `2026.01.31`.
    Ymd,
}

/// How numbers and dates are written in text cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Locale {
    /// Numbers.
    pub decimal: DecimalSign,
    /// Dates.
    pub dates: DateOrder,
}

impl Locale {
    /// Returns the plain number in a text cell that is written otherwise; `None` where the cell is
    /// to be read as it is.
    ///
    /// # Errors
    ///
    /// [`Fault::ForeignNumber`] where it is no number here.
    pub fn number_in(&self, cell: Cell<'_>) -> Result<Option<String>, Fault> {
        let example = match self.decimal {
            DecimalSign::Plain => return Ok(None),
            DecimalSign::Point => "1,234.56",
            DecimalSign::Comma => "1.234,56",
        };
        match cell {
            // an error such as #N/A is told as one
            Cell::Text(text) if !trim(text).is_empty() && !trim(text).starts_with('#') => {
                let plain = self.plain(trim(text)).filter(|plain| is_plain(plain));
                let plain = plain.ok_or(Fault::ForeignNumber { example })?;
                Ok(Some(plain.into_owned()))
            }
            _ => Ok(None),
        }
    }

    /// Returns the ISO text of a date, and a time behind it, in a text cell that is written
    /// otherwise; `None` where the cell is to be read as it is.
    #[must_use]
    pub fn date_in(&self, cell: Cell<'_>) -> Option<String> {
        let Cell::Text(text) = cell else { return None };
        let text = trim(text);
        let (date, time) = match text.rfind(' ') {
            Some(at) if text.get(at..)?.contains(':') => text.split_at(at),
            _ => (text, ""),
        };
        Some(format!("{}{time}", self.date(date)?))
    }

    /// Rewrites a number as it is written here to a plain one; `None` where it is none.
    ///
    /// Digits are grouped by threes or not at all, by one sign throughout, and a sign or word of a
    /// currency may stand on either side.
    #[must_use]
    pub fn plain<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let (point, groups): (char, &[char]) = match self.decimal {
            DecimalSign::Plain => return Some(Cow::Borrowed(text)),
            DecimalSign::Point => ('.', &[',', '\'', '’', ' ', '\u{a0}', '\u{202f}']),
            DecimalSign::Comma => (',', &['.', '\'', '’', ' ', '\u{a0}', '\u{202f}']),
        };
        let bare = without_currency(text);
        let (sign, unsigned) = match bare.strip_prefix(['-', '+']) {
            Some(rest) => (bare.get(..1)?, rest.trim_start()),
            None => ("", bare),
        };
        let (whole, fraction) = match unsigned.split_once(point) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let whole = ungrouped(whole, groups)?;
        Some(Cow::Owned(match fraction {
            Some(fraction) => format!("{sign}{whole}.{fraction}"),
            None => format!("{sign}{whole}"),
        }))
    }

    /// Writes a plain number as it is written here, without groups.
    #[must_use]
    pub fn number(&self, plain: &str) -> String {
        match self.decimal {
            DecimalSign::Comma => plain.replace('.', ","),
            _ => plain.to_owned(),
        }
    }

    /// Reads a date as it is written here; `None` where it is none, or ISO text is asked for.
    ///
    /// Years have four digits.
    #[must_use]
    pub fn date(&self, text: &str) -> Option<NaiveDate> {
        if self.dates == DateOrder::Iso {
            return None;
        }
        let sign = text.chars().find(|c| !c.is_ascii_digit())?;
        if !matches!(sign, '.' | '/' | '-') {
            return None;
        }
        let mut parts = text.split(sign).map(str::trim);
        let (one, two, three) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (year, month, day) = match self.dates {
            DateOrder::Dmy => (three, two, one),
            DateOrder::Mdy => (three, one, two),
            _ => (one, two, three),
        };
        let is_number = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
            lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(year, 4..=4) || !is_number(month, 1..=2) || !is_number(day, 1..=2) {
            return None;
        }
        NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
    }
}

/// Says by which `decimal` a text would be a number, and which; empty where by none.
pub(super) fn ways_to_read(text: &str) -> String {
    let ways = [("comma", DecimalSign::Comma), ("point", DecimalSign::Point)];
    let ways = ways.into_iter().filter_map(|(word, decimal)| {
        let locale = Locale {
            decimal,
            ..Locale::default()
        };
        let plain = locale.plain(trim(text)).filter(|plain| is_plain(plain))?;
        Some(format!("; with decimal={word} it is {plain}"))
    });
    ways.collect()
}

fn is_plain(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = unsigned.splitn(2, '.');
    parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Takes a currency's sign or word, of at most four letters, off either end.
fn without_currency(text: &str) -> &str {
    let is_currency = |c: char| c.is_alphabetic() || "€$£¥₽₴₺₹₩₪₫฿₦₱₡₲₵₸¢".contains(c);
    let text = text.trim();
    let front = text.trim_start_matches(is_currency);
    let front = if (text.len() - front.len()) <= 8 {
        front.trim_start()
    } else {
        text
    };
    let back = front.trim_end_matches(is_currency);
    if front.len() - back.len() <= 8 {
        back.trim_end()
    } else {
        front
    }
}

/// Takes out the signs between groups of three digits; `None` where they stand elsewhere or differ.
fn ungrouped(whole: &str, groups: &[char]) -> Option<String> {
    let Some(sign) = whole.chars().find(|c| groups.contains(c)) else {
        return Some(whole.to_owned());
    };
    let mut parts = whole.split(sign);
    let first = parts
        .next()
        .filter(|first| (1..=3).contains(&first.len()))?;
    let mut joined = first.to_owned();
    for part in parts {
        if part.len() != 3 {
            return None;
        }
        joined.push_str(part);
    }
    joined.bytes().all(|b| b.is_ascii_digit()).then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(decimal: DecimalSign, text: &str) -> Option<String> {
        let locale = Locale {
            decimal,
            ..Locale::default()
        };
        locale.plain(text).map(Cow::into_owned)
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        use DecimalSign::{Comma, Point};
        for (decimal, text, expected) in [
            (Comma, "1.234,56", Some("1234.56")),
            (Comma, "1 234,56 €", Some("1234.56")),
            (Comma, "-1\u{a0}234\u{a0}567,5 Kč", Some("-1234567.5")),
            (Comma, "1234", Some("1234")),
            (Comma, "1.234", Some("1234")),
            (Comma, "1.23", None),
            (Comma, "1.234.56", None),
            (Comma, "1'234.567,8", None),
            (Point, "1,234.56", Some("1234.56")),
            (Point, "CHF 1'234.56", Some("1234.56")),
            (Point, "$-5", Some("-5")),
            (Point, "12,34", None),
            (Point, ",234", None),
        ] {
            assert_eq!(
                plain(decimal, text).as_deref(),
                expected,
                "{decimal:?} {text}"
            );
        }
    }

    #[test]
    fn what_is_no_number_here_is_told_with_an_example() {
        for (decimal, example) in [
            (DecimalSign::Comma, "1.234,56"),
            (DecimalSign::Point, "1,234.56"),
        ] {
            let locale = Locale {
                decimal,
                ..Locale::default()
            };
            for text in [
                "1e5", "0x10", "abc", "1,2,3", "1.2.3", "--5", "1,", "5.", "€",
            ] {
                let fault = locale.number_in(Cell::Text(text));
                assert_eq!(fault, Err(Fault::ForeignNumber { example }), "{text}");
            }
            // nothing to be read otherwise: no text, none at all, an error of the sheet
            let number = Cell::Number {
                value: 1.5,
                digits: 0,
            };
            for cell in [number, Cell::Empty, Cell::Text(" "), Cell::Text("#N/A")] {
                assert_eq!(locale.number_in(cell), Ok(None), "{cell:?}");
            }
        }
        let as_is = Locale::default().number_in(Cell::Text("1e5"));
        assert_eq!(as_is, Ok(None));
    }

    #[test]
    fn dates_are_read_in_the_order_that_is_said() {
        use DateOrder::{Dmy, Iso, Mdy, Ymd};
        for (dates, text, expected) in [
            (Dmy, "31.1.2026", Some("2026-01-31")),
            (Dmy, "31/01/2026", Some("2026-01-31")),
            (Dmy, "31. 1. 2026", Some("2026-01-31")),
            (Dmy, "1/31/2026", None),
            (Dmy, "31.1.26", None),
            (Dmy, "31.1/2026", None),
            (Mdy, "1/31/2026", Some("2026-01-31")),
            (Ymd, "2026/1/31", Some("2026-01-31")),
            (Iso, "31.1.2026", None),
        ] {
            let locale = Locale {
                dates,
                ..Locale::default()
            };
            let read = locale.date(text).map(|date| date.to_string());
            assert_eq!(read.as_deref(), expected, "{dates:?} {text}");
        }
        let locale = Locale {
            dates: Dmy,
            ..Locale::default()
        };
        let moment = locale.date_in(Cell::Text(" 31. 1. 2026 14:30 "));
        assert_eq!(moment.as_deref(), Some("2026-01-31 14:30"));
        assert_eq!(locale.date_in(Cell::Text("2026-01-31")), None);
    }

    #[test]
    fn a_number_written_here_is_read_here() {
        for decimal in [DecimalSign::Plain, DecimalSign::Point, DecimalSign::Comma] {
            let locale = Locale {
                decimal,
                ..Locale::default()
            };
            let written = locale.number("1234.5");
            assert_eq!(locale.plain(&written).as_deref(), Some("1234.5"));
        }
    }
}
