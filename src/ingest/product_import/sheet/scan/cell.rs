//! One cell of a sheet.

use super::cursor::{Cursor, Parsed, Place, Stop, Tag, number};
use super::text::{NO_UTF8, decode, item};

/// What is in a cell; texts are put into a buffer of the caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// Nothing.
    Empty,
    /// The shared string of this number, from 0.
    Shared(u32),
    /// A number, which its style may make a date.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// An error value as it is shown, in the buffer.
    Error,
    /// A formula without a value.
    Uncalculated,
    /// The text in the buffer.
    Text,
    /// A date in ISO 8601, in the buffer.
    IsoDate,
}

/// A cell and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// Its column, from 0.
    pub(super) column: usize,
    /// The number of its style; `None` where it names none.
    pub(super) style: Option<u32>,
    /// What is in it.
    pub(super) value: Value,
}

/// The attribute `t` of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Shared,
    Inline,
    Formula,
    Bool,
    Error,
    IsoDate,
}

/// Takes the next cell of a row, or `None` with the row's end.
///
/// `row` is the row's number in digits, which cells repeat; a cell that says nothing of its place is
/// in column `next`. `text` is overwritten.
///
/// # Errors
///
/// When the cell is not in the dialect, or not whole.
#[inline]
pub(super) fn cell(
    cursor: &mut Cursor<'_>,
    row: &[u8],
    next: usize,
    text: &mut Vec<u8>,
) -> Parsed<Option<Found>> {
    if let Some((mut found, kind)) = cursor.take(|bytes| usual(bytes, row)) {
        found.value = content(cursor, kind, text)?;
        return Ok(Some(found));
    }
    let tag = cursor.tag()?;
    match (tag.name, tag.place) {
        (b"c", Place::Start | Place::Empty) => {}
        (b"row", Place::End) => return Ok(None),
        _ => return Err(Stop::Foreign("an unknown element in a row")),
    }
    let (mut found, kind) = place(&tag, row, next)?;
    if tag.place == Place::Start {
        found.value = content(cursor, kind, text)?;
    }
    Ok(Some(found))
}

/// Reads a start tag as nearly every program writes it, `<c r="AB12" s="3" t="s">`, without looking
/// for its end first; `None` for any other, which is not to say that it is foreign.
#[inline]
fn usual<'b>(bytes: &'b [u8], row: &[u8]) -> Option<((Found, Kind), &'b [u8])> {
    let (column, rest) = letters(bytes.strip_prefix(b"<c r=\"")?)?;
    let mut rest = rest.strip_prefix(row)?.strip_prefix(b"\"")?;
    let mut style = None;
    if let Some(behind) = rest.strip_prefix(b" s=\"") {
        let (number, behind) = digits(behind)?;
        (style, rest) = (Some(number), behind.strip_prefix(b"\"")?);
    }
    let (kind, rest) = match rest {
        [b'>', rest @ ..] => (Kind::Number, rest),
        [b' ', b't', b'=', b'"', b's', b'"', b'>', rest @ ..] => (Kind::Shared, rest),
        rest => (Kind::Inline, rest.strip_prefix(b" t=\"inlineStr\">")?),
    };
    let found = Found {
        column,
        style,
        value: Value::Empty,
    };
    Some(((found, kind), rest))
}

/// Reads the letters of a column, one to three, as its number from 0.
#[inline]
fn letters(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut column = 0;
    let mut rest = bytes;
    while let [letter @ b'A'..=b'Z', behind @ ..] = rest {
        column = column * 26 + usize::from(letter - b'A') + 1;
        rest = behind;
        if bytes.len() - rest.len() > 3 {
            return None;
        }
    }
    Some((usize::checked_sub(column, 1)?, rest))
}

/// Reads a number of one to nine digits.
#[inline]
fn digits(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0;
    let mut rest = bytes;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        if bytes.len() - behind.len() > 9 {
            return None;
        }
        number = number * 10 + u32::from(digit - b'0');
        rest = behind;
    }
    (rest.len() < bytes.len()).then_some((number, rest))
}

