//! How far an import is, in the words and the JSON of the product import's document.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;

use super::{
    load::tally::{self, Tally},
    sheet::SkippedSheet,
    store::{self, RowFault},
};
use crate::runs::{Run, RunState};

/// As many of the rows that were refused are shown.
const MAX_ERRORS: i64 = 100;

/// The document's four states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, not begun.
    Pending,
    /// At work, or waiting to go on.
    Processing,
    /// Every row was dealt with, well or badly.
    Completed,
    /// Given up, or cancelled.
    Failed,
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Pending => Self::Pending,
            RunState::Running | RunState::Paused => Self::Processing,
            RunState::Completed => Self::Completed,
            RunState::Failed | RunState::Cancelled => Self::Failed,
        }
    }
}

/// How many rows are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows dealt with, well or badly.
    pub current: i64,
    /// Rows in all; until the file was read to its end a number they do not exceed, 0 where that
    /// cannot be told.
    pub total: i64,
    /// Of a hundred, rounded down; 100 only when completed.
    pub percentage: i64,
}

impl Progress {
    fn of(run: &Run) -> Self {
        let current = run.items_done();
        if run.state == RunState::Completed {
            return Self {
                current,
                total: current,
                percentage: 100,
            };
        }
        let total = run.items_total.map_or(0, |total| total.max(current));
        let percentage = (current * 100).checked_div(total).unwrap_or(0).min(99);
        Self {
            current,
            total,
            percentage,
        }
    }
}

/// What came of the file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Data rows in the file.
    pub total_rows: i64,
    /// Rows that are in the catalog as the file has them.
    pub success_count: i64,
    /// Rows (not errors) that were refused.
    pub error_count: i64,
    /// What was wrong with which row; the first 100. The log has all.
    pub errors: Vec<RowFault>,
    /// Set where there are more than these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub errors_truncated: bool,
    /// Where all rejected rows can be downloaded, with what is wrong with each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors_url: Option<String>,
    /// Rows that made a new product.
    pub created_count: i64,
    /// Rows that changed a product.
    pub updated_count: i64,
    /// Rows that the catalog had already.
    pub unchanged_count: i64,
    /// Products archived because the file lacked them.
    pub archived_count: i64,
    /// What became of rows that the catalog had, lacked, or had otherwise.
    pub mode: String,
    /// How many rows are hidden in the file: imported like others, or passed over where
    /// `skip_hidden_rows` was asked for. Left out where there are none, or it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_rows: Option<u64>,
    /// Whether nothing was written and the counts say what would have been.
    pub dry_run: bool,
    /// The first rows of each sort; of a dry run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Value>,
}

/// An import as the document shows it; what does not apply is left out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The run's id.
    pub job_id: i64,
    /// How far it is.
    pub status: Status,
    /// Whether it waits for a person to resume it; left out where it does not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The run that undoes, or has undone, it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_by: Option<i64>,
    /// Of a paused import: the newest import that has written to the same catalog
    /// since it was uploaded. The rows that are left of this one would go over its rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overtaken_by: Option<i64>,
    /// How many rows are done.
    pub progress: Progress,
    /// What it is doing, where it says so: `sheet 2 of 3: Lamps`, `archiving`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// What came of each sheet so far, where several are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheets: Option<Vec<Tally>>,
    /// The sheets that are not read, and why, unless one was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_sheets: Vec<SkippedSheet>,
    /// When it first began: ISO 8601, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended: ISO 8601, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// What came of the file, once completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// Why it failed; `cancelled` where somebody did so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Reads what a run alone does not say, and shows both.
///
/// # Errors
///
/// What Postgres says.
pub async fn read(conn: &mut PgConnection, run: &Run) -> sqlx::Result<Shown> {
    let results = match run.state {
        RunState::Completed => Some(results(conn, run).await?),
        _ => None,
    };
    let overtaken_by = match run.state {
        RunState::Paused => overtaken(conn, run).await?,
        _ => None, // the document's own words have no other members
    };
    Ok(Shown {
        overtaken_by,
        results,
        ..of(run)
    })
}

/// Returns the newest import that has written to the same catalog since one that stopped, and may go
/// on, was uploaded.
///
/// # Errors
///
/// What Postgres says.
pub async fn overtaken(conn: &mut PgConnection, run: &Run) -> sqlx::Result<Option<i64>> {
    let has_stopped = matches!(
        run.state,
        RunState::Paused | RunState::Failed | RunState::Cancelled
    );
    if has_stopped && run.undone_by().is_none() {
        store::find_newer(conn, run.id.0).await
    } else {
        Ok(None)
    }
}

/// Says whether there is more to show than a run alone says, which [`read`] does.
#[must_use]
pub const fn has_more(state: RunState) -> bool {
    matches!(state, RunState::Paused) || state.is_final()
}

/// Shows what a run alone says: everything but the results and what came after.
#[must_use]
pub fn of(run: &Run) -> Shown {
    let error = match run.state {
        RunState::Cancelled => Some("cancelled".to_owned()),
        RunState::Failed => Some(run.error.clone().unwrap_or_else(|| "unknown".to_owned())),
        _ => None,
    };
    Shown {
        job_id: run.id.0,
        status: run.state.into(),
        paused: run.state == RunState::Paused,
        undone_by: run.undone_by().map(|by| by.0),
        overtaken_by: None,
        progress: Progress::of(run),
        stage: run.stage.clone().filter(|_| !run.state.is_final()),
        sheets: tally::sheets(&run.details),
        skipped_sheets: tally::skipped(&run.details),
        started_at: run.started_at.map(utc),
        completed_at: run.finished_at.map(utc),
        results: None,
        error,
    }
}

async fn results(conn: &mut PgConnection, run: &Run) -> sqlx::Result<Results> {
    let import = store::find(conn, run.id.0).await?;
    let counts = import
        .as_ref()
        .map(|import| (import.success_count, import.error_count));
    let (success_count, error_count) =
        counts.unwrap_or((run.items_ok + run.items_skipped, run.items_failed));
    let of = |count: fn(&store::Import) -> i64| import.as_ref().map_or(0, count);
    let mut errors = match error_count {
        0 => Vec::new(),
        _ => store::row_faults(conn, run.id.0, MAX_ERRORS + 1).await?,
    };
    let n_shown = usize::try_from(MAX_ERRORS).unwrap_or(usize::MAX);
    let errors_truncated = errors.len() > n_shown;
    errors.truncate(n_shown);
    Ok(Results {
        total_rows: success_count + error_count,
        success_count,
        error_count,
        errors_truncated,
        errors_url: (error_count > 0).then(|| format!("/api/v1/import/{}/errors.csv", run.id)),
        errors,
        created_count: of(|import| import.created_count),
        updated_count: of(|import| import.updated_count),
        unchanged_count: of(|import| import.unchanged_count),
        archived_count: of(|import| import.archived_count),
        dry_run: import.as_ref().is_some_and(|import| import.dry_run),
        mode: import.map_or_else(String::new, |import| import.mode),
        hidden_rows: tally::hidden(&run.details),
        preview: run.details.get("preview").cloned(),
    })
}

fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
