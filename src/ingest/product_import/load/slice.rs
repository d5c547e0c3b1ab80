//! One slice of a chunk into the tables: probe, let the mode choose, keep what was, insert and update.
//!
//! Every statement has one possible plan under the settings of [`super::super::load`].
//! What prices and stocks become is settled in [`super::history`].

use sqlx::PgConnection;

use super::super::row::{ProductRow, fault::Fault};
use super::{
    Loaded, Target, Written,
    history::{self, History},
    probe::{Changed, Probed, probe},
};
use crate::{
    db::copy::{CopyIn, Jsonb},
    notify::search,
};

/// What became of a slice.
#[derive(Default)]
pub(super) struct Slice<'a> {
    /// Counts, and the rows that were written.
    pub(super) written: Written,
    /// Rows that the mode does not import, and why.
    pub(super) turned_away: Vec<(&'a ProductRow, Fault)>,
}

/// Writes the rows of a slice; all of them or, on an error, for the caller to roll back.
///
/// # Errors
///
/// The database refuses a row, or anything else that a statement can fail of; with `expects_new` also
/// where one of the rows is there.
pub(super) async fn write<'a>(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &'a [ProductRow],
    expects_new: bool,
) -> sqlx::Result<Slice<'a>> {
    if rows.is_empty() {
        return Ok(Slice::default());
    }
    let mut probed = probe(conn, target, rows, expects_new).await?;
    let turned_away = probed.choose(target.mode);
    let mut history = History::new(target.columns);
    keep_before(conn, target, &probed.changed).await?;
    update(conn, target, &probed.changed).await?;
    for changed in &probed.changed {
        history.changed(changed.product_id, changed.row, &changed.live);
    }
    let ids = insert(conn, target, &probed.new).await?;
    for (id, row) in ids.iter().zip(&probed.new) {
        history.added(*id, row);
    }
    history::write(conn, target.import_id, &history).await?;
    if target.notes_search {
        let changed = probed.changed.iter().map(|changed| changed.product_id);
        let changed: Vec<i64> = changed.chain(ids.iter().copied()).collect();
        search::note(conn, &changed).await?;
    }
    let changed = probed.changed.iter().map(|c| (c.row.row_no, c.product_id));
    Ok(Slice {
        written: Written {
            loaded: count(rows.len(), &probed, turned_away.len()),
            new: probed.new.iter().map(|row| row.row_no).collect(),
            changed: changed.collect(),
            created: ids.iter().copied().min().zip(ids.iter().copied().max()),
        },
        turned_away,
    })
}

/// Counts what became of `n_rows` rows.
fn count(n_rows: usize, probed: &Probed<'_>, n_turned_away: usize) -> Loaded {
    let n = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let (inserted, updated) = (probed.new.len(), probed.changed.len());
    Loaded {
        inserted: n(inserted),
        updated: n(updated),
        unchanged: n(n_rows.saturating_sub(inserted + updated + n_turned_away)),
        turned_away: n(n_turned_away),
        ..Loaded::default()
    }
}

/// Keeps what changed products are, before they are changed.
async fn keep_before(
    conn: &mut PgConnection,
    target: &Target<'_>,
    changed: &[Changed<'_>],
) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("before.sql"))
        .bind(column(changed, |c| c.product_id))
        .bind(target.import_id)
        .bind(column(changed, |c| c.row.hash))
        .execute(conn)
        .await?;
    Ok(())
}

/// Inserts new products and returns their ids in the same order.
///
/// The ids are drawn before, so that prices and stocks can name them, and one
/// by one: `first + n` is no block of its own when two sessions draw.
async fn insert(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &[&ProductRow],
) -> sqlx::Result<Vec<i64>> {
    const IDS: &str = "SELECT array_agg(nextval('catalog.products_id_seq'))
        FROM generate_series(1, $1)";
    const COPY: &str = "COPY catalog.products
        (id, tenant, code, name, description, brand, category, ean, url, weight,
         source_updated_at, attributes, row_hash, import_id) FROM STDIN (FORMAT binary)";
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let n_rows = i32::try_from(rows.len()).unwrap_or(i32::MAX);
    let ids: Vec<i64> = sqlx::query_scalar(IDS)
        .bind(n_rows)
        .fetch_one(&mut *conn)
        .await?;
    let mut copy = CopyIn::begin(conn, COPY).await?;
    for (id, row) in ids.iter().zip(rows) {
        copy.row(|fields| {
            fields
                .push(*id)
                .push(target.tenant)
                .push(row.code.as_str())
                .push(row.name.as_str());
            fields
                .push(row.description.as_deref())
                .push(row.brand.as_deref());
            fields
                .push(row.category.as_deref())
                .push(row.ean.as_deref())
                .push(row.url.as_deref());
            fields
                .push(row.weight)
                .push(row.updated_at)
                .push(row.attributes.as_ref().map(Jsonb));
            fields.push(row.hash).push(target.import_id);
        })
        .await?;
    }
    copy.finish().await?;
    Ok(ids)
}

/// Updates changed products, in the order of their ids.
async fn update(
    conn: &mut PgConnection,
    target: &Target<'_>,
    changed: &[Changed<'_>],
) -> sqlx::Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let attributes = changed
        .iter()
        .map(|c| attributes(c.row))
        .collect::<sqlx::Result<Vec<_>>>()?;
    let done = sqlx::query(include_str!("update.sql"))
        .bind(column(changed, |c| c.product_id))
        .bind(column(changed, |c| c.row.name.as_str()))
        .bind(column(changed, |c| c.row.description.as_deref()))
        .bind(column(changed, |c| c.row.brand.as_deref()))
        .bind(column(changed, |c| c.row.category.as_deref()))
        .bind(column(changed, |c| c.row.ean.as_deref()))
        .bind(column(changed, |c| c.row.url.as_deref()))
        .bind(column(changed, |c| c.row.weight))
        .bind(column(changed, |c| c.row.updated_at))
        .bind(attributes)
        .bind(column(changed, |c| c.row.hash))
        .bind(target.columns.bits())
        .bind(target.import_id)
        .execute(conn)
        .await?;
    history::all_there(done.rows_affected(), changed.len())
}

/// Returns one value of every changed row, an array for the statement.
fn column<'c, 'a, T>(changed: &'c [Changed<'a>], value: impl Fn(&'c Changed<'a>) -> T) -> Vec<T> {
    changed.iter().map(value).collect()
}

/// Returns the row's extra columns as the text of a JSON object.
fn attributes(row: &ProductRow) -> sqlx::Result<Option<String>> {
    let text = row.attributes.as_ref().map(serde_json::to_string);
    text.transpose()
        .map_err(|error| sqlx::Error::Encode(error.into()))
}
