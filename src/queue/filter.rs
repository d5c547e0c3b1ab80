//! Which jobs and dead letters a person means: filters, and looking through a table by them.
//!
//! A table is looked through in the order of ids, a bounded number of rows at a time, so that
//! neither a rare filter nor a large table makes a statement long.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

use super::{complete::Reason, job::JobId, read::JobState};

/// Which unfinished jobs; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveFilter {
    /// In this lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// In this state: `queued`, `held` or `running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Of this owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Whose last error contains this text, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Inserted at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<DateTime<Utc>>,
    /// Inserted before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
    /// Only those that wait for a later time: retries and what was scheduled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_later: bool,
}

/// Which dead letters; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadFilter {
    /// Of this lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Given up for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Of this group of alike failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Whose error contains this text, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of this owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    /// Given up at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_after: Option<DateTime<Utc>>,
    /// Given up before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_before: Option<DateTime<Utc>>,
    /// Also those that were replayed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
}

/// Hash of an error with its numbers left out; people see 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Fingerprint(pub i64);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is none that [`Fingerprint`] is shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 16 hexadecimal digits")]
pub struct BadFingerprint;

impl std::str::FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let bits = u64::from_str_radix(text, 16).map_err(|_| BadFingerprint)?;
        is_hex
            .then_some(Self(bits.cast_signed()))
            .ok_or(BadFingerprint)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Either filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Filter {
    /// Of unfinished jobs.
    Live(LiveFilter),
    /// Of dead letters.
    Dead(DeadFilter),
}

/// Rows that one step of [`Filter::sift`] looks at, at most.
const STEP_ROWS: i64 = 2_000;

/// Rows that [`Filter::preview`] looks at, at most.
const PREVIEW_ROWS: i64 = 100_000;

/// What one step through a table found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sifted {
    /// What fits the filter, in the order of ids; its rows are locked.
    pub ids: Vec<JobId>,
    /// The last id looked at: the next step goes on after it.
    pub after: JobId,
    /// Whether nothing is left to look at.
    pub is_end: bool,
}

/// One of what fits a filter.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Sample {
    /// The job's id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// Where it stands.
    pub state: JobState,
    /// The first 200 characters of its last error.
    pub error: Option<String>,
}

/// How many fit a filter, and the first of them.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// How many were found.
    pub n_found: i64,
    /// Whether the whole table was looked at; if not, `n_found` is the least there are.
    pub is_all: bool,
    /// Those with the smallest ids.
    pub first: Vec<Sample>,
}

impl Filter {
    const fn table(&self) -> &'static str {
        match self {
            Self::Live(_) => "ingestd.jobs",
            Self::Dead(_) => "ingestd.dead_jobs",
        }
    }

    /// Says whether it lets everything through.
    #[must_use]
    pub fn is_any(&self) -> bool {
        match self {
            Self::Live(filter) => {
                let any = LiveFilter {
                    is_later: filter.is_later,
                    ..LiveFilter::default()
                };
                *filter == any
            }
            Self::Dead(filter) => {
                let any = DeadFilter {
                    replayed: filter.replayed,
                    ..DeadFilter::default()
                };
                *filter == any
            }
        }
    }

    /// Reads the last id that there is now; what is enqueued later has a larger one.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub async fn last_id(&self, conn: &mut PgConnection) -> sqlx::Result<JobId> {
        let mut query = QueryBuilder::new("SELECT id FROM ");
        query.push(self.table());
        query.push(" WHERE shard = 0 ORDER BY id DESC LIMIT 1");
        let last = query.build_query_scalar().fetch_optional(conn).await?;
        Ok(last.unwrap_or(JobId(0)))
    }

    /// Looks at the rows after one id, up to another, and locks the first `max` that fit.
    ///
    /// What fitted when it was looked at and fits no more when it is locked is left out.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub async fn sift(
        &self,
        conn: &mut PgConnection,
        after: JobId,
        last: JobId,
        max: usize,
    ) -> sqlx::Result<Sifted> {
        let mut query = QueryBuilder::new("");
        self.push_step(&mut query, after, last, STEP_ROWS);
        let rows: Vec<(JobId, bool)> = query.build_query_as().fetch_all(&mut *conn).await?;
        let is_short = i64::try_from(rows.len()).is_ok_and(|n_rows| n_rows < STEP_ROWS);
        let fits = rows.iter().filter(|(_, fits)| *fits).map(|(id, _)| *id);
        let mut ids: Vec<JobId> = fits.take(max + 1).collect();
        let is_full = ids.len() > max;
        ids.truncate(max);
        let looked_at = if is_full {
            ids.last()
        } else {
            rows.last().map(|(id, _)| id)
        };
        let after = looked_at.copied().unwrap_or(last);
        Ok(Sifted {
            ids: self.lock(conn, &ids).await?,
            after,
            is_end: is_short && !is_full,
        })
    }

    /// Locks those that still fit, in the order of their ids.
    async fn lock(&self, conn: &mut PgConnection, ids: &[JobId]) -> sqlx::Result<Vec<JobId>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = QueryBuilder::new("SELECT id FROM ");
        query
            .push(self.table())
            .push(" WHERE shard = 0 AND id = ANY (");
        query.push_bind(ids.iter().map(|id| id.0).collect::<Vec<_>>());
        query.push(")");
        self.push_conditions(&mut query);
        query.push(" ORDER BY id FOR UPDATE");
        query.build_query_scalar().fetch_all(conn).await
    }

    /// Counts what fits up to an id, and shows the first `n_first`, looking at 100,000 rows at most.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub async fn preview(
        &self,
        conn: &mut PgConnection,
        last: JobId,
        n_first: i64,
    ) -> sqlx::Result<Preview> {
        let mut query = QueryBuilder::new("SELECT count(*) FILTER (WHERE fits), count(*) FROM (");
        self.push_step(&mut query, JobId(0), last, PREVIEW_ROWS + 1);
        query.push(") step");
        let (n_found, n_rows): (i64, i64) = query.build_query_as().fetch_one(&mut *conn).await?;
        let mut first = Vec::new();
        if n_found > 0 {
            let (state, error) = match self {
                Self::Live(_) => ("state", "last_error"),
                Self::Dead(_) => ("'dead' AS state", "error"),
            };
            let mut query = QueryBuilder::new("SELECT id, kind, queue, ");
            query
                .push(state)
                .push(", left(")
                .push(error)
                .push(", 200) AS error FROM ");
            query
                .push(self.table())
                .push(" WHERE shard = 0 AND id <= ")
                .push_bind(last);
            self.push_conditions(&mut query);
            query.push(" ORDER BY id LIMIT ").push_bind(n_first);
            first = query.build_query_as().fetch_all(conn).await?;
        }
        Ok(Preview {
            n_found,
            is_all: n_rows <= PREVIEW_ROWS,
            first,
        })
    }

    /// Writes the statement that reads ids in their order, and whether they fit.
    ///
    /// One group of dead letters has an index in the order of ids; all else goes by primary key.
    fn push_step(
        &self,
        query: &mut QueryBuilder<Postgres>,
        after: JobId,
        last: JobId,
        n_rows: i64,
    ) {
        query.push("SELECT id, coalesce(true");
        self.push_conditions(query);
        query.push(", false) AS fits FROM ").push(self.table());
        query.push(" WHERE shard = 0 AND id > ").push_bind(after);
        query.push(" AND id <= ").push_bind(last);
        if let Self::Dead(DeadFilter {
            kind: Some(kind),
            fingerprint: Some(fingerprint),
            replayed: false,
            ..
        }) = self
        {
            query
                .push(" AND replayed_at IS NULL AND kind = ")
                .push_bind(kind.clone());
            query.push(" AND fingerprint = ").push_bind(*fingerprint);
        }
        query.push(" ORDER BY id LIMIT ").push_bind(n_rows);
    }

    fn push_conditions(&self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Live(filter) => filter.push_conditions(query),
            Self::Dead(filter) => filter.push_conditions(query),
        }
    }
}

