//! What an attempt writes down beside its outcome: the results of its steps.
//!
//! They are saved at once and fenced, over connections of their own, opened when the first attempt
//! needs one: a handler may hold every connection of the jobs' pool while it saves a step, and
//! claims never wait for what jobs write down.

mod step;
mod sweep;

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgConnectOptions;

use self::step::Steps;
use crate::db::{self, Bounded};

pub use sweep::sweep;

/// What the attempts of one engine write down.
#[derive(Debug, Clone)]
pub(super) struct Records(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Bounded,
}

impl Records {
    /// Prepares; connects nothing yet. `limit` is the longest wait for an answer.
    pub(super) fn new(options: PgConnectOptions, limit: Duration) -> Self {
        let pool = db::records(options);
        Self(Arc::new(Inner {
            db: Bounded { pool, limit },
        }))
    }

    /// Begins the record of one attempt.
    pub(super) fn begin(&self) -> Arc<Record> {
        Arc::new(Record {
            records: self.clone(),
            steps: Steps::default(),
        })
    }
}

/// What one attempt writes down.
#[derive(Debug)]
pub(super) struct Record {
    records: Records,
    steps: Steps,
}

impl Record {
    fn db(&self) -> &Bounded {
        &self.records.0.db
    }
}
