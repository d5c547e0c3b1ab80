//! The one place where a held job becomes a queued one.

use std::{collections::HashMap, time::Duration};

use sqlx::{FromRow, PgConnection};

const ADMIT: &str = include_str!("admit.sql");

/// Begins a transaction that may admit, whatever isolation the database has for default.
pub(in crate::queue) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Takes the locks of those keys that nobody admits for at this moment.
const LOCK: &str = "
    SELECT key FROM unnest($1::text[]) AS key
    WHERE pg_try_advisory_xact_lock(hashtextextended(key, 1229866838))";

/// Most jobs of a key that one statement admits.
pub(in crate::queue) const MOST_JOBS: i64 = 100;

/// What came of a look at one key.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::queue) struct Admission {
    /// The gate that its limits come from; `None` where no pattern fits the key.
    pub(in crate::queue) pattern: Option<String>,
    /// Somebody else admits for the key at this moment.
    pub(in crate::queue) is_busy: bool,
    /// It took as many as one statement may: there may be more.
    pub(in crate::queue) has_more: bool,
    /// There is room for a job, and none is due.
    pub(in crate::queue) has_room: bool,
    /// When the rate has a token for the next one, where that is what it waits for.
    pub(in crate::queue) next_token: Option<Duration>,
    /// Queue and wait, from due to admitted, of each job that was admitted.
    pub(in crate::queue) admitted: Vec<(String, Duration)>,
}

#[derive(FromRow)]
struct Row {
    key: String,
    pattern: Option<String>,
    has_more: Option<bool>,
    has_room: Option<bool>,
    queue: Option<String>,
    waited_secs: Option<f64>,
    next_ms: Option<i64>,
}

/// Admits due jobs of `keys` as far as their gates have room, at most `most` a key; suspects only
/// where `suspects`, and else none of them.
///
/// Only of `kinds`: a job that nobody can run must not keep a slot.
///
/// In a transaction of the caller's, which must be read committed, as [`BEGIN`] makes it, and soon
/// ends: the locks are held until then, and what counts the slots must see what the last holder of
/// a lock committed.
///
/// # Errors
///
/// What Postgres says.
pub(in crate::queue) async fn admit(
    conn: &mut PgConnection,
    kinds: &[&'static str],
    keys: &[String],
    most: i64,
    suspects: bool,
) -> sqlx::Result<HashMap<String, Admission>> {
    let locked: Vec<String> = sqlx::query_scalar(LOCK)
        .bind(keys)
        .fetch_all(&mut *conn)
        .await?;
    let rows: Vec<Row> = if locked.is_empty() {
        Vec::new()
    } else {
        sqlx::query_as(ADMIT)
            .bind(&locked)
            .bind(kinds)
            .bind(most)
            .bind(suspects)
            .fetch_all(&mut *conn)
            .await?
    };
    let mut found: HashMap<String, Admission> = keys
        .iter()
        .map(|key| (key.clone(), Admission::busy()))
        .collect();
    for row in rows {
        found.entry(row.key.clone()).or_default().take(row);
    }
    Ok(found)
}

impl Admission {
    fn busy() -> Self {
        Self {
            is_busy: true,
            ..Self::default()
        }
    }

    /// Takes a row of the statement: the key's own, or one of a job that was admitted.
    fn take(&mut self, row: Row) {
        self.is_busy = false;
        let Some(queue) = row.queue else {
            self.pattern = row.pattern;
            self.has_more = row.has_more.unwrap_or(false);
            self.has_room = row.has_room.unwrap_or(false);
            let ms = row.next_ms.and_then(|ms| u64::try_from(ms).ok());
            self.next_token = ms.map(Duration::from_millis);
            return;
        };
        let waited = Duration::try_from_secs_f64(row.waited_secs.unwrap_or(0.0));
        self.admitted.push((queue, waited.unwrap_or_default()));
    }
}
