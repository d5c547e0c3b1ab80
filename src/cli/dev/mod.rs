//! `ingestd dev`: everything on this machine, to try it out and to look at.

mod sample;
mod step;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Args;

use super::{Exit, Failure, Output, Session, import, migrate, service::Service};
use crate::{
    config::{Config, Loaded, Origin, Sources},
    dev::{Cluster, ClusterError, Options, default_data_dir},
    lifecycle::{Cause, Notifier, Shutdown, watch_signals},
};
use step::Steps;

/// The database of the private cluster.
const DATABASE: &str = "ingestd";

/// Runs Postgres, the daemon and a sample import on this machine, until Ctrl-C.
///
/// Without a database given it starts a private Postgres from the binaries installed here, which
/// only this user can reach; nothing but its data folder is left behind. It reads no
/// /etc/ingestd/ingestd.toml, but ingestd.toml in the data folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd dev
  ingestd dev --data-dir ./data --listen 127.0.0.1:9000
  DATABASE_URL=postgres://localhost/mine ingestd dev
  ingestd dev --exit-after-import

In another terminal, with the variables it prints: ingestd jobs ls, ingestd doctor.")]
pub(super) struct DevArgs {
    /// Folder of the data; by default /var/lib/ingestd-dev for root, else ~/.local/state/ingestd.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the HTTP server instead of 127.0.0.1:8477.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Stop once the sample is imported, as a test of the installation.
    #[arg(long)]
    exit_after_import: bool,
}

impl DevArgs {
    /// Returns the setting that a flag of this command stands for.
    pub(super) fn flag(&self) -> Option<(String, String)> {
        self.listen
            .map(|listen| ("http.listen".to_owned(), listen.to_string()))
    }

    /// Sees to it that the configuration of a daemon on this machine is not used by chance.
    pub(super) fn keep_apart(&self, sources: &mut Sources) {
        if let Ok(dir) = self.dir() {
            sources.default_file = dir.join("ingestd.toml");
        }
    }

    /// Returns the absolute folder of the data.
    fn dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.data_dir {
            return Ok(std::path::absolute(dir)?);
        }
        let cluster = default_data_dir()?;
        Ok(cluster
            .parent()
            .map(Path::to_owned)
            .ok_or(ClusterError::NoDataDir)?)
    }
}

pub(super) async fn run(args: DevArgs, loaded: Loaded, output: &Output) -> Result<Exit, Failure> {
    let dir = args.dir()?;
    let shutdown = Shutdown::new();
    watch_signals(&shutdown, Notifier::default(), || ())?;
    let mut config = loaded.config;
    if *loaded.origins.get("storage.dir") == Origin::Default {
        config.storage.dir = dir.join("storage");
    }
    let mut steps = Steps::new(output);
    let cluster = if config.database.url.is_none() {
        tokio::select! {
            cluster = start_cluster(&dir, &mut steps) => Some(cluster?),
            () = shutdown.soft().cancelled() => return Ok(interrupted(&shutdown)),
        }
    } else {
        steps.tell("Postgres", "the database given; no server is started")?;
        None
    };
    if let Some(cluster) = &cluster {
        config.database.url = Some(cluster.url(DATABASE).into());
    }
    let world = World {
        dir: dir.clone(),
        config: Arc::new(config),
        shutdown,
        output: output.clone(),
    };
    let ended = world.work(&args, cluster.as_ref(), &mut steps).await;
    // Everything ends before the database does, whatever happened.
    world.shutdown.stop(Cause::Finished);
    if let Some(cluster) = cluster {
        cluster.stop().await?;
        steps.remark(&format!(
            "Postgres is stopped; the data stays in {}",
            dir.display()
        ));
    }
    ended
}

/// Starts the private cluster and makes the database.
async fn start_cluster(dir: &Path, steps: &mut Steps) -> Result<Cluster, Failure> {
    let began = Instant::now();
    let cluster = Cluster::start(Options::new(dir.join("pg"))).await?;
    cluster.ensure_database(DATABASE).await?;
    let took = began.elapsed().as_secs_f64();
    let text = format!(
        "private, in {}, ready in {took:.1} s",
        cluster.data_dir().display()
    );
    steps.tell("Postgres", &text)?;
    steps.more(&cluster.psql_line(DATABASE))?;
    Ok(cluster)
}

/// Returns the exit code of a command that a signal ended before it was done.
fn interrupted(shutdown: &Shutdown) -> Exit {
    match shutdown.cause() {
        Some(Cause::Terminate) => Exit::Terminated,
        _ => Exit::Interrupted,
    }
}

/// What is there once a database is.
struct World {
    /// The folder of the data.
    dir: PathBuf,
    config: Arc<Config>,
    shutdown: Shutdown,
    output: Output,
}

impl World {
    /// Migrates, starts the daemon, shows the sample, and stays until it is told to stop.
    async fn work(
        &self,
        args: &DevArgs,
        cluster: Option<&Cluster>,
        steps: &mut Steps,
    ) -> Result<Exit, Failure> {
        let service = tokio::select! {
            service = self.start(steps) => service?,
            () = self.shutdown.soft().cancelled() => {
                return Ok(interrupted(&self.shutdown));
            }
        };
        let shown = tokio::select! {
            shown = self.show(&service, cluster, steps) => shown,
            () = self.shutdown.soft().cancelled() => {
                Err(Failure::say(interrupted(&self.shutdown), "interrupted"))
            }
        };
        if shown.is_err() || args.exit_after_import {
            self.shutdown.stop(Cause::Finished);
        } else {
            steps.remark("Ctrl-C stops everything");
        }
        let exit = service.drained().await;
        shown?;
        exit
    }

    async fn start(&self, steps: &mut Steps) -> Result<Service, Failure> {
        let mut session = Session::open(Config::clone(&self.config), self.output.clone()).await?;
        let report = migrate::bring_up(&mut session).await?;
        steps.tell("schema", &report.brief())?;
        let service = Service::start(
            Arc::clone(&self.config),
            &self.shutdown,
            &Notifier::default(),
        )
        .await?;
        let address = service.address;
        steps.tell("daemon", &format!("at work, HTTP on http://{address}"))?;
        steps.more(&format!("http://{address}/ is the page, for a browser"))?;
        for path in ["/metrics", "/readyz", "/api/v1/queues"] {
            steps.more(&format!("http://{address}{path}"))?;
        }
        Ok(service)
    }

    /// Imports the sample, enqueues a few jobs, and says what to look at.
    async fn show(
        &self,
        service: &Service,
        cluster: Option<&Cluster>,
        steps: &mut Steps,
    ) -> Result<(), Failure> {
        let mut session = Session::open(Config::clone(&self.config), self.output.clone()).await?;
        let id = sample::submit(&mut session).await?;
        steps.tell(
            "sample",
            &format!("{} is imported by run {id}", sample::FILE_NAME),
        )?;
        import::follow(id, &mut session).await?;
        let jobs = sample::enqueue(&mut session).await?;
        steps.tell("jobs", &jobs)?;
        let unpacked = sample::unpack(&self.dir).await?;
        steps.next(
            &self.config,
            service.address,
            cluster.map(|cluster| cluster.url(DATABASE)),
            &unpacked,
        )?;
        Ok(())
    }
}
