//! What ended lately, and how much there is, as commands tell it.

use super::World;

#[tokio::test]
async fn queues_stats_tells_what_ended_lately() {
    let world = World::create().await;
    world.run("queues stats").says("nothing ended in that time");
    sqlx::query(
        "INSERT INTO ingestd.job_stats
           (minute, kind, queue, outcome, n_jobs, duration_ms, wait_ms, buckets)
         VALUES (date_trunc('minute', now()), 't.k', 'q', 'success', 120, 600, 1200, '{120,0,0,0,0,0,0}'),
                (date_trunc('minute', now()), 't.k', 'q', 'dead', 3, 60, 0, '{0,3,0,0,0,0,0}'),
                (date_trunc('minute', now() - interval '2 h'), 't.old', 'q', 'dead', 3, 60, 0, '{0,3,0,0,0,0,0}')",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let table = world.run("queues stats").ok();
    assert!(table.contains("t.k") && !table.contains("t.old"), "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row[..7],
        ["q", "t.k", "123", "2.0", "3", "3", "0"],
        "{table}"
    );
    let day = world.run("queues stats q --minutes 1440 --json").json();
    assert_eq!(day.as_array().unwrap().len(), 2);
    assert_eq!(
        world.run("queues stats other --json").json(),
        serde_json::json!([])
    );
    let kind = world.run("queues stats --kind t.k --json").json();
    assert_eq!(kind[0]["dead"], 3);
    world.run("queues stats --minutes 1441").code(64);
}

#[tokio::test]
async fn queues_ls_counts_up_to_a_limit() {
    let world = World::create().await;
    sqlx::query(
        "INSERT INTO ingestd.jobs (kind, queue)
         SELECT 'system.noop', 'deep' FROM generate_series(1, 10005)",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let table = world.run("queues ls").ok();
    let deep = table.lines().find(|line| line.starts_with("deep")).unwrap();
    assert!(deep.contains(" 10000+ "), "{table}");
    let json = world.run("queues ls --json").json();
    let deep = json
        .as_array()
        .unwrap()
        .iter()
        .find(|q| q["queue"] == "deep");
    assert_eq!(deep.unwrap()["queued"], 10_001);
}
