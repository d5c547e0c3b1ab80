//! What the tests of the queue share: a database, engines with kinds of the test's own, waiting.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use ingestd::{
    config::{self, Pooler, Wake},
    db,
    observe::Exporter,
    queue::{DeadJob, Done, Engine, Job, JobContext, JobError, Kind, Retry, Running},
    testing::Database,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything: generous, because the machine may be busy compiling, but less than the
/// minute after which a statement or a job that hangs would be ended by its own timeout.
pub(crate) const PATIENCE: Duration = Duration::from_secs(55);
const POLL: Duration = Duration::from_millis(10);

pub(crate) type Ctx = JobContext<Stage>;
pub(crate) type Outcome = Result<Done, JobError>;
type Act = Arc<dyn Fn(Ctx) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// What handlers are lent: a pool of their own and what each kind does.
pub(crate) struct Stage {
    pub(crate) db: PgPool,
    acts: HashMap<&'static str, Act>,
}

/// A job that does what the test said its kind does; any arguments fit.
#[derive(Serialize, Deserialize)]
struct Played {
    #[serde(flatten)]
    args: Map<String, Value>,
}

impl Job for Played {
    const KIND: &'static str = "t.played";
    const RETRY: Retry = Retry {
        first: Duration::from_millis(20),
        factor: 2.0,
        cap: Duration::from_secs(1),
        jitter: 0.0,
        max_attempts: 3,
    };
    const TIMEOUT: Duration = Duration::from_mins(1);
    type Context = Stage;

    async fn run(self, ctx: &Ctx) -> Outcome {
        let act = ctx.state().acts.get(ctx.lease().kind).unwrap();
        act(ctx.clone()).await
    }

    /// Notes the death where the test made a table for it; fails where the arguments say so.
    async fn on_dead(conn: &mut PgConnection, dead: &DeadJob) -> sqlx::Result<()> {
        if let Some(statement) = dead.args.get("on_dead").and_then(Value::as_str) {
            let statement = AssertSqlSafe(statement.to_owned());
            sqlx::query(statement)
                .bind(dead.id)
                .bind(&dead.error)
                .execute(conn)
                .await?;
        }
        Ok(())
    }
}

/// Returns the arguments of an attempt.
pub(crate) fn args(ctx: &Ctx) -> Value {
    serde_json::from_str(ctx.lease().args.get()).unwrap()
}

/// A kind and what it does.
#[derive(Clone)]
pub(crate) struct Play {
    pub(crate) kind: Kind<Stage>,
    act: Option<Act>,
}

/// Describes a kind by what it does; three attempts, 20 ms apart, in queue `default`.
pub(crate) fn play<F, Fut>(name: &'static str, act: F) -> Play
where
    F: Fn(Ctx) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let mut kind = Kind::of::<Played>();
    kind.name = name;
    Play {
        kind,
        act: Some(Arc::new(move |ctx| Box::pin(act(ctx)))),
    }
}

/// Describes a kind that completes at once.
pub(crate) fn done(name: &'static str) -> Play {
    play(name, |_| async { Ok(Done::new()) })
}

impl Play {
    /// Takes a typed job as it is.
    pub(crate) fn of<J: Job<Context = Stage>>() -> Self {
        Self {
            kind: Kind::of::<J>(),
            act: None,
        }
    }

    pub(crate) fn queue(mut self, queue: &'static str) -> Self {
        self.kind.queue = queue;
        self
    }

    pub(crate) fn keeps_output(mut self) -> Self {
        self.kind.keep_output = true;
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.kind.timeout = timeout;
        self
    }

    pub(crate) fn attempts(mut self, n: u16) -> Self {
        self.kind.retry.max_attempts = n;
        self
    }

    /// Does something at the beginning of each attempt.
    pub(crate) fn before(mut self, first: impl Fn() + Send + Sync + 'static) -> Self {
        let first = Arc::new(first);
        self.act = self.act.map(|act| -> Act {
            let first = Arc::clone(&first);
            Arc::new(move |ctx| {
                first();
                act(ctx)
            })
        });
        self
    }

    pub(crate) fn first_wait(mut self, wait: Duration) -> Self {
        self.kind.retry.first = wait;
        self.kind.retry.cap = wait.max(self.kind.retry.cap);
        self
    }
}

/// What an engine is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) plays: Vec<Play>,
    pub(crate) settings: config::Queue,
    pub(crate) concurrency: BTreeMap<String, usize>,
    /// Longest wait for a connection of a pool.
    pub(crate) acquire_timeout: Duration,
    /// Longest statement of a session.
    pub(crate) statement_timeout: Duration,
    pub(crate) pooler: Pooler,
}

impl Setup {
    /// Short waits, but a heartbeat that a busy machine cannot lose. Whatever may be leased in a
    /// batch is, unless `INGESTD_TEST_BATCH_LEASE_FROM` says from how many jobs on.
    pub(crate) fn of(plays: impl Into<Vec<Play>>) -> Self {
        let settings = config::Queue {
            poll_interval: Duration::from_millis(100),
            trailing_poll: Duration::from_millis(5),
            heartbeat_interval: Duration::from_millis(200),
            rescue_interval: Duration::from_secs(1),
            deadline_grace: Duration::from_millis(200),
            batch_lease_from: std::env::var("INGESTD_TEST_BATCH_LEASE_FROM")
                .map_or(1, |n| n.parse().unwrap()),
            ..config::Queue::default()
        };
        Self {
            plays: plays.into(),
            settings,
            concurrency: BTreeMap::new(),
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: config::Database::default().statement_timeout,
            pooler: Pooler::None,
        }
    }

    pub(crate) fn slots(mut self, queue: &str, n: usize) -> Self {
        self.concurrency.insert(queue.into(), n);
        self
    }

