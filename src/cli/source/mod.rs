//! `ingestd source`: product files that are fetched, and watched folders.

mod act;
mod add;
pub(super) mod fetch;

use clap::Subcommand;

use super::{
    Exit, Failure, Session,
    dead::confirm,
    output::{Listed, at, at_or_none, brief, or_none},
};
use crate::{
    queue::schedule::Wrong,
    source::{self, Ready, Source, SourceFile},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd source add supplier https://files.example.com/products.xlsx --cron '*/15 * * * *'
  ingestd source add bucket s3://exports/products.csv --region eu-central-1 --secret s3 --every 1h
  ingestd source add partner ftps://ftp.example.com/out/products.csv --secret partner --every 1h
  ingestd source add inbox /srv/inbox --pattern '*.csv' --every 30s
  ingestd source show inbox

A source is imported whenever it has changed; of a watched folder, each new file is imported once
and moved to done/ or failed/ in it. Paths must be below sources.allowed_dirs. Of an FTP server one
file is a source, below the folder of the login, or from the root after two slashes; ftps:// is TLS
by AUTH TLS, on port 990 from the start. A secret is a file of the folder sources.secrets_dir; the
source has its name only. Lines of such a file:
  basic USER:PASSWORD                       how to log in, also at an FTP server; or bearer TOKEN,
                                            header NAME: VALUE, s3 KEY_ID SECRET_KEY
  for https://files.example.com             where alone it is sent
  tenant acme                               whose sources alone may use it; may be left out";

/// How many files `show` lists.
const N_FILES: i64 = 50;

#[derive(Debug, Subcommand)]
pub(super) enum SourceCommand {
    /// Lists the sources by name.
    #[command(after_help = "Examples:\n  ingestd source ls --json")]
    Ls {
        /// At most this many.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Shows one source, and of a watched folder the files.
    #[command(after_help = "Examples:\n  ingestd source show supplier")]
    Show {
        /// The source's name.
        name: String,
    },
    /// Adds a source with its schedule.
    #[command(after_help = "Examples:
  ingestd source add supplier https://files.example.com/products.xlsx --cron '0 5 * * *' \\
    --timezone Europe/Prague --secret supplier --tenant acme
  ingestd source add minio s3://exports/products.csv --secret minio --every 15m
  ingestd source add partner ftps://ftp.example.com/out/products.csv --secret partner --every 1h
  ingestd source add public ftp://ftp.example.com//pub/products.xlsx --every 1d
  ingestd source add inbox /srv/inbox --pattern '*.xlsx' --ready marker --every 30s")]
    Add(Box<add::AddArgs>),
    /// Removes a source with its schedule; its imports stay.
    #[command(after_help = "Examples:\n  ingestd source rm supplier --yes")]
    Rm {
        /// The source's name.
        name: String,
        /// Yes, remove it.
        #[arg(long)]
        yes: bool,
    },
    /// Looks at a source now, paused or not.
    #[command(after_help = "Examples:
  ingestd source run supplier
  ingestd source run supplier --force")]
    Run {
        /// The source's name.
        name: String,
        /// Import the file even if it is the version that was seen last.
        #[arg(long)]
        force: bool,
    },
    /// Pauses a source: its ticks pass without a look.
    #[command(after_help = "Examples:\n  ingestd source pause supplier")]
    Pause {
        /// The source's name.
        name: String,
    },
    /// Lets a paused source go on.
    #[command(after_help = "Examples:\n  ingestd source resume supplier")]
    Resume {
        /// The source's name.
        name: String,
    },
}

pub(super) async fn run(command: SourceCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        SourceCommand::Ls { limit } => {
            let sources = source::list(&mut session.conn, None, limit).await?;
            session.output.list(&sources, "no sources")?;
            Ok(Exit::Ok)
        }
        SourceCommand::Show { name } => show(&name, session).await,
        SourceCommand::Add(args) => add::add(*args, session).await,
        SourceCommand::Rm { name, yes } => {
            confirm(yes, &format!("remove source {name} and its schedule"))?;
            act::remove(&name, session).await
        }
        SourceCommand::Run { name, force } => act::run_now(&name, force, session).await,
        SourceCommand::Pause { name } => act::pause(&name, session).await,
        SourceCommand::Resume { name } => act::resume(&name, session).await,
    }
}

impl Listed for Source {
    const HEADERS: &'static [&'static str] = &[
        "name",
        "location",
        "tenant",
        "cron",
        "next (UTC)",
        "last look (UTC)",
        "result",
        "import",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let next = if self.is_paused() {
            "paused".to_owned()
        } else {
            at_or_none(self.next_at)
        };
        vec![
            self.name.clone(),
            located(self),
            self.definition.tenant.clone(),
            or_none(self.definition.cron.as_ref()),
            next,
            at_or_none(self.last_look_at),
            or_none(self.last_result.as_ref()),
            or_none(self.last_import_id.as_ref()),
            brief(self.last_error.as_deref().unwrap_or_default()),
        ]
    }
}

