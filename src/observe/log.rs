//! Where log lines go and how they look.
//!
//! All go to stderr or to the journal; stdout belongs to the commands' output.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use tracing::warn;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::json::JsonLine;
use crate::config::LogFormat;

/// A filter that does not parse; a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("log.filter {filter:?} does not parse: {error}")]
pub struct InvalidFilter {
    filter: String,
    error: ParseError,
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging; returns the format that `auto` became.
///
/// `filter` holds directives as of [`EnvFilter`], comma-separated. A second call
/// in a process changes nothing and is no error. A journal that cannot be
/// reached is no error either: the lines go to stderr as JSON, the first one
/// says why.
///
/// # Errors
///
/// [`InvalidFilter`] where `filter` does not parse.
pub fn init(format: LogFormat, filter: &str) -> Result<LogFormat, InvalidFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|error| InvalidFilter {
        filter: filter.to_owned(),
        error,
    })?;
    let journal_stream = std::env::var("JOURNAL_STREAM").ok();
    let format = resolve(format, journal_stream.as_deref(), &std::io::stderr());
    let (layer, format, trouble) = match layer(format) {
        Ok(layer) => (layer, format, None),
        Err(error) => (json(), LogFormat::Json, Some(error)),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    if subscriber.try_init().is_ok()
        && let Some(error) = trouble
    {
        warn!(%error, "the journal cannot be reached, logging to stderr");
    }
    Ok(format)
}

fn layer(format: LogFormat) -> std::io::Result<BoxedLayer> {
    match format {
        LogFormat::Journald => Ok(tracing_journald::layer()?
            .with_field_prefix(None)
            .with_syslog_identifier("ingestd".to_owned())
            .boxed()),
        LogFormat::Json => Ok(json()),
        LogFormat::Text | LogFormat::Auto => Ok(text()),
    }
}

fn text() -> BoxedLayer {
    // https://no-color.org: present and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(!plain && std::io::stderr().is_terminal())
        .boxed()
}

fn json() -> BoxedLayer {
    fmt::layer()
        .fmt_fields(fmt::format::JsonFields::new())
        .event_format(JsonLine)
        .with_writer(std::io::stderr)
        .boxed()
}

/// Decides what `auto` means for a stderr.
///
/// `journal_stream` is systemd's `JOURNAL_STREAM`, `DEVICE:INODE` of the stream
/// that it connected; a child that redirects stderr inherits the variable, so
/// the numbers are compared (systemd.exec(5)).
fn resolve(
    format: LogFormat,
    journal_stream: Option<&str>,
    stderr: &(impl AsFd + std::io::IsTerminal),
) -> LogFormat {
    match format {
        LogFormat::Auto if journal_stream.is_some_and(|named| names(named, stderr)) => {
            LogFormat::Journald
        }
        LogFormat::Auto if stderr.is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

/// Returns whether `DEVICE:INODE` is this stream.
fn names(journal_stream: &str, stream: &impl AsFd) -> bool {
    nix::sys::stat::fstat(stream.as_fd())
        .is_ok_and(|stat| journal_stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(file: &std::fs::File) -> String {
        use std::os::unix::fs::MetadataExt as _;
        let meta = file.metadata().unwrap();
        format!("{}:{}", meta.dev(), meta.ino())
    }

    #[test]
    fn auto_is_the_journal_only_where_stderr_is_its_stream() {
        let (stderr, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let auto = |named: Option<&str>| resolve(LogFormat::Auto, named, &stderr);
        assert_eq!(auto(Some(&stream_of(&stderr))), LogFormat::Journald);
        assert_eq!(auto(Some(&stream_of(&other))), LogFormat::Json);
        assert_eq!(auto(Some("nonsense")), LogFormat::Json);
        assert_eq!(auto(None), LogFormat::Json);
    }

    #[test]
    fn a_chosen_format_stays() {
        let file = tempfile::tempfile().unwrap();
        let named = stream_of(&file);
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journald] {
            assert_eq!(resolve(format, Some(&named), &file), format);
        }
    }

    #[test]
    fn a_bad_filter_is_refused_and_a_second_start_is_not() {
        let error = init(LogFormat::Json, "info,sqlx=loud")
            .unwrap_err()
            .to_string();
        assert!(error.contains("sqlx=loud"), "{error}");
        assert_eq!(init(LogFormat::Json, "off").unwrap(), LogFormat::Json);
        assert_eq!(init(LogFormat::Json, "off").unwrap(), LogFormat::Json);
    }
}