    pub(crate) fn with(mut self, set: impl FnOnce(&mut config::Queue)) -> Self {
        set(&mut self.settings);
        self
    }

    /// A worker without a heartbeat for `lost_after` is given up; it stops itself well before.
    pub(crate) fn lost_after(self, lost_after: Duration) -> Self {
        self.with(|queue| {
            queue.lost_after = lost_after;
            queue.trust_window = lost_after * 2 / 3;
            queue.heartbeat_interval = lost_after / 12;
        })
    }

    /// For tests that keep claims from writing the rows of jobs.
    pub(crate) fn in_rows(self) -> Self {
        self.with(|queue| queue.batch_lease_from = 0)
    }

    pub(crate) fn polling(self) -> Self {
        self.with(|queue| queue.wake = Wake::Poll)
    }

    /// For a URL that leads through a pooler in transaction mode.
    pub(crate) fn pooled(self) -> Self {
        Self {
            pooler: Pooler::Transaction,
            ..self.polling()
        }
    }

    /// Starts an engine on the database at `url`, with connections of its own.
    pub(crate) async fn start(&self, url: &str) -> Running {
        let database = config::Database {
            url: Some(SecretString::from(url)),
            max_connections: 6,
            acquire_timeout: self.acquire_timeout,
            statement_timeout: self.statement_timeout,
            pooler: self.pooler,
            ..config::Database::default()
        };
        let acts = self
            .plays
            .iter()
            .filter_map(|p| Some((p.kind.name, p.act.clone()?)));
        let engine = Engine {
            pool: db::connect_queue(&database).await.unwrap(),
            options: db::session(&database).unwrap(),
            kinds: self.plays.iter().map(|p| p.kind).collect(),
            state: Stage {
                db: db::connect(&database).await.unwrap(),
                acts: acts.collect(),
            },
            settings: self.settings.clone(),
            concurrency: self.concurrency.clone(),
        };
        engine.start().await.unwrap()
    }
}

/// Stops an engine, letting its jobs finish.
pub(crate) async fn stop(engine: Running) {
    engine.stop(CancellationToken::new()).await;
}

/// A database and the ways to ask it.
pub(crate) struct Rig {
    db: Database,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self {
            db: Database::create().await,
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    pub(crate) fn url(&self) -> &str {
        self.db.url()
    }

    /// Connects a pool that is not called `ingestd`, for tests that cut whatever is.
    pub(crate) async fn observer(&self) -> PgPool {
        let options: PgConnectOptions = self.url().parse().unwrap();
        PgPool::connect_with(options.application_name("observer"))
            .await
            .unwrap()
    }

    /// Starts an engine with the default setup of these kinds.
    pub(crate) async fn play(&self, plays: impl Into<Vec<Play>>) -> Running {
        Setup::of(plays).start(self.url()).await
    }

    /// Runs statements.
    pub(crate) async fn sql(&self, statements: &str) {
        run(self.pool(), statements).await;
    }

    /// Asks for one value; see [`ask`].
    pub(crate) async fn ask<T>(&self, query: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        ask(self.pool(), query).await
    }

    /// Waits until a condition holds; see [`until`].
    pub(crate) async fn until(&self, condition: &str) {
        until(self.pool(), condition).await;
    }

    /// Waits until no job is unfinished.
    pub(crate) async fn until_idle(&self) {
        self.until("NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    }
}

/// Runs statements.
pub(crate) async fn run(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// Asks for one value.
///
/// A database that is away for a while is asked again.
pub(crate) async fn ask<T>(pool: &PgPool, query: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    let begun = Instant::now();
    loop {
        let answer = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
        match answer.fetch_one(pool).await {
            Ok(value) => return value,
            Err(error) if db::is_transient(&error) && begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{query}: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the database says that `condition`, an SQL expression, is true.
///
/// A database that is away for a while is asked again. Out of patience, the test fails with the
/// state of the jobs.
pub(crate) async fn until(pool: &PgPool, condition: &str) {
    let begun = Instant::now();
    while ask::<Option<bool>>(pool, &format!("SELECT {condition}")).await != Some(true) {
        let is_late = begun.elapsed() > PATIENCE;
        assert!(
            !is_late,
            "never came true: {condition}\n{}",
            jobs(pool).await
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `left`, an SQL expression that nothing makes more, is 0: for as long as it takes, if
/// only it becomes less.
pub(crate) async fn until_none(pool: &PgPool, left: &str) {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    loop {
        let now: i64 = ask(pool, &format!("SELECT {left}")).await;
        if now == 0 {
            return;
        }
        if now < least {
            (least, since) = (now, Instant::now());
        }
        let is_stuck = since.elapsed() > PATIENCE;
        assert!(!is_stuck, "{now} stay of {left}\n{}", jobs(pool).await);
        tokio::time::sleep(POLL * 10).await;
    }
}

/// Waits until `condition` holds in this process.
pub(crate) async fn until_true(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Describes every job, for the message of a test that fails.
async fn jobs(pool: &PgPool) -> String {
    let lines: sqlx::Result<Vec<String>> = sqlx::query_scalar(
        "SELECT to_jsonb(a)::text FROM ingestd.all_jobs a ORDER BY id DESC LIMIT 30",
    )
    .fetch_all(pool)
    .await;
    lines.map_or_else(|error| error.to_string(), |lines| lines.join("\n"))
}

/// Says something where it is seen even if the test passes: a seed, why something was left out.
pub(crate) fn tell(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Returns a counter of `/metrics`; 0 where it has no series yet.
pub(crate) fn counter(series: &str) -> f64 {
    let text = Exporter::get().render();
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
        .unwrap_or(0.0)
}
