//! Queues with a limit across daemons, and queues whose tenants take turns.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{Done, rule};
use tokio::sync::Semaphore;

use crate::{
    proxy::{Proxy, Then},
    queue_rig::{Rig, Setup, done, play, stop, until_true},
};

async fn limit(rig: &Rig, queue: &str, most: Option<i32>) {
    let mut conn = rig.pool().acquire().await.unwrap();
    rule::limit(&mut conn, queue, most).await.unwrap();
}

async fn set_fair(rig: &Rig, queue: &str, is_fair: bool) {
    let mut conn = rig.pool().acquire().await.unwrap();
    rule::set_fair(&mut conn, queue, is_fair).await.unwrap();
}

#[tokio::test]
async fn what_a_limit_counts_is_leased_in_its_row() {
    let rig = Rig::new().await;
    limit(&rig, "default", Some(3)).await;
    let engine = rig.play([done("t.counted")]).await;
    let jobs = "INSERT INTO ingestd.jobs (kind) SELECT 't.counted' FROM generate_series(1, 20)";
    rig.sql(jobs).await;
    rig.until_idle().await;
    let batches = "SELECT is_called FROM ingestd.batch_leases_id_seq";
    assert!(!rig.ask::<bool>(batches).await, "leased in a batch");
    limit(&rig, "default", None).await;
    rig.sql(jobs).await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_limit_holds_across_daemons() {
    let rig = Rig::new().await;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, max) = (Arc::clone(&inside), Arc::clone(&most));
    let counted = play("t.counted", move |_| {
        let (now, max) = (Arc::clone(&now), Arc::clone(&max));
        async move {
            max.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(3)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Done::new())
        }
    })
    .queue("narrow");
    let setup = Setup::of([counted, done("t.wide")]).slots("narrow", 10);
    let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
    limit(&rig, "narrow", Some(3)).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind) SELECT 't.counted' FROM generate_series(1, 60);
         INSERT INTO ingestd.jobs (kind) VALUES ('t.wide')",
    )
    .await;
    for _ in 0..200 {
        let n = "SELECT count(*) FROM ingestd.jobs WHERE state = 'running' AND queue = 'narrow'";
        assert!(rig.ask::<i64>(n).await <= 3);
    }
    rig.until_idle().await;
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_limit_may_be_changed_and_taken_away_while_jobs_wait() {
    let rig = Rig::new().await;
    let permits = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&permits);
    let waiting = play("t.waits", move |_| {
        let permits = Arc::clone(&waits);
        async move {
            permits.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    limit(&rig, "default", Some(1)).await;
    let engine = rig.play([waiting]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.waits' FROM generate_series(1, 8)")
        .await;
    for (most, n) in [(Some(1), 1), (Some(3), 3), (None, 8)] {
        limit(&rig, "default", most).await;
        rig.until(&format!(
            "(SELECT count(*) = {n} FROM ingestd.jobs WHERE state = 'running')"
        ))
        .await;
    }
    permits.add_permits(8);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_tenant_with_many_jobs_does_not_delay_another() {
    let rig = Rig::new().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let noting = play("t.notes", move |ctx| {
        let tenant = ctx.lease().tenant.clone().unwrap_or_default();
        noted.lock().unwrap().push(tenant);
        async { Ok(Done::new()) }
    });
    stop(rig.play([noting.clone()]).await).await;
    set_fair(&rig, "default", true).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant)
         SELECT 't.notes', 'big' FROM generate_series(1, 2000);
         INSERT INTO ingestd.jobs (kind, tenant) VALUES ('t.notes', 'small'), ('t.notes', 'tiny')",
    )
    .await;
    let engine = Setup::of([noting])
        .slots("default", 1)
        .start(rig.url())
        .await;
    rig.until("(SELECT count(*) >= 20 FROM ingestd.job_history)")
        .await;
    let order: Vec<String> = order.lock().unwrap().clone();
    for tenant in ["small", "tiny"] {
        let place = order.iter().position(|of| of == tenant);
        assert!(place.is_some_and(|place| place < 20), "{tenant}: {place:?}");
    }
    // Without turns it is first come, first served; the rest goes on.
    set_fair(&rig, "default", false).await;
    rig.until("(SELECT count(*) >= 100 FROM ingestd.job_history)")
        .await;
    rig.sql("DELETE FROM ingestd.jobs WHERE state = 'queued'")
        .await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn turns_go_round_and_pass_over_tenants_whose_time_has_not_come() {
    let rig = Rig::new().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let noting = play("t.notes", move |ctx| {
        let tenant = ctx.lease().tenant.clone();
        noted.lock().unwrap().push(tenant.unwrap_or("none".into()));
        async { Ok(Done::new()) }
    });
    stop(rig.play([noting.clone()]).await).await;
    set_fair(&rig, "default", true).await;
    // Two hundred tenants whose jobs are due later lie between those whose are due now.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant, run_at)
         SELECT 't.notes', 'later ' || n, now() + interval '1 h' FROM generate_series(1, 200) n;
         INSERT INTO ingestd.jobs (kind, tenant)
         SELECT 't.notes', tenant
         FROM unnest('{a, b, z, NULL}'::text[]) tenant, generate_series(1, 3)",
    )
    .await;
    let engine = Setup::of([noting])
        .slots("default", 1)
        .start(rig.url())
        .await;
    rig.until("(SELECT count(*) = 12 FROM ingestd.job_history)")
        .await;
    let order: Vec<String> = order.lock().unwrap().clone();
    for tenant in ["a", "b", "z", "none"] {
        assert_eq!(
            order.iter().filter(|of| *of == tenant).count(),
            3,
            "{order:?}"
        );
    }
    // Those that one look sees together take turns: a, b and none are side by side.
    let first: Vec<_> = order.iter().take(3).collect();
    assert!(first.iter().any(|of| *of == "b"), "{order:?}");
    stop(engine).await;
}

#[tokio::test]
async fn turns_go_round_where_a_limit_lets_one_run_at_a_time() {
    let rig = Rig::new().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let noting = play("t.notes", move |ctx| {
        let tenant = ctx.lease().tenant.clone().unwrap_or_default();
        noted.lock().unwrap().push(tenant);
        async { Ok(Done::new()) }
    });
    stop(rig.play([noting.clone()]).await).await;
    set_fair(&rig, "default", true).await;
    limit(&rig, "default", Some(1)).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant)
         SELECT 't.notes', tenant FROM unnest('{a, b, c}'::text[]) tenant, generate_series(1, 4)",
    )
    .await;
    let engine = Setup::of([noting])
        .slots("default", 4)
        .start(rig.url())
        .await;
    rig.until_idle().await;
    let order: Vec<String> = order.lock().unwrap().clone();
    assert_eq!(order.len(), 12);
    for round in order.windows(3) {
        assert!(
            ["a", "b", "c"]
                .iter()
                .all(|of| round.iter().any(|tenant| tenant == of)),
            "{order:?}"
        );
    }
    stop(engine).await;
}

