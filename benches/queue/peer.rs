//! ingestd's part in `benches/peers/run`: what the program of every peer does there.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::{engine::Daemon, rig::ARGS};

/// Slots of the daemon: its best setting for jobs that do nothing.
const SLOTS: u32 = 500;

const FILL: &str = "INSERT INTO ingestd.jobs (kind, args)
    SELECT 'bench.noop', $2::jsonb FROM generate_series(1, $1)";
const TELLING: &str =
    r#"INSERT INTO ingestd.jobs (kind, args) VALUES ('bench.noop', '{"tell": true}')"#;

/// `fill`s the queue with `n` jobs, does the `work` on as many, or prints the `latency` of `n`.
pub(crate) async fn take_part(what: &str, url: &str, n: u32) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    match what {
        "fill" => {
            Daemon::connect(url, 1).await?.stop().await; // migrates and registers
            sqlx::query(FILL)
                .bind(i32::try_from(n)?)
                .bind(ARGS.parse::<serde_json::Value>()?)
                .execute(&mut conn)
                .await?;
        }
        "work" => {
            let daemon = Daemon::connect(url, SLOTS).await?;
            daemon.ran(1).await;
            println!("first");
            daemon.ran(n).await;
            println!("ran");
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
                .await??;
            daemon.stop().await;
        }
        "latency" => {
            let mut daemon = Daemon::connect(url, SLOTS).await?;
            for _ in 0..n {
                let gap = Duration::from_millis(fastrand::u64(40..120));
                tokio::time::sleep(gap).await;
                sqlx::query(TELLING).execute(&mut conn).await?;
                let committed = Instant::now();
                if let Some(began) = daemon.next_start().await {
                    let latency = began.saturating_duration_since(committed);
                    println!("{}", latency.as_secs_f64() * 1e3);
                }
            }
            daemon.stop().await;
        }
        other => anyhow::bail!("no such part: {other}"),
    }
    Ok(())
}
