//! API tokens: list, create, revoke.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::super::{
    AppState, Caller, Cursor, Json, Limit, Page, Path, Problem, Query, Trouble, audit,
};
use crate::access::{
    Role,
    token::{self, CreateError, NewToken, Token},
};

/// Where a page of the list begins, and how long it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Ask {
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /tokens`: the newest first; nothing of them opens anything.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Query(ask): Query<Ask>,
) -> Result<axum::Json<Page<Token>>, Problem> {
    let before = ask.cursor.map(|Cursor(id)| id);
    let rows = token::list(&app.db, before, ask.limit.n_read()).await?;
    Ok(axum::Json(Page::new(rows, ask.limit, |row| row.id)))
}

/// The token to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    name: String,
    role: Role,
    tenants: Option<Vec<String>>,
    expires_secs: Option<u64>,
}

/// A token with its text.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Made {
    #[serde(flatten)]
    row: Token,
    /// The token itself, this once.
    token: String,
}

type Located = (StatusCode, [(HeaderName, String); 1], axum::Json<Made>);

/// `POST /tokens`: 201 and the token, which is shown this once.
pub(in crate::http) async fn create(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Body>,
) -> Result<Located, Problem> {
    let new = NewToken {
        name: body.name,
        role: body.role,
        tenants: body.tenants,
        lasts: body.expires_secs.map(Duration::from_secs),
    };
    if let Some((member, rule)) = new.mistake() {
        let pointer = match member {
            "expires" => "/expires_secs".to_owned(),
            member => format!("/{member}"),
        };
        return Err(Problem::new(Trouble::Invalid).at(pointer, rule));
    }
    let mut tx = app.db.begin().await?;
    let made = token::create(&mut tx, &new, &caller.actor).await;
    let (row, text) = made.map_err(|error| match error {
        CreateError::Db(error) => Problem::from(error),
        CreateError::Random(error) => std::io::Error::other(error).into(),
    })?;
    let (object, detail) = (format!("token/{}", row.id), Some(row.noted()));
    audit::record(&mut tx, &caller, "token.create", &object, None, detail).await?;
    tx.commit().await?;
    let location = "/api/v1/tokens".to_owned();
    let token = text.expose_secret().to_owned();
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        axum::Json(Made { row, token }),
    ))
}

/// `DELETE /tokens/{id}`: it opens nothing any more; 409 where that is so already.
pub(in crate::http) async fn revoke(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<axum::Json<Token>, Problem> {
    let mut tx = app.db.begin().await?;
    let revoked = token::revoke(&mut tx, id).await?;
    let Some(row) = token::get(&mut *tx, id).await? else {
        return Err(Problem::new(Trouble::NotFound).detail(format!("no token {id}")));
    };
    if !revoked {
        let conflict = Problem::new(Trouble::Conflict).with("state", "revoked");
        return Err(conflict.detail("this token was revoked before"));
    }
    let (object, detail) = (format!("token/{id}"), Some(row.noted()));
    audit::record(&mut tx, &caller, "token.revoke", &object, None, detail).await?;
    tx.commit().await?;
    Ok(axum::Json(row))
}
