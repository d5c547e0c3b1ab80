//! Dead letters: grouped, picked by filters, replayed with other arguments.

use chrono::{DateTime, Utc};
use ingestd::queue::{
    JobError, JobId, Reason,
    dead::{self, Begin, DeadGroup},
    filter::{DeadFilter, Filter, Fingerprint, LiveFilter},
    read::{self, JobState},
};
use serde_json::{Value, json};

use crate::queue_rig::{Rig, done, play, stop};

/// Inserts a letter; columns that are not given are those of the first.
async fn letter(rig: &Rig, id: i64, columns: &Value) {
    let mut row = json!({
        "shard": 0, "id": id, "kind": "t.one", "args": {}, "queue": "default", "priority": 1,
        "attempt": 3, "crashes": 0, "reason": "exhausted", "error": "it broke", "fingerprint": 1,
        "created_at": "2026-01-01T00:00:00Z", "died_at": "2026-01-02T00:00:00Z",
    });
    row.as_object_mut()
        .unwrap()
        .extend(columns.as_object().unwrap().clone());
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs
         SELECT * FROM jsonb_populate_record(NULL::ingestd.dead_jobs, $1)",
    )
    .bind(row)
    .execute(rig.pool())
    .await
    .unwrap();
}

async fn ids(rig: &Rig, filter: &DeadFilter) -> Vec<i64> {
    let letters = dead::list(rig.pool(), filter, None, 100).await.unwrap();
    letters.iter().map(|letter| letter.id.0).collect()
}

#[tokio::test]
async fn each_filter_picks_its_own() {
    let rig = Rig::new().await;
    letter(&rig, 1, &json!({})).await;
    letter(
        &rig,
        2,
        &json!({ "kind": "t.two", "queue": "other", "reason": "fatal", "run_id": 7 }),
    )
    .await;
    letter(
        &rig,
        3,
        &json!({ "error": "Connection REFUSED by 10.0.0.1", "fingerprint": -1 }),
    )
    .await;
    letter(
        &rig,
        4,
        &json!({ "tenant": "acme", "died_at": "2026-03-01T00:00:00Z" }),
    )
    .await;
    letter(
        &rig,
        5,
        &json!({ "replayed_to": 9, "replayed_at": "2026-04-01T00:00:00Z" }),
    )
    .await;
    let any = DeadFilter::default;
    let march: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
    for (filter, expected) in [
        (any(), vec![4, 3, 2, 1]),
        (
            DeadFilter {
                replayed: true,
                ..any()
            },
            vec![5, 4, 3, 2, 1],
        ),
        (
            DeadFilter {
                kind: Some("t.two".into()),
                ..any()
            },
            vec![2],
        ),
        (
            DeadFilter {
                queue: Some("other".into()),
                ..any()
            },
            vec![2],
        ),
        (
            DeadFilter {
                reason: Some(Reason::Fatal),
                ..any()
            },
            vec![2],
        ),
        (
            DeadFilter {
                run_id: Some(7),
                ..any()
            },
            vec![2],
        ),
        (
            DeadFilter {
                error: Some("connection refused".into()),
                ..any()
            },
            vec![3],
        ),
        // The text is a text and no pattern.
        (
            DeadFilter {
                error: Some("c%d".into()),
                ..any()
            },
            vec![],
        ),
        (
            DeadFilter {
                fingerprint: Some(Fingerprint(-1)),
                ..any()
            },
            vec![3],
        ),
        (
            DeadFilter {
                tenant: Some("acme".into()),
                ..any()
            },
            vec![4],
        ),
        (
            DeadFilter {
                died_after: Some(march),
                ..any()
            },
            vec![4],
        ),
        (
            DeadFilter {
                died_before: Some(march),
                ..any()
            },
            vec![3, 2, 1],
        ),
        (
            DeadFilter {
                tenant: Some("acme".into()),
                kind: Some("t.two".into()),
                ..any()
            },
            vec![],
        ),
    ] {
        assert_eq!(ids(&rig, &filter).await, expected, "{filter:?}");
        // A bulk operation means the same letters.
        let mut tx = rig.pool().begin().await.unwrap();
        let filter = Filter::Dead(filter);
        let last = filter.last_id(&mut tx).await.unwrap();
        let preview = filter.preview(&mut tx, last, 2).await.unwrap();
        assert_eq!(
            preview.n_found,
            i64::try_from(expected.len()).unwrap(),
            "{filter:?}"
        );
        assert!(preview.is_all && preview.first.len() == expected.len().min(2));
        let sifted = filter.sift(&mut tx, JobId(0), last, 100).await.unwrap();
        let mut up: Vec<i64> = sifted.ids.iter().map(|id| id.0).collect();
        up.reverse();
        assert_eq!((up, sifted.is_end), (expected, true), "{filter:?}");
    }
}

