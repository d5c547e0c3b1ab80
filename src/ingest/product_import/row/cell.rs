//! Cells and rows as every reader gives them, whatever the format of the file.
//!
//! A reader fills one [`RowBuf`] again and again, so that a row costs no
//! allocation; the checks read it through [`Cell`]. Adding a reader means
//! filling a `RowBuf`, and nothing else changes.

/// One cell, borrowed from its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'r> {
    /// Nothing there.
    Empty,
    /// Text as stored, not trimmed. All cells of a CSV file are text.
    Text(&'r str),
    /// The start of a text that is longer than a cell may be.
    LongText(&'r str),
    /// A number; `digits` is how many digits its format asks for at least (`00000`: 5), else 0.
    Number {
        /// The number as stored.
        value: f64,
        /// Least digits before the decimal point.
        digits: u8,
    },
    /// True or false.
    Bool(bool),
    /// A number with a date format: days since the workbook's [`Epoch`].
    Serial(f64),
    /// A date and perhaps a time in ISO 8601 text.
    IsoDate(&'r str),
    /// A length of time, as the file has it.
    Duration(&'r str),
    /// An error value such as `#N/A`.
    Error(&'r str),
    /// A formula of which nobody has calculated the value.
    Uncalculated,
}

impl Cell<'_> {
    /// Returns how many bytes of text the cell has.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Empty
            | Self::Number { .. }
            | Self::Bool(_)
            | Self::Serial(_)
            | Self::Uncalculated => 0,
            Self::Text(text)
            | Self::LongText(text)
            | Self::IsoDate(text)
            | Self::Duration(text)
            | Self::Error(text) => text.len(),
        }
    }
}

/// What day 0 of a workbook's serial dates is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Epoch {
    /// Day 1 is 1900-01-01, and a 1900-02-29 that never was is day 60: nearly every workbook.
    #[default]
    Y1900,
    /// Day 0 is 1904-01-01: workbooks of old Macintosh versions.
    Y1904,
}

/// One row of cells, reused for the next.
///
/// Cells beyond `max_columns` are dropped, and of a text no more than
/// `max_cell_bytes` are kept, so a row needs bounded memory whatever the file says.
#[derive(Debug)]
pub struct RowBuf {
    row_no: u32,
    text: String,
    slots: Vec<Slot>,
    max_columns: usize,
    max_cell_bytes: usize,
    unclosed_quote: bool,
    /// Lines that a quote swallowed; 0 where none did.
    n_swallowed: u32,
    is_hidden: bool,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Empty,
    Text(Span),
    LongText(Span),
    Number { value: f64, digits: u8 },
    Bool(bool),
    Serial(f64),
    IsoDate(Span),
    Duration(Span),
    Error(Span),
    Uncalculated,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl RowBuf {
    /// Makes an empty row of at most `max_columns` cells of `max_cell_bytes` bytes of UTF-8.
    #[must_use]
    pub fn new(max_columns: usize, max_cell_bytes: usize) -> Self {
        Self {
            row_no: 0,
            text: String::new(),
            slots: Vec::new(),
            max_columns,
            max_cell_bytes,
            unclosed_quote: false,
            n_swallowed: 0,
            is_hidden: false,
            is_cut: false,
        }
    }

    /// Returns the most columns and the most bytes of a cell that are kept.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        (self.max_columns, self.max_cell_bytes)
    }

    /// Forgets all cells and becomes row `row_no`, from 1.
    pub fn start(&mut self, row_no: u32) {
        self.row_no = row_no;
        self.text.clear();
        self.slots.clear();
        self.unclosed_quote = false;
        self.n_swallowed = 0;
        self.is_hidden = false;
        self.is_cut = false;
    }

    /// Puts a cell in a column, from 0.
    pub fn set(&mut self, column: usize, cell: Cell<'_>) {
        if matches!(cell, Cell::Empty | Cell::Text("")) {
            return;
        }
        if column >= self.max_columns {
            self.is_cut = true;
            return;
        }
        let slot = match cell {
            Cell::Empty => Slot::Empty,
            Cell::Text(text) => self.keep_text(text),
            Cell::LongText(text) => Slot::LongText(self.keep(text)),
            Cell::Number { value, digits } => Slot::Number { value, digits },
            Cell::Bool(value) => Slot::Bool(value),
            Cell::Serial(days) => Slot::Serial(days),
            Cell::IsoDate(text) => Slot::IsoDate(self.keep(text)),
            Cell::Duration(text) => Slot::Duration(self.keep(text)),
            Cell::Error(text) => Slot::Error(self.keep(text)),
            Cell::Uncalculated => Slot::Uncalculated,
        };
        if column >= self.slots.len() {
            self.slots.resize(column + 1, Slot::Empty);
        }
        if let Some(place) = self.slots.get_mut(column) {
            *place = slot;
        }
    }

    /// Puts a cell in a column in the place of what was there; an empty one, too.
    pub fn put(&mut self, column: usize, cell: Cell<'_>) {
        if let (Cell::Empty, Some(place)) = (cell, self.slots.get_mut(column)) {
            *place = Slot::Empty;
        }
        self.set(column, cell);
    }

