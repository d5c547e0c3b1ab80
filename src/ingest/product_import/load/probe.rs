//! Which rows of a slice are new, which are changed, and which the catalog has as they are.
//!
//! A row is unchanged where the catalog has its hash, which covers its code. How
//! hashes are come by depends on the file, and what is found does not:
//! * rows in the order of their codes: by one walk along the codes,
//! * others, where rows before them were all new: not at all, the index is to
//!   refuse what is there after all,
//! * others: by a walk along the ids around those of a few rows, since products
//!   that came in one file lie side by side,
//! * and what is left after that by a look-up for each code.
//!
//! Every statement has one possible plan under the settings of [`super::super::load`].

use rust_decimal::Decimal;
use smol_str::SmolStr;
use sqlx::PgConnection;

use super::super::{
    plan::Mode,
    row::{ProductRow, fault::Fault},
};
use super::{Target, history::Live};

/// How many codes the catalog may have for one of the rows, that looking through all between the
/// first and the last of them is still the cheaper way.
const CODES_A_ROW: usize = 2;
/// Rows by which it is found out where in the catalog a slice lies.
const SAMPLES: usize = 8;
/// So many of them must be there.
const LEAST_SAMPLES: usize = 6;
/// Smaller slices are looked up code by code.
const LEAST_ROWS: usize = 16 * SAMPLES;

/// A row that the catalog does not have as it is.
pub(super) struct Changed<'a> {
    pub(super) row: &'a ProductRow,
    pub(super) product_id: i64,
    pub(super) is_archived: bool,
    pub(super) live: Live,
}

/// What the probe says of the rows of a slice that are not unchanged.
#[derive(Default)]
pub(super) struct Probed<'a> {
    pub(super) new: Vec<&'a ProductRow>,
    pub(super) changed: Vec<Changed<'a>>,
}

impl<'a> Probed<'a> {
    /// Takes out what the mode does not import.
    pub(super) fn choose(&mut self, mode: Mode) -> Vec<(&'a ProductRow, Fault)> {
        match mode {
            Mode::Upsert | Mode::ReplaceAll => Vec::new(),
            Mode::InsertOnly => {
                let there = self.changed.extract_if(.., |changed| !changed.is_archived);
                there
                    .map(|changed| (changed.row, Fault::AlreadyThere))
                    .collect()
            }
            Mode::UpdateOnly => {
                let archived = self.changed.extract_if(.., |changed| changed.is_archived);
                let archived = archived.map(|changed| changed.row);
                let missing = archived.chain(self.new.drain(..));
                missing.map(|row| (row, Fault::NotThere)).collect()
            }
        }
    }
}

/// Finds out which rows are new or changed, and what is live of the changed ones.
///
/// Both come in the order of their codes, so that the statements that write meet
/// neighbours in `products_code` one after the other. With `expects_new` all
/// may be called new although some are there: only for who can take that back.
pub(super) async fn probe<'a>(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &'a [ProductRow],
    expects_new: bool,
) -> sqlx::Result<Probed<'a>> {
    let mut rows: Vec<&ProductRow> = rows.iter().collect();
    if rows.is_sorted_by(|one, other| one.code <= other.code) {
        if let Some((n_known, hashes)) = between(conn, target, &rows).await? {
            return settle(conn, target, rows, n_known, hashes).await;
        }
    } else {
        rows.sort_unstable_by(|one, other| one.code.cmp(&other.code));
        if expects_new {
            return Ok(Probed {
                new: rows,
                changed: Vec::new(),
            });
        }
        let hashes = nearby(conn, target, &rows).await?;
        remove(&mut rows, hashes);
    }
    if rows.is_empty() {
        return Ok(Probed::default());
    }
    let (n_known, hashes) = sqlx::query_as(include_str!("probe.sql"))
        .bind(codes(&rows))
        .bind(target.tenant)
        .fetch_one(&mut *conn)
        .await?;
    settle(conn, target, rows, n_known, hashes).await
}

/// Takes out the rows that have one of the hashes: the hash covers the code, so whichever of these
/// products has it is the row's own.
fn remove(rows: &mut Vec<&ProductRow>, mut hashes: Vec<i64>) {
    hashes.sort_unstable();
    rows.retain(|row| hashes.binary_search(&row.hash).is_err());
}

/// Parts the rows, of which the catalog has `n_known` codes and these hashes; it may have other codes
/// with them.
async fn settle<'a>(
    conn: &mut PgConnection,
    target: &Target<'_>,
    mut rows: Vec<&'a ProductRow>,
    n_known: i64,
    hashes: Vec<i64>,
) -> sqlx::Result<Probed<'a>> {
    let n_rows = rows.len();
    remove(&mut rows, hashes);
    let all_known_match = usize::try_from(n_known) == Ok(n_rows - rows.len());
    if rows.is_empty() || all_known_match {
        return Ok(Probed {
            new: rows,
            changed: Vec::new(),
        });
    }
    part(conn, target, rows).await
}

