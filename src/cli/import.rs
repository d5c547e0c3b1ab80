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
    ingest::product_import::{
        dealers::{self, DealersError},
        load::tally::{self, Tally},
        plan::Wish,
        saved_map,
        sheet::SkippedSheet,
        submit::{self, Origin, SubmitError},
    },
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
  ingestd import products.xlsx --dry-run
  ingestd import dealers.xlsx --dealers
  ingestd import products.xlsx --mode replace-all --max-drop-percent 5
  ingestd import preise.csv --mode update-only --decimal comma --dates dmy
  ingestd import catalogue.xlsx --sheets all
  ingestd import catalogue.xlsx --sheets 'Lamps,Cables,3' --json
  ingestd import catalogue.xlsx --merged-cells fill
  ingestd import partslist.csv --map 'Unser Zeichen=code' --map Text=name
  ingestd import partslist.csv --map @acme
  ingestd import products.xlsx --json | jq .items_done
  ingestd import https://files.example.com/products.xlsx --secret supplier
  ingestd import s3://exports/products.csv --endpoint https://minio.example.com --secret minio
  ingestd import ftps://ftp.example.com/out/products.csv --secret partner

The exit code is 0 where the import completed, bad rows or not, 1 where it failed, and 65 where
the file is refused.")]
pub(super) struct ImportArgs {
    /// The file: xlsx, xls, xlsb, ods or csv; or a URL (`http://`, `https://`, `ftp://`, `ftps://`, `s3://`) that a daemon fetches.
    file: PathBuf,
    #[command(flatten)]
    remote: Remote,
    /// Owner of the products.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// The file holds dealers: they are written by this command itself, without a daemon.
    #[arg(long, conflicts_with_all = ["no_wait", "mode", "dry_run", "duplicates", "decimal", "dates"])]
    dealers: bool,
    #[command(flatten)]
    options: Options,
    /// Only submit the file; `ingestd runs watch` shows the progress later.
    #[arg(long)]
    no_wait: bool,
}

/// What is asked of an import beside its file; what is not given is as the configuration says.
#[derive(Debug, Default, Args)]
struct Options {
    /// `upsert` (default), `insert-only`, `update-only`, or `replace-all`: what the file lacks is
    /// archived.
    #[arg(long)]
    mode: Option<String>,
    /// Write nothing, and show what would be.
    #[arg(long)]
    dry_run: bool,
    /// Which of several rows with one code counts: `first-wins` (default), `last-wins`, or `reject`.
    #[arg(long)]
    duplicates: Option<String>,
    /// With `--mode replace-all`: of a hundred live products at most this many are archived.
    #[arg(long, value_name = "PERCENT")]
    max_drop_percent: Option<String>,
    /// A file that was imported before: `import` (default) or `reject`.
    #[arg(long, value_name = "WHAT")]
    on_duplicate_file: Option<String>,
    /// 0 urgent to 3 background (default 1): imports of one owner wait for each other.
    #[arg(long)]
    priority: Option<String>,
    /// The sheet to read; default: the first one that has the required headers.
    #[arg(long)]
    sheet: Option<String>,
    /// The sheet to read by its place, from 1.
    #[arg(long, value_name = "N", conflicts_with = "sheet")]
    sheet_number: Option<String>,
    /// Several sheets in one import: `all`, or names and places with commas between; names with
    /// commas in a JSON list.
    #[arg(long, value_name = "WHICH", conflicts_with_all = ["sheet", "sheet_number"])]
    sheets: Option<String>,
    /// Look at hidden sheets, too.
    #[arg(long)]
    include_hidden_sheets: bool,
    /// Pass over rows that are hidden, by a filter or by hand.
    #[arg(long)]
    skip_hidden_rows: bool,
    /// The cells of a merged range: `first` has its value (default), or `fill`, each of them has.
    #[arg(long, value_name = "WHICH")]
    merged_cells: Option<String>,
    /// What a header of this file means: a field, or `attribute`; may be given several times. Or
    /// `@NAME`: what a saved mapping says.
    #[arg(long = "map", value_name = "HEADER=FIELD")]
    mapping: Vec<String>,
    /// What stands between the cells of a text file: one sign, or `tab`; default: found out.
    #[arg(long, value_name = "SIGN")]
    delimiter: Option<String>,
    /// What stands around cells of a text file: `double`, `single`, or `none`; default: found out.
    #[arg(long)]
    quote: Option<String>,
    /// The encoding of a text file: `utf8`, `utf16_le`, `utf16_be`, or a name that browsers know, as
    /// `windows-1250`, `windows-1251`, `iso-8859-2`, `shift_jis`; default: found out.
    #[arg(long)]
    encoding: Option<String>,
    /// How numbers are written: `plain` 1234.56 (default), `point` 1,234.56, `comma` 1.234,56.
    #[arg(long)]
    decimal: Option<String>,
    /// How dates are written: `iso` 2026-01-31 (default), `dmy`, `mdy` or `ymd`.
    #[arg(long)]
    dates: Option<String>,
}

