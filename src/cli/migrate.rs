//! `ingestd migrate`: the schema and the kinds of this version.

use clap::Args;
use serde::Serialize;
use sqlx::PgConnection;

use super::{Exit, Failure, Session};
use crate::{config::Pooler, db, ingest, queue};

/// Applies the migrations that the database does not have yet and registers the kinds of this
/// version, so that the database accepts jobs of them. Changes nothing the second time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd migrate              before the daemon's first start, or by a user with more rights
  ingestd migrate --dry-run    what would be applied

The daemon migrates by itself when it starts.")]
pub(super) struct MigrateArgs {
    /// Only say what would be applied.
    #[arg(long)]
    dry_run: bool,
}

/// One migration of this version.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    version: i64,
    name: String,
}

/// What was done, or is to be done.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    dry_run: bool,
    /// Applied now, or to be applied.
    migrations: Vec<Step>,
    /// Registered now, or to be registered, for the first time.
    new_kinds: Vec<&'static str>,
    n_kinds: usize,
}

pub(super) async fn run(args: &MigrateArgs, session: &mut Session) -> Result<Exit, Failure> {
    let report = if args.dry_run {
        Report::plan(true, session).await?
    } else {
        bring_up(session).await?
    };
    session.output.done(&report, &report.text())?;
    Ok(Exit::Ok)
}

/// Migrates the database and registers the kinds; returns what was done.
pub(super) async fn bring_up(session: &mut Session) -> Result<Report, Failure> {
    let report = Report::plan(false, session).await?;
    match session.config.database.pooler {
        Pooler::None => apply(&mut session.conn).await?,
        Pooler::Transaction => db::migrate_in_one(&mut session.conn).await?,
    }
    queue::register(&mut session.conn, &ingest::kinds(&session.config)).await?;
    Ok(report)
}

/// Applies what is missing, however long it takes.
async fn apply(conn: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut *conn)
        .await?;
    db::migrator_of(conn).await?.run(&mut *conn).await?;
    sqlx::query("RESET statement_timeout").execute(conn).await?;
    Ok(())
}

/// Returns the migrations that the database does not have, oldest first.
pub(super) async fn pending(conn: &mut PgConnection) -> sqlx::Result<Vec<Step>> {
    let table = exists(conn, "ingestd._migrations").await?;
    let applied: Vec<i64> = if table {
        sqlx::query_scalar("SELECT version FROM ingestd._migrations WHERE success")
            .fetch_all(conn)
            .await?
    } else {
        Vec::new()
    };
    let migrator = db::migrator();
    let missing = migrator
        .iter()
        .filter(|migration| !applied.contains(&migration.version));
    Ok(missing
        .map(|migration| Step {
            version: migration.version,
            name: migration.description.to_string(),
        })
        .collect())
}

/// Returns the kinds of this version that the database does not know.
pub(super) async fn new_kinds(conn: &mut PgConnection) -> sqlx::Result<Vec<&'static str>> {
    let table = exists(conn, "ingestd.job_kinds").await?;
    let known: Vec<String> = if table {
        sqlx::query_scalar("SELECT kind FROM ingestd.job_kinds")
            .fetch_all(conn)
            .await?
    } else {
        Vec::new()
    };
    let names = ingest::ALL.iter().map(|kind| kind.name);
    Ok(names
        .filter(|name| !known.iter().any(|known| known == name))
        .collect())
}

async fn exists(conn: &mut PgConnection, table: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table)
        .fetch_one(conn)
        .await
}

impl Report {
    async fn plan(dry_run: bool, session: &mut Session) -> sqlx::Result<Self> {
        Ok(Self {
            dry_run,
            migrations: pending(&mut session.conn).await?,
            new_kinds: new_kinds(&mut session.conn).await?,
            n_kinds: ingest::ALL.len(),
        })
    }

    /// Describes it in half a line.
    pub(super) fn brief(&self) -> String {
        match self.migrations.len() {
            0 => format!("current, {} kinds registered", self.n_kinds),
            n => format!("{n} migrations applied, {} kinds registered", self.n_kinds),
        }
    }

    fn text(&self) -> String {
        let (applied, registered) = if self.dry_run {
            ("to apply", "to register")
        } else {
            ("applied", "registered")
        };
        if self.migrations.is_empty() && self.new_kinds.is_empty() {
            return format!(
                "the database is current; {} kinds are registered",
                self.n_kinds
            );
        }
        let mut lines: Vec<String> = self
            .migrations
            .iter()
            .map(|step| format!("{applied}: {:04} {}", step.version, step.name))
            .collect();
        lines.extend(
            self.new_kinds
                .iter()
                .map(|kind| format!("{registered}: kind {kind}")),
        );
        lines.join("\n")
    }
}
