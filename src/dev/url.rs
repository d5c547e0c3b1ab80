//! The URL of a private cluster.

use std::path::Path;

/// The superuser of a private cluster.
pub(crate) const USER: &str = "ingestd";

/// Returns the URL of `database` on the server whose socket is in `sockets`.
pub(crate) fn url(sockets: &Path, database: &str) -> String {
    let mut url = format!("postgres://{USER}@localhost/");
    encode(&mut url, database);
    url.push_str("?host=");
    encode(&mut url, &sockets.to_string_lossy());
    url
}

/// Appends `text`, percent-encoded but for what both a path and a query may hold (RFC 3986).
fn encode(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 0xF)]);
        }
    }
}

fn hex_digit(half: u8) -> char {
    char::from_digit(half.into(), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    #[test]
    fn sqlx_understands_it() {
        let parsed: PgConnectOptions = url(Path::new("/tmp/a b%c&d"), "näme").parse().unwrap();
        assert_eq!(parsed.get_username(), USER);
        assert_eq!(parsed.get_database(), Some("näme"));
        assert_eq!(parsed.get_socket().unwrap(), Path::new("/tmp/a b%c&d"));
    }

    #[test]
    fn an_ordinary_folder_stays_readable() {
        let text = url(Path::new("/tmp/ingestd-1"), "ingestd");
        assert_eq!(
            text,
            "postgres://ingestd@localhost/ingestd?host=/tmp/ingestd-1"
        );
    }
}
