//! Sources that come with the configuration.

use sqlx::{Connection as _, PgConnection};

use super::{Definition, schedule_name};
use crate::queue::schedule;

/// What bringing in a configuration's sources came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names whose definition changed.
    pub changed: Vec<String>,
    /// Names that the configuration no longer has.
    pub removed: Vec<String>,
    /// Names that are somebody else's, and whose: `user`, or `config` for another set.
    pub shadowed: Vec<(String, String)>,
    /// What became of the schedules, those of the sources among them.
    pub schedules: schedule::Synced,
}

/// Makes sources and schedules of a set equal what is wanted: names, definitions and whether they
/// are paused. The rule is that of [`schedule::sync`], whose schedules these are brought in with,
/// in one transaction, so that no source is without its schedule or the other way round.
///
/// What changed is noted in the audit log by `config:SET`.
///
/// # Errors
///
/// What Postgres says.
pub async fn sync(
    conn: &mut PgConnection,
    set: &str,
    wanted: &[(String, Definition, bool)],
    mut schedules: Vec<(String, schedule::Definition, bool)>,
) -> sqlx::Result<Synced> {
    let mut tx = conn.begin().await?;
    // Taken by the schedules' own part, too: daemons that start together take turns.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('ingestd.schedules', 0))")
        .execute(&mut *tx)
        .await?;
    let names: Vec<&str> = wanted.iter().map(|(name, ..)| name.as_str()).collect();
    let mut synced = Synced {
        removed: remove_others(&mut tx, set, &names).await?,
        ..Synced::default()
    };
    for (name, definition, is_paused) in wanted {
        match put(&mut tx, set, name, &definition.clone().filled()).await? {
            Put::Added => synced.added.push(name.clone()),
            Put::Changed => synced.changed.push(name.clone()),
            Put::Same => {}
            Put::Shadowed(by) => {
                synced.shadowed.push((name.clone(), by));
                continue; // nor is its schedule in force: it would look at the other's place
            }
        }
        let schedule = definition.schedule(name);
        schedules.extend(schedule.map(|schedule| (schedule_name(name), schedule, *is_paused)));
    }
    audit(&mut tx, set, &synced).await?;
    synced.schedules = schedule::sync(&mut tx, set, &schedules).await?;
    tx.commit().await?;
    Ok(synced)
}

/// Notes what changed, in the name of the configuration's set.
async fn audit(tx: &mut PgConnection, set: &str, synced: &Synced) -> sqlx::Result<()> {
    for (action, names) in [
        ("source.add", &synced.added),
        ("source.change", &synced.changed),
        ("source.remove", &synced.removed),
    ] {
        sqlx::query(
            "INSERT INTO ingestd.audit_log (actor, action, object)
             SELECT 'config:' || $1, $2, 'source/' || name FROM unnest($3::text[]) name",
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
        "UPDATE catalog.sources SET shadows_set = NULL
         WHERE shadows_set = $1 AND name <> ALL ($2)",
    )
    .bind(set)
    .bind(names)
    .execute(&mut *tx)
    .await?;
    sqlx::query_scalar(
        "DELETE FROM catalog.sources
         WHERE origin = 'config' AND config_set = $1 AND name <> ALL ($2) RETURNING name",
    )
    .bind(set)
    .bind(names)
    .fetch_all(tx)
    .await
}

/// What became of one wanted source.
enum Put {
    Added,
    Changed,
    Same,
    /// Its name is taken; by whose.
    Shadowed(String),
}

async fn put(
    tx: &mut PgConnection,
    set: &str,
    name: &str,
    wanted: &Definition,
) -> sqlx::Result<Put> {
    let before: Option<(String, Option<String>)> =
        sqlx::query_as("SELECT origin, config_set FROM catalog.sources WHERE name = $1 FOR UPDATE")
            .bind(name)
            .fetch_optional(&mut *tx)
            .await?;
    let is_new = before.is_none();
    if let Some((origin, of)) = before
        && of.as_deref() != Some(set)
    {
        sqlx::query("UPDATE catalog.sources SET shadows_set = $2 WHERE name = $1")
            .bind(name)
            .bind(set)
            .execute(tx)
            .await?;
        return Ok(Put::Shadowed(origin));
    }
    let put = sqlx::query(include_str!("put.sql"))
        .bind(name)
        .bind(&wanted.tenant)
        .bind(wanted.kind())
        .bind(&wanted.location)
        .bind(&wanted.pattern)
        .bind(wanted.ready)
        .bind(&wanted.endpoint)
        .bind(&wanted.region)
        .bind(&wanted.secret_ref)
        .bind(sqlx::types::Json(&wanted.options))
        .bind(set)
        .execute(tx)
        .await?;
    Ok(match (is_new, put.rows_affected()) {
        (true, _) => Put::Added,
        (false, 0) => Put::Same,
        (false, _) => Put::Changed,
    })
}
