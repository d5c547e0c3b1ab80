//! The sources' rows: what people do to them, and what looks write.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};

use super::{Definition, FetchSource, Kind, definition::schedule_name, take::Seen};
use crate::{
    queue::{
        self, NewJob,
        schedule::control::{self, Change},
    },
    runs::RunId,
};

/// Most sources of one tenant.
pub const MOST_SOURCES: i64 = 1000;

/// One source as the database has it, with its schedule.
#[derive(Debug, Clone, sqlx::FromRow, Serialize)]
pub struct Source {
    /// Identifies the source.
    pub name: String,
    /// What it says; the query of a URL is left out.
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub definition: Definition,
    /// What the location is.
    pub kind: Kind,
    /// Who owns it: `user` or `config`.
    pub origin: String,
    /// Set while a person pauses its schedule.
    pub paused_at: Option<DateTime<Utc>>,
    /// Whether the configuration pauses its schedule; `None`: it has none.
    pub paused_in_config: Option<bool>,
    /// When it is looked at next.
    pub next_at: Option<DateTime<Utc>>,
    /// When it was looked at last.
    pub last_look_at: Option<DateTime<Utc>>,
    /// What came of that.
    pub last_result: Option<String>,
    /// Why there was no import.
    pub last_error: Option<String>,
    /// Its last import, which is a run.
    pub last_import_id: Option<i64>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl Source {
    /// Says whether its ticks pass without a look.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused_at.is_some() || self.paused_in_config == Some(true)
    }

    /// Leaves out what may not be shown.
    fn shown(mut self) -> Self {
        self.definition.location = self.definition.shown_location();
        self
    }
}

const SELECT: &str = "
    SELECT s.*, h.cron, coalesce(h.timezone, 'UTC') AS timezone, h.paused_at, h.paused_in_config,
           h.next_at
    FROM catalog.sources s LEFT JOIN ingestd.schedules h ON h.name = 'source:' || s.name";

/// Reads one source.
///
/// # Errors
///
/// What Postgres says.
pub async fn get(db: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<Source>> {
    let found: Option<Source> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.name = $1")))
            .bind(name)
            .fetch_optional(db)
            .await?;
    Ok(found.map(Source::shown))
}

/// Reads sources by name from the one after `after` on, at most `limit`.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<Source>> {
    let query = format!("{SELECT} WHERE $1::text IS NULL OR s.name > $1 ORDER BY s.name LIMIT $2");
    let found: Vec<Source> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(after)
        .bind(limit)
        .fetch_all(db)
        .await?;
    Ok(found.into_iter().map(Source::shown).collect())
}

/// What became of a source to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is made, with its schedule.
    Made,
    /// Its name is taken; whose that one is: `user` or `config`.
    Taken(String),
    /// A schedule has the name `source:NAME`.
    ScheduleTaken,
    /// The tenant has [`MOST_SOURCES`].
    TooMany,
}

/// Makes a user's source and its schedule, paused or not, in the connection's transaction; roll
/// back where it is not [`Added::Made`]. Check the definition before.
///
/// # Errors
///
/// What Postgres says.
pub async fn add(
    conn: &mut PgConnection,
    name: &str,
    definition: &Definition,
    is_paused: bool,
) -> sqlx::Result<Added> {
    let definition = definition.clone().filled();
    let made = sqlx::query(
        "INSERT INTO catalog.sources
           (name, tenant, kind, location, pattern, ready, endpoint, region, secret_ref, options)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
         WHERE (SELECT count(*) FROM catalog.sources WHERE tenant = $2) < $11
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(&definition.tenant)
    .bind(definition.kind())
    .bind(&definition.location)
    .bind(&definition.pattern)
    .bind(definition.ready)
    .bind(&definition.endpoint)
    .bind(&definition.region)
    .bind(&definition.secret_ref)
    .bind(sqlx::types::Json(&definition.options))
    .bind(MOST_SOURCES)
    .execute(&mut *conn)
    .await?;
    if made.rows_affected() == 0 {
        let whose = sqlx::query_scalar("SELECT origin FROM catalog.sources WHERE name = $1");
        let whose: Option<String> = whose.bind(name).fetch_optional(conn).await?;
        return Ok(whose.map_or(Added::TooMany, Added::Taken));
    }
    if let Some(schedule) = definition.schedule(name) {
        let made = control::create(conn, &schedule_name(name), &schedule, is_paused).await?;
        if made != Change::Made {
            return Ok(Added::ScheduleTaken);
        }
    }
    Ok(Added::Made)
}

/// What became of a source that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It is gone; whose it was.
    Gone(String),
    /// There is none of the name.
    NotFound,
    /// It is the configuration's.
    InConfig,
}

