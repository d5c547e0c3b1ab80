//! `ingestd search`: how far the search server is, and what makes it go on.

use clap::Subcommand;
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, at, at_or_none, brief, or_none},
};
use crate::{
    notify::search::{self, Rebuild, SyncSearch},
    queue::{self, Enqueued},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd search status                what is left to be told, and what went wrong
  ingestd search rebuild               fill a new collection, then lead the alias to it
  ingestd search failures              what the server refused, with its reasons";

#[derive(Debug, Subcommand)]
pub(super) enum SearchCommand {
    /// Shows how far the search server is.
    #[command(after_help = "Examples:\n  ingestd search status --json")]
    Status,
    /// Sends what is noted and what is due again.
    #[command(after_help = "Examples:\n  ingestd search sync")]
    Sync,
    /// Fills a new collection with every product, then leads the alias to it; searches go on
    /// meanwhile. One that was begun goes on.
    #[command(after_help = "Examples:\n  ingestd search rebuild")]
    Rebuild,
    /// Lists the products that the server refused, by id.
    #[command(after_help = "Examples:\n  ingestd search failures --limit 10 --json")]
    Failures {
        /// At most this many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Sends the products that the server refused again.
    #[command(after_help = "Examples:\n  ingestd search retry")]
    Retry,
}

pub(super) async fn run(command: SearchCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        SearchCommand::Status => status(session).await,
        SearchCommand::Sync => enqueue(session, "search.sync").await,
        SearchCommand::Rebuild => enqueue(session, "search.rebuild").await,
        SearchCommand::Failures { limit } => {
            let collection = session.config.search.collection.clone();
            let found = search::failures(&mut session.conn, &collection, None, limit).await?;
            session
                .output
                .list(&found, "the search server refused nothing")?;
            Ok(Exit::Ok)
        }
        SearchCommand::Retry => retry(session).await,
    }
}

impl Listed for search::Failure {
    const HEADERS: &'static [&'static str] = &[
        "product",
        "tenant",
        "code",
        "attempts",
        "failed (UTC)",
        "again (UTC)",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.product_id.to_string(),
            or_none(self.tenant.as_ref()),
            or_none(self.code.as_ref()),
            self.attempts.to_string(),
            at(self.failed_at),
            at_or_none(self.retry_at),
            brief(&self.error),
        ]
    }
}

async fn status(session: &mut Session) -> Result<Exit, Failure> {
    let found = search::status(&mut session.conn, &session.config.search).await?;
    let fields = [
        ("collection", found.collection.clone()),
        ("configured", yes(found.is_configured)),
        ("live", or_none(found.live.as_ref())),
        ("building", or_none(found.building.as_ref())),
        ("built so far", found.build_rows.to_string()),
        ("fields changed", yes(found.fields_changed)),
        ("to be told", found.noted.to_string()),
        ("oldest since", at_or_none(found.oldest_note_at)),
        ("refused, retrying", found.retrying.to_string()),
        ("refused, kept", found.kept.to_string()),
        ("caught up", at_or_none(found.synced_at)),
        ("switched", at_or_none(found.switched_at)),
        ("upserted", found.upserted.to_string()),
        ("deleted", found.deleted.to_string()),
        ("waits until", at_or_none(found.wait_until)),
        ("trouble", or_none(found.trouble.as_ref())),
        ("since", at_or_none(found.trouble_at)),
    ];
    session.output.record(&found, &fields)?;
    if found.fields_changed {
        let hint = "search.fields are others than the collection was made with: \
                    `ingestd search rebuild` makes one with them";
        session.output.hint(hint);
    }
    Ok(Exit::Ok)
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Refuses to begin what would end at once.
fn demand_server(session: &Session) -> Result<(), Failure> {
    if session.config.search.is_on() {
        return Ok(());
    }
    let failure = Failure::say(Exit::Config, "no search server is configured");
    Err(failure.hint("set search.url and search.api_key_file, for the daemon too"))
}

async fn enqueue(session: &mut Session, action: &'static str) -> Result<Exit, Failure> {
    demand_server(session)?;
    let actor = session.actor.clone();
    let object = format!("search/{}", session.config.search.collection);
    let mut tx = session.begin().await?;
    let Enqueued { id, inserted } = if action == "search.sync" {
        queue::enqueue(&mut tx, &SyncSearch::default()).await?
    } else {
        queue::enqueue(&mut tx, &Rebuild {}).await?
    };
    let change = Change {
        detail: json!({ "job": id, "inserted": inserted }),
        ..Change::of(action, object)
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let job = or_none(id.map(|id| id.0).as_ref());
    let text = if inserted {
        format!("job {job} does it; `ingestd search status` shows how far it is")
    } else {
        format!("job {job} is doing it already")
    };
    let report = json!({ "job": id, "inserted": inserted });
    session.output.done(&report, &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

async fn retry(session: &mut Session) -> Result<Exit, Failure> {
    demand_server(session)?;
    let actor = session.actor.clone();
    let collection = session.config.search.collection.clone();
    let mut tx = session.begin().await?;
    let n = search::retry(&mut tx, &collection).await?;
    let job = queue::enqueue(&mut tx, &SyncSearch::default()).await?.id;
    let change = Change {
        detail: json!({ "n": n, "job": job }),
        ..Change::of("search.retry", format!("search/{collection}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = format!("{n} products are due again");
    session.output.done(&json!({ "n": n, "job": job }), &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}
