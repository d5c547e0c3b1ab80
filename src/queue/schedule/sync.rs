//! Schedules that come with the program: from its configuration and from its kinds.

use sqlx::{Connection, PgConnection};

use super::Definition;
use crate::queue::kind::Kind;

/// What bringing in a configuration's schedules came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// Names that are new, or that were built in until now.
    pub added: Vec<String>,
    /// Names whose definition changed.
    pub changed: Vec<String>,
    /// Names that the configuration no longer has.
    pub removed: Vec<String>,
    /// Names that are somebody else's, and whose: `user`, or `config` for another set.
    pub shadowed: Vec<(String, String)>,
}

/// Makes the schedules of a set equal `wanted`: names, definitions and whether they are paused.
///
/// One transaction, so that nobody sees half of it. A schedule that stays as it is keeps its next
/// time; one whose line or zone changed goes on with the first tick after now. Pauses by people
/// stay. Names that a user or another set has are left alone and reported. What changed is noted in
/// the audit log by `config:SET`.
///
/// # Errors
///
/// What Postgres says.
pub async fn sync(
    conn: &mut PgConnection,
    set: &str,
    wanted: &[(String, Definition, bool)],
) -> sqlx::Result<Synced> {
    let mut tx = conn.begin().await?;
    // Daemons that start together take turns: whoever comes last has the last word on all of it.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('ingestd.schedules', 0))")
        .execute(&mut *tx)
        .await?;
    let names: Vec<&str> = wanted.iter().map(|(name, ..)| name.as_str()).collect();
    let mut synced = Synced {
        removed: remove_others(&mut tx, set, &names).await?,
        ..Synced::default()
    };
    for (name, definition, is_paused) in wanted {
        match put(&mut tx, set, name, definition, *is_paused).await? {
            Put::Added => synced.added.push(name.clone()),
            Put::Changed => synced.changed.push(name.clone()),
            Put::Same => {}
            Put::Shadowed(by) => synced.shadowed.push((name.clone(), by)),
        }
    }
    audit(&mut tx, set, &synced).await?;
    tx.commit().await?;
    Ok(synced)
}

/// Notes what changed, in the name of the configuration's set.
async fn audit(tx: &mut PgConnection, set: &str, synced: &Synced) -> sqlx::Result<()> {
    for (action, names) in [
        ("schedule.add", &synced.added),
        ("schedule.change", &synced.changed),
        ("schedule.remove", &synced.removed),
    ] {
        sqlx::query(
            "INSERT INTO ingestd.audit_log (actor, action, object)
             SELECT 'config:' || $1, $2, 'schedule/' || name FROM unnest($3::text[]) name",
        )
        .bind(set)
        .bind(action)
        .bind(names)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Removes what the set's configuration no longer has, also from what other rows stand in for.
async fn remove_others(
    tx: &mut PgConnection,
    set: &str,
    names: &[&str],
) -> sqlx::Result<Vec<String>> {
    sqlx::query(
        "UPDATE ingestd.schedules SET shadows_set = NULL
         WHERE shadows_set = $1 AND name <> ALL ($2)",
    )
    .bind(set)
    .bind(names)
    .execute(&mut *tx)
    .await?;
    sqlx::query_scalar(
        "DELETE FROM ingestd.schedules
         WHERE origin = 'config' AND config_set = $1 AND name <> ALL ($2) RETURNING name",
    )
    .bind(set)
    .bind(names)
    .fetch_all(tx)
    .await
}

/// What became of one wanted schedule.
enum Put {
    Added,
    Changed,
    Same,
    /// Its name is taken; by whose.
    Shadowed(String),
}

const PUT: &str = include_str!("put.sql");

async fn put(
    tx: &mut PgConnection,
    set: &str,
    name: &str,
    wanted: &Definition,
    is_paused: bool,
) -> sqlx::Result<Put> {
    let before: Option<(String, Option<String>)> = sqlx::query_as(
        "SELECT origin, config_set FROM ingestd.schedules WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(&mut *tx)
    .await?;
    let is_new = match &before {
        Some((origin, of)) if origin == "config" && of.as_deref() == Some(set) => false,
        Some((origin, _)) if origin != "built_in" => {
            sqlx::query("UPDATE ingestd.schedules SET shadows_set = $2 WHERE name = $1")
                .bind(name)
                .bind(set)
                .execute(tx)
                .await?;
            return Ok(Put::Shadowed(origin.clone()));
        }
        _ => true,
    };
    let put = sqlx::query(PUT)
        .bind(name)
        .bind(&wanted.cron)
        .bind(&wanted.timezone)
        .bind(&wanted.kind)
        .bind(sqlx::types::Json(&wanted.args))
        .bind(&wanted.queue)
        .bind(wanted.priority)
        .bind(wanted.missed)
        .bind(wanted.missed_max)
        .bind(wanted.overlap)
        .bind(wanted.jitter_ms)
        .bind(is_paused)
        .bind(set)
        .bind(&wanted.tenant)
        .execute(tx)
        .await?;
    Ok(match (is_new, put.rows_affected()) {
        (true, _) => Put::Added,
        (false, 0) => Put::Same,
        (false, _) => Put::Changed,
    })
}

/// Writes the schedules that kinds bring along; a changed line gets a new next time.
///
/// One that the configuration took the place of stays the configuration's.
pub(in crate::queue) async fn sync_built_in<C: 'static>(
    conn: &mut PgConnection,
    kinds: &[Kind<C>],
) -> sqlx::Result<()> {
    for kind in kinds {
        let Some(cron) = kind.schedule else { continue };
        sqlx::query(
            "INSERT INTO ingestd.schedules AS s (name, cron, kind, overlap, origin)
             VALUES ($1, $2, $1, 'skip', 'built_in')
             ON CONFLICT (name) DO UPDATE
             SET cron = excluded.cron, next_at = NULL, last_error = NULL, updated_at = now()
             WHERE s.origin = 'built_in' AND s.cron <> excluded.cron",
        )
        .bind(kind.name)
        .bind(cron)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}
