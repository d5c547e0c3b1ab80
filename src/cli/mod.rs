//! The command line: one file per subcommand.
//!
//! A command reads or changes the database directly, so it works while no
//! daemon runs; what it changes stands in `ingestd.audit_log`, written in the
//! transaction of the change. Results go to stdout, everything else to stderr.

pub mod config;

mod audit;
mod bulk;
mod completions;
mod dead;
mod dev;
mod doctor;
mod enqueue;
mod failure;
mod gates;
mod import;
mod imports;
mod interrupt;
mod jobs;
mod mappings;
mod migrate;
mod openapi;
mod output;
mod panic;
mod progress;
mod queues;
mod run;
mod runs;
mod schedules;
mod search;
mod service;
mod session;
mod source;
mod token;
mod webhooks;

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    config::{Config, ConfigError, Loaded, LogFormat, Origin, Sources},
    observe::log,
};
use output::Output;
use session::Session;

pub use failure::{Exit, Failure};
pub use panic::catch_panics;

/// How long blocking work that nobody waits for may go on once a command has ended.
pub const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// A durable job queue on Postgres that runs data ingestion.
#[derive(Debug, Parser)]
#[command(name = "ingestd", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  ingestd dev                          a private Postgres, the daemon and a sample import
  ingestd run                          the daemon, as the service manager starts it
  ingestd import products.xlsx         a product file, with progress
  ingestd jobs ls --state running      what is at work now

