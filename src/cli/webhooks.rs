//! `ingestd webhooks`: who is told of what, and what came of it.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    dead::confirm,
    output::{Listed, at, at_or_none, brief, or_none},
};
use crate::{
    fetch,
    notify::webhook::{self, Delivery, Event, MOST_WEBHOOKS, NewWebhook, Webhook},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd webhooks add https://example.com/hook --event job.dead --event run.failed --secret ops
  ingestd webhooks test 1
  ingestd webhooks deliveries 1

A secret is a file of the folder webhooks.secrets_dir (or a credential of systemd) with a line
whsec_ and 24 to 64 bytes in base64; the webhook has its name only. To make one:
  printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" > /etc/ingestd/webhook-secrets/ops";

#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Lists the webhooks, newest first.
    #[command(after_help = "Examples:\n  ingestd webhooks ls --json")]
    Ls {
        /// At most this many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Shows one webhook.
    #[command(after_help = "Examples:\n  ingestd webhooks show 1")]
    Show {
        /// The webhook's id.
        id: i64,
    },
    /// Adds a webhook.
    #[command(after_help = "Examples:
  ingestd webhooks add https://example.com/hook --event job.dead --secret ops
  ingestd webhooks add https://example.com/hook --event run.failed --tenant acme --secret acme
  ingestd webhooks add https://example.com/hook --event job.dead --kind 'product_import.*' --secret ops")]
    Add(AddArgs),
    /// Removes a webhook for good, with the list of its deliveries.
    #[command(after_help = "Examples:\n  ingestd webhooks rm 1 --yes")]
    Rm {
        /// The webhook's id.
        id: i64,
        /// Yes, remove it.
        #[arg(long)]
        yes: bool,
    },
    /// Pauses a webhook: what happens meanwhile is not told.
    #[command(after_help = "Examples:\n  ingestd webhooks pause 1")]
    Pause {
        /// The webhook's id.
        id: i64,
    },
    /// Lets a paused webhook go on.
    #[command(after_help = "Examples:\n  ingestd webhooks resume 1")]
    Resume {
        /// The webhook's id.
        id: i64,
    },
    /// Sends a webhook the event webhook.test.
    #[command(after_help = "Examples:\n  ingestd webhooks test 1")]
    Test {
        /// The webhook's id.
        id: i64,
    },
    /// Lists the last attempts to deliver to a webhook, newest first.
    #[command(after_help = "Examples:\n  ingestd webhooks deliveries 1 --limit 10")]
    Deliveries {
        /// The webhook's id.
        id: i64,
        /// At most this many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
}

/// A webhook to be.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Where to POST.
    url: String,
    /// What to tell: job.completed, job.dead, job.cancelled, run.completed, run.failed or
    /// run.cancelled; may be given several times.
    #[arg(long = "event", required = true, value_name = "EVENT")]
    events: Vec<Event>,
    /// The name of the secret that signs; never the secret.
    #[arg(long, value_name = "NAME")]
    secret: String,
    /// Whose jobs and runs; those without a tenant are default's.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Only jobs of this kind, `system.*` for all of a system; may be given several times.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only jobs of this queue; may be given several times.
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
}

pub(super) async fn run(command: WebhooksCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        WebhooksCommand::Ls { limit } => {
            let webhooks = webhook::list(&mut session.conn, None, limit).await?;
            session.output.list(&webhooks, "no webhooks")?;
            Ok(Exit::Ok)
        }
        WebhooksCommand::Show { id } => show(id, session).await,
        WebhooksCommand::Add(args) => add(args, session).await,
        WebhooksCommand::Rm { id, yes } => {
            confirm(yes, &format!("remove webhook {id} for good"))?;
            remove(id, session).await
        }
        WebhooksCommand::Pause { id } => pause(id, session).await,
        WebhooksCommand::Resume { id } => resume(id, session).await,
        WebhooksCommand::Test { id } => test(id, session).await,
        WebhooksCommand::Deliveries { id, limit } => {
            find(id, session).await?;
            let attempts = webhook::deliveries(&mut session.conn, id, None, limit).await?;
            session
                .output
                .list(&attempts, "nothing was delivered yet")?;
            Ok(Exit::Ok)
        }
    }
}

impl Listed for Webhook {
    const HEADERS: &'static [&'static str] = &[
        "id", "url", "events", "kinds", "queues", "tenant", "secret", "paused",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.url.clone(),
            self.events.join(" "),
            listed(self.kinds.as_deref()),
            listed(self.queues.as_deref()),
            self.tenant.clone(),
            self.secret_ref.clone(),
            self.pause_reason.clone().unwrap_or_default(),
        ]
    }
}

impl Listed for Delivery {
    const HEADERS: &'static [&'static str] = &[
        "at (UTC)", "event", "message", "job", "attempt", "status", "ms", "error",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            at(self.at),
            self.event.clone(),
            self.message.clone(),
            self.job_id.to_string(),
            self.attempt.to_string(),
            or_none(self.status.as_ref()),
            self.duration_ms.to_string(),
            brief(self.error.as_deref().unwrap_or_default()),
        ]
    }
}

