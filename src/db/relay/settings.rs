//! What a session would be set to, made settings of each transaction.

use std::io;

use super::frame::{self, broken};

/// Version 3.0 of the protocol, the only one.
const VERSION: [u8; 4] = 196_608_u32.to_be_bytes();

/// Parameters of the startup packet that do not go to the pooler: it refuses what it does not know.
const KEPT_HERE: [&[u8]; 2] = [b"options", b"extra_float_digits"];

/// About the connection, which is the pooler's.
const OF_CONNECTION: &str = "tcp_";

/// What sets a transaction to what the session would be set to.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What follows a BEGIN in the same message.
    pub(super) after_begin: String,
    /// What goes before a statement that is a transaction by itself: Parse, Bind and Execute.
    pub(super) before_statement: Vec<u8>,
}

impl Settings {
    /// Takes the settings out of a startup packet; returns the packet that is left, with its length.
    pub(super) fn taken_from(startup: &[u8]) -> io::Result<(Vec<u8>, Self)> {
        let Some(mut rest) = startup.strip_prefix(&VERSION) else {
            return Err(broken("not a startup packet of version 3.0"));
        };
        let (mut left, mut options) = (VERSION.to_vec(), String::new());
        loop {
            let (name, after) = frame::text(rest)?;
            if name.is_empty() {
                break;
            }
            let (value, after) = frame::text(after)?;
            rest = after;
            if KEPT_HERE.contains(&name) {
                if name == b"options" {
                    options = String::from_utf8_lossy(value).into_owned();
                }
                continue;
            }
            for text in [name, value] {
                left.extend_from_slice(text);
                left.push(0);
            }
        }
        left.push(0);
        let n_bytes = u32::try_from(left.len() + 4).map_err(|_| broken("startup packet"))?;
        let mut packet = n_bytes.to_be_bytes().to_vec();
        packet.append(&mut left);
        Ok((packet, Self::of(&options)?))
    }

    /// Reads `-c name=value -c name=value`, as the startup packet has it.
    fn of(options: &str) -> io::Result<Self> {
        let words = words(options);
        let pairs = words.iter().filter_map(|word| {
            let pair = word.strip_prefix("-c").or_else(|| word.strip_prefix("--"));
            let (name, value) = pair.unwrap_or(word).split_once('=')?;
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let is_ours = name.chars().all(is_name) && !name.starts_with(OF_CONNECTION);
            is_ours.then(|| (name, value.replace('\'', "''")))
        });
        let (local, list): (Vec<String>, Vec<String>) = pairs
            .map(|(name, value)| {
                let local = format!("; SET LOCAL {name} = '{value}'");
                (local, format!("set_config('{name}', '{value}', true)"))
            })
            .unzip();
        let mut before_statement = Vec::new();
        if !list.is_empty() {
            let sql = format!("SELECT {}", list.join(", "));
            // Statement and portal without a name, no parameters, all results as text, all rows.
            let out = &mut before_statement;
            frame::write(out, b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"])?;
            frame::write(out, b'B', &[b"\0\0\0\0\0\0\0\0"])?;
            frame::write(out, b'E', &[b"\0\0\0\0\0"])?;
        }
        Ok(Self {
            after_begin: local.concat(),
            before_statement,
        })
    }
}

/// Splits at blanks that no backslash stands before; `-c` alone belongs to the next word.
fn words(options: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_ascii_whitespace() => {
                if !word.is_empty() && word != "-c" {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut packet = VERSION.to_vec();
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            packet.extend(text.as_bytes());
            packet.push(0);
        }
        packet.push(0);
        packet
    }

    #[test]
    fn a_session_s_settings_become_those_of_each_transaction() {
        let options = r"-c enable_seqscan=off -cjit=off -c tcp_user_timeout=60s -c a.b=it's\ on\\e";
        let packet = startup(&[
            ("user", "u"),
            ("options", options),
            ("extra_float_digits", "2"),
        ]);
        let (left, settings) = Settings::taken_from(&packet).unwrap();
        assert_eq!(left.get(4..), Some(&*startup(&[("user", "u")])));
        assert_eq!(usize::from(left[3]), left.len());
        assert_eq!(
            settings.after_begin,
            r"; SET LOCAL enable_seqscan = 'off'; SET LOCAL jit = 'off'; SET LOCAL a.b = 'it''s on\e'"
        );
        let before = String::from_utf8_lossy(&settings.before_statement).into_owned();
        assert!(
            before.contains("SELECT set_config('enable_seqscan', 'off', true), set_config("),
            "{before}"
        );
    }

    #[test]
    fn without_options_nothing_is_added() {
        let (_, settings) = Settings::taken_from(&startup(&[("user", "u")])).unwrap();
        assert!(settings.after_begin.is_empty() && settings.before_statement.is_empty());
    }

    #[test]
    fn another_protocol_is_refused() {
        assert!(Settings::taken_from(&80_877_103_u32.to_be_bytes()).is_err());
    }
}
