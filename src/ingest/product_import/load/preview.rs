//! What a dry run shows beside its counts: the first rows of each sort. Kept in the run's details.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::super::row::{Chunk, ProductRow, RowError};
use super::{Target, Written, columns::Columns};

/// As many rows of each sort are shown.
const N_SHOWN: usize = 10;

/// The first rows of each sort, in the order of the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Preview {
    /// Rows that would make a product, with their values.
    pub new: Vec<Value>,
    /// Rows that would change one, with what it has and would have.
    pub changed: Vec<Value>,
    /// Rows that the catalog has already.
    pub unchanged: Vec<Value>,
    /// What is wrong with which row.
    pub rejected: Vec<Value>,
    /// Products that would be archived.
    pub would_archive: Vec<Value>,
    /// Why nothing would be archived, or the import would be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl Preview {
    /// Takes the first rows of a chunk that was just written and will be rolled back.
    pub(super) async fn take(
        &mut self,
        conn: &mut PgConnection,
        target: &Target<'_>,
        chunk: &Chunk,
        written: &Written,
    ) -> sqlx::Result<()> {
        let mut new = written.new.clone();
        new.sort_unstable();
        let mut changed = written.changed.clone();
        changed.sort_unstable();
        let is_new = |row: &ProductRow| new.binary_search(&row.row_no).is_ok();
        let product = |row: &ProductRow| {
            let found = changed.binary_search_by_key(&row.row_no, |(row_no, _)| *row_no);
            found.ok().and_then(|at| changed.get(at)).map(|(_, id)| *id)
        };
        for row in &chunk.rows {
            let (is_new, product) = (is_new(row), product(row));
            if is_new && self.new.len() < N_SHOWN {
                self.new.push(json!({
                    "sheet": target.sheet, "row": row.row_no, "code": row.code,
                    "values": values(row),
                }));
            } else if let Some(id) = product
                && self.changed.len() < N_SHOWN
            {
                let was = before(conn, target.import_id, id).await?;
                self.changed.push(json!({
                    "sheet": target.sheet, "row": row.row_no, "code": row.code,
                    "changes": changes(&was, row, target.columns),
                }));
            }
        }
        self.take_unchanged(target, chunk, |row| !is_new(row) && product(row).is_none());
        Ok(())
    }

    /// Rows that the database or the mode rejects are among the chunk's good ones: they are told
    /// apart by their errors, which come later.
    fn take_unchanged(
        &mut self,
        target: &Target<'_>,
        chunk: &Chunk,
        is_unchanged: impl Fn(&ProductRow) -> bool,
    ) {
        let room = N_SHOWN.saturating_sub(self.unchanged.len());
        let rows = chunk.rows.iter().filter(|row| is_unchanged(row));
        let shown =
            rows.map(|row| json!({ "sheet": target.sheet, "row": row.row_no, "code": row.code }));
        // enough of them, so that those with errors can be taken out
        self.unchanged.extend(shown.take(room));
    }

    /// Takes the first row errors of a sheet.
    pub(super) fn reject(&mut self, sheet: Option<&str>, errors: [&[RowError]; 2]) {
        let mut errors: Vec<&RowError> = errors.into_iter().flatten().collect();
        errors.sort_by_key(|error| error.row_no);
        let is_rejected = |row: &Value| {
            let row_no = row["row"].as_u64();
            let mut errors = errors.iter();
            row["sheet"].as_str() == sheet
                && errors.any(|error| Some(error.row_no.into()) == row_no)
        };
        self.unchanged.retain(|row| !is_rejected(row));
        let room = N_SHOWN.saturating_sub(self.rejected.len());
        self.rejected.extend(errors.iter().take(room).map(|error| {
            json!({
                "sheet": sheet, "row": error.row_no, "column": error.column, "code": error.code,
                "message": error.message, "value": error.value,
            })
        }));
    }

    /// Takes products that would be archived.
    pub(crate) fn archive(&mut self, codes: impl Iterator<Item = String>) {
        let room = N_SHOWN.saturating_sub(self.would_archive.len());
        let shown = codes.take(room).map(|code| json!({ "code": code }));
        self.would_archive.extend(shown);
    }
}

/// Returns what a product was before the import, as JSON.
async fn before(conn: &mut PgConnection, import_id: i64, product_id: i64) -> sqlx::Result<Value> {
    const BEFORE: &str = "SELECT to_jsonb(c) || jsonb_build_object(
          'price', trim_scale(c.price)::text, 'weight', trim_scale(c.weight)::text,
          'stock', c.qty, 'updated_at', c.source_updated_at)
        FROM catalog.product_changes c WHERE import_id = $1 AND product_id = $2";
    sqlx::query_scalar(BEFORE)
        .bind(import_id)
        .bind(product_id)
        .fetch_one(conn)
        .await
}

/// Returns what a row says, without what it leaves empty.
fn values(row: &ProductRow) -> Map<String, Value> {
    let all = said(row)
        .into_iter()
        .filter(|(_, _, value)| !value.is_null());
    all.map(|(name, _, value)| (name.to_owned(), value))
        .collect()
}

/// Returns what a row would change: `{"price": {"from": "1.5", "to": "2"}}`.
fn changes(was: &Value, row: &ProductRow, columns: Columns) -> Map<String, Value> {
    let mut changes = Map::new();
    for (name, column, to) in said(row) {
        let from = was.get(name).cloned().unwrap_or_default();
        if columns.has(column) && from != to {
            changes.insert(name.to_owned(), json!({ "from": from, "to": to }));
        }
    }
    if was.get("archived_at").is_some_and(|at| !at.is_null()) {
        changes.insert("archived".to_owned(), json!({ "from": true, "to": false }));
    }
    changes
}

/// Returns the fields of a row but its code, each with its column and its value.
fn said(row: &ProductRow) -> [(&'static str, Columns, Value); 12] {
    let number = |number: Option<rust_decimal::Decimal>| number.map(|n| n.normalize().to_string());
    let updated_at = row
        .updated_at
        .map(|at| at.format("%Y-%m-%dT%H:%M:%S%.f").to_string());
    [
        ("name", Columns::NONE, json!(row.name)),
        ("description", Columns::DESCRIPTION, json!(row.description)),
        ("brand", Columns::BRAND, json!(row.brand)),
        ("category", Columns::CATEGORY, json!(row.category)),
        ("price", Columns::PRICE, json!(number(row.price))),
        ("currency", Columns::CURRENCY, json!(row.currency)),
        ("stock", Columns::STOCK, json!(row.stock)),
        ("ean", Columns::EAN, json!(row.ean)),
        ("url", Columns::URL, json!(row.url)),
        ("weight", Columns::WEIGHT, json!(number(row.weight))),
        ("updated_at", Columns::UPDATED_AT, json!(updated_at)),
        ("attributes", Columns::ATTRIBUTES, json!(row.attributes)),
    ]
}
