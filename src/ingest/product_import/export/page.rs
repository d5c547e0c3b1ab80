//! Rejected rows a page at a time: so many rows, or fewer where those are more than so many bytes.

use sqlx::{PgConnection, types::Json};

use crate::runs::RunId;

/// Rows of a page at most.
const ROWS: i64 = 500;

/// A page ends with the row that makes it as many bytes as this.
pub(super) const BYTES: i64 = 4 << 20;

/// Sheet, row number, cells, and columns, codes and messages of the row's errors.
pub(super) type Row = (
    String,
    i32,
    Json<Vec<Option<String>>>,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Returns the rejected rows behind a row of a sheet; none behind the last one.
///
/// # Errors
///
/// What Postgres says.
pub(super) async fn read(
    conn: &mut PgConnection,
    id: RunId,
    (sheet, row_no): (&str, i32),
    n_bytes: i64,
) -> sqlx::Result<Vec<Row>> {
    let page = sqlx::query_as(include_str!("errors.sql"))
        .bind(id)
        .bind(sheet)
        .bind(row_no)
        .bind(ROWS)
        .bind(n_bytes);
    page.fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Database;

    #[tokio::test]
    async fn a_page_ends_at_its_bound_of_bytes() {
        const ROWS: &str = "INSERT INTO catalog.rejected_rows (import_id, sheet, row_no, cells)
            SELECT 7, sheet, n, jsonb_build_array(n::text, CASE WHEN n > 10 THEN repeat('x', 1000) END)
            FROM unnest(ARRAY ['', 'Two']) sheet, generate_series(2, 20) n";
        const ERRORS: &str =
            "INSERT INTO catalog.import_errors (import_id, sheet, row_no, code, message)
            SELECT 7, 'Two', 3, 'required', repeat('y', 5000) FROM generate_series(1, 2)";
        let db = Database::create().await;
        for seed in [ROWS, ERRORS] {
            sqlx::query(seed).execute(db.pool()).await.unwrap();
        }
        let mut conn = db.pool().acquire().await.unwrap();
        let (mut sheet, mut row_no, mut pages) = (String::new(), 0, Vec::new());
        loop {
            let after = (sheet.as_str(), row_no);
            let page = read(&mut conn, RunId(7), after, 3_000).await.unwrap();
            let Some(last) = page.last() else { break };
            pages.push((page.len(), last.1));
            (sheet, row_no) = (last.0.clone(), last.1);
            assert!(page.iter().all(|row| row.2.len() == 2));
            let said = page
                .iter()
                .find(|row| (row.0.as_str(), row.1) == ("Two", 3));
            if let Some(said) = said {
                assert_eq!(said.4.as_deref(), Some("required; required"));
                assert_eq!(said.5.as_ref().unwrap().len(), 10_002);
            }
        }
        assert_eq!(
            pages,
            [
                (12, 13),
                (3, 16),
                (3, 19),
                (3, 3),
                (10, 13),
                (3, 16),
                (3, 19),
                (1, 20)
            ]
        );
    }
}
