//! Where a fair queue is looked through for jobs without a tenant.
//!
//! Jobs with a tenant are found by an index that those without are not in, so that the many queues
//! without turns do not pay for it. In a fair queue they are looked for among the jobs that are due,
//! of which a claim passes few: behind a thousand jobs of somebody's they would not be seen. So a
//! claim begins that look where one of them lies, and where it brought none, the place of the next
//! is looked for, going round.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

const NEXT: &str = include_str!("nobody.sql");

/// Per priority, the place in the order of due jobs after which those without a tenant are looked
/// for; `None`: from the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Nobody([Option<(DateTime<Utc>, i64)>; 4]);

impl Nobody {
    /// Returns the places in the order of these priorities, as the claim wants them.
    pub(super) fn of(&self, order: [i16; 4]) -> ([Option<DateTime<Utc>>; 4], [Option<i64>; 4]) {
        let places = order.map(|priority| *self.0.get(usize::try_from(priority).ok()?)?);
        (
            places.map(|place| Some(place?.0)),
            places.map(|place| Some(place?.1)),
        )
    }

    /// Looks for the next of them, and comes back to the start where there is none up to the end.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub(super) async fn next(
        self,
        conn: &mut PgConnection,
        queue: &str,
        kinds: &[&str],
    ) -> sqlx::Result<Self> {
        let order = [0, 1, 2, 3];
        let (at, ids) = self.of(order);
        let found: Vec<(i16, DateTime<Utc>, i64, bool)> = sqlx::query_as(NEXT)
            .bind(queue)
            .bind(order)
            .bind(at)
            .bind(ids)
            .bind(kinds)
            .fetch_all(conn)
            .await?;
        let place = |priority| {
            let found = found.iter().find(|found| found.0 == priority);
            // Before it, where it is one of them; after the stretch, where that had none.
            found.map(|(_, at, id, is_it)| (*at, id - i64::from(*is_it)))
        };
        Ok(Self(order.map(place)))
    }
}
