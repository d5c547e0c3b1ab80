//! Downloads of an import: rejected rows and imported ones, as CSV and as workbooks.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

use super::export::{Download, ExportError, Part, TableFormat};
use crate::{
    http::{AppState, Path, Problem, Trouble},
    runs::RunId,
};

/// Downloads at once: each has a thread and a connection.
static DOWNLOADS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(4)));

/// Bytes that are sent together.
const PIECE: usize = 64 << 10;

/// Pieces that may wait for a slow reader.
const PIECES_AHEAD: usize = 4;

/// `GET /import/{id}/errors.csv`.
pub(crate) async fn errors_csv(
    app: State<Arc<AppState>>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, id, Part::Errors, TableFormat::Csv).await
}

/// `GET /import/{id}/errors.xlsx`.
pub(crate) async fn errors_xlsx(
    app: State<Arc<AppState>>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, id, Part::Errors, TableFormat::Xlsx).await
}

/// `GET /import/{id}/results.csv`.
pub(crate) async fn results_csv(
    app: State<Arc<AppState>>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, id, Part::Results, TableFormat::Csv).await
}

/// `GET /import/{id}/results.xlsx`.
pub(crate) async fn results_xlsx(
    app: State<Arc<AppState>>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, id, Part::Results, TableFormat::Xlsx).await
}

/// Answers at once and writes while it is read; a client that leaves ends the writing.
async fn download(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
    part: Part,
    format: TableFormat,
) -> Result<Response, Problem> {
    let turn = Arc::clone(&DOWNLOADS).acquire_owned().await;
    let turn = turn.map_err(|_| Problem::new(Trouble::Unavailable))?;
    let mut conn = app.db.acquire().await?;
    let found = Download::find(&mut conn, &app.blobs, &app.config, RunId(id), part).await?;
    let name = format!("attachment; filename=\"{}\"", found.file_name(format));
    let (pieces, mut written) = mpsc::channel(PIECES_AHEAD);
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let out = Pieces::new(pieces.clone());
        if let Err(error) = found.write(&handle, &mut conn, format, out) {
            tracing::warn!(error = %error, import = id, "a download broke off");
            // so that the client does not take a part for the whole
            drop(pieces.blocking_send(Err(io::Error::other("the download broke off"))));
        }
        drop(turn);
    });
    let stream = futures::stream::poll_fn(move |cx| written.poll_recv(cx));
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Where a download is written to: pieces on their way to the client.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(pieces: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            piece: Vec::with_capacity(PIECE),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Database(error) => error.into(),
            ExportError::NotFound(_) | ExportError::Gone => {
                Self::new(Trouble::NotFound).detail(error.to_string())
            }
            ExportError::Refused(_) | ExportError::Output(_) => {
                tracing::error!(error = %error, "a download cannot begin");
                Self::new(Trouble::Internal)
            }
        }
    }
}
