//! Events of the daemon as a whole: listener, readiness, requests.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::observe::exporter::Exporter;
use crate::observe::metric;

/// The connection that brings notifications came up or was lost.
#[derive(Debug)]
pub struct ListenerChanged {
    /// Whether it is up now.
    pub connected: bool,
    /// Whether it had been up before in this process.
    pub again: bool,
}

impl ListenerChanged {
    /// Publishes the state and counts reconnects.
    pub fn emit(self) {
        let exporter = Exporter::get();
        exporter
            .gauge(&metric::LISTENER_CONNECTED, &[])
            .set(f64::from(u8::from(self.connected)));
        if self.connected && self.again {
            exporter
                .counter(&metric::LISTENER_RECONNECTS, &[])
                .increment(1);
        }
        if self.connected {
            info!("listener connected");
        } else {
            warn!("listener lost; work is found by polling until it is back");
        }
    }
}

/// The daemon became ready, or stopped being so.
#[derive(Debug)]
pub struct ReadinessChanged {
    /// Whether `/readyz` says 200 now.
    pub ready: bool,
}

impl ReadinessChanged {
    /// Publishes the state.
    pub fn emit(self) {
        let ready = self.ready;
        Exporter::get()
            .gauge(&metric::READY, &[])
            .set(f64::from(u8::from(ready)));
        info!(ready, "readiness changed");
    }
}

/// This machine's clock was compared with the database's.
#[derive(Debug)]
pub struct ClockCompared {
    /// This machine's minus the database's, in seconds.
    pub skew_seconds: f64,
    /// Whether it is a large one now and was not before, or the other way round.
    pub news: Option<bool>,
}

impl ClockCompared {
    /// Publishes the difference; logs that it became large, or small again.
    pub fn emit(self) {
        let Self { skew_seconds, news } = self;
        Exporter::get()
            .gauge(&metric::CLOCK_SKEW, &[])
            .set(skew_seconds);
        match news {
            Some(true) => warn!(
                skew_seconds,
                "this machine's clock and the database's differ; jobs are due by the database's, \
                 logs have this machine's: set both by NTP"
            ),
            Some(false) => info!(
                skew_seconds,
                "this machine's clock and the database's agree again"
            ),
            None => {}
        }
    }
}

/// Handlers block their threads past their deadlines, or others than before do.
#[derive(Debug)]
pub struct SlotsStuck {
    /// Their jobs; none where every thread is back.
    pub jobs: Vec<i64>,
}

impl SlotsStuck {
    /// Publishes how many there are and logs which.
    pub fn emit(self) {
        let Self { jobs } = self;
        let n_stuck = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        Exporter::get()
            .gauge(&metric::WORKER_SLOTS_STUCK, &[])
            .set(f64::from(n_stuck));
        if jobs.is_empty() {
            debug!("no handler blocks its thread");
        } else {
            error!(
                ?jobs,
                "handlers block their threads past their deadlines; their slots are stuck"
            );
        }
    }
}

/// A stream of server-sent events is open for as long as this lives.
#[derive(Debug)]
pub struct EventStream(());

impl EventStream {
    /// Counts one more.
    #[must_use]
    pub fn opened() -> Self {
        Exporter::get()
            .gauge(&metric::SSE_CLIENTS, &[])
            .increment(1.0);
        debug!("an event stream opened");
        Self(())
    }
}

impl Drop for EventStream {
    /// Counts one less.
    fn drop(&mut self) {
        Exporter::get()
            .gauge(&metric::SSE_CLIENTS, &[])
            .decrement(1.0);
        debug!("an event stream ended");
    }
}

/// Routes that are asked all day by machines; their requests are counted, not logged.
const QUIET_ROUTES: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// A request was answered.
#[derive(Debug)]
pub struct HttpServed<'a> {
    /// Its method; one that HTTP does not know is counted as `other`.
    pub method: &'a str,
    /// The matched route's template, `/api/v1/runs/{id}`; `unmatched` where none did. Never a path.
    pub route: &'a str,
    /// The response's status.
    pub status: u16,
    /// From the request's head to the response's.
    pub duration: Duration,
}

impl HttpServed<'_> {
    /// Counts the request; logs failures and whatever changes something.
    pub fn emit(self) {
        let Self {
            method,
            route,
            status,
            duration,
        } = self;
        let exporter = Exporter::get();
        let labels = [known_method(method), route, &status.to_string()];
        exporter
            .counter(&metric::HTTP_REQUESTS, &labels)
            .increment(1);
        exporter
            .histogram(&metric::HTTP_REQUEST_DURATION, &labels)
            .record(duration.as_secs_f64());
        let duration_ms = duration.as_millis();
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        match status {
            _ if QUIET_ROUTES.contains(&route) => {}
            500.. => warn!(method, route, status, duration_ms, "request failed"),
            _ if reads => debug!(method, route, status, duration_ms, "request served"),
            _ => info!(method, route, status, duration_ms, "request served"),
        }
    }
}

/// Keeps the label bounded: a client may send any word as a method.
fn known_method(method: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
    ];
    let found = KNOWN.iter().find(|&&known| known == method);
    found.copied().unwrap_or("other")
}
