//! A network that swallows what is sent, without a word: connections stay open and nothing comes.

use std::{path::Path, sync::Arc, time::Duration};

use ingestd::queue::Done;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};
use tokio_util::task::TaskTracker;

use crate::queue_rig::{Rig, Setup, done, play, run, stop, until};

/// Stands between the engine and Postgres, on a socket of its own.
struct Proxy {
    folder: TempDir,
    frozen: watch::Sender<u32>,
    tasks: TaskTracker,
}

impl Proxy {
    fn start(server: &PgConnectOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let target = server.get_socket().unwrap().join(".s.PGSQL.5432");
        let proxy = Self {
            folder,
            frozen: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        };
        let (tasks, frozen) = (proxy.tasks.clone(), proxy.frozen.clone());
        proxy.tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&target).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tasks.spawn(forward(from_client, to_server, frozen.subscribe()));
                tasks.spawn(forward(from_server, to_client, frozen.subscribe()));
            }
        });
        proxy
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Silences every connection there is, for ever; new ones work.
    fn freeze(&self) {
        self.frozen.send_modify(|n| *n += 1);
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut frozen: watch::Receiver<u32>,
) {
    let mut buffer = [0; 8192];
    loop {
        tokio::select! {
            biased;
            _ = frozen.changed() => std::future::pending::<()>().await,
            read = from.read(&mut buffer) => match read {
                Ok(n) if n > 0 && to.write_all(&buffer[..n]).await.is_ok() => {}
                _ => return,
            }
        }
    }
}

#[tokio::test]
async fn connections_that_fell_silent_are_given_up() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let options: PgConnectOptions = rig.url().parse().unwrap();
    let proxy = Proxy::start(&options);
    let url = options.socket(proxy.folder()).to_url_lossy();
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let ends = play("t.ends", move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    let mut setup = Setup::of([ends, done("t.after")]).lost_after(Duration::from_secs(3));
    setup.acquire_timeout = Duration::from_secs(1);
    let engine = setup.start(url.as_str()).await;
    let insert = "INSERT INTO ingestd.jobs (kind) VALUES ('t.ends'), ('t.after')";
    run(&observer, insert).await;
    until(&observer, "EXISTS (SELECT FROM ingestd.job_history)").await;
    // A claim and a completion are under way, and their answers will never come.
    let mut lock = observer.begin().await.unwrap();
    let exclusive = "LOCK TABLE ingestd.jobs IN EXCLUSIVE MODE";
    sqlx::query(exclusive).execute(&mut *lock).await.unwrap();
    gate.add_permits(1);
    let blocked = |what: &str| {
        format!(
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND wait_event_type = 'Lock' AND query LIKE '%{what}%')"
        )
    };
    until(&observer, &blocked("Claims up to")).await;
    until(&observer, &blocked("Completes or cancels")).await;
    proxy.freeze();
    lock.rollback().await.unwrap();
    let insert = "INSERT INTO ingestd.jobs (kind) SELECT 't.after' FROM generate_series(1, 20)";
    run(&observer, insert).await;
    let all = "(SELECT count(*) = 22 AND count(DISTINCT id) = 22 FROM ingestd.job_history)";
    until(&observer, all).await;
    stop(engine).await;
    assert!(
        rig.ask::<bool>("SELECT NOT EXISTS (SELECT FROM ingestd.jobs)")
            .await
    );
}
