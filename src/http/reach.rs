//! Whose object a path names: another tenant's is not there.

use super::{AppState, Caller, Problem, route::Reach, trouble::Trouble};
use crate::{
    access::{INSTALLATION, Tenants},
    notify::webhook,
    queue::{
        JobId, read,
        schedule::explain::{self, ScheduleRow},
    },
    runs::{self, RunId},
};

/// Lets a caller through whose tenants own what the path names.
///
/// A caller of all tenants is let through without a look. What is not there is 404 like what is
/// another's, with the same words.
///
/// # Errors
///
/// 404, or 403 where the route belongs to no tenant.
pub(super) async fn check(
    app: &AppState,
    caller: &Caller,
    reach: Reach,
    id: Option<&str>,
) -> Result<(), Problem> {
    if caller.tenants == Tenants::All {
        return Ok(());
    }
    let name = id.unwrap_or_default();
    let id = || -> Result<i64, Problem> {
        let id = id.and_then(|id| id.parse().ok());
        id.ok_or_else(|| Trouble::NotFound.into())
    };
    let (what, id, owner) = match reach {
        Reach::Filtered => return Ok(()),
        Reach::Whole => {
            let text = "this belongs to the whole installation, and you to some of its tenants";
            return Err(Problem::new(Trouble::Forbidden).detail(text));
        }
        Reach::Schedule => {
            let found = explain::find(&app.db, name).await?;
            (
                "schedule",
                format!("{name:?}"),
                found.map(|found| Some(owner_of(found))),
            )
        }
        Reach::Job => {
            let id = id()?;
            let job = read::find(&app.db, JobId(id)).await?;
            ("job", id.to_string(), job.map(|job| job.row.tenant))
        }
        Reach::Run => {
            let id = id()?;
            let run = runs::get(&app.db, RunId(id)).await?;
            ("run", id.to_string(), run.map(|run| Some(run.tenant)))
        }
        Reach::Webhook => {
            let id = id()?;
            let webhook = webhook::get(&app.db, id).await?;
            let owner = webhook.map(|webhook| Some(webhook.tenant));
            ("webhook", id.to_string(), owner)
        }
    };
    if owner.is_some_and(|owner| caller.tenants.has(owner.as_deref())) {
        return Ok(());
    }
    let text = format!("no {what} {id}, or no longer");
    Err(Problem::new(Trouble::NotFound).detail(text))
}

/// Returns whose a schedule is.
fn owner_of(schedule: ScheduleRow) -> String {
    let tenant = schedule.definition.tenant;
    tenant.unwrap_or_else(|| INSTALLATION.to_owned())
}
