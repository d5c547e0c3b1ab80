//! The database's disk is full: nothing that was acknowledged is lost, the daemon waits and goes on
//! by itself when there is room.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use ingestd::testing::{Database, Folder, PrivateOptions, private_cluster_with};
use nix::unistd::{Uid, User};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::{
    import,
    process::{self, Daemon},
    queue_rig::{tell, until},
};

/// A small disk in memory; unmounted when dropped.
struct Disk {
    folder: Folder,
}

impl Disk {
    /// Mounts one of so many MiB for Postgres; `None`, and it says why, where nobody may mount.
    fn mount(mib: u32) -> Option<Self> {
        if !Uid::effective().is_root() {
            tell("SKIPPED: only root can mount a small disk; run this test as root");
            return None;
        }
        let folder = Folder::make().unwrap();
        let postgres = User::from_name("postgres").unwrap().unwrap();
        let options = format!(
            "size={mib}m,mode=0700,uid={},gid={}",
            postgres.uid, postgres.gid
        );
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "ingestd-test"])
            .arg(folder.path())
            .output()
            .unwrap();
        if !mount.status.success() {
            let why = String::from_utf8_lossy(&mount.stderr);
            tell(&format!(
                "SKIPPED: no disk can be mounted here, in a container perhaps: {why}"
            ));
            return None;
        }
        Some(Self { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it to the last block.
    fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = [1; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there lets go of it in a moment.
        let umount = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
        drop(umount);
    }
}

/// Inserts jobs of `kib` KiB one by one, until there are `n` or one is refused; returns the
/// acknowledged ones and why it ended.
async fn produce(pool: &PgPool, kib: i32, n: usize) -> (Vec<i64>, Option<sqlx::Error>) {
    let mut acked = Vec::new();
    while acked.len() < n {
        let inserted = sqlx::query_scalar(
            "INSERT INTO ingestd.jobs (kind, args)
             SELECT 'system.noop', jsonb_build_object(
               'sleep_ms', CASE WHEN $1 < 10 THEN 300 ELSE 0 END, 'payload', string_agg(md5(random()::text), ''))
             FROM generate_series(1, $1 * 32) RETURNING id",
        );
        match inserted.bind(kib).fetch_one(pool).await {
            Ok(id) => acked.push(id),
            Err(error) => return (acked, Some(error)),
        }
    }
    (acked, None)
}

/// Asserts that every acknowledged job is complete, and each once.
async fn check(pool: &PgPool, acked: &[i64]) {
    until(
        pool,
        "NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.noop')",
    )
    .await;
    let done: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT id) FROM ingestd.job_history
         WHERE id = ANY ($1) AND state = 'completed'",
    )
    .bind(acked)
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(
        usize::try_from(done).unwrap(),
        acked.len(),
        "acknowledged and complete"
    );
    let doubled: i64 =
        sqlx::query_scalar("SELECT count(*) - count(DISTINCT id) FROM ingestd.job_history")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(doubled, 0);
}

async fn is_ready(daemon: &Daemon) -> bool {
    let answer = reqwest::get(daemon.url("/readyz")).await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

#[tokio::test]
async fn a_full_data_directory_is_waited_out() {
    let Some(disk) = Disk::mount(160) else { return };
    let storage = TempDir::new().unwrap();
    let options = PrivateOptions {
        home: Some(disk.path().to_owned()),
        ..PrivateOptions::default()
    };
    let cluster = private_cluster_with(options).await;
    let pool = cluster.connect().await.unwrap();
    let mut daemon = Daemon::start(&cluster.database_url(), storage.path(), &[]).await;
    let (mut acked, _) = produce(&pool, 2, 200).await;
    let filler = disk.fill();
    let (more, error) = produce(&pool, 2, usize::MAX).await;
    acked.extend(more);
    let error = error.unwrap();
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("53100"), "{error}");
    process::until("it is not ready", async || !is_ready(&daemon).await).await;
    // What is claimed and what ended waits, with pauses: a loop without one would have complained
    // by the thousand.
    let n_complaints = || daemon.log().matches("No space left on device").count();
    process::until("it waits", async || n_complaints() >= 10).await;
    let n_warnings = daemon.log().matches("WARN").count();
    assert!(n_warnings < 500, "{n_warnings}: a loop without a pause");
    std::fs::remove_file(filler).unwrap();
    check(&pool, &acked).await;
    process::until("it is ready again", async || is_ready(&daemon).await).await;
    assert!(daemon.terminate().success());
    pool.close().await;
}

