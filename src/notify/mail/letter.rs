//! What a mail says. Pure.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use lettre::{
    Message,
    message::{Mailbox, header::ContentType},
};
use sqlx::FromRow;

/// Longest subject, in characters.
const LONGEST_SUBJECT: usize = 150;

/// Longest reason that is told, in characters.
const LONGEST_REASON: usize = 1000;

/// Says whether a text is a mail address, with or without a name.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok()
}

/// An import that ended.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Ended {
    pub(super) id: i64,
    pub(super) file_name: String,
    pub(super) state: String,
    pub(super) error: Option<String>,
    pub(super) triggered_by: String,
    pub(super) created_count: i64,
    pub(super) updated_count: i64,
    pub(super) unchanged_count: i64,
    pub(super) error_count: i64,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) finished_at: Option<DateTime<Utc>>,
}

/// Returns what may stand in one line: no control characters, cut.
fn line(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(most).collect()
}

impl Ended {
    /// Returns the subject.
    pub(super) fn subject(&self) -> String {
        let file = line(&self.file_name, LONGEST_SUBJECT);
        let what = match self.state.as_str() {
            "completed" if self.error_count == 0 => "imported",
            "completed" => "imported with errors",
            "cancelled" => "import cancelled",
            _ => "import failed",
        };
        line(&format!("{what}: {file}"), LONGEST_SUBJECT)
    }

    /// Returns the text; `link` is what this server is called.
    pub(super) fn text(&self, link: Option<&str>) -> String {
        let read = self.created_count + self.updated_count + self.unchanged_count;
        let mut text = format!(
            "The import of {} is {}.\n\n\
             new products        {:>9}\n\
             changed products    {:>9}\n\
             unchanged products  {:>9}\n\
             rows with errors    {:>9}\n\
             rows in all         {:>9}\n",
            line(&self.file_name, 500),
            self.state,
            self.created_count,
            self.updated_count,
            self.unchanged_count,
            self.error_count,
            read + self.error_count,
        );
        for (name, at) in [("began", self.started_at), ("ended", self.finished_at)] {
            if let Some(at) = at {
                let at = at.format("%Y-%m-%d %H:%M:%S UTC");
                // Writing to a String cannot fail.
                write!(text, "\n{name}  {at}").ok();
            }
        }
        if let Some(error) = &self.error {
            let error = line(error, LONGEST_REASON);
            write!(text, "\n\nThe reason: {error}").ok();
        }
        if let Some(link) = link {
            let link = link.trim_end_matches('/');
            write!(text, "\n\n{link}/api/v1/import/status/{}", self.id).ok();
        }
        text.push('\n');
        text
    }

    /// Returns the uploader's address, where what is known of them is one.
    pub(super) fn uploader(&self) -> Option<Mailbox> {
        let name = self.triggered_by.rsplit(':').next()?;
        if !name.contains('@') || self.triggered_by.contains(char::is_control) {
            return None;
        }
        name.parse().ok()
    }

    /// Makes the mail to one recipient. `key` names the mail for ever.
    pub(super) fn letter(
        &self,
        from: &Mailbox,
        to: Mailbox,
        key: &str,
        link: Option<&str>,
    ) -> Result<Message, lettre::error::Error> {
        let id = format!("<{key}@{}>", from.email.domain());
        Message::builder()
            .from(from.clone())
            .to(to)
            .subject(self.subject())
            .message_id(Some(id))
            .header(ContentType::TEXT_PLAIN)
            .body(self.text(link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(file_name: &str) -> Ended {
        Ended {
            id: 7,
            file_name: file_name.to_owned(),
            state: "completed".to_owned(),
            error: None,
            triggered_by: "user:jane@example.com".to_owned(),
            created_count: 3,
            updated_count: 2,
            unchanged_count: 1,
            error_count: 0,
            started_at: None,
            finished_at: "2026-11-27T12:00:00Z".parse().ok(),
        }
    }

    fn formatted(ended: &Ended, to: &str) -> String {
        let from = "ingestd <ingestd@example.com>".parse().unwrap();
        let link = Some("https://ingest.example.com/");
        let letter = ended.letter(&from, to.parse().unwrap(), "ingestd-job-1-mail", link);
        String::from_utf8(letter.unwrap().formatted()).unwrap()
    }

    #[test]
    fn it_has_counts_and_a_link() {
        let text = ended("products.xlsx").text(Some("https://ingest.example.com/"));
        for part in [
            "products.xlsx is completed",
            "new products                3",
            "rows in all                 6",
            "ended  2026-11-27 12:00:00 UTC",
            "\nhttps://ingest.example.com/api/v1/import/status/7\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn no_name_of_a_file_adds_a_header_or_a_line() {
        for name in [
            "a\r\nBcc: victim@example.com\r\n\r\nbody",
            "a\nBcc: victim@example.com",
            "a\rBcc: victim@example.com",
            "a\u{85}Bcc: victim@example.com\u{2028}",
            "=?utf-8?q?a=0D=0ABcc:_victim@example.com?=",
        ] {
            let mail = formatted(&ended(name), "jane@example.com");
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            assert!(
                !head
                    .lines()
                    .any(|line| line.to_lowercase().starts_with("bcc")),
                "{head}"
            );
            assert_eq!(head.matches("To: ").count(), 1, "{head}");
            let (subject, text) = (ended(name).subject(), ended(name).text(None));
            assert!(!subject.contains(char::is_control), "{subject:?}");
            let n_lines = text.lines().count();
            assert_eq!(n_lines, ended("a").text(None).lines().count(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_nobody_s() {
        let uploader = |by: &str| {
            let ended = Ended {
                triggered_by: by.to_owned(),
                ..ended("a")
            };
            ended.uploader().map(|found| found.email.to_string())
        };
        assert_eq!(
            uploader("user:jane@example.com").as_deref(),
            Some("jane@example.com")
        );
        for nobody in [
            "api",
            "cli:jane",
            "jane@example.com\r\nBcc: x@example.com",
            "@",
            "user:jane@",
        ] {
            assert_eq!(uploader(nobody), None, "{nobody}");
        }
    }
}
