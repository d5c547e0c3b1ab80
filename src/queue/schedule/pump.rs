//! The pump: every daemon has one; each looks for what is due, none leads.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::tick::tick;
use crate::{
    db::Bounded,
    queue::{claim::KnownKinds, timetable::Timetable},
};

/// Longest sleep between looks at the table: how late a new schedule may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Schedules without a next time, unless it is known that they have none; and those whose last tick
/// lies in the future, whatever came of it: then the database's clock was ahead and has been set
/// back, and waiting for it to come round again could take years.
const ASTRAY: &str = "
    SELECT name, cron, timezone, next_at, now() FROM ingestd.schedules
    WHERE paused_at IS NULL AND NOT paused_in_config
      AND ((next_at IS NULL AND last_error IS NULL) OR last_at > now() + interval '1 minute')
    LIMIT 1000";

/// What is said of a line such as that of every 30 February. Nobody looks at it again until its
/// owner changes it.
const NEVER: &str = "the cron line names no time that ever comes; change it";

/// Sets the next time, unless another daemon, or a person, was here since. Ticks that lie ahead and
/// were given up, because a clock was ahead, will come; those that became jobs will be skipped.
const GO_ON: &str = "
    WITH mended AS (
      UPDATE ingestd.schedules
      SET next_at = $2, last_at = least(last_at, $7),
          last_error = coalesce($3, CASE WHEN $4::timestamptz IS NOT NULL THEN last_error END)
      WHERE name = $1 AND next_at IS NOT DISTINCT FROM $4 AND cron = $5 AND timezone = $6
      RETURNING name)
    DELETE FROM ingestd.schedule_ticks t USING mended m
    WHERE t.schedule = m.name AND t.tick_at > $7 AND t.job_id IS NULL";

const NEXT: &str = "
    SELECT (extract(epoch FROM min(next_at) - clock_timestamp()) * 1000)::bigint
    FROM ingestd.schedules
    WHERE paused_at IS NULL AND NOT paused_in_config AND next_at > now()";

/// Enqueues what is due until told to stop.
pub(in crate::queue) async fn pump(db: Bounded, kinds: Arc<KnownKinds>, stop: CancellationToken) {
    // Stopped in the middle, a tick is rolled back and left to the next daemon.
    stop.run_until_cancelled(async {
        loop {
            let nap = round(&db, &kinds).await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "schedules wait for the database");
                LOOK_EVERY
            });
            tokio::time::sleep(nap).await;
        }
    })
    .await;
}

/// Handles everything due now and returns how long to sleep.
async fn round(db: &Bounded, kinds: &KnownKinds) -> sqlx::Result<Duration> {
    db.run(async |conn| prepare(conn).await).await?;
    while db.run(async |conn| tick(conn, kinds).await).await? {}
    let next = sqlx::query_scalar(NEXT);
    let next_ms: Option<i64> = db.run(async |conn| next.fetch_one(conn).await).await?;
    let next = next_ms.map_or(LOOK_EVERY, |ms| {
        Duration::from_millis(u64::try_from(ms).unwrap_or(0).saturating_add(1))
    });
    Ok(next.min(LOOK_EVERY))
}

/// A schedule whose next time is to be computed.
type Astray = (String, String, String, Option<DateTime<Utc>>, DateTime<Utc>);

/// Gives schedules that have none their next time; marks those whose line does not parse or names
/// no time.
async fn prepare(conn: &mut PgConnection) -> sqlx::Result<()> {
    let astray: Vec<Astray> = sqlx::query_as(ASTRAY).fetch_all(&mut *conn).await?;
    for (name, cron, timezone, was_next, now) in astray {
        let (next_at, error) = match Timetable::parse(&cron, &timezone) {
            Ok(timetable) => {
                let next_at = timetable.next_after(now);
                (next_at, next_at.is_none().then(|| NEVER.to_owned()))
            }
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(error) = &error {
            tracing::error!(schedule = %name, error, "schedule cannot run");
        }
        if let Some(was_next) = was_next {
            tracing::warn!(schedule = %name, %was_next, "clock was set back; computing anew");
        }
        sqlx::query(GO_ON)
            .bind(&name)
            .bind(next_at)
            .bind(error)
            .bind(was_next)
            .bind(&cron)
            .bind(&timezone)
            .bind(now)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
