//! The run's row: its id, its states, how it is made and read.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};

/// Identifies a run.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    sqlx::Type,
    Serialize,
    serde::Deserialize,
)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, Serialize, serde::Deserialize)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Made, not begun: its first job has not started.
    Pending,
    /// At work; stale after 15 minutes without a heartbeat.
    Running,
    /// Waits for a person to resume it.
    Paused,
    /// Every item was dealt with, well or badly. Final.
    Completed,
    /// Given up, with the reason in `error`. Final until somebody resets it.
    Failed,
    /// Stopped by a person; what was committed stays. Final until somebody resets it.
    Cancelled,
}

impl RunState {
    /// Returns its word, as the database and JSON have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Says whether nothing more will happen by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// One run as the database has it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, Serialize)]
pub struct Run {
    /// Identifies the run.
    pub id: RunId,
    /// The system it belongs to.
    pub system: String,
    /// Where it stands.
    pub state: RunState,
    /// What it is doing, in the system's own words.
    pub stage: Option<String>,
    /// Owner of the data.
    pub tenant: String,
    /// Who or what started it.
    pub triggered_by: String,
    /// What was asked for.
    pub params: Value,
    /// Where a batch goes on after a crash.
    pub cursor: Option<Value>,
    /// Items in all; `None`: not known yet.
    pub items_total: Option<i64>,
    /// Items done.
    pub items_ok: i64,
    /// Items refused or given up.
    pub items_failed: i64,
    /// Items that needed nothing.
    pub items_skipped: i64,
    /// Figures of the system's own.
    pub details: Value,
    /// Why it failed.
    pub error: Option<String>,
    /// How often it was found stale and started again.
    pub retry_count: i16,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it first began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it last made progress.
    pub heartbeat_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Run {
    /// Returns how many items have been dealt with, well, badly or not at all.
    #[must_use]
    pub const fn items_done(&self) -> i64 {
        self.items_ok + self.items_failed + self.items_skipped
    }

    /// Returns the run that takes back, or has taken back, what this one did; such a run does not
    /// go on. Member `undone_by` of the details.
    #[must_use]
    pub fn undone_by(&self) -> Option<RunId> {
        self.details.get("undone_by")?.as_i64().map(RunId)
    }
}

/// A run to be.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The system it belongs to.
    pub system: &'static str,
    /// The kind that drives a batch, with args `{"run_id": id}`; `None` for a fan-out.
    pub job_kind: Option<&'static str>,
    /// Owner of the data.
    pub tenant: String,
    /// Who or what starts it: `api`, `cli`, `schedule`, `dev`.
    pub triggered_by: String,
    /// What is asked for, a JSON object.
    pub params: Value,
    /// Items in all, where that is known already.
    pub items_total: Option<i64>,
}

/// Makes a pending run in the connection's transaction.
///
/// # Errors
///
/// What Postgres says.
pub async fn create(conn: &mut PgConnection, new: &NewRun) -> sqlx::Result<RunId> {
    sqlx::query_scalar(
        "INSERT INTO ingestd.runs (system, job_kind, tenant, triggered_by, params, items_total)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
    )
    .bind(new.system)
    .bind(new.job_kind)
    .bind(&new.tenant)
    .bind(&new.triggered_by)
    .bind(&new.params)
    .bind(new.items_total)
    .fetch_one(conn)
    .await
}

/// Reads one run.
///
/// # Errors
///
/// What Postgres says.
pub async fn get(db: impl PgExecutor<'_>, id: RunId) -> sqlx::Result<Option<Run>> {
    sqlx::query_as("SELECT * FROM ingestd.runs WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// Reads the newest runs before `before`, newest first, of one system or of all.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    system: Option<&str>,
    before: Option<RunId>,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    list_of(db, system, None, before, limit).await
}

/// As [`list`], of these tenants only; `None` is all.
///
/// # Errors
///
/// What Postgres says.
pub async fn list_of(
    db: impl PgExecutor<'_>,
    system: Option<&str>,
    tenants: Option<&[String]>,
    before: Option<RunId>,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(
        "SELECT * FROM ingestd.runs
         WHERE ($1::text IS NULL OR system = $1) AND ($2::bigint IS NULL OR id < $2)
           AND ($4::text[] IS NULL OR tenant = ANY ($4))
         ORDER BY id DESC LIMIT $3",
    )
    .bind(system)
    .bind(before)
    .bind(limit)
    .bind(tenants)
    .fetch_all(db)
    .await
}
