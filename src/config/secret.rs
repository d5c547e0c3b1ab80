//! Secrets: how they are shown.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serializer;

/// What stands where a secret was.
const REDACTED: &str = "[redacted]";

#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
pub(super) fn serialize<S: Serializer>(
    value: &Option<SecretString>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(_) => to.serialize_some(REDACTED),
        None => to.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
pub(super) fn serialize_url<S: Serializer>(
    value: &Option<SecretString>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(url) => to.serialize_some(&redact_url(url.expose_secret())),
        None => to.serialize_none(),
    }
}

/// Returns the URL without its password.
///
/// A URL that is not plainly `scheme://[user[:password]@]host[:port][/name][?options]` is hidden
/// altogether: a password with a stray `/` or `@` would otherwise pass for a host or a name.
fn redact_url(url: &str) -> String {
    try_redact_url(url).unwrap_or_else(|| REDACTED.to_owned())
}

fn try_redact_url(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if path.contains(['@', '#']) || !is_host(host) {
        return None;
    }
    let user = user.map(|user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:{REDACTED}@"),
        None => format!("{user}@"),
    });
    let user = user.unwrap_or_default();
    Some(format!("{scheme}://{user}{host}{}", redact_options(path)))
}

fn is_host(host: &str) -> bool {
    let port = match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port,
        _ => "",
    };
    port.chars().all(|c| c.is_ascii_digit())
}

fn redact_options(path: &str) -> String {
    let Some((path, options)) = path.split_once('?') else {
        return path.to_owned();
    };
    let shown = options
        .split('&')
        .map(|option| match option.split_once('=') {
            Some((name, _)) if name.contains("pass") => format!("{name}={REDACTED}"),
            _ => option.to_owned(),
        });
    format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_password() {
        let cases = [
            ("postgres://h/db", "postgres://h/db"),
            ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
            ("postgres://u:p@h/db", "postgres://u:[redacted]@h/db"),
            (
                "postgres://u:p:q@@[::1]:1/db",
                "postgres://u:[redacted]@[::1]:1/db",
            ),
            (
                "postgres:///db?host=/run/pg&password=p&sslmode=require",
                "postgres:///db?host=/run/pg&password=[redacted]&sslmode=require",
            ),
            ("postgres://u:p/q@h/db", "[redacted]"),
            ("postgres://u:p?q@h/db", "[redacted]"),
            ("postgres://u:p#q@h/db", "[redacted]"),
            ("postgres://u:pass", "[redacted]"),
            ("sesame", "[redacted]"),
        ];
        for (url, shown) in cases {
            assert_eq!(redact_url(url), shown, "{url}");
        }
    }
}
