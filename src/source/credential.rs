//! How to log in at a source: a file of `sources.secrets_dir`, found by its name.
//!
//! Each line is a word and what belongs to it:
//!
//! ```text
//! basic USER:PASSWORD        or
//! bearer TOKEN               or
//! header x-api-key: VALUE    or
//! s3 KEY_ID SECRET_KEY [SESSION_TOKEN]
//! for https://files.example.com      or for ftps://files.example.com
//! tenant acme
//! ```
//!
//! `for` names the one origin that the secret is sent to: whoever may add a source could else have
//! it sent to a server of their own. It must be there but for `s3`, whose secret signs and is never
//! sent. `tenant`, where it is there, says whose sources may use it.

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};

/// Largest file, in bytes.
const LARGEST_FILE: u64 = 8192;

/// Headers that a secret may be sent in.
const HEADERS: [&str; 6] = [
    "authorization",
    "x-api-key",
    "api-key",
    "private-token",
    "x-auth-token",
    "x-access-token",
];

/// Why there is no secret. The text has its name and never its content.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("no secret {0}: sources.secrets_dir is not set, and neither is CREDENTIALS_DIRECTORY")]
    NoFolder(String),
    #[error("no secret {name}: its file cannot be read: {error}")]
    Unreadable { name: String, error: io::Error },
    #[error("secret {0} is none: {1}")]
    Malformed(String, &'static str),
    #[error("secret {0} is not for this: its file says where and for whom it may be used")]
    NotForThis(String),
}

/// What a request is sent with.
#[derive(Debug)]
pub(super) enum Credential {
    /// User and password: a header, or the login of an FTP server.
    Basic {
        user: String,
        password: SecretString,
    },
    /// A header.
    Header(&'static str, SecretString),
    /// What S3 requests are signed with.
    S3 {
        key_id: String,
        secret: SecretString,
        session: Option<SecretString>,
    },
}

/// Says whether a name is that of a file in the folder and nothing else.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// Reads the secret of a name, for a request of a tenant's to a URL.
///
/// # Errors
///
/// [`CredentialError`].
pub(super) fn read(
    folder: Option<&Path>,
    name: &str,
    tenant: &str,
    url: &str,
) -> Result<Credential, CredentialError> {
    if !is_name(name) {
        return Err(CredentialError::Malformed(
            String::new(),
            "its name is no plain file name",
        ));
    }
    let folder = folder.ok_or_else(|| CredentialError::NoFolder(name.to_owned()))?;
    let unreadable = |error| CredentialError::Unreadable {
        name: name.to_owned(),
        error,
    };
    let text = load(&folder.join(name)).map_err(unreadable)?;
    let parsed = Parsed::of(text.expose_secret())
        .map_err(|why| CredentialError::Malformed(name.to_owned(), why))?;
    if parsed.allows(tenant, url) {
        Ok(parsed.credential)
    } else {
        Err(CredentialError::NotForThis(name.to_owned()))
    }
}

/// Says whether a secret is there and its file says that it is that tenant's and nobody else's.
#[must_use]
pub fn is_secret_of(folder: Option<&Path>, name: &str, tenant: &str) -> bool {
    let name = name.strip_prefix("secret://").unwrap_or(name);
    let path = folder
        .filter(|_| is_name(name))
        .map(|folder| folder.join(name));
    let text = path.and_then(|path| load(&path).ok());
    text.is_some_and(|text| {
        let parsed = Parsed::of(text.expose_secret());
        parsed.is_ok_and(|parsed| parsed.tenant.as_deref() == Some(tenant))
    })
}

fn load(path: &Path) -> io::Result<SecretString> {
    if std::fs::metadata(path)?.len() > LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read_to_string(path).map(SecretString::from)
}

struct Parsed {
    credential: Credential,
    origin: Option<String>,
    tenant: Option<String>,
}

impl Parsed {
    fn of(text: &str) -> Result<Self, &'static str> {
        let (mut credential, mut origin, mut tenant) = (None, None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(' ').ok_or("a line is a word and a value")?;
            let rest = rest.trim();
            match word {
                "for" => origin = Some(rest.trim_end_matches('/').to_ascii_lowercase()),
                "tenant" => tenant = Some(rest.to_owned()),
                _ if credential.is_some() => return Err("it says twice how to log in"),
                _ => credential = Some(Credential::of(word, rest)?),
            }
        }
        let credential = credential.ok_or("no line basic, bearer, header or s3")?;
        if origin.is_none() && !matches!(credential, Credential::S3 { .. }) {
            return Err(
                "a line `for https://HOST`, or of another scheme, must say where it may be sent",
            );
        }
        Ok(Self {
            credential,
            origin,
            tenant,
        })
    }

