//! `ingestd import`: a product file into the catalog, with progress.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _},
};

use super::{
    Exit, Failure, Output, Session,
    audit::Change,
    interrupt::unless_interrupted,
    output::{brief, or_none},
    progress,
    source::fetch::{self, Remote},
};
use crate::{
    blob,
    ingest::product_import::submit::{self, Origin, SubmitError},
    runs::{Run, RunId},
};

/// How much of a file is copied at once, in bytes.
const PIECE: usize = 256 << 10;

/// How many row errors the summary shows.
const N_SHOWN: i64 = 10;

/// Imports a product file: copies it into the storage folder, has a daemon load it, and shows the
/// progress.
///
/// The daemon may run anywhere that has the same database and the same storage folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd import products.xlsx
  ingestd import products.csv --tenant acme --no-wait
  ingestd import products.xlsx --json | jq .items_done
  ingestd import https://files.example.com/products.xlsx --secret supplier
  ingestd import s3://exports/products.csv --endpoint https://minio.example.com --secret minio

The exit code is 0 where the import completed, bad rows or not, 1 where it failed, and 65 where
the file is refused.")]
pub(super) struct ImportArgs {
    /// The file: xlsx, xls, xlsb, ods or csv; or a URL (`http://`, `https://`, `s3://`) that a daemon fetches.
    file: PathBuf,
    #[command(flatten)]
    remote: Remote,
    /// Owner of the products.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Only submit the file; `ingestd runs watch` shows the progress later.
    #[arg(long)]
    no_wait: bool,
}

/// What an import came to.
#[derive(Debug, Serialize, FromRow)]
pub(super) struct Summary {
    created_count: i64,
    updated_count: i64,
    unchanged_count: i64,
    /// Rows refused, each for one reason or more.
    error_count: i64,
    /// The first reasons.
    #[sqlx(skip)]
    first_errors: Vec<RowError>,
}

/// What is wrong with one row.
#[derive(Debug, Serialize, FromRow)]
struct RowError {
    row_no: i32,
    column_name: Option<String>,
    code: String,
    message: String,
    value: Option<String>,
}

pub(super) async fn run(args: &ImportArgs, session: &mut Session) -> Result<Exit, Failure> {
    if let Some(url) = args.file.to_str().filter(|file| file.contains("://")) {
        return fetch::run(url, &args.remote, &args.tenant, args.no_wait, session).await;
    }
    let file = open(&args.file, session.config.http.max_upload_bytes).await?;
    let name = args
        .file
        .file_name()
        .unwrap_or(args.file.as_os_str())
        .to_string_lossy();
    let origin = Origin {
        tenant: &args.tenant,
        triggered_by: "cli",
    };
    let id = unless_interrupted(submit(file, &name, origin, session)).await?;
    session.warn_without_worker().await?;
    if args.no_wait {
        let text = format!("run {id}; `ingestd runs watch {id}` shows its progress");
        session.output.done(&json!({ "run_id": id }), &text)?;
        return Ok(Exit::Ok);
    }
    session.output.remark(&format!("run {id} imports {name}"));
    follow(id, session).await
}

/// Opens a file that is not larger than an upload may be.
async fn open(path: &Path, max_bytes: u64) -> Result<File, Failure> {
    let opened = File::open(path).await;
    let file = opened.with_context(|| format!("cannot read {}", path.display()))?;
    let n_bytes = file.metadata().await?.len();
    if n_bytes > max_bytes {
        let text = format!(
            "{} has {n_bytes} bytes, more than {max_bytes}",
            path.display()
        );
        return Err(Failure::say(Exit::Data, text).hint("http.max_upload_bytes sets the limit"));
    }
    Ok(file)
}

