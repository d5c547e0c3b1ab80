//! Whether a part is XML as far as its tags go, for readers that make what they like of one that is
//! not: where a quote is missing they take whole rows for the value of an attribute.

use std::io::Read;

use super::refusal::Refusal;

/// Where in the XML a byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// Behind `<`.
    Begin,
    Tag,
    /// In the value of an attribute, which ends with this quote.
    Value(u8),
    /// Behind `<!`.
    Mark,
    /// In a comment, section or instruction. It ends with `>` behind so many of this byte, and so
    /// many of them were there just now.
    Aside(u8, u8, u8),
}

/// Reads a part to its end.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] where a tag begins within another, or one is not closed; what
/// reading the part fails of.
pub(super) fn check(mut part: impl Read) -> Result<(), Refusal> {
    let mut place = Place::Text;
    let mut buffer = [0; 16 * 1024];
    loop {
        let n_read = part.read(&mut buffer)?;
        let bytes = buffer.get(..n_read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        for byte in bytes {
            place = next(place, *byte).ok_or_else(broken)?;
        }
    }
    if place == Place::Text {
        Ok(())
    } else {
        Err(broken())
    }
}

fn broken() -> Refusal {
    Refusal::damaged(
        "the sheet",
        &"a tag begins within another, or is not closed",
    )
}

/// Returns where the byte behind this one is; `None` for a `<` where none may be.
const fn next(place: Place, byte: u8) -> Option<Place> {
    use Place::{Aside, Begin, Mark, Tag, Text, Value};
    Some(match (place, byte) {
        (Text, b'<') => Begin,
        (Text, _) | (Begin | Tag, b'>') => Text,
        (Begin, b'!') => Mark,
        (Begin, b'?') => Aside(b'?', 1, 0),
        (Begin | Tag | Value(_), b'<') => return None,
        (Tag, b'"' | b'\'') => Value(byte),
        (Begin | Tag, _) => Tag,
        (Value(quote), _) if quote == byte => Tag,
        (Value(_), _) => place,
        (Mark, b'-') => Aside(b'-', 2, 0),
        (Mark, b'[') => Aside(b']', 2, 0),
        (Mark, _) => Aside(b'>', 0, 0),
        (Aside(_, least, seen), b'>') if seen >= least => Text,
        (Aside(sign, least, seen), _) if sign == byte => Aside(sign, least, seen.saturating_add(1)),
        (Aside(sign, least, _), _) => Aside(sign, least, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_stand_by_themselves_and_those_that_do_not() {
        for xml in [
            "<?xml version='1.0'?><a b=\"1\" c='>\"'>text > text<d/></a>",
            "<!-- <a> -- <b --><a><!----></a>",
            "<a><![CDATA[ <b> ]] > ]]></a>",
            "<!DOCTYPE a><a></a>\n",
            "",
        ] {
            assert_eq!(check(xml.as_bytes()), Ok(()), "{xml}");
        }
        for xml in [
            "<row r=\"3><c r=\"A3\"><v>1</v></c></row>",
            "<row r=\"3\"<c/></row>",
            "<a b='<'/>",
            "<a><b",
            "<a b=\"",
            "<a><!-- -></a>",
            "<<a/>",
        ] {
            let refusal = check(xml.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT, "{xml}");
        }
    }
}
