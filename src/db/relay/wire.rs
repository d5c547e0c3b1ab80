//! The rewriting: what the client says to a session, said so that any server understands it.

use std::{
    collections::{HashMap, VecDeque},
    io,
};

use super::{
    frame::{self, Frame, broken},
    settings::Settings,
};

/// Most prepared statements of one connection; the client keeps 100.
const MOST_STATEMENTS: usize = 4096;

/// What is still to come from the server, of what matters here, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The answers to [`Settings::before_statement`], which the client did not ask for.
    Settings,
    /// The answer to a Parse that the client did not send.
    Parsed,
    /// The answer to a Parse that it did send.
    ParsedForClient,
    /// The end of what one Sync or Query closed.
    Ready,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    settings: Settings,
    /// The prepared statements: name, and all of the Parse message after it.
    statements: HashMap<Vec<u8>, Vec<u8>>,
    expected: VecDeque<Expected>,
    /// The statement that the server at hand knows, without a name, until the next Sync.
    at_hand: Option<Vec<u8>>,
    /// The server was last heard of outside of a transaction.
    is_idle: bool,
    /// What is under way since the last Sync has the settings.
    is_set: bool,
}

impl Wire {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Rewrites the whole messages at the front of what the client sent; returns how many bytes
    /// they were.
    pub(super) fn rewrite_up(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = input;
        while let Some((frame, after)) = Frame::first(rest)? {
            self.send(frame, out)?;
            rest = after;
        }
        Ok(input.len() - rest.len())
    }

    fn send(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        match frame.kind {
            b'P' => self.parse(frame.body, out),
            b'B' => self.bind(frame.body, out),
            b'D' | b'C' if frame.body.first() == Some(&b'S') => self.describe_or_close(frame, out),
            b'Q' => self.query(frame, out),
            b'S' | b'F' => {
                self.close_group();
                frame.write(out)
            }
            _ => frame.write(out),
        }
    }

    fn close_group(&mut self) {
        self.expected.push_back(Expected::Ready);
        self.at_hand = None;
        self.is_set = false;
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let (name, rest) = frame::text(body)?;
        if self.statements.len() >= MOST_STATEMENTS && !self.statements.contains_key(name) {
            return Err(broken("too many prepared statements"));
        }
        self.statements.insert(name.to_owned(), rest.to_owned());
        self.at_hand = Some(name.to_owned());
        self.expected.push_back(Expected::ParsedForClient);
        frame::write(out, b'P', &[b"\0", rest])
    }

    /// Sends the statement along, and before it the settings where it is a transaction by itself.
    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let (portal, rest) = frame::text(body)?;
        let (name, rest) = frame::text(rest)?;
        let is_alone = self.is_idle && !self.is_set;
        let statement = self.statements.get(name);
        if is_alone && !statement.is_some_and(|statement| stands_alone(statement)) {
            self.is_set = true;
            if !self.settings.before_statement.is_empty() {
                out.extend_from_slice(&self.settings.before_statement);
                self.expected.push_back(Expected::Settings);
                self.at_hand = None;
            }
        }
        self.bring(name, out)?;
        frame::write(out, b'B', &[portal, b"\0\0", rest])
    }

    /// Lets the server know the statement, where it does not.
    fn bring(&mut self, name: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if self.at_hand.as_deref() == Some(name) {
            return Ok(());
        }
        if let Some(statement) = self.statements.get(name) {
            frame::write(out, b'P', &[b"\0", statement])?;
            self.expected.push_back(Expected::Parsed);
            self.at_hand = Some(name.to_owned());
        }
        Ok(())
    }

    fn describe_or_close(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let name = frame.body.get(1..).unwrap_or_default();
        let (name, _) = frame::text(name)?;
        if frame.kind == b'D' {
            self.bring(name, out)?;
        } else {
            self.statements.remove(name);
            self.at_hand = None;
        }
        frame::write(out, frame.kind, &[b"S\0"])
    }

    /// A BEGIN takes the settings along.
    fn query(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        self.close_group();
        let (sql, _) = frame::text(frame.body)?;
        if !begins(sql) {
            return frame.write(out);
        }
        let sql = sql.strip_suffix(b";").unwrap_or(sql);
        let settings = self.settings.after_begin.as_bytes();
        frame::write(out, b'Q', &[sql, settings, b"\0"])
    }

    /// Rewrites the whole messages at the front of what the server sent; returns how many bytes
    /// they were.
    pub(super) fn rewrite_down(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut rest = input;
        while let Some((frame, after)) = Frame::first(rest)? {
            if self.is_for_client(frame) {
                frame.write(out)?;
            }
            rest = after;
        }
        Ok(input.len() - rest.len())
    }

    fn is_for_client(&mut self, frame: Frame<'_>) -> bool {
        match (frame.kind, self.expected.front()) {
            // ParseComplete, BindComplete, DataRow
            (b'1' | b'2' | b'D', Some(Expected::Settings)) => false,
            // CommandComplete
            (b'C', Some(Expected::Settings)) | (b'1', Some(Expected::Parsed)) => {
                self.expected.pop_front();
                false
            }
            (b'1', Some(Expected::ParsedForClient)) => {
                self.expected.pop_front();
                true
            }
            // ReadyForQuery; after an error the server has passed over the rest of the group.
            (b'Z', _) => {
                while let Some(Expected::Settings | Expected::Parsed | Expected::ParsedForClient) =
                    self.expected.pop_front()
                {}
                self.is_idle = frame.body.first() == Some(&b'I');
                true
            }
            _ => true,
        }
    }
}

