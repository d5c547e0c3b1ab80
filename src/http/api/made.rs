//! What a caller may have made by its kind's name, and with which arguments: the one place that
//! decides it for new jobs, for schedules and for dead letters with other arguments.

use serde_json::Value;

use super::super::{AppState, Caller, Problem, Trouble};
use crate::{
    access::Tenants,
    ingest,
    queue::{ByName, NewJob},
    runs::{self, RunId},
};

/// The longest unique key, in characters, and the longest with a period, whose start and length are
/// written behind it.
pub(super) const LONGEST_KEY: usize = 1024;
pub(super) const LONGEST_PERIODIC_KEY: usize = 980;

/// Refuses a kind that this caller may not have made by its name.
///
/// # Errors
///
/// 403, with what to ask instead.
pub(super) fn kind(caller: &Caller, kind: &str) -> Result<(), Problem> {
    let text = match ingest::by_name(kind) {
        ByName::Nobody(instead) => {
            format!("jobs of {kind} are not made by their name; instead: {instead}")
        }
        ByName::AllTenants if caller.tenants != Tenants::All => {
            format!("jobs of {kind} are made by callers of all tenants only")
        }
        ByName::AllTenants | ByName::Anybody => return Ok(()),
    };
    Err(Problem::new(Trouble::Forbidden).detail(text))
}

/// Refuses a kind, or arguments of one, that this caller may not have made.
///
/// # Errors
///
/// 403 as [`kind`]; 422 at `/args/run_id` where a caller bound to tenants names another's run.
pub(super) async fn with_args(
    app: &AppState,
    caller: &Caller,
    kind: &str,
    args: &Value,
) -> Result<(), Problem> {
    self::kind(caller, kind)?;
    let named = args
        .get("run_id")
        .filter(|_| caller.tenants != Tenants::All);
    let Some(named) = named else {
        return Ok(());
    };
    let run = match named.as_i64() {
        Some(id) => runs::get(&app.db, RunId(id)).await?,
        None => None,
    };
    if run.is_some_and(|run| caller.tenants.has(Some(&run.tenant))) {
        return Ok(());
    }
    Err(Problem::new(Trouble::Invalid).at("/args/run_id", "no such run"))
}

/// Checks a new job and makes it the caller's: its owner, and, where the caller is bound to
/// tenants, a unique key among its owner's own.
///
/// # Errors
///
/// As [`with_args`]; 422 at `/tenant`, or at `/unique_key` where there is no room for the owner.
pub(super) async fn job(
    app: &AppState,
    caller: &Caller,
    mut job: NewJob,
) -> Result<NewJob, Problem> {
    with_args(app, caller, &job.kind, &job.args).await?;
    if caller.tenants == Tenants::All {
        return Ok(job);
    }
    job.tenant = caller.owner(job.tenant)?;
    let owner = job.tenant.as_deref().unwrap_or_default();
    job.unique_key = job.unique_key.map(|key| own_key(owner, &key));
    let longest = match job.unique_for {
        None => LONGEST_KEY,
        Some(_) => LONGEST_PERIODIC_KEY,
    };
    let is_fine = |key: &String| key.chars().count() <= longest;
    if !job.unique_key.as_ref().is_none_or(is_fine) {
        let rule = format!("with your tenant's name before it, at most {longest} characters");
        return Err(Problem::new(Trouble::Invalid).at("/unique_key", rule));
    }
    Ok(job)
}

/// Returns a tenant's key as it is stored: none of ingestd's own, and none of another tenant's,
/// since the length says where the name ends.
fn own_key(owner: &str, key: &str) -> String {
    format!("api:{}:{owner}:{key}", owner.len())
}

#[cfg(test)]
mod tests {
    use super::own_key;

    #[test]
    fn a_tenants_key_is_nobody_elses() {
        assert_eq!(own_key("acme", "run:7"), "api:4:acme:run:7");
        assert_ne!(own_key("a", "b:c"), own_key("a:b", "c"));
    }
}
