//! The pool and what each of its sessions is set to.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::relay;
use crate::config;

/// A statement slower than this is logged as a warning.
const SLOW: Duration = Duration::from_secs(5);

/// What a session is set to, beside its statement timeout.
///
/// A transaction left idle holds back vacuum and keeps its locks, so the server ends it after
/// 30 s. The keepalives let the server notice within about a minute that a daemon's machine is
/// gone, and let go of what it held; they mean nothing on a socket. There is no `lock_timeout`:
/// a wait for a lock is bounded by the statement timeout already. Who waited for a lock must see what
/// its last holder committed, whatever isolation the database has for default.
const SESSION: [(&str, &str); 6] = [
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("tcp_keepalives_idle", "30s"),
    ("tcp_keepalives_interval", "10s"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "60s"),
];

/// Connects a pool, whose sessions are in UTC (sqlx sees to that) and called `ingestd`.
///
/// The first connection is made here, so that a wrong URL is told at once, and not through the relay,
/// so that it is told in the system's own words.
///
/// # Errors
///
/// No URL, or one that does not parse; a database that does not answer within the acquire timeout.
pub async fn connect(config: &config::Database) -> sqlx::Result<PgPool> {
    let session = session(config)?;
    let first = tokio::time::timeout(config.acquire_timeout, session.connect()).await;
    let first = first.map_err(|_| sqlx::Error::PoolTimedOut)??;
    first.close().await?;
    let longest_wait = config.statement_timeout;
    pool(config, config.max_connections, &[])
        .after_release(move |conn, _| Box::pin(answers(conn, longest_wait)))
        .connect_with(relay::carried(session, longest_wait)?)
        .await
}

/// Says that a connection gives this question its own answer, and fails where it gives none for as
/// long as its server may take.
///
/// A job that ends at its time limit may leave a statement behind whose answer never comes, because
/// the network swallowed it. The pool would wait for it before it lends the connection out again,
/// and for as long it would count as taken. What the server still executes it ends by itself at the
/// statement timeout, so after that nothing will come.
///
/// Or it leaves the end of a COPY behind, whose answer sqlx does not expect any more: the next one
/// would be told that, and from then on each would be told what was meant for the one before.
async fn answers(conn: &mut PgConnection, longest_wait: Duration) -> sqlx::Result<bool> {
    let question = fastrand::i64(..);
    let ask = sqlx::query_scalar("SELECT $1").bind(question);
    let answer = tokio::time::timeout(longest_wait, ask.fetch_optional(conn)).await;
    let answer: Option<i64> = answer
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
    Ok(answer == Some(question))
}

/// A pool whose sessions are set to what they shall be set to, whatever stands in between.
///
/// The settings also go with the startup packet, where they cost nothing and hold from the first
/// moment on; but a pooler that is told to ignore `options` drops them there without a word.
fn pool(
    config: &config::Database,
    n_connections: u32,
    further: &[(&'static str, &'static str)],
) -> PgPoolOptions {
    let all = SESSION.iter().chain(further);
    let (mut names, mut values): (Vec<&str>, Vec<String>) = all
        .map(|(name, value)| (*name, (*value).to_owned()))
        .unzip();
    names.push("statement_timeout");
    values.push(statement_timeout(config));
    let options = PgPoolOptions::new()
        .max_connections(n_connections)
        .acquire_timeout(config.acquire_timeout);
    if config.pooler == config::Pooler::Transaction {
        // Others would meet what is set here; the relay sets each transaction.
        return options;
    }
    options.after_connect(move |conn, _| {
        let set = sqlx::query(
            "SELECT set_config(name, value, false)
                 FROM unnest($1::text[], $2::text[]) AS s (name, value)",
        );
        let set = set
            .bind(names.clone())
            .bind(values.clone())
            .persistent(false);
        Box::pin(async move { set.execute(conn).await.map(|_| ()) })
    })
}

fn statement_timeout(config: &config::Database) -> String {
    format!("{}ms", config.statement_timeout.as_millis())
}

/// Returns the settings of one connection, for those that stand beside the pool: a listener, a
/// heartbeat.
///
/// # Errors
///
/// No URL, or one that does not parse. With `database.pooler = "transaction"`, a pooler on another
/// machine without `sslmode=disable`.
pub fn session(config: &config::Database) -> sqlx::Result<PgConnectOptions> {
    let missing = || sqlx::Error::Configuration("database.url is not set".into());
    let url: PgConnectOptions = config
        .url
        .as_ref()
        .ok_or_else(missing)?
        .expose_secret()
        .parse()?;
    let url = match config.pooler {
        config::Pooler::None => url,
        config::Pooler::Transaction => relay::through(url)?,
    };
    Ok(url
        .application_name("ingestd")
        .options(SESSION)
        .options([("statement_timeout", statement_timeout(config))])
        .log_statements(log::LevelFilter::Trace)
        .log_slow_statements(log::LevelFilter::Warn, SLOW))
}

