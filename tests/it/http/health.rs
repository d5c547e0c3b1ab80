//! The database's health over HTTP.

use super::server::Server;

#[tokio::test]
async fn the_database_s_health_is_told() {
    let server = Server::start().await;
    let mut open = server.pool().begin().await.unwrap();
    let pid: i32 = sqlx::query_scalar(
        "SELECT pg_backend_pid() WHERE pg_current_xact_id() IS NOT NULL AND 'hush' <> ''",
    )
    .fetch_one(&mut *open)
    .await
    .unwrap();
    let health = server.json("/api/v1/health/database").await;
    let holders = health["xmin_horizon"].as_array().unwrap();
    let holder = holders.iter().find(|holder| holder["pid"] == pid).unwrap();
    assert_eq!(holder["holder"], "transaction");
    assert_eq!(holder["name"], "ingestd");
    assert!(holder["query"].as_str().unwrap().ends_with("AND ? <> ?"));
    assert!(!health.to_string().contains("hush"));
    assert_eq!(health["jobs_table"]["has_autovacuum"], true);
    assert!(health["jobs_table"]["index_bytes"].is_number());
    let tables = health["partitions"].as_array().unwrap();
    assert!(tables.iter().any(|table| table["table"] == "job_history"));
    let plans = health["plans"].as_array().unwrap();
    assert!(
        plans
            .iter()
            .all(|plan| plan["faults"] == serde_json::json!([]))
    );
    open.rollback().await.unwrap();
}
