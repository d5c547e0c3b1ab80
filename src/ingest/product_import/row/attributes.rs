//! The extra columns of a product: pairs in the order of their headers. Pure.
//!
//! A vector and not a map: a node of the map takes 632 bytes however few pairs are in it, which was
//! half of what a row takes, and millions of rows have one pair or three.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use smol_str::SmolStr;

/// Values by header, each header once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes(Vec<(SmolStr, Value)>);

impl Attributes {
    /// Makes attributes of pairs in any order; of several with one header the last counts.
    #[must_use]
    pub fn new(mut pairs: Vec<(SmolStr, Value)>) -> Self {
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other)); // keeps the order of equals
        pairs.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                std::mem::swap(later, kept);
            }
            is_same
        });
        pairs.shrink_to_fit();
        Self(pairs)
    }

    /// Returns the value of a header.
    #[must_use]
    pub fn get(&self, header: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(header));
        let (_, value) = self.0.get(at.ok()?)?;
        Some(value)
    }

    /// Returns how many headers have a value.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no header has a value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns headers and values, the headers in the order of their UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(header, value)| (&**header, value))
    }
}

impl From<Map<String, Value>> for Attributes {
    fn from(map: Map<String, Value>) -> Self {
        let pairs = map.into_iter();
        Self::new(
            pairs
                .map(|(header, value)| (header.into(), value))
                .collect(),
        )
    }
}

impl From<Attributes> for Map<String, Value> {
    fn from(attributes: Attributes) -> Self {
        let pairs = attributes.0.into_iter();
        pairs
            .map(|(header, value)| (header.into(), value))
            .collect()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(pairs in prop::collection::vec(("[a-dé]{0,2}", 0..9_u8), 0..20)) {
            let pairs: Vec<(SmolStr, Value)> =
                pairs.into_iter().map(|(header, value)| (header.into(), value.into())).collect();
            let map: Map<String, Value> =
                pairs.iter().map(|(header, value)| (header.to_string(), value.clone())).collect();
            let attributes = Attributes::new(pairs);
            for header in ["", "a", "b", "dd", "é", "z"] {
                prop_assert_eq!(attributes.get(header), map.get(header));
            }
            prop_assert_eq!(attributes.len(), map.len());
            prop_assert_eq!(serde_json::to_string(&attributes).unwrap(), Value::from(map).to_string());
        }
    }
}
