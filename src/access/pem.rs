//! RSA public keys in PEM, as far as needed: `PUBLIC KEY` (X.509) and `RSA PUBLIC KEY` (PKCS #1).

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The text is no key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an RSA public key in PEM, of 2048 to 8192 bits")]
pub struct BadKey;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// `rsaEncryption` with its NULL parameters (RFC 8017, A.1).
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Says whether a PEM holds a key that can be used.
///
/// # Errors
///
/// [`BadKey`].
pub fn check(text: &str) -> Result<(), BadKey> {
    public_key(text).map(drop)
}

/// Returns the key's `RSAPublicKey` in DER.
///
/// # Errors
///
/// [`BadKey`].
pub(super) fn public_key(text: &str) -> Result<Vec<u8>, BadKey> {
    let body = |label: &str| {
        let (begin, end) = (
            format!("-----BEGIN {label}-----"),
            format!("-----END {label}-----"),
        );
        let (_, rest) = text.split_once(&begin)?;
        let (body, _) = rest.split_once(&end)?;
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).ok()
    };
    let der = match body("RSA PUBLIC KEY") {
        Some(der) => der,
        None => unwrap(&body("PUBLIC KEY").ok_or(BadKey)?).ok_or(BadKey)?,
    };
    let n_bits = modulus(&der).ok_or(BadKey)?.len() * 8;
    if (2048..=8192).contains(&n_bits) {
        Ok(der)
    } else {
        Err(BadKey)
    }
}

/// Takes the key out of a `SubjectPublicKeyInfo`.
fn unwrap(der: &[u8]) -> Option<Vec<u8>> {
    let (info, rest) = element(der, SEQUENCE)?;
    let (algorithm, key) = element(info, SEQUENCE)?;
    let (bits, end) = element(key, BIT_STRING)?;
    let (unused, key) = bits.split_first()?;
    let is_ours = algorithm == RSA && *unused == 0 && rest.is_empty() && end.is_empty();
    is_ours.then(|| key.to_vec())
}

/// Returns the modulus of an `RSAPublicKey`, without the zero before it.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let (key, rest) = element(der, SEQUENCE)?;
    let (n, _) = element(key, INTEGER)?;
    rest.is_empty().then(|| n.strip_prefix(&[0]).unwrap_or(n))
}

/// Splits off one element of that tag; returns its contents and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let n_bytes = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(n_bytes).filter(|_| n_bytes <= 4)?;
        let length = bytes
            .iter()
            .fold(0, |length, byte| (length << 8) | usize::from(*byte));
        (length, rest)
    };
    rest.split_at_checked(length).filter(|_| *found == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = include_str!("../../tests/it/http/jwt_rsa_public.pem");

    #[test]
    fn a_key_is_found_in_its_wrapping() {
        let der = public_key(PUBLIC).unwrap();
        assert_eq!(modulus(&der).unwrap().len(), 256);
        let pkcs1 = format!(
            "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
            STANDARD.encode(&der)
        );
        assert_eq!(public_key(&pkcs1), Ok(der));
    }

    /// A key of 1,024 bits, which others can find out.
    const SHORT: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQD2vvHdt1Vsv+QpFdGLFS11R+NV
h/ibD/gHlEgZJ1nBUenQU8Lu0hZvPiwcNpJbETYDyywIGeYLduLHQ3J4gV55oJXH
dOZaoqSPcGztuNMJMB7sdq0cwIFqDrOyEIlo6NkT1BzcaeMH1tXns2rGpd+sUbwv
modTuKms56P1e8fsFwIDAQAB
-----END PUBLIC KEY-----";

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = PUBLIC.replace("MIIBI", "MIIBJ");
        let short = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----";
        for wrong in [
            "",
            "s3cret",
            cut.as_str(),
            short,
            SHORT,
            "-----BEGIN PUBLIC KEY-----",
        ] {
            assert_eq!(public_key(wrong), Err(BadKey), "{wrong}");
        }
    }
}
