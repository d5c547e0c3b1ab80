//! `ingestd mappings`: what headers mean in the files of an owner, saved under a name.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, at},
};
use crate::ingest::product_import::{
    row::header_map::HeaderMap,
    saved_map::{self, SavedMap},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd mappings set acme --map 'Unser Zeichen=code' --map Text=name
  ingestd mappings ls
  ingestd import partslist.csv --map @acme";

#[derive(Debug, Subcommand)]
pub(super) enum MappingsCommand {
    /// Lists saved mappings, newest first.
    #[command(after_help = "Examples:\n  ingestd mappings ls --tenant acme --json")]
    Ls(LsArgs),
    /// Saves a mapping, in the place of one of the same name.
    #[command(after_help = "Examples:
  ingestd mappings set acme --map 'Unser Zeichen=code' --map Text=name --map Notiz=attribute
  ingestd mappings set acme --tenant shop --map 'Art.=code' --json")]
    Set(SetArgs),
    /// Removes a mapping; imports that were accepted go on with it.
    #[command(after_help = "Examples:\n  ingestd mappings rm acme")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only this owner's.
    #[arg(long)]
    tenant: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// What imports name it by.
    name: String,
    /// Owner of the files.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What a header means: a field, or `attribute`; once for each header.
    #[arg(long = "map", value_name = "HEADER=FIELD", required = true, value_parser = pair)]
    headers: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The mapping's name.
    name: String,
    /// Owner of the files.
    #[arg(long, default_value = "default")]
    tenant: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.rsplit_once('=');
    let pair = pair.map(|(header, field)| (header.to_owned(), field.to_owned()));
    pair.ok_or_else(|| "is not HEADER=FIELD".to_owned())
}

impl Listed for SavedMap {
    const HEADERS: &'static [&'static str] = &["tenant", "name", "headers", "saved (UTC)"];

    fn cells(&self) -> Vec<String> {
        let headers = self.headers.iter();
        let headers: Vec<String> = headers
            .map(|(header, field)| format!("{header}={field}"))
            .collect();
        vec![
            self.tenant.clone(),
            self.name.clone(),
            super::output::brief(&headers.join(", ")),
            at(self.updated_at),
        ]
    }
}

pub(super) async fn run(command: MappingsCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        MappingsCommand::Ls(args) => {
            let tenants = args.tenant.as_ref().map(std::slice::from_ref);
            let found = saved_map::list(&mut session.conn, tenants, None, args.limit).await?;
            session.output.list(&found, "no saved mappings")?;
            Ok(Exit::Ok)
        }
        MappingsCommand::Set(args) => set(args, session).await,
        MappingsCommand::Rm(args) => remove(&args, session).await,
    }
}

async fn set(args: SetArgs, session: &mut Session) -> Result<Exit, Failure> {
    let SetArgs {
        name,
        tenant,
        headers,
    } = args;
    let headers: BTreeMap<String, String> = headers.into_iter().collect();
    let usage = |why: &str| Failure::say(Exit::Usage, why.to_owned());
    saved_map::check_name(&name).map_err(|rule| usage(&format!("the name: {rule}")))?;
    let checked = HeaderMap::saved(headers.clone());
    checked.map_err(|why| usage(&format!("the mapping {why}")))?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let Some((saved, _)) = saved_map::save(&mut tx, &tenant, &name, &headers).await? else {
        let text = format!("{tenant} has {} mappings already", saved_map::MOST);
        return Err(Failure::say(Exit::Data, text).hint("`ingestd mappings rm` removes one"));
    };
    let change = Change {
        tenant: Some(&tenant),
        detail: json!({ "headers": saved.headers }),
        ..Change::of("mapping.save", format!("mapping/{name}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = format!("saved; `ingestd import FILE --map @{name}` reads with it");
    session.output.done(&json!(saved), &text)?;
    Ok(Exit::Ok)
}

async fn remove(args: &RmArgs, session: &mut Session) -> Result<Exit, Failure> {
    let RmArgs { name, tenant } = args;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    if !saved_map::remove(&mut tx, tenant, name).await? {
        let text = format!("{tenant} has no mapping {name}");
        return Err(
            Failure::say(Exit::NoInput, text).hint("`ingestd mappings ls` shows those there are")
        );
    }
    let change = Change {
        tenant: Some(tenant),
        ..Change::of("mapping.remove", format!("mapping/{name}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    session
        .output
        .done(&json!({ "name": name, "removed": true }), "removed")?;
    Ok(Exit::Ok)
}
