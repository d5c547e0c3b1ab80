//! Gets a file into the blob store, unless it is the one that was seen last.

use std::{fs::File, io, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use nix::sys::statvfs::statvfs;
use tokio::{io::AsyncReadExt as _, task::spawn_blocking, time::timeout};

use super::{
    Definition, Kind,
    credential::{self, Credential, CredentialError},
    ftp,
    place::{self, PlaceError},
    s3,
};
use crate::{
    blob,
    fetch::{Download, FetchError, Request, Response},
    ingest::Context,
};

/// How much of a file is copied at once, in bytes.
const PIECE: usize = 256 << 10;

/// How many bytes are written between two looks at the disk's free space.
const LOOK_EVERY: u64 = 16 << 20;

/// Longest `ETag` or `Last-Modified` that is remembered, in bytes.
const LONGEST_TAG: usize = 1024;

/// Redirects that a URL's answer may make; a signed request has none.
const REDIRECTS: u8 = 5;

/// What tells one version of a file from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Seen {
    #[sqlx(rename = "seen_etag")]
    pub(super) etag: Option<String>,
    #[sqlx(rename = "seen_modified")]
    pub(super) modified: Option<String>,
    #[sqlx(rename = "seen_stamp")]
    pub(super) stamp: Option<String>,
    #[sqlx(rename = "seen_sha256")]
    pub(super) sha256: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is the version seen last; what is to be remembered of it now.
    Unchanged(Seen),
    /// It is another one.
    File {
        file: Box<blob::Writer>,
        /// Its name for people.
        name: String,
        seen: Seen,
    },
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{0}")]
    Location(String),
    #[error("the answer was {status}{advice}")]
    Status {
        status: u16,
        advice: &'static str,
        after: Option<Duration>,
    },
    #[error("the file is larger than {0} bytes (http.max_upload_bytes)")]
    TooLarge(u64),
    #[error("the file took longer than {0:?} (sources.timeout)")]
    TooSlow(Duration),
    #[error("the file changed while it was read")]
    Changing,
    #[error(
        "the disk of the storage folder would have less than {0} bytes left (sources.min_free_bytes)"
    )]
    NoRoom(u64),
    #[error("the file cannot be copied: {0}")]
    Io(#[from] io::Error),
}

impl TakeError {
    /// Says whether another attempt a little later may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Place(error) => error.is_transient(),
            Self::Fetch(error) => !is_final(error),
            Self::Credential(_) | Self::Location(_) | Self::TooLarge(_) => false,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::TooSlow(_) | Self::Changing | Self::NoRoom(_) | Self::Io(_) => true,
        }
    }

    /// Returns how long the other side asked to be left alone.
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            _ => None,
        }
    }
}

/// Says whether the same request would meet the same end a little later.
fn is_final(error: &FetchError) -> bool {
    use FetchError::{Encoding, Ftp, Redirect, TooLarge, TooManyRedirects};
    match error {
        Encoding | Redirect(_) | TooLarge(_) | TooManyRedirects(_) => true,
        Ftp { code, .. } => *code >= 500,
        _ => error.is_final(),
    }
}

/// Takes a source's file, unless it is the version `seen`.
///
/// `now` is the database's time, for signatures.
pub(super) async fn take(
    context: &Context,
    source: &Definition,
    seen: &Seen,
    now: DateTime<Utc>,
) -> Result<Taken, TakeError> {
    match source.kind() {
        Kind::Path | Kind::Folder => from_path(context, source, seen).await,
        Kind::Url if ftp::is_of(&source.location) => {
            let secret = secret(context, source, &source.location)?;
            ftp::take(context, &source.location, secret, seen, now).await
        }
        Kind::Url => {
            let mut request = Request::get(source.location.clone());
            request.max_redirects = REDIRECTS;
            let secret = secret(context, source, &request.url)?;
            if let Some((name, value)) = secret.and_then(|secret| secret.header()) {
                use secrecy::ExposeSecret as _;
                request
                    .headers
                    .push((name, value.expose_secret().to_owned()));
            }
            from_answer(context, request, seen).await
        }
        Kind::S3 => {
            let object = s3::Object::of(source).map_err(TakeError::Location)?;
            let mut request = Request::get(object.url());
            let secret = secret(context, source, &request.url)?;
            request.headers = object.headers(secret.as_ref(), now);
            // A signature is good for one host.
            request.max_redirects = 0;
            from_answer(context, request, seen).await
        }
    }
}

/// Reads the source's secret, where it has one of the sort its kind needs.
fn secret(
    context: &Context,
    source: &Definition,
    url: &str,
) -> Result<Option<Credential>, TakeError> {
    let Some(name) = &source.secret_ref else {
        return Ok(None);
    };
    let folder = context.config.sources.secrets_dir.as_deref();
    let secret = credential::read(folder, name, &source.tenant, url)?;
    let is_ftp = ftp::is_of(&source.location);
    let fits = match secret {
        Credential::S3 { .. } => source.kind() == Kind::S3,
        Credential::Basic { .. } => source.kind() != Kind::S3,
        Credential::Header(..) => source.kind() != Kind::S3 && !is_ftp,
    };
    if fits {
        return Ok(Some(secret));
    }
    let why = "it is of the wrong sort: s3 for s3://, basic for ftp:// and ftps://, basic, bearer \
               or header for http:// and https://";
    Err(CredentialError::Malformed(name.clone(), why).into())
}