fn listed(names: Option<&[String]>) -> String {
    names.map_or_else(|| "all".to_owned(), |names| names.join(" "))
}

async fn find(id: i64, session: &mut Session) -> Result<Webhook, Failure> {
    let found = webhook::get(&mut session.conn, id).await?;
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: i64) -> Failure {
    Failure::say(Exit::NoInput, format!("there is no webhook {id}"))
        .hint("`ingestd webhooks ls` lists them")
}

async fn show(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    let found = find(id, session).await?;
    let fields = [
        ("id", found.id.to_string()),
        ("url", found.url.clone()),
        ("events", found.events.join(" ")),
        ("kinds", listed(found.kinds.as_deref())),
        ("queues", listed(found.queues.as_deref())),
        ("tenant", found.tenant.clone()),
        ("secret", found.secret_ref.clone()),
        ("paused", at_or_none(found.paused_at)),
        ("because", or_none(found.pause_reason.as_ref())),
        ("created", at(found.created_at)),
    ];
    session.output.record(&found, &fields)?;
    Ok(Exit::Ok)
}

async fn add(args: AddArgs, session: &mut Session) -> Result<Exit, Failure> {
    let refused = |text: String| Failure::say(Exit::Data, text);
    fetch::check(&session.config.fetch, &args.url).map_err(|error| refused(error.to_string()))?;
    if !webhook::is_secret_name(&args.secret) {
        let failure = refused("--secret is the name of a secret: a plain file name".to_owned());
        return Err(failure.hint("see `ingestd webhooks --help` on where secrets are kept"));
    }
    let some = |names: Vec<String>| (!names.is_empty()).then_some(names);
    let new = NewWebhook {
        tenant: args.tenant,
        url: args.url,
        events: args.events,
        kinds: some(args.kinds),
        queues: some(args.queues),
        secret_ref: args.secret,
    };
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let Some(made) = webhook::add(&mut tx, &new).await? else {
        let text = format!("tenant {} has {MOST_WEBHOOKS} webhooks already", new.tenant);
        return Err(Failure::say(Exit::Failed, text).hint("remove one: each is a job an event"));
    };
    let change = Change {
        tenant: Some(&made.tenant),
        detail: json!({ "events": made.events, "secret_ref": made.secret_ref }),
        ..Change::of("webhook.add", format!("webhook/{}", made.id))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = format!(
        "webhook {0} is made; `ingestd webhooks test {0}` tries it",
        made.id
    );
    session.output.done(&made, &text)?;
    Ok(Exit::Ok)
}

async fn remove(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let tenant = webhook::remove(&mut tx, id).await?;
    let tenant = tenant.ok_or_else(|| unknown(id))?;
    note(&mut tx, &actor, "webhook.remove", (id, &tenant)).await?;
    tx.commit().await?;
    let report = json!({ "id": id, "removed": true });
    session
        .output
        .done(&report, &format!("webhook {id} is removed"))?;
    Ok(Exit::Ok)
}

async fn pause(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    find(id, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let paused = webhook::pause(&mut tx, id, &format!("paused by {actor}")).await?;
    if let Some(tenant) = &paused {
        note(&mut tx, &actor, "webhook.pause", (id, tenant)).await?;
    }
    tx.commit().await?;
    let text = match paused {
        Some(_) => format!("webhook {id} is paused; `ingestd webhooks resume {id}` lets it go on"),
        None => format!("webhook {id} was paused already"),
    };
    session
        .output
        .done(&json!({ "id": id, "paused": true }), &text)?;
    Ok(Exit::Ok)
}

async fn resume(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    find(id, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = webhook::resume(&mut tx, id).await?;
    if let Some(tenant) = &resumed {
        note(&mut tx, &actor, "webhook.resume", (id, tenant)).await?;
    }
    tx.commit().await?;
    let text = if resumed.is_some() {
        "goes on"
    } else {
        "was not paused"
    };
    let report = json!({ "id": id, "paused": false, "resumed": resumed.is_some() });
    session
        .output
        .done(&report, &format!("webhook {id} {text}"))?;
    Ok(Exit::Ok)
}

async fn test(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    let found = find(id, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let job = webhook::test(&mut tx, &found).await?;
    note(&mut tx, &actor, "webhook.test", (id, &found.tenant)).await?;
    tx.commit().await?;
    let job_id = job.map(|job| job.0);
    let text = format!(
        "job {} delivers webhook.test; `ingestd webhooks deliveries {id}` shows what came of it",
        or_none(job_id.as_ref())
    );
    session
        .output
        .done(&json!({ "id": id, "job": job }), &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

async fn note(
    tx: &mut sqlx::PgConnection,
    actor: &str,
    action: &'static str,
    (id, tenant): (i64, &str),
) -> sqlx::Result<()> {
    let change = Change {
        tenant: Some(tenant),
        ..Change::of(action, format!("webhook/{id}"))
    };
    change.note(tx, actor).await
}
