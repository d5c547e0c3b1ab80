//! `ingestd imports`: what was imported, and undoing it.

use std::{io::BufWriter, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::Connection as _;
use tokio::runtime::Handle;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, at, or_none},
    progress,
};
use crate::{
    blob,
    ingest::product_import::{
        export::{Db, Download, ExportError, Part, TableFormat},
        store::{self, Filter, Import},
        undo::{self, Outcome, UndoError},
    },
    runs::{RunId, RunState},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd imports ls
  ingestd imports errors 7 --output errors.xlsx
  ingestd imports rollback 7 --preview
  ingestd imports rollback 7";

#[derive(Debug, Subcommand)]
pub(super) enum ImportsCommand {
    /// Lists imports, newest first.
    #[command(
        after_help = "Examples:\n  ingestd imports ls --tenant acme --limit 5\n  ingestd imports ls --state failed"
    )]
    Ls(LsArgs),
    /// Shows everything about one import.
    #[command(after_help = "Examples:\n  ingestd imports show 7 --json")]
    Show {
        /// The import's id, which is its run's.
        id: i64,
    },
    /// Writes the rejected rows with what is wrong with each; mended, the file can be imported again.
    #[command(after_help = "Examples:
  ingestd imports errors 7 > errors.csv
  ingestd imports errors 7 --output errors.xlsx")]
    Errors(ExportArgs),
    /// Writes the rows that were imported.
    #[command(after_help = "Examples:\n  ingestd imports results 7 --output results.xlsx")]
    Results(ExportArgs),
    /// Undoes an import: what it created is archived, what it changed or archived gets back what it
    /// was.
    ///
    /// What something newer touched stays as it is, and is named.
    #[command(after_help = "Examples:
  ingestd imports rollback 7 --preview
  ingestd imports rollback 7
  ingestd imports rollback 7 --no-wait --json

The exit code is 0 where the run completed, whether products stayed or not, and 1 where it failed.")]
    Rollback(RollbackArgs),
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only this owner's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only those whose run is so far: pending, running, paused, completed, failed or cancelled.
    #[arg(long, value_parser = state)]
    state: Option<RunState>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The import's id, which is its run's.
    id: i64,
    /// The file to write; one that ends with .xlsx becomes a workbook. Default: CSV to stdout.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The import's id, which is its run's.
    id: i64,
    /// Change nothing, and show what would be.
    #[arg(long)]
    preview: bool,
    /// Only submit it; `ingestd runs watch` shows the progress later.
    #[arg(long)]
    no_wait: bool,
}

/// Reads a state by its word.
fn state(word: &str) -> Result<RunState, serde_json::Error> {
    serde_json::from_value(word.to_lowercase().into())
}

pub(super) async fn run(command: ImportsCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        ImportsCommand::Ls(args) => {
            let tenants = args.tenant.as_ref().map(std::slice::from_ref);
            let filter = Filter {
                tenants,
                state: args.state,
                ..Filter::default()
            };
            let found = store::list(&mut session.conn, filter, args.limit).await?;
            session.output.list(&found, "no such imports")?;
            Ok(Exit::Ok)
        }
        ImportsCommand::Show { id } => show(id, session).await,
        ImportsCommand::Errors(args) => export(args, Part::Errors, session).await,
        ImportsCommand::Results(args) => export(args, Part::Results, session).await,
        ImportsCommand::Rollback(args) => roll_back(&args, session).await,
    }
}

async fn show(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    let import = store::find(&mut session.conn, id).await?;
    let import = import.ok_or_else(|| refused(UndoError::NotFound(RunId(id))))?;
    session.output.list(&[import], "")?;
    Ok(Exit::Ok)
}

async fn export(args: ExportArgs, part: Part, session: &mut Session) -> Result<Exit, Failure> {
    let id = RunId(args.id);
    let blobs = blob::Store::open(&session.config.storage.dir).await?;
    let found = Download::find(&mut session.conn, &blobs, &session.config, id, part).await;
    let found = found.map_err(not_exported)?;
    let is_workbook = args.output.as_ref().and_then(|path| path.extension());
    let format = match is_workbook {
        Some(extension) if extension.eq_ignore_ascii_case("xlsx") => TableFormat::Xlsx,
        _ => TableFormat::Csv,
    };
    // a connection of its own, since it is used on another thread
    let mut conn = super::session::connect(&session.config).await?;
    let handle = Handle::current();
    let path = args.output.clone();
    let written = tokio::task::spawn_blocking(move || {
        let db = Db::Own(&mut conn);
        if let Some(path) = path {
            let out = BufWriter::new(std::fs::File::create(path)?);
            found.write(&handle, db, format, out)
        } else {
            found.write(&handle, db, format, std::io::stdout())
        }
    });
    let n_rows = written.await.context("the writing broke off")?;
    let n_rows = n_rows.map_err(not_exported)?;
    match args.output {
        Some(path) => {
            let text = format!("{n_rows} rows in {}", path.display());
            session
                .output
                .done(&json!({ "rows": n_rows, "path": path }), &text)?;
        }
        None => session.output.remark(&format!("{n_rows} rows")),
    }
    Ok(Exit::Ok)
}

