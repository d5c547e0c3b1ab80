//! Output: what a job returned, kept in the history where its kind wants that.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;

use super::super::job::{Done, JobContext, JobError};

/// Largest output, in bytes of JSON.
const LARGEST_OUTPUT: usize = 64 * 1024;

/// Why an output cannot be kept.
#[derive(Debug, thiserror::Error)]
enum OutputFault {
    #[error(
        "the job's output has {0} bytes of JSON and at most {LARGEST_OUTPUT} are kept: \
         store the data and return a reference to it"
    )]
    TooLarge(usize),
    #[error("the job's output has a text with NUL (\\u0000), which Postgres cannot store")]
    Nul,
    #[error("the job's output is no JSON: {0}")]
    NoJson(serde_json::Error),
}

/// Writes an output as JSON that can be kept.
fn encode(output: &impl Serialize) -> Result<Box<RawValue>, OutputFault> {
    let output = to_raw_value(output).map_err(OutputFault::NoJson)?;
    match output.get() {
        json if json.len() > LARGEST_OUTPUT => Err(OutputFault::TooLarge(json.len())),
        // Refused by the database it would hold up the outcomes of others.
        json if has_nul(json) => Err(OutputFault::Nul),
        _ => Ok(output),
    }
}

/// Finds the escape of NUL in JSON; a backslash that is escaped itself begins none.
fn has_nul(json: &str) -> bool {
    let mut rest = json.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = rest.get(at + 1..).unwrap_or_default();
        if escape.starts_with(b"u0000") {
            return true;
        }
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

impl Done {
    /// The work is done, and this came of it.
    ///
    /// At most 64 KiB of JSON; kept in the history, and shown with the job, where the kind wants
    /// that ([`Job::KEEP_OUTPUT`](super::super::Job::KEEP_OUTPUT)), and dropped where it does not.
    ///
    /// # Errors
    ///
    /// [`JobError::Fatal`] for an output that is too large or that Postgres cannot store: the work
    /// would be done again for nothing.
    pub fn with_output(output: &impl Serialize) -> Result<Self, JobError> {
        let output = encode(output).map_err(JobError::fatal)?;
        Ok(Self {
            output: Some(output),
            ..Self::new()
        })
    }
}

impl<C> JobContext<C> {
    /// As [`JobContext::complete_in`], with an output; see [`Done::with_output`].
    ///
    /// # Errors
    ///
    /// As both.
    pub async fn complete_in_with(
        &self,
        conn: &mut PgConnection,
        output: &impl Serialize,
    ) -> Result<Done, JobError> {
        let output = encode(output).map_err(JobError::fatal)?;
        let kept = self.record.keeps_output.then_some(&*output);
        self.complete_keeping(conn, kept).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_has_a_largest_size() {
        encode(&"x".repeat(LARGEST_OUTPUT - 2)).unwrap();
        let error = Done::with_output(&"x".repeat(LARGEST_OUTPUT - 1)).unwrap_err();
        assert!(matches!(error, JobError::Fatal(_)));
        assert!(error.to_string().contains("reference"), "{error}");
    }

    #[test]
    fn nul_is_found_and_what_only_looks_like_it_is_not() {
        for text in ["\0", "a\0", "\\\0", "é\u{1}\0b"] {
            assert!(matches!(encode(&text), Err(OutputFault::Nul)), "{text:?}");
        }
        for text in ["", "\\u0000", "\\\\u0000", "\u{1}", "u0000", "\\"] {
            encode(&text).unwrap();
        }
    }
}