impl Options {
    /// Returns the headers and what they mean as JSON, in which a header may have anything in it.
    fn mapping(&self) -> Option<String> {
        let pairs = self.mapping.iter().map(|pair| {
            let (header, field) = pair.rsplit_once('=')?;
            Some((header.to_owned(), field.into()))
        });
        let pairs: Option<serde_json::Map<_, serde_json::Value>> = pairs.collect();
        // one that is no pair is told by whoever reads it
        let text = pairs.map_or_else(|| self.mapping.join("\n"), |pairs| json!(pairs).to_string());
        (!self.mapping.is_empty()).then_some(text)
    }

    /// Returns what was given, by the names of an upload's options.
    fn given(&self) -> Vec<(&'static str, String)> {
        let [dry_run, hidden_sheets, hidden_rows] = [
            self.dry_run,
            self.include_hidden_sheets,
            self.skip_hidden_rows,
        ]
        .map(|is_set| is_set.then(|| "true".to_owned()));
        let mapping = self.mapping();
        let given = [
            ("mode", &self.mode),
            ("dry_run", &dry_run),
            ("duplicates", &self.duplicates),
            ("max_drop_percent", &self.max_drop_percent),
            ("on_duplicate_file", &self.on_duplicate_file),
            ("priority", &self.priority),
            ("sheet", &self.sheet),
            ("sheet_number", &self.sheet_number),
            ("sheets", &self.sheets),
            ("include_hidden_sheets", &hidden_sheets),
            ("skip_hidden_rows", &hidden_rows),
            ("merged_cells", &self.merged_cells),
            ("mapping", &mapping),
            ("delimiter", &self.delimiter),
            ("quote", &self.quote),
            ("encoding", &self.encoding),
            ("decimal", &self.decimal),
            ("dates", &self.dates),
        ];
        let given = given.into_iter();
        let given = given.filter_map(|(name, value)| Some((name, value.clone()?)));
        given.collect()
    }

    fn wish(&self, session: &Session) -> Result<Wish, Failure> {
        let mut wish = Wish::from(&session.config.product_import);
        for (name, value) in self.given() {
            let set = wish.set(name, &value);
            set.map_err(|bad| Failure::new(Exit::Usage, bad))?;
        }
        Ok(wish)
    }
}

/// What an import came to.
#[derive(Debug, Serialize, FromRow)]
pub(super) struct Summary {
    created_count: i64,
    updated_count: i64,
    unchanged_count: i64,
    /// Products archived because the file lacked them.
    archived_count: i64,
    /// Rows refused, each for one reason or more.
    error_count: i64,
    /// Whether nothing was written and the counts say what would have been.
    dry_run: bool,
    /// The first rows of each sort; of a dry run only.
    #[sqlx(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    preview: Option<serde_json::Value>,
    /// What came of each sheet, where several are read.
    #[sqlx(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    sheets: Option<Vec<Tally>>,
    /// The sheets that are not read, and why, unless one was asked for.
    #[sqlx(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped_sheets: Vec<SkippedSheet>,
    /// How many rows are hidden in the file.
    #[sqlx(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden_rows: Option<u64>,
    /// The first reasons.
    #[sqlx(skip)]
    first_errors: Vec<RowError>,
}

/// What is wrong with one row.
#[derive(Debug, Serialize, FromRow)]
struct RowError {
    sheet: Option<String>,
    row_no: i32,
    column_name: Option<String>,
    code: String,
    message: String,
    value: Option<String>,
}

