//! The rows of a sheet.

use std::io::Read;

use super::super::super::row::cell::{Cell, RowBuf};
use super::super::refusal::Refusal;
use super::super::rows::Rows;
use super::cell::{Found, Value, cell};
use super::cursor::{Cursor, Parsed, Place, Stop, Tag, number};
use super::strings::Strings;
use super::styles::{Meaning, Style};
use super::text::NO_UTF8;
use super::window::{Halt, Window, root};

/// The rows of a sheet of which the part is being inflated.
pub(super) struct SheetRows<'w, R> {
    window: Window<R>,
    strings: &'w mut Strings,
    styles: &'w [Style],
    text: Vec<u8>,
    /// The next row, of which the start tag was taken.
    ahead: Option<Head>,
    last: u32,
    foreign: Option<&'static str>,
}

/// The start tag of a row.
#[derive(Debug, Clone, Copy)]
struct Head {
    number: u32,
    is_empty: bool,
    is_hidden: bool,
}

/// What comes between rows.
enum Between {
    Row(Head),
    End,
}

impl<'w, R: Read> SheetRows<'w, R> {
    /// Begins a sheet: passes over all that comes before its rows.
    ///
    /// # Errors
    ///
    /// When it is not in the dialect, or damaged.
    pub(super) fn begin(
        part: R,
        strings: &'w mut Strings,
        styles: &'w [Style],
    ) -> Result<Self, Halt> {
        let mut window = Window::new(part);
        root(&mut window, b"worksheet")?;
        let mut rows = Self {
            window,
            strings,
            styles,
            text: Vec::new(),
            ahead: None,
            last: 0,
            foreign: None,
        };
        if rows.find_data()? {
            rows.ahead = rows.find_row(0)?;
        }
        Ok(rows)
    }

    /// Returns the number of the last row that was given, 0 before the first.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// Says why the rows are not of the dialect behind the last one given.
    pub(super) fn foreign(&self) -> Option<&'static str> {
        self.foreign
    }

    /// Passes over the elements before the rows; `false` when the sheet has no room for any.
    fn find_data(&mut self) -> Result<bool, Halt> {
        loop {
            let data = self.window.parse(|cursor| {
                cursor.text()?;
                let tag = cursor.tag()?;
                tag.check()?;
                match (tag.name, tag.place) {
                    (b"sheetData", place) => Ok(Some(place != Place::Empty)),
                    (b"worksheet", Place::End) => Err(Stop::Foreign("a sheet without rows")),
                    _ => Ok(None),
                }
            })?;
            if let Some(has_rows) = data {
                return Ok(has_rows);
            }
        }
    }

    /// Takes the start tag of the row behind row `before`.
    fn find_row(&mut self, before: u32) -> Result<Option<Head>, Halt> {
        let between = self.window.parse(|cursor| between(cursor, before))?;
        Ok(match between {
            Between::Row(head) => Some(head),
            Between::End => None,
        })
    }

    fn read(&mut self, row: &mut RowBuf) -> Result<bool, Halt> {
        while let Some(head) = self.ahead.take() {
            row.start(head.number);
            if head.is_hidden {
                row.mark_hidden();
            }
            let has_cells = !head.is_empty && self.cells(head.number, row)?;
            self.ahead = self.find_row(head.number)?;
            if has_cells {
                self.last = head.number;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cells(&mut self, number: u32, row: &mut RowBuf) -> Result<bool, Halt> {
        let mut digits = [0; 10];
        let digits = written(number, &mut digits);
        let mut next = 0;
        while let Some(found) = {
            let text = &mut self.text;
            self.window
                .parse(|cursor| cell(cursor, digits, next, text))?
        } {
            next = found.column + 1;
            self.put(&found, row)?;
        }
        Ok(next > 0)
    }

    #[inline]
    fn put(&mut self, found: &Found, row: &mut RowBuf) -> Result<(), Halt> {
        let cell = match found.value {
            Value::Empty => return Ok(()),
            Value::Shared(number) => Cell::Text(self.strings.get(number)?),
            Value::Number(value) => {
                let style = usize::try_from(found.style.unwrap_or(0)).unwrap_or(usize::MAX);
                let style = self.styles.get(style).copied().unwrap_or_default();
                match style.meaning {
                    // a cell without a style has the first one's digits but is never a date
                    Meaning::Moment if found.style.is_some() => Cell::Serial(value),
                    Meaning::Length if found.style.is_some() => {
                        let length = format!("{value} days");
                        row.set(found.column, Cell::Duration(&length));
                        return Ok(());
                    }
                    _ => Cell::Number {
                        value,
                        digits: style.digits,
                    },
                }
            }
            Value::Bool(value) => Cell::Bool(value),
            Value::Error => Cell::Error(utf8(&self.text)?),
            Value::Uncalculated => Cell::Uncalculated,
            Value::Text => Cell::Text(utf8(&self.text)?),
            Value::IsoDate => Cell::IsoDate(utf8(&self.text)?),
        };
        row.set(found.column, cell);
        Ok(())
    }
}

impl<R: Read> Rows for SheetRows<'_, R> {
    fn tells_hidden(&self) -> bool {
        true
    }

    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        if self.foreign.is_some() {
            return Ok(false);
        }
        self.read(row).map_err(|halt| {
            self.ahead = None;
            match halt {
                Halt::Refused(refusal) => refusal,
                Halt::Foreign(why) => {
                    self.foreign = Some(why);
                    declined(why)
                }
            }
        })
    }
}

/// Returns the refusal that says that the rest is foreign.
pub(super) fn declined(why: &str) -> Refusal {
    Refusal::format(format!("the sheet has {why}"))
}

fn between(cursor: &mut Cursor<'_>, before: u32) -> Parsed<Between> {
    let tag = cursor.tag()?;
    match (tag.name, tag.place) {
        (b"row", Place::Start | Place::Empty) => head(&tag, before).map(Between::Row),
        (b"sheetData", Place::End) => Ok(Between::End),
        _ => Err(Stop::Foreign("an unknown element among the rows")),
    }
}

fn head(tag: &Tag<'_>, before: u32) -> Parsed<Head> {
    let mut number_is = before.saturating_add(1);
    let mut is_hidden = false;
    tag.each(|name, value| {
        match name {
            b"r" => {
                number_is = number(value).ok_or(Stop::Foreign("a row number of unknown form"))?;
            }
            b"hidden" => is_hidden = matches!(value, b"1" | b"true"),
            _ => {}
        }
        Ok(())
    })?;
    if number_is <= before {
        return Err(Stop::Foreign("rows that are not in order"));
    }
    Ok(Head {
        number: number_is,
        is_empty: tag.place == Place::Empty,
        is_hidden,
    })
}

fn utf8(text: &[u8]) -> Result<&str, Halt> {
    std::str::from_utf8(text).map_err(|_| Halt::Foreign(NO_UTF8))
}

/// Writes a number in digits.
fn written(number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = number;
    let mut n_digits = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        n_digits += 1;
        if rest == 0 {
            break;
        }
    }
    digits.get(10 - n_digits..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for n in [1, 9, 10, 1_048_576, u32::MAX] {
            assert_eq!(written(n, &mut [0; 10]), n.to_string().as_bytes());
        }
    }
}
