//! Secrets: where they are read from.
//!
//! A secret is given in its key, in a file that `KEY_file` names, or as a credential of systemd
//! (`LoadCredential=`, see systemd.exec(5)): a file of the folder `$CREDENTIALS_DIRECTORY`.

use std::fs;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::error::Mistake;
use super::load::Sources;
use super::origin::{Origin, Origins};
use super::{Config, origin::Place};

/// What the value of a secret begins with when it names a credential.
const CREDENTIAL: &str = "credential:";

/// One secret and the ways to give it.
struct Secret<'a> {
    key: &'static str,
    file_key: &'static str,
    /// The credential that is taken where nothing else is given.
    credential: &'static str,
    value: &'a mut Option<SecretString>,
    file: &'a mut Option<PathBuf>,
}

/// Puts what secrets refer to in the place of the references.
pub(super) fn resolve(
    config: &mut Config,
    origins: &mut Origins,
    sources: &Sources,
) -> Vec<Mistake> {
    let folder = sources.variable("CREDENTIALS_DIRECTORY").map(Path::new);
    let secrets = [
        Secret {
            key: "database.url",
            file_key: "database.url_file",
            credential: "database-url",
            value: &mut config.database.url,
            file: &mut config.database.url_file,
        },
        Secret {
            key: "http.token",
            file_key: "http.token_file",
            credential: "http-token",
            value: &mut config.http.token,
            file: &mut config.http.token_file,
        },
        Secret {
            key: "auth.jwt_secret",
            file_key: "auth.jwt_secret_file",
            credential: "jwt-secret",
            value: &mut config.auth.jwt_secret,
            file: &mut config.auth.jwt_secret_file,
        },
        Secret {
            key: "auth.jwt_public_key",
            file_key: "auth.jwt_public_key_file",
            credential: "jwt-public-key",
            value: &mut config.auth.jwt_public_key,
            file: &mut config.auth.jwt_public_key_file,
        },
        Secret {
            key: "search.api_key",
            file_key: "search.api_key_file",
            credential: "search-api-key",
            value: &mut config.search.api_key,
            file: &mut config.search.api_key_file,
        },
        Secret {
            key: "mail.password",
            file_key: "mail.password_file",
            credential: "mail-password",
            value: &mut config.mail.password,
            file: &mut config.mail.password_file,
        },
    ];
    let results = secrets.map(|secret| secret.resolve(origins, folder));
    results.into_iter().filter_map(Result::err).collect()
}

impl Secret<'_> {
    fn resolve(mut self, origins: &mut Origins, folder: Option<&Path>) -> Result<(), Mistake> {
        self.keep_stronger(origins)?;
        let given = self.value.as_ref().map(ExposeSecret::expose_secret);
        if let Some(given) = given {
            if let Some(name) = given.strip_prefix(CREDENTIAL) {
                let name = name.to_owned();
                let place = origins.place(self.key);
                *self.value = Some(credential(self.key, &name, folder, place)?);
            } else if given.is_empty() {
                let message = format!("{} is empty", self.key);
                return Err(Mistake::at(origins.place(self.key), message));
            }
        } else if let Some(file) = self.file {
            *self.value = Some(read(self.file_key, file, origins.place(self.file_key))?);
        } else if let Some(path) = folder.map(|folder| folder.join(self.credential))
            && path.exists()
        {
            let place = Place::from(Origin::Credential(path.clone()));
            *self.value = Some(read(self.key, &path, place.clone())?);
            // The weakest layer of all, next to the defaults.
            origins.set(self.key.to_owned(), 0, place);
        }
        Ok(())
    }

    /// Drops the value or the file, whichever a weaker layer gives.
    fn keep_stronger(&mut self, origins: &mut Origins) -> Result<(), Mistake> {
        let (value, file) = (origins.layer(self.key), origins.layer(self.file_key));
        if value.is_some() && value == file {
            let message = format!("{} and {} are both set", self.key, self.file_key);
            let mistake = Mistake::at(origins.place(self.file_key), message);
            return Err(mistake.hint(Some("remove one of them".to_owned())));
        }
        if value < file {
            *self.value = None;
            origins.forget(self.key);
        } else if file < value {
            *self.file = None;
            origins.forget(self.file_key);
        }
        Ok(())
    }
}

/// Reads the credential that the value of `key` names.
fn credential(
    key: &str,
    name: &str,
    folder: Option<&Path>,
    place: Place,
) -> Result<SecretString, Mistake> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    match folder {
        _ if !plain => {
            let message = format!("{key}: a credential has a plain name, as in {CREDENTIAL}NAME");
            Err(Mistake::at(place, message))
        }
        None => {
            let message = format!("{key} names a credential, but CREDENTIALS_DIRECTORY is not set");
            let hint = "add LoadCredential= to the unit, or use the key's _file form";
            Err(Mistake::at(place, message).hint(Some(hint.to_owned())))
        }
        Some(folder) => read(key, &folder.join(name), place),
    }
}

/// Reads a secret from a file, blanks and line ends around it aside.
fn read(key: &str, path: &Path, place: Place) -> Result<SecretString, Mistake> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(Mistake::at(place, format!("{key}: {shown} is empty")))
        }
        Ok(text) => Ok(SecretString::from(text.trim())),
        Err(error) => {
            let message = format!("{key}: cannot read {shown}: {error}");
            Err(Mistake::at(place, message))
        }
    }
}