    fn keep_text(&mut self, text: &str) -> Slot {
        let span = self.keep(text);
        if span.end - span.start < text.len() {
            Slot::LongText(span)
        } else {
            Slot::Text(span)
        }
    }

    fn keep(&mut self, text: &str) -> Span {
        let start = self.text.len();
        if text.len() <= self.max_cell_bytes {
            self.text.push_str(text);
        } else {
            let cut = text.floor_char_boundary(self.max_cell_bytes);
            self.text.push_str(text.get(..cut).unwrap_or_default());
        }
        Span {
            start,
            end: self.text.len(),
        }
    }

    /// Says that the row is hidden in the sheet.
    pub fn mark_hidden(&mut self) {
        self.is_hidden = true;
    }

    /// Whether the row is known to be hidden in the sheet.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    /// Whether it has cells beyond the columns that are kept.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Says that the last cell begins with a quote that is never closed.
    pub fn mark_unclosed_quote(&mut self) {
        self.unclosed_quote = true;
    }

    /// Whether a quote was opened in this row and never closed.
    #[must_use]
    pub fn has_unclosed_quote(&self) -> bool {
        self.unclosed_quote
    }

    /// Says that a quote made so many lines a part of one cell, and text follows where it closes.
    pub fn mark_stray_quote(&mut self, n_lines: u32) {
        self.n_swallowed = n_lines;
    }

    /// Returns how many lines a stray quote made a part of one cell; `None` where there is no such.
    #[must_use]
    pub fn stray_quote(&self) -> Option<u32> {
        (self.n_swallowed > 0).then_some(self.n_swallowed)
    }

    /// Returns the row's number as the user sees it, from 1.
    #[must_use]
    pub fn row_no(&self) -> u32 {
        self.row_no
    }

    /// Returns how many bytes it holds, those that it keeps for the rows to come with them.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.text.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Returns the number of columns up to the last cell that was set.
    #[must_use]
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// Returns the cell of a column, from 0; columns never set are empty.
    #[must_use]
    pub fn cell(&self, column: usize) -> Cell<'_> {
        match self.slots.get(column).copied().unwrap_or(Slot::Empty) {
            Slot::Empty => Cell::Empty,
            Slot::Text(span) => Cell::Text(self.slice(span)),
            Slot::LongText(span) => Cell::LongText(self.slice(span)),
            Slot::Number { value, digits } => Cell::Number { value, digits },
            Slot::Bool(value) => Cell::Bool(value),
            Slot::Serial(days) => Cell::Serial(days),
            Slot::IsoDate(span) => Cell::IsoDate(self.slice(span)),
            Slot::Duration(span) => Cell::Duration(self.slice(span)),
            Slot::Error(span) => Cell::Error(self.slice(span)),
            Slot::Uncalculated => Cell::Uncalculated,
        }
    }

    fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_set_and_empty_elsewhere() {
        let mut row = RowBuf::new(10, 100);
        row.start(7);
        row.set(2, Cell::Text("héllo"));
        row.set(
            0,
            Cell::Number {
                value: 1.5,
                digits: 0,
            },
        );
        row.set(3, Cell::Error("#N/A"));
        assert_eq!(row.row_no(), 7);
        assert_eq!(row.width(), 4);
        assert_eq!(row.cell(2), Cell::Text("héllo"));
        assert_eq!(row.cell(1), Cell::Empty);
        assert_eq!(row.cell(3), Cell::Error("#N/A"));
        assert_eq!(row.cell(99), Cell::Empty);
    }

    #[test]
    fn keeps_neither_far_columns_nor_long_texts() {
        let mut row = RowBuf::new(2, 4);
        row.start(1);
        row.set(16_383, Cell::Bool(true));
        row.set(1, Cell::Text("aéééé"));
        assert_eq!(row.width(), 2);
        assert_eq!(row.cell(1), Cell::LongText("aé"));
    }

    #[test]
    fn what_is_put_takes_the_place_of_what_was_there() {
        let mut row = RowBuf::new(3, 10);
        row.start(1);
        row.set(1, Cell::Text("a"));
        row.set(1, Cell::Empty);
        assert_eq!(row.cell(1), Cell::Text("a"));
        row.put(1, Cell::Bool(true));
        row.put(2, Cell::Text("b"));
        assert_eq!(
            (row.cell(1), row.cell(2)),
            (Cell::Bool(true), Cell::Text("b"))
        );
        row.put(1, Cell::Empty);
        row.put(9, Cell::Empty);
        assert_eq!((row.cell(1), row.width()), (Cell::Empty, 3));
    }

    #[test]
    fn starting_again_forgets() {
        let mut row = RowBuf::new(2, 4);
        row.start(1);
        row.set(0, Cell::Bool(true));
        row.mark_unclosed_quote();
        row.start(2);
        assert_eq!(row.cell(0), Cell::Empty);
        assert!(!row.has_unclosed_quote());
    }
}
