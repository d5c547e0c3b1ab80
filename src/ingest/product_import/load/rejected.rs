//! Rejected rows as their file has them, kept to be mended and imported again.
//!
//! A bad row comes with its cells from the reader. A row that the catalog or the mode rejects is a
//! [`ProductRow`] by then, and is written back as the import's locale has it.

use serde_json::Value;
use sqlx::PgConnection;

use super::super::row::{
    ProductRow, RejectedRow,
    field::Field,
    header::{Column, Mapping, Target as Meaning},
    locale::Locale,
};
use super::{Target, storable};
use crate::db::copy::{CopyIn, Jsonb};

/// Makes the cells of a row that was good.
pub(crate) fn of(row: &ProductRow, mapping: &Mapping, locale: Locale) -> RejectedRow {
    RejectedRow {
        row_no: row.row_no,
        code: Some(row.code.to_string()),
        cells: mapping
            .kept()
            .map(|column| cell(row, column, locale))
            .collect(),
    }
}

fn cell(row: &ProductRow, column: &Column, locale: Locale) -> Option<String> {
    let field = match column.target {
        Meaning::Field(field) => field,
        Meaning::Ignored => return None,
        Meaning::Attribute => {
            return match row.attributes.as_ref()?.get(&column.header)? {
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
        }
    };
    match field {
        Field::Code => Some(row.code.to_string()),
        Field::Name => Some(row.name.to_string()),
        Field::Description => row.description.as_ref().map(ToString::to_string),
        Field::Brand => row.brand.as_ref().map(ToString::to_string),
        Field::Category => row.category.as_ref().map(ToString::to_string),
        Field::Price => row.price.map(|price| locale.number(&price.to_string())),
        Field::Currency => row.currency.as_ref().map(ToString::to_string),
        Field::Stock => row.stock.map(|stock| stock.to_string()),
        Field::Ean => row.ean.as_ref().map(ToString::to_string),
        Field::Url => row.url.as_ref().map(ToString::to_string),
        Field::Weight => row.weight.map(|weight| locale.number(&weight.to_string())),
        Field::UpdatedAt => row
            .updated_at
            .map(|at| at.format("%Y-%m-%dT%H:%M:%S%.f").to_string()),
    }
}

/// Appends rows to `catalog.rejected_rows`.
pub(super) async fn write(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: [&[RejectedRow]; 2],
) -> sqlx::Result<()> {
    const COPY: &str = "COPY catalog.rejected_rows (import_id, sheet, row_no, cells)
        FROM STDIN (FORMAT binary)";
    if rows.iter().all(|rows| rows.is_empty()) {
        return Ok(());
    }
    let sheet = storable(target.sheet.unwrap_or_default());
    let mut copy = CopyIn::begin(conn, COPY).await?;
    for rejected in rows.into_iter().flatten() {
        let cells: Vec<_> = rejected
            .cells
            .iter()
            .map(|cell| cell.as_deref().map(storable))
            .collect();
        copy.row(|row| {
            row.push(target.import_id)
                .push(&*sheet)
                .push(rejected.row_no.cast_signed())
                .push(Jsonb(&cells));
        })
        .await?;
    }
    copy.finish().await?;
    Ok(())
}
