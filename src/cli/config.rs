//! `ingestd config`: what is wrong with the configuration, what is in force, and why.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, ConfigError, Loaded, Origin, Sources, is_secret};

/// Exit code of a configuration error, `EX_CONFIG` of sysexits(3).
pub const EXIT_CONFIG: u8 = 78;

pub(super) const EXAMPLES: &str = "Examples:
  ingestd config check
  ingestd config show --origin";

/// The commands below `ingestd config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Reads all layers and says what is wrong with them; exits 78 where anything is.
    #[command(after_help = "Examples:
  ingestd config check
  ingestd config check --config ./ingestd.toml")]
    Check,
    /// Prints every key with its value; secrets are redacted.
    #[command(after_help = "Examples:
  ingestd config show > ingestd.toml
  ingestd config show --origin")]
    Show {
        /// Adds where each value comes from.
        #[arg(long)]
        origin: bool,
        /// Prints a JSON array of objects with `key`, `value` and `origin`.
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command and returns its exit code: 0, or [`EXIT_CONFIG`] where the configuration is
/// wrong.
///
/// Results go to `out`, mistakes to `err`.
///
/// # Errors
///
/// Only those of writing.
pub fn run(
    command: &ConfigCommand,
    sources: &Sources,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let loaded = match Config::load(sources) {
        Ok(loaded) => loaded,
        Err(error) => return report(&error, err),
    };
    match command {
        ConfigCommand::Check => check(&loaded, out)?,
        ConfigCommand::Show { origin, json } => match entries(&loaded) {
            Ok(entries) if *json => show_json(&entries, out)?,
            Ok(entries) => show(&entries, *origin, out)?,
            Err(error) => return report(&error, err),
        },
    }
    Ok(0)
}

/// Prints each mistake as `error: ...` and returns the exit code for them.
///
/// # Errors
///
/// Only those of writing.
pub fn report(error: &ConfigError, err: &mut impl Write) -> io::Result<u8> {
    for mistake in &error.mistakes {
        writeln!(err, "error: {mistake}")?;
    }
    Ok(EXIT_CONFIG)
}

/// One line of `config show`.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    key: String,
    value: Value,
    origin: &'a Origin,
}

fn entries(loaded: &Loaded) -> Result<Vec<Entry<'_>>, ConfigError> {
    let entries = loaded.config.entries()?.into_iter();
    let entries = entries.map(|(key, value)| Entry {
        origin: loaded.origins.get(&key),
        key,
        value,
    });
    Ok(entries.collect())
}

fn check(loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "ok")?;
    for file in &loaded.files {
        writeln!(out, "read {}", file.display())?;
    }
    if loaded.files.is_empty() {
        writeln!(out, "read no file: defaults, environment and flags only")?;
    }
    // A person reads a cron line wrongly more often than not.
    for (name, schedule) in loaded.config.schedules.iter() {
        if let Ok(timetable) = schedule.definition().check() {
            writeln!(out, "schedule {name}: {}", timetable.describe())?;
        }
    }
    Ok(())
}