    fn allows(&self, tenant: &str, url: &str) -> bool {
        let is_there = |origin: &str| {
            let url = url.to_ascii_lowercase();
            let rest = url.strip_prefix(origin);
            // `https://a.example` is no beginning of `https://a.example.org` or `...example:444`.
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        };
        self.origin.as_deref().is_none_or(is_there)
            && self.tenant.as_deref().is_none_or(|whose| whose == tenant)
    }
}

impl Credential {
    /// Returns the header that it is over HTTP; `None` for one that is none.
    pub(super) fn header(&self) -> Option<(&'static str, SecretString)> {
        match self {
            Self::Basic { user, password } => {
                let pair = format!("{user}:{}", password.expose_secret());
                let value = format!("Basic {}", STANDARD.encode(pair));
                Some(("authorization", SecretString::from(value)))
            }
            Self::Header(name, value) => Some((name, value.clone())),
            Self::S3 { .. } => None,
        }
    }

    fn of(word: &str, rest: &str) -> Result<Self, &'static str> {
        let header = |name, value: String| {
            let is_fine = value.bytes().all(|b| (0x20..0x7f).contains(&b));
            let fine = is_fine.then(|| Self::Header(name, SecretString::from(value)));
            fine.ok_or("a header's value is printable ASCII")
        };
        match word {
            "basic" => {
                let pair = rest.split_once(':');
                let (user, password) = pair.ok_or("basic is followed by USER:PASSWORD")?;
                // Neither a header nor a command of FTP may have a second line.
                if rest.contains(char::is_control) {
                    return Err("user and password have no control characters");
                }
                Ok(Self::Basic {
                    user: user.to_owned(),
                    password: SecretString::from(password),
                })
            }
            "bearer" => header("authorization", format!("Bearer {rest}")),
            "header" => {
                let (name, value) = rest
                    .split_once(':')
                    .ok_or("header is followed by NAME: VALUE")?;
                let known = HEADERS
                    .iter()
                    .find(|known| name.eq_ignore_ascii_case(known));
                let known = known.ok_or("its header is none that a secret is sent in")?;
                header(known, value.trim().to_owned())
            }
            "s3" => {
                let mut words = rest.split_ascii_whitespace();
                match (words.next(), words.next(), words.next(), words.next()) {
                    (Some(key_id), Some(secret), session, None) => Ok(Self::S3 {
                        key_id: key_id.to_owned(),
                        secret: SecretString::from(secret),
                        session: session.map(SecretString::from),
                    }),
                    _ => Err("s3 is followed by KEY_ID SECRET_KEY [SESSION_TOKEN]"),
                }
            }
            _ => Err("a line begins with basic, bearer, header, s3, for or tenant"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, tenant: &str, url: &str) -> Result<Credential, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ops"), text).unwrap();
        let read = read(Some(folder.path()), "ops", tenant, url);
        let error = read.map_err(|error| error.to_string());
        if let Err(error) = &error {
            assert!(!error.contains("sesame"), "{error}");
        }
        error
    }

