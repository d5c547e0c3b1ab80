//! The tags and texts of XML at hand, in the one dialect that is read here.

use memchr::memchr;

/// How far a tag is looked for byte by byte.
const NEAR: usize = 12;

/// Why nothing is parsed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes at hand end in the middle.
    More,
    /// Something that is not of the dialect.
    Foreign(&'static str),
}

/// What came of parsing.
pub(super) type Parsed<T> = Result<T, Stop>;

/// Bytes of which the first ones are parsed and passed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'b> {
    rest: &'b [u8],
}

/// Where a tag stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before what the element holds.
    Start,
    /// Behind it.
    End,
    /// The element holds nothing and this is all of it.
    Empty,
}

/// A tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'b> {
    /// The element's name, its prefix with it.
    pub(super) name: &'b [u8],
    /// Where it stands.
    pub(super) place: Place,
    attributes: &'b [u8],
}

impl<'b> Cursor<'b> {
    /// Begins at the first byte.
    pub(super) fn new(rest: &'b [u8]) -> Self {
        Self { rest }
    }

    /// Returns how many bytes are left.
    pub(super) fn n_left(&self) -> usize {
        self.rest.len()
    }

    /// Passes over white space.
    ///
    /// # Errors
    ///
    /// When there is nothing else.
    #[inline]
    pub(super) fn space(&mut self) -> Parsed<()> {
        loop {
            match self.rest {
                [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] => self.rest = rest,
                [] => return Err(Stop::More),
                _ => return Ok(()),
            }
        }
    }

    /// Passes over `what` where it is next.
    #[inline]
    pub(super) fn eat(&mut self, what: &[u8]) -> bool {
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Passes over the end tag of an element where it is next, written as programs write it.
    #[inline]
    pub(super) fn eat_end(&mut self, name: &[u8]) -> bool {
        let behind = self.rest.strip_prefix(b"</");
        let behind = behind.and_then(|rest| rest.strip_prefix(name));
        match behind.and_then(|rest| rest.strip_prefix(b">")) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes what `f` finds at the start of the bytes at hand, where it finds anything; `f` also
    /// returns the bytes behind it.
    #[inline]
    pub(super) fn take<T>(
        &mut self,
        f: impl FnOnce(&'b [u8]) -> Option<(T, &'b [u8])>,
    ) -> Option<T> {
        let (found, rest) = f(self.rest)?;
        self.rest = rest;
        Some(found)
    }

    /// Takes the text before the next tag.
    ///
    /// # Errors
    ///
    /// When no tag is at hand.
    #[inline]
    pub(super) fn text(&mut self) -> Parsed<&'b [u8]> {
        // most texts are a number or a word, for which a call costs more than it saves
        let near = self.rest.iter().take(NEAR).position(|byte| *byte == b'<');
        let len = near.or_else(|| memchr(b'<', self.rest)).ok_or(Stop::More)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(text)
    }

    /// Takes a tag; white space before it is passed over.
    ///
    /// # Errors
    ///
    /// When the next thing is a text, a comment or the like, or a tag with attributes in single
    /// quotes or with `>` in them; when the tag is not whole.
    #[inline]
    pub(super) fn tag(&mut self) -> Parsed<Tag<'b>> {
        self.space()?;
        let [b'<', inside @ ..] = self.rest else {
            return Err(Stop::Foreign("text between elements"));
        };
        let end = memchr(b'>', inside).ok_or(Stop::More)?;
        let (body, rest) = inside.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        let (body, place) = match body {
            [b'/', name @ ..] => (name, Place::End),
            [body @ .., b'/'] => (body, Place::Empty),
            [b'!' | b'?', ..] => return Err(Stop::Foreign("a comment, section or instruction")),
            body => (body, Place::Start),
        };
        let name_len = body.iter().position(u8::is_ascii_whitespace);
        let (name, attributes) = body.split_at(name_len.unwrap_or(body.len()));
        Ok(Tag {
            name,
            place,
            attributes,
        })
    }

    /// Takes the end tag of an element that can hold text only.
    ///
    /// # Errors
    ///
    /// When something else is next.
    #[inline]
    pub(super) fn end(&mut self, name: &'static [u8]) -> Parsed<()> {
        if self.eat_end(name) {
            return Ok(());
        }
        let tag = self.tag()?;
        if tag.name == name && tag.place == Place::End {
            Ok(())
        } else {
            Err(Stop::Foreign("an element where only text belongs"))
        }
    }

