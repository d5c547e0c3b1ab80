//! Making, changing and removing a user's schedules.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{
    super::{
        super::{AppState, Caller, Json as Body, Path, Problem, Trouble, audit},
        enqueue::refused,
        made,
    },
    no_schedule, object,
};
use crate::access::{INSTALLATION, Tenants};
use crate::queue::schedule::{
    Definition, Wrong, check_name,
    control::{self, Change},
    explain::{self, Explained, ScheduleRow},
};

/// A schedule to be: a name, whether it begins paused, and what it says.
#[derive(Debug)]
pub(in crate::http) struct Named {
    name: String,
    paused: bool,
    definition: Definition,
}

impl<'de> Deserialize<'de> for Named {
    /// `flatten` would let unknown fields pass.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let mut fields = Map::deserialize(from)?;
        let Some(Value::String(name)) = fields.remove("name") else {
            return Err(Error::custom("expected a string `name`"));
        };
        let paused = match fields.remove("paused") {
            None => false,
            Some(Value::Bool(paused)) => paused,
            Some(_) => return Err(Error::custom("expected true or false for `paused`")),
        };
        let definition = Definition::deserialize(Value::Object(fields)).map_err(Error::custom)?;
        Ok(Self {
            name,
            paused,
            definition,
        })
    }
}

type Located = (StatusCode, [(HeaderName, String); 1], Json<Explained>);

/// `POST /schedules`: 201 and the schedule; 409 where the name is taken.
pub(in crate::http) async fn create(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Body(named): Body<Named>,
) -> Result<Located, Problem> {
    let Named {
        name,
        paused,
        definition,
    } = named;
    let definition = theirs(&app, &caller, &name, definition).await?;
    let mut tx = app.db.begin().await?;
    match control::create(&mut tx, &name, &definition, paused).await {
        Ok(Change::Made) => {}
        Ok(other) => return Err(impossible(&name, &other)),
        Err(error) => return Err(refused(error)),
    }
    finish(
        tx,
        &caller,
        "schedule.add",
        &name,
        &definition,
        StatusCode::CREATED,
    )
    .await
}

/// `PUT /schedules/{name}`: 200 where it was changed, 201 where it was made; 409 where it is not a
/// user's.
pub(in crate::http) async fn put(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(definition): Body<Definition>,
) -> Result<Located, Problem> {
    let definition = theirs(&app, &caller, &name, definition).await?;
    let mut tx = app.db.begin().await?;
    let before = explain::lock(&mut tx, &name).await?;
    let (action, status, made) = if let Some(before) = before {
        may_change(&caller, &name, &before)?;
        let changed = control::change(&mut tx, &name, &definition).await;
        ("schedule.change", StatusCode::OK, changed)
    } else {
        let made = control::create(&mut tx, &name, &definition, false).await;
        ("schedule.add", StatusCode::CREATED, made)
    };
    match made.map_err(refused)? {
        Change::Made => {}
        other => return Err(impossible(&name, &other)),
    }
    finish(tx, &caller, action, &name, &definition, status).await
}

/// `DELETE /schedules/{name}`: it is gone, its jobs stay.
pub(in crate::http) async fn remove(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let row = explain::lock(&mut tx, &name).await?;
    let row = row.ok_or_else(|| no_schedule(&name))?;
    may_change(&caller, &name, &row)?;
    match control::remove(&mut tx, &name).await? {
        Change::Made => {}
        other => return Err(impossible(&name, &other)),
    }
    let (object, tenant) = (object(&name), row.definition.tenant.as_deref());
    let detail = Some(json!(row.definition));
    audit::record(&mut tx, &caller, "schedule.remove", &object, tenant, detail).await?;
    tx.commit().await?;
    Ok(Json(json!({ "schedule": name, "removed": true })))
}

/// Notes a change, commits it and shows the schedule.
async fn finish(
    mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
    caller: &Caller,
    action: &str,
    name: &str,
    definition: &Definition,
    status: StatusCode,
) -> Result<Located, Problem> {
    let (tenant, detail) = (definition.tenant.as_deref(), Some(json!(definition)));
    audit::record(&mut tx, caller, action, &object(name), tenant, detail).await?;
    let shown = explain::explain(&mut tx, name, 10).await?;
    tx.commit().await?;
    let shown = shown.ok_or_else(|| no_schedule(name))?;
    let location = format!("/api/v1/schedules/{}", in_path(name));
    Ok((status, [(LOCATION, location)], Json(shown)))
}

/// Writes a name as one segment of a path (RFC 3986).
pub(in crate::http) fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let written = name.bytes().map(|byte| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    written.collect()
}

/// Checks a schedule to be and makes it the caller's.
async fn theirs(
    app: &AppState,
    caller: &Caller,
    name: &str,
    mut definition: Definition,
) -> Result<Definition, Problem> {
    check(name, &definition)?;
    let args = Value::Object(definition.args.clone());
    made::with_args(app, caller, &definition.kind, &args).await?;
    definition.tenant = caller.owner(definition.tenant)?;
    Ok(definition)
}

/// Hides what is another's from a caller bound to tenants, and refuses what is theirs and comes with
/// something else, as the schedule of a source does.
fn may_change(caller: &Caller, name: &str, row: &ScheduleRow) -> Result<(), Problem> {
    if caller.tenants == Tenants::All {
        return Ok(());
    }
    let owner = row.definition.tenant.as_deref().unwrap_or(INSTALLATION);
    if !caller.tenants.has(Some(owner)) {
        return Err(no_schedule(name));
    }
    made::kind(caller, &row.definition.kind)
}

/// Points to everything that is wrong without asking the database.
fn check(name: &str, definition: &Definition) -> Result<(), Problem> {
    let wrong = check_name(name).err().into_iter();
    let wrong: Vec<Wrong> = wrong
        .chain(definition.check().err().unwrap_or_default())
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let problem = Problem::new(Trouble::Invalid);
    Err(wrong.into_iter().fold(problem, |problem, wrong| {
        problem.at(format!("/{}", wrong.field), wrong.why)
    }))
}

fn impossible(name: &str, change: &Change) -> Problem {
    let conflict = |origin: &str, detail: &str| {
        let conflict = Problem::new(Trouble::Conflict).with("origin", origin);
        conflict.detail(detail)
    };
    match change {
        Change::Taken(origin) => conflict(origin, "there is a schedule of this name already"),
        Change::Owned(origin) if origin == "config" => conflict(
            origin,
            "it comes with the configuration and is changed there; it can be paused",
        ),
        Change::Owned(origin) => conflict(
            origin,
            "it is built in; [schedules] of the configuration can take its place; it can be paused",
        ),
        Change::Made | Change::NotFound => no_schedule(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_one_segment() {
        assert_eq!(in_path("every night/1"), "every%20night%2F1");
        assert_eq!(in_path("ü.a-b_c~"), "%C3%BC.a-b_c~");
    }

    #[test]
    fn a_body_has_no_unknown_fields() {
        let read = |text: &str| serde_json::from_str::<Named>(text);
        let named = read(r#"{"name": "n", "cron": "* * * * *", "kind": "a.b"}"#).unwrap();
        assert!(!named.paused && named.definition.timezone == "UTC");
        for wrong in [
            r#"{"cron": "* * * * *", "kind": "a.b"}"#,
            r#"{"name": "n", "kind": "a.b"}"#,
            r#"{"name": "n", "cron": "* * * * *", "kind": "a.b", "corn": 1}"#,
            r#"{"name": "n", "cron": "* * * * *", "kind": "a.b", "paused": 1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
