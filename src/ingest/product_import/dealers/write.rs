//! Dealers into their table: one statement, in smaller parts where the database refuses a row.

use sqlx::{Acquire as _, PgConnection};

use super::field::Headers;
use crate::ingest::product_import::{
    load::{Loaded, Rejects, Target, columns::Columns, refusal, smaller},
    plan::Mode,
    row::{Chunk, ProductRow, locale::Locale},
    sheet::Inspection,
};

/// Writes the rows of a chunk, and its row errors.
pub(super) async fn chunk(
    conn: &mut PgConnection,
    import_id: i64,
    tenant: &str,
    inspection: &Inspection,
    chunk: &Chunk,
) -> sqlx::Result<Loaded> {
    let target = Target {
        import_id,
        tenant,
        sheet: inspection.sheet.as_deref(),
        columns: Columns::NONE,
        mode: Mode::Upsert,
        mapping: Some(&inspection.mapping),
        locale: Locale::default(),
        notes_search: false,
        expects_new: false,
    };
    let headers = Headers::of(&inspection.mapping);
    let mut loaded = Loaded {
        bad: chunk.n_bad,
        ..Loaded::default()
    };
    let mut out = Rejects::default();
    let mut slices = vec![chunk.rows.as_slice()];
    while let Some(slice) = slices.pop() {
        match (try_slice(conn, &target, &headers, slice).await?, slice) {
            (Ok(done), _) => loaded.add(&done),
            (Err(message), [row]) => {
                loaded.refused += 1;
                out.refuse(&target, row, message);
            }
            (Err(_), _) => slices.extend(smaller(slice).rev()),
        }
    }
    out.write(conn, &target, chunk).await?;
    Ok(loaded)
}

async fn try_slice(
    conn: &mut PgConnection,
    target: &Target<'_>,
    headers: &Headers<'_>,
    rows: &[ProductRow],
) -> sqlx::Result<Result<Loaded, String>> {
    let mut savepoint = conn.begin().await?;
    match upsert(&mut savepoint, target, headers, rows).await {
        Ok(loaded) => {
            savepoint.commit().await?;
            Ok(Ok(loaded))
        }
        Err(error) => {
            let message = refusal(&error).ok_or(error)?;
            savepoint.rollback().await?;
            Ok(Err(message))
        }
    }
}

async fn upsert(
    conn: &mut PgConnection,
    target: &Target<'_>,
    headers: &Headers<'_>,
    rows: &[ProductRow],
) -> sqlx::Result<Loaded> {
    let present = headers.present();
    let mut columns = vec![Vec::new(); present.len() - 1];
    let mut attributes = Vec::with_capacity(rows.len());
    for row in rows {
        let (values, rest) = headers.values(row);
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
        attributes.push(rest);
    }
    let codes: Vec<&str> = rows.iter().map(|row| row.code.as_str()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let mut statement = sqlx::query_scalar(include_str!("upsert.sql"))
        .bind(target.import_id)
        .bind(target.tenant)
        .bind(codes)
        .bind(names);
    for column in columns {
        statement = statement.bind(column);
    }
    let written: Vec<bool> = statement
        .bind(attributes)
        .bind(present)
        .fetch_all(conn)
        .await?;
    let n = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let n_new = written.iter().filter(|is_new| **is_new).count();
    Ok(Loaded {
        inserted: n(n_new),
        updated: n(written.len() - n_new),
        unchanged: n(rows.len() - written.len()),
        ..Loaded::default()
    })
}
