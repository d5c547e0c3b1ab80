//! What `ingestd doctor` says about the database's health.

use serde_json::Value;

use super::World;

/// Returns what a check found.
fn finding(report: &Value, check: &str) -> Value {
    let findings = report.as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    found
        .unwrap_or_else(|| panic!("no {check} in {report}"))
        .clone()
}

fn doctor(world: &World) -> Value {
    let said = world.run("doctor --json").out;
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn doctor_looks_at_horizon_table_partitions_and_plans() {
    let world = World::create().await;
    let report = doctor(&world);
    for check in ["live table", "partitions", "plans"] {
        assert_eq!(finding(&report, check)["status"], "ok", "{report}");
    }
    // Other tests share the cluster, and one may hold a snapshot for long.
    assert!(finding(&report, "vacuum horizon")["message"].is_string());

    sqlx::raw_sql(
        "DROP INDEX ingestd.jobs_ready;
         ALTER TABLE ingestd.jobs SET (autovacuum_enabled = false);
         SELECT ingestd.drop_partitions(-30)",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let report = doctor(&world);
    for (check, said) in [
        ("plans", "claim: "),
        ("live table", "autovacuum off"),
        ("partitions", "-1 days ahead"),
    ] {
        let finding = finding(&report, check);
        assert_eq!(finding["status"], "warn", "{report}");
        assert!(finding.to_string().contains(said), "{finding}");
    }
}
