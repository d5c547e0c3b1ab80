//! What a dry run would do, row by row.

use serde_json::Value;

use super::run::in_words;
use crate::ingest::product_import::load::preview::Preview;

/// The first rows of each sort, ready to be shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) refusal: Option<String>,
    pub(super) groups: Vec<Group>,
}

/// Rows of one sort.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) title: &'static str,
    /// What stands in the last column.
    pub(super) says: &'static str,
    pub(super) rows: Vec<Row>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) place: String,
    pub(super) code: String,
    pub(super) text: String,
}

impl Shown {
    /// Reads the preview that a run's details have; `None` where they have none.
    pub(super) fn of(details: &Value) -> Option<Self> {
        let preview: Preview = serde_json::from_value(details.get("preview")?.clone()).ok()?;
        let groups = [
            (
                "New products",
                "Values",
                preview.new,
                new as fn(&Value) -> String,
            ),
            ("Changed products", "Changes", preview.changed, changed),
            ("Unchanged products", "", preview.unchanged, |_| {
                String::new()
            }),
            ("Would be archived", "", preview.would_archive, |_| {
                String::new()
            }),
        ];
        let groups = groups.into_iter().map(|(title, says, rows, text)| {
            let rows = rows.iter().map(|row| Row {
                place: member(row, "row"),
                code: member(row, "code"),
                text: text(row),
            });
            let rows = rows.collect();
            Group { title, says, rows }
        });
        Some(Self {
            refusal: preview.refusal,
            groups: groups.filter(|group| !group.rows.is_empty()).collect(),
        })
    }
}

fn member(row: &Value, name: &str) -> String {
    row.get(name).map(in_words).unwrap_or_default()
}

fn new(row: &Value) -> String {
    member(row, "values")
}

/// Writes changes as `price: 1.5 → 2`.
fn changed(row: &Value) -> String {
    let changes = row.get("changes").and_then(Value::as_object);
    let changes = changes.into_iter().flatten().map(|(name, change)| {
        format!(
            "{name}: {} → {}",
            member(change, "from"),
            member(change, "to")
        )
    });
    changes.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_preview_is_told_in_words() {
        let details = json!({ "preview": {
            "new": [{ "row": 2, "code": "A", "values": { "name": "Saw", "stock": 3 } }],
            "changed": [{ "row": 3, "code": "B",
                          "changes": { "price": { "from": null, "to": "2" } } }],
        } });
        let shown = Shown::of(&details).unwrap();
        let told: Vec<_> = shown
            .groups
            .iter()
            .flat_map(|group| group.rows.iter().map(|row| row.text.as_str()))
            .collect();
        assert_eq!(told, ["name: Saw, stock: 3", "price: nothing → 2"]);
        assert!(Shown::of(&json!({})).is_none());
    }
}
