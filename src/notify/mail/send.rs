//! `system.mail`: writes to people that an import ended.

use std::time::Duration;

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor,
    message::Mailbox,
    transport::smtp::{
        authentication::Credentials,
        client::{Tls, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};

use super::letter::Ended;
use crate::{
    config::{self, MailSecurity},
    ingest::Context,
    queue::{self, ByName, Done, Job, JobContext, JobError, NewJob, Retry},
};

/// Tells people that an import ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMail {
    /// The import.
    pub import: i64,
}

/// Enqueues the mail that an import which ended is worth, as its owner's job, in the transaction
/// that ends it; nothing for a dry run, or where the run is none of an import. Whether mail is
/// configured, and who is to have it, is decided when it is sent.
///
/// # Errors
///
/// What Postgres says.
pub async fn after_import(conn: &mut PgConnection, import: i64) -> sqlx::Result<()> {
    let tenant: Option<String> =
        sqlx::query_scalar("SELECT tenant FROM catalog.imports WHERE id = $1 AND NOT dry_run")
            .bind(import)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(tenant) = tenant else { return Ok(()) };
    let job = NewJob::of(&SendMail { import });
    let job = NewJob {
        tenant: Some(tenant),
        ..job.map_err(|error| sqlx::Error::Encode(error.into()))?
    };
    queue::enqueue_raw(conn, &job).await?;
    Ok(())
}

impl Job for SendMail {
    const KIND: &'static str = "system.mail";
    const QUEUE: &'static str = "mail";
    /// 10 s, 40 s, 3 min, 11 min, 43 min, 3 h, then every 6 h: given up after about a day.
    const RETRY: Retry = Retry {
        first: Duration::from_secs(10),
        factor: 4.0,
        cap: Duration::from_hours(6),
        jitter: 0.5,
        max_attempts: 10,
    };
    const TIMEOUT: Duration = Duration::from_mins(30);
    const BY_NAME: ByName = ByName::Nobody("the end of an import makes it");
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, config, .. } = ctx.state();
        let settings = &config.mail;
        let (Some(host), Some(from)) = (&settings.host, &settings.from) else {
            return Ok(Done::new()); // nobody is written to
        };
        let Some(ended) = find(db, self.import).await? else {
            return Ok(Done::new()); // it is gone
        };
        let from: Mailbox = from.parse().map_err(JobError::fatal)?;
        let server = server(host, settings).map_err(JobError::fatal)?;
        let mut refused = Vec::new();
        for to in recipients(settings, &ended) {
            if ctx.cancelled().is_cancelled() {
                return Err(JobError::Cancelled);
            }
            let step = format!("to {}", to.email);
            let key = ctx.idempotency_key("mail");
            let sent = ctx.step(&step, async || {
                let letter = ended
                    .letter(&from, to, &key, settings.link.as_deref())
                    .map_err(JobError::fatal)?;
                match server.send(letter).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.is_permanent() => Err(JobError::fatal(error)),
                    Err(error) => Err(error.into()),
                }
            });
            match sent.await {
                Ok(()) => {}
                // It will not have it, now or later: the others still may. Not saved, so that a
                // replay asks again.
                Err(JobError::Fatal(why)) => refused.push(format!("{step}: {why:#}")),
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            return Ok(Done::new());
        }
        let why = format!("the mail server refused: {}", refused.join("; "));
        Err(JobError::Fatal(anyhow::anyhow!(why)))
    }
}

async fn find(db: impl PgExecutor<'_>, import: i64) -> sqlx::Result<Option<Ended>> {
    sqlx::query_as(
        "SELECT i.id, i.file_name, r.state, r.error, r.triggered_by, i.created_count,
                i.updated_count, i.unchanged_count, i.error_count, r.started_at, r.finished_at
         FROM catalog.imports i JOIN ingestd.runs r ON r.id = i.id WHERE i.id = $1",
    )
    .bind(import)
    .fetch_optional(db)
    .await
}

/// Returns who is told, each once.
fn recipients(settings: &config::Mail, ended: &Ended) -> Vec<Mailbox> {
    let listed = settings.to.iter().filter_map(|to| to.parse().ok());
    let uploader = ended.uploader().filter(|_| settings.uploader);
    let mut found: Vec<Mailbox> = Vec::new();
    for to in listed.chain(uploader) {
        if !found.iter().any(|known| known.email == to.email) {
            found.push(to);
        }
    }
    found
}

type Server = AsyncSmtpTransport<Tokio1Executor>;

fn server(host: &str, settings: &config::Mail) -> Result<Server, lettre::transport::smtp::Error> {
    let tls = match settings.security {
        MailSecurity::None => Tls::None,
        MailSecurity::Starttls => Tls::Required(TlsParameters::new(host.to_owned())?),
        MailSecurity::Tls => Tls::Wrapper(TlsParameters::new(host.to_owned())?),
    };
    let mut server = Server::builder_dangerous(host)
        .port(settings.port)
        .tls(tls)
        .hello_name(ClientId::default())
        .timeout(Some(settings.timeout));
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        let password = password.expose_secret().to_owned();
        server = server.credentials(Credentials::new(user.clone(), password));
    }
    Ok(server.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_once() {
        let ended = Ended {
            id: 1,
            file_name: "a".into(),
            state: "completed".into(),
            error: None,
            triggered_by: "user:jane@example.com".into(),
            created_count: 0,
            updated_count: 0,
            unchanged_count: 0,
            error_count: 0,
            started_at: None,
            finished_at: None,
        };
        let told = |to: &[&str], uploader| {
            let settings = config::Mail {
                to: to.iter().map(|to| (*to).to_owned()).collect(),
                uploader,
                ..config::Mail::default()
            };
            let found = recipients(&settings, &ended);
            found
                .iter()
                .map(|to| to.email.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&[], true), ["jane@example.com"]);
        assert_eq!(told(&[], false), Vec::<String>::new());
        let both = ["Ops <ops@example.com>", "Jane <jane@example.com>"];
        assert_eq!(told(&both, true), ["ops@example.com", "jane@example.com"]);
    }
}
