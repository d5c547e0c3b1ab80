//! `ingestd token`: who may call the HTTP interface.

use std::time::Duration;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    dead::confirm,
    output::{Listed, at, at_or_none, or_none},
};
use crate::access::{
    Role,
    token::{self, CreateError, NewToken, Token},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd token create ci --role operator --tenant acme --expires 90d
  ingestd token ls
  ingestd token revoke 3 --yes

A token is shown once, when it is made. It goes with a request as
  curl -H 'Authorization: Bearer igd_...' http://127.0.0.1:8477/api/v1/jobs
From the first token on, nobody is served without one, not even this machine, and not
when the last one is revoked either: make another here.";

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Makes a token and shows it, once.
    #[command(after_help = "Examples:
  ingestd token create ops --role admin
  ingestd token create ci --role operator --tenant acme --tenant globex --expires 90d
  ingestd token create board --role viewer --json")]
    Create(CreateArgs),
    /// Lists the tokens, newest first; never their secrets.
    #[command(after_help = "Examples:\n  ingestd token ls --json")]
    Ls {
        /// At most this many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
    },
    /// Takes a token back: from now on it opens nothing.
    #[command(after_help = "Examples:\n  ingestd token revoke 3 --yes")]
    Revoke {
        /// The token's id.
        id: i64,
        /// Yes, revoke it.
        #[arg(long)]
        yes: bool,
    },
}

/// A token to be.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// What it is for; the audit log says token:NAME#ID.
    name: String,
    /// What it may do: viewer looks, operator also works, admin also sets up.
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// Whose data, and no other's; may be given several times. Left out: everybody's.
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<String>,
    /// How long it works, as 90d or 12h. Left out: until it is revoked.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
}

pub(super) async fn run(command: TokenCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create(args) => create(args, session).await,
        TokenCommand::Ls { limit } => {
            let tokens = token::list(&mut session.conn, None, limit).await?;
            session.output.list(&tokens, "no tokens")?;
            Ok(Exit::Ok)
        }
        TokenCommand::Revoke { id, yes } => {
            confirm(yes, &format!("revoke token {id} for good"))?;
            revoke(id, session).await
        }
    }
}

impl Listed for Token {
    const HEADERS: &'static [&'static str] = &[
        "id",
        "name",
        "prefix",
        "role",
        "tenants",
        "made by",
        "expires (UTC)",
        "last used (UTC)",
        "revoked (UTC)",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.prefix.clone(),
            self.role.to_string(),
            self.tenants
                .as_ref()
                .map_or_else(|| "all".to_owned(), |names| names.join(" ")),
            or_none(self.created_by.as_ref()),
            self.expires_at.map_or_else(|| "never".to_owned(), at),
            at_or_none(self.last_used_at),
            at_or_none(self.revoked_at),
        ]
    }
}

async fn create(args: CreateArgs, session: &mut Session) -> Result<Exit, Failure> {
    let new = NewToken {
        name: args.name,
        role: args.role,
        tenants: (!args.tenants.is_empty()).then_some(args.tenants),
        lasts: args.expires,
    };
    if let Some((member, rule)) = new.mistake() {
        return Err(Failure::say(Exit::Data, format!("{member}: {rule}")));
    }
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let made = token::create(&mut tx, &new, &actor).await;
    let (made, text) = made.map_err(|error| match error {
        CreateError::Db(error) => error.into(),
        CreateError::Random(error) => Failure::new(Exit::Software, error),
    })?;
    let change = Change {
        detail: made.noted(),
        ..Change::of("token.create", format!("token/{}", made.id))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let mut shown = json!(made);
    if let Some(members) = shown.as_object_mut() {
        members.insert("token".to_owned(), text.expose_secret().into());
    }
    session.output.done(&shown, text.expose_secret())?;
    session
        .output
        .hint("keep it now: it is stored as a hash only and cannot be shown again");
    Ok(Exit::Ok)
}

async fn revoke(id: i64, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let revoked = token::revoke(&mut tx, id).await?;
    let Some(token) = token::get(&mut *tx, id).await? else {
        let failure = Failure::say(Exit::NoInput, format!("there is no token {id}"));
        return Err(failure.hint("`ingestd token ls` lists them"));
    };
    if revoked {
        let change = Change {
            detail: token.noted(),
            ..Change::of("token.revoke", format!("token/{id}"))
        };
        change.note(&mut tx, &actor).await?;
    }
    let is_any = token::is_any_good(&mut *tx).await?;
    tx.commit().await?;
    let text = if revoked {
        format!("token {id} ({}) is revoked", token.name)
    } else {
        format!("token {id} ({}) was revoked already", token.name)
    };
    session.output.done(&token, &text)?;
    if !is_any {
        session.output.hint(
            "no token is left: unless the configuration names a credential, nobody is served until \
             `ingestd token create NAME --role admin` makes one",
        );
    }
    Ok(Exit::Ok)
}
