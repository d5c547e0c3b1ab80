//! A bounded piece of a part, moved along while the part inflates.

use std::io::Read;

use super::super::refusal::Refusal;
use super::cursor::{Cursor, Parsed, Stop};

/// Why the scanner does not go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The part is not in the dialect: somebody else has to read it.
    Foreign(&'static str),
    /// Nobody is to read it.
    Refused(Refusal),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// The bytes of a part that are at hand.
pub(super) struct Window<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Window<R> {
    /// Bytes that are at hand at once.
    const USUAL: usize = 128 * 1024;
    /// Longest piece that is parsed as one: a cell of 32,767 characters written as `&#x1F600;`
    /// takes a third of it.
    const LONGEST: usize = 1024 * 1024;

    /// Begins at the start of a part.
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            buffer: vec![0; Self::USUAL],
            start: 0,
            end: 0,
        }
    }

    /// Calls `f` with the bytes at hand, again with more of them while it asks for more, and passes
    /// over what it has taken when it succeeds.
    ///
    /// # Errors
    ///
    /// [`Halt::Foreign`] when `f` says so, at the end of the part, and for a piece longer than
    /// 1 MiB; [`Halt::Refused`] when the part is damaged.
    #[inline]
    pub(super) fn parse<T>(
        &mut self,
        mut f: impl FnMut(&mut Cursor<'_>) -> Parsed<T>,
    ) -> Result<T, Halt> {
        loop {
            let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
            let mut cursor = Cursor::new(bytes);
            match f(&mut cursor) {
                Ok(parsed) => {
                    self.start = self.end - cursor.n_left();
                    return Ok(parsed);
                }
                Err(Stop::Foreign(why)) => return Err(Halt::Foreign(why)),
                Err(Stop::More) => self.fill()?,
            }
        }
    }

    #[cold]
    fn fill(&mut self) -> Result<(), Halt> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            if self.end >= Self::LONGEST {
                return Err(Halt::Foreign("a piece of XML longer than 1 MiB"));
            }
            self.buffer.resize(self.end * 2, 0);
        }
        let n_before = self.end;
        while let Some(free) = self.buffer.get_mut(self.end..).filter(|it| !it.is_empty()) {
            match self.from.read(free)? {
                0 => break,
                n_read => self.end += n_read,
            }
        }
        if self.end == n_before {
            return Err(Halt::Foreign("XML that ends too early"));
        }
        Ok(())
    }
}

/// Passes over what stands before the root element, takes its start tag, and makes sure that it has
/// the name and the namespace of the dialect.
///
/// # Errors
///
/// [`Halt::Foreign`] when it has not, or the XML is not in UTF-8.
pub(super) fn root<R: Read>(window: &mut Window<R>, name: &'static [u8]) -> Result<(), Halt> {
    const MAIN: &[u8] = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    window.parse(|cursor| {
        cursor.eat(b"\xef\xbb\xbf");
        cursor.space()?;
        if cursor.eat(b"<?xml") {
            declaration(cursor)?;
        }
        let tag = cursor.tag()?;
        if tag.name != name || tag.attribute(b"xmlns")? != Some(MAIN) {
            return Err(Stop::Foreign("another root element or namespace"));
        }
        Ok(())
    })
}

fn declaration(cursor: &mut Cursor<'_>) -> Parsed<()> {
    let text = cursor.text()?;
    let text = text.trim_ascii_end();
    let attributes = text
        .strip_suffix(b"?>")
        .ok_or(Stop::Foreign("text before the root element"))?
        .to_ascii_lowercase();
    let is_utf8 = memchr::memmem::find(&attributes, b"encoding").is_none()
        || memchr::memmem::find(&attributes, b"utf-8").is_some();
    if is_utf8 {
        Ok(())
    } else {
        Err(Stop::Foreign("another encoding than UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_however_little_is_read_at_once() {
        struct Slow<'b>(&'b [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let n_most = out.len().min(3);
                self.0.read(&mut out[..n_most])
            }
        }
        let mut window = Window::new(Slow(b"<a/><bb c=\"d\"/>"));
        let name = |cursor: &mut Cursor<'_>| cursor.tag().map(|tag| tag.name.to_vec());
        assert_eq!(window.parse(name), Ok(b"a".to_vec()));
        assert_eq!(window.parse(name), Ok(b"bb".to_vec()));
        assert!(matches!(window.parse(name), Err(Halt::Foreign(_))));
    }

    #[test]
    fn no_piece_takes_more_than_its_share() {
        let mut window = Window::new(std::io::repeat(b'x'));
        let text = |cursor: &mut Cursor<'_>| cursor.text().map(<[u8]>::len);
        assert!(matches!(window.parse(text), Err(Halt::Foreign(_))));
        assert!(window.buffer.len() <= 1024 * 1024);
    }

    #[test]
    fn only_the_root_of_the_dialect_is_taken() {
        let main = "xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"";
        let is_mine = |xml: String| root(&mut Window::new(xml.as_bytes()), b"sst").is_ok();
        assert!(is_mine(format!("<sst {main}>")));
        assert!(is_mine(format!(
            "\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<sst count=\"1\" {main}>"
        )));
        assert!(!is_mine(format!("<x:sst {main}>")));
        assert!(!is_mine(format!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><sst {main}>"
        )));
        assert!(!is_mine(format!("<!DOCTYPE sst><sst {main}>")));
        assert!(!is_mine(
            "<sst xmlns=\"http://purl.oclc.org/ooxml/spreadsheetml/main\">".to_owned()
        ));
    }
}
