//! Saved mappings: what headers mean in the files of one owner, under a name.
//!
//! An import names one as `mapping=@name`. What it comes to is part of what the file was found to be
//! when it was accepted, so that changing or removing a mapping changes no import.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, types::Json};

use super::{plan::Wish, row::header_map::HeaderMap, sheet::Refusal};

/// Mappings of an owner at most.
pub const MOST: i64 = 1000;

/// A saved mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct SavedMap {
    /// Where a page of a list begins.
    #[serde(skip)]
    pub id: i64,
    /// The owner of the files.
    pub tenant: String,
    /// What an import names it by.
    pub name: String,
    /// Fields by header.
    #[sqlx(json)]
    pub headers: BTreeMap<String, String>,
    /// When it was saved first.
    pub created_at: DateTime<Utc>,
    /// When it was saved last.
    pub updated_at: DateTime<Utc>,
}

/// Says what is wrong with a name.
///
/// # Errors
///
/// The rule it breaks, in words.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= 100 && name.chars().all(is_sign) {
        Ok(())
    } else {
        Err("1 to 100 letters, digits, '.', '_' and '-', the first of them a letter or a digit")
    }
}

/// Saves a mapping, in the place of one of the same name; returns it and whether it is new, or
/// `None` where the owner has [`MOST`] already.
///
/// The caller has checked name and headers.
///
/// # Errors
///
/// What Postgres says.
pub async fn save(
    conn: &mut PgConnection,
    tenant: &str,
    name: &str,
    headers: &BTreeMap<String, String>,
) -> sqlx::Result<Option<(SavedMap, bool)>> {
    // header_maps_pkey; two at once may both be the last, and one more does no harm
    const CHANGE: &str = "UPDATE catalog.header_maps SET headers = $3, updated_at = now()
        WHERE tenant = $1 AND name = $2 RETURNING id, tenant, name, headers, created_at, updated_at";
    const ADD: &str = "INSERT INTO catalog.header_maps AS m (tenant, name, headers)
        SELECT $1, $2, $3 WHERE (SELECT count(*) FROM catalog.header_maps WHERE tenant = $1) < $4
        ON CONFLICT (tenant, name) DO UPDATE SET headers = EXCLUDED.headers, updated_at = now()
        RETURNING id, tenant, name, headers, created_at, updated_at";
    let changed: Option<SavedMap> = sqlx::query_as(CHANGE)
        .bind(tenant)
        .bind(name)
        .bind(Json(headers))
        .fetch_optional(&mut *conn)
        .await?;
    if let Some(changed) = changed {
        return Ok(Some((changed, false)));
    }
    let added: Option<SavedMap> = sqlx::query_as(ADD)
        .bind(tenant)
        .bind(name)
        .bind(Json(headers))
        .bind(MOST)
        .fetch_optional(conn)
        .await?;
    Ok(added.map(|added| (added, true)))
}

/// Returns the newest mappings below `before`, newest first, of some owners or of all, at most `limit`.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    conn: &mut PgConnection,
    tenants: Option<&[String]>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<SavedMap>> {
    const LIST: &str = "SELECT id, tenant, name, headers, created_at, updated_at
        FROM catalog.header_maps
        WHERE ($1::text[] IS NULL OR tenant = ANY ($1)) AND ($2::int8 IS NULL OR id < $2)
        ORDER BY id DESC LIMIT $3";
    sqlx::query_as(LIST)
        .bind(tenants)
        .bind(before)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// Returns the mapping of that name, or `None` where the owner has none.
///
/// # Errors
///
/// What Postgres says.
pub async fn find(
    conn: &mut PgConnection,
    tenant: &str,
    name: &str,
) -> sqlx::Result<Option<SavedMap>> {
    const FIND: &str = "SELECT id, tenant, name, headers, created_at, updated_at
        FROM catalog.header_maps WHERE tenant = $1 AND name = $2";
    sqlx::query_as(FIND)
        .bind(tenant)
        .bind(name)
        .fetch_optional(conn)
        .await
}

/// Removes a mapping; `false`: the owner has none of that name.
///
/// # Errors
///
/// What Postgres says.
pub async fn remove(conn: &mut PgConnection, tenant: &str, name: &str) -> sqlx::Result<bool> {
    const REMOVE: &str = "DELETE FROM catalog.header_maps WHERE tenant = $1 AND name = $2";
    let done = sqlx::query(REMOVE)
        .bind(tenant)
        .bind(name)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Says what there is about a saved mapping that cannot be used.
pub(super) fn missing(name: &str, why: &str) -> Refusal {
    Refusal {
        code: Refusal::NO_SUCH_MAPPING,
        message: format!("the saved mapping \"{name}\" {why}"),
    }
}

/// Puts the saved mapping that an import names, `@name`, into what is asked of it.
///
/// # Errors
///
/// The inner one: the owner has no mapping of that name, or one that an older or newer program
/// wrote; the outer one: what Postgres says.
pub async fn resolve(
    conn: &mut PgConnection,
    tenant: &str,
    wish: &mut Wish,
) -> sqlx::Result<Result<(), Refusal>> {
    let Some(name) = wish.look.saved_mapping.take() else {
        return Ok(Ok(()));
    };
    let refused = |why: &str| missing(&name, why);
    let Some(saved) = find(conn, tenant, &name).await? else {
        return Ok(Err(refused(
            "is not there; `ingestd mappings ls` shows those that are",
        )));
    };
    Ok(match HeaderMap::saved(saved.headers) {
        Ok(mapping) => {
            wish.look.mapping = mapping;
            Ok(())
        }
        Err(why) => Err(refused(&why)),
    })
}