/// Jobs without a tenant are found behind any number of others, of each priority.
#[tokio::test]
async fn what_belongs_to_nobody_is_found_behind_thousands_of_others() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.unknown")]).await).await;
    let engine = rig.play([done("t.named")]).await;
    set_fair(&rig, "default", true).await;
    // Older, and for another daemon to run; the last stretch has more than one look passes, all due
    // at the same time.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant, run_at, priority)
         SELECT 't.unknown', CASE n % 3 WHEN 0 THEN NULL ELSE 'big' END,
                now() - interval '1 h' + greatest(0, 2000 - n) * interval '1 s', priority
         FROM generate_series(1, 6000) n, (VALUES (1), (2)) AS p (priority);
         INSERT INTO ingestd.jobs (kind, tenant, priority)
         SELECT 't.named', tenant, priority
         FROM unnest('{a, NULL}'::text[]) tenant, (VALUES (1), (2)) AS p (priority)",
    )
    .await;
    rig.until("(SELECT count(*) = 4 FROM ingestd.job_history)")
        .await;
    // And those that come to lie before it are met when it goes round.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.named', now() - interval '1 d'),
           ('t.named', now())",
    )
    .await;
    rig.until("(SELECT count(*) = 6 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

/// A claim meets the limit, and there is room again before its worker hears of it.
#[tokio::test]
async fn nobodys_turn_is_passed_over_by_a_claim_that_met_the_limit() {
    let rig = Rig::new().await;
    let proxy = Proxy::start(rig.url()).await;
    let (order, permits) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Semaphore::new(0)),
    );
    let (noted, waits) = (Arc::clone(&order), Arc::clone(&permits));
    let noting = play("t.notes", move |ctx| {
        let tenant = ctx.lease().tenant.clone().unwrap_or_default();
        noted.lock().unwrap().push(tenant);
        let permits = Arc::clone(&waits);
        async move {
            permits.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    stop(rig.play([noting.clone()]).await).await;
    set_fair(&rig, "default", true).await;
    limit(&rig, "default", Some(1)).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant)
         SELECT 't.notes', tenant FROM unnest('{a, b, c}'::text[]) tenant, generate_series(1, 2)",
    )
    .await;
    let setup = Setup::of([noting]).slots("default", 4);
    let engine = setup.start(&proxy.url()).await;
    until_true("one runs", || order.lock().unwrap().len() == 1).await;
    proxy.lose("but the tenants take turns", 1, Then::Late);
    proxy.until_late(1).await;
    permits.add_permits(1);
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    proxy.deliver();
    permits.add_permits(5);
    rig.until_idle().await;
    stop(engine).await;
    assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "a", "b", "c"]);
}

#[tokio::test]
async fn a_tenant_with_an_empty_name_has_its_turns_too() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.named")]).await;
    set_fair(&rig, "default", true).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant)
         SELECT 't.named', tenant
         FROM unnest(ARRAY['', 'a', NULL]) tenant, generate_series(1, 3)",
    )
    .await;
    rig.until("(SELECT count(*) = 9 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_new_rule_is_learnt_under_a_stream_of_notifications() {
    let rig = Rig::new().await;
    // Its workers never come to rest: they sleep until the next notification.
    let setup = Setup::of([done("t.busy").queue("busy")])
        .with(|q| q.trailing_poll = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.busy')")
        .await;
    rig.until_idle().await;
    let stream = async {
        loop {
            rig.sql("SELECT pg_notify('ingestd_wake', 'busy')").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let learnt = async {
        // Set as SQL users do, without a word to the workers.
        rig.sql(
            "INSERT INTO ingestd.queues (queue, max_running) VALUES ('busy', 1)
               ON CONFLICT (queue) DO UPDATE SET max_running = 1;
             INSERT INTO ingestd.jobs (kind) VALUES ('t.busy')",
        )
        .await;
        rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
            .await;
    };
    tokio::select! {
        () = stream => {}
        () = learnt => {}
    }
    stop(engine).await;
}
