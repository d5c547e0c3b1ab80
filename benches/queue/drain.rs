//! Draining a backlog: the engine beside the loops written by hand, round by round.

use anyhow::Context;

use super::{
    Arguments, by_hand,
    engine::Daemon,
    measure::Cost,
    per_job::PerJob,
    report::{Figure, Report},
    rig::Rig,
    spread::Spread,
};

/// Who drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// By hand, one lease a job: the shape of ingestd's tables.
    Rows,
    /// By hand, one lease a batch: the limit of what the tables could be.
    Batches,
    Engine,
}

const DRAINS: [(Drain, &str); 3] = [
    (Drain::Rows, "by hand, a lease a job"),
    (Drain::Batches, "by hand, a lease a batch"),
    (Drain::Engine, "ingestd's engine"),
];

/// What the rounds of one drain cost, per job.
struct Drained {
    jobs_per_s: Spread,
    client_us: Spread,
    server_us: Spread,
    wal_bytes: Spread,
    peak_mb: Spread,
}

impl Drained {
    fn of(costs: &[Cost], n_jobs: u32) -> anyhow::Result<Self> {
        let costs: Vec<PerJob> = costs.iter().map(|cost| PerJob::of(cost, n_jobs)).collect();
        let spread =
            |figure: fn(&PerJob) -> f64| Spread::of(costs.iter().map(figure)).context("no rounds");
        Ok(Self {
            jobs_per_s: spread(|cost| cost.jobs_per_s)?,
            client_us: spread(|cost| cost.client_us)?,
            server_us: spread(|cost| cost.server_us)?,
            wal_bytes: spread(|cost| cost.wal_bytes)?,
            peak_mb: spread(|cost| cost.peak_mb)?,
        })
    }

    fn cpu_us(&self) -> f64 {
        self.client_us.median + self.server_us.median
    }

    fn print(&self, name: &str) {
        println!(
            "{name:<26} {:>8.0} {:>17} {:>7.1} + {:>5.1} = {:>5.1} {:>7.0} {:>8.1}",
            self.jobs_per_s.median,
            format!("{:.0}–{:.0}", self.jobs_per_s.least, self.jobs_per_s.most),
            self.client_us.median,
            self.server_us.median,
            self.cpu_us(),
            self.wal_bytes.median,
            self.peak_mb.median,
        );
    }
}

/// Drains with everything in turn, and prints what it cost.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    by_hand::prepare_batches(&rig.pool).await?;
    let n_jobs = arguments.jobs;
    println!("\ndrain: {n_jobs} no-op jobs, {} rounds", arguments.rounds);
    drain(rig, Drain::Rows, n_jobs, 500).await?; // makes the files of WAL and table
    for &batch in &arguments.batches {
        let mut costs = [Vec::new(), Vec::new(), Vec::new()];
        for round in 1..=arguments.rounds {
            for ((who, name), costs) in DRAINS.iter().zip(&mut costs) {
                let cost = drain(rig, *who, n_jobs, batch).await?;
                println!(
                    "batches of {batch}, round {round}: {name}, {:.2} s",
                    cost.seconds
                );
                costs.push(cost);
            }
        }
        println!(
            "\n{:<26} {:>8} {:>17} {:>23} {:>7} {:>8}",
            format!("batches of {batch}"),
            "jobs/s",
            "least–most",
            "CPU µs: client + server",
            "WAL B",
            "peak MB"
        );
        let [rows, batches, engine] = costs.map(|costs| Drained::of(&costs, n_jobs));
        let (rows, batches, engine) = (rows?, batches?, engine?);
        for ((_, name), drained) in DRAINS.iter().zip([&rows, &batches, &engine]) {
            drained.print(name);
        }
        for (name, goal, other) in [
            ("a lease a job", 0.8, &rows),
            ("a lease a batch", 0.6, &batches),
        ] {
            let ratio = engine.jobs_per_s.median / other.jobs_per_s.median;
            println!(
                "engine / {name}: {ratio:.2} x the jobs/s, {:.2} x the CPU, {:.2} x the WAL",
                engine.cpu_us() / other.cpu_us(),
                engine.wal_bytes.median / other.wal_bytes.median,
            );
            report.add(Figure {
                name: format!("drain, batches of {batch} / by hand, {name}"),
                goal: format!("at least {goal} x"),
                measured: format!("{ratio:.2} x: {:.0} jobs/s", engine.jobs_per_s.median),
                is_met: Some(ratio >= goal),
            });
        }
        report.drain_wal_bytes = Some(engine.wal_bytes.median);
    }
    Ok(())
}

/// Drains `n_jobs` once, `batch` at a time, and returns what it cost.
pub(crate) async fn drain(rig: &Rig, who: Drain, n_jobs: u32, batch: u32) -> anyhow::Result<Cost> {
    rig.fill(n_jobs).await?;
    if who == Drain::Engine {
        let daemon = Daemon::start(rig, batch).await?;
        let cost = rig.measure(n_jobs, async {
            rig.resume().await?;
            Ok(daemon.finished(n_jobs).await?)
        });
        let cost = cost.await?;
        daemon.stop().await;
        return Ok(cost);
    }
    let pool = rig.connect().await?;
    let cost = rig.measure(n_jobs, async {
        match who {
            Drain::Rows => Box::pin(by_hand::drain_rows(&pool, batch)).await,
            _ => Box::pin(by_hand::drain_batches(&pool, batch)).await,
        }
    });
    let cost = cost.await?;
    pool.close().await;
    Ok(cost)
}