#[inline]
fn place(tag: &Tag<'_>, row: &[u8], next: usize) -> Parsed<(Found, Kind)> {
    let mut found = Found {
        column: next,
        style: None,
        value: Value::Empty,
    };
    let mut kind = Kind::Number;
    tag.each(|name, value| {
        match name {
            b"r" => found.column = column(value, row)?,
            b"s" => {
                let style = number(value).ok_or(Stop::Foreign("a style that is no number"))?;
                found.style = Some(style);
            }
            b"t" => {
                kind = match value {
                    b"s" => Kind::Shared,
                    b"n" => Kind::Number,
                    b"inlineStr" => Kind::Inline,
                    b"str" => Kind::Formula,
                    b"b" => Kind::Bool,
                    b"e" => Kind::Error,
                    b"d" => Kind::IsoDate,
                    _ => return Err(Stop::Foreign("a cell of unknown type")),
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((found, kind))
}

/// Returns the column, from 0, of a reference such as `AB12` in row `12`.
#[inline]
fn column(reference: &[u8], row: &[u8]) -> Parsed<usize> {
    match letters(reference) {
        Some((column, rest)) if rest == row => Ok(column),
        _ => Err(Stop::Foreign("a cell that is not of its row")),
    }
}

#[inline]
fn content(cursor: &mut Cursor<'_>, kind: Kind, text: &mut Vec<u8>) -> Parsed<Value> {
    if kind == Kind::Shared
        && let Some(number) = cursor.take(shared)
    {
        return Ok(Value::Shared(number));
    }
    let (mut value, mut is_formula) = (None, false);
    loop {
        if cursor.eat(b"<v>") {
            value = Some(only(value, cached(cursor.text()?, kind, text)?)?);
            if cursor.eat(b"</v></c>") {
                break;
            }
            cursor.end(b"v")?;
            continue;
        }
        if cursor.eat(b"</c>") {
            break;
        }
        let tag = cursor.tag()?;
        match (tag.name, tag.place) {
            (b"c", Place::End) => break,
            (b"f", Place::Empty) if value.is_none() => {
                tag.check()?;
                is_formula = true;
            }
            (b"f", Place::Start) if value.is_none() => {
                tag.check()?;
                is_formula = true;
                cursor.text()?;
                cursor.end(b"f")?;
            }
            (b"v", Place::Start) => {
                tag.check()?;
                value = Some(only(value, cached(cursor.text()?, kind, text)?)?);
                cursor.end(b"v")?;
            }
            (b"v" | b"is", Place::Empty) => value = Some(only(value, Value::Empty)?),
            (b"is", Place::Start) if kind == Kind::Inline => {
                text.clear();
                item(cursor, b"is", text)?;
                value = Some(only(value, Value::Text)?);
            }
            _ => return Err(Stop::Foreign("an unknown element in a cell")),
        }
    }
    Ok(match value {
        // an empty text is a value, too
        None if is_formula => Value::Uncalculated,
        Some(Value::Empty) if is_formula && kind != Kind::Formula => Value::Uncalculated,
        None => Value::Empty,
        Some(value) => value,
    })
}

/// Reads the content of a cell with a shared string and the cell's end, as programs write them.
#[inline]
fn shared(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = digits(bytes.strip_prefix(b"<v>")?)?;
    Some((number, rest.strip_prefix(b"</v></c>")?))
}

fn only(before: Option<Value>, value: Value) -> Parsed<Value> {
    match before {
        None => Ok(value),
        Some(_) => Err(Stop::Foreign("a cell of two values")),
    }
}

/// Returns what an element `v` says.
#[inline]
fn cached(raw: &[u8], kind: Kind, text: &mut Vec<u8>) -> Parsed<Value> {
    if raw.is_empty() && !matches!(kind, Kind::Inline | Kind::Error) {
        return Ok(Value::Empty);
    }
    Ok(match kind {
        Kind::Number => Value::Number(float(raw)?),
        Kind::Shared => {
            Value::Shared(number(raw).ok_or(Stop::Foreign("a text that is no number"))?)
        }
        Kind::Formula => {
            text.clear();
            decode(raw, text)?;
            Value::Text
        }
        Kind::Bool => match raw {
            b"0" => Value::Bool(false),
            b"1" => Value::Bool(true),
            _ => return Err(Stop::Foreign("a truth value that is neither 0 nor 1")),
        },
        Kind::Error => {
            text.clear();
            decode(if raw.is_empty() { b"#ERROR!" } else { raw }, text)?;
            Value::Error
        }
        Kind::IsoDate => {
            text.clear();
            decode(raw, text)?;
            Value::IsoDate
        }
        Kind::Inline => return Err(Stop::Foreign("a text beside an inline one")),
    })
}

/// Returns the number nearest to what is written.
#[inline]
fn float(raw: &[u8]) -> Parsed<f64> {
    if let Some(value) = short_decimal(raw) {
        return Ok(value);
    }
    let text = std::str::from_utf8(raw).map_err(|_| Stop::Foreign(NO_UTF8))?;
    let known = |b: u8| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E');
    let begins = matches!(raw, [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..]);
    let number = text.parse().ok();
    number
        .filter(|_| begins && !raw.ends_with(b".") && raw.iter().copied().all(known))
        .ok_or(Stop::Foreign("a number of unknown form"))
}

/// Returns a number of at most 15 digits without an exponent: both the digits and the power of ten
/// are whole numbers that `f64` has, so that one division rounds right.
#[inline]
fn short_decimal(raw: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (is_negative, digits) = match raw {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 16 {
        return None;
    }
    let (mut whole, mut n_digits, mut point) = (0_i64, 0_usize, None);
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                whole = whole * 10 + i64::from(byte - b'0');
                n_digits += 1;
            }
            b'.' if point.is_none() && n_digits > 0 => point = Some(n_digits),
            _ => return None,
        }
    }
    let n_decimals = n_digits - point.unwrap_or(n_digits);
    if n_digits == 0 || n_digits > 15 || point == Some(n_digits) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "15 digits are below 2^53")]
    let value = whole as f64 / POWERS.get(n_decimals)?;
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(xml: &str) -> Parsed<(usize, Option<u32>, Value, String)> {
        let mut text = Vec::new();
        let found = cell(&mut Cursor::new(xml.as_bytes()), b"12", 7, &mut text)?;
        let found = found.ok_or(Stop::Foreign("the row's end"))?;
        let text = String::from_utf8(text).unwrap();
        Ok((found.column, found.style, found.value, text))
    }

    fn value(xml: &str) -> Value {
        found(xml).unwrap().2
    }

    #[test]
    fn values_of_every_type() {
        assert_eq!(
            found("<c r=\"AB12\" s=\"3\" t=\"s\"><v>41</v></c>"),
            Ok((27, Some(3), Value::Shared(41), String::new()))
        );
        assert_eq!(value("<c r=\"A12\"><v>-0.25</v></c>"), Value::Number(-0.25));
        assert_eq!(value("<c><f>1/2</f><v>5E-1</v></c>"), Value::Number(0.5));
        assert_eq!(value("<c t=\"b\"><v>1</v></c>"), Value::Bool(true));
        assert_eq!(value("<c t=\"e\"><f/><v>#N/A</v></c>"), Value::Error);
        assert_eq!(value("<c s=\"1\"/>"), Value::Empty);
        let text = |xml: &str| found(xml).unwrap().3;
        for name in ["#N/A", "#SPILL!", "#GETTING_DATA", "Err:502"] {
            assert_eq!(text(&format!("<c t=\"e\"><v>{name}</v></c>")), name);
        }
        assert_eq!(value("<c t=\"e\"><v></v></c>"), Value::Error);
        assert_eq!(text("<c t=\"str\"><v> a&amp;b </v></c>"), " a&b ");
        assert_eq!(text("<c t=\"inlineStr\"><is><t>a</t></is></c>"), "a");
        assert_eq!(text("<c t=\"d\"><v>2026-01-31</v></c>"), "2026-01-31");
    }

    #[test]
    fn a_formula_without_a_value_is_no_empty_cell() {
        for xml in [
            "<c><f>2+3</f></c>",
            "<c><f>2+3</f><v></v></c>",
            "<c><f>2+3</f><v/></c>",
            "<c><f t=\"shared\" si=\"0\"/></c>",
            "<c t=\"str\"><f>A1</f></c>",
            "<c r=\"A12\" s=\"1\"><f>2+3</f><v /></c>",
        ] {
            assert_eq!(value(xml), Value::Uncalculated, "{xml}");
        }
        // the value is an empty text
        assert_eq!(value("<c t=\"str\"><f>A1</f><v></v></c>"), Value::Empty);
        assert_eq!(value("<c><v></v></c>"), Value::Empty);
    }

    #[test]
    fn what_is_not_known_is_foreign() {
        for xml in [
            "<c r=\"A13\"><v>1</v></c>",
            "<c r=\"12\"><v>1</v></c>",
            "<c r=\"AAAA12\"><v>1</v></c>",
            "<c r=\"a12\"><v>1</v></c>",
            "<c><v>1</v><v>2</v></c>",
            "<c><v>1</v><f>2</f></c>",
            "<c><v>nan</v></c>",
            "<c><v> 1</v></c>",
            "<c><v>1.</v></c>",
            "<c t=\"b\"><v>true</v></c>",
            "<c t=\"z\"><v>1</v></c>",
            "<c s=\"x\"><v>1</v></c>",
            "<c t=\"s\"><v>x</v></c>",
            "<c><v>1<x/></v></c>",
            "<c t=\"inlineStr\"><v>1</v></c>",
            "<c><extLst/><v>1</v></c>",
            "<x:c><v>1</v></x:c>",
            "</sheetData>",
        ] {
            assert!(matches!(found(xml), Err(Stop::Foreign(_))), "{xml}");
        }
    }

    #[test]
    fn a_cut_cell_asks_for_more() {
        for whole in [
            "<c r=\"AB12\" s=\"3\" t=\"str\"><f>A1</f><v>a&amp;b</v></c>",
            "<c r=\"AB12\" s=\"3\" t=\"s\"><v>123456789</v></c>",
            "<c r=\"A12\"><v>-1.5</v></c>",
            "<c r=\"A12\" t=\"inlineStr\"><is><t> a </t></is></c>",
        ] {
            for end in 0..whole.len() {
                let cut = whole.get(..end).unwrap();
                assert_eq!(found(cut), Err(Stop::More), "{cut}");
            }
        }
    }

    #[test]
    fn the_usual_way_and_any_other_say_the_same() {
        for (usual, other) in [
            (
                " s=\"3\" t=\"s\"><v>41</v></c>",
                " t=\"s\" s=\"3\"><v >41</v ></c >",
            ),
            (" t=\"s\"><v>0</v></c>", "  t=\"s\" ><v>0</v>\n</c>"),
            (" s=\"17\"><v>1.25</v></c>", "\ns=\"17\"><v>1.25</v ></c>"),
            ("><v>0</v></c>", " ><v>0</v></c>"),
            (
                " t=\"inlineStr\"><is><t>a</t></is></c>",
                " t=\"inlineStr\" ><is ><t >a</t ></is ></c >",
            ),
        ] {
            for place in ["A", "Z", "AA", "XFD"] {
                let whole = |rest: &str| found(&format!("<c r=\"{place}12\"{rest}"));
                assert!(whole(usual).is_ok(), "{usual}");
                assert_eq!(whole(usual), whole(other), "{usual}");
            }
        }
        let twice = "<c r=\"A12\" t=\"s\"><v>1</v><v>2</v></c>";
        assert!(matches!(found(twice), Err(Stop::Foreign(_))));
        let long = "<c r=\"A12\" t=\"s\"><v>1234567890</v></c>";
        assert!(matches!(found(long), Err(Stop::Foreign(_))));
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_the_standard_library(text in "-?[0-9]{1,17}(\\.[0-9]{1,17})?(E[+-]?[0-9]{1,2})?") {
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(float(text.as_bytes()).map(f64::to_bits), Ok(expected.to_bits()));
        }
    }
}
