//! What makes the queue slow by and by: a held horizon, dead rows, missing partitions, bad plans.

use sqlx::PgConnection;

use super::Finding;
use crate::{
    cli::output::seconds,
    queue::watch::{self, Holder, LiveTable},
};

/// Finds who keeps vacuum from cleaning up, which makes every claim slower.
pub(super) async fn horizon(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let holders = watch::holders(conn).await?;
    let Some(worst) = holders.iter().find(|holder| holder.hurts()) else {
        // Here nobody has seen a slot stand still: its age in transactions is all there is.
        let slots = holders.iter().filter(|holder| holder.age_seconds.is_none());
        let behind = slots.map(|slot| format!("; {}", age(slot)));
        let behind: String = behind.collect();
        let text = format!("no transaction is older than 5 minutes{behind}");
        return Ok(Finding::ok("vacuum horizon", text));
    };
    let query = worst.query.as_deref().filter(|query| !query.is_empty());
    let query = query.map(|query| format!(", last statement: {query}"));
    let text = format!("{}{}", age(worst), query.unwrap_or_default());
    let hint = format!("dead rows pile up until it ends: {}", worst.remedy());
    Ok(Finding::warn("vacuum horizon", text, hint))
}

fn age(holder: &Holder) -> String {
    let time = holder
        .age_seconds
        .map(|secs| format!("{} old, ", seconds(secs)));
    let (who, time) = (holder.describe(), time.unwrap_or_default());
    format!(
        "{who}: {time}{} transactions behind",
        holder.age_transactions
    )
}

/// Looks at the dead rows of the live table, and at whether anybody removes them.
pub(super) async fn live_table(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let table = watch::live_table(conn).await?;
    let text = describe(&table);
    if table.is_bloated() {
        let hint = "see the vacuum horizon above; else: VACUUM ingestd.jobs";
        return Ok(Finding::warn("live table", text, hint));
    }
    if !table.has_autovacuum {
        let hint = "the daemon vacuums it now and then; better: autovacuum = on";
        return Ok(Finding::warn("live table", text, hint));
    }
    Ok(Finding::ok("live table", text))
}

fn describe(table: &LiveTable) -> String {
    let vacuumed = table.vacuumed_at.map_or_else(
        || "never vacuumed".to_owned(),
        |at| format!("vacuumed {}", crate::cli::output::at(at)),
    );
    let autovacuum = if table.has_autovacuum {
        ""
    } else {
        ", autovacuum off"
    };
    let [size, indexes] = [table.table_bytes, table.index_bytes].map(mib);
    format!(
        "{} rows, {} dead, {size} MiB and {indexes} MiB of indexes, {vacuumed}{autovacuum}",
        table.live_rows, table.dead_rows
    )
}

const fn mib(bytes: i64) -> i64 {
    bytes / (1 << 20)
}

/// Looks whether tomorrow's rows of the history have their partition.
pub(super) async fn partitions(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let tables = watch::partitions(conn).await?;
    Ok(match tables.iter().min_by_key(|table| table.ahead_days) {
        Some(worst) if worst.ahead_days < 1 => Finding::warn(
            "partitions",
            format!(
                "{} has partitions for {} days ahead",
                worst.table, worst.ahead_days
            ),
            "a running daemon makes them every hour; its log says what keeps it: or \
             SELECT ingestd.make_partitions()",
        ),
        Some(worst) => {
            let text = format!("made for {} days ahead", worst.ahead_days);
            Finding::ok("partitions", text)
        }
        None => Finding::ok("partitions", "no table has any"),
    })
}

/// Looks whether the hot statements have the plans they are written for.
pub(super) async fn plans(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let checks = watch::plans(conn).await?;
    let bad = checks.iter().filter(|check| !check.faults.is_empty());
    let bad: Vec<String> = bad
        .map(|check| format!("{}: {}", check.statement, check.faults.join(", ")))
        .collect();
    if bad.is_empty() {
        let text = format!("{} hot statements have the plan they should", checks.len());
        return Ok(Finding::ok("plans", text));
    }
    let hint = "is an index missing or invalid? \\d ingestd.jobs; then ANALYZE ingestd.jobs";
    Ok(Finding::warn("plans", bad.join("; "), hint))
}