/// What an import puts aside while it reads has no room: it waits, and its attempts are not spent.
#[tokio::test]
async fn a_full_storage_is_waited_out_by_imports() {
    let Some(disk) = Disk::mount(60) else { return };
    let db = Database::create().await;
    let logs = TempDir::new().unwrap();
    let settings = [("INGESTD_STORAGE__DIR", disk.path().to_str().unwrap())];
    let mut daemon = Daemon::start(db.url(), logs.path(), &settings).await;
    import::post(&daemon, "/api/v1/queues/import/pause").await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&import::csv(50_000)).unwrap();
    let packed = packed.finish().unwrap();
    let job = import::accepted(&daemon, "a.csv.gz", packed).await;
    // What it has unpacked already goes with the daemon.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(db.url(), logs.path(), &settings).await;
    let filler = disk.fill();
    import::post(&daemon, "/api/v1/queues/import/resume").await;
    process::until("it waits for room", async || {
        daemon.log().contains("waits for room in storage.dir")
    })
    .await;
    let waits = import::status(&daemon, job).await;
    assert_eq!(waits["status"], "processing", "{waits}");
    std::fs::remove_file(filler).unwrap();
    let done = import::finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["results"]["successCount"], 50_000);
    let attempts =
        "SELECT attempt::int8 FROM ingestd.job_history WHERE kind = 'product_import.run'";
    assert_eq!(import::count(db.pool(), attempts).await, 1);
}

#[tokio::test]
async fn a_full_wal_brings_postgres_down_and_the_daemon_back() {
    let Some(disk) = Disk::mount(112) else {
        return;
    };
    let storage = TempDir::new().unwrap();
    let mut cluster = private_cluster_with(PrivateOptions::default()).await;
    let pool = cluster.connect().await.unwrap();
    cluster.kill9().await.unwrap();
    let (wal, moved) = (
        cluster.data_dir().join("pg_wal"),
        disk.path().join("pg_wal"),
    );
    let copied = Command::new("cp").arg("-a").arg(&wal).arg(&moved).status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(&wal).unwrap();
    std::os::unix::fs::symlink(&moved, &wal).unwrap();
    cluster.restart().await.unwrap();
    let mut daemon = Daemon::start(&cluster.database_url(), storage.path(), &[]).await;
    let filler = disk.fill();
    // The segments made in advance take some more: jobs that take their time, and a backlog.
    let (mut acked, error) = produce(&pool, 2, 300).await;
    if error.is_none() {
        let (more, error) = produce(&pool, 40, usize::MAX).await;
        assert!(error.is_some());
        acked.extend(more);
    }
    assert!(!acked.is_empty());
    // It stays down until there is room, for longer than the daemon's heart goes without it.
    cluster.halt().await.unwrap();
    let is_lost = async || {
        let log = daemon.log();
        log.contains("heartbeat: cannot reach the database")
    };
    process::until("the daemon's life ends", is_lost).await;
    process::until("the daemon is not ready", async || !is_ready(&daemon).await).await;
    std::fs::remove_file(filler).unwrap();
    cluster.restart().await.unwrap();
    check(&pool, &acked).await;
    process::until("it is ready again", async || is_ready(&daemon).await).await;
    assert!(daemon.terminate().success());
    pool.close().await;
}
