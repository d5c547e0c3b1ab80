//! Which FTP URLs may be asked for.

use crate::fetch::{
    FetchError,
    target::{Rules, host_alone, parsed},
};

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    Never,
    /// After `AUTH TLS`.
    Asked,
    /// With the connection.
    AtOnce,
}

/// The port on which TLS begins with the connection.
const TLS_PORT: u16 = 990;

/// A file of an FTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    /// As it is sent: decoded, of one line.
    pub(super) path: String,
}

impl Place {
    /// Reads a URL and judges all of it that can be judged before its host is resolved.
    pub(super) fn of(rules: &Rules, text: &str) -> Result<Self, FetchError> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let is_tls = scheme.eq_ignore_ascii_case("ftps");
        if !is_tls && !scheme.eq_ignore_ascii_case("ftp") {
            return Err(FetchError::BadUrl("it is none of ftp:// or ftps://"));
        }
        if rules.only.is_some() {
            return Err(FetchError::Scheme);
        }
        // The parser knows how hosts of the one are written, and nothing of the other.
        let url = parsed(&format!("ftp:{rest}"))?;
        let host = host_alone(&url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        if !rules.ftp_ports.contains(&port) {
            return Err(FetchError::FtpPort(port));
        }
        rules.judge_host(host)?;
        if url.query().is_some() || url.fragment().is_some() {
            let why = "it has a ? or a #, which are written %3F and %23 in a path";
            return Err(FetchError::BadUrl(why));
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls: match (is_tls, port) {
                (false, _) => Tls::Never,
                (true, TLS_PORT) => Tls::AtOnce,
                (true, _) => Tls::Asked,
            },
            path: path(url.path())?,
        })
    }

    /// Names the server, for errors.
    pub(super) fn shown(&self) -> String {
        let scheme = if self.tls == Tls::Never {
            "ftp"
        } else {
            "ftps"
        };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let port = match self.port {
            21 => String::new(),
            port => format!(":{port}"),
        };
        format!("{scheme}://{open}{}{close}{port}", self.host)
    }
}

/// Returns a URL's path as it is sent. It is decoded first and judged then: a line's end in it
/// would end the command, and what follows would be another one.
fn path(encoded: &str) -> Result<String, FetchError> {
    let bytes = decoded(encoded.strip_prefix('/').unwrap_or(encoded));
    let bytes = bytes.ok_or(FetchError::BadUrl("a % in it begins no %XX"))?;
    let path = String::from_utf8(bytes);
    let path = path.map_err(|_| FetchError::BadUrl("its path is no UTF-8"))?;
    if path.contains(char::is_control) {
        return Err(FetchError::BadUrl("its path has control characters"));
    }
    if path.is_empty() || path.ends_with('/') {
        return Err(FetchError::BadUrl("it names a folder; one file is fetched"));
    }
    Ok(path)
}

/// Undoes percent-encoding; `None` where a `%` is none of it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        if !code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn of(url: &str) -> Result<Place, String> {
        let rules = Rules::new(&config::Fetch::default());
        Place::of(&rules, url).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_is_a_server_and_a_path() {
        for (url, shown, tls, path) in [
            ("ftp://x.test/a.csv", "ftp://x.test", Tls::Never, "a.csv"),
            (
                "FTP://X.test:21/a/b.csv",
                "ftp://x.test",
                Tls::Never,
                "a/b.csv",
            ),
            (
                "ftps://x.test/%C5%BElu%C5%A5%20k.csv",
                "ftps://x.test",
                Tls::Asked,
                "žluť k.csv",
            ),
            (
                "ftps://x.test:990//srv/a%25.csv",
                "ftps://x.test:990",
                Tls::AtOnce,
                "/srv/a%.csv",
            ),
            (
                "ftp://x.test/%2Fsrv/a",
                "ftp://x.test",
                Tls::Never,
                "/srv/a",
            ),
            (
                "ftp://[2606:4700::1]/a",
                "ftp://[2606:4700::1]",
                Tls::Never,
                "a",
            ),
        ] {
            let place = of(url).unwrap();
            assert_eq!((place.shown().as_str(), place.tls), (shown, tls), "{url}");
            assert_eq!(place.path, path, "{url}");
        }
    }

    #[test]
    fn what_nobody_should_ask_for_is_refused() {
        for (url, why) in [
            ("http://x.test/a", "ftp"),
            ("ftp", "ftp"),
            ("ftp://x.test", "folder"),
            ("ftp://x.test/in/", "folder"),
            ("ftp://x.test/a%0d%0aDELE%20b", "control characters"),
            ("ftp://x.test/a%0AB", "control characters"),
            ("ftp://x.test/a%00", "control characters"),
            ("ftp://x.test/a%C2%85", "control characters"),
            ("ftp://x.test/a\r\nDELE b", "control characters"),
            ("ftp://x.test/%ff", "UTF-8"),
            ("ftp://x.test/100%", "%XX"),
            ("ftp://x.test/%+1", "%XX"),
            ("ftp://x.test/a?b", "%3F"),
            ("ftp://x.test/a#b", "%23"),
            ("ftp://me@x.test/a", "a user"),
            ("ftps://me:sesame@x.test/a", "a user"),
            ("ftps://:sesame@x.test/a", "a user"),
            ("ftp://x.test:80/a", "fetch.ftp_ports"),
            ("ftps://x.test:2121/a", "fetch.ftp_ports"),
            ("ftp://127.0.0.1/a", "this machine"),
            ("ftps://2130706433/a", "this machine"),
            ("ftps://0x7f.1/a", "this machine"),
            ("ftps://[::ffff:10.0.0.1]/a", "private"),
            ("ftp:///a", "folder"),
        ] {
            let error = of(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn a_client_of_one_server_asks_no_ftp_server() {
        let origin = crate::fetch::Origin::parse("http://search:21", true).unwrap();
        let rules = Rules::only(&config::Fetch::default(), origin);
        assert!(Place::of(&rules, "ftp://search/a").is_err());
    }
}
