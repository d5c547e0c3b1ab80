//! The search sync where order matters: lost leases, busy servers, what is archived.

use nix::sys::signal::Signal;

use crate::{
    process,
    search::{assert_equal, csv, id, import, import_as, post, synced},
    search_rig::{self, Fault},
};

/// What an import archives is gone from the server, and what undoing it brings back is there again.
#[tokio::test]
async fn archived_products_go_and_come_back_with_their_import() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let all = [("INGESTD_PRODUCT_IMPORT__MAX_DROP_PERCENT", "100")];
    let mut daemon = look.daemon(&rig, folder.path(), &all).await;
    import(&rig, &daemon, csv(0..5, "50")).await;
    synced(&rig).await;
    let fewer = import_as(&rig, &daemon, csv(0..3, "75"), "?mode=replace_all").await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    assert_eq!(look.documents("products").await.len(), 3);
    // A dry run tells nobody anything.
    let asked = server.n_imports();
    import_as(&rig, &daemon, csv(0..9, "99"), "?dry_run=true").await;
    let noted = "SELECT count(*) FROM catalog.search_outbox";
    assert_eq!(rig.ask::<i64>(noted).await, 0);
    assert_eq!(server.n_imports(), asked);

    let run = post(&daemon, &format!("/api/v1/imports/{fewer}/rollback")).await["run_id"].clone();
    rig.until(&format!(
        "(SELECT state = 'completed' FROM ingestd.runs WHERE id = {run})"
    ))
    .await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    let documents = look.documents("products").await;
    assert_eq!(documents.len(), 5);
    assert_eq!(documents["P0001"]["price"], 1.5);
    server.assert_no_offence();
    assert!(daemon.terminate().success());
}

/// Who sent documents and finds that another has the job by now cannot know whose came last: the
/// products are sent once more.
#[tokio::test]
async fn what_was_sent_under_a_lost_lease_is_sent_again() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut first = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &first, csv(0..1, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    server.hold_after(0).await;
    let asked = server.n_requests();
    import(&rig, &first, csv(0..2, "50")).await;
    let product = id(&rig, "P0001").await;
    process::until("the lines are on their way", || async {
        server.n_requests() > asked
    })
    .await;
    first.signal(Signal::SIGSTOP);
    let mut second = look.daemon(&rig, folder.path(), &[]).await;
    process::until("another daemon sends them too", || async {
        server.n_requests() > asked + 1
    })
    .await;
    server.release();
    synced(&rig).await;
    assert_eq!(server.n_taken(&live, product), 2);
    first.signal(Signal::SIGCONT);
    process::until("its lease is known to be lost", || async {
        let again = "SELECT count(*) FROM catalog.search_outbox";
        server.n_taken(&live, product) > 2 || rig.ask::<i64>(again).await > 0
    })
    .await;
    post(&second, "/api/v1/search/sync").await;
    synced(&rig).await;
    assert_eq!(server.n_taken(&live, product), 3);
    assert_equal(&rig, &look).await;
    first.kill9();
    assert!(second.terminate().success());
}

/// Lines that the server puts off are no failures: they are sent again once it was left alone.
#[tokio::test]
async fn a_line_that_is_put_off_is_sent_again_alone() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..1, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    server.fault(Fault::BusyLine);
    import(&rig, &daemon, csv(0..4, "50")).await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    for code in ["P0001", "P0002", "P0003"] {
        assert_eq!(server.n_taken(&live, id(&rig, code).await), 1, "{code}");
    }
    let trouble = "SELECT (SELECT count(*) FROM catalog.search_failures)
        + (SELECT count(*) FROM ingestd.job_attempts WHERE kind LIKE 'search.%')";
    assert_eq!(rig.ask::<i64>(trouble).await, 0, "to wait is no failure");
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_product_that_is_noted_twice_is_sent_once() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..2, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    let product = id(&rig, "P0001").await;
    let before = server.n_taken(&live, product);
    rig.sql(&format!(
        "INSERT INTO catalog.search_outbox (product_ids)
         SELECT ARRAY[{product}] FROM generate_series(1, 3)"
    ))
    .await;
    post(&daemon, "/api/v1/search/sync").await;
    synced(&rig).await;
    assert_eq!(server.n_taken(&live, product), before + 1);
    assert!(daemon.terminate().success());
}

/// A transaction that draws its place before others and commits behind them leaves a note where a
/// drain has been already: it looks there once more before it ends.
#[tokio::test]
async fn a_note_that_is_committed_late_is_sent_by_the_same_job() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..2, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    let (late, early) = (id(&rig, "P0000").await, id(&rig, "P0001").await);
    let taken = || [late, early].map(|product| server.n_taken(&live, product));
    let [late_before, early_before] = taken();
    let note = "INSERT INTO catalog.search_outbox (product_ids) VALUES (ARRAY[$1::int8])";
    let mut tx = rig.pool().begin().await.unwrap();
    let noted = sqlx::query(note).bind(late).execute(&mut *tx);
    noted.await.unwrap();
    let noted = sqlx::query(note).bind(early).execute(rig.pool());
    noted.await.unwrap();
    server.hold_after(0).await;
    let asked = server.n_requests();
    post(&daemon, "/api/v1/search/sync").await;
    process::until("the other note's line is on its way", || async {
        server.n_requests() > asked
    })
    .await;
    tx.commit().await.unwrap();
    server.release();
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind LIKE 'search.%')")
        .await;
    assert_eq!(taken(), [late_before + 1, early_before + 1]);
    let left = "SELECT count(*) FROM catalog.search_outbox";
    assert_eq!(rig.ask::<i64>(left).await, 0);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_rebuild_leaves_a_busy_server_alone_too() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..1, "50")).await;
    synced(&rig).await;
    server.fault(Fault::Busy(503, 4));
    import(&rig, &daemon, csv(0..3, "50")).await;
    rig.until("(SELECT wait_until IS NOT NULL FROM catalog.search_indexes)")
        .await;
    post(&daemon, "/api/v1/search/rebuild").await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    server.assert_no_offence();
    assert!(daemon.terminate().success());
}