async fn from_path(
    context: &Context,
    source: &Definition,
    seen: &Seen,
) -> Result<Taken, TakeError> {
    let allowed = context.config.sources.allowed_dirs.clone();
    let path = Path::new(&source.location).to_owned();
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let opened = spawn_blocking(move || {
        let file = place::open_path(&allowed, &path)?;
        let stamp = place::stamp(&file)?;
        Ok::<_, TakeError>((file, stamp))
    });
    let (file, stamp) = opened.await.map_err(io::Error::other)??;
    if seen.stamp.as_ref() == Some(&stamp) {
        return Ok(Taken::Unchanged(seen.clone()));
    }
    let copy = copy(context, &file, place::stamp, &stamp).await?;
    let now = Seen {
        stamp: Some(stamp),
        sha256: Some(copy.sha256().to_vec()),
        ..Seen::default()
    };
    Ok(judged(copy, name, now, seen))
}

/// Copies an open file into the store; `stamp` must find it the same version before and after.
pub(super) async fn copy(
    context: &Context,
    file: &File,
    stamp: fn(&File) -> io::Result<String>,
    before: &str,
) -> Result<blob::Writer, TakeError> {
    let limit = context.config.sources.timeout;
    let copied = timeout(limit, copy_all(context, file.try_clone()?));
    let copy = copied.await.map_err(|_| TakeError::TooSlow(limit))??;
    if stamp(file)? == before {
        Ok(copy)
    } else {
        Err(TakeError::Changing)
    }
}

async fn copy_all(context: &Context, file: File) -> Result<blob::Writer, TakeError> {
    let mut into = Copy::begin(context, Some(file.metadata()?.len())).await?;
    let mut file = tokio::fs::File::from_std(file);
    let mut piece = vec![0; PIECE];
    loop {
        let n_bytes = file.read(&mut piece).await?;
        if n_bytes == 0 {
            return Ok(into.file);
        }
        into.write(piece.get(..n_bytes).unwrap_or_default()).await?;
    }
}

/// A file on its way into the store, within its limits.
pub(super) struct Copy {
    pub(super) file: blob::Writer,
    max_bytes: u64,
    min_free_bytes: u64,
    looked_at: u64,
}

impl Copy {
    pub(super) async fn begin(context: &Context, declared: Option<u64>) -> Result<Self, TakeError> {
        let max_bytes = context.config.http.max_upload_bytes;
        if declared.is_some_and(|n_bytes| n_bytes > max_bytes) {
            return Err(TakeError::TooLarge(max_bytes));
        }
        let copy = Self {
            file: context.blobs.create().await?,
            max_bytes,
            min_free_bytes: context.config.sources.min_free_bytes,
            looked_at: 0,
        };
        copy.look_for_room(declared.unwrap_or(0))?;
        Ok(copy)
    }

    pub(super) async fn write(&mut self, piece: &[u8]) -> Result<(), TakeError> {
        if self.file.size_bytes() + piece.len() as u64 > self.max_bytes {
            return Err(TakeError::TooLarge(self.max_bytes));
        }
        if self.file.size_bytes() - self.looked_at >= LOOK_EVERY {
            self.looked_at = self.file.size_bytes();
            self.look_for_room(0)?;
        }
        Ok(self.file.write(piece).await?)
    }

    /// Fails where the disk would be left with too little.
    fn look_for_room(&self, n_to_come: u64) -> Result<(), TakeError> {
        let disk = statvfs(self.file.path()).map_err(io::Error::from)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < self.min_free_bytes.saturating_add(n_to_come) {
            return Err(TakeError::NoRoom(self.min_free_bytes));
        }
        Ok(())
    }
}

async fn from_answer(
    context: &Context,
    mut request: Request,
    seen: &Seen,
) -> Result<Taken, TakeError> {
    match (&seen.etag, &seen.modified) {
        (Some(etag), _) => request.headers.push(("if-none-match", etag.clone())),
        (None, Some(at)) => request.headers.push(("if-modified-since", at.clone())),
        (None, None) => {}
    }
    let (max_bytes, limit) = (
        context.config.http.max_upload_bytes,
        context.config.sources.timeout,
    );
    let mut answer = context.fetch.download(request, max_bytes, limit).await?;
    match answer.head.status {
        304 if seen.sha256.is_some() => return Ok(Taken::Unchanged(seen.clone())),
        200 => {}
        status => return Err(refused(status, &answer.head)),
    }
    let copy = receive(context, &mut answer).await?;
    let tag = |name: &str| {
        let value = answer.head.header(name)?;
        (value.len() <= LONGEST_TAG).then(|| value.to_owned())
    };
    let now = Seen {
        etag: tag("etag"),
        modified: tag("last-modified"),
        stamp: None,
        sha256: Some(copy.sha256().to_vec()),
    };
    Ok(judged(copy, name_of(&answer.head.url), now, seen))
}

