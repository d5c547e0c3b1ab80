//! `system.webhook`: one event to one webhook.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    sign::Keys,
    store::{self, Delivery, Target},
};
use crate::{
    fetch::{FetchError, Request, Response},
    ingest::{self, Context},
    queue::{self, ByName, Done, Job, JobContext, JobError, Retry},
};

/// Longest time that the other side's `Retry-After` puts a delivery off.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Longest explanation that the list of deliveries keeps, in bytes.
const LONGEST_ERROR: usize = 1000;

/// Tells one webhook of one event. The arguments are all that is told: they were written when the
/// event happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deliver {
    /// The webhook.
    pub webhook: i64,
    /// The header `webhook-id`: names the event, so that a receiver knows it again.
    pub message: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event: String,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// What it happened to: an object with `job` or `run`.
    pub data: Value,
}

/// What is sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: DateTime<Utc>,
    data: &'a Value,
}

impl Job for Deliver {
    const KIND: &'static str = "system.webhook";
    const QUEUE: &'static str = "webhooks";
    /// 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, then every 6 h: given up after about a day.
    const RETRY: Retry = Retry {
        first: Duration::from_secs(5),
        factor: 4.0,
        cap: Duration::from_hours(6),
        jitter: 0.5,
        max_attempts: 10,
    };
    const TIMEOUT: Duration = Duration::from_mins(2);
    const BY_NAME: ByName = ByName::Nobody("events make it, and POST /api/v1/webhooks/{id}/test");
    type Context = Context;

    fn gate_key(&self) -> Option<String> {
        Some(format!("webhook:{}", self.webhook))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, .. } = ctx.state();
        let Some(target) = store::target(db, self.webhook).await? else {
            return Ok(Done::new()); // nobody wants to hear of it any more
        };
        // Else whoever may have jobs of one tenant made could have another's key sign what they like.
        if !ctx.lease().belongs_to(&target.tenant) {
            return Err(JobError::Fatal(anyhow::anyhow!(
                "webhook {} is not of the job's tenant",
                self.webhook
            )));
        }
        let begun = Instant::now();
        let sent = self.send(ctx.state(), &target).await;
        let verdict = judge(sent, target.now);
        let delivery = self.noted(ctx, &verdict, begun.elapsed());
        let mut tx = db.begin().await?;
        ctx.fence(&mut tx).await?;
        store::note(&mut tx, &delivery).await?;
        let Verdict::Failed { error, then, .. } = verdict else {
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            return Ok(done);
        };
        if then == Then::Pause {
            let reason = "the endpoint answered 410, gone";
            store::pause(&mut tx, self.webhook, reason).await?;
        }
        tx.commit().await?;
        let error = anyhow::anyhow!(error).context(format!("webhook {}", self.webhook));
        Err(match then {
            Then::Retry(after) => JobError::Retry {
                error,
                after: after.map(|after| after.max(backoff(ctx))),
            },
            Then::GiveUp | Then::Pause => JobError::Fatal(error),
        })
    }
}

impl Deliver {
    /// Signs and sends the event; an error is what kept it from being sent or answered.
    async fn send(&self, context: &Context, target: &Target) -> Result<Response, Unsent> {
        if let Some(reason) = &target.pause_reason {
            return Err(Unsent::Paused(reason.clone()));
        }
        let settings = &context.config.webhooks;
        let folder = settings.secrets_dir.as_deref();
        let keys = Keys::read(folder, &target.secret_ref, &target.tenant)
            .map_err(|error| Unsent::Unsigned(error.to_string()))?;
        let body = Body {
            r#type: &self.event,
            timestamp: self.timestamp,
            data: &self.data,
        };
        let body =
            serde_json::to_vec(&body).map_err(|error| Unsent::Unsigned(error.to_string()))?;
        let timestamp = target.now.timestamp();
        let signature = keys.sign(&self.message, timestamp, &body);
        let request = Request {
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("webhook-id", self.message.clone()),
                ("webhook-timestamp", timestamp.to_string()),
                ("webhook-signature", signature),
            ],
            max_redirects: 0,
            timeout: Some(settings.timeout),
            // What it says beside its status is not for us, and whoever sees the dead letter may
            // not be allowed to read what that server serves.
            max_bytes: Some(0),
            ..Request::post(target.url.clone(), body)
        };
        Ok(context.fetch.send(request).await?)
    }

    fn noted(&self, ctx: &JobContext<Context>, verdict: &Verdict, took: Duration) -> Delivery {
        let (status, error) = match verdict {
            Verdict::Delivered(status) => (Some(*status), None),
            Verdict::Failed { status, error, .. } => {
                let mut error = error.clone();
                error.truncate(error.floor_char_boundary(LONGEST_ERROR));
                (*status, Some(error))
            }
        };
        Delivery {
            id: 0,
            webhook_id: self.webhook,
            message: self.message.clone(),
            event: self.event.clone(),
            job_id: ctx.lease().id.0,
            attempt: ctx.lease().attempt,
            status: status.and_then(|status| i16::try_from(status).ok()),
            error,
            duration_ms: i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
            at: self.timestamp,
        }
    }
}

