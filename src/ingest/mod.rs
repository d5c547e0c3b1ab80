//! The built-in systems. Adding a kind touches its folder and one line of [`ALL`].
//!
//! A system never names another one: the next step is enqueued by its args type.

use std::sync::Arc;

use sqlx::PgPool;

use crate::{
    blob,
    config::Config,
    db,
    fetch::Fetcher,
    notify::{mail, search, webhook},
    queue::{ByName, Done, JobError, Kind, Retry},
    source,
};

pub mod product_import;
pub mod system;

/// What the daemon lends to every job.
#[derive(Debug, Clone)]
pub struct Context {
    /// The jobs' connections; the queue has others.
    pub db: PgPool,
    /// Uploaded files.
    pub blobs: blob::Store,
    /// The configuration.
    pub config: Arc<Config>,
    /// The way out over HTTP.
    pub fetch: Fetcher,
}

/// Every kind of this binary, one line each.
pub const ALL: &[Kind<Context>] = &[
    Kind::of::<product_import::retention::Forget>(),
    Kind::of::<product_import::RollBack>(),
    Kind::of::<product_import::RunImport>(),
    Kind::of::<mail::SendMail>(),
    Kind::of::<search::Look>(),
    Kind::of::<search::Rebuild>(),
    Kind::of::<search::SyncSearch>(),
    Kind::of::<source::FetchFile>(),
    Kind::of::<source::FetchSource>(),
    Kind::of::<system::Bulk>(),
    Kind::of::<system::Noop>(),
    Kind::of::<system::RecoverRuns>(),
    Kind::of::<system::SweepBlobs>(),
    Kind::of::<webhook::Deliver>(),
];

/// Returns every kind with the configuration's overrides applied.
#[must_use]
pub fn kinds(config: &Config) -> Vec<Kind<Context>> {
    ALL.iter()
        .map(|kind| {
            let mut kind = *kind;
            if let Some(o) = config.kinds.get(kind.name) {
                kind.timeout = o.timeout.unwrap_or(kind.timeout);
            }
            kind.retry = retry(config, kind.name, kind.retry);
            kind
        })
        .collect()
}

/// Returns a kind's `retry` with the configuration's overrides applied.
#[must_use]
pub fn retry(config: &Config, kind: &str, retry: Retry) -> Retry {
    let Some(o) = config.kinds.get(kind) else {
        return retry;
    };
    Retry {
        max_attempts: o.max_attempts.unwrap_or(retry.max_attempts),
        first: o.retry_first.unwrap_or(retry.first),
        factor: o.retry_factor.unwrap_or(retry.factor),
        cap: o.retry_cap.unwrap_or(retry.cap),
        jitter: o.retry_jitter.unwrap_or(retry.jitter),
    }
}

/// Has work wait, with no attempt counted, where it ended for a database that is away or whose disk is
/// full; `what` is what waits.
fn wait_for_database(ended: Result<Done, JobError>, what: &str) -> Result<Done, JobError> {
    match ended {
        Err(JobError::Retry { error, after }) => {
            let Some(pause) = db::outage(&error) else {
                return Err(JobError::Retry { error, after });
            };
            tracing::warn!(
                error = format!("{error:#}"),
                "{what} waits for the database"
            );
            Err(JobError::Snooze(pause))
        }
        ended => ended,
    }
}

/// Says who may enqueue a kind by its name. A kind that this binary does not have may be a newer
/// one's where its system is ours; of other systems others decide.
#[must_use]
pub fn by_name(kind: &str) -> ByName {
    let system = |name: &str| name.split('.').next().map(str::to_owned);
    match ALL.iter().find(|known| known.name == kind) {
        Some(known) => known.by_name,
        None if ALL.iter().any(|known| system(known.name) == system(kind)) => ByName::AllTenants,
        None => ByName::Anybody,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::{ALL, by_name};
    use crate::queue::{ByName, Timetable};

    #[test]
    fn every_kind_is_well_formed() {
        let mut names = HashSet::new();
        for kind in ALL {
            let (system, verb) = kind.name.split_once('.').expect("system.verb");
            assert!(!system.is_empty() && !verb.is_empty() && !verb.contains('.'));
            assert!(names.insert(kind.name), "{} is there twice", kind.name);
            assert!(kind.timeout > Duration::ZERO && kind.retry.max_attempts > 0);
            if let Some(cron) = kind.schedule {
                Timetable::parse(cron, "UTC").expect(kind.name);
            }
        }
    }

    #[test]
    fn what_a_route_or_the_daemon_makes_nobody_makes_by_its_name() {
        let open = ALL
            .iter()
            .filter(|kind| by_name(kind.name) == ByName::AllTenants);
        let open: Vec<&str> = open.map(|kind| kind.name).collect();
        // Arguments of these name nothing: no tenant, no run, no server.
        let harmless = [
            "product_import.forget",
            "search.look",
            "system.noop",
            "system.recover_runs",
            "system.sweep_blobs",
        ];
        assert_eq!(open, harmless);
        assert!(ALL.iter().all(|kind| by_name(kind.name) != ByName::Anybody));
        assert_eq!(by_name("catalog.newer"), ByName::AllTenants);
        assert_eq!(by_name("others.kind"), ByName::Anybody);
    }
}