#[tokio::test]
async fn what_failed_alike_is_one_group() {
    let rig = Rig::new().await;
    for id in 1..=3 {
        let died_at = format!("2026-02-0{id}T00:00:00Z");
        let row = json!({ "fingerprint": -5, "error": format!("no {id}"), "died_at": died_at });
        letter(&rig, id, &row).await;
    }
    letter(&rig, 4, &json!({ "fingerprint": 6 })).await;
    letter(&rig, 5, &json!({ "kind": "t.two", "fingerprint": -5 })).await;
    letter(&rig, 6, &json!({ "kind": "t.two", "fingerprint": -5 })).await;
    letter(
        &rig,
        7,
        &json!({ "kind": "t.two", "fingerprint": 8, "replayed_at": "2026-04-01Z" }),
    )
    .await;
    let brief = |groups: &[DeadGroup]| -> Vec<(String, i64, i64, i64)> {
        groups
            .iter()
            .map(|g| (g.kind.clone(), g.fingerprint.0, g.n_letters, g.example_id.0))
            .collect()
    };
    let groups = dead::groups(rig.pool(), None, 10).await.unwrap();
    assert_eq!(
        brief(&groups),
        [
            ("t.one".into(), -5, 3, 3),
            ("t.two".into(), -5, 2, 6),
            ("t.one".into(), 6, 1, 4),
        ]
    );
    assert_eq!(
        groups[0].first_died_at.to_rfc3339(),
        "2026-02-01T00:00:00+00:00"
    );
    assert_eq!(
        groups[0].last_died_at.to_rfc3339(),
        "2026-02-03T00:00:00+00:00"
    );
    assert_eq!(groups[0].example_error, "no 3");
    let one = dead::groups(rig.pool(), Some("t.one"), 10).await.unwrap();
    assert_eq!(brief(&one).len(), 2);
    assert!(one.iter().all(|group| group.kind == "t.one"));
    assert_eq!(dead::groups(rig.pool(), None, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_large_group_is_counted_up_to_a_point() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         SELECT n, 't.many', '{}', 'default', 1, 1, 0, 'fatal', 'e', n / 10500, now()
         FROM generate_series(1, 10600) n",
    )
    .await;
    let groups = dead::groups(rig.pool(), None, 10).await.unwrap();
    let counts: Vec<i64> = groups.iter().map(|group| group.n_letters).collect();
    assert_eq!(counts, [10_001, 101]);
}

#[tokio::test]
async fn a_letter_is_replayed_with_other_arguments() {
    let rig = Rig::new().await;
    let picky = play("t.picky", |ctx| async move {
        let is_good = serde_json::to_value(&ctx.lease().args)
            .unwrap()
            .to_string()
            .contains("good");
        if is_good {
            return Ok(ingestd::queue::Done::new());
        }
        Err(JobError::Fatal(anyhow::anyhow!("not good")))
    });
    let engine = rig.play([picky]).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let id: i64 = rig
        .ask("INSERT INTO ingestd.jobs (kind, args) VALUES ('t.picky', '{\"is\": \"bad\"}') RETURNING id")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs)").await;
    let worse = json!({ "is": "worse" });
    let second = dead::replay_with(&mut conn, JobId(id), Some(&worse), Begin::AfterItsSteps)
        .await
        .unwrap()
        .unwrap();
    rig.until("(SELECT count(*) = 2 FROM ingestd.dead_jobs)")
        .await;
    let find = async |id: JobId| read::find(rig.pool(), id).await.unwrap().unwrap();
    let (first, then) = (find(JobId(id)).await, find(second).await);
    assert_eq!(
        first.args,
        Some(json!({ "is": "bad" })),
        "the letter keeps its own"
    );
    assert_eq!(
        (first.replayed_to, then.replayed_from),
        (Some(second), Some(JobId(id)))
    );
    assert_eq!((then.args, then.row.state), (Some(worse), JobState::Dead));
    assert_eq!(then.meta.unwrap()["args_edited"], true);
    assert!(then.fingerprint.is_some() && then.fingerprint == first.fingerprint);
    let good = json!({ "is": "good" });
    let third = dead::replay_with(&mut conn, second, Some(&good), Begin::AfterItsSteps)
        .await
        .unwrap()
        .unwrap();
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'completed')")
        .await;
    assert_eq!(find(third).await.args, Some(good));
    assert_eq!(
        dead::replay_with(&mut conn, second, Some(&json!({})), Begin::AfterItsSteps)
            .await
            .unwrap(),
        None
    );
    stop(engine).await;
}

