//! Steps: what a job has done already is not done again by its next attempt.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{Connection, PgConnection, types::Json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::super::batch;
use super::super::job::{JobContext, JobError, JobId, Lease};
use crate::db::{self, Bounded};

/// Longest name of a step, in characters.
const LONGEST_NAME: usize = 200;
/// Largest result of a step, in bytes of JSON.
const LARGEST_RESULT: usize = 256 * 1024;
/// Most steps of one job.
const MOST_STEPS: usize = 1000;
/// Most that the results of one job may come to, in bytes of JSON: an attempt reads them at once.
const MOST_RESULTS: usize = 8 * 1024 * 1024;

/// Longest wait between two tries to reach the database.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

const SAVE: &str = include_str!("save_step.sql");

/// Why a step cannot be done, or its result not be kept or read.
#[derive(Debug, thiserror::Error)]
enum StepFault {
    #[error("a step's name has 1 to {LONGEST_NAME} characters and no NUL; this one is {0:?}")]
    Name(String),
    #[error(
        "step {0:?} is done in this attempt already: a name stands for one step of a job; \
         count where they repeat (\"page 1\", \"page 2\")"
    )]
    Twice(String),
    #[error(
        "step {0:?} is saved already: the commit before it was answered by an error and succeeded \
         all the same; the next attempt goes on after it"
    )]
    Committed(String),
    #[error("a job has at most {MOST_STEPS} steps; step {0:?} would be one more")]
    TooMany(String),
    #[error(
        "step {step:?} returned {n} bytes of JSON and at most {LARGEST_RESULT} are saved: \
         store the data and return a reference to it"
    )]
    TooLarge { step: String, n: usize },
    #[error(
        "with step {0:?} the results of this job's steps come to more than {MOST_RESULTS} bytes: \
         store the data and return references to it"
    )]
    TooMuch(String),
    #[error(
        "the saved result of step {step:?} does not fit what the step returns now ({error}): \
         run the version that saved it, or give the step a new name to do it again"
    )]
    Misfit {
        step: String,
        error: serde_json::Error,
    },
    #[error("the result of step {step:?} cannot be saved: {error}")]
    Unsavable { step: String, error: anyhow::Error },
}

impl StepFault {
    fn fatal(self) -> JobError {
        JobError::fatal(self)
    }
}

type Results = HashMap<String, Box<RawValue>>;

/// The steps of one job, as one attempt sees them.
#[derive(Debug, Default)]
pub(in crate::queue) struct Steps {
    /// What earlier attempts saved; read when the first step is asked for.
    saved: OnceCell<Results>,
    now: Mutex<Now>,
}

/// What this attempt did so far.
#[derive(Debug, Default)]
struct Now {
    /// Steps that returned a value.
    used: HashSet<String>,
    n_new: usize,
    n_bytes: usize,
}

impl Steps {
    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing panics while holding it; were it so, the counts would still be whole.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a name that is none, that was used up, or that would be one too many.
    fn admit(&self, step: &str, saved: &Results) -> Result<(), JobError> {
        let n_chars = step.chars().count();
        if n_chars == 0 || n_chars > LONGEST_NAME || step.contains('\0') {
            return Err(StepFault::Name(step.to_owned()).fatal());
        }
        let now = self.now();
        if now.used.contains(step) {
            return Err(StepFault::Twice(step.to_owned()).fatal());
        }
        if !saved.contains_key(step) && saved.len() + now.n_new >= MOST_STEPS {
            return Err(StepFault::TooMany(step.to_owned()).fatal());
        }
        Ok(())
    }

    /// Notes that a step returned its value; the same name is refused from now on.
    fn use_up(&self, step: &str) -> Result<(), JobError> {
        if self.now().used.insert(step.to_owned()) {
            return Ok(());
        }
        Err(StepFault::Twice(step.to_owned()).fatal())
    }

    /// Writes a result as JSON that may be saved, and counts it.
    fn encode<T: Serialize>(&self, step: &str, value: &T) -> Result<Box<RawValue>, JobError> {
        let result = to_raw_value(value).map_err(|error| unsavable(step, error))?;
        let n = result.get().len();
        if n > LARGEST_RESULT {
            let step = step.to_owned();
            return Err(StepFault::TooLarge { step, n }.fatal());
        }
        let mut now = self.now();
        let of_saved = |saved: &Results| saved.values().map(|r| r.get().len()).sum::<usize>();
        if self.saved.get().map_or(0, of_saved) + now.n_bytes + n > MOST_RESULTS {
            return Err(StepFault::TooMuch(step.to_owned()).fatal());
        }
        now.n_new += 1;
        now.n_bytes += n;
        Ok(result)
    }
}

fn unsavable(step: &str, error: impl Into<anyhow::Error>) -> JobError {
    let (step, error) = (step.to_owned(), error.into());
    StepFault::Unsavable { step, error }.fatal()
}

