//! Where something is in a file, and its line without secrets.

use std::ops::Range;
use std::path::Path;

use super::origin::{Origin, Place, Snippet};

/// Words that make the rest of a line suspect where the file could not be parsed.
const SUSPECT: [&str; 5] = ["url", "token", "pass", "secret", "key"];

/// Stands for the rest of a line that may hold a secret.
const CUT: char = '…';

/// Finds lines and columns in one file.
#[derive(Debug)]
pub(super) struct Excerpt<'a> {
    path: &'a Path,
    text: &'a str,
    /// What must not be shown, in bytes of the file; a line is cut where one begins.
    hidden: Vec<Range<usize>>,
    parsed: bool,
}

impl<'a> Excerpt<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str, hidden: Vec<Range<usize>>) -> Self {
        Self {
            path,
            text,
            hidden,
            parsed: true,
        }
    }

    /// A file that is not TOML: what in it is a secret can only be guessed.
    pub(super) fn unparsed(path: &'a Path, text: &'a str) -> Self {
        Self {
            parsed: false,
            ..Self::new(path, text, Vec::new())
        }
    }

    /// Returns the place of some bytes of the file.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = self.text.get(start..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        let indent = chars(before.get(start..));
        let number = before.matches('\n').count() + 1;
        let snippet = self.cut(start, line).map(|shown| {
            let text = printable(shown, shown.len() < line.len());
            let indent = indent.min(chars(Some(shown)));
            let marked = line_end(self.text.get(span.clone()));
            let most = text.chars().count().saturating_sub(indent);
            Box::new(Snippet {
                line: number,
                text,
                indent,
                width: marked.clamp(1, most.max(1)),
            })
        });
        Place {
            origin: Origin::File {
                path: self.path.to_owned(),
                line: number,
                column: indent + 1,
            },
            snippet,
        }
    }

    /// Returns what may be shown of the line that starts at a byte; nothing where even that is in
    /// doubt.
    fn cut<'l>(&self, start: usize, line: &'l str) -> Option<&'l str> {
        if !self.parsed {
            let in_string = self.text.get(..start)?.lines().any(leaves_string_open);
            return (!in_string).then(|| cut_suspect(line));
        }
        let end = start + line.len();
        let hidden = self.hidden.iter();
        let hidden = hidden.filter(|hidden| hidden.start < end && hidden.end > start);
        let first = hidden
            .map(|hidden| hidden.start.saturating_sub(start))
            .min();
        line.get(..first.unwrap_or(line.len()))
    }
}

/// Says whether the lines after this one may be the inside of a string.
fn leaves_string_open(line: &str) -> bool {
    let is_odd = |quote| line.matches(quote).count() % 2 == 1;
    !line.trim_start().starts_with('#') && (is_odd('"') || is_odd('\''))
}

fn cut_suspect(line: &str) -> &str {
    let lower = line.to_ascii_lowercase();
    let words = SUSPECT.iter();
    let words = words.filter_map(|word| Some(lower.find(word)? + word.len()));
    let end = words.chain(line.find(['"', '\''])).min();
    line.get(..end.unwrap_or(line.len())).unwrap_or_default()
}

/// Returns a line as a terminal may see it: no control characters.
fn printable(line: &str, cut: bool) -> String {
    let shown = line.chars().map(|c| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    });
    shown.chain(cut.then_some(CUT)).collect()
}

/// Counts the characters of the first line of some text.
fn line_end(text: Option<&str>) -> usize {
    chars(text.and_then(|text| text.lines().next()))
}

fn chars(text: Option<&str>) -> usize {
    text.unwrap_or_default().chars().count()
}
