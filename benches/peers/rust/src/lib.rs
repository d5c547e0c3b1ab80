//! What every program here does: `fill` a queue with n jobs, `work` on as many, or print the
//! `latency` of n, in milliseconds from an enqueue's commit to its handler's start.

use std::{
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

/// Argument of every job: 81 characters, 94 bytes as an object.
pub const PAYLOAD: &str =
    "012345678901234567890123456789012345678901234567890123456789012345678901234567890";

static N_RAN: AtomicU32 = AtomicU32::new(0);
static N_JOBS: AtomicU32 = AtomicU32::new(u32::MAX);
type Starts = (
    mpsc::UnboundedSender<Instant>,
    Mutex<Option<mpsc::UnboundedReceiver<Instant>>>,
);
static STARTS: LazyLock<Starts> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Mutex::new(Some(receiver)))
});

/// What the program was asked for.
pub struct Asked {
    pub what: String,
    pub url: String,
    pub n: u32,
}

impl Asked {
    pub fn read() -> anyhow::Result<Self> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [what, url, n] = <[String; 3]>::try_from(args)
            .map_err(|_| anyhow::anyhow!("fill | work | latency, a URL, a number"))?;
        let n = n.parse()?;
        if what == "work" {
            N_JOBS.store(n, Ordering::Relaxed);
        }
        Ok(Self { what, url, n })
    }
}

/// A job's handler: counts, and says when the first and the last one ran.
pub fn ran() {
    let n_jobs = N_JOBS.load(Ordering::Relaxed);
    if n_jobs == u32::MAX {
        // Nobody listens any more once the last latency is printed.
        let _ = STARTS.0.send(Instant::now());
        return;
    }
    let before = N_RAN.fetch_add(1, Ordering::Relaxed);
    if before == 0 {
        println!("first");
    }
    if before + 1 == n_jobs {
        println!("ran");
    }
}

/// Waits for the word to end.
pub async fn told() -> anyhow::Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}

/// Enqueues one job after the other on an idle worker.
pub async fn latencies(
    n: u32,
    mut enqueue: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let receiver = STARTS.1.lock().ok().and_then(|mut starts| starts.take());
    let mut starts = receiver.ok_or_else(|| anyhow::anyhow!("asked twice"))?;
    for _ in 0..n {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(40..120))).await;
        enqueue().await?;
        let committed = Instant::now();
        if let Some(began) = starts.recv().await {
            println!(
                "{}",
                began.saturating_duration_since(committed).as_secs_f64() * 1e3
            );
        }
    }
    Ok(())
}
