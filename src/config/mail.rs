//! `[mail]`: mail to people.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{secret, unit};
use crate::notify::mail::is_address;

/// How the connection to the mail server is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailSecurity {
    /// TLS from the first byte, usually on port 465.
    Tls,
    /// Plain at first, then TLS; a server that has none is refused. Usually on port 587.
    Starttls,
    /// Not at all: for a server on this machine.
    None,
}

/// The mail server and who is written to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mail {
    /// `mail.host`: the mail server. No default: without it no mail is sent.
    pub host: Option<String>,
    /// `mail.port`: its port. Default 587.
    pub port: u16,
    /// `mail.security`: `tls`, `starttls` or `none`. Default `starttls`.
    pub security: MailSecurity,
    /// `mail.user`: the name to log in with. No default: without it nobody logs in.
    pub user: Option<String>,
    /// `mail.password`: the password, or `credential:NAME`. Secret; no default.
    #[serde(serialize_with = "secret::serialize")]
    pub password: Option<SecretString>,
    /// `mail.password_file`: a file that holds the password, instead of `password`. No default.
    pub password_file: Option<PathBuf>,
    /// `mail.from`: whom mail comes from. No default; needed beside a host.
    pub from: Option<String>,
    /// `mail.to`: who is told of every import, at most 20. Default: nobody.
    pub to: Vec<String>,
    /// `mail.uploader`: whether who uploaded a file is told, where the address is known. Default
    /// true.
    pub uploader: bool,
    /// `mail.link`: what this server is called in links, `https://ingest.example.com`. No default:
    /// without it mail has no links.
    pub link: Option<String>,
    /// `mail.timeout`: longest wait for the server, 1 s to 60 s. Default 20 s.
    #[serde(with = "unit::duration")]
    pub timeout: Duration,
}

/// Most people who are told of every import.
const MOST_TO: usize = 20;

impl Mail {
    /// Says whether there is a server that takes mail.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.host.is_some()
    }

    pub(super) fn validate(&self, check: &mut Check<'_>) {
        match &self.from {
            None if self.is_on() => check.missing("from"),
            Some(from) if !is_address(from) => check.fail(&["from"], "is no mail address"),
            _ => {}
        }
        if self.to.len() > MOST_TO || !self.to.iter().all(|to| is_address(to)) {
            check.fail(&["to"], "must be a list of at most 20 mail addresses");
        }
        if self.user.is_some() && self.is_on() && self.password.is_none() {
            check.missing("password");
        }
        let is_local = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "::1");
        let is_plain = self.security == MailSecurity::None;
        if is_plain && self.host.as_deref().is_some_and(|host| !is_local(host)) {
            let why = "may be none only where mail.host is this machine";
            check.fail(&["security"], why);
        }
        if let Some(link) = &self.link
            && (!link.starts_with("http://") && !link.starts_with("https://")
                || link.contains(|c: char| c.is_control() || c.is_whitespace()))
        {
            check.fail(&["link"], "must begin with http:// or https://");
        }
        let limits = Duration::from_secs(1)..=Duration::from_mins(1);
        if !limits.contains(&self.timeout) {
            check.fail(&["timeout"], "must be from 1s to 1m");
        }
    }
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            host: None,
            port: 587,
            security: MailSecurity::Starttls,
            user: None,
            password: None,
            password_file: None,
            from: None,
            to: Vec::new(),
            uploader: true,
            link: None,
            timeout: Duration::from_secs(20),
        }
    }
}
