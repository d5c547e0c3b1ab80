//! How a command ends: the exit codes, and what is said where it fails.

use std::{error::Error as StdError, fmt::Display, io, io::Write, process::ExitCode};

use sqlx::{migrate::MigrateError, postgres::PgDatabaseError};

use crate::{config::ConfigError, db, dev::ClusterError};

/// An exit code; those from 64 to 78 are of sysexits(3), those past 128 a signal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The thing asked about failed: a job that is dead, a run that failed, a check that fails.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// The data given is wrong: arguments that are no JSON, an unknown kind, a file refused.
    Data = 65,
    /// What was named does not exist: a file, a job, a run.
    NoInput = 66,
    /// The database, or what else is needed, cannot be reached.
    Unavailable = 69,
    /// A mistake of this program.
    Software = 70,
    /// A file or folder cannot be made.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// It may work when tried again.
    Temporary = 75,
    /// Not allowed.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
    /// Ctrl-C, as the shell counts it.
    Interrupted = 130,
    /// SIGTERM, as the shell counts it.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed, with what exit code, and what to do about it.
///
/// Any error turns into one with `?`; exit code and hint follow from what is
/// known of it. For that, this type is itself no [`std::error::Error`].
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// Makes a failure of an error.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// Makes a failure of a sentence.
    pub(super) fn say(exit: Exit, text: impl Display) -> Self {
        Self::new(exit, anyhow::anyhow!("{text}"))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Returns the error with its causes in one line.
    pub(super) fn text(&self) -> String {
        self.causes().join(": ")
    }

    /// Returns the error and its causes, without those that the one before repeats.
    fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        for cause in self.error.chain() {
            let text = told(cause);
            // sqlx adds only where in the server's source Postgres raised it.
            let is_told = |last: &String| last.contains(&text) || text.starts_with(last.as_str());
            if !causes.last().is_some_and(is_told) {
                causes.push(text);
            }
        }
        causes
    }

    /// Returns what to do about it.
    pub(super) fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Prints `error: …` with its causes and `hint: …` to stderr; returns the exit code.
    ///
    /// A reader of stdout that has gone away is no error: `ingestd jobs ls | head`.
    #[must_use]
    pub fn report(&self) -> Exit {
        if self.is_broken_pipe() {
            return Exit::Ok;
        }
        // There is nobody left to tell where stderr cannot be written.
        drop(self.write(&mut io::stderr().lock()));
        self.exit
    }

    fn is_broken_pipe(&self) -> bool {
        let error = self.error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn write(&self, err: &mut impl Write) -> io::Result<()> {
        if let Some(error) = self.error.downcast_ref::<ConfigError>() {
            return super::config::report(error, err).map(drop);
        }
        for (n, text) in self.causes().iter().enumerate() {
            let word = if n == 0 { "error" } else { "  caused by" };
            writeln!(err, "{word}: {text}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(err, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let known = error.chain().find_map(classify);
        let (exit, hint) = known.unwrap_or((Exit::Software, None));
        Self { exit, error, hint }
    }
}

/// Returns the text of one error, without the words that sqlx puts before that of others.
fn told(error: &(dyn StdError + 'static)) -> String {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => error.message().to_owned(),
        Some(sqlx::Error::Io(error)) => error.to_string(),
        _ => error.to_string(),
    }
}

type Known = (Exit, Option<String>);

/// Returns exit code and hint of an error that says what they are.
fn classify(error: &(dyn StdError + 'static)) -> Option<Known> {
    if error.is::<ConfigError>() {
        Some((Exit::Config, None))
    } else if let Some(error) = error.downcast_ref::<ClusterError>() {
        Some((of_cluster(error), None))
    } else if let Some(error) = error.downcast_ref::<MigrateError>() {
        of_migration(error)
    } else if let Some(error) = error.downcast_ref::<sqlx::Error>() {
        Some(of_database(error))
    } else {
        error
            .downcast_ref::<io::Error>()
            .map(|error| (of_io(error), None))
    }
}

fn of_cluster(error: &ClusterError) -> Exit {
    match error {
        ClusterError::NoBinaries { .. }
        | ClusterError::NoUser
        | ClusterError::Busy { .. }
        | ClusterError::NotReady { .. }
        | ClusterError::Sql(_) => Exit::Unavailable,
        ClusterError::Unreachable { .. } | ClusterError::NotPrivate { .. } => Exit::NoPermission,
        ClusterError::Io { source, .. } => of_io(source),
        _ => Exit::CannotCreate,
    }
}

fn of_migration(error: &MigrateError) -> Option<Known> {
    match error {
        MigrateError::VersionMissing(_) => Some((
            Exit::Config,
            Some("a newer ingestd migrated this database; run that version".to_owned()),
        )),
        MigrateError::VersionMismatch(_) => Some((
            Exit::Config,
            Some("another build of ingestd migrated this database; run that build".to_owned()),
        )),
        _ => None, // the cause knows
    }
}

fn of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NoInput,
        io::ErrorKind::PermissionDenied => Exit::NoPermission,
        io::ErrorKind::AddrInUse | io::ErrorKind::ConnectionRefused => Exit::Unavailable,
        _ => Exit::Io,
    }
}

/// The codes are those of the Postgres manual, appendix A.
fn of_database(error: &sqlx::Error) -> Known {
    let sqlx::Error::Database(answer) = error else {
        return match error {
            sqlx::Error::Configuration(_) => (Exit::Config, None),
            sqlx::Error::Tls(_) => (Exit::Unavailable, None),
            error if db::is_transient(error) => (Exit::Unavailable, None),
            _ => (Exit::Software, None),
        };
    };
    let code = answer.code().unwrap_or_default().into_owned();
    let given = answer
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(PgDatabaseError::hint);
    let (exit, hint) = match code.as_str() {
        "28P01" | "28000" => (
            Exit::NoPermission,
            "check user and password in database.url",
        ),
        "42501" => (Exit::NoPermission, ""),
        "3D000" => (
            Exit::Unavailable,
            "create the database first: createdb NAME",
        ),
        "42P01" | "3F000" | "42883" | "42703" => (
            Exit::Unavailable,
            "the schema is missing or older: run `ingestd migrate`",
        ),
        "42P05" | "26000" => (
            Exit::Config,
            "a pooler seems to give every transaction another session: set database.pooler to \
             \"transaction\", or name Postgres itself or a pooler in session mode in database.url",
        ),
        "57014" => (
            Exit::Temporary,
            "the statement took longer than database.statement_timeout",
        ),
        _ => (of_class(&code, error), ""),
    };
    let hint = given.unwrap_or(hint);
    (exit, (!hint.is_empty()).then(|| hint.to_owned()))
}

fn of_class(code: &str, error: &sqlx::Error) -> Exit {
    match code.get(..2).unwrap_or_default() {
        "22" | "23" => Exit::Data,
        "40" => Exit::Temporary,
        _ if db::is_transient(error) => Exit::Unavailable,
        _ => Exit::Software,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn written(failure: &Failure) -> String {
        let mut text = Vec::new();
        failure.write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn causes_are_told_once() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failed: Result<(), _> = Err(sqlx::Error::Io(refused));
        let failure: Failure = failed
            .context("cannot reach the database")
            .unwrap_err()
            .into();
        assert_eq!(failure.exit(), Exit::Unavailable);
        let text = written(&failure.hint("start it"));
        let expected = "error: cannot reach the database\n  caused by: connection refused\n\
                        hint: start it\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_nobody_knows_is_a_mistake_of_ours() {
        assert_eq!(Failure::from(anyhow::anyhow!("odd")).exit(), Exit::Software);
        assert_eq!(
            Failure::from(sqlx::Error::RowNotFound).exit(),
            Exit::Software
        );
    }

    #[test]
    fn files_have_their_own_codes() {
        let of = |kind| Failure::from(io::Error::from(kind)).exit();
        assert_eq!(of(io::ErrorKind::NotFound), Exit::NoInput);
        assert_eq!(of(io::ErrorKind::PermissionDenied), Exit::NoPermission);
        assert_eq!(of(io::ErrorKind::StorageFull), Exit::Io);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.report(), Exit::Ok);
    }
}
