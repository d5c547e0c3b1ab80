//! Texts: entities resolved, the runs of rich text joined, phonetic text left out.

use memchr::{memchr, memchr2, memchr3};

use super::cursor::{Cursor, Parsed, Place, Stop};

/// What is foreign about bytes that are no text.
pub(super) const NO_UTF8: &str = "XML that is no UTF-8";

/// Appends a text to `out` with its entities resolved and its line ends made `\n`.
///
/// Whether that is UTF-8 is for the caller to ask, once and of many texts together.
///
/// # Errors
///
/// [`Stop::Foreign`] for entities other than the five of XML, and for Excel's own escapes such as
/// `_x000D_`.
#[inline]
pub(super) fn decode(raw: &[u8], out: &mut Vec<u8>) -> Parsed<()> {
    if memchr3(b'&', b'\r', b'_', raw).is_none() {
        out.extend_from_slice(raw);
        return Ok(());
    }
    let from = out.len();
    resolve(raw, out)?;
    if has_escape(out.get(from..).unwrap_or_default()) {
        return Err(Stop::Foreign("an escape such as _x000D_"));
    }
    Ok(())
}

fn resolve(text: &[u8], out: &mut Vec<u8>) -> Parsed<()> {
    let mut rest = text;
    while let Some(at) = memchr2(b'&', b'\r', rest) {
        let (before, special) = rest.split_at(at);
        out.extend_from_slice(before);
        if let [b'\r', behind @ ..] = special {
            out.push(b'\n');
            rest = behind.strip_prefix(b"\n").unwrap_or(behind);
            continue;
        }
        let (name, behind) = name(special).ok_or(Stop::Foreign("an & that begins no entity"))?;
        let char = entity(name).ok_or(Stop::Foreign("an entity that XML does not know"))?;
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        rest = behind;
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Returns the name of the entity that `text` begins with, and what is behind it.
fn name(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr(b';', text)?;
    let name = text.get(1..end)?;
    Some((std::str::from_utf8(name).ok()?, text.get(end + 1..)?))
}

fn entity(name: &str) -> Option<char> {
    let code = match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => name.strip_prefix('#')?,
    };
    let (digits, radix) = match code.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (code, 10),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None; // a sign
    }
    let code = u32::from_str_radix(digits, radix).ok()?;
    char::from_u32(code).filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'))
}

/// Whether `_xHHHH_` is in a text.
fn has_escape(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr(b'_', rest) {
        rest = rest.get(at + 1..).unwrap_or_default();
        if let [b'x' | b'X', a, b, c, d, b'_', ..] = rest
            && [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit())
        {
            return true;
        }
    }
    false
}

/// Appends the text of an element `t` whose start tag was taken.
///
/// # Errors
///
/// As [`decode`], and when the element is not whole or holds others.
#[inline]
fn run(cursor: &mut Cursor<'_>, keeps_space: bool, out: &mut Vec<u8>) -> Parsed<()> {
    let from = out.len();
    decode(cursor.text()?, out)?;
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| BLANK.contains(byte));
    if !keeps_space && (is_blank(out.get(from)) || is_blank(out.last())) {
        trim(out, from);
    }
    cursor.end(b"t")
}

/// What is cut off the ends of a text.
const BLANK: [u8; 4] = [b' ', b'\t', b'\r', b'\n'];

/// Cuts blanks off both ends of what is in `out` from `from` on.
fn trim(out: &mut Vec<u8>, from: usize) {
    let text = out.get(from..).unwrap_or_default();
    let is_text = |byte: &u8| !BLANK.contains(byte);
    let n_end = text.iter().rposition(is_text).map_or(0, |at| at + 1);
    let n_start = text.iter().position(is_text).unwrap_or(0);
    out.truncate(from + n_end);
    out.drain(from..from + n_start.min(n_end));
}

/// Appends the text of an element `si` or `is` whose start tag was taken.
///
/// # Errors
///
/// As [`decode`], and when the element is not whole or holds elements that are not known.
pub(super) fn item(cursor: &mut Cursor<'_>, name: &'static [u8], out: &mut Vec<u8>) -> Parsed<()> {
    loop {
        if cursor.eat(b"<t>") {
            run(cursor, false, out)?;
        }
        if cursor.eat_end(name) {
            return Ok(());
        }
        let tag = cursor.tag()?;
        match (tag.name, tag.place) {
            (end, Place::End) if end == name => return Ok(()),
            (b"t", Place::Start) => {
                let space = tag.attribute(b"xml:space")?;
                run(cursor, space == Some(b"preserve"), out)?;
            }
            (b"r", Place::Start | Place::End)
            | (b"r" | b"rPr" | b"t" | b"phoneticPr", Place::Empty) => tag.check()?,
            (b"rPr" | b"rPh" | b"phoneticPr", Place::Start) => {
                tag.check()?;
                cursor.skip(tag.name)?;
            }
            _ => return Err(Stop::Foreign("an unknown element in a text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(xml: &str) -> Parsed<String> {
        let mut out = Vec::new();
        item(&mut Cursor::new(xml.as_bytes()), b"si", &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn runs_are_joined_and_phonetic_text_is_left_out() {
        let rich = "<r><rPr><b/><sz val=\"9\"/></rPr><t xml:space=\"preserve\">a </t></r>\n<r><t> b </t></r>\
                    <rPh sb=\"0\" eb=\"1\"><t>no</t></rPh><phoneticPr fontId=\"1\"/></si>";
        assert_eq!(text(rich), Ok("a b".to_owned()));
        assert_eq!(text("<t/></si>"), Ok(String::new()));
        assert_eq!(text("<t> \n </t></si>"), Ok(String::new()));
    }

    #[test]
    fn entities_and_line_ends() {
        assert_eq!(
            text("<t>&lt;a &amp;amp; b&gt;&#10;&#x1F600;\r\nc\rd&quot;&apos;</t></si>"),
            Ok("<a &amp; b>\n\u{1f600}\nc\nd\"'".to_owned())
        );
        assert_eq!(text("<t>&#32;x&#10;</t></si>"), Ok("x".to_owned()));
    }

    #[test]
    fn what_is_not_known_is_foreign() {
        for xml in [
            "<t>&nbsp;</t></si>",
            "<t>a & b</t></si>",
            "<t>&#0;</t></si>",
            "<t>&#+65;</t></si>",
            "<t>a_x000D_b</t></si>",
            "<t><![CDATA[a]]></t></si>",
            "<x:t>a</x:t></si>",
            "<x><t>a</t></x></si>",
            "<t>a<x/></t></si>",
            "<t>a<!-- b --></t></si>",
        ] {
            assert!(matches!(text(xml), Err(Stop::Foreign(_))), "{xml}");
        }
        assert_eq!(
            text("<t>_x00_ _xyz_ _x000</t></si>"),
            Ok("_x00_ _xyz_ _x000".to_owned())
        );
    }
}
