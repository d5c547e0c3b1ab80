//! `replace_all`: the owner's live products that the file lacks are archived, in bounded batches.
//!
//! A product is missing when no row of the file has its code, good or bad: a row with a wrong price
//! is no reason to archive. Before the first row is written the missing ones are counted, and an
//! import that would archive too many, of a file cut short for example, is refused as a whole.

use sqlx::{PgConnection, PgPool};

use super::{
    load::{self, Turn, preview::Preview},
    plan::Plan,
    row::{
        Chunk,
        seen::{FileCodes, Spots},
    },
};

/// Products looked at by one statement, and archived by one transaction at most.
const PAGE: i64 = 5_000;

/// What is known of a file once its rows were read and not written.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The codes of all its rows, good and bad.
    pub(super) codes: FileCodes,
    /// Rows with something in the code column that is no code.
    pub(super) n_unreadable: u64,
}

impl Scan {
    /// Takes the codes of a chunk, with `spots` at its sheet; `code_at` is the code's place among the
    /// cells of bad rows.
    pub(super) fn take(&mut self, chunk: &Chunk, spots: &Spots, code_at: Option<usize>) {
        let good = chunk
            .rows
            .iter()
            .map(|row| (row.row_no, Some(row.code.as_str())));
        let bad = chunk.rejected.iter();
        let mut rows: Vec<_> = good
            .chain(bad.map(|row| (row.row_no, row.code.as_deref())))
            .collect();
        rows.sort_unstable_by_key(|(row_no, _)| *row_no);
        for (row_no, code) in rows {
            if let Some(code) = code {
                self.codes.note(code, spots.of(row_no));
            }
        }
        let is_unreadable = |cells: &[Option<String>]| {
            code_at
                .and_then(|at| cells.get(at))
                .is_some_and(Option::is_some)
        };
        let unreadable = chunk.rejected.iter();
        let unreadable = unreadable.filter(|row| row.code.is_none() && is_unreadable(&row.cells));
        self.n_unreadable += unreadable.count() as u64;
    }
}

/// One page of live products.
struct Page {
    /// The last code looked at; `None`: there are no more.
    last: Option<String>,
    n_live: i64,
    /// Products that the file lacks: id and code.
    missing: Vec<(i64, String)>,
}

async fn page(
    conn: &mut PgConnection,
    tenant: &str,
    after: &str,
    codes: &FileCodes,
) -> sqlx::Result<Page> {
    // products_code
    const LIVE: &str = "SELECT id, code FROM catalog.products
        WHERE code > $1 AND tenant = $2 AND archived_at IS NULL ORDER BY code LIMIT $3";
    let live: Vec<(i64, String)> = sqlx::query_as(LIVE)
        .bind(after)
        .bind(tenant)
        .bind(PAGE)
        .fetch_all(conn)
        .await?;
    let n_live = i64::try_from(live.len()).unwrap_or(i64::MAX);
    let last = live.last().map(|(_, code)| code.clone());
    let missing = live
        .into_iter()
        .filter(|(_, code)| codes.last(code).is_none());
    Ok(Page {
        last,
        n_live,
        missing: missing.collect(),
    })
}

/// Counts what is missing before anything is written, and says whether so much may be archived:
/// where not, why.
pub(super) async fn guard(
    db: &PgPool,
    tenant: &str,
    plan: &Plan,
    scan: &Scan,
    preview: &mut Preview,
) -> sqlx::Result<(i64, Result<(), String>)> {
    let (mut n_live, mut n_missing, mut after) = (0, 0, String::new());
    loop {
        let mut tx = db.begin().await?;
        load::settle_plans(&mut tx).await?;
        let page = page(&mut tx, tenant, &after, &scan.codes).await?;
        tx.rollback().await?;
        n_live += page.n_live;
        n_missing += i64::try_from(page.missing.len()).unwrap_or(i64::MAX);
        preview.archive(page.missing.into_iter().map(|(_, code)| code));
        match page.last {
            Some(last) => after = last,
            None => break,
        }
    }
    let judged = judge(plan.max_drop_percent, n_live, n_missing, scan.n_unreadable);
    Ok((n_missing, judged))
}

/// Says whether so many products may be archived.
fn judge(max_percent: u8, n_live: i64, n_missing: i64, n_unreadable: u64) -> Result<(), String> {
    if n_missing > 0 && n_unreadable > 0 {
        return Err(format!(
            "{n_unreadable} rows have a code that cannot be read, so it is not known which products \
             the file lacks; nothing was written: mend them, or import with mode upsert"
        ));
    }
    if n_missing.saturating_mul(100) > n_live.saturating_mul(max_percent.into()) {
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = n_missing as f64 * 100.0 / n_live as f64;
        return Err(format!(
            "the file lacks {n_missing} of {n_live} live products, {percent:.1} %, and replace_all \
             may archive at most {max_percent} %; nothing was written: if the file is whole, import \
             it again with a higher max_drop_percent"
        ));
    }
    Ok(())
}

/// Archives the missing products of the next page in the caller's transaction.
///
/// Returns their ids, and the last code looked at; `None` behind the last page. The caller fences
/// behind it, and notes both in the same transaction.
///
/// # Errors
///
/// What Postgres says.
pub(super) async fn archive_page(
    conn: &mut PgConnection,
    import_id: i64,
    tenant: &str,
    after: &str,
    codes: &FileCodes,
) -> sqlx::Result<(Vec<i64>, Option<String>)> {
    const ARCHIVE: &str = "UPDATE catalog.products
        SET archived_at = now(), updated_at = now(), import_id = $2
        WHERE id = ANY ($1) AND archived_at IS NULL RETURNING id";
    load::settle_plans(&mut *conn).await?;
    load::take_turn(&mut *conn, tenant, Turn::Alone).await?;
    let page = page(&mut *conn, tenant, after, codes).await?;
    if page.missing.is_empty() {
        return Ok((Vec::new(), page.last));
    }
    let mut ids: Vec<i64> = page.missing.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    sqlx::query(include_str!("load/before.sql"))
        .bind(&ids)
        .bind(import_id)
        .bind(vec![None::<i64>; ids.len()])
        .execute(&mut *conn)
        .await?;
    let archived = sqlx::query_scalar(ARCHIVE)
        .bind(&ids)
        .bind(import_id)
        .fetch_all(conn)
        .await?;
    Ok((archived, page.last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_within_the_limit_is_allowed() {
        assert_eq!(judge(20, 100, 20, 0), Ok(()));
        assert_eq!(judge(20, 0, 0, 3), Ok(()));
        assert_eq!(judge(100, 5, 5, 0), Ok(()));
        assert_eq!(judge(0, 5, 0, 0), Ok(()));
    }

    #[test]
    fn a_refusal_names_the_figures() {
        let said = judge(20, 6_000, 5_000, 0).unwrap_err();
        for word in [
            "5000 of 6000",
            "83.3 %",
            "at most 20 %",
            "nothing was written",
        ] {
            assert!(said.contains(word), "{said}");
        }
        assert!(judge(100, 10, 1, 2).unwrap_err().contains("2 rows"));
    }
}