pub(super) async fn run(args: &ImportArgs, session: &mut Session) -> Result<Exit, Failure> {
    if let Some(url) = args.file.to_str().filter(|file| file.contains("://")) {
        args.options.wish(session)?; // what does not fit is told before anything is fetched
        let given = args.options.given();
        return fetch::run(
            url,
            &args.remote,
            given,
            &args.tenant,
            args.no_wait,
            session,
        )
        .await;
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
    if args.dealers {
        return unless_interrupted(import_dealers(file, &name, origin, session)).await;
    }
    let wish = args.options.wish(session)?;
    let id = unless_interrupted(submit_as(file, &name, origin, wish, session)).await?;
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

/// Submits a file as [`submit_as`], as the configuration says.
pub(super) async fn submit(
    file: impl AsyncRead + Unpin,
    name: &str,
    origin: Origin<'_>,
    session: &mut Session,
) -> Result<RunId, Failure> {
    let wish = Wish::from(&session.config.product_import);
    submit_as(file, name, origin, wish, session).await
}

/// Imports dealers and shows what came of them.
async fn import_dealers(
    file: File,
    name: &str,
    origin: Origin<'_>,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let (blobs, writer) = copy(file, name, session).await?;
    let read = dealers::read(&blobs, &session.config, writer, name).await;
    let read = read.map_err(|error| match error {
        DealersError::Refused(refusal) => refused(SubmitError::Refused(refusal)),
        error => error.into(),
    })?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let id = dealers::import(&mut tx, &read, origin).await?;
    let change = Change {
        tenant: Some(origin.tenant),
        detail: json!({ "file_name": name }),
        ..Change::of("import.dealers", format!("run/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let run = super::runs::find(id, session).await?;
    let summary = summary(&mut session.conn, id).await?;
    summary.print(&session.output, &run)?;
    Ok(Exit::Ok)
}

/// Copies a file into the store.
async fn copy(
    mut file: impl AsyncRead + Unpin,
    name: &str,
    session: &Session,
) -> Result<(blob::Store, blob::Writer), Failure> {
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
            return Ok((blobs, writer));
        }
        writer
            .write(piece.get(..n_bytes).unwrap_or_default())
            .await?;
    }
}

/// Copies a file into the store and makes the run that imports it.
async fn submit_as(
    file: impl AsyncRead + Unpin,
    name: &str,
    origin: Origin<'_>,
    mut wish: Wish,
    session: &mut Session,
) -> Result<RunId, Failure> {
    let (blobs, writer) = copy(file, name, session).await?;
    let plan = wish.plan;
    let resolved = saved_map::resolve(&mut session.conn, origin.tenant, &mut wish).await?;
    resolved.map_err(|refusal| refused(refusal.into()))?;
    let accepted = submit::accept(&blobs, &session.config, writer, name, wish).await;
    let accepted = accepted.map_err(refused)?;
    let (actor, output) = (session.actor.clone(), session.output.clone());
    let mut tx = session.begin().await?;
    let same = accepted.same_before(&mut tx, origin.tenant).await;
    if let Some(same) = same.map_err(refused)? {
        output.remark(&format!("the same file came before, as import {same}"));
    }
    let id = accepted.submit(&mut tx, origin).await?;
    let change = Change {
        tenant: Some(origin.tenant),
        detail: json!({ "file_name": name, "mode": plan.mode, "dry_run": plan.dry_run }),
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
        same @ SubmitError::SameFile(_) => Failure::new(Exit::Data, same),
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
    let mut summary = summary(&mut session.conn, id).await?;
    summary.preview = run.details.get("preview").cloned();
    summary.sheets = tally::sheets(&run.details);
    summary.skipped_sheets = tally::skipped(&run.details);
    summary.hidden_rows = tally::hidden(&run.details);
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
        "SELECT created_count, updated_count, unchanged_count, archived_count, error_count, dry_run
         FROM catalog.imports WHERE id = $1",
    )
    .bind(id)
    .fetch_one(&mut *conn)
    .await?;
    summary.first_errors = sqlx::query_as(
        "SELECT sheet, row_no, column_name, code, message, value FROM catalog.import_errors
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
        let mut counts = vec![
            count("inserted", self.created_count),
            count("updated", self.updated_count),
            count("unchanged", self.unchanged_count),
            count("bad", self.error_count),
        ];
        if self.archived_count > 0 {
            counts.push(count("products archived", self.archived_count));
        }
        output.table(&["rows", ""], counts)?;
        self.print_sheets(output)?;
        if self.dry_run {
            output.line("nothing was written: this was a dry run")?;
        }
        if self.first_errors.is_empty() {
            return Ok(());
        }
        output.line("")?;
        let mut headers = vec!["row", "column", "what is wrong", "value"];
        let mut rows: Vec<_> = self.first_errors.iter().map(RowError::cells).collect();
        if self.sheets.is_some() {
            headers.insert(0, "sheet");
            for (cells, error) in rows.iter_mut().zip(&self.first_errors) {
                cells.insert(0, or_none(error.sheet.as_ref()));
            }
        }
        output.table(&headers, rows)?;
        if self.error_count > N_SHOWN {
            output.remark(&format!(
                "more: SELECT * FROM catalog.import_errors WHERE import_id = {}",
                run.id
            ));
        }
        Ok(())
    }
}

impl Summary {
    /// Prints what came of each sheet, and why others were not read.
    fn print_sheets(&self, output: &Output) -> std::io::Result<()> {
        if let Some(sheets) = &self.sheets {
            output.line("")?;
            let count = |n: i64| n.to_string();
            let rows = sheets.iter().map(|sheet| {
                let counts = [sheet.total_rows, sheet.success_count, sheet.error_count];
                let name = std::iter::once(brief(&sheet.sheet));
                name.chain(counts.map(count)).collect()
            });
            output.table(&["sheet", "rows", "good", "bad"], rows.collect())?;
        }
        for SkippedSheet { sheet, message, .. } in &self.skipped_sheets {
            output.remark(&format!("sheet {} was not read: {message}", brief(sheet)));
        }
        if let Some(n_rows) = self.hidden_rows {
            output.remark(&format!(
                "rows hidden in the file: {n_rows}; they are imported unless --skip-hidden-rows is given"
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
