//! Adding a source.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{find, refused};
use crate::{
    cli::{Exit, Failure, Session, audit::Change},
    source::{self, Added, Definition, MOST_SOURCES, Ready, check_name},
};

/// A source to be.
#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// Its name: letters, digits, `.`, `_` and `-`.
    name: String,
    /// An absolute path, an http, https, ftp or ftps URL, or `s3://BUCKET/KEY`.
    location: String,
    /// Owner of the products.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Makes the path a watched folder: which names are taken, with * and ?.
    #[arg(long)]
    pattern: Option<String>,
    /// Of a watched folder, when a file is taken: stable, once it did not change between two
    /// looks; marker, once NAME.done is beside it; at-once, where it is renamed into place.
    #[arg(long, value_parser = ready)]
    ready: Option<Ready>,
    /// Of s3: scheme, host and port of the store, where it is not AWS.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Of s3: the region that requests are signed for; us-east-1 where none is given.
    #[arg(long)]
    region: Option<String>,
    /// How to log in: the name of a file in `sources.secrets_dir`; never the secret.
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// What its imports are asked for: an option of an upload; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
    /// When it is looked at: five fields, or six with seconds first. Without it, only by hand.
    #[arg(long)]
    cron: Option<String>,
    /// How often it is looked at, in place of `--cron`: 30s, 5m, 1h; what divides a minute, an hour
    /// or a day.
    #[arg(long, value_name = "INTERVAL", conflicts_with = "cron", value_parser = every)]
    every: Option<String>,
    /// The zone that the cron line is read in.
    #[arg(long, default_value = "UTC")]
    timezone: String,
    /// Begin paused.
    #[arg(long)]
    paused: bool,
}

/// Reads `NAME=VALUE`.
pub(super) fn option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn ready(text: &str) -> Result<Ready, String> {
    match text {
        "stable" => Ok(Ready::Stable),
        "marker" => Ok(Ready::Marker),
        "at-once" => Ok(Ready::AtOnce),
        _ => Err("is none of stable, marker, at-once".to_owned()),
    }
}

/// Turns an interval into the cron line of its ticks.
fn every(text: &str) -> Result<String, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let divides = |unit: u64, of: u64| {
        let n = interval.as_secs() / unit;
        let is_whole = Duration::from_secs(n * unit) == interval;
        (is_whole && n > 0 && n < of && of.is_multiple_of(n)).then_some(n)
    };
    if let Some(n) = divides(1, 60) {
        return Ok(format!("*/{n} * * * * *"));
    }
    if let Some(n) = divides(60, 60) {
        return Ok(format!("*/{n} * * * *"));
    }
    if let Some(n) = divides(3600, 24) {
        return Ok(format!("0 */{n} * * *"));
    }
    if interval == Duration::from_hours(24) {
        return Ok("0 0 * * *".to_owned());
    }
    Err("must divide a minute, an hour or a day: 30s, 5m, 1h; else use --cron".to_owned())
}

pub(super) async fn add(args: AddArgs, session: &mut Session) -> Result<Exit, Failure> {
    let AddArgs { name, paused, .. } = &args;
    let (name, is_paused) = (name.clone(), *paused);
    let definition = Definition {
        location: args.location,
        tenant: args.tenant,
        pattern: args.pattern,
        ready: args.ready,
        endpoint: args.endpoint,
        region: args.region,
        secret_ref: args.secret,
        options: args.options.into_iter().collect(),
        cron: args.cron.or(args.every),
        timezone: args.timezone,
    };
    let mut wrong = Vec::from_iter(check_name(&name).err());
    let config = &session.config;
    wrong.extend(
        definition
            .check(&config.fetch, &config.sources)
            .err()
            .unwrap_or_default(),
    );
    if !wrong.is_empty() {
        let failure = refused(&wrong);
        return Err(failure.hint("`ingestd source add --help` has examples"));
    }
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    match source::add(&mut tx, &name, &definition, is_paused).await? {
        Added::Made => {}
        Added::Taken(owner) => {
            let text = format!("there is a source {name} already, of origin {owner}");
            return Err(Failure::say(Exit::Failed, text).hint("choose another name"));
        }
        Added::ScheduleTaken => {
            let text = format!("there is a schedule source:{name} already");
            return Err(Failure::say(Exit::Failed, text).hint("choose another name"));
        }
        Added::TooMany => {
            let text = format!("tenant {} has {MOST_SOURCES} sources", definition.tenant);
            return Err(Failure::say(Exit::Failed, text).hint("remove one"));
        }
    }
    let change = Change {
        tenant: Some(&definition.tenant),
        detail: json!({ "location": definition.shown_location(), "cron": definition.cron }),
        ..Change::of("source.add", format!("source/{name}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let made = find(&name, session).await?;
    let text = format!("source {name} is made; `ingestd source run {name}` looks at it now");
    session.output.done(&made, &text)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_cron_line() {
        for (text, line) in [
            ("30s", "*/30 * * * * *"),
            ("1s", "*/1 * * * * *"),
            ("1m", "*/1 * * * *"),
            ("15m", "*/15 * * * *"),
            ("2h", "0 */2 * * *"),
            ("1d", "0 0 * * *"),
        ] {
            assert_eq!(every(text).as_deref(), Ok(line), "{text}");
        }
        for wrong in ["7s", "90s", "7m", "5h", "2d", "0s", "1500ms", "soon"] {
            assert!(every(wrong).is_err(), "{wrong}");
        }
    }
}
