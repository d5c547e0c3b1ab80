//! Figures per minute.

use super::server::{Server, problem};

#[tokio::test]
async fn what_ended_is_told_by_kind_and_by_minute() {
    let server = Server::start().await;
    sqlx::query(
        "INSERT INTO ingestd.job_stats
           (minute, kind, queue, outcome, n_jobs, duration_ms, wait_ms, buckets)
         SELECT date_trunc('minute', now()), 't.k', queue, outcome, 5, 100, 50, '{0,5,0,0,0,0,0}'
         FROM unnest(ARRAY['q', 'r']) queue, unnest(ARRAY['success', 'retry']) outcome",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let stats = server.json("/api/v1/stats?queue=q&minutes=10").await;
    assert_eq!(stats["minutes"], 10);
    let kind = &stats["kinds"][0];
    assert_eq!(
        (&kind["queue"], &kind["kind"]),
        (&"q".into(), &"t.k".into())
    );
    assert_eq!(kind["attempts"], 10);
    assert_eq!((&kind["success"], &kind["retry"]), (&5.into(), &5.into()));
    assert_eq!(kind["per_minute"], 1.0);
    assert_eq!(kind["mean_seconds"], 0.02);
    assert_eq!(stats["kinds"].as_array().unwrap().len(), 1);
    let series = stats["series"].as_array().unwrap();
    assert_eq!(series.len(), 1);
    assert_eq!(series[0]["attempts"], 10);
    assert!(series[0]["p95_seconds"].as_f64().unwrap() > 0.005);

    let all = server.json("/api/v1/stats").await;
    assert_eq!(all["series"][0]["attempts"], 20);
}

#[tokio::test]
async fn more_than_a_day_is_refused() {
    let server = Server::start().await;
    for wrong in ["minutes=0", "minutes=1441", "minutes=x", "minute=5"] {
        let response = server.get(&format!("/api/v1/stats?{wrong}")).send().await;
        problem(response.unwrap(), 400, "bad-request").await;
    }
}
