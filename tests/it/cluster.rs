//! The private cluster and the database per test.

use ingestd::testing::Database;

#[tokio::test]
async fn two_databases_know_nothing_of_each_other() {
    let (one, two) = (Database::create().await, Database::create().await);
    sqlx::query("INSERT INTO ingestd.queues (queue) VALUES ('only here')")
        .execute(one.pool())
        .await
        .unwrap();
    let count = "SELECT count(*) FROM ingestd.queues";
    let n_one: i64 = sqlx::query_scalar(count)
        .fetch_one(one.pool())
        .await
        .unwrap();
    let n_two: i64 = sqlx::query_scalar(count)
        .fetch_one(two.pool())
        .await
        .unwrap();
    assert_eq!((n_one, n_two), (1, 0));
}
