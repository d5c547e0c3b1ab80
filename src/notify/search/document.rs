//! Documents: what the server is told of a product, and the schema that says what to expect.

use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use serde_json::{Map, Value, json};
use sqlx::FromRow;

use crate::config::Search;

/// A product with what is live of it; everything is null where there is no such product.
#[derive(Debug, Default, FromRow)]
pub(super) struct Product {
    pub(super) tenant: Option<String>,
    pub(super) code: Option<String>,
    pub(super) name: Option<String>,
    description: Option<String>,
    brand: Option<String>,
    category: Option<String>,
    ean: Option<String>,
    url: Option<String>,
    weight: Option<Decimal>,
    /// Seconds since 1970, by the source's wall clock.
    updated_at: Option<i64>,
    price: Option<Decimal>,
    currency: Option<String>,
    qty: Option<i64>,
}

impl Product {
    /// Returns a field's value; `None` where the product has none.
    fn value(&self, field: &str) -> Option<Value> {
        let text = |value: &Option<String>| value.as_deref().map(Value::from);
        let number = |value: &Option<Decimal>| value.and_then(|v| v.to_f64()).map(Value::from);
        match field {
            "code" => text(&self.code),
            "name" => text(&self.name),
            "description" => text(&self.description),
            "brand" => text(&self.brand),
            "category" => text(&self.category),
            "price" => number(&self.price),
            "currency" => text(&self.currency),
            "stock" => self.qty.map(Value::from),
            "ean" => text(&self.ean),
            "url" => text(&self.url),
            "weight" => number(&self.weight),
            "updated_at" => self.updated_at.map(Value::from),
            _ => None,
        }
    }

    /// Returns the document as one line of JSON, with its line end.
    pub(super) fn line(&self, id: i64, version: i64, settings: &Search) -> String {
        let mut document = Map::new();
        document.insert("id".to_owned(), id.to_string().into());
        document.insert("tenant".to_owned(), self.tenant.clone().into());
        document.insert("version".to_owned(), version.into());
        for (field, _) in settings.fields() {
            if let Some(value) = self.value(field) {
                document.insert(field.to_owned(), value);
            }
        }
        format!("{}\n", Value::Object(document))
    }
}

/// Returns the schema of a collection of that name.
pub(super) fn schema(name: &str, settings: &Search) -> Value {
    let mut fields = vec![
        json!({ "name": "tenant", "type": "string", "facet": true }),
        json!({ "name": "version", "type": "int64" }),
    ];
    for (field, facet) in settings.fields() {
        let kind = match field {
            "price" | "weight" => "float",
            "stock" | "updated_at" => "int64",
            _ => "string",
        };
        let required = matches!(field, "code" | "name");
        let index = facet || field != "url"; // shown, not searched
        fields.push(json!({
            "name": field, "type": kind, "optional": !required, "facet": facet, "index": index,
        }));
    }
    json!({ "name": name, "fields": fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> Product {
        Product {
            tenant: Some("acme".into()),
            code: Some("00123".into()),
            name: Some("Line\nbreak \"quoted\"".into()),
            price: Some("12.50".parse().unwrap()),
            qty: Some(3),
            ..Product::default()
        }
    }

    #[test]
    fn a_document_is_one_line_and_leaves_out_what_is_not_there() {
        let line = product().line(7, 9, &Search::default());
        assert!(
            line.ends_with('\n') && line.matches('\n').count() == 1,
            "{line}"
        );
        let document: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({ "id": "7", "tenant": "acme", "version": 9, "code": "00123",
            "name": "Line\nbreak \"quoted\"", "price": 12.5, "stock": 3 });
        assert_eq!(document, expected);
    }

    #[test]
    fn only_fields_that_are_asked_for_are_told() {
        let settings = Search {
            fields: vec!["code".into(), "price:facet".into()],
            ..Search::default()
        };
        let document: Value = serde_json::from_str(&product().line(7, 9, &settings)).unwrap();
        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "id", "price", "tenant", "version"]);
        let schema = schema("c", &settings);
        let of = |name: &str| {
            let fields = schema["fields"].as_array().unwrap().iter();
            fields.filter(|f| f["name"] == name).count()
        };
        assert_eq!((of("code"), of("price"), of("stock")), (1, 1, 0));
        let price = json!({ "name": "price", "type": "float", "optional": true, "facet": true,
            "index": true });
        assert_eq!(schema["fields"][3], price);
    }

    #[test]
    fn every_field_has_a_value_that_fits_its_type() {
        let full = Product {
            description: Some("d".into()),
            brand: Some("b".into()),
            category: Some("c".into()),
            ean: Some("e".into()),
            url: Some("u".into()),
            weight: Some(Decimal::ONE),
            updated_at: Some(1),
            currency: Some("EUR".into()),
            ..product()
        };
        let schema = schema("c", &Search::default());
        for field in &schema["fields"].as_array().unwrap()[2..] {
            let value = full.value(field["name"].as_str().unwrap()).unwrap();
            let fits = match field["type"].as_str().unwrap() {
                "string" => value.is_string(),
                "float" => value.is_f64(),
                _ => value.is_i64(),
            };
            assert!(fits, "{field} {value}");
        }
    }
}
