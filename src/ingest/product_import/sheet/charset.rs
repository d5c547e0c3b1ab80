//! The encodings of delimited text: those that browsers know (WHATWG, Encoding Standard).

use std::fmt;

use encoding_rs::{
    Encoding, REPLACEMENT, UTF_8_INIT, UTF_16BE_INIT, UTF_16LE_INIT, WINDOWS_1250_INIT,
    WINDOWS_1252_INIT, X_USER_DEFINED,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An encoding of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Charset(&'static Encoding);

/// Names of ours that are no labels of the standard.
const NAMES: [(&str, Charset); 5] = [
    ("utf8", Charset::UTF_8),
    ("utf16_le", Charset::UTF_16LE),
    ("utf16_be", Charset::UTF_16BE),
    ("windows1252", Charset::WINDOWS_1252),
    ("windows1250", Charset::WINDOWS_1250),
];

impl Charset {
    /// UTF-8, with or without byte order mark.
    pub const UTF_8: Self = Self(&UTF_8_INIT);
    /// UTF-16, low byte first.
    pub const UTF_16LE: Self = Self(&UTF_16LE_INIT);
    /// UTF-16, high byte first.
    pub const UTF_16BE: Self = Self(&UTF_16BE_INIT);
    /// Western European.
    pub const WINDOWS_1252: Self = Self(&WINDOWS_1252_INIT);
    /// Central European: Polish, Czech, Slovak, Hungarian, Slovenian, Croatian.
    pub const WINDOWS_1250: Self = Self(&WINDOWS_1250_INIT);

    /// Finds an encoding by one of its names: `utf8`, `utf16_le`, `windows1250`, or a label of the
    /// standard, as `windows-1251`, `iso-8859-2`, `koi8-r`, `shift_jis`, `gbk`. Case does not matter.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.trim().to_lowercase();
        let of_ours = name.replace('-', "_");
        if let Some((_, charset)) = NAMES.iter().find(|(known, _)| *known == of_ours) {
            return Some(*charset);
        }
        let encoding = Encoding::for_label(name.as_bytes())?;
        let is_text = encoding != REPLACEMENT && encoding != X_USER_DEFINED;
        is_text.then_some(Self(encoding))
    }

    /// Returns its name, as [`Charset::by_name`] takes it.
    #[must_use]
    pub fn name(self) -> String {
        let of_ours = NAMES.iter().find(|(_, charset)| *charset == self);
        of_ours.map_or_else(
            || self.0.name().to_lowercase(),
            |(name, _)| (*name).to_owned(),
        )
    }

    pub(super) const fn encoding(self) -> &'static Encoding {
        self.0
    }

    pub(super) const fn of(encoding: &'static Encoding) -> Self {
        Self(encoding)
    }

    pub(super) fn is_utf16(self) -> bool {
        self == Self::UTF_16LE || self == Self::UTF_16BE
    }
}

impl fmt::Debug for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Serialize for Charset {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Charset {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::by_name(&name).ok_or_else(|| D::Error::custom(format!("no encoding {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_found_by_what_people_call_it() {
        for (name, expected) in [
            ("utf8", "utf8"),
            ("UTF-8", "utf8"),
            ("utf16-le", "utf16_le"),
            ("utf-16be", "utf16_be"),
            ("windows1250", "windows1250"),
            ("cp1250", "windows1250"),
            ("latin1", "windows1252"),
            ("Windows-1251", "windows-1251"),
            ("ISO-8859-2", "iso-8859-2"),
            ("koi8-r", "koi8-r"),
            ("Shift_JIS", "shift_jis"),
            ("gb2312", "gbk"),
        ] {
            let charset = Charset::by_name(name).unwrap();
            assert_eq!(charset.name(), expected, "{name}");
            assert_eq!(Charset::by_name(&charset.name()), Some(charset), "{name}");
            let text = serde_json::to_string(&charset).unwrap();
            assert_eq!(serde_json::from_str::<Charset>(&text).unwrap(), charset);
        }
        for name in ["", "ebcdic", "x-user-defined", "replacement", "iso-2022-kr"] {
            assert_eq!(Charset::by_name(name), None, "{name}");
        }
    }
}
