//! Opaque tokens: `igd_PREFIX_SECRET`.
//!
//! The prefix, 12 hexadecimal digits, is no secret: it finds the row and stands in lists. The
//! secret, 32 bytes of the system's randomness in 43 characters of base64url, is shown once; the
//! database has its SHA-256. That needs no salt and no slow hash: nobody guesses 256 bits.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};
use subtle::ConstantTimeEq as _;

use super::{INSTALLATION, Identity, Role, Tenants};

/// What every token begins with.
pub const MARK: &str = "igd_";

const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;

/// The longest name, in characters.
pub const LONGEST_NAME: usize = 100;

/// The most tenants of one token.
pub const MOST_TENANTS: usize = 100;

/// A token as lists show it: nothing of it opens anything.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Token {
    /// Identifies the token.
    pub id: i64,
    /// What it is for.
    pub name: String,
    /// Its readable first part.
    pub prefix: String,
    /// What it may do.
    pub role: Role,
    /// The tenants it is bound to; `None`: all.
    pub tenants: Option<Vec<String>>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it last worked, within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When somebody took it back.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Token {
    /// Returns what the audit log says of it.
    #[must_use]
    pub fn noted(&self) -> Value {
        json!({ "name": self.name, "prefix": self.prefix, "role": self.role,
                "tenants": self.tenants, "expires_at": self.expires_at })
    }
}

/// A token to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is for: 1 to [`LONGEST_NAME`] characters. The audit log says `token:NAME#ID`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The tenants it is bound to, 1 to [`MOST_TENANTS`]; `None`: all.
    pub tenants: Option<Vec<String>>,
    /// How long it works; `None`: until it is revoked.
    pub lasts: Option<Duration>,
}

impl NewToken {
    /// Says which member cannot be, and what it must be.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let is_text = |text: &str, most: usize| {
            (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        if !is_text(&self.name, LONGEST_NAME) {
            return Some((
                "name",
                "1 to 100 characters, none of them a control character",
            ));
        }
        let list = self.tenants.as_deref();
        if list.is_some_and(|list| {
            !(1..=MOST_TENANTS).contains(&list.len())
                || !list
                    .iter()
                    .all(|name| is_text(name, 200) && name != INSTALLATION)
        }) {
            return Some((
                "tenants",
                "1 to 100 names of 1 to 200 characters, `*` not among them, or none for all",
            ));
        }
        let range = Duration::from_mins(1)..=Duration::from_hours(24 * 3660);
        if self.lasts.is_some_and(|lasts| !range.contains(&lasts)) {
            return Some(("expires", "a minute to ten years from now"));
        }
        None
    }
}

/// The system has no randomness to give, so that no token can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// A fresh token before it has a row.
struct Minted {
    text: SecretString,
    prefix: String,
    hash: [u8; 32],
}

fn mint() -> Result<Minted, NoRandomness> {
    let (mut prefix, mut secret) = ([0; PREFIX_BYTES], [0; SECRET_BYTES]);
    let random = SystemRandom::new();
    random.fill(&mut prefix).map_err(|_| NoRandomness)?;
    random.fill(&mut secret).map_err(|_| NoRandomness)?;
    let prefix = prefix.iter().fold(String::new(), |mut text, byte| {
        text.extend(
            [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')),
        );
        text
    });
    let secret = URL_SAFE_NO_PAD.encode(secret);
    Ok(Minted {
        hash: Sha256::digest(&secret).into(),
        text: SecretString::from(format!("{MARK}{prefix}_{secret}")),
        prefix,
    })
}

/// Splits a token into prefix and secret; `None` where it is not of our form.
fn split(text: &str) -> Option<(&str, &str)> {
    let (prefix, secret) = text.strip_prefix(MARK)?.split_once('_')?;
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let is_prefix = prefix.len() == 2 * PREFIX_BYTES && prefix.bytes().all(is_hex);
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_secret = secret.len() == SECRET_CHARS && secret.bytes().all(is_base64);
    (is_prefix && is_secret).then_some((prefix, secret))
}

/// Returns the readable part of something that may be a token, fit for a log.
#[must_use]
pub fn prefix_of(text: &str) -> Option<&str> {
    split(text).map(|(prefix, _)| prefix)
}

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// What Postgres says.
    #[error(transparent)]
    Db(#[from] sqlx::Error),
}

/// The columns of a [`Token`]; a token from before `tenants` has one tenant at most.
macro_rules! columns {
    () => {
        "id, name, prefix, role, created_by, created_at, expires_at, last_used_at, revoked_at,
         coalesce(tenants, CASE WHEN tenant IS NOT NULL THEN ARRAY[tenant] END) AS tenants"
    };
}

/// Makes a token in the connection's transaction; its text is never to be had again.
///
/// Judge it by [`NewToken::mistake`] first.
///
/// # Errors
///
/// [`CreateError`].
pub async fn create(
    conn: &mut PgConnection,
    new: &NewToken,
    created_by: &str,
) -> Result<(Token, SecretString), CreateError> {
    let Minted { text, prefix, hash } = mint()?;
    let made = sqlx::query_as(concat!(
        "INSERT INTO ingestd.api_tokens (name, prefix, secret_hash, role, tenants, created_by,
           expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)) RETURNING ",
        columns!()
    ))
    .bind(&new.name)
    .bind(&prefix)
    .bind(hash.as_slice())
    .bind(new.role)
    .bind(&new.tenants)
    .bind(created_by)
    .bind(new.lasts.map(|lasts| lasts.as_secs_f64()))
    .fetch_one(conn)
    .await?;
    Ok((made, text))
}