/// Returns how many products there are from the first code to the last and the hashes of those that
/// are live; `None` where that are many more than the rows, so that each is to be looked up.
///
/// For rows in the order of their codes *as the file has them*: their neighbours in the file are
/// then those in the catalog, as a rule, while a few codes out of any order span all of it.
async fn between(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &[&ProductRow],
) -> sqlx::Result<Option<(i64, Vec<i64>)>> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(None);
    };
    let limit = i64::try_from(rows.len() * CODES_A_ROW + 1).unwrap_or(i64::MAX);
    let (n_seen, n_known, hashes): (i64, i64, Vec<i64>) =
        sqlx::query_as(include_str!("between.sql"))
            .bind(first.code.as_str())
            .bind(last.code.as_str())
            .bind(target.tenant)
            .bind(limit)
            .fetch_one(conn)
            .await?;
    Ok((n_seen < limit).then_some((n_known, hashes)))
}

/// Returns the hashes of live products around those of a few of the rows; none where these do not
/// lie together.
async fn nearby(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &[&ProductRow],
) -> sqlx::Result<Vec<i64>> {
    const IDS: &str = "SELECT id FROM catalog.products WHERE code = ANY ($1) AND tenant = $2";
    if rows.len() < LEAST_ROWS {
        return Ok(Vec::new());
    }
    let step = rows.len() / SAMPLES;
    let samples = rows.iter().skip(step / 2).step_by(step).take(SAMPLES);
    let samples: Vec<&str> = samples.map(|row| row.code.as_str()).collect();
    let ids: Vec<i64> = sqlx::query_scalar(IDS)
        .bind(samples)
        .bind(target.tenant)
        .fetch_all(&mut *conn)
        .await?;
    let Some((low, high)) = window(ids, rows.len()) else {
        return Ok(Vec::new());
    };
    sqlx::query_scalar(include_str!("nearby.sql"))
        .bind(low)
        .bind(high)
        .bind(target.tenant)
        .bind(high.saturating_sub(low).saturating_add(1))
        .fetch_one(conn)
        .await
}

/// Returns the first and the last id among which most of `n_rows` products lie if they lie together;
/// the outermost of the samples may be strays.
fn window(mut ids: Vec<i64>, n_rows: usize) -> Option<(i64, i64)> {
    if ids.len() < LEAST_SAMPLES {
        return None;
    }
    ids.sort_unstable();
    let (low, high) = (*ids.get(1)?, *ids.iter().rev().nth(1)?);
    let n_rows = i64::try_from(n_rows).ok()?;
    let span = high - low;
    let margin = (n_rows - span).max(0) / 2 + n_rows / 8;
    (span <= 2 * n_rows).then_some((low.saturating_sub(margin), high.saturating_add(margin)))
}

/// Parts rows that are not unchanged into new and changed.
async fn part<'a>(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: Vec<&'a ProductRow>,
) -> sqlx::Result<Probed<'a>> {
    type Price = Option<Decimal>;
    type Answer = (
        Option<i64>,
        Option<bool>,
        Price,
        Option<String>,
        Option<i64>,
    );
    let answers: Vec<Answer> = sqlx::query_as(include_str!("changed.sql"))
        .bind(codes(&rows))
        .bind(target.tenant)
        .fetch_all(conn)
        .await?;
    let mut probed = Probed::default();
    for (row, (id, is_archived, price, currency, qty)) in rows.into_iter().zip(answers) {
        match id {
            None => probed.new.push(row),
            Some(product_id) => {
                let live = Live {
                    price: price.map(|price| (price, currency.map(SmolStr::from))),
                    qty,
                };
                probed.changed.push(Changed {
                    row,
                    product_id,
                    is_archived: is_archived == Some(true),
                    live,
                });
            }
        }
    }
    Ok(probed)
}

/// Returns the rows' codes, an array for a statement.
fn codes<'a>(rows: &[&'a ProductRow]) -> Vec<&'a str> {
    rows.iter().map(|row| row.code.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_about_the_products_of_a_slice() {
        // 800 products from 1001 on, of which these are every hundredth
        let together: Vec<i64> = (0..8).map(|n| 1_051 + 100 * n).collect();
        let (low, high) = window(together.clone(), 800).unwrap();
        assert!(low <= 1_001 && high >= 1_800, "{low} to {high}");
        assert!(high - low <= 1_200, "{low} to {high}");
        let mut strays = together.clone();
        strays[0] = 9_000_000;
        strays[3] = 1;
        assert!(window(strays, 800).is_some_and(|(low, high)| high - low < 2_000));
        assert_eq!(
            window(together[..5].to_vec(), 800),
            None,
            "too few are there"
        );
        let scattered = (0..8).map(|n| 1_000_000 * n).collect();
        assert_eq!(window(scattered, 800), None);
        assert_eq!(window(Vec::new(), 800), None);
    }
}
