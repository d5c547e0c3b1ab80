//! The keys that sign deliveries, and the signature.
//!
//! A key is given as the Standard Webhooks specification writes it: `whsec_` and 24 to 64 bytes in
//! base64. It lives in a file, one of a folder; a webhook has the file's name only. Several lines
//! are several keys, and a delivery is signed with each: that is how a key is changed without a
//! moment at which the receiver knows the wrong one. A line `tenant NAME`, where there is one, says
//! whose webhooks may use it; callers bound to tenants may only name secrets that say so.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

/// What every key begins with.
const PREFIX: &str = "whsec_";

/// How long a key may be, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most keys of one file.
const MOST_KEYS: usize = 5;

/// Largest file of keys, in bytes.
const LARGEST_FILE: u64 = 4096;

/// Why there is nothing to sign with. The text has the secret's name and never its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No folder is configured.
    #[error("no secret {0}: webhooks.secrets_dir is not set, and neither is CREDENTIALS_DIRECTORY")]
    NoFolder(String),
    /// A name that leads elsewhere.
    #[error("a secret's name is plain letters, digits, '.', '_' and '-'")]
    BadName,
    /// The file cannot be read.
    #[error("no secret {name}: cannot read {path}: {error}")]
    Unreadable {
        /// The secret's name.
        name: String,
        /// The file that was tried.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The file holds something else.
    #[error(
        "secret {0} is none: expected lines of whsec_ and 24 to 64 bytes in base64, and perhaps one \
         of `tenant NAME`"
    )]
    Malformed(String),
    /// It is another tenant's.
    #[error("secret {0} is not for this: its file says for whom it may be used")]
    NotForThis(String),
}

/// What one webhook's deliveries are signed with.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<SecretSlice<u8>>,
    /// Whose webhooks may use them; `None`: everybody's.
    tenant: Option<String>,
}

impl Keys {
    /// Reads the keys of a name from the folder of secrets, for a tenant's webhook.
    ///
    /// # Errors
    ///
    /// No folder, no such file, one without keys, or one that is another tenant's.
    pub fn read(folder: Option<&Path>, name: &str, tenant: &str) -> Result<Self, KeyError> {
        if !is_secret_name(name) {
            return Err(KeyError::BadName);
        }
        let folder = folder.ok_or_else(|| KeyError::NoFolder(name.to_owned()))?;
        let path = folder.join(name);
        let read = read(&path).map_err(|error| KeyError::Unreadable {
            name: name.to_owned(),
            path: path.display().to_string(),
            error,
        })?;
        let keys = Self::parse(name, &read)?;
        if keys.tenant.as_deref().is_none_or(|whose| whose == tenant) {
            Ok(keys)
        } else {
            Err(KeyError::NotForThis(name.to_owned()))
        }
    }

    /// Reads the keys of a file's text.
    fn parse(name: &str, text: &SecretString) -> Result<Self, KeyError> {
        let lines = text.expose_secret().lines().map(str::trim);
        let (mut keys, mut tenants) = (Vec::new(), Vec::new());
        for line in lines.filter(|line| !line.is_empty()) {
            match line.strip_prefix("tenant ") {
                Some(tenant) => tenants.push(tenant.trim().to_owned()),
                None => keys.push(key(line)),
            }
        }
        let keys: Option<Vec<_>> = keys.into_iter().collect();
        match keys {
            Some(keys) if (1..=MOST_KEYS).contains(&keys.len()) && tenants.len() <= 1 => Ok(Self {
                keys,
                tenant: tenants.pop(),
            }),
            _ => Err(KeyError::Malformed(name.to_owned())),
        }
    }

    /// Returns the header `webhook-signature` of a message: `v1,` and HMAC-SHA256 over
    /// `id.timestamp.body` in base64, once for each key.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = self.keys.iter().filter_map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!(
                "v1,{}",
                STANDARD.encode(mac.finalize().into_bytes())
            ))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

/// Says whether a secret is there and its file says that it is that tenant's and nobody else's.
#[must_use]
pub fn is_secret_of(folder: Option<&Path>, name: &str, tenant: &str) -> bool {
    Keys::read(folder, name, tenant).is_ok_and(|keys| keys.tenant.is_some())
}

/// Says whether a name is that of a file in the folder of secrets and nothing else: 1 to 100 ASCII
/// letters, digits, `.`, `_` and `-`, without a `.` at its beginning.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

fn read(path: &Path) -> io::Result<SecretString> {
    if std::fs::metadata(path)?.len() > LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read_to_string(path).map(SecretString::from)
}

fn key(line: &str) -> Option<SecretSlice<u8>> {
    let bytes = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    KEY_BYTES.contains(&bytes.len()).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    #[test]
    fn signs_as_the_specification_does() {
        let text = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let keys = Keys::parse("hook", &text).unwrap();
        let signed = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// While a key is changed the receiver knows one of two.
    #[test]
    fn every_key_signs() {
        let (old, new) = (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        );
        let sign = |text: String| {
            let keys = Keys::parse("hook", &SecretString::from(text)).unwrap();
            keys.sign("msg_1", 1_614_265_330, b"{}")
        };
        let both = sign(format!("{new}\n{old}\n"));
        let each = [sign(new.to_owned()), sign(old.to_owned())];
        assert_eq!(both, each.join(" "));
        assert_ne!(each[0], each[1]);
    }

    #[test]
    fn a_file_has_one_to_five_keys() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let parse = |text: String| Keys::parse("hook", &SecretString::from(text));
        assert_eq!(parse(format!("\n{one}\n {one} \n")).unwrap().keys.len(), 2);
        for wrong in [
            String::new(),
            "sesame".into(),
            "whsec_".into(),
            "whsec_c2VzYW1l".into(),
            format!("{one}\nsesame"),
            format!("tenant a\ntenant b\n{one}"),
            "tenant sesame".into(),
            format!("{one}\n").repeat(6),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("secret hook is none"), "{error}");
            assert!(
                !error.contains("sesame") && !error.contains("MfKQ"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hook"), "sesame").unwrap();
        for name in ["", "../hook", "/etc/passwd", ".hidden", "a/b", "a b", "a\0"] {
            let error = Keys::read(Some(folder.path()), name, "a").unwrap_err();
            assert!(matches!(error, KeyError::BadName), "{name}: {error}");
        }
        let absent = Keys::read(Some(folder.path()), "absent", "a").unwrap_err();
        assert!(matches!(absent, KeyError::Unreadable { .. }), "{absent}");
        let none = Keys::read(None, "hook", "a").unwrap_err();
        assert!(none.to_string().contains("webhooks.secrets_dir"), "{none}");
        let large = folder.path().join("large");
        std::fs::write(large, "x".repeat(5000)).unwrap();
        assert!(Keys::read(Some(folder.path()), "large", "a").is_err());
    }

    #[test]
    fn a_tenants_secret_signs_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for (name, text) in [
            ("all", one.to_owned()),
            ("acme", format!("{one}\ntenant acme\n")),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let read = |name, tenant| Keys::read(Some(folder.path()), name, tenant);
        assert!(read("all", "acme").is_ok() && read("all", "other").is_ok());
        assert!(read("acme", "acme").is_ok());
        let error = read("acme", "other").unwrap_err();
        assert!(matches!(error, KeyError::NotForThis(_)), "{error}");
        let is_of = |name, tenant| is_secret_of(Some(folder.path()), name, tenant);
        assert!(is_of("acme", "acme"));
        for (name, tenant) in [("acme", "other"), ("all", "acme"), ("none", "acme")] {
            assert!(!is_of(name, tenant), "{name} {tenant}");
        }
    }
}