impl Listed for SourceFile {
    const HEADERS: &'static [&'static str] = &[
        "file",
        "bytes",
        "state",
        "seen (UTC)",
        "import",
        "now at",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.size_bytes.to_string(),
            self.state.clone(),
            at(self.seen_at),
            or_none(self.import_id.as_ref()),
            or_none(self.moved_to.as_ref()),
            brief(self.error.as_deref().unwrap_or_default()),
        ]
    }
}

/// Returns the location, of a watched folder with its pattern.
fn located(source: &Source) -> String {
    let location = &source.definition.location;
    match &source.definition.pattern {
        Some(pattern) => format!("{location}/{pattern}"),
        None => location.clone(),
    }
}

async fn find(name: &str, session: &mut Session) -> Result<Source, Failure> {
    let found = source::get(&mut session.conn, name).await?;
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Failure {
    Failure::say(Exit::NoInput, format!("there is no source {name}"))
        .hint("`ingestd source ls` lists them")
}

/// Tells everything that is wrong with a source.
fn refused(wrong: &[Wrong]) -> Failure {
    let told = wrong.iter().map(|w| format!("{} {}", w.field, w.why));
    Failure::say(Exit::Data, told.collect::<Vec<_>>().join("; "))
}

/// A source with its files.
#[derive(Debug, serde::Serialize)]
struct Shown {
    #[serde(flatten)]
    source: Source,
    files: Vec<SourceFile>,
}

async fn show(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let source = find(name, session).await?;
    let files = source::files(&mut session.conn, name, N_FILES).await?;
    let of = &source.definition;
    let ready = of.ready.map(|ready| match ready {
        Ready::Stable => "stable",
        Ready::Marker => "marker",
        Ready::AtOnce => "at-once",
    });
    let fields = [
        ("name", source.name.clone()),
        ("location", located(&source)),
        ("tenant", of.tenant.clone()),
        ("ready", ready.unwrap_or_default().to_owned()),
        ("endpoint", of.endpoint.clone().unwrap_or_default()),
        ("region", of.region.clone().unwrap_or_default()),
        ("secret", of.secret_ref.clone().unwrap_or_default()),
        (
            "cron",
            of.cron.clone().unwrap_or_else(|| "by hand".to_owned()),
        ),
        ("timezone", of.timezone.clone()),
        ("owner", source.origin.clone()),
        ("paused", source.is_paused().to_string()),
        ("next look", at_or_none(source.next_at)),
        ("last look", at_or_none(source.last_look_at)),
        ("result", or_none(source.last_result.as_ref())),
        ("import", or_none(source.last_import_id.as_ref())),
        ("error", source.last_error.clone().unwrap_or_default()),
        ("created", at(source.created_at)),
    ];
    let shown = Shown {
        source: source.clone(),
        files,
    };
    session.output.record(&shown, &fields)?;
    if !session.output.is_json() && !shown.files.is_empty() {
        session.output.line("")?;
        session.output.list(&shown.files, "")?;
    }
    Ok(Exit::Ok)
}
