//! The one server that a client may be made for.

use reqwest::Url;

use super::{FetchError, target::LONGEST_URL};

/// A server as the operator names it, and no user can: scheme, host and port, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
    /// Whether its address may be none of the public Internet.
    may_be_private: bool,
}

impl Origin {
    /// Reads `http://host:port` or `https://host:port`. With `may_be_private` the host may be at a
    /// private address: that holds for this origin alone, whatever `fetch.allow_private` says.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL.
    pub fn parse(text: &str, may_be_private: bool) -> Result<Self, FetchError> {
        let url = Url::parse(text).map_err(|_| FetchError::BadUrl("it does not parse"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme);
        }
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !is_bare || text.len() > LONGEST_URL {
            let why = "it is to be a server's: scheme, host and port, nothing else";
            return Err(FetchError::BadUrl(why));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host: host.ok_or(FetchError::BadUrl("it has no host"))?.to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
            may_be_private,
        })
    }

    /// Returns the URL of a path, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}:{}{path}", self.scheme, self.host, self.port)
    }

    /// Says whether it may be at an address that is none of the public Internet.
    pub(super) const fn may_be_private(&self) -> bool {
        self.may_be_private
    }

    /// Says whether a URL is of this server.
    pub(super) fn is_of(&self, url: &Url, host: &str, port: u16) -> bool {
        self.scheme == url.scheme() && self.host == host && self.port == port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, fetch::target::Rules};

    fn rules(origin: &str, may_be_private: bool) -> Rules {
        let origin = Origin::parse(origin, may_be_private).unwrap();
        Rules::only(&config::Fetch::default(), origin)
    }

    #[test]
    fn a_server_s_url_has_nothing_behind_its_port() {
        for (text, url) in [
            ("http://search:8108", "http://search:8108/x"),
            (
                "https://search.example.com/",
                "https://search.example.com:443/x",
            ),
            ("http://[::1]:80", "http://[::1]:80/x"),
        ] {
            assert_eq!(Origin::parse(text, true).unwrap().url("/x"), url);
        }
        for text in [
            "search:8108",
            "ftp://search",
            "http://user@search:8108",
            "http://:secret@search:8108",
            "http://search:8108/path",
            "http://search:8108?key=1",
            "http://search:8108#part",
            "",
        ] {
            assert!(Origin::parse(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn a_client_of_one_server_asks_no_other() {
        let rules = rules("http://127.0.0.1:8108", true);
        assert!(rules.target("http://127.0.0.1:8108/collections").is_ok());
        for other in [
            "http://127.0.0.1:8109/",
            "https://127.0.0.1:8108/",
            "http://127.0.0.2:8108/",
            "http://localhost:8108/",
            "http://example.com:8108/",
            "http://user@127.0.0.1:8108/",
        ] {
            assert!(rules.target(other).is_err(), "{other}");
        }
    }

    #[test]
    fn private_addresses_are_for_the_server_that_is_allowed_them() {
        let address = "10.1.2.3".parse().unwrap();
        let allowed = rules("http://search.internal:8108", true);
        assert!(allowed.judge_address("search.internal", address).is_ok());
        let plain = rules("http://search.internal:8108", false);
        assert!(plain.judge_address("search.internal", address).is_err());
        let public = "93.184.215.14".parse().unwrap();
        assert!(plain.judge_address("search.internal", public).is_ok());
        // Nobody else's requests are allowed more than before.
        let others = Rules::new(&config::Fetch::default());
        assert!(others.judge_address("search.internal", address).is_err());
        assert!(others.target("http://search.internal:8108/").is_err());
    }
}