/// The queue's own connections, which jobs cannot take: claims, completions, rescue, schedules.
const QUEUE_CONNECTIONS: u32 = 6;

/// Every statement of the queue has one good plan, an ordered index scan; these keep the planner
/// from others when a table is empty, bloated or just filled and its statistics mislead. Without
/// `jit=off` a statement that has to read a table in sequence after all would look so costly that
/// the server spends a second compiling it, at every execution.
const ONE_PLAN: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Sets the transaction to the one plan that the queue's own sessions have: scans by index.
///
/// For sessions of other pools that run a statement of the queue, or look what it would do.
///
/// # Errors
///
/// What Postgres says.
pub async fn one_plan(tx: &mut PgConnection) -> sqlx::Result<()> {
    let (names, values): (Vec<&str>, Vec<&str>) = ONE_PLAN.into_iter().unzip();
    sqlx::query("SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS s (name, value)")
        .bind(&names)
        .bind(&values)
        .execute(tx)
        .await?;
    Ok(())
}

/// How long a connection of the queue may have been idle and still be used without a ping.
const FRESH: Duration = Duration::from_millis(1500);

/// Connects the pool that belongs to the queue alone.
///
/// A connection is tried out before its use only where it was idle for long: a ping is a round
/// trip more on the way of every job, and whoever uses the pool repeats what failed.
///
/// # Errors
///
/// As [`connect`].
pub async fn connect_queue(config: &config::Database) -> sqlx::Result<PgPool> {
    let session = session(config)?.options(ONE_PLAN);
    pool(config, QUEUE_CONNECTIONS, &ONE_PLAN)
        .test_before_acquire(false)
        .before_acquire(|conn, idle| {
            let is_fresh = idle.idle_for < FRESH;
            Box::pin(async move {
                if !is_fresh {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(session)
        .await
}

/// Connections for what attempts write down: short statements of jobs, so few serve many.
const RECORD_CONNECTIONS: u32 = 4;

/// Returns the pool for what attempts write down. It connects when it is first used, and closes
/// what nobody used for a minute.
///
/// A connection is not tried out before its use: whoever uses it repeats what failed.
#[must_use]
pub fn records(session: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(RECORD_CONNECTIONS)
        .idle_timeout(Duration::from_mins(1))
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .connect_lazy_with(session.options(ONE_PLAN))
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::*;
    use crate::{db::is_transient, testing::Database};

    fn config(url: &str) -> config::Database {
        config::Database {
            url: Some(url.into()),
            ..config::Database::default()
        }
    }

    #[tokio::test]
    async fn a_session_has_its_limits() {
        let db = Database::create().await;
        let mut config = config(db.url());
        config.statement_timeout = Duration::from_millis(1_500);
        let pool = connect(&config).await.unwrap();
        for (name, value) in [
            ("application_name", "ingestd"),
            ("TimeZone", "UTC"),
            ("statement_timeout", "1500ms"),
            ("idle_in_transaction_session_timeout", "30s"),
            ("default_transaction_isolation", "read committed"),
            ("lock_timeout", "0"),
        ] {
            let row = sqlx::query("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&pool);
            assert_eq!(row.await.unwrap().get::<String, _>(0), value, "{name}");
        }
    }

    #[tokio::test]
    async fn the_queue_s_sessions_have_them_too_and_one_plan() {
        let db = Database::create().await;
        let pool = connect_queue(&config(db.url())).await.unwrap();
        for (name, value) in [
            ("statement_timeout", "1min"),
            ("enable_seqscan", "off"),
            ("jit", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ] {
            let row = sqlx::query("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&pool);
            assert_eq!(row.await.unwrap().get::<String, _>(0), value, "{name}");
        }
    }

    #[tokio::test]
    async fn a_slow_statement_is_cut_off_for_good() {
        let db = Database::create().await;
        let mut config = config(db.url());
        config.statement_timeout = Duration::from_millis(10);
        let pool = connect(&config).await.unwrap();
        let error = sqlx::query("SELECT pg_sleep(30)")
            .execute(&pool)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("statement timeout"), "{error}");
        assert!(
            !is_transient(&error),
            "the same statement would be as slow again"
        );
    }

    #[tokio::test]
    async fn a_terminated_session_is_transient() {
        let db = Database::create().await;
        let mut conn = db.pool().acquire().await.unwrap();
        let error = sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())")
            .execute(&mut *conn)
            .await
            .unwrap_err();
        assert!(is_transient(&error), "{error}");
        let error = sqlx::query("SELECT 1")
            .execute(&mut *conn)
            .await
            .unwrap_err();
        assert!(is_transient(&error), "{error}");
    }

    #[tokio::test]
    async fn no_url_is_told_by_its_key() {
        let error = connect(&config::Database::default()).await.unwrap_err();
        assert!(error.to_string().contains("database.url"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_database_is_told_at_once() {
        let db = Database::create().await;
        let url = db.url().replace("ingestd_test_", "ingestd_absent_");
        let error = connect(&config(&url)).await.unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}
