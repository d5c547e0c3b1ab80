//! The binary COPY against the server that reads it.

use chrono::{DateTime, NaiveDateTime, Utc};
use ingestd::{
    db::copy::{CopyIn, Jsonb},
    testing::Database,
};
use rust_decimal::Decimal;

const TABLE: &str =
    "CREATE TABLE t (i int4, l int8, t text, n numeric, ts timestamp, tz timestamptz, j jsonb)";
const COPY: &str = "COPY t FROM STDIN (FORMAT binary)";

type Read = (
    Option<i32>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<NaiveDateTime>,
    Option<DateTime<Utc>>,
    Option<serde_json::Value>,
);

#[tokio::test]
async fn every_type_arrives_as_it_was() {
    let db = Database::create().await;
    let mut conn = db.pool().acquire().await.unwrap();
    sqlx::query(TABLE).execute(&mut *conn).await.unwrap();
    let time: NaiveDateTime = "1969-07-20T20:17:40.123456".parse().unwrap();
    let number = "-7922816251426.433759354395".parse::<Decimal>().unwrap();
    let mut copy = CopyIn::begin(&mut conn, COPY).await.unwrap();
    copy.row(|row| {
        row.push(i32::MIN)
            .push(i64::MAX)
            .push("ž\t\\N\n")
            .push(number)
            .push(time);
        row.push(time.and_utc())
            .push(Jsonb(serde_json::json!({"a": [1, "é"]})));
    })
    .await
    .unwrap();
    copy.row(|row| {
        row.push(None::<i32>)
            .push(None::<i64>)
            .push(None::<&str>)
            .push(None::<Decimal>);
        row.push(None::<NaiveDateTime>)
            .push(None::<DateTime<Utc>>)
            .push(None::<Jsonb<()>>);
    })
    .await
    .unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);

    let read = "SELECT i, l, t, n::text, ts, tz, j FROM t ORDER BY i NULLS LAST";
    let rows: Vec<Read> = sqlx::query_as(read).fetch_all(&mut *conn).await.unwrap();
    let full = (
        Some(i32::MIN),
        Some(i64::MAX),
        Some("ž\t\\N\n".into()),
        Some(number.to_string()),
        Some(time),
        Some(time.and_utc()),
        Some(serde_json::json!({"a": [1, "é"]})),
    );
    assert_eq!(rows, [full, (None, None, None, None, None, None, None)]);
}

/// Mantissas of every length at every scale, by a seeded generator; the server says what it read.
#[tokio::test]
async fn numerics_arrive_as_they_were() {
    let db = Database::create().await;
    let mut conn = db.pool().acquire().await.unwrap();
    sqlx::query("CREATE TABLE n (i int4, n numeric)")
        .execute(&mut *conn)
        .await
        .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut numbers: Vec<Decimal> = (0..3_000)
        .map(|_| {
            let mantissa = random.u128(..) >> random.u32(32..128);
            let sign = if random.bool() { 1 } else { -1 };
            Decimal::from_i128_with_scale(sign * mantissa.cast_signed(), random.u32(..=28))
        })
        .collect();
    numbers.extend([Decimal::MAX, Decimal::MIN, Decimal::ZERO, -Decimal::ZERO]);
    let mut copy = CopyIn::begin(&mut conn, "COPY n FROM STDIN (FORMAT binary)")
        .await
        .unwrap();
    for (i, number) in (0_i32..).zip(&numbers) {
        copy.row(|row| {
            row.push(i).push(*number);
        })
        .await
        .unwrap();
    }
    copy.finish().await.unwrap();
    let read: Vec<String> = sqlx::query_scalar("SELECT n::text FROM n ORDER BY i")
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    for (number, read) in numbers.iter().zip(&read) {
        // Postgres knows no negative zero.
        let number = if number.is_zero() {
            number.abs()
        } else {
            *number
        };
        assert_eq!(read, &number.to_string());
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_good() {
    let db = Database::create().await;
    let mut conn = db.pool().acquire().await.unwrap();
    sqlx::query(TABLE).execute(&mut *conn).await.unwrap();
    assert!(
        CopyIn::begin(&mut conn, "COPY nowhere FROM STDIN (FORMAT binary)")
            .await
            .is_err()
    );
    let mut copy = CopyIn::begin(&mut conn, "COPY t (t) FROM STDIN (FORMAT binary)")
        .await
        .unwrap();
    for nth in 0..10_000 {
        let text = if nth == 5 {
            "\0"
        } else {
            "a value of some length"
        };
        copy.row(|row| {
            row.push(text);
        })
        .await
        .unwrap();
    }
    let error = copy.finish().await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "22021");
    let n_rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t")
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    assert_eq!(n_rows, 0);
}

/// The pool must not hand out a connection that is still in the middle of somebody's COPY.
#[tokio::test]
async fn a_copy_that_is_dropped_costs_the_pool_nothing_but_a_connection() {
    let db = Database::create().await;
    sqlx::query(TABLE).execute(db.pool()).await.unwrap();
    for _ in 0..5 {
        let mut tx = db.pool().begin().await.unwrap();
        let mut copy = CopyIn::begin(&mut tx, "COPY t (t) FROM STDIN (FORMAT binary)")
            .await
            .unwrap();
        copy.row(|row| {
            row.push("a");
        })
        .await
        .unwrap();
        drop(copy);
        drop(tx);
        let n_rows: i64 = sqlx::query_scalar("SELECT count(*) FROM t")
            .fetch_one(db.pool())
            .await
            .unwrap();
        assert_eq!(n_rows, 0);
    }
}

/// A COPY that waits for somebody's row, and is dropped at its end: what its server says of it later
/// is told to nobody else.
#[tokio::test]
async fn who_has_the_connection_of_a_dropped_copy_gets_the_own_answers() {
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY%')";
    let db = Database::create().await;
    let table = "CREATE TABLE k (k int8 PRIMARY KEY)";
    sqlx::query(table).execute(db.pool()).await.unwrap();
    let mut holder = db.pool().begin().await.unwrap();
    let key = "INSERT INTO k VALUES (7)";
    sqlx::query(key).execute(&mut *holder).await.unwrap();
    {
        let mut tx = db.pool().begin().await.unwrap();
        let mut copy = CopyIn::begin(&mut tx, "COPY k FROM STDIN (FORMAT binary)")
            .await
            .unwrap();
        copy.row(|row| _ = row.push(7_i64)).await.unwrap();
        let waits = super::process::until("the COPY waits", || async {
            let waits = sqlx::query_scalar(WAITS).fetch_one(db.pool());
            waits.await.unwrap()
        });
        tokio::select! {
            done = copy.finish() => panic!("it waits for the key: {done:?}"),
            () = waits => {}
        }
    }
    holder.rollback().await.unwrap();
    let n_connections = i64::from(db.pool().options().get_max_connections());
    let mut taken = Vec::new();
    for question in 0..n_connections {
        let mut conn = db.pool().acquire().await.unwrap();
        let ask = sqlx::query_scalar("SELECT $1").bind(question);
        let answer: i64 = ask.fetch_one(&mut *conn).await.unwrap();
        assert_eq!(answer, question);
        taken.push(conn);
    }
}