Exit codes: 0 done, 1 the job or run failed, 64 usage, 65 data, 66 no input, 69 database
unavailable, 70 internal error, 73 cannot create, 74 input/output, 75 try again, 77 no permission,
78 configuration; 130 and 143 by a signal.";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Configuration file instead of /etc/ingestd/ingestd.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database URL. Others can read it in the list of processes: prefer the variable
    /// `DATABASE_URL` or the file.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Print JSON: one document, or one a line where a command reports progress.
    #[arg(long, global = true)]
    json: bool,
    /// Print results only, no remarks and no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon until SIGTERM or Ctrl-C.
    Run(run::RunArgs),
    /// Runs everything on this machine to try it out: Postgres, daemon, sample import.
    Dev(dev::DevArgs),
    /// Brings the database to this version's schema and registers the kinds.
    Migrate(migrate::MigrateArgs),
    /// Enqueues a job.
    Enqueue(enqueue::EnqueueArgs),
    /// Lists, shows, explains, changes, puts off, cancels and retries jobs.
    #[command(subcommand, after_help = jobs::EXAMPLES)]
    Jobs(jobs::JobsCommand),
    /// Lists, groups, shows, replays and purges dead letters.
    #[command(subcommand, after_help = dead::EXAMPLES)]
    Dead(dead::DeadCommand),
    /// Lists, pauses and resumes queues.
    #[command(subcommand, after_help = queues::EXAMPLES)]
    Queues(queues::QueuesCommand),
    /// Lists, sets, removes, pauses and resumes gates: limits of jobs with one key.
    #[command(subcommand, after_help = gates::EXAMPLES)]
    Gates(gates::GatesCommand),
    /// Lists, explains, adds, pauses and runs schedules.
    #[command(subcommand, after_help = schedules::EXAMPLES)]
    Schedules(schedules::SchedulesCommand),
    /// Lists, shows, watches, pauses, cancels and resets runs.
    #[command(subcommand, after_help = runs::EXAMPLES)]
    Runs(runs::RunsCommand),
    /// Lists, adds, pauses, tries and removes webhooks, and shows their deliveries.
    #[command(subcommand, after_help = webhooks::EXAMPLES)]
    Webhooks(webhooks::WebhooksCommand),
    /// Makes, lists and revokes the tokens of the HTTP interface.
    #[command(subcommand, after_help = token::EXAMPLES)]
    Token(token::TokenCommand),
    /// Shows how far the search server is; sends, rebuilds, retries.
    #[command(subcommand, after_help = search::EXAMPLES)]
    Search(search::SearchCommand),
    /// Lists, shows, adds, runs, pauses and removes sources: files that are fetched, and folders.
    #[command(subcommand, visible_alias = "sources", after_help = source::EXAMPLES)]
    Source(source::SourceCommand),
    /// Imports a product file and shows its progress.
    Import(Box<import::ImportArgs>),
    /// Lists and shows imports, and undoes them.
    #[command(subcommand, after_help = imports::EXAMPLES)]
    Imports(imports::ImportsCommand),
    /// Lists, saves and removes mappings: what headers mean in the files of an owner.
    #[command(subcommand, after_help = mappings::EXAMPLES)]
    Mappings(mappings::MappingsCommand),
    /// Checks and shows the configuration.
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(config::ConfigCommand),
    /// Looks for what is wrong and says what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Prints the HTTP interface as OpenAPI 3.1.
    Openapi(openapi::OpenapiArgs),
    /// Prints a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    ///
    /// Where there is no command to carry out, what is to be said is printed and the exit code
    /// comes back: 0 after help and version, 64 after a mistake.
    pub fn from_command_line() -> Result<Self, Exit> {
        Self::try_parse().map_err(|said| match (said.print(), said.kind()) {
            (Ok(()), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Exit::Ok,
            (Err(_), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Exit::Io,
            _ => Exit::Usage,
        })
    }

    /// Loads the configuration that the flags, the environment and the files make.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load(&self.sources())
    }

    /// Starts the log: the daemon's as configured, a command's with warnings only.
    ///
    /// # Errors
    ///
    /// A filter that does not parse.
    pub fn init_log(&self, loaded: Option<&Loaded>) -> Result<(), Failure> {
        let configured = loaded.map(|loaded| (&loaded.config.log, &loaded.origins));
        let (format, filter) = match (&self.command, configured) {
            (Command::Run(_), Some((log, _))) => (log.format, log.filter.as_str()),
            (Command::Dev(_), Some((log, origins)))
                if *origins.get("log.filter") != Origin::Default =>
            {
                (log.format, log.filter.as_str())
            }
            _ => (LogFormat::Text, "warn"),
        };
        log::init(format, filter).map_err(|error| Failure::new(Exit::Config, error))?;
        Ok(())
    }

    /// Carries the command out; returns the exit code where that is no failure.
    ///
    /// # Errors
    ///
    /// [`Failure`] has the error, its exit code and a hint.
    pub async fn run(self, loaded: Result<Loaded, ConfigError>) -> Result<Exit, Failure> {
        let sources = self.sources();
        let Self { global, command } = self;
        let output = Output::new(global.json, global.quiet);
        match command {
            Command::Config(command) => return configure(command, &sources, global.json),
            Command::Completions(args) => {
                return completions::run(&args, &mut Cli::command(), &output);
            }
            Command::Openapi(_) => return openapi::run(&output),
            Command::Doctor(args) => return doctor::run(&args, loaded, &output).await,
            Command::Dev(args) => return dev::run(args, loaded?, &output).await,
            Command::Run(args) => return run::run(&args, loaded?.config, sources).await,
            _ => {}
        }
        let mut session = Session::open(loaded?.config, output).await?;
        let session = &mut session;
        match command {
            Command::Migrate(args) => migrate::run(&args, session).await,
            Command::Enqueue(args) => enqueue::run(args, session).await,
            Command::Jobs(command) => jobs::run(command, session).await,
            Command::Dead(command) => dead::run(command, session).await,
            Command::Gates(command) => gates::run(command, session).await,
            Command::Queues(command) => queues::run(command, session).await,
            Command::Schedules(command) => schedules::run(command, session).await,
            Command::Runs(command) => runs::run(command, session).await,
            Command::Webhooks(command) => webhooks::run(command, session).await,
            Command::Token(command) => token::run(command, session).await,
            Command::Search(command) => search::run(command, session).await,
            Command::Source(command) => source::run(command, session).await,
            Command::Import(args) => import::run(&args, session).await,
            Command::Imports(command) => imports::run(command, session).await,
            Command::Mappings(command) => mappings::run(command, session).await,
            _ => Ok(Exit::Ok), // the commands without a session returned above
        }
    }

    fn sources(&self) -> Sources {
        let mut flags = Vec::new();
        if let Some(url) = &self.global.database_url {
            flags.push(("database.url".to_owned(), url.clone()));
        }
        let dev = match &self.command {
            Command::Dev(args) => Some(args),
            _ => None,
        };
        flags.extend(dev.and_then(dev::DevArgs::flag));
        let mut sources = Sources::of_process(self.global.config.clone(), flags);
        sources.kinds = crate::ingest::ALL.iter().map(|kind| kind.name).collect();
        if let Some(args) = dev {
            args.keep_apart(&mut sources);
        }
        sources
    }
}

/// Runs `ingestd config`, which reports mistakes in its own way.
fn configure(
    mut command: config::ConfigCommand,
    sources: &Sources,
    as_json: bool,
) -> Result<Exit, Failure> {
    if let config::ConfigCommand::Show { json, .. } = &mut command {
        *json |= as_json;
    }
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    match config::run(&command, sources, &mut out, &mut err)? {
        0 => Ok(Exit::Ok),
        _ => Ok(Exit::Config),
    }
}

#[cfg(test)]
mod tests;
