//! What the cells of a spreadsheet are.

use memchr::memmem;
use quick_xml::events::BytesStart;

use super::super::super::row::cell::Cell;

/// What wrote a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// `LibreOffice` or one of its kin. It calculates every formula, and writes one that comes to an
    /// empty text without any value.
    OfficeSuite,
    /// Something else: a formula without a value was not calculated.
    Other,
}

impl Writer {
    /// Returns what a document's part `meta.xml` says.
    pub(super) fn of(meta: &[u8]) -> Self {
        let begin = memmem::find(meta, b"<meta:generator>").unwrap_or(meta.len());
        let said = meta.get(begin..).unwrap_or_default();
        let end = memmem::find(said, b"</").unwrap_or(said.len());
        let said = said.get(..end).unwrap_or_default();
        let kin: [&[u8]; 4] = [b"LibreOffice", b"OpenOffice", b"Collabora", b"NeoOffice"];
        if kin.iter().any(|name| memmem::find(said, name).is_some()) {
            Self::OfficeSuite
        } else {
            Self::Other
        }
    }
}

/// A cell kept while its row is repeated.
pub(super) enum Owned {
    Text(String),
    Number(f64, u8),
    Bool(bool),
    IsoDate(String),
    Duration(String),
    Error(String),
    Uncalculated,
}

impl Owned {
    /// Returns the cell.
    pub(super) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(text) => Cell::Text(text),
            Self::Number(value, digits) => Cell::Number {
                value: *value,
                digits: *digits,
            },
            Self::Bool(value) => Cell::Bool(*value),
            Self::IsoDate(text) => Cell::IsoDate(text),
            Self::Duration(text) => Cell::Duration(text),
            Self::Error(text) => Cell::Error(text),
            Self::Uncalculated => Cell::Uncalculated,
        }
    }
}

/// What a cell's attributes say (`OpenDocument` 1.3, part 3, 19.389); text may stand in its content.
#[derive(Default)]
pub(super) struct Said {
    kind: String,
    is_error: bool,
    is_formula: bool,
    value: Option<String>,
}

impl Said {
    /// Reads the attributes of a cell.
    pub(super) fn of(element: &BytesStart<'_>) -> Self {
        let mut found = Self::default();
        let mut attributes = element.attributes();
        for attribute in attributes.with_checks(false).filter_map(Result::ok) {
            let key = attribute.key.as_ref();
            let text = || {
                let value = attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0);
                value.map(std::borrow::Cow::into_owned).ok()
            };
            match key {
                "office:value-type" => found.kind = text().unwrap_or_default(),
                "table:formula" => found.is_formula = true,
                "calcext:value-type" => found.is_error = text().as_deref() == Some("error"),
                "office:value"
                | "office:date-value"
                | "office:time-value"
                | "office:boolean-value"
                | "office:string-value" => found.value = text(),
                _ => {}
            }
        }
        found
    }

    /// Whether there is nothing in the cell.
    pub(super) fn is_empty(&self, text: &str) -> bool {
        self.kind.is_empty() && self.value.is_none() && text.is_empty() && !self.is_formula
    }

    /// Whether it is a formula without a value; an empty text is one, of which some writers say
    /// nothing at all.
    fn is_uncalculated(&self, text: &str, writer: Writer) -> bool {
        let is_empty_text = match writer {
            Writer::OfficeSuite => matches!(self.kind.as_str(), "" | "string"),
            Writer::Other => self.kind == "string",
        };
        self.is_formula && !is_empty_text && self.value.is_none() && text.is_empty()
    }

    /// Returns the cell, with the text in it.
    pub(super) fn cell(&self, text: &str, writer: Writer) -> Option<Owned> {
        let value = || self.value.clone().unwrap_or_default();
        if self.is_error {
            return Some(Owned::Error(text.to_owned()));
        }
        if self.is_uncalculated(text, writer) {
            return Some(Owned::Uncalculated);
        }
        match self.kind.as_str() {
            "float" | "percentage" | "currency" => match value().parse::<f64>() {
                Ok(number) => Some(Owned::Number(number, leading_zeros(number, text))),
                Err(_) => Some(Owned::Text(value())),
            },
            "boolean" => Some(Owned::Bool(value() == "true")),
            "date" => Some(Owned::IsoDate(value())),
            "time" => Some(Owned::Duration(value())),
            // the attribute, where there is one, is the text without its layout
            "string" => Some(Owned::Text(match &self.value {
                Some(value) if !value.is_empty() => value.clone(),
                _ => text.to_owned(),
            })),
            _ if text.is_empty() => None,
            _ => Some(Owned::Text(text.to_owned())),
        }
    }
}

/// Returns how many digits a whole number is shown with where zeros lead it, as the format `00000`
/// has them; else 0.
fn leading_zeros(number: f64, shown: &str) -> u8 {
    let is_it = shown.len() > 1
        && shown.starts_with('0')
        && shown.bytes().all(|byte| byte.is_ascii_digit())
        && shown.parse() == Ok(number);
    u8::try_from(shown.len())
        .ok()
        .filter(|_| is_it)
        .unwrap_or(0)
}