impl<C> JobContext<C> {
    /// Does one step of the job, once: where an earlier attempt did it, its saved result is
    /// returned and `work` is not run.
    ///
    /// `name`, 1 to 200 characters, stands for one step of the job for ever; where steps repeat,
    /// it counts them (`"page 7"`). A result is at most 256 KiB of JSON; those of one job are at
    /// most 1,000 and 8 MiB. A replayed dead letter goes on with the steps it had, unless it is
    /// replayed afresh.
    ///
    /// The result is saved after `work` has ended: where the process dies between the two, the
    /// step is done again. What it does outside the database should therefore know
    /// [`JobContext::idempotency_key`]; what it does inside is done exactly once by
    /// [`JobContext::step_in`]. While the database is away the save is tried again until the
    /// attempt must stop.
    /// Not while a transaction of the attempt is open that was fenced: the save would wait for it.
    ///
    /// ```
    /// # use ingestd::queue::{Done, JobContext, JobError};
    /// # async fn charge(_: &str) -> anyhow::Result<u64> { Ok(1) }
    /// # async fn receipt(_: u64) -> anyhow::Result<()> { Ok(()) }
    /// async fn pay(ctx: &JobContext<()>) -> Result<Done, JobError> {
    ///     let key = ctx.idempotency_key("charge");
    ///     let payment: u64 = ctx.step("charge", async || Ok(charge(&key).await?)).await?;
    ///     ctx.step("receipt", async || Ok(receipt(payment).await?)).await?;
    ///     Ok(Done::new())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `work`, and nothing is saved; [`JobError::LeaseLost`] when the job is another
    /// worker's; [`JobError::Fatal`] for a name that is none or is used twice, and a result that
    /// cannot be saved; [`JobError::Retry`] when the saved result does not fit `T`, as after an
    /// upgrade: the step is not done again, and another version may be able to read it.
    pub async fn step<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce() -> Result<T, JobError>,
    ) -> Result<T, JobError>
    where
        T: Serialize + DeserializeOwned,
    {
        if let Some(value) = self.saved_step(name).await? {
            return Ok(value);
        }
        let value = work().await?;
        let result = self.record.steps.encode(name, &value)?;
        self.save_step(name, &result).await?;
        self.record.steps.use_up(name)?;
        Ok(value)
    }

    /// As [`JobContext::step`], with `work` and the saved result in the caller's transaction:
    /// both commit or roll back together, so that its effects happen exactly once.
    ///
    /// It fences the transaction, as [`JobContext::fence`] does. The caller commits it, and rolls
    /// it back on an error.
    ///
    /// # Errors
    ///
    /// As [`JobContext::step`]; [`JobError::Retry`] also when the step is saved already although
    /// this attempt could not know it, because the answer to its commit was lost.
    pub async fn step_in<T>(
        &self,
        conn: &mut PgConnection,
        name: &str,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, JobError>,
    ) -> Result<T, JobError>
    where
        T: Serialize + DeserializeOwned,
    {
        if let Some(value) = self.saved_step(name).await? {
            return Ok(value);
        }
        self.fence(&mut *conn).await?;
        let value = work(&mut *conn).await?;
        let result = self.record.steps.encode(name, &value)?;
        // The fence holds the job's row: nobody else saves a step of it meanwhile.
        let saved = sqlx::query(
            "INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(self.lease.id)
        .bind(name)
        .bind(Json(&result))
        .bind(self.lease.lease_id)
        .bind(self.lease.attempt)
        .execute(conn)
        .await;
        match saved {
            Ok(_) => Ok(value),
            Err(error) if is_unique_violation(&error) => {
                Err(StepFault::Committed(name.to_owned()).into())
            }
            Err(error) => Err(refused(name, error)),
        }
    }

    /// Returns the result that an earlier attempt saved, and uses the step up.
    async fn saved_step<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, JobError> {
        let steps = &self.record.steps;
        let saved = steps.saved.get_or_try_init(|| self.load_steps()).await?;
        steps.admit(name, saved)?;
        let Some(result) = saved.get(name) else {
            return Ok(None);
        };
        let value = serde_json::from_str(result.get()).map_err(|error| StepFault::Misfit {
            step: name.to_owned(),
            error,
        })?;
        steps.use_up(name)?;
        Ok(Some(value))
    }

    async fn load_steps(&self) -> sqlx::Result<Results> {
        let mut patience = Patience::default();
        loop {
            let loaded = load(self.record.db(), self.lease.id).await;
            if let Some(done) = patience.judge(loaded, &self.cancel).await {
                return done;
            }
        }
    }

    async fn save_step(&self, name: &str, result: &RawValue) -> Result<(), JobError> {
        let mut patience = Patience::default();
        let saved = loop {
            let saved = save(self.record.db(), &self.lease, name, result).await;
            if let Some(done) = patience.judge(saved, &self.cancel).await {
                break done;
            }
        };
        let crashes = saved.map_err(|error| refused(name, error))?;
        if crashes.ok_or(JobError::LeaseLost)? > 0 {
            // A step is progress: the crashes before it are forgotten.
            let mut conn = self.record.db().pool.acquire().await?;
            let mut tx = conn.begin().await?;
            self.fence(&mut tx).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// Reads what earlier attempts saved.
async fn load(db: &Bounded, id: JobId) -> sqlx::Result<Results> {
    let rows: Vec<(String, Json<Box<RawValue>>)> = db
        .run(async |conn| {
            sqlx::query_as(
                "SELECT step, result FROM ingestd.job_steps WHERE job_id = $1 AND shard = 0",
            )
            .bind(id)
            .fetch_all(conn)
            .await
        })
        .await?;
    Ok(rows.into_iter().map(|(step, Json(r))| (step, r)).collect())
}

/// Saves a result; returns the job's crashes, or `None` where the lease is lost.
async fn save(
    db: &Bounded,
    lease: &Lease,
    step: &str,
    result: &RawValue,
) -> sqlx::Result<Option<i16>> {
    db.run(async |conn| {
        batch::settle_own(&mut *conn, lease).await?;
        sqlx::query_scalar(SAVE)
            .bind(lease.id)
            .bind(lease.lease_id)
            .bind(step)
            .bind(Json(result))
            .bind(lease.attempt)
            .fetch_optional(conn)
            .await
    })
    .await
}

/// Repeats what failed while the database is away and the attempt need not stop.
struct Patience {
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            wait: Duration::from_millis(50),
        }
    }
}

impl Patience {
    /// Returns what to make of an answer; `None`, some time later, to ask again. Once the token
    /// has fired it asks once more at most.
    async fn judge<T>(
        &mut self,
        answer: sqlx::Result<T>,
        cancel: &CancellationToken,
    ) -> Option<sqlx::Result<T>> {
        match answer {
            Err(error) if db::is_transient(&error) && !cancel.is_cancelled() => {
                tracing::warn!(error = %error, "a step waits for the database");
            }
            done => return Some(done),
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        None
    }
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Tells a result that the database will never take from a database that is in trouble.
fn refused(step: &str, error: sqlx::Error) -> JobError {
    if db::is_refusal(&error) && error.as_database_error().is_some() {
        return unsavable(step, error);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(saved: &[(&str, &str)]) -> Steps {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let saved = saved.iter().map(|(step, r)| ((*step).to_owned(), raw(r)));
        Steps {
            saved: OnceCell::new_with(Some(saved.collect())),
            now: Mutex::default(),
        }
    }

    fn fault(error: &JobError) -> String {
        assert!(matches!(error, JobError::Fatal(_)), "{error:?}");
        error.to_string()
    }

    #[test]
    fn a_name_is_some_text_and_not_too_long() {
        let steps = steps(&[]);
        let none = Results::default();
        steps.admit(&"é".repeat(LONGEST_NAME), &none).unwrap();
        for name in ["", "a\0b", &"e".repeat(LONGEST_NAME + 1)] {
            let error = steps.admit(name, &none).unwrap_err();
            assert!(fault(&error).contains("1 to 200 characters"), "{error}");
        }
    }

    #[test]
    fn a_name_is_used_once() {
        let steps = steps(&[]);
        steps.use_up("a").unwrap();
        let error = steps.use_up("a").unwrap_err();
        assert!(fault(&error).contains(r#"step "a""#), "{error}");
        let error = steps.admit("a", &Results::default()).unwrap_err();
        assert!(fault(&error).contains("already"), "{error}");
    }

    #[test]
    fn results_have_a_largest_size_alone_and_together() {
        let steps = steps(&[("old", "1")]);
        let text = |n: usize| "x".repeat(n - 2);
        let error = steps.encode("a", &text(LARGEST_RESULT + 1)).unwrap_err();
        assert!(fault(&error).contains("reference"), "{error}");
        for _ in 0..MOST_RESULTS / LARGEST_RESULT - 1 {
            steps.encode("a", &text(LARGEST_RESULT)).unwrap();
        }
        let error = steps.encode("b", &text(LARGEST_RESULT)).unwrap_err();
        assert!(fault(&error).contains(r#""b""#), "{error}");
    }

    #[test]
    fn steps_are_counted_with_those_of_earlier_attempts() {
        let names: Vec<String> = (0..MOST_STEPS - 1).map(|n| n.to_string()).collect();
        let saved: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "0")).collect();
        let steps = steps(&saved);
        let saved = steps.saved.get().unwrap();
        steps.admit("new", saved).unwrap();
        steps.encode("new", &1).unwrap();
        let error = steps.admit("newer", saved).unwrap_err();
        assert!(fault(&error).contains("at most 1000"), "{error}");
        steps.admit("7", saved).unwrap();
    }
}
