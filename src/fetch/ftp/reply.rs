//! What an answer says. Pure.

/// An answer: its code, and the text of its last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: String,
}

/// Reads the beginning of an answer: its code, and whether it has that one line.
pub(super) fn begun(line: &[u8]) -> Option<(u16, bool)> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let is_code = digits.iter().all(u8::is_ascii_digit) && (100..600).contains(&code);
    match rest.first() {
        None | Some(b' ') if is_code => Some((code, true)),
        Some(b'-') if is_code => Some((code, false)),
        _ => None,
    }
}

/// Returns an answer of this last line.
pub(super) fn ended(code: u16, line: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(line.get(4..).unwrap_or_default());
    Reply {
        code,
        text: text.trim().to_owned(),
    }
}

impl Reply {
    /// Says whether it asks for TLS, in words: the codes for that are used for anything.
    pub(super) fn asks_for_tls(&self) -> bool {
        let text = self.text.to_ascii_uppercase();
        let names = ["TLS", "SSL", "ENCRYPT", "AUTH FIRST", "SECURE"];
        matches!(self.code, 400..600) && names.iter().any(|name| text.contains(name))
    }

    /// Returns the port that `EPSV` is answered with: `(|||6446|)`, with any character for `|`.
    pub(super) fn extended_port(&self) -> Option<u16> {
        let (_, rest) = self.text.split_once('(')?;
        let mark = rest.chars().next().filter(|c| !c.is_ascii_digit())?;
        let mut parts = rest.split(mark);
        let are_empty = (0..3).all(|_| parts.next() == Some(""));
        let port = parts.next().filter(|_| are_empty)?.parse().ok()?;
        parts.next().and(usable(port))
    }

    /// Returns the port that `PASV` is answered with, in `h1,h2,h3,h4,p1,p2`. The address is not
    /// read: who is asked for a file at an address of the server's choice connects to anybody.
    pub(super) fn passive_port(&self) -> Option<u16> {
        let is_other = |c: char| !c.is_ascii_digit() && c != ',';
        let numbers = self.text.split(is_other).find_map(|part| {
            let numbers: Option<Vec<u8>> = part.split(',').map(|n| n.parse().ok()).collect();
            numbers.filter(|numbers| numbers.len() == 6)
        })?;
        let [.., high, low] = numbers.as_slice() else {
            return None;
        };
        usable(u16::from_be_bytes([*high, *low]))
    }

    /// Returns the number of bytes that `SIZE` is answered with.
    pub(super) fn size(&self) -> Option<u64> {
        let is_plain = self.code == 213 && self.text.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| self.text.parse().ok()).flatten()
    }

    /// Returns the time that `MDTM` is answered with: `YYYYMMDDHHMMSS`, with or without a fraction.
    pub(super) fn time(&self) -> Option<&str> {
        let (whole, fraction) = self.text.split_once('.').unwrap_or((&self.text, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let is_time = whole.len() == 14 && digits(whole) && digits(fraction);
        let is_fine = self.code == 213 && is_time && fraction.len() <= 9;
        is_fine.then_some(self.text.as_str())
    }
}

/// Keeps a file's connection from the ports of other services.
fn usable(port: u16) -> Option<u16> {
    (port >= 1024).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, text: &str) -> Reply {
        Reply {
            code,
            text: text.to_owned(),
        }
    }

    #[test]
    fn an_answer_begins_with_its_code() {
        for (line, read) in [
            ("220 ready", Some((220, true))),
            ("220-ready", Some((220, false))),
            ("226", Some((226, true))),
            ("22 ready", None),
            ("+22 ready", None),
            ("999 ready", None),
            ("2200 ready", None),
            ("HTTP/1.1 200 OK", None),
            ("SSH-2.0-OpenSSH_9", None),
            ("", None),
        ] {
            assert_eq!(begun(line.as_bytes()), read, "{line}");
        }
        assert_eq!(ended(213, b"213 5 "), of(213, "5"));
        assert_eq!(ended(226, b"226").text, "");
    }

    #[test]
    fn a_port_is_read_and_nothing_beside_it() {
        for (text, port) in [
            ("Entering Extended Passive Mode (|||6446|)", Some(6446)),
            ("ok (!!!6446!).", Some(6446)),
            ("ok (|1|10.0.0.1|6446|)", None),
            ("ok (|||22|)", None),
            ("ok (|||66000|)", None),
            ("ok (|||6446", None),
            ("ok (1116446)", None),
            ("ok", None),
        ] {
            assert_eq!(of(229, text).extended_port(), port, "{text}");
        }
        for (text, port) in [
            ("Entering Passive Mode (127,0,0,1,200,13).", Some(51213)),
            ("Entering Passive Mode 10,0,0,1,200,13", Some(51213)),
            ("ok (10,0,0,1,0,22)", None),
            ("ok (10,0,0,1,256,22)", None),
            ("ok (10,0,0,1,4)", None),
            ("ok (10,0,0,1,4,4,4)", None),
            ("ok", None),
        ] {
            assert_eq!(of(227, text).passive_port(), port, "{text}");
        }
    }

    #[test]
    fn size_and_time_are_what_they_look_like() {
        assert_eq!(of(213, "120").size(), Some(120));
        for (code, text) in [(550, "120"), (213, "+1"), (213, ""), (213, "1 byte")] {
            assert_eq!(of(code, text).size(), None, "{code} {text}");
        }
        for text in ["20261128120000", "20261128120000.123"] {
            assert_eq!(of(213, text).time(), Some(text));
        }
        for (code, text) in [
            (550, "20261128120000"),
            (213, "2026"),
            (213, "20261128120000.1234567890"),
            (213, "2026112812000x"),
        ] {
            assert_eq!(of(code, text).time(), None, "{code} {text}");
        }
    }

    #[test]
    fn who_asks_for_tls_is_understood() {
        for (code, text) in [
            (530, "Non-anonymous sessions must use encryption."),
            (550, "SSL/TLS required on the control channel."),
            (503, "Use AUTH first."),
            (534, "Policy requires SSL."),
        ] {
            assert!(of(code, text).asks_for_tls(), "{text}");
        }
        assert!(!of(530, "Login incorrect.").asks_for_tls());
        assert!(!of(331, "Password for TLS user").asks_for_tls());
    }
}