/// Adds ` AND column op value` where there is a value.
macro_rules! and {
    ($query:ident, $sql:literal, $value:expr) => {
        if let Some(value) = &$value {
            $query
                .push(concat!(" AND ", $sql, " "))
                .push_bind(value.clone());
        }
    };
}

/// Adds that an error contains a text.
fn push_contains(query: &mut QueryBuilder<Postgres>, column: &'static str, text: Option<&String>) {
    if let Some(text) = text {
        query
            .push(" AND strpos(lower(")
            .push(column)
            .push("), lower(");
        query.push_bind(text.clone()).push(")) > 0");
    }
}

impl LiveFilter {
    fn push_conditions(&self, query: &mut QueryBuilder<Postgres>) {
        and!(query, "queue =", self.queue);
        and!(query, "kind =", self.kind);
        and!(query, "state =", self.state);
        and!(query, "coalesce(tenant, 'default') =", self.tenant);
        and!(query, "run_id =", self.run_id);
        and!(query, "created_at >=", self.created_after);
        and!(query, "created_at <", self.created_before);
        push_contains(query, "last_error", self.error.as_ref());
        if self.is_later {
            query.push(" AND run_at > now()");
        }
    }
}

impl DeadFilter {
    /// Adds the conditions, each with its AND.
    pub(super) fn push_conditions(&self, query: &mut QueryBuilder<Postgres>) {
        and!(query, "queue =", self.queue);
        and!(query, "kind =", self.kind);
        and!(query, "reason =", self.reason.map(Reason::as_str));
        and!(query, "fingerprint =", self.fingerprint);
        and!(query, "coalesce(tenant, 'default') =", self.tenant);
        and!(query, "run_id =", self.run_id);
        and!(query, "died_at >=", self.died_after);
        and!(query, "died_at <", self.died_before);
        push_contains(query, "error", self.error.as_ref());
        if !self.replayed {
            query.push(" AND replayed_at IS NULL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        for bits in [0, 1, -1, i64::MIN, 0x0123_4567_89ab_cdef] {
            let text = Fingerprint(bits).to_string();
            assert_eq!(text.parse(), Ok(Fingerprint(bits)), "{text}");
        }
        for wrong in [
            "",
            "ff",
            "+23456789abcdef0",
            "0123456789abcdefg",
            "g123456789abcdef",
        ] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(BadFingerprint), "{wrong}");
        }
    }

    #[test]
    fn a_filter_says_whether_it_is_one() {
        assert!(
            Filter::Dead(DeadFilter {
                replayed: true,
                ..DeadFilter::default()
            })
            .is_any()
        );
        assert!(Filter::Live(LiveFilter::default()).is_any());
        let kind = Some("a.b".to_owned());
        assert!(
            !Filter::Live(LiveFilter {
                kind,
                ..LiveFilter::default()
            })
            .is_any()
        );
    }

    #[test]
    fn what_is_not_asked_for_is_not_written() {
        let filter = DeadFilter {
            kind: Some("a.b".into()),
            ..DeadFilter::default()
        };
        assert_eq!(serde_json::to_string(&filter).unwrap(), r#"{"kind":"a.b"}"#);
        let read: Result<DeadFilter, _> = serde_json::from_str(r#"{"kin":"a.b"}"#);
        assert!(read.is_err(), "a misspelt condition would be none");
    }
}