/// Why a delivery was not sent, or not answered.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("it is paused: {0}; resume it, then retry what is dead")]
    Paused(String),
    #[error("{0}")]
    Unsigned(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// How a delivery that failed goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Later, by the kind's backoff or when the other side said, but no sooner than that.
    Retry(Option<Duration>),
    /// No later attempt can succeed.
    GiveUp,
    /// Neither can any other delivery.
    Pause,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Delivered(u16),
    Failed {
        status: Option<u16>,
        error: String,
        then: Then,
    },
}

/// Judges an answer. Pure: the database's time comes in.
fn judge(sent: Result<Response, Unsent>, now: DateTime<Utc>) -> Verdict {
    let response = match sent {
        Ok(response) => response,
        Err(unsent) => {
            let is_final = matches!(&unsent, Unsent::Fetch(error) if error.is_final());
            let then = if is_final {
                Then::GiveUp
            } else {
                Then::Retry(None)
            };
            return Verdict::Failed {
                status: None,
                error: unsent.to_string(),
                then,
            };
        }
    };
    let status = response.status;
    let (then, why) = match status {
        200..300 => return Verdict::Delivered(status),
        300..400 => (Then::Retry(None), ", and redirects are not followed"),
        410 => (Then::Pause, ", gone: the webhook is paused"),
        429 | 503 => (Then::Retry(retry_after(&response, now)), ""),
        _ => (Then::Retry(None), ""),
    };
    Verdict::Failed {
        status: Some(status),
        error: format!("the endpoint answered {status}{why}"),
        then,
    }
}

/// Returns the kind's own wait after this attempt: what the other side asks for may be longer but
/// not shorter, or ten times "at once" would use up all attempts within seconds.
fn backoff(ctx: &JobContext<Context>) -> Duration {
    let policy = ingest::retry(&ctx.state().config, Deliver::KIND, Deliver::RETRY);
    let attempt = u16::try_from(ctx.lease().attempt).unwrap_or(1);
    queue::delay(&policy, attempt, fastrand::f64())
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date; at most [`LONGEST_WAIT`].
fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    let text = response.header("retry-after")?.trim();
    let wait = if let Ok(secs) = text.parse() {
        Duration::from_secs(secs)
    } else {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        (date.to_utc() - now).to_std().unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut response = Response::of(status);
        let header = retry_after.map(|value| ("retry-after".to_owned(), value.to_owned()));
        response.headers.extend(header);
        judge(Ok(response), "2026-11-27T12:00:00Z".parse().unwrap())
    }

    fn then(verdict: Verdict) -> Then {
        match verdict {
            Verdict::Failed { then, .. } => then,
            delivered @ Verdict::Delivered(_) => panic!("{delivered:?}"),
        }
    }

    #[test]
    fn only_2xx_is_delivered() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answer(status, None), Verdict::Delivered(status));
        }
        for status in [300, 301, 307, 400, 401, 404, 409, 500, 502, 504] {
            assert_eq!(
                then(answer(status, Some("7"))),
                Then::Retry(None),
                "{status}"
            );
        }
        assert_eq!(then(answer(410, None)), Then::Pause);
    }

    #[test]
    fn the_other_side_says_when_to_come_back() {
        for status in [429, 503] {
            let wait = |text| match then(answer(status, text)) {
                Then::Retry(wait) => wait.map(|wait| wait.as_secs()),
                other => panic!("{other:?}"),
            };
            assert_eq!(wait(None), None);
            assert_eq!(wait(Some("120")), Some(120));
            assert_eq!(wait(Some("999999999")), Some(86_400));
            assert_eq!(wait(Some("Fri, 27 Nov 2026 12:01:30 GMT")), Some(90));
            assert_eq!(wait(Some("Fri, 27 Nov 2026 11:00:00 GMT")), Some(0));
            assert_eq!(wait(Some("soon")), None);
            assert_eq!(wait(Some("-5")), None);
        }
    }

    #[test]
    fn what_can_never_be_sent_is_given_up_at_once() {
        let judged = |error: Unsent| then(judge(Err(error), DateTime::UNIX_EPOCH));
        assert_eq!(judged(FetchError::Port(22).into()), Then::GiveUp);
        let dns = FetchError::Dns("hook.test".into());
        assert_eq!(judged(dns.into()), Then::Retry(None));
        assert_eq!(judged(Unsent::Paused("why".into())), Then::Retry(None));
        assert_eq!(judged(Unsent::Unsigned("why".into())), Then::Retry(None));
    }
}
