//! Stdout, owned here: results as tables for people or JSON for programs.
//!
//! Remarks and hints go to stderr, so that a result can be piped.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use comfy_table::{
    ContentArrangement, Table,
    presets::{NOTHING, UTF8_FULL_CONDENSED},
};
use serde::Serialize;

/// A terminal narrower than this gets tables as wide as they are: cells of a few characters each
/// help nobody, and some terminals say that they have no columns at all.
const NARROWEST: u16 = 60;

/// Where results and remarks go, and in what form.
#[derive(Debug, Clone)]
pub(super) struct Output {
    out: Arc<io::Stdout>,
    form: Form,
    place: Place,
    quiet: bool,
}

/// What results look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// What stdout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A file or a pipe.
    Elsewhere,
    /// A terminal whose owner wants no colours.
    PlainTerminal,
    /// A terminal.
    Terminal,
}

/// One row of a list.
pub(super) trait Listed: Serialize {
    /// The columns for people.
    const HEADERS: &'static [&'static str];

    /// The row's cells, one per column.
    fn cells(&self) -> Vec<String>;
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let out = io::stdout();
        // https://no-color.org: present and not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let place = match (out.is_terminal(), plain) {
            (false, _) => Place::Elsewhere,
            (true, true) => Place::PlainTerminal,
            (true, false) => Place::Terminal,
        };
        let form = if json { Form::Json } else { Form::Text };
        Self {
            out: Arc::new(out),
            form,
            place,
            quiet,
        }
    }

    /// Says whether results are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    fn is_terminal(&self) -> bool {
        self.place != Place::Elsewhere
    }

    /// Says whether remarks and progress are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints rows: a table, or a JSON array of the rows as they serialize.
    pub(super) fn list<T: Listed>(&self, rows: &[T], none: &str) -> io::Result<()> {
        if self.is_json() {
            return self.document(&rows);
        }
        if rows.is_empty() {
            self.remark(none);
            return Ok(());
        }
        let cells = rows.iter().map(Listed::cells).collect();
        self.table(T::HEADERS, cells)
    }

    /// Prints a table; with borders on a terminal only.
    pub(super) fn table(&self, headers: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(if self.is_terminal() {
            UTF8_FULL_CONDENSED
        } else {
            NOTHING
        });
        if !self.is_terminal() {
            table.force_no_tty();
        } else if table.width().is_some_and(|width| width >= NARROWEST) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.set_header(headers.iter().copied());
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell)));
        }
        if !self.is_terminal() {
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
        }
        writeln!(self.out.lock(), "{}", table.trim_fmt())
    }

    /// Prints one thing: a line per field, or the JSON object that `value` is.
    pub(super) fn record(
        &self,
        value: &impl Serialize,
        fields: &[(&str, String)],
    ) -> io::Result<()> {
        if self.is_json() {
            return self.document(value);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = self.out.lock();
        for (name, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
            let text = printable(text).replace('\n', &format!("\n{:width$}  ", ""));
            writeln!(out, "{name:width$}  {text}")?;
        }
        Ok(())
    }

    /// Prints what a change did: a sentence, or the JSON object that `value` is.
    pub(super) fn done(&self, value: &impl Serialize, text: &str) -> io::Result<()> {
        match (self.is_json(), self.quiet) {
            (true, _) => self.document(value),
            (false, true) => Ok(()),
            (false, false) => self.line(text),
        }
    }

    /// Prints one JSON document.
    pub(super) fn document(&self, value: &impl Serialize) -> io::Result<()> {
        let mut out = self.out.lock();
        if self.is_terminal() {
            serde_json::to_writer_pretty(&mut out, value)?;
        } else {
            serde_json::to_writer(&mut out, value)?;
        }
        writeln!(out)
    }

    /// Prints one JSON line of several and sees to it that it is read at once.
    pub(super) fn json_line(&self, value: &impl Serialize) -> io::Result<()> {
        let mut out = self.out.lock();
        serde_json::to_writer(&mut out, value)?;
        writeln!(out)?;
        out.flush()
    }

    /// Prints a line of a result for people.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.lock();
        writeln!(out, "{}", printable(text))?;
        out.flush()
    }

    /// Prints bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.out.lock().write_all(bytes)
    }

    /// Says something beside the result, on stderr, unless that is not wanted.
    pub(super) fn remark(&self, text: &str) {
        if !self.quiet {
            // There is nobody left to tell where stderr cannot be written.
            drop(writeln!(io::stderr().lock(), "{}", printable(text)));
        }
    }

    /// Says what to do about something, on stderr.
    pub(super) fn hint(&self, text: &str) {
        self.remark(&format!("hint: {text}"));
    }

    /// Puts a word of a result in colour, where the terminal and its owner like that.
    pub(super) fn coloured(&self, colour: Colour, text: &str) -> String {
        if self.place == Place::Terminal {
            format!("\x1b[{}m{text}\x1b[0m", colour as u8)
        } else {
            text.to_owned()
        }
    }

    /// Prints a line whose parts were made printable already.
    pub(super) fn coloured_line(&self, text: &str) -> io::Result<()> {
        writeln!(self.out.lock(), "{text}")
    }
}

/// The terminal's own colours, by their code.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    /// Wrong.
    Red = 31,
    /// Well.
    Green = 32,
    /// Doubtful.
    Yellow = 33,
}

/// Returns text without what a terminal would obey: errors and file names come from outside.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(obeyed) {
        text.replace(obeyed, "\u{FFFD}").into()
    } else {
        text.into()
    }
}

/// Returns the first line of a text, at most 80 characters of it.
pub(super) fn brief(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// Returns a time as tables show it, in UTC.
pub(super) fn at(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Returns a time as tables show it; nothing where there is none.
pub(super) fn at_or_none(time: Option<DateTime<Utc>>) -> String {
    time.map(at).unwrap_or_default()
}

/// Returns a value as text; nothing where there is none.
pub(super) fn or_none<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// Returns seconds as people say them: `2m 5s`.
pub(super) fn seconds(secs: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default();
    humantime::format_duration(std::time::Duration::from_secs(whole.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded_from_outside() {
        assert_eq!(
            printable("a\x1b[2Jb\rc\td\n"),
            "a\u{FFFD}[2Jb\u{FFFD}c\td\n"
        );
        assert!(matches!(printable("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief("one\ntwo"), "one");
        let long = "ž".repeat(81);
        assert_eq!(brief(&long).chars().count(), 81);
        assert!(brief(&long).ends_with('…'));
    }

    #[test]
    fn durations_are_whole_seconds() {
        assert_eq!(seconds(125.9), "2m 5s");
        assert_eq!(seconds(-1.0), "0s");
    }
}
