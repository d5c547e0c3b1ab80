//! What jobs return: kept where the kind wants it, one job's never taken for another's.

use ingestd::queue::Done;
use serde_json::json;

use crate::queue_rig::{Rig, Setup, args, play, stop};

#[tokio::test]
async fn every_job_of_a_batch_keeps_its_own_output_or_none() {
    let rig = Rig::new().await;
    let returns = play("t.returns", |ctx| async move {
        let n = args(&ctx)["n"].as_i64().unwrap();
        match n % 3 {
            0 => Ok(Done::new()),
            1 => Done::with_output(&json!({ "n": n })),
            _ => {
                let mut tx = ctx.state().db.begin().await?;
                let done = ctx.complete_in_with(&mut tx, &json!({ "n": n })).await?;
                tx.commit().await?;
                Ok(done)
            }
        }
    });
    let forgets = play("t.forgets", |ctx| async move {
        if args(&ctx)["n"] == 1 {
            return Done::with_output(&"not kept");
        }
        let mut tx = ctx.state().db.begin().await?;
        let done = ctx.complete_in_with(&mut tx, &"not kept").await?;
        tx.commit().await?;
        Ok(done)
    });
    let setup = Setup::of([returns.keeps_output(), forgets]).slots("default", 50);
    let engine = setup.start(rig.url()).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT 't.returns', jsonb_build_object('n', n) FROM generate_series(1, 300) n;
         INSERT INTO ingestd.jobs (kind, args)
         SELECT 't.forgets', jsonb_build_object('n', n) FROM generate_series(1, 2) n",
    )
    .await;
    rig.until_idle().await;
    let outputs = "SELECT concat_ws(' ', kind, count(*), count(output), count(*) FILTER (WHERE output = args))
                   FROM ingestd.all_jobs WHERE kind = ";
    for (kind, expected) in [
        ("t.returns", "t.returns 300 200 200"),
        ("t.forgets", "t.forgets 2 0 0"),
    ] {
        let query = format!("{outputs} '{kind}' GROUP BY kind");
        assert_eq!(rig.ask::<String>(&query).await, expected);
    }
    stop(engine).await;
}

#[tokio::test]
async fn an_output_that_cannot_be_kept_ends_the_job_and_says_what_to_do() {
    let rig = Rig::new().await;
    let large = play("t.large", |_| async {
        Done::with_output(&"x".repeat(70_000))
    });
    let engine = rig.play([large.keeps_output()]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.large')")
        .await;
    rig.until_idle().await;
    let died: String = rig
        .ask("SELECT reason || ': ' || error FROM ingestd.dead_jobs")
        .await;
    assert!(
        died.starts_with("fatal: the job's output has 70002 bytes"),
        "{died}"
    );
    stop(engine).await;
}
