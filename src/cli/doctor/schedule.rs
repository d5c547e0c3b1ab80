//! Schedules: those that cannot run, and where the database differs from the configuration.

use sqlx::PgConnection;

use super::Finding;
use crate::{
    cli::schedules::shadowed,
    config::Config,
    queue::schedule::explain::{self, ScheduleRow},
};

const CHECK: &str = "schedules";

/// Looks at every schedule.
pub(super) async fn examine(
    conn: &mut PgConnection,
    config: &Config,
) -> sqlx::Result<Vec<Finding>> {
    let rows = explain::list(conn).await?;
    let mut findings: Vec<Finding> = rows.iter().filter_map(trouble).collect();
    findings.extend(differing(&rows, config));
    if findings.is_empty() {
        let text = format!("{} of them, all in order", rows.len());
        findings.push(Finding::ok(CHECK, text));
    }
    Ok(findings)
}

fn trouble(row: &ScheduleRow) -> Option<Finding> {
    if let Some(error) = &row.last_error {
        let text = format!("\"{}\": {error}", row.name);
        let hint = format!("`ingestd schedules explain {}` says more", row.name);
        return Some(Finding::warn(CHECK, text, hint));
    }
    let text = shadowed(row)?;
    let (text, hint) = text.split_once(": ")?;
    Some(Finding::warn(CHECK, text, hint))
}

/// Compares the configuration of this machine with the rows of its set.
fn differing(rows: &[ScheduleRow], config: &Config) -> Vec<Finding> {
    let set = Some(config.queue.schedule_set.as_str());
    let of_set = |row: &&ScheduleRow| row.origin == "config" && row.config_set.as_deref() == set;
    let warn = |name: &str, what: &str| {
        let text = format!("\"{name}\" {what}");
        Finding::warn(
            CHECK,
            text,
            "the start of a daemon with this configuration brings it in",
        )
    };
    let wanted = config.schedules.wanted();
    let new_or_changed = wanted.iter().filter_map(|(name, definition, is_paused)| {
        match rows.iter().find(|row| row.name == *name) {
            None => Some(warn(name, "is in the configuration only")),
            Some(row) if row.origin == "built_in" => Some(warn(
                name,
                "is still the built-in one, not that of the configuration",
            )),
            Some(row) if !of_set(&row) => None, // the row says so itself
            Some(row) if row.definition == *definition && row.paused_in_config == *is_paused => {
                None
            }
            Some(_) => Some(warn(name, "differs from what the configuration says")),
        }
    });
    let gone = rows.iter().filter(of_set);
    let gone = gone.filter(|row| !config.schedules.contains(&row.name));
    let gone = gone.map(|row| warn(&row.name, "is no longer in the configuration"));
    new_or_changed.chain(gone).collect()
}
