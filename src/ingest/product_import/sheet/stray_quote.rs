//! Finds quotes that were never meant as such: text follows where a cell of several lines closes.
//!
//! The parser takes `"24 inch` for a cell that goes on to the next quote, however many lines below
//! that is, and does not tell. Where text stands behind the closing quote, it was the quote of
//! another cell. Within a line (`"12" pipe`) nothing is swallowed, and nothing is said.

/// Looks at the bytes of one row, as they are in the text, piece by piece.
#[derive(Debug, Clone)]
pub(super) struct StrayQuote {
    quote: u8,
    delimiter: u8,
    place: Place,
    /// The open cell goes over a line end.
    has_break: bool,
    is_found: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    CellStart,
    Quoted,
    /// Behind a quote that closes the cell, or is the first of two.
    Quote,
    /// Behind blanks behind the closing quote; a quote is text here.
    Blank,
    Text,
}

impl StrayQuote {
    /// Begins with a row.
    pub(super) fn new(quote: u8, delimiter: u8) -> Self {
        Self {
            quote,
            delimiter,
            place: Place::CellStart,
            has_break: false,
            is_found: false,
        }
    }

    /// Looks at the next bytes of the row.
    pub(super) fn look(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    /// Whether text was found behind the closing quote of a cell of several lines.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }

    fn step(&mut self, byte: u8) {
        let is_end = byte == self.delimiter || matches!(byte, b'\n' | b'\r');
        self.place = match self.place {
            Place::CellStart if byte == self.quote => {
                self.has_break = false;
                Place::Quoted
            }
            Place::Quoted if byte == self.quote => Place::Quote,
            Place::Quoted => {
                self.has_break |= matches!(byte, b'\n' | b'\r');
                Place::Quoted
            }
            Place::Quote if byte == self.quote => Place::Quoted,
            _ if is_end => Place::CellStart,
            Place::Quote | Place::Blank if matches!(byte, b' ' | b'\t') => Place::Blank,
            Place::Quote | Place::Blank => {
                self.is_found |= self.has_break;
                Place::Text
            }
            Place::CellStart | Place::Text => Place::Text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_behind_a_cell_of_several_lines_is_a_sign() {
        let is_found = |row: &str| {
            let mut whole = StrayQuote::new(b'"', b',');
            whole.look(row.as_bytes());
            let mut pieces = StrayQuote::new(b'"', b',');
            row.as_bytes().chunks(1).for_each(|it| pieces.look(it));
            assert_eq!(whole.is_found(), pieces.is_found(), "{row}");
            whole.is_found()
        };
        for row in [
            "\"a\nb\"c\n",
            "1,\"24 inch\n2,\"24 inch\" wheel\n",
            "\"a\rb\" \"c\"",
        ] {
            assert!(is_found(row), "{row:?}");
        }
        for row in [
            "\"a\nb\",c\n",
            "\"a\nb\"\r\n",
            "\"a\nb\" ,c\n",
            "\"a\nb\"",
            "\"a\n\"\"b\"\"\",c\n",
            "\"12\" pipe,\"a\nb\"\n",
            "12\" pipe,b\n",
        ] {
            assert!(!is_found(row), "{row:?}");
        }
    }
}
