//! One uploaded file: from a `multipart/form-data` body into the blob store, never in memory.
//!
//! An upload may take as long as it keeps coming: `http.request_timeout` to
//! begin with, and more with every byte. What the multipart reader holds back
//! (it keeps everything until a boundary or the end of a part's head) is
//! limited too, since it sets no limit itself.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{FromRequest as _, Multipart, Request, multipart::MultipartError},
};
use futures::TryStreamExt as _;

use super::{AppState, input::declared_length};
use crate::blob;

/// Bytes that may have come in and not been handed on: boundaries, heads of parts.
const WINDOW_BYTES: u64 = 2 << 20;

/// Bytes of all parts that nobody asked for.
const MAX_OTHER_BYTES: u64 = 1 << 20;

/// A slower upload is given up, in bytes a second.
const MIN_RATE: u64 = 8 << 10;

/// A text field beside the file is kept up to as many bytes, which is what the head of a request may
/// have; longer ones are not kept.
const MAX_FIELD_BYTES: usize = 64 << 10;

/// As many text fields beside the file are kept.
const MAX_FIELDS: usize = 100;

/// A file name is cut to as many characters.
const MAX_NAME_CHARS: usize = 255;

/// A file that has come in whole; dropped, it is gone.
#[derive(Debug)]
pub struct Upload {
    /// Its name as the sender knows it, without folders and control characters; never empty.
    pub file_name: String,
    /// Its bytes, in the blob store under a name of their own.
    pub file: blob::Writer,
    /// Text fields sent along, by name, in their order; at most 100 of at most 64 KiB.
    pub fields: Vec<(String, String)>,
    /// Names of fields that were not kept: too long, too many, or no text.
    pub dropped: Vec<String>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The body is of another type.
    #[error("send the file as multipart/form-data")]
    NotMultipart,
    /// No part has the name asked for.
    #[error("there is no field \"{0}\" with a file")]
    NoFile(&'static str),
    /// Several parts have the name asked for.
    #[error("there are several fields \"{0}\"; send one file at a time")]
    SeveralFiles(&'static str),
    /// The file is larger than `http.max_upload_bytes`.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The most that is taken, in bytes.
        max_bytes: u64,
    },
    /// The body ended too early, or is not what multipart bodies are.
    #[error("the upload is broken: {0}")]
    Broken(String),
    /// The body did not come, or too slowly.
    #[error("the upload came too slowly")]
    Stalled,
    /// The file cannot be stored.
    #[error("the file cannot be stored: {0}")]
    Storage(#[from] io::Error),
}

impl From<MultipartError> for UploadError {
    fn from(error: MultipartError) -> Self {
        Self::Broken(error.body_text())
    }
}

/// Receives the file in the part named `field` into the blob store.
///
/// Dropped while it waits, it leaves nothing behind.
///
/// # Errors
///
/// [`UploadError`]; nothing is left behind.
pub async fn receive(
    app: &AppState,
    request: Request,
    field: &'static str,
) -> Result<Upload, UploadError> {
    let max_bytes = app.config.http.max_upload_bytes;
    let declared = declared_length(request.headers()).unwrap_or(0);
    if declared > max_bytes.saturating_add(MAX_OTHER_BYTES) {
        return Err(UploadError::TooLarge { max_bytes });
    }
    let pace = Pace::new(app.config.http.request_timeout);
    let mut parts = open(request, &pace).await?;
    let (mut found, mut n_other): (Option<Upload>, u64) = (None, 0);
    let (mut fields, mut dropped) = (Vec::new(), Vec::new());
    while let Some(mut part) = pace.wait(parts.next_field()).await? {
        let mut wanted = match part.name() {
            Some(name) if name == field && found.is_some() => {
                return Err(UploadError::SeveralFiles(field));
            }
            Some(name) if name == field => Some(Upload {
                file_name: clean(part.file_name().unwrap_or_default()),
                file: app.blobs.create().await?,
                fields: Vec::new(),
                dropped: Vec::new(),
            }),
            _ => None,
        };
        let name = part.name().map(str::to_owned);
        let mut text = Vec::new();
        while let Some(bytes) = pace.wait(part.chunk()).await? {
            let n_bytes = bytes.len() as u64;
            if let Some(Upload { file, .. }) = &mut wanted {
                if file.size_bytes() + n_bytes > max_bytes {
                    return Err(UploadError::TooLarge { max_bytes });
                }
                file.write(&bytes).await?;
            } else {
                n_other += n_bytes;
                if text.len() <= MAX_FIELD_BYTES {
                    text.extend_from_slice(&bytes);
                }
                if n_other > MAX_OTHER_BYTES {
                    return Err(UploadError::Broken("too much beside the file".to_owned()));
                }
            }
            pace.take(n_bytes);
        }
        if let (None, Some(name)) = (&wanted, name) {
            let is_short = text.len() <= MAX_FIELD_BYTES && fields.len() < MAX_FIELDS;
            match String::from_utf8(text) {
                Ok(text) if is_short => fields.push((name, text)),
                _ => dropped.push(name),
            }
        }
        found = found.or(wanted);
    }
    let found = found.map(|upload| Upload {
        fields,
        dropped,
        ..upload
    });
    found.ok_or(UploadError::NoFile(field))
}

/// Reads the body's parts, holding back no more than the window.
async fn open(request: Request, pace: &Pace) -> Result<Multipart, UploadError> {
    let (parts, body) = request.into_parts();
    let (taken, mut n_come) = (Arc::clone(&pace.taken), 0);
    let watched = body
        .into_data_stream()
        .map_err(io::Error::other)
        .and_then(move |bytes| {
            n_come += bytes.len() as u64;
            let held_back = n_come - taken.load(Ordering::Relaxed).min(n_come);
            let is_fine = held_back <= WINDOW_BYTES;
            let told = || io::Error::other("a boundary or the head of a part does not end");
            std::future::ready(if is_fine { Ok(bytes) } else { Err(told()) })
        });
    let request = Request::from_parts(parts, Body::from_stream(watched));
    let opened = Multipart::from_request(request, &()).await;
    opened.map_err(|_| UploadError::NotMultipart)
}

/// How fast an upload comes.
struct Pace {
    began: Instant,
    grace: Duration,
    taken: Arc<AtomicU64>,
}

impl Pace {
    fn new(grace: Duration) -> Self {
        Self {
            began: Instant::now(),
            grace,
            taken: Arc::default(),
        }
    }

    fn take(&self, n_bytes: u64) {
        self.taken.fetch_add(n_bytes, Ordering::Relaxed);
    }

    /// Waits for the next piece for as long as the pace so far allows.
    async fn wait<T>(
        &self,
        piece: impl Future<Output = Result<T, MultipartError>>,
    ) -> Result<T, UploadError> {
        let earned = Duration::from_secs(self.taken.load(Ordering::Relaxed) / MIN_RATE);
        let until = self.began + self.grace + earned;
        let come = tokio::time::timeout_at(until.into(), piece).await;
        Ok(come.map_err(|_| UploadError::Stalled)??)
    }
}

/// Leaves of a file name what may stand in a message: browsers have sent whole paths.
fn clean(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = last.chars().filter(|c| !c.is_control());
    let cut: String = shown.take(MAX_NAME_CHARS).collect();
    match cut.trim() {
        "" => "upload".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_a_name() {
        for (sent, kept) in [
            ("products.xlsx", "products.xlsx"),
            ("C:\\Users\\me\\products.xlsx", "products.xlsx"),
            ("../../etc/passwd", "passwd"),
            ("a\u{0}b\r\nc.csv", "abc.csv"),
            (" Žluťoučký kůň.xlsx ", "Žluťoučký kůň.xlsx"),
            ("", "upload"),
            ("dir/", "upload"),
            ("\u{7}", "upload"),
        ] {
            assert_eq!(clean(sent), kept, "{sent:?}");
        }
        assert_eq!(clean(&"x".repeat(1000)).len(), MAX_NAME_CHARS);
    }
}
