//! What an attempt says, until it is written: progress and log lines in memory.

use std::time::Instant;

/// Longest note on progress, in characters.
const LONGEST_NOTE: usize = 500;
/// Longest log line, in bytes.
const LONGEST_LINE: usize = 8 * 1024;
/// Most log lines of one attempt.
const MOST_LINES: i16 = 1000;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, serde::Serialize)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warn,
    /// Wrong.
    Error,
}

impl LogLevel {
    /// Returns the word stored in `job_logs.level`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) n_done: i64,
    pub(super) n_total: Option<i64>,
    pub(super) note: Option<String>,
}

impl Progress {
    pub(super) fn of(n_done: u64, n_total: Option<u64>, note: &str) -> Self {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let note: String = note.chars().take(LONGEST_NOTE).collect();
        Self {
            n_done: count(n_done),
            n_total: n_total.map(count),
            note: (!note.is_empty()).then(|| storable(note)),
        }
    }
}

/// One log line.
#[derive(Debug)]
pub(super) struct Line {
    /// Counts the lines of the attempt from 1.
    pub(super) number: i16,
    pub(super) level: LogLevel,
    pub(super) message: String,
    pub(super) said_at: Instant,
}

/// What one attempt said and nobody wrote yet.
#[derive(Debug, Default)]
pub(super) struct Pad {
    /// The newest, if it is not written.
    pub(super) progress: Option<Progress>,
    lines: Vec<Line>,
    /// Lines so far, written or not.
    n_lines: i16,
    /// Lines that found no room since the last one that did.
    n_lost: u32,
    /// Whether the task that writes knows of it.
    pub(super) is_queued: bool,
}

impl Pad {
    /// Takes a line, cut where it is too long; returns how many bytes that keeps in memory.
    ///
    /// The line after the last one allowed says so, and those after it are left out. Where there
    /// is no room it is only counted.
    pub(super) fn say(&mut self, level: LogLevel, mut message: String, has_room: bool) -> usize {
        if self.n_lines > MOST_LINES {
            return 0;
        }
        if !has_room {
            self.n_lost = self.n_lost.saturating_add(1);
            return 0;
        }
        let lost = self.note_loss();
        if self.n_lines >= MOST_LINES {
            let text = format!("further lines are left out: an attempt has {MOST_LINES}");
            return lost + self.push(LogLevel::Warn, text);
        }
        if message.len() > LONGEST_LINE {
            message.truncate(message.floor_char_boundary(LONGEST_LINE - '…'.len_utf8()));
            message.push('…');
        }
        lost + self.push(level, storable(message))
    }

    /// Returns how many lines found no room since the last one that did.
    pub(super) const fn n_lost(&self) -> u32 {
        self.n_lost
    }

    /// Says that lines were lost, if some were.
    fn note_loss(&mut self) -> usize {
        match std::mem::take(&mut self.n_lost) {
            0 => 0,
            n => self.push(
                LogLevel::Warn,
                format!("{n} lines are missing here: the database was away"),
            ),
        }
    }

    fn push(&mut self, level: LogLevel, message: String) -> usize {
        self.n_lines = self.n_lines.saturating_add(1);
        let n = message.len();
        self.lines.push(Line {
            number: self.n_lines,
            level,
            message,
            said_at: Instant::now(),
        });
        n
    }

    /// Takes out what is to be written; returns it, with the bytes by which it grew just now.
    pub(super) fn take(&mut self) -> (Option<Progress>, Vec<Line>, usize) {
        self.is_queued = false;
        let grown = self.note_loss();
        (self.progress.take(), std::mem::take(&mut self.lines), grown)
    }
}

/// Replaces what Postgres cannot store in a text.
fn storable(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{FFFD}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pad: &mut Pad) -> Vec<(i16, String)> {
        let lines = pad.take().1;
        lines.into_iter().map(|l| (l.number, l.message)).collect()
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut pad = Pad::default();
        let n = pad.say(LogLevel::Info, "é".repeat(LONGEST_LINE), true);
        assert!(n <= LONGEST_LINE && n > LONGEST_LINE - 4, "{n}");
        let (_, line) = said(&mut pad).remove(0);
        assert!(line.ends_with("é…"));
        pad.say(LogLevel::Info, "a\0b".into(), true);
        assert_eq!(said(&mut pad), [(2, "a\u{FFFD}b".to_owned())]);
    }

    #[test]
    fn the_line_after_the_last_says_so_and_is_the_last() {
        let mut pad = Pad::default();
        for n in 1..=MOST_LINES + 5 {
            pad.say(LogLevel::Info, n.to_string(), true);
        }
        let lines = said(&mut pad);
        assert_eq!(lines.len(), 1001);
        assert_eq!(lines[999], (1000, "1000".to_owned()));
        assert!(lines[1000].1.contains("left out"), "{:?}", lines[1000]);
        assert_eq!(pad.say(LogLevel::Error, "more".into(), true), 0);
        assert!(said(&mut pad).is_empty());
    }

    #[test]
    fn lines_without_room_are_counted_and_the_gap_is_named() {
        let mut pad = Pad::default();
        pad.say(LogLevel::Info, "kept".into(), true);
        for _ in 0..3 {
            assert_eq!(pad.say(LogLevel::Info, "lost".into(), false), 0);
        }
        pad.say(LogLevel::Info, "kept again".into(), true);
        pad.say(LogLevel::Info, "lost".into(), false);
        let lines = said(&mut pad);
        let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts[0], "kept");
        assert!(texts[1].starts_with("3 lines are missing"), "{texts:?}");
        assert_eq!(texts[2], "kept again");
        assert!(texts[3].starts_with("1 lines are missing"), "{texts:?}");
    }

    #[test]
    fn progress_has_bounds() {
        let progress = Progress::of(u64::MAX, None, &"é".repeat(LONGEST_NOTE + 1));
        assert_eq!(progress.n_done, i64::MAX);
        assert_eq!(progress.note.unwrap().chars().count(), LONGEST_NOTE);
        assert_eq!(Progress::of(1, Some(2), "").note, None);
    }
}