/// Prints lines of TOML, so that the output can be kept as a file.
///
/// What is not set is a comment, and so are secrets: read back, what stands for a secret would be
/// one that everybody knows.
fn show(entries: &[Entry<'_>], with_origin: bool, out: &mut impl Write) -> io::Result<()> {
    let lines = entries
        .iter()
        .map(|entry| match (&entry.key, &entry.value) {
            (key, Value::Null) => (format!("# {key} is not set"), entry),
            (key, value) if is_secret(key) => (format!("# {key} = {value}"), entry),
            (key, value) => (format!("{key} = {}", toml(value)), entry),
        });
    let lines: Vec<_> = lines.collect();
    let widths = lines.iter().map(|(line, _)| line.chars().count());
    let width = widths.filter(|width| *width <= 60).max().unwrap_or(0);
    for (line, entry) in &lines {
        if with_origin {
            writeln!(out, "{line:width$}  # {}", entry.origin)?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Writes a value as TOML: scalars and lists of them look like JSON, tables do not.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let entries = table.iter();
            // A JSON string is a quoted key.
            let entries =
                entries.map(|(key, v)| format!("{} = {}", Value::from(key.as_str()), toml(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(toml).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn show_json(entries: &[Entry<'_>], out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, entries)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    /// Runs a command in a world with one file and a few variables; returns the exit code, the
    /// output and the errors, the folder left out of them.
    fn ran(command: &ConfigCommand, text: &str) -> (u8, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ingestd.toml");
        fs::write(&file, text).unwrap();
        let env = [
            ("DATABASE_URL", "postgres://u:sesame@h/db"),
            ("INGESTD_QUEUES__IMPORT__CONCURRENCY", "4"),
        ];
        let mut sources = Sources::new(env.map(|(k, v)| (OsString::from(k), OsString::from(v))));
        sources.file = Some(file);
        sources.flags = vec![("http.token".to_owned(), "sesame".to_owned())];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(command, &sources, &mut out, &mut err).unwrap();
        let folder = format!("{}/", folder.path().display());
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(&folder, "");
        (code, text(out), text(err))
    }

    #[test]
    fn check_names_the_files_it_read() {
        let expected = (0, "ok\nread ingestd.toml\n".to_owned(), String::new());
        assert_eq!(
            ran(&ConfigCommand::Check, "[log]\nformat = 'json'\n"),
            expected
        );
    }

    #[test]
    fn check_says_when_schedules_are_due() {
        let text = "[schedules.night]\nkind = 'a.b'\ncron = '30 2 * * *'\n\
            timezone = 'Europe/Prague'\n";
        let (code, out, _) = ran(&ConfigCommand::Check, text);
        assert_eq!(code, 0);
        assert!(out.contains("schedule night: "), "{out}");
        assert!(
            out.contains("02:30") && out.contains("Europe/Prague"),
            "{out}"
        );
    }

    #[test]
    fn check_exits_78_with_every_mistake() {
        let text = "[log]\nfromat = 'json'\n[runs]\nmax_retries = 'x'\n";
        let (code, out, err) = ran(&ConfigCommand::Check, text);
        assert_eq!((code, out.as_str()), (EXIT_CONFIG, ""));
        let told: Vec<&str> = err
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        let expected = [
            "error: ingestd.toml:2:1: unknown key `fromat` in [log]",
            "error: ingestd.toml:4:15: runs.max_retries: expected a whole number, \
             found string \"x\"",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn show_names_the_origin_of_every_value() {
        let command = ConfigCommand::Show {
            origin: true,
            json: false,
        };
        let (code, out, _) = ran(&command, "[log]\nformat = 'json'\n");
        assert_eq!(code, 0);
        assert!(!out.contains("sesame"), "{out}");
        let blanks = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = out.lines().map(blanks).collect();
        for expected in [
            "# database.url = \"postgres://u:[redacted]@h/db\" # env DATABASE_URL",
            "# database.url_file is not set # default",
            "# http.token = \"[redacted]\" # flag",
            "log.format = \"json\" # ingestd.toml:2",
            "queue.lost_after = \"30s\" # default",
            "queues.import.concurrency = 4 # env INGESTD_QUEUES__IMPORT__CONCURRENCY",
        ] {
            assert!(
                lines.iter().any(|line| line == expected),
                "{expected}\n{out}"
            );
        }
    }

    #[test]
    fn what_show_prints_is_a_configuration_file() {
        let command = ConfigCommand::Show {
            origin: false,
            json: false,
        };
        let text = "kinds.a.b = { retry_factor = 1.5 }\n\
            schedules.'every night'.args = { 'a b' = [{ c = 1 }, { d = 'x' }], e = {}, f = -1.5 }\n\
            schedules.'every night'.kind = 'a.b'\n\
            schedules.'every night'.cron = '0 3 * * *'\n\
            product_import.aliases.code = ['\"sku']\n";
        let (_, first, _) = ran(&command, text);
        let (code, second, err) = ran(&command, &first);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(first, second);
    }

    #[test]
    fn show_as_json_is_for_machines() {
        let command = ConfigCommand::Show {
            origin: true,
            json: true,
        };
        let (_, out, _) = ran(&command, "[log]\nformat = 'json'\n");
        let shown: Vec<Value> = serde_json::from_str(&out).unwrap();
        let of = |key: &str| shown.iter().find(|entry| entry["key"] == key).unwrap();
        assert_eq!(of("log.format")["value"], "json");
        assert_eq!(of("log.format")["origin"]["from"], "file");
        assert_eq!(of("log.format")["origin"]["line"], 2);
        assert_eq!(of("http.token")["value"], "[redacted]");
        let origin = serde_json::json!({"from": "env", "variable": "DATABASE_URL"});
        assert_eq!(of("database.url")["origin"], origin);
        assert_eq!(of("queue.wake")["origin"]["from"], "default");
    }
}