/// Removes a user's source, its schedule and what is known of its files; its imports stay, and so
/// do files in a watched folder.
///
/// # Errors
///
/// What Postgres says.
pub async fn remove(conn: &mut PgConnection, name: &str) -> sqlx::Result<Removed> {
    let gone: Option<String> = sqlx::query_scalar(
        "DELETE FROM catalog.sources WHERE name = $1 AND origin = 'user' RETURNING tenant",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(tenant) = gone else {
        let there = sqlx::query("SELECT FROM catalog.sources WHERE name = $1").bind(name);
        let there = there.fetch_optional(conn).await?;
        return Ok(there.map_or(Removed::NotFound, |_| Removed::InConfig));
    };
    control::remove(conn, &schedule_name(name)).await?;
    Ok(Removed::Gone(tenant))
}

/// Enqueues a look at a source now, paused or not; returns the job, or the one that waits already.
///
/// With `force` the file is imported even if it is the version seen last.
///
/// # Errors
///
/// What Postgres says.
pub async fn run_now(
    conn: &mut PgConnection,
    source: &Source,
    force: bool,
) -> sqlx::Result<queue::Enqueued> {
    let look = FetchSource {
        source: source.name.clone(),
        force,
    };
    let job = NewJob::of(&look).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let job = NewJob {
        tenant: Some(source.definition.tenant.clone()),
        ..job
    };
    queue::enqueue_or_find(conn, &job).await
}

/// A source as a look needs it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Target {
    pub(super) name: String,
    #[sqlx(flatten)]
    pub(super) definition: Definition,
    pub(super) seen_no: i64,
    /// Tells it from one of the same name that was removed.
    pub(super) created_at: DateTime<Utc>,
    #[sqlx(flatten)]
    pub(super) seen: Seen,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
}

/// Reads a source for a look; `None` where it is gone.
pub(super) async fn target(db: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<Target>> {
    sqlx::query_as("SELECT *, clock_timestamp() AS now FROM catalog.sources WHERE name = $1")
        .bind(name)
        .fetch_optional(db)
        .await
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum LookResult {
    /// Another version was there and is imported.
    Imported,
    /// The version seen last was there.
    Unchanged,
    /// Another version was there that cannot be imported.
    Refused,
    /// The file could not be taken.
    Failed,
    /// Of a watched folder: its files say what came of them.
    Looked,
}

/// What a look writes.
#[derive(Debug, Default)]
pub(super) struct Note<'a> {
    /// What is to be remembered; `None`: as before.
    pub(super) seen: Option<&'a Seen>,
    pub(super) error: Option<&'a str>,
    pub(super) import: Option<RunId>,
}

/// Longest explanation that is kept, in bytes.
const LONGEST_ERROR: usize = 1000;

/// Writes what a look came to. Returns false, having written nothing, where another look did so
/// since this one read the source, or the source has changed or is gone: roll back and look again.
pub(super) async fn note(
    conn: &mut PgConnection,
    target: &Target,
    result: LookResult,
    note: &Note<'_>,
) -> sqlx::Result<bool> {
    let seen = note.seen.unwrap_or(&target.seen);
    let error = note
        .error
        .map(|text| text.get(..text.floor_char_boundary(LONGEST_ERROR)));
    let noted = sqlx::query(
        "UPDATE catalog.sources SET seen_no = seen_no + 1, seen_etag = $3, seen_modified = $4,
           seen_stamp = $5, seen_sha256 = $6, last_look_at = clock_timestamp(), last_result = $7,
           last_error = $8, last_import_id = coalesce($9, last_import_id)
         WHERE name = $1 AND seen_no = $2 AND created_at = $10",
    )
    .bind(&target.name)
    .bind(target.seen_no)
    .bind(&seen.etag)
    .bind(&seen.modified)
    .bind(&seen.stamp)
    .bind(&seen.sha256)
    .bind(result)
    .bind(error.flatten())
    .bind(note.import.map(|id| id.0))
    .bind(target.created_at)
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() == 1)
}