/// Reads the newest tokens before `before`, newest first, the revoked ones among them.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Token>> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM ingestd.api_tokens WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2"
    ))
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Finds a token by its id.
///
/// # Errors
///
/// What Postgres says.
pub async fn get(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<Option<Token>> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM ingestd.api_tokens WHERE id = $1"
    ))
    .bind(id)
    .fetch_optional(db)
    .await
}

/// Revokes a token: from the commit on it opens nothing. Returns whether it was not revoked before.
///
/// # Errors
///
/// What Postgres says.
pub async fn revoke(conn: &mut PgConnection, id: i64) -> sqlx::Result<bool> {
    let revoked = sqlx::query(
        "UPDATE ingestd.api_tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// Says whether there ever was a token. One that has expired or was revoked counts: what it kept
/// closed does not open because somebody takes it back.
///
/// # Errors
///
/// What Postgres says.
pub async fn was_any(db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM ingestd.api_tokens)")
        .fetch_one(db)
        .await
}

/// Says whether a token is left that opens something.
///
/// # Errors
///
/// What Postgres says.
pub async fn is_any_good(db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM ingestd.api_tokens
                        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))",
    )
    .fetch_one(db)
    .await
}

/// What a token is checked against.
#[derive(FromRow)]
struct Row {
    id: i64,
    name: String,
    secret_hash: Vec<u8>,
    role: Role,
    tenants: Option<Vec<String>>,
    /// Neither expired nor revoked.
    is_good: bool,
    /// Its last use was noted a minute ago or earlier.
    is_stale: bool,
}

const CHECK: &str = "
    SELECT id, name, secret_hash, role,
           coalesce(tenants, CASE WHEN tenant IS NOT NULL THEN ARRAY[tenant] END) AS tenants,
           revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_good,
           last_used_at IS NULL OR last_used_at < now() - interval '1 minute' AS is_stale
    FROM ingestd.api_tokens WHERE prefix = $1";

/// Names the minute's use once, however many daemons see it.
const USE: &str = "
    UPDATE ingestd.api_tokens SET last_used_at = now()
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";

/// Finds out whose token it is; `None` where it is nobody's, or no longer.
///
/// The secret is compared by hash and in constant time; that it was used is noted at most once a
/// minute.
///
/// # Errors
///
/// What Postgres says.
pub async fn check(db: &PgPool, text: &str) -> sqlx::Result<Option<Identity>> {
    let Some((prefix, secret)) = split(text) else {
        return Ok(None);
    };
    let found: Option<Row> = sqlx::query_as(CHECK)
        .bind(prefix)
        .fetch_optional(db)
        .await?;
    let Some(row) = found else {
        return Ok(None);
    };
    let sent: [u8; 32] = Sha256::digest(secret).into();
    let is_it: bool = row.secret_hash.ct_eq(sent.as_slice()).into();
    if !(is_it && row.is_good) {
        return Ok(None);
    }
    if row.is_stale {
        sqlx::query(USE).bind(row.id).execute(db).await?;
    }
    Ok(Some(Identity {
        actor: format!("token:{}#{}", row.name, row.id),
        role: row.role,
        tenants: Tenants::from_list(row.tenants),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn tokens_have_one_form_and_never_repeat() {
        let minted: HashSet<String> = (0..100)
            .map(|_| {
                let Minted { text, prefix, hash } = mint().unwrap();
                let text = text.expose_secret().to_owned();
                assert_eq!(text.len(), 4 + 12 + 1 + 43, "{text}");
                let (found, secret) = split(&text).unwrap();
                assert_eq!(found, prefix);
                assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(secret)));
                text
            })
            .collect();
        assert_eq!(minted.len(), 100);
    }

    #[test]
    fn what_is_of_another_form_is_no_token() {
        let secret = "A".repeat(43);
        assert!(split(&format!("igd_0123456789ab_{secret}")).is_some());
        for wrong in [
            String::new(),
            "igd_".to_owned(),
            format!("igd_0123456789ab{secret}"),
            format!("igd_0123456789AB_{secret}"),
            format!("igd_0123456789a_{secret}"),
            format!("igd_0123456789ab_{secret}A"),
            format!("igd_0123456789ab_%{}", "A".repeat(42)),
            format!("xgd_0123456789ab_{secret}"),
        ] {
            assert!(split(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_token_to_be_must_make_sense() {
        let good = NewToken {
            name: "ci".to_owned(),
            role: Role::Viewer,
            tenants: None,
            lasts: None,
        };
        assert_eq!(good.mistake(), None);
        let named = |name: &str| NewToken {
            name: name.to_owned(),
            ..good.clone()
        };
        assert_eq!(named("").mistake().unwrap().0, "name");
        assert_eq!(named("a\nb").mistake().unwrap().0, "name");
        let of = |tenants: &[&str]| NewToken {
            tenants: Some(tenants.iter().map(ToString::to_string).collect()),
            ..good.clone()
        };
        assert_eq!(of(&["a"]).mistake(), None);
        assert_eq!(of(&[]).mistake().unwrap().0, "tenants");
        assert_eq!(of(&[""]).mistake().unwrap().0, "tenants");
        assert_eq!(of(&["*"]).mistake().unwrap().0, "tenants");
        let lasting = |lasts| NewToken {
            lasts: Some(lasts),
            ..good.clone()
        };
        assert_eq!(
            lasting(Duration::from_secs(1)).mistake().unwrap().0,
            "expires"
        );
    }
}
