//! Progress as it happens: server-sent events of one run.
//!
//! However many look at a run, this process reads it once per look: one task for each run that is
//! looked at, which ends with the run, with the last who looks, or with the server. What it reads
//! goes into a watch channel and not into a queue, since progress is a state: who reads slowly
//! misses steps in between, never the last one, and holds nothing up.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{future::BoxFuture, stream};
use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use twox_hash::XxHash3_64;

use super::{Problem, trouble::Trouble};
use crate::{
    observe::EventStream,
    runs::{self, Run, RunId},
};

/// How often a run that is looked at is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// After as long without news a comment says that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// When a client asks again whose stream ended.
const RETRY: Duration = Duration::from_secs(2);

/// A stream ends then, so that its client shows its credential again.
const LONGEST: Duration = Duration::from_mins(5);

/// Writes what a client is shown of a run: what `GET` answers.
pub(crate) type View =
    Box<dyn Fn(Arc<Run>) -> BoxFuture<'static, Result<String, Problem>> + Send + Sync>;

/// The runs that are looked at, and the streams that look.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: PgPool,
    n_streams: usize,
    streams: Arc<Semaphore>,
    /// Each has a [`Watcher`].
    watched: Mutex<HashMap<RunId, watch::Sender<Arc<Run>>>>,
    ended: CancellationToken,
    readers: TaskTracker,
}

impl Live {
    /// At most `n_streams` are open at once.
    pub(super) fn new(db: PgPool, n_streams: usize) -> Self {
        Self(Arc::new(Inner {
            db,
            n_streams,
            streams: Arc::new(Semaphore::new(n_streams)),
            watched: Mutex::default(),
            ended: CancellationToken::new(),
            readers: TaskTracker::new(),
        }))
    }

    /// Ends every stream, now and from now on; returns once nothing is read any more.
    pub(super) async fn end(&self) {
        self.0.ended.cancel();
        self.0.readers.close();
        self.0.readers.wait().await;
    }

    /// Answers with what `view` shows of a run, whenever that changes, until the run has ended.
    ///
    /// `run` is the run as it is now. A client that has seen its end is told 204, after which
    /// browsers do not ask again.
    ///
    /// # Errors
    ///
    /// 503 where as many streams are open as there may be.
    pub(super) async fn follow(
        &self,
        run: Run,
        headers: &HeaderMap,
        view: View,
    ) -> Result<Response, Problem> {
        let run = Arc::new(run);
        if run.state.is_final() {
            let last = headers.get("last-event-id");
            let id = event_id(&view(Arc::clone(&run)).await?);
            if last.is_some_and(|last| last.as_bytes() == id.as_bytes()) {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
        }
        let slot = Arc::clone(&self.0.streams).try_acquire_owned();
        let slot = slot.map_err(|_| {
            let text = format!(
                "{} event streams are open (http.max_event_streams); ask for the progress itself",
                self.0.n_streams
            );
            Problem::new(Trouble::Busy).detail(text)
        })?;
        let client = Client {
            news: self.0.look(run),
            view,
            last: None,
            is_over: false,
            until: Instant::now() + LONGEST,
            ended: self.0.ended.clone(),
            _slot: slot,
            _counted: EventStream::opened(),
        };
        let events = Sse::new(stream::unfold(client, Client::next));
        let mut response = events
            .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
            .into_response();
        // nginx would hold events back until its buffer is full
        let name = HeaderName::from_static("x-accel-buffering");
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("no"));
        Ok(response)
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<Arc<Run>>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where news of a run come in; the first is what is known now.
    fn look(self: &Arc<Self>, run: Arc<Run>) -> watch::Receiver<Arc<Run>> {
        let id = run.id;
        let mut watched = self.watched();
        let sender = watched.entry(id).or_insert_with(|| {
            let (sender, _) = watch::channel(run);
            let reader = Watcher {
                live: Arc::clone(self),
                id,
                news: sender.clone(),
                is_listed: true,
            };
            self.readers.spawn(reader.watch());
            sender
        });
        let mut news = sender.subscribe();
        news.mark_changed();
        news
    }
}

/// Reads one run for all who look at it; taken off the list with its value, however it ends.
struct Watcher {
    live: Arc<Inner>,
    id: RunId,
    news: watch::Sender<Arc<Run>>,
    is_listed: bool,
}

impl Watcher {
    async fn watch(mut self) {
        let ended = self.live.ended.clone();
        ended.run_until_cancelled(self.read()).await;
    }

    async fn read(&mut self) {
        while !self.is_alone() {
            match runs::get(&self.live.db, self.id).await {
                Ok(Some(run)) => {
                    let is_final = run.state.is_final();
                    self.news.send_if_modified(|known| {
                        let is_new = **known != run;
                        if is_new {
                            *known = Arc::new(run);
                        }
                        is_new
                    });
                    if is_final {
                        return;
                    }
                }
                Ok(None) => return,
                // The clients stay; the next look may succeed.
                Err(error) => tracing::debug!(%error, run = %self.id, "cannot look at a run"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Says whether nobody looks any more, and if so takes the run off the list, in one step.
    fn is_alone(&mut self) -> bool {
        let mut watched = self.live.watched();
        let is_alone = self.news.receiver_count() == 0;
        if is_alone {
            watched.remove(&self.id);
            self.is_listed = false;
        }
        is_alone
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.is_listed {
            self.live.watched().remove(&self.id);
        }
    }
}

/// One stream.
struct Client {
    news: watch::Receiver<Arc<Run>>,
    view: View,
    /// The id of the last event that was sent.
    last: Option<String>,
    is_over: bool,
    until: Instant,
    ended: CancellationToken,
    _slot: OwnedSemaphorePermit,
    _counted: EventStream,
}

impl Client {
    /// Waits for the next thing to say; `None` ends the stream.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        while !self.is_over {
            let changed = tokio::select! {
                changed = self.news.changed() => changed,
                () = self.ended.cancelled() => return None,
                () = sleep_until(self.until.into()) => return None,
            };
            // Nobody reads the run any more: it has ended, and that was said, or it is gone.
            changed.ok()?;
            let run = Arc::clone(&self.news.borrow_and_update());
            self.is_over = run.state.is_final();
            // What cannot be shown now is shown when the client asks again.
            let text = (self.view)(run).await.ok()?;
            let id = event_id(&text);
            if self.last.as_ref() != Some(&id) {
                let event = Event::default().id(&id).retry(RETRY).data(text);
                self.last = Some(id);
                return Some((Ok(event), self));
            }
        }
        None
    }
}

/// Names what an event says, the same in every process: a client that comes back may have seen it.
fn event_id(text: &str) -> String {
    format!("{:016x}", XxHash3_64::oneshot(text.as_bytes()))
}