async fn receive(context: &Context, answer: &mut Download) -> Result<blob::Writer, TakeError> {
    let declared = answer.head.header("content-length");
    let declared = declared.and_then(|length| length.parse().ok());
    let mut into = Copy::begin(context, declared).await?;
    while let Some(piece) = answer.piece().await? {
        into.write(&piece).await?;
    }
    Ok(into.file)
}

fn refused(status: u16, answer: &Response) -> TakeError {
    let advice = match status {
        301 | 302 | 307 | 308 => ", a redirect: is it another region or endpoint?",
        401 | 403 => ", not allowed: does the secret fit?",
        404 | 410 => ", not there",
        _ => "",
    };
    let seconds = answer.header("retry-after").and_then(|s| s.parse().ok());
    let after = seconds.map(|s: u32| Duration::from_secs(u64::from(s.min(3600))));
    TakeError::Status {
        status,
        advice,
        after,
    }
}

/// Compares a file with the version seen last.
pub(super) fn judged(file: blob::Writer, name: String, now: Seen, before: &Seen) -> Taken {
    if now.sha256 == before.sha256 {
        Taken::Unchanged(now)
    } else {
        Taken::File {
            file: Box::new(file),
            name,
            seen: now,
        }
    }
}

/// Returns the file's name in a URL, for people.
pub(super) fn name_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (_, rest) = path.split_once("://").unwrap_or(("", path));
    let last = rest.split('/').skip(1).last().unwrap_or_default();
    let decoded = decoded(last);
    let shown = decoded.chars().filter(|c| !c.is_control() && *c != '/');
    match shown.take(255).collect::<String>().trim() {
        "" => "download".to_owned(),
        name => name.to_owned(),
    }
}

/// Undoes percent-encoding; what is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match byte {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc};

    use sqlx::PgPool;

    use super::*;
    use crate::{config::Config, fetch::Fetcher};

    /// What a job is lent, with a database that nobody asks.
    async fn context(storage: &Path, change: impl FnOnce(&mut Config)) -> Context {
        let mut config = Config::default();
        config.sources.min_free_bytes = 0;
        change(&mut config);
        Context {
            db: PgPool::connect_lazy("postgres://127.0.0.1:1/nobody").unwrap(),
            blobs: blob::Store::open(storage).await.unwrap(),
            fetch: Fetcher::new(&config.fetch),
            config: Arc::new(config),
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_while_it_is_copied_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path(), |_| ()).await;
        let path = dir.path().join("products.csv");
        for stamp in [place::stamp, place::entry_stamp] {
            std::fs::write(&path, "code,name\nA,a\n").unwrap();
            let file = File::open(&path).unwrap();
            let before = stamp(&file).unwrap();
            let copied = copy(&context, &file, stamp, &before).await.unwrap();
            assert_eq!(copied.size_bytes(), 14);
            // who writes it is not done yet
            let mut rest = File::options().append(true).open(&path).unwrap();
            rest.write_all(b"B,b\n").unwrap();
            let torn = copy(&context, &File::open(&path).unwrap(), stamp, &before).await;
            let error = torn.map(drop).unwrap_err();
            assert!(matches!(error, TakeError::Changing), "{error}");
            assert!(error.is_transient());
        }
    }

    #[tokio::test]
    async fn a_file_is_no_larger_than_it_may_be_whatever_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let small = context(dir.path(), |config| {
            config.http.max_upload_bytes = 13;
        })
        .await;
        let path = dir.path().join("products.csv");
        std::fs::write(&path, "code,name\nA,a\n").unwrap();
        // the second one says that it has no bytes, and has some
        for path in [path.as_path(), Path::new("/proc/self/maps")] {
            let file = File::open(path).unwrap();
            let error = copy_all(&small, file).await.map(drop).unwrap_err();
            assert!(matches!(error, TakeError::TooLarge(13)), "{error}");
            assert!(!error.is_transient());
        }
        // what says so is refused before any of it comes
        let said = |n_bytes| Copy::begin(&small, Some(n_bytes));
        assert!(said(13).await.is_ok());
        let error = said(14).await.map(drop).unwrap_err();
        assert!(matches!(error, TakeError::TooLarge(13)), "{error}");
        let full = context(dir.path(), |config| {
            config.sources.min_free_bytes = u64::MAX;
        })
        .await;
        let error = copy_all(&full, File::open(&path).unwrap()).await;
        let error = error.map(drop).unwrap_err();
        assert!(matches!(error, TakeError::NoRoom(_)), "{error}");
        let left = std::fs::read_dir(dir.path().join("blobs")).unwrap();
        assert_eq!(left.count(), 0, "what is not taken is not kept");
    }

    #[test]
    fn a_url_has_a_name_for_people() {
        for (url, name) in [
            ("https://example.com/a/products.csv?x=y", "products.csv"),
            ("https://example.com/%C5%BElu%C5%A5%20k.csv", "žluť k.csv"),
            ("https://example.com/a%2Fb%0a.csv", "ab.csv"),
            ("https://example.com/", "download"),
            ("https://example.com", "download"),
            ("https://example.com/100%", "100%"),
        ] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }
}
