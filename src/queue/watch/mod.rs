//! What is watched in the database: the xmin horizon, the live table's dead rows, the partitions
//! ahead, the plans of the hot statements.
//!
//! Each is read by a function of its own, for `ingestd doctor` and `GET /api/v1/health/database`,
//! and by one task per daemon, which publishes it and says what begins to hurt.

mod horizon;
mod literal;
mod partition;
mod plan;
mod table;

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, Connection as _, PgPool, postgres::PgConnectOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::observe::PartitionsSeen;
use horizon::Horizon;
use table::Vacuumer;

pub use horizon::{Holder, holders};
pub use partition::{Partitions, partitions};
pub use plan::{PlanCheck, plans};
pub use table::{LiveTable, live_table};

/// How often horizon, live table and partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often the plans are looked at.
const PLANS_EVERY: Duration = Duration::from_hours(1);
/// When they are looked at first: a daemon that starts has other things to do.
const PLANS_FIRST: Duration = Duration::from_secs(30);
/// Longest that one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// What one look found that a vacuum depends on.
#[derive(Debug, Clone)]
struct Seen {
    table: LiveTable,
    holders: Vec<Holder>,
}

/// Watches until `stop` fires.
pub(super) async fn run(pool: PgPool, options: PgConnectOptions, stop: CancellationToken) {
    let (sender, seen) = watch::channel(None);
    let vacuumer = Vacuumer {
        options: options.clone(),
        last: None,
    };
    let watching = async {
        tokio::join!(
            look_on(&pool, &sender),
            look_at_plans(&options),
            vacuum_on(vacuumer, seen)
        )
    };
    stop.run_until_cancelled(Box::pin(watching)).await;
}

/// Looks at what changes by the minute.
async fn look_on(pool: &PgPool, seen: &watch::Sender<Option<Seen>>) {
    let (mut horizon, mut is_failing) = (Horizon::default(), false);
    loop {
        let looked = tokio::time::timeout(LOOK_LIMIT, look(pool, &mut horizon)).await;
        match looked.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(found) => {
                is_failing = false;
                seen.send_replace(Some(found));
            }
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(error = %error, "the database's health cannot be read");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(pool: &PgPool, horizon: &mut Horizon) -> sqlx::Result<Seen> {
    let mut holders = holders(pool).await?;
    horizon.note(&mut holders, Instant::now());
    let table = live_table(pool).await?;
    table::publish(&table);
    let partitions = partitions(pool).await?;
    PartitionsSeen {
        ahead_days: partitions.iter().map(|table| table.ahead_days).min(),
    }
    .emit();
    Ok(Seen { table, holders })
}

/// Vacuums where a look says so; meanwhile looking goes on.
async fn vacuum_on(mut vacuumer: Vacuumer, mut seen: watch::Receiver<Option<Seen>>) {
    while seen.changed().await.is_ok() {
        let found = seen.borrow_and_update().clone();
        if let Some(Seen { table, holders }) = found {
            vacuumer.look(&table, &holders).await;
        }
    }
}

/// Looks at the plans, on a connection that is closed after each look.
async fn look_at_plans(options: &PgConnectOptions) {
    let mut wait = PLANS_FIRST;
    loop {
        tokio::time::sleep(wait).await;
        wait = PLANS_EVERY;
        let look = async {
            let mut conn = options.connect().await?;
            let checks = plans(&mut conn).await?;
            conn.close().await?;
            Ok::<_, sqlx::Error>(checks)
        };
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(checks)) => plan::publish(&checks),
            Ok(Err(error)) => tracing::warn!(error = %error, "plans cannot be looked at"),
            Err(_) => tracing::warn!("looking at the plans took too long"),
        }
    }
}
