//! The merged ranges of an xlsx: its part is inflated once and searched for `mergeCell`.
//!
//! Elements are looked at and not the XML around them: a text cannot have a `<` in it, and comments
//! are none of a spreadsheet program's. Prefixed names and attributes in any order are taken.

use std::io::Read;

use memchr::{memchr, memmem::Finder};

use super::super::refusal::Refusal;
use super::{Range, add, refusal};

/// Bytes that are searched at once.
const BUFFER: usize = 256 * 1024;
/// Longest element that is looked at.
const LONGEST: usize = 1024;
const NAME: &[u8] = b"mergeCell";

/// Returns the merged ranges of a sheet's part.
///
/// # Errors
///
/// [`Refusal::MERGED_CELLS`] for too many, or one of unknown form;
/// [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged.
pub(in super::super::super::sheet) fn read(mut part: impl Read) -> Result<Vec<Range>, Refusal> {
    let finder = Finder::new(NAME);
    let mut ranges = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut kept = 0;
    loop {
        let free = buffer.get_mut(kept..).unwrap_or_default();
        let n_read = part.read(free)?;
        let filled = buffer.get(..kept + n_read).unwrap_or_default();
        // what is cut off is looked at again with what follows it
        let mut from = filled.len().saturating_sub(NAME.len());
        for at in finder.find_iter(filled) {
            let element = filled.get(at..).unwrap_or_default();
            let Some(end) = memchr(b'>', element.get(..LONGEST).unwrap_or(element)) else {
                if n_read > 0 && element.len() < LONGEST {
                    from = from.min(at.saturating_sub(1));
                    break;
                }
                continue;
            };
            let begins = at.checked_sub(1).and_then(|before| filled.get(before));
            let attributes = element.get(NAME.len()..end).unwrap_or_default();
            let is_whole = attributes.first().is_some_and(u8::is_ascii_whitespace);
            if matches!(begins, Some(b'<' | b':')) && is_whole {
                add(&mut ranges, named(attributes)?)?;
            }
            from = from.max(at + NAME.len());
        }
        if n_read == 0 {
            return Ok(ranges);
        }
        let from = from.min(filled.len());
        let n_filled = filled.len();
        kept = n_filled - from;
        buffer.copy_within(from..n_filled, 0);
    }
}

/// Returns the range of the attribute `ref`.
fn named(attributes: &[u8]) -> Result<Range, Refusal> {
    let value = Finder::new(b"ref").find_iter(attributes).find_map(|at| {
        let is_name = at.checked_sub(1).and_then(|before| attributes.get(before));
        let value = attributes.get(at + 3..)?.trim_ascii_start();
        let value = value.strip_prefix(b"=")?.trim_ascii_start();
        let (quote, value) = value.split_first()?;
        let end = memchr(*quote, value).filter(|_| matches!(quote, b'"' | b'\''))?;
        is_name?.is_ascii_whitespace().then_some(value.get(..end)?)
    });
    let range = value.and_then(range);
    range.ok_or_else(|| refusal("a merged range of the sheet cannot be read"))
}

/// Reads a range: `A2:B7`, or one cell.
pub(in super::super::super::sheet) fn range(text: &[u8]) -> Option<Range> {
    let colon = memchr(b':', text);
    let (from, to) = match colon {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, text),
    };
    let ((first_column, first_row), (last_column, last_row)) = (cell(from)?, cell(to)?);
    Some(Range {
        first_row,
        first_column,
        last_row,
        last_column,
    })
}

/// Reads the name of a cell: its column, from 0, and its row, from 1.
fn cell(text: &[u8]) -> Option<(u32, u32)> {
    let n_letters = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let (letters, digits) = text.split_at_checked(n_letters)?;
    if !(1..=3).contains(&letters.len()) || !(1..=9).contains(&digits.len()) {
        return None;
    }
    let column = letters.iter().fold(0, |column, letter| {
        column * 26 + u32::from(letter.to_ascii_uppercase() - b'A') + 1
    });
    let row = digits.iter().try_fold(0_u32, |row, digit| {
        let is_digit = digit.is_ascii_digit();
        is_digit.then(|| row * 10 + u32::from(digit - b'0'))
    })?;
    (row > 0).then_some((column - 1, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_however_they_are_written() {
        let xml = "<x:worksheet><x:sheetData/><x:mergeCells count=\"4\"><mergeCell ref=\"A2:B7\"/>\
            <x:mergeCell\n uid = \"xref='1'\" ref = 'C1:XFD1048576' /><mergeCell ref=\"B1\"></mergeCell>\
            <mergeCell ref=\"c9:c10\"/></x:mergeCells></x:worksheet>";
        let found: Vec<_> = read(xml.as_bytes()).unwrap();
        let shown: Vec<_> = found.iter().map(Range::shown).collect();
        assert_eq!(shown, ["A2:B7", "C1:XFD1048576", "C9:C10"]);
        for wrong in [
            "",
            "A",
            "1",
            "A0:B2",
            "A1:",
            "ABCD1:ABCD2",
            "A1:B2:C3",
            "A1234567890:B2",
            "$A$1:B2",
        ] {
            let xml = format!("<mergeCell ref=\"{wrong}\"/>");
            assert_eq!(
                read(xml.as_bytes()).unwrap_err().code,
                Refusal::MERGED_CELLS,
                "{wrong}"
            );
        }
        assert!(read(&b"<mergeCell/>"[..]).unwrap().is_empty());
        assert!(read(&b"<mergeCell uid=\"1\"/>"[..]).is_err());
        assert!(read(&b"<c>mergeCell ref=</c>"[..]).unwrap().is_empty());
    }

    #[test]
    fn ranges_are_whole_wherever_the_part_is_cut() {
        struct Slow<'b>(&'b [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let n_most = out.len().min(self.1);
                self.0.read(&mut out[..n_most])
            }
        }
        let ranges = (1..200).map(|n| format!("<mergeCell ref=\"A{n}:B{n}\"/>"));
        let xml = format!(
            "<sheetData>{}</sheetData>{}",
            "x".repeat(500),
            ranges.collect::<String>()
        );
        for n_most in [1, 3, 7, 40, 1000] {
            assert_eq!(
                read(Slow(xml.as_bytes(), n_most)).unwrap().len(),
                199,
                "{n_most}"
            );
        }
        // across the end of the buffer, and a tag that never ends
        for n_before in BUFFER - 40..BUFFER + 10 {
            let xml = format!("{}<mergeCell ref=\"A1:B1\"/>", " ".repeat(n_before));
            assert_eq!(read(xml.as_bytes()).unwrap().len(), 1, "{n_before}");
        }
        let endless = format!("<mergeCell {}", "a".repeat(2 * BUFFER));
        assert!(read(endless.as_bytes()).unwrap().is_empty());
    }
}