/// Says whether a statement begins a transaction that goes on after it.
fn begins(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    let is = |word: &[u8]| {
        let start = sql.get(..word.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    // Not a script of several statements; the client begins with one.
    let end = sql.trim_ascii_end();
    let end = end.strip_suffix(b";").unwrap_or(end);
    (is(b"BEGIN") || is(b"START TRANSACTION")) && !end.contains(&b';')
}

/// Says whether a statement refuses company in its transaction.
fn stands_alone(statement: &[u8]) -> bool {
    let sql = statement.trim_ascii_start();
    let word = sql.get(..6);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"VACUUM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::write(&mut out, kind, &[body]).unwrap();
        out
    }

    /// Returns the kinds of the messages that pass.
    fn kinds(bytes: &[u8]) -> String {
        let (mut rest, mut kinds) = (bytes, String::new());
        while let Some((frame, after)) = Frame::first(rest).unwrap() {
            kinds.push(char::from(frame.kind));
            rest = after;
        }
        assert!(rest.is_empty());
        kinds
    }

    fn up(wire: &mut Wire, messages: &[(u8, &[u8])]) -> Vec<u8> {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        for (kind, body) in messages {
            input.extend(message(*kind, body));
        }
        assert_eq!(wire.rewrite_up(&input, &mut out).unwrap(), input.len());
        out
    }

    fn down(wire: &mut Wire, answer: &str) -> String {
        let mut input = Vec::new();
        for kind in answer.bytes() {
            input.extend(message(kind, if kind == b'Z' { b"I" } else { b"" }));
        }
        let mut out = Vec::new();
        assert_eq!(wire.rewrite_down(&input, &mut out).unwrap(), input.len());
        kinds(&out)
    }

    fn wire() -> Wire {
        let startup = b"\0\x03\0\0user\0u\0options\0-c jit=off\0\0";
        let mut wire = Wire::new(Settings::taken_from(startup).unwrap().1);
        assert_eq!(down(&mut wire, "RSKZ"), "RSKZ");
        wire
    }

    const PARSE: (u8, &[u8]) = (b'P', b"s1\0SELECT 1\0\0\0");
    const DESCRIBE: (u8, &[u8]) = (b'D', b"Ss1\0");
    const BIND: (u8, &[u8]) = (b'B', b"\0s1\0\0\0\0\0\0\0");
    const EXECUTE: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
    const SYNC: (u8, &[u8]) = (b'S', b"");

    #[test]
    fn an_execution_takes_settings_and_statement_along() {
        let mut wire = wire();
        let prepared = up(&mut wire, &[PARSE, DESCRIBE, SYNC]);
        assert_eq!(kinds(&prepared), "PDS");
        assert!(!prepared.windows(2).any(|two| two == b"s1"), "no name");
        assert_eq!(down(&mut wire, "1tTZ"), "1tTZ");
        for _ in 0..2 {
            let executed = up(&mut wire, &[BIND, EXECUTE, SYNC]);
            assert_eq!(kinds(&executed), "PBEPBES");
            assert!(!executed.windows(2).any(|two| two == b"s1"), "no name");
            assert_eq!(down(&mut wire, "12DC12DCZ"), "2DCZ");
        }
    }

    #[test]
    fn within_a_transaction_the_statement_alone_goes_along() {
        let mut wire = wire();
        let begun = up(&mut wire, &[(b'Q', b"BEGIN\0")]);
        let begun = String::from_utf8(begun).unwrap();
        assert!(begun.ends_with("BEGIN; SET LOCAL jit = 'off'\0"), "{begun}");
        let mut out = Vec::new();
        wire.rewrite_down(&message(b'Z', b"T"), &mut out).unwrap();
        up(&mut wire, &[PARSE, DESCRIBE, SYNC]);
        wire.rewrite_down(&message(b'Z', b"T"), &mut out).unwrap();
        assert_eq!(kinds(&up(&mut wire, &[BIND, EXECUTE, SYNC])), "PBES");
        assert_eq!(down(&mut wire, "12DCZ"), "2DCZ");
    }

    #[test]
    fn after_an_error_the_account_is_right_again() {
        let mut wire = wire();
        up(&mut wire, &[PARSE, DESCRIBE, SYNC]);
        assert_eq!(down(&mut wire, "EZ"), "EZ");
        up(&mut wire, &[BIND, EXECUTE, SYNC]);
        assert_eq!(down(&mut wire, "12DCEZ"), "EZ");
        up(&mut wire, &[BIND, EXECUTE, SYNC]);
        assert_eq!(down(&mut wire, "12DC12CZ"), "2CZ");
    }

    #[test]
    fn a_vacuum_and_a_script_are_left_alone() {
        let mut wire = wire();
        up(&mut wire, &[(b'P', b"s1\0VACUUM ingestd.jobs\0\0\0"), SYNC]);
        assert_eq!(down(&mut wire, "1Z"), "1Z");
        assert_eq!(kinds(&up(&mut wire, &[BIND, EXECUTE, SYNC])), "PBES");
        let script = up(&mut wire, &[(b'Q', b"BEGIN; SELECT 1; COMMIT\0")]);
        assert_eq!(script, message(b'Q', b"BEGIN; SELECT 1; COMMIT\0"));
    }

    #[test]
    fn half_a_message_waits_for_the_rest() {
        let mut wire = wire();
        let whole = message(PARSE.0, PARSE.1);
        let (half, _) = whole.split_at(9);
        let mut out = Vec::new();
        assert_eq!(wire.rewrite_up(half, &mut out).unwrap(), 0);
        assert!(out.is_empty());
        assert!(wire.rewrite_up(b"P\0\0\0\0", &mut out).is_err());
    }
}
