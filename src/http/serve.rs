//! The listener and its connections.
//!
//! Every connection has a time limit for its request heads, may end in peace
//! within `http.drain_timeout` once the daemon stops, and is dropped then.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    AppState,
    admit::{Peer, is_guarded},
    router,
};
use crate::config;

/// Connections at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 1024;

/// A request's head at most, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long a refused client may go on sending, so that it comes to read why.
const LINGER: Duration = Duration::from_secs(2);

/// After an accept that failed for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes hold of the address of `http.listen`.
///
/// # Errors
///
/// The address is in use or not this machine's, with the address in the message.
pub async fn bind(config: &config::Http) -> io::Result<TcpListener> {
    let listen = config.listen;
    TcpListener::bind(listen).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
    })
}

/// Serves until `shutdown` fires and open requests have ended, for at most `http.drain_timeout`.
pub async fn serve(state: AppState, listener: TcpListener, shutdown: CancellationToken) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "HTTP is served");
        if !address.ip().is_loopback() && matches!(is_guarded(&state).await, Ok(false)) {
            tracing::warn!(
                %address,
                "no credential is configured, so only this machine is served; \
                 `ingestd token create NAME --role ROLE` makes one"
            );
        }
    }
    let (head_timeout, drain) = (
        state.config.http.request_timeout,
        state.config.http.drain_timeout,
    );
    let live = state.live.clone();
    let app = router(Arc::new(state));
    let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
    while let Some((slot, stream, peer)) =
        next(&listener, &slots, &mut connections, &shutdown).await
    {
        let connection = connection(app.clone(), stream, peer, head_timeout, shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listener);
    live.end().await; // or a run that goes on would hold its readers' connections open
    let ended = timeout(drain, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() {
        let n_connections = connections.len();
        tracing::warn!(
            n_connections,
            "requests did not end in time; their connections are cut"
        );
        connections.shutdown().await;
    }
}

/// Waits for a connection while there is room for one; `None` once `shutdown` fires.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    loop {
        let accept = async {
            let slot = Arc::clone(slots)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            listener
                .accept()
                .await
                .map(|(stream, peer)| (slot, stream, peer))
        };
        tokio::select! {
            () = shutdown.cancelled() => return None,
            Some(_) = connections.join_next() => {}
            accepted = accept => match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Answers the requests of one connection, one after the other.
async fn connection(
    app: Router,
    stream: TcpStream,
    peer: SocketAddr,
    head_timeout: Duration,
    shutdown: CancellationToken,
) {
    drop(stream.set_nodelay(true)); // a socket that is gone already says so when it is read
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        Box::pin(app.clone().oneshot(request))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(MAX_HEAD_BYTES);
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    let mut is_draining = false;
    let ended = loop {
        tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = shutdown.cancelled(), if !is_draining => {
                is_draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    match ended {
        Ok(()) => linger(connection.into_parts().io.into_inner()).await,
        Err(error) => tracing::debug!(%error, %peer, "connection ended"),
    }
}

/// Closes a connection so that the client can read the answer.
///
/// A socket closed with unread bytes in it is reset, and a reset throws away
/// what the client has not read yet: a client that is still sending the body
/// that was refused would never learn why.
async fn linger(mut stream: TcpStream) {
    let mut rest = vec![0; 16 * 1024];
    let drained = async {
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    match timeout(LINGER, drained).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%error, "client did not wait for the end"),
        Err(_) => tracing::debug!("client went on sending; its connection is cut"),
    }
}
