//! Downloads of an import: rejected rows and imported ones, as CSV and as workbooks.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking, yield_now},
    time::timeout,
};

use super::super::export::{Db, Download, ExportError, Part, TableFormat};
use super::turns::Turns;
use crate::{
    http::{AppState, Caller, Path, Problem, Trouble},
    runs::RunId,
};

/// Downloads at once, of all callers and of one: each has a thread.
static DOWNLOADS: LazyLock<Turns> = LazyLock::new(|| Turns::new(4, 2));

/// How long a reader may take for one piece; who takes longer is taken for gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are sent together.
const PIECE: usize = 64 << 10;

/// Pieces that may wait for a slow reader.
const PIECES_AHEAD: usize = 4;

/// `GET /import/{id}/errors.csv`.
pub(crate) async fn errors_csv(
    app: State<Arc<AppState>>,
    caller: Extension<Caller>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, caller, id, Part::Errors, TableFormat::Csv).await
}

/// `GET /import/{id}/errors.xlsx`.
pub(crate) async fn errors_xlsx(
    app: State<Arc<AppState>>,
    caller: Extension<Caller>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, caller, id, Part::Errors, TableFormat::Xlsx).await
}

/// `GET /import/{id}/results.csv`.
pub(crate) async fn results_csv(
    app: State<Arc<AppState>>,
    caller: Extension<Caller>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, caller, id, Part::Results, TableFormat::Csv).await
}

/// `GET /import/{id}/results.xlsx`.
pub(crate) async fn results_xlsx(
    app: State<Arc<AppState>>,
    caller: Extension<Caller>,
    id: Path<i64>,
) -> Result<Response, Problem> {
    download(app, caller, id, Part::Results, TableFormat::Xlsx).await
}

/// Answers with the first piece and writes while it is read; a client that leaves or stalls ends the
/// writing. What cannot even begin is a problem with a status of its own.
async fn download(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    part: Part,
    format: TableFormat,
) -> Result<Response, Problem> {
    let turn = DOWNLOADS.take(&caller.actor).await;
    let turn = turn.ok_or_else(|| Problem::new(Trouble::Unavailable))?;
    let mut conn = app.db.acquire().await?;
    let found = Download::find(&mut conn, &app.blobs, &app.config, RunId(id), part).await?;
    drop(conn);
    let name = format!("attachment; filename=\"{}\"", found.file_name(format));
    let (pieces, written) = mpsc::channel(PIECES_AHEAD);
    let (handle, db) = (Handle::current(), app.db.clone());
    let writing = spawn_blocking(move || {
        let _turn = turn;
        let mut out = Pieces::new(pieces, handle.clone(), PATIENCE);
        let whole = found.write(&handle, Db::Pool(&db), format, &mut out);
        let whole = whole.and_then(|_| Ok(out.finish()?));
        if let Err(error) = &whole {
            tracing::warn!(error = %error, import = id, "a download broke off");
        }
        whole
    });
    // A large workbook may take longer to its first row: the rest of the time is for the answer.
    let patience = app.config.http.request_timeout / 2;
    let (first, rest) = Written { written, writing }.begin(patience).await?;
    let body = stream::iter(first.map(Ok)).chain(rest);
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// A download in the making, where it is sent from.
struct Written {
    written: mpsc::Receiver<Bytes>,
    /// Tells how it ended, once there are no more pieces.
    writing: JoinHandle<Result<(), ExportError>>,
}

impl Written {
    /// Waits for the first piece, at most for `patience`, and returns it with the stream of the others.
    ///
    /// # Errors
    ///
    /// It broke off before there was any.
    async fn begin(
        mut self,
        patience: Duration,
    ) -> Result<(Option<Bytes>, impl Stream<Item = io::Result<Bytes>> + use<>), Problem> {
        let first = timeout(patience, self.written.recv()).await;
        if let Ok(None) = first {
            let ended = (&mut self.writing).await;
            ended.map_err(|_| Problem::new(Trouble::Internal))??;
            return Ok((None, stream::empty().left_stream()));
        }
        let rest = stream::try_unfold(self, Self::next).right_stream();
        Ok((first.ok().flatten(), rest))
    }

    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if let Some(piece) = self.written.recv().await {
            return Ok(Some((piece, self)));
        }
        if matches!(self.writing.await, Ok(Ok(()))) {
            return Ok(None);
        }
        // An error drops what is not sent yet: first the head, above all, goes out.
        yield_now().await;
        // so that the client does not take a part for the whole
        Err(io::Error::other("the download broke off"))
    }
}

/// Where a download is written to: pieces on their way to the client.
struct Pieces {
    /// `None` once the client is gone, or taken for gone.
    client: Option<mpsc::Sender<Bytes>>,
    piece: Vec<u8>,
    handle: Handle,
    patience: Duration,
}

impl Pieces {
    fn new(pieces: mpsc::Sender<Bytes>, handle: Handle, patience: Duration) -> Self {
        Self {
            client: Some(pieces),
            piece: Vec::with_capacity(PIECE),
            handle,
            patience,
        }
    }

    /// Sends what is left of a download that is whole.
    fn finish(mut self) -> io::Result<()> {
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let pieces = self.client.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let sent = async { timeout(self.patience, pieces.send(piece.into())).await };
        match self.handle.block_on(sent) {
            Ok(Ok(())) => {
                self.client = Some(pieces);
                Ok(())
            }
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
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

    /// Does nothing: what breaks off is flushed as well, where it is dropped.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Database(error) => error.into(),
            ExportError::NotFound(_) | ExportError::Gone | ExportError::Forgotten(_) => {
                Self::new(Trouble::NotFound).detail(error.to_string())
            }
            ExportError::Refused(_) | ExportError::Output(_) => {
                tracing::error!(error = %error, "a download cannot begin");
                Self::new(Trouble::Internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stalls_ends_the_writing() {
        let (pieces, mut written) = mpsc::channel(1);
        let handle = Handle::current();
        let writing = spawn_blocking(move || {
            let mut out = Pieces::new(pieces, handle, Duration::from_millis(1));
            let all = vec![0; PIECE];
            out.write_all(&all).unwrap();
            let stalled = out.write_all(&all).unwrap_err().kind();
            // what is dropped may flush, and is not waited for again
            (stalled, out.write_all(&all).unwrap_err().kind())
        });
        let writing = timeout(Duration::from_secs(40), writing).await;
        let kinds = writing.unwrap().unwrap();
        assert_eq!(kinds, (io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe));
        assert_eq!(written.recv().await.unwrap().len(), PIECE);
        assert!(written.recv().await.is_none());
    }
}
