//! Files of FTP servers.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::{
    credential::Credential,
    take::{Copy, Seen, TakeError, Taken, judged, name_of},
};
use crate::{fetch::FtpRequest, ingest::Context};

/// How long a version must have been there before it is known by its time: that has seconds, and
/// a file may be written twice in one.
const SETTLED: TimeDelta = TimeDelta::seconds(5);

/// Says whether a location is an FTP URL.
pub(super) fn is_of(location: &str) -> bool {
    let (scheme, _) = location.split_once("://").unwrap_or_default();
    scheme.eq_ignore_ascii_case("ftp") || scheme.eq_ignore_ascii_case("ftps")
}

/// Takes a file, unless it has the size and the time of the version seen last.
pub(super) async fn take(
    context: &Context,
    url: &str,
    secret: Option<Credential>,
    seen: &Seen,
    now: DateTime<Utc>,
) -> Result<Taken, TakeError> {
    let login = match secret {
        Some(Credential::Basic { user, password }) => Some((user, password)),
        _ => None, // of no other sort, that was seen to
    };
    let request = FtpRequest {
        url: url.to_owned(),
        login,
        known: seen.stamp.clone(),
    };
    let (max_bytes, limit) = (
        context.config.http.max_upload_bytes,
        context.config.sources.timeout,
    );
    let Some(mut file) = context.fetch.ftp(request, max_bytes, limit).await? else {
        return Ok(Taken::Unchanged(seen.clone()));
    };
    let mut into = Copy::begin(context, file.n_bytes()).await?;
    while let Some(piece) = file.piece().await? {
        into.write(&piece).await?;
    }
    let copy = into.file;
    let now = Seen {
        stamp: file.version().filter(|version| is_settled(version, now)),
        sha256: Some(copy.sha256().to_vec()),
        ..Seen::default()
    };
    Ok(judged(copy, name_of(url), now, seen))
}

/// Says whether a version, its size and its time, is older than [`SETTLED`].
fn is_settled(version: &str, now: DateTime<Utc>) -> bool {
    let time = version.split(' ').nth(1).and_then(|time| time.get(..14));
    let time = time.and_then(|time| NaiveDateTime::parse_from_str(time, "%Y%m%d%H%M%S").ok());
    time.is_some_and(|time| time.and_utc() + SETTLED < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_known_by_its_time_once_that_is_over() {
        let now = "2026-11-28T12:00:10Z".parse().unwrap();
        for (version, is) in [
            ("5 20261128120000", true),
            ("5 20261128120000.123", true),
            ("5 20251128120000", true),
            ("5 20261128120006", false),
            ("5 20261128120010", false),
            ("5 20261128130000", false),
            ("5 20261399999999", false),
            ("5", false),
        ] {
            assert_eq!(is_settled(version, now), is, "{version}");
        }
    }

    #[test]
    fn an_ftp_url_is_known_by_its_scheme() {
        for url in ["ftp://x/a", "FTPS://x/a"] {
            assert!(is_of(url), "{url}");
        }
        for other in ["https://x/ftp://a", "/ftp", "ftp", "sftp://x/a", "s3://x/a"] {
            assert!(!is_of(other), "{other}");
        }
    }
}
