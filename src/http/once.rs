//! `Idempotency-Key`: a request that is sent again is not done again.
//!
//! The key is written in the transaction of the change (by [`super::record`], which every change
//! calls), so that change and key are there together or not at all; of two at once the second
//! waits for the first and is told 409. The answer is added afterwards. Where the daemon died in
//! between, a repeat is told what was made, and does not make it again. What was refused changed
//! nothing, keeps no key, and may be sent again corrected.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::Response,
};
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, PgConnection, PgPool};

use super::{
    AppState, Problem,
    input::{self, declared_length},
    layer::Deadline,
    route::Payload,
    trouble::Trouble,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in bytes.
const LONGEST: usize = 255;

/// The largest answer that is kept, in bytes; a larger one is not repeated, nor is its request.
const MAX_KEPT: usize = 256 << 10;

/// The unique index that two requests with one key meet at.
const TAKEN: &str = "idempotency_keys_pkey";

/// Says whether an error is that another request with the same Idempotency-Key came first.
#[must_use]
pub fn is_repeated(error: &sqlx::Error) -> bool {
    let constraint = error
        .as_database_error()
        .and_then(|error| error.constraint());
    constraint == Some(TAKEN)
}

/// A request's key.
#[derive(Debug)]
pub(super) struct Once {
    caller: String,
    key: String,
    hash: [u8; 32],
    is_written: AtomicBool,
}

/// What a request with a key comes to.
pub(super) enum Begun {
    /// It is new: its key, which is nowhere yet.
    New(Request, Arc<Once>),
    /// It has no key.
    Plain(Request),
    /// It was answered before, so.
    Known(Response),
}

/// Looks for an earlier request with the same key of the same caller.
///
/// # Errors
///
/// 422 where that one was another request, 409 where its answer is not known; a body that cannot
/// be read.
pub(super) async fn begin(
    app: &AppState,
    actor: &str,
    payload: Payload,
    deadline: Option<Deadline>,
    request: Request,
) -> Result<Begun, Problem> {
    let sent = request.headers().get(IDEMPOTENCY_KEY);
    let Some(sent) = sent.filter(|_| *request.method() == Method::POST) else {
        return Ok(Begun::Plain(request));
    };
    if payload == Payload::Secret {
        return Ok(Begun::Plain(request));
    }
    let key = sent.to_str().unwrap_or_default().to_owned();
    if !(1..=LONGEST).contains(&key.len()) {
        let rule = "Idempotency-Key has 1 to 255 printable ASCII characters";
        return Err(Problem::new(Trouble::BadRequest).detail(rule));
    }
    let (request, hash) = hashed(app, payload, deadline, request).await?;
    let once = Once {
        caller: actor.to_owned(),
        key,
        hash,
        is_written: AtomicBool::new(false),
    };
    match find(&app.db, &once).await? {
        None => Ok(Begun::New(request, Arc::new(once))),
        Some(row) => row.answer(&once).map(Begun::Known),
    }
}

/// Hashes what makes two requests the same. Of an upload that is its length and not its bytes,
/// which are on their way to the disk and cannot be waited for.
async fn hashed(
    app: &AppState,
    payload: Payload,
    deadline: Option<Deadline>,
    request: Request,
) -> Result<(Request, [u8; 32]), Problem> {
    let (parts, body) = request.into_parts();
    let mut hash = Sha256::new();
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    hash.update(format!("{} {target}\n", parts.method));
    let body = if payload == Payload::Upload {
        hash.update(declared_length(&parts.headers).unwrap_or(0).to_be_bytes());
        body
    } else {
        let max = usize::try_from(app.config.http.max_body_bytes).unwrap_or(usize::MAX);
        let bytes = input::read(body, max, deadline).await?;
        hash.update(&bytes);
        Body::from(bytes)
    };
    Ok((Request::from_parts(parts, body), hash.finalize().into()))
}

#[derive(FromRow)]
struct Row {
    request_hash: Vec<u8>,
    object: Option<String>,
    status: Option<i16>,
    location: Option<String>,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
}

impl Row {
    fn answer(self, once: &Once) -> Result<Response, Problem> {
        if self.request_hash != once.hash {
            return Err(Problem::new(Trouble::KeyReused)
                .detail("this Idempotency-Key was sent with another request"));
        }
        let status = self.status.and_then(|status| u16::try_from(status).ok());
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let (Some(status), Some(body)) = (status, self.body) else {
            let text = "this request was carried out, or is being; its answer is not kept";
            let problem = Problem::new(Trouble::Conflict).detail(text);
            return Err(match self.object {
                Some(object) => problem.with("object", object),
                None => problem,
            });
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        for (name, value) in [(CONTENT_TYPE, self.content_type), (LOCATION, self.location)] {
            let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
            headers.extend(value.map(|value| (name, value)));
        }
        Ok(response)
    }
}

async fn find(db: &PgPool, once: &Once) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(
        "SELECT request_hash, object, status, location, content_type, body
         FROM ingestd.idempotency_keys
         WHERE caller = $1 AND key = $2 AND created_at > now() - interval '24 hours'",
    )
    .bind(&once.caller)
    .bind(&once.key)
    .fetch_optional(db)
    .await
}

impl Once {
    /// Writes the key in the transaction that makes or changes `object`; the first time only, where
    /// one request makes several entries in the audit log.
    ///
    /// # Errors
    ///
    /// What Postgres says: a violation of [`TAKEN`] where another request has the key.
    pub(super) async fn write(&self, conn: &mut PgConnection, object: &str) -> sqlx::Result<()> {
        if self.is_written.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        sqlx::query(
            "DELETE FROM ingestd.idempotency_keys
             WHERE caller = $1 AND key = $2 AND created_at <= now() - interval '24 hours'",
        )
        .bind(&self.caller)
        .bind(&self.key)
        .execute(&mut *conn)
        .await?;
        sqlx::query(
            "INSERT INTO ingestd.idempotency_keys (caller, key, request_hash, object)
             VALUES ($1, $2, $3, $4)",
        )
        .bind(&self.caller)
        .bind(&self.key)
        .bind(self.hash.as_slice())
        .bind(object)
        .execute(conn)
        .await?;
        Ok(())
    }

    /// Keeps the answer of a request that went well; returns it.
    pub(super) async fn keep(&self, db: &PgPool, response: Response) -> Response {
        if !response.status().is_success() {
            return response;
        }
        let (parts, body) = response.into_parts();
        let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
            return Response::from_parts(parts, Body::empty());
        };
        let header = |name: HeaderName| {
            let value = parts.headers.get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let kept = Row {
            request_hash: self.hash.to_vec(),
            object: None,
            status: i16::try_from(parts.status.as_u16()).ok(),
            location: header(LOCATION),
            content_type: header(CONTENT_TYPE),
            body: (bytes.len() <= MAX_KEPT).then(|| Bytes::clone(&bytes).into()),
        };
        if let Err(error) = self.store(db, &kept).await {
            tracing::warn!(%error, "the answer to an Idempotency-Key is not kept");
        }
        Response::from_parts(parts, Body::from(bytes))
    }

    async fn store(&self, db: &PgPool, row: &Row) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO ingestd.idempotency_keys AS k
               (caller, key, request_hash, status, location, content_type, body)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (caller, key) DO UPDATE SET status = excluded.status,
               location = excluded.location, content_type = excluded.content_type,
               body = excluded.body
             WHERE k.request_hash = excluded.request_hash AND k.status IS NULL",
        )
        .bind(&self.caller)
        .bind(&self.key)
        .bind(&row.request_hash)
        .bind(row.status)
        .bind(&row.location)
        .bind(&row.content_type)
        .bind(&row.body)
        .execute(db)
        .await?;
        // Each that keeps one forgets a few: the table stays as large as a day needs.
        sqlx::query(
            "DELETE FROM ingestd.idempotency_keys WHERE (caller, key) IN (
               SELECT caller, key FROM ingestd.idempotency_keys
               WHERE created_at <= now() - interval '24 hours'
               ORDER BY created_at LIMIT 20 FOR UPDATE SKIP LOCKED)",
        )
        .execute(db)
        .await?;
        Ok(())
    }
}
