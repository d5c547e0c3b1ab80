//! The code of a formula (\[MS-XLS\] 2.2.2), as far as it says what its result cannot be.

use super::super::ole::u16_at;

/// What the result of a formula is, by its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A number, a truth value or an error, whatever is in the cells that it refers to.
    NoText,
    /// The empty text.
    EmptyText,
    /// It depends, or the code is not understood.
    Unknown,
}

/// Returns what a formula comes to, by the one of its tokens that is carried out last. `is_short`
/// says that it is of a workbook before Excel 97.
pub(super) fn outcome(code: &[u8], is_short: bool) -> Outcome {
    let mut last = Outcome::Unknown;
    let mut rest = code;
    while let Some(kind) = rest.first() {
        // what of a reference or a function is wanted is in two more bits
        let kind = if *kind < 0x20 {
            *kind
        } else {
            kind & 0x1f | 0x20
        };
        let Some((len, outcome)) = token(kind, rest, is_short) else {
            return Outcome::Unknown;
        };
        let Some(behind) = rest.get(len..) else {
            return Outcome::Unknown;
        };
        last = outcome.unwrap_or(last);
        rest = behind;
    }
    last
}

/// Returns the length of a token and what it comes to, if anything; `None` for one not known.
fn token(kind: u8, bytes: &[u8], is_short: bool) -> Option<(usize, Option<Outcome>)> {
    let of_version = |short, long| if is_short { short } else { long };
    let unknown = Some(Outcome::Unknown);
    let no_text = Some(Outcome::NoText);
    Some(match kind {
        // arithmetic, comparisons, minus and percent
        0x03..=0x07 | 0x09..=0x0e | 0x13 | 0x14 => (1, no_text),
        // joined texts, ranges, plus (which leaves a text alone), an argument left out
        0x08 | 0x0f..=0x12 | 0x16 => (1, unknown),
        0x15 => (1, None), // parentheses
        0x17 => {
            let n_chars = usize::from(*bytes.get(1)?);
            let is_wide = !is_short && bytes.get(2)? & 1 != 0;
            let n_bytes = if is_wide { 2 * n_chars } else { n_chars };
            let outcome = match n_chars {
                0 => Outcome::EmptyText,
                _ => Outcome::Unknown,
            };
            (of_version(2, 3) + n_bytes, Some(outcome))
        }
        0x19 => attribute(bytes)?,
        0x1c | 0x1d => (2, no_text),
        0x1e => (3, no_text),
        0x1f => (9, no_text),
        0x20 => (8, unknown),
        0x21 => (3, Some(function(u16_at(bytes, 1)?))),
        0x22 => (4, Some(function(u16_at(bytes, 2)?))),
        0x23 => (of_version(15, 5), unknown),
        0x24 | 0x2a | 0x2c => (of_version(4, 5), unknown),
        0x25 | 0x2b | 0x2d => (of_version(7, 9), unknown),
        0x39 => (of_version(25, 7), unknown),
        0x3a | 0x3c => (of_version(18, 7), unknown),
        0x3b | 0x3d => (of_version(21, 11), unknown),
        _ => return None,
    })
}

/// A sum of one argument, the jumps of `IF` and `CHOOSE`, or blanks in the formula's text.
fn attribute(bytes: &[u8]) -> Option<(usize, Option<Outcome>)> {
    const CHOOSE: u8 = 0x04;
    const SUM: u8 = 0x10;
    let flags = *bytes.get(1)?;
    let n_jumps = match flags & CHOOSE {
        0 => 0,
        _ => usize::from(u16_at(bytes, 2)?) + 1,
    };
    let is_sum = flags & SUM != 0;
    Some((4 + 2 * n_jumps, is_sum.then_some(Outcome::NoText)))
}

/// The functions that tables are made of and that never give a text.
const fn function(number: u16) -> Outcome {
    match number {
        // COUNT, SUM, AVERAGE, MIN, MAX, ABS, INT, ROUND, PRODUCT, ROUNDUP, ROUNDDOWN, SUMIF, COUNTIF
        0 | 4..=7 | 24 | 25 | 27 | 183 | 212 | 213 | 345 | 346 => Outcome::NoText,
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Outcome::{EmptyText, NoText, Unknown};
    use super::*;

    #[test]
    fn the_last_token_decides() {
        let b2 = [0x44, 1, 0, 1, 0xc0];
        let of = |pieces: &[&[u8]]| outcome(&pieces.concat(), false);
        assert_eq!(of(&[&b2, &[0x1e, 2, 0], &[0x05]]), NoText, "=B2*2");
        assert_eq!(of(&[&b2, &[0x1e, 2, 0], &[0x05, 0x15]]), NoText, "=(B2*2)");
        assert_eq!(of(&[&b2, &[0x19, 0x10, 0, 0]]), NoText, "=SUM(B2)");
        assert_eq!(of(&[&b2, &b2, &[0x42, 2, 4, 0]]), NoText, "=SUM(B2,B2)");
        assert_eq!(of(&[&[0x1e, 0x02, 0x03]]), NoText, "=770");
        assert_eq!(of(&[&[0x17, 0, 0]]), EmptyText, "=\"\"");
        assert_eq!(of(&[&b2]), Unknown, "=B2");
        // ends as a multiplication does
        assert_eq!(of(&[&b2, &[0x17, 1, 0, 0x05], &[0x08]]), Unknown, "text");
        assert_eq!(of(&[&[0x17, 2, 0, b'a', 0x05]]), Unknown, "text");
        let jump = [0x19, 0x02, 7, 0];
        let if_empty = [&b2[..], &jump, &[0x17, 0, 0], &[0x42, 2, 1, 0]];
        assert_eq!(of(&if_empty), Unknown, "=IF(B2,\"\")");
        assert_eq!(of(&[]), Unknown);
        assert_eq!(of(&[&b2[..3]]), Unknown);
        assert_eq!(of(&[&[0x18, 1, 0, 0x03]]), Unknown);
    }

    #[test]
    fn references_of_excel_5_are_shorter() {
        let code = [0x44, 1, 0xc0, 1, 0x1e, 2, 0, 0x05];
        assert_eq!(outcome(&code, true), NoText);
        assert_eq!(outcome(&[0x17, 1, b'a'], true), Unknown);
        assert_eq!(outcome(&[0x17, 0], true), EmptyText);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_outcome(code in prop::collection::vec(any::<u8>(), 0..60), is_short: bool) {
            outcome(&code, is_short);
        }
    }
}