#[tokio::test]
async fn arguments_that_are_none_leave_the_letter_alone() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.one")]).await).await;
    letter(&rig, 1, &json!({})).await;
    // Like chance, for what is measured is the stored size, after compression.
    let large: Vec<u64> = (1..60_000_u64)
        .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .collect();
    for (args, constraint) in [
        (json!([1]), "args_is_an_object"),
        (json!({ "large": large }), "args_at_most_256_kib"),
    ] {
        let mut conn = rig.pool().acquire().await.unwrap();
        let error = dead::replay_with(&mut conn, JobId(1), Some(&args), Begin::AfterItsSteps)
            .await
            .unwrap_err();
        let error = error.into_database_error().unwrap();
        assert_eq!(error.constraint(), Some(constraint));
    }
    assert_eq!(ids(&rig, &DeadFilter::default()).await, [1]);
}

#[tokio::test]
async fn a_job_that_starts_meanwhile_fits_no_more() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.one")]).await).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.one' FROM generate_series(1, 3)")
        .await;
    let observer = rig.observer().await;
    let mut claim = observer.begin().await.unwrap();
    let started: i64 = sqlx::query_scalar(
        "UPDATE ingestd.jobs SET state = 'running', lease_id = 1, worker_id = 1
         WHERE id = (SELECT min(id) + 1 FROM ingestd.jobs) RETURNING id",
    )
    .fetch_one(&mut *claim)
    .await
    .unwrap();
    let filter = Filter::Live(LiveFilter {
        state: Some(JobState::Queued),
        ..LiveFilter::default()
    });
    let sift = async {
        let mut tx = rig.pool().begin().await.unwrap();
        filter
            .sift(&mut tx, JobId(0), JobId(i64::MAX), 100)
            .await
            .unwrap()
    };
    let commit = async {
        rig.until(
            "EXISTS (SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await;
        claim.commit().await.unwrap();
    };
    let (sifted, ()) = tokio::join!(sift, commit);
    assert_eq!(sifted.ids.len(), 2);
    assert!(!sifted.ids.contains(&JobId(started)));
}

#[tokio::test]
async fn a_rare_one_is_found_step_by_step() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.one"), done("t.rare")]).await).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind)
         SELECT CASE WHEN n IN (3, 4500, 4501) THEN 't.rare' ELSE 't.one' END
         FROM generate_series(1, 5000) n",
    )
    .await;
    let filter = Filter::Live(LiveFilter {
        kind: Some("t.rare".into()),
        ..LiveFilter::default()
    });
    let mut conn = rig.pool().acquire().await.unwrap();
    let last = filter.last_id(&mut conn).await.unwrap();
    let (mut after, mut found) = (JobId(0), Vec::new());
    for n_found in [1, 0, 1, 1] {
        let step = filter.sift(&mut conn, after, last, 1).await.unwrap();
        assert_eq!(step.ids.len(), n_found, "{step:?}");
        assert!(
            step.after > after && !step.is_end || found.len() == 2,
            "{step:?}"
        );
        found.extend(step.ids);
        after = step.after;
    }
    assert_eq!(found.len(), 3);
    assert!(filter.sift(&mut conn, after, last, 1).await.unwrap().is_end);
}