/// Copies a file into the store and makes the run that imports it.
pub(super) async fn submit(
    mut file: impl AsyncRead + Unpin,
    name: &str,
    origin: Origin<'_>,
    session: &mut Session,
) -> Result<RunId, Failure> {
    let opened = blob::Store::open(&session.config.storage.dir).await;
    let blobs = opened.map_err(|error| {
        let failure = Failure::new(Exit::CannotCreate, error);
        failure.hint("use the daemon's configuration, and its user or root: storage.dir")
    })?;
    let mut writer = blobs
        .create()
        .await
        .context("cannot write into the storage folder")?;
    let mut piece = vec![0; PIECE];
    loop {
        let n_bytes = file
            .read(&mut piece)
            .await
            .with_context(|| format!("cannot read {name}"))?;
        if n_bytes == 0 {
            break;
        }
        writer
            .write(piece.get(..n_bytes).unwrap_or_default())
            .await?;
    }
    let accepted = submit::accept(&blobs, &session.config, writer, name).await;
    let accepted = accepted.map_err(refused)?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let id = accepted.submit(&mut tx, origin).await?;
    let change = Change {
        tenant: Some(origin.tenant),
        detail: json!({ "file_name": name }),
        ..Change::of("import.submit", format!("run/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    accepted.keep();
    tx.commit().await?;
    Ok(id)
}

fn refused(error: SubmitError) -> Failure {
    match error {
        SubmitError::Refused(refusal) if !refusal.is_transient() => {
            Failure::new(Exit::Data, refusal)
        }
        SubmitError::Refused(refusal) => Failure::new(Exit::Io, refusal),
        error => error.into(),
    }
}

/// Shows an import's progress until it has ended, and then what it came to.
///
/// # Errors
///
/// It failed or was cancelled.
pub(super) async fn follow(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let run = progress::follow(id, session).await?;
    let summary = summary(&mut session.conn, id).await?;
    summary.print(&session.output, &run)?;
    let lost = run
        .error
        .as_deref()
        .is_some_and(|error| error.ends_with("is gone"));
    let ended = progress::conclude(&run);
    if lost {
        let hint = "does the daemon have another storage.dir? use its configuration";
        return ended.map_err(|failure| failure.hint(hint));
    }
    ended
}

/// Reads what an import came to.
pub(super) async fn summary(conn: &mut PgConnection, id: RunId) -> sqlx::Result<Summary> {
    let mut summary: Summary = sqlx::query_as(
        "SELECT created_count, updated_count, unchanged_count, error_count
         FROM catalog.imports WHERE id = $1",
    )
    .bind(id)
    .fetch_one(&mut *conn)
    .await?;
    summary.first_errors = sqlx::query_as(
        "SELECT row_no, column_name, code, message, value FROM catalog.import_errors
         WHERE import_id = $1 ORDER BY row_no, id LIMIT $2",
    )
    .bind(id)
    .bind(N_SHOWN)
    .fetch_all(conn)
    .await?;
    Ok(summary)
}

impl Summary {
    /// Prints the counts and the first row errors.
    pub(super) fn print(&self, output: &Output, run: &Run) -> std::io::Result<()> {
        if output.is_json() {
            return output.json_line(&json!({
                "event": "summary", "run_id": run.id, "state": run.state, "import": self,
            }));
        }
        let count = |name: &str, n: i64| vec![name.to_owned(), n.to_string()];
        output.table(
            &["rows", ""],
            vec![
                count("inserted", self.created_count),
                count("updated", self.updated_count),
                count("unchanged", self.unchanged_count),
                count("bad", self.error_count),
            ],
        )?;
        if self.first_errors.is_empty() {
            return Ok(());
        }
        output.line("")?;
        let rows = self.first_errors.iter().map(RowError::cells).collect();
        output.table(&["row", "column", "what is wrong", "value"], rows)?;
        if self.error_count > N_SHOWN {
            output.remark(&format!(
                "more: SELECT * FROM catalog.import_errors WHERE import_id = {}",
                run.id
            ));
        }
        Ok(())
    }
}

impl RowError {
    fn cells(&self) -> Vec<String> {
        vec![
            self.row_no.to_string(),
            or_none(self.column_name.as_ref()),
            self.message.clone(),
            brief(self.value.as_deref().unwrap_or_default()),
        ]
    }
}