    /// Passes over the rest of an element whose start tag was taken.
    ///
    /// # Errors
    ///
    /// When it is not whole or has something foreign in it.
    pub(super) fn skip(&mut self, name: &[u8]) -> Parsed<()> {
        let mut depth = 1_u32;
        while depth > 0 {
            self.text()?;
            let tag = self.tag()?;
            tag.check()?;
            if tag.name == name {
                match tag.place {
                    Place::Start => depth = depth.saturating_add(1),
                    Place::End => depth = depth.saturating_sub(1),
                    Place::Empty => {}
                }
            }
        }
        Ok(())
    }
}

impl<'b> Tag<'b> {
    /// Calls `f` with every attribute and its value as it is spelt.
    ///
    /// # Errors
    ///
    /// When one is not written `name="value"`, and what `f` returns.
    #[inline]
    pub(super) fn each(&self, mut f: impl FnMut(&'b [u8], &'b [u8]) -> Parsed<()>) -> Parsed<()> {
        const ODD: Stop = Stop::Foreign("an attribute that is not name=\"value\"");
        let mut rest = self.attributes;
        loop {
            while let [b' ' | b'\n' | b'\r' | b'\t', behind @ ..] = rest {
                rest = behind;
            }
            if rest.is_empty() {
                return Ok(());
            }
            let name_len = rest.iter().position(|b| *b == b'=').ok_or(ODD)?;
            let (name, value) = rest.split_at(name_len);
            let [b'=', b'"', value @ ..] = value else {
                return Err(ODD);
            };
            let value_len = value.iter().position(|b| *b == b'"').ok_or(ODD)?;
            let (value, behind) = value.split_at(value_len);
            rest = behind.get(1..).unwrap_or_default();
            f(name, value)?;
        }
    }

    /// Makes sure that the attributes are of the dialect, and so that the tag is whole.
    ///
    /// # Errors
    ///
    /// When they are not.
    pub(super) fn check(&self) -> Parsed<()> {
        self.each(|_, _| Ok(()))
    }

    /// Returns the first attribute of a name, as it is spelt.
    ///
    /// # Errors
    ///
    /// When the attributes are not of the dialect.
    pub(super) fn attribute(&self, wanted: &[u8]) -> Parsed<Option<&'b [u8]>> {
        let mut found = None;
        self.each(|name, value| {
            if name == wanted && found.is_none() {
                found = Some(value);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// Returns the number that the digits make; `None` for anything else and beyond `u32`.
#[inline]
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_their_attributes() {
        let mut cursor = Cursor::new(b" <row r=\"1\" spans=\"1:2\"><c/>text</row>");
        let tag = cursor.tag().unwrap();
        assert_eq!((tag.name, tag.place), (&b"row"[..], Place::Start));
        assert_eq!(tag.attribute(b"spans"), Ok(Some(&b"1:2"[..])));
        assert_eq!(tag.attribute(b"none"), Ok(None));
        assert_eq!(cursor.tag().unwrap().place, Place::Empty);
        assert_eq!(cursor.text(), Ok(&b"text"[..]));
        assert_eq!(cursor.end(b"row"), Ok(()));
        assert_eq!(cursor.tag().unwrap_err(), Stop::More);
    }

    #[test]
    fn what_is_foreign_and_what_is_only_cut() {
        let tag = |xml: &'static [u8]| Cursor::new(xml).tag().and_then(|tag| tag.check());
        for foreign in [
            &b"text<c/>"[..],
            b"<!-- -->",
            b"<![CDATA[",
            b"<c r='1'>",
            b"<c r=\"a>b\">",
            b"<c r>",
        ] {
            let stop = tag(foreign);
            let expected = matches!(stop, Err(Stop::Foreign(_))) || foreign == b"<![CDATA[";
            assert!(expected, "{stop:?}");
        }
        for cut in [&b""[..], b"  ", b"<", b"<c r=\"1\""] {
            assert_eq!(tag(cut), Err(Stop::More));
        }
    }

    #[test]
    fn an_element_is_passed_over_whole() {
        let mut cursor = Cursor::new(b"<a>x<b/><a>y</a>");
        cursor.tag().unwrap();
        assert_eq!(cursor.skip(b"a"), Err(Stop::More));
        let mut cursor = Cursor::new(b"<a>x<b/><a/><a>z</a><b>y</b></a><z>");
        cursor.tag().unwrap();
        assert_eq!(cursor.skip(b"a"), Ok(()));
        assert_eq!(cursor.n_left(), 3);
    }

    #[test]
    fn numbers_are_digits() {
        assert_eq!(number(b"1048576"), Some(1_048_576));
        for odd in [&b""[..], b"-1", b"1 ", b"1234567890"] {
            assert_eq!(number(odd), None);
        }
    }
}