    #[test]
    fn a_secret_is_a_header_or_signs() {
        let url = "https://files.example.com/a.csv";
        for (line, name, value) in [
            ("basic me:sesame", "authorization", "Basic bWU6c2VzYW1l"),
            ("bearer sesame", "authorization", "Bearer sesame"),
            ("header X-Api-Key: sesame", "x-api-key", "sesame"),
        ] {
            let text = format!("{line}\nfor https://files.example.com/\n");
            let (sent, secret) = of(&text, "default", url).unwrap().header().unwrap();
            assert_eq!((sent, secret.expose_secret()), (name, value));
        }
        let ftp = "basic me:ses:ame\nfor ftps://files.example.com";
        let ftp = of(ftp, "default", "ftps://files.example.com/a.csv").unwrap();
        assert!(!format!("{ftp:?}").contains("ses:ame"));
        let Credential::Basic { user, password } = ftp else {
            panic!("{ftp:?}")
        };
        assert_eq!((user.as_str(), password.expose_secret()), ("me", "ses:ame"));
        let s3 = of("s3 AKID sesame", "default", url).unwrap();
        assert!(matches!(s3, Credential::S3 { session: None, .. }), "{s3:?}");
        assert!(!format!("{s3:?}").contains("sesame"));
    }

    #[test]
    fn a_secret_goes_nowhere_else_and_serves_nobody_else() {
        let text = "bearer sesame\nfor https://files.example.com\ntenant acme";
        assert!(of(text, "acme", "https://files.example.com/a").is_ok());
        assert!(of(text, "acme", "https://FILES.example.com/a").is_ok());
        // What is for TLS is not sent in the clear.
        let text_ftps = "basic me:sesame\nfor ftps://files.example.com";
        assert!(of(text_ftps, "acme", "ftps://files.example.com/a").is_ok());
        assert!(of(text_ftps, "acme", "ftp://files.example.com/a").is_err());
        for (tenant, url) in [
            ("other", "https://files.example.com/a"),
            ("acme", "https://files.example.com.evil.org/a"),
            ("acme", "https://files.example.com:444/a"),
            ("acme", "https://files.example.com@evil.org/a"),
            ("acme", "http://files.example.com/a"),
            ("acme", "https://evil.org/https://files.example.com/"),
        ] {
            assert!(of(text, tenant, url).is_err(), "{tenant} {url}");
        }
    }

    #[test]
    fn a_secret_without_a_tenant_is_no_tenants_own() {
        let folder = tempfile::tempdir().unwrap();
        let line = "bearer sesame\nfor https://files.example.com";
        for (name, text) in [
            ("all", line.to_owned()),
            ("acme", format!("{line}\ntenant acme")),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let is_of = |name: &str| is_secret_of(Some(folder.path()), name, "acme");
        assert!(is_of("acme") && is_of("secret://acme"));
        for name in ["all", "none", "../acme", ""] {
            assert!(!is_of(name), "{name}");
        }
        assert!(!is_secret_of(Some(folder.path()), "acme", "other"));
        assert!(!is_secret_of(None, "acme", "acme"));
    }

    #[test]
    fn what_is_none_is_told_without_its_content() {
        for text in [
            "",
            "sesame",
            "bearer sesame",
            "basic sesame\nfor https://x",
            "basic me:ses\u{0}ame\nfor https://x",
            "header cookie: sesame\nfor https://x",
            "bearer sesame\nbearer sesame\nfor https://x",
            "password sesame",
            "s3 sesame",
        ] {
            assert!(of(text, "default", "https://x/").is_err(), "{text}");
        }
        let none = read(None, "ops", "default", "https://x/").unwrap_err();
        assert!(none.to_string().contains("sources.secrets_dir"), "{none}");
    }

    #[test]
    fn a_name_leads_nowhere_but_to_a_file_of_the_folder() {
        let (dir, text) = (tempfile::tempdir().unwrap(), "s3 AKID sesame");
        let folder = dir.path().join("secrets");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        for name in ["ops", ".hidden", "a b", "sub/ops", "../ops"] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let absolute = dir.path().join("ops");
        let read = |name: &str| read(Some(&folder), name, "default", "https://x/");
        assert!(read("ops").is_ok());
        for name in [
            ".hidden",
            "a b",
            "sub/ops",
            "../ops",
            absolute.to_str().unwrap(),
            "",
            ".",
        ] {
            let why = read(name).unwrap_err().to_string();
            assert!(why.contains("no plain file name"), "{name}: {why}");
        }
    }
}