fn not_exported(error: ExportError) -> Failure {
    match error {
        ExportError::Database(error) => error.into(),
        ExportError::NotFound(_) | ExportError::Gone | ExportError::Forgotten(_) => {
            Failure::new(Exit::NoInput, error)
        }
        ExportError::Refused(_) | ExportError::Output(_) => Failure::new(Exit::Io, error),
    }
}

async fn roll_back(args: &RollbackArgs, session: &mut Session) -> Result<Exit, Failure> {
    let id = RunId(args.id);
    if args.preview {
        let mut tx = session.conn.begin().await?;
        let outcome = undo::preview(&mut tx, id).await.map_err(refused)?;
        drop(tx);
        print(&outcome, id, None, session)?;
        return Ok(Exit::Ok);
    }
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let run_id = undo::submit(&mut tx, id, "cli").await.map_err(refused)?;
    let import = store::find(&mut tx, id.0).await?;
    let change = Change {
        tenant: import.as_ref().map(|import| import.tenant.as_str()),
        detail: json!({ "run_id": run_id }),
        ..Change::of("import.rollback", format!("run/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    session.warn_without_worker().await?;
    if args.no_wait {
        let text = format!("run {run_id}; `ingestd runs watch {run_id}` shows its progress");
        session.output.done(&json!({ "run_id": run_id }), &text)?;
        return Ok(Exit::Ok);
    }
    session
        .output
        .remark(&format!("run {run_id} undoes import {id}"));
    let run = progress::follow(run_id, session).await?;
    let outcome = undo::outcome(&mut session.conn, run_id).await?;
    print(&outcome, id, Some(run_id), session)?;
    progress::conclude(&run)
}

fn refused(error: UndoError) -> Failure {
    match error {
        UndoError::Database(error) => error.into(),
        UndoError::NotFound(_) => Failure::new(Exit::NoInput, error),
        error => Failure::new(Exit::Failed, error),
    }
}

/// Prints what an undoing came to, or would where there is no run.
fn print(
    outcome: &Outcome,
    id: RunId,
    run_id: Option<RunId>,
    session: &Session,
) -> std::io::Result<()> {
    let output = &session.output;
    if output.is_json() {
        return output.json_line(&json!({
            "event": "summary", "import_id": id, "run_id": run_id, "outcome": outcome,
        }));
    }
    let count = |name: &str, n: i64| vec![name.to_owned(), n.to_string()];
    output.table(
        &["products", ""],
        vec![
            count("restored", outcome.n_restored),
            count("archived", outcome.n_archived),
            count("kept", outcome.n_kept),
        ],
    )?;
    if outcome.kept.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows = outcome.kept.iter();
    let rows = rows.map(|kept| vec![or_none(kept.code.as_ref()), kept.reason.clone()]);
    output.table(&["kept", "because"], rows.collect())
}

impl Listed for Import {
    const HEADERS: &'static [&'static str] = &[
        "id",
        "state",
        "mode",
        "file",
        "inserted",
        "updated",
        "unchanged",
        "archived",
        "bad",
        "tenant",
        "created (UTC)",
        "undone by",
    ];

    fn cells(&self) -> Vec<String> {
        let dry = if self.dry_run { " (dry run)" } else { "" };
        vec![
            self.id.to_string(),
            self.state.as_str().to_owned(),
            format!("{}{dry}", self.mode),
            self.file_name.clone(),
            self.created_count.to_string(),
            self.updated_count.to_string(),
            self.unchanged_count.to_string(),
            self.archived_count.to_string(),
            self.error_count.to_string(),
            self.tenant.clone(),
            at(self.created_at),
            or_none(self.rollback_run_id.as_ref()),
        ]
    }
}
