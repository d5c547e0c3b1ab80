//! Objects of S3-compatible stores: where they are, and the signature of a request for one.
//!
//! AWS Signature Version 4 of a GET without a body (docs.aws.amazon.com, "Authenticating Requests:
//! Using the Authorization Header"), by the crates that sign webhooks. A client library would bring
//! an HTTP stack of its own, which connects where it likes: this way the request passes `fetch` and
//! its judgement of addresses like any other.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::{Definition, credential::Credential};

/// SHA-256 of no bytes, in hex: what a GET sends.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An object and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// Scheme, host and port.
    origin: String,
    /// Path, percent-encoded as it is signed.
    path: String,
    region: String,
}

impl Object {
    /// Reads a source's location.
    ///
    /// A store of one's own is asked by path (`ENDPOINT/BUCKET/KEY`); AWS by the bucket's host,
    /// but for names with dots, which no certificate covers.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow the name.
    pub(super) fn of(source: &Definition) -> Result<Self, String> {
        let shape = || "must be s3://BUCKET/KEY".to_owned();
        let rest = source.location.strip_prefix("s3://").ok_or_else(shape)?;
        let (bucket, key) = rest.split_once('/').ok_or_else(shape)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
            return Err("names no bucket: 3 to 63 small letters, digits, '.' and '-'".to_owned());
        }
        if key.is_empty()
            || key.ends_with('/')
            || key.split('/').any(|part| [".", ".."].contains(&part))
        {
            return Err(
                "names no object: a key has no parts '.' and '..' and no '/' at its end".to_owned(),
            );
        }
        let region = source.region.as_deref().unwrap_or("us-east-1");
        let (origin, path) = match &source.endpoint {
            Some(endpoint) => (origin(endpoint)?, format!("/{bucket}/{}", encoded(key))),
            None if bucket.contains('.') => (
                format!("https://s3.{region}.amazonaws.com"),
                format!("/{bucket}/{}", encoded(key)),
            ),
            None => (
                format!("https://{bucket}.s3.{region}.amazonaws.com"),
                format!("/{}", encoded(key)),
            ),
        };
        Ok(Self {
            origin,
            path,
            region: region.to_owned(),
        })
    }

    /// Returns the URL to ask for.
    pub(super) fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    /// Returns the headers of a GET that is made `now`; none without a credential, for public
    /// objects.
    pub(super) fn headers(
        &self,
        credential: Option<&Credential>,
        now: DateTime<Utc>,
    ) -> Vec<(&'static str, String)> {
        let Some(Credential::S3 {
            key_id,
            secret,
            session,
        }) = credential
        else {
            return Vec::new();
        };
        let time = now.format("%Y%m%dT%H%M%SZ").to_string();
        let day = now.format("%Y%m%d").to_string();
        let (_, host) = self.origin.split_once("://").unwrap_or_default();
        let mut headers = vec![
            ("host", host.to_owned()),
            ("x-amz-content-sha256", EMPTY.to_owned()),
            ("x-amz-date", time.clone()),
        ];
        if let Some(session) = session {
            headers.push(("x-amz-security-token", session.expose_secret().to_owned()));
        }
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let names = names.join(";");
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        let request = format!("GET\n{}\n\n{lines}\n{names}\n{EMPTY}", self.path);
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = hex(&Sha256::digest(request));
        let signed = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let secret = format!("AWS4{}", secret.expose_secret());
        let key = [day.as_str(), &self.region, "s3", "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &signed));
        headers.push((
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, \
                 Signature={signature}"
            ),
        ));
        // The client says the host itself, in the same words.
        headers.retain(|(name, _)| *name != "host");
        headers
    }
}

/// Returns scheme, host and port of an endpoint as the client will say them.
fn origin(endpoint: &str) -> Result<String, String> {
    let wrong = || "has an endpoint that is not scheme, host and port".to_owned();
    let (scheme, host) = endpoint.split_once("://").ok_or_else(wrong)?;
    let host = host.strip_suffix('/').unwrap_or(host).to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if host.is_empty() || host.len() > 300 || !host.chars().all(plain) {
        return Err(wrong());
    }
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    Ok(format!("{scheme}://{host}"))
}

/// Encodes a key for the path: everything but unreserved characters and `/`.
fn encoded(key: &str) -> String {
    let mut path = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                path.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => {
                write!(path, "%{byte:02X}").ok();
            }
        }
    }
    path
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes keys of any length; there is no error to be had.
    let mac = Hmac::<Sha256>::new_from_slice(key).ok();
    mac.map_or_else(Vec::new, |mac| {
        mac.chain_update(text).finalize().into_bytes().to_vec()
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").ok(); // cannot fail
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signatures are those that botocore 1.44 computes for the same request.
    #[test]
    fn signs_as_others_do() {
        let source = Definition {
            endpoint: Some("http://minio:9000".into()),
            region: Some("eu-central-1".into()),
            ..Definition::new("s3://shop/ž a+b/ü.csv")
        };
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let signature = |session: Option<&str>| {
            let credential = Credential::S3 {
                key_id: "AKID".into(),
                secret: "sesame/secret+key".into(),
                session: session.map(Into::into),
            };
            let headers = Object::of(&source).unwrap().headers(Some(&credential), now);
            assert!(headers.iter().all(|(name, _)| *name != "host"));
            headers.last().unwrap().1.clone()
        };
        assert_eq!(
            signature(None),
            "AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-central-1/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
             Signature=05758ee073f16109ddc51a7122f16bbace5efd78dea51a74f183204b3042e4d4"
        );
        assert!(signature(Some("TOKEN")).ends_with(
            "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, \
             Signature=48d33c8ac394fb26dd512cb264b560ed066d8d933018f9490c26c0e325f70162"
        ));
        assert!(Object::of(&source).unwrap().headers(None, now).is_empty());
    }

    #[test]
    fn a_location_becomes_a_url() {
        let of = |location: &str, endpoint: Option<&str>| {
            let source = Definition {
                endpoint: endpoint.map(str::to_owned),
                ..Definition::new(location)
            };
            Object::of(&source).map(|object| object.url())
        };
        for (location, endpoint, url) in [
            (
                "s3://shop/a.csv",
                None,
                "https://shop.s3.us-east-1.amazonaws.com/a.csv",
            ),
            (
                "s3://my.shop/a.csv",
                None,
                "https://s3.us-east-1.amazonaws.com/my.shop/a.csv",
            ),
            (
                "s3://shop/ž a+b/ü.csv",
                Some("http://Minio:9000/"),
                "http://minio:9000/shop/%C5%BE%20a%2Bb/%C3%BC.csv",
            ),
            (
                "s3://shop/a.csv",
                Some("https://minio:443"),
                "https://minio/shop/a.csv",
            ),
        ] {
            assert_eq!(of(location, endpoint).as_deref(), Ok(url));
        }
        for wrong in [
            "s3://shop",
            "s3://shop/",
            "s3://a/b",
            "s3://Shop/b",
            "s3://shop/a/../b",
        ] {
            assert!(of(wrong, None).is_err(), "{wrong}");
        }
        for endpoint in [
            "minio",
            "http://",
            "http://a@b",
            "http://minio/x",
            "http://minio?x",
        ] {
            assert!(of("s3://shop/a.csv", Some(endpoint)).is_err(), "{endpoint}");
        }
    }
}
