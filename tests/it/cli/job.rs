//! What people do to single jobs that wait.

use serde_json::json;

use super::World;

#[tokio::test]
async fn a_job_is_made_urgent_put_off_and_rescheduled() {
    let world = World::create().await;
    let id = world
        .run("enqueue system.noop --run-at 2030-01-01T00:00:00Z -q")
        .ok();
    let id = id.trim();
    let said = world.run(&format!("jobs priority {id} 0")).ok();
    assert!(said.contains("has priority 0 now"), "{said}");
    assert!(world.audited("job.change", &format!("job/{id}")).await);
    let snoozed = world.run(&format!("jobs snooze {id} 1h --json")).json();
    assert_eq!(snoozed["run_at"], "2030-01-01T01:00:00Z");
    assert!(world.audited("job.snooze", &format!("job/{id}")).await);
    world
        .run(&format!("jobs reschedule {id} 2029-01-01T00:00:00Z"))
        .ok();
    let shown = world.run(&format!("jobs show {id} --json")).json();
    assert_eq!(
        (&shown["priority"], &shown["run_at"]),
        (&json!(0), &json!("2029-01-01T00:00:00Z"))
    );
    world.run(&format!("jobs priority {id} 4")).code(64);
    world
        .run(&format!("jobs snooze {id} 0s"))
        .code(64)
        .says("from 1s");
    world
        .run("jobs priority 987654 0")
        .code(66)
        .says("there is no job 987654");
    world.run(&format!("jobs cancel {id}")).ok();
    for change in ["priority", "snooze", "reschedule"] {
        let to = match change {
            "priority" => "0",
            "snooze" => "5m",
            _ => "2029-01-01T00:00:00Z",
        };
        let line = format!("jobs {change} {id} {to}");
        world
            .run(&line)
            .code(1)
            .says(&format!("job {id} is cancelled"));
    }
}

#[tokio::test]
async fn enqueue_knows_periods() {
    let world = World::create().await;
    let line = "enqueue system.noop --unique-key k --unique-for 300days --json";
    let first = world.run(line).json();
    assert_eq!(first["inserted"], true);
    let cancel = format!("jobs cancel {}", first["id"]);
    world.run(&cancel).ok();
    let second = world.run(line).json();
    assert_eq!(
        (&second["id"], &second["inserted"]),
        (&first["id"], &json!(false))
    );
    world
        .run("enqueue system.noop --unique-for 1h")
        .code(64)
        .says("--unique-key");
    world
        .run("enqueue system.noop --unique-key k --unique-for 500ms")
        .code(65)
        .says("whole seconds");
}

#[tokio::test]
async fn what_a_job_did_and_said_is_shown() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let args = r#"{"steps": 3, "log": "hello\nworld", "sleep_ms": 300, "output": [1, 2]}"#;
    let id = world.run_with("enqueue system.noop -q", args).ok();
    let id = id.trim();
    let followed = world.run(&format!("jobs logs {id} --follow")).ok();
    assert_eq!(followed.matches("1 info  hello\nworld\n").count(), 3);
    let shown = world.run(&format!("jobs show {id}")).ok();
    assert!(shown.contains("state         completed"), "{shown}");
    assert!(shown.contains("step 2: in attempt 1, at "), "{shown}");
    assert!(shown.contains("output        [1,2]"), "{shown}");
    let lines = world.run(&format!("jobs logs {id} --json")).ok();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["line_no"], &last["message"]),
        (&json!(3), &json!("hello\nworld"))
    );
    for line in ["jobs logs 987654", "jobs logs 987654 --follow"] {
        world.run(line).code(66).says("there is no job 987654");
    }
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn running_jobs_are_listed_with_their_progress() {
    let world = World::create().await;
    sqlx::raw_sql(
        "WITH job AS (
           INSERT INTO ingestd.jobs (kind, state, lease_id, worker_id, attempt, started_at)
           VALUES ('system.noop', 'running', 1, 1, 1, now()) RETURNING id)
         INSERT INTO ingestd.job_progress (job_id, lease_id, attempt, n_done, n_total, note)
         SELECT id, 1, 1, 70, 200, 'page 7' FROM job",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let listed = world.run("jobs ls --state running").ok();
    assert!(listed.contains("70/200 (35 %) page 7"), "{listed}");
    let listed = world.run("jobs ls --json").json();
    assert_eq!(listed[0]["progress"]["n_total"], 200);
    let shown = world.run(&format!("jobs show {}", listed[0]["id"])).ok();
    assert!(shown.contains("70/200 (35 %) page 7"), "{shown}");
}

#[tokio::test]
async fn a_job_says_why_it_does_not_run() {
    let world = World::create().await;
    world.run("queues pause default").ok();
    let id = world.run("enqueue system.noop -q").ok();
    let said = world.run(&format!("jobs why {}", id.trim())).ok();
    assert!(
        said.contains("is queued") && said.contains("Queue default has been paused"),
        "{said}"
    );
    assert!(said.contains("ingestd queues resume default"), "{said}");
    let told = world.run(&format!("jobs why {} --json", id.trim())).json();
    let codes: Vec<_> = told["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["code"])
        .collect();
    assert_eq!(codes, ["queue_paused", "no_worker"]);
    world
        .run("jobs why 987654")
        .code(66)
        .says("there is no job 987654");
}
