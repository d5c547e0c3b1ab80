//! Watched folders: each file once, in the order of names, and never before it is whole.

use std::os::unix::fs::symlink;

use ingestd::source::{Definition, Ready};

use crate::source_rig::{Shop, file, write};

fn inbox(shop: &Shop, ready: Ready) -> Definition {
    Definition {
        pattern: Some("*.csv".into()),
        ready: Some(ready),
        ..Definition::new(shop.path("in").to_str().unwrap())
    }
}

/// Returns names, states and what else is known of the files.
async fn files(shop: &Shop) -> String {
    shop.rig
        .ask(
            "SELECT coalesce(string_agg(concat_ws(' ', name, state, moved_to, error), ', ' ORDER BY name, id), '')
             FROM catalog.source_files",
        )
        .await
}

async fn imported(shop: &Shop) -> String {
    shop.rig
        .ask("SELECT coalesce(string_agg(file_name, ' ' ORDER BY id), '') FROM catalog.imports")
        .await
}

#[tokio::test]
async fn files_are_imported_in_the_order_of_their_names_and_moved() {
    let shop = Shop::new(None).await;
    let _daemon = shop.daemon().await;
    shop.add("inbox", &inbox(&shop, Ready::Stable)).await;
    for (name, text) in [
        ("in/2.csv", file("A1", 2)),
        ("in/3.csv", file("A1", 3)),
        ("in/1.csv", file("A1", 1)),
        ("in/4.csv", "no header\n".to_owned()),
        ("in/5.txt", file("A1", 5)),
        ("in/.6.csv", file("A1", 6)),
        ("secrets/7.csv", file("A1", 7)),
    ] {
        write(&shop.path(name), &text);
    }
    symlink(shop.path("secrets/7.csv"), shop.path("in/7.csv")).unwrap();
    shop.look("inbox").await;
    assert_eq!(imported(&shop).await, "1.csv 2.csv 3.csv");
    assert_eq!(shop.products().await, "A1 Lamp 3");
    let known = files(&shop).await;
    assert!(
        known.starts_with(
            "1.csv settled done/1.csv, 2.csv settled done/2.csv, 3.csv settled done/3.csv, \
             4.csv settled failed/4.csv "
        ) && known.ends_with("7.csv waiting is no regular file, and is not taken"),
        "{known}"
    );
    for name in [
        "done/1.csv",
        "done/3.csv",
        "failed/4.csv",
        "5.txt",
        ".6.csv",
        "7.csv",
    ] {
        assert!(shop.path("in").join(name).exists(), "{name}");
    }
    // A new file of an old name is a new file; what lies there already stays.
    write(&shop.path("in/1.csv"), &file("A1", 9));
    shop.look("inbox").await;
    assert_eq!(shop.products().await, "A1 Lamp 9");
    let n_done = std::fs::read_dir(shop.path("in/done")).unwrap().count();
    assert_eq!(n_done, 4);
    let first = std::fs::read_to_string(shop.path("in/done/1.csv")).unwrap();
    assert_eq!(first, file("A1", 1));
}

#[tokio::test]
async fn a_file_that_changes_is_not_taken() {
    let shop = Shop::new(None).await.set("SOURCES__SETTLE", "1h");
    let _daemon = shop.daemon().await;
    shop.add("inbox", &inbox(&shop, Ready::Stable)).await;
    let path = shop.path("in/a.csv");
    write(&path, "code,na");
    shop.enqueue("inbox").await;
    // The look is put off until the file may be whole.
    let waits = "EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'catalog.fetch_source'
        AND state = 'queued' AND run_at > now() + interval '10 minutes')";
    shop.rig.until(waits).await;
    let an_hour_goes_by = "UPDATE catalog.source_files SET seen_at = seen_at - interval '2 hours'";
    let look = "UPDATE ingestd.jobs SET run_at = now() WHERE kind = 'catalog.fetch_source'";
    // It has changed by then: the wait begins anew.
    write(&path, &file("A1", 1));
    shop.rig.sql(an_hour_goes_by).await;
    shop.rig.sql(look).await;
    let began_anew =
        "EXISTS (SELECT FROM catalog.source_files WHERE seen_at > now() - interval '1 hour')";
    shop.rig.until(began_anew).await;
    shop.rig.until(waits).await;
    assert_eq!(files(&shop).await, "a.csv waiting");
    assert_eq!(shop.n_imports().await, 0);
    // And it has not.
    shop.rig.sql(an_hour_goes_by).await;
    shop.rig.sql(look).await;
    shop.rig.until_idle().await;
    assert_eq!(files(&shop).await, "a.csv settled done/a.csv");
    assert_eq!(shop.products().await, "A1 Lamp 1");
}

#[tokio::test]
async fn a_marker_says_that_a_file_is_whole() {
    let shop = Shop::new(None).await;
    let _daemon = shop.daemon().await;
    shop.add("inbox", &inbox(&shop, Ready::Marker)).await;
    write(&shop.path("in/a.csv"), &file("A1", 1));
    write(&shop.path("in/b.csv"), &file("B1", 1));
    write(&shop.path("in/b.csv.done"), "");
    shop.look("inbox").await;
    shop.look("inbox").await;
    assert_eq!(
        files(&shop).await,
        "a.csv waiting, b.csv settled done/b.csv"
    );
    assert_eq!(shop.products().await, "B1 Lamp 1");
    assert!(!shop.path("in/b.csv.done").exists());
    write(&shop.path("in/a.csv.done"), "");
    shop.look("inbox").await;
    assert_eq!(imported(&shop).await, "b.csv a.csv");
}

/// Where a file cannot be moved away it stays, and its row keeps it from being imported again.
#[tokio::test]
async fn a_file_that_stays_is_not_imported_twice() {
    let shop = Shop::new(None).await;
    let _daemon = shop.daemon().await;
    shop.add("inbox", &inbox(&shop, Ready::AtOnce)).await;
    write(&shop.path("in/done"), "no folder");
    write(&shop.path("in/a.csv"), &file("A1", 1));
    for _ in 0..3 {
        shop.look("inbox").await;
    }
    let known = files(&shop).await;
    assert!(
        known.starts_with("a.csv submitted cannot be moved"),
        "{known}"
    );
    assert_eq!(imported(&shop).await, "a.csv");
    // Others are not kept up by it.
    write(&shop.path("in/b.csv"), &file("A1", 2));
    shop.look("inbox").await;
    assert_eq!(imported(&shop).await, "a.csv b.csv");
    std::fs::remove_file(shop.path("in/done")).unwrap();
    shop.look("inbox").await;
    assert_eq!(
        files(&shop).await,
        "a.csv settled done/a.csv, b.csv settled done/b.csv"
    );
    assert_eq!(shop.n_imports().await, 2);
}

#[tokio::test]
async fn each_file_is_imported_once_however_often_the_daemon_dies() {
    let shop = Shop::new(None).await;
    let mut daemon = shop.daemon().await;
    let source = Definition {
        cron: Some("* * * * * *".into()),
        ..inbox(&shop, Ready::AtOnce)
    };
    shop.add("inbox", &source).await;
    for n in 1..=8 {
        write(&shop.path(&format!("in/{n}.new")), &file("A1", n));
        // Whole, and then there.
        std::fs::rename(
            shop.path(&format!("in/{n}.new")),
            shop.path(&format!("in/{n}.csv")),
        )
        .unwrap();
    }
    for n in [1, 3, 5] {
        shop.rig
            .until(&format!("(SELECT count(*) >= {n} FROM catalog.imports)"))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..300))).await;
        daemon.kill9();
        daemon = shop.daemon().await;
    }
    shop.rig
        .until("(SELECT count(DISTINCT name) = 8 FROM catalog.source_files WHERE moved_to IS NOT NULL)")
        .await;
    assert_eq!(
        imported(&shop).await,
        "1.csv 2.csv 3.csv 4.csv 5.csv 6.csv 7.csv 8.csv"
    );
    assert_eq!(shop.products().await, "A1 Lamp 8");
    assert_eq!(std::fs::read_dir(shop.path("in/done")).unwrap().count(), 8);
}

/// Looks that both took a copy of the same file: one submits it, the other forgets its own.
#[tokio::test]
async fn looks_that_overlap_import_a_file_once() {
    let shop = Shop::new(None).await;
    let _daemons = [shop.daemon().await, shop.daemon().await];
    shop.add("inbox", &inbox(&shop, Ready::AtOnce)).await;
    write(&shop.path("in/done"), "no folder, so that it stays");
    write(&shop.path("in/a.csv"), &file("A1", 1));
    let mut holds = shop.rig.pool().begin().await.unwrap();
    // Every look waits here, with its copy taken.
    sqlx::query("LOCK TABLE catalog.imports IN SHARE MODE")
        .execute(&mut *holds)
        .await
        .unwrap();
    for _ in 0..2 {
        shop.enqueue("inbox").await;
    }
    let wait = "(SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%catalog.imports%')";
    shop.rig.until(wait).await;
    holds.rollback().await.unwrap();
    shop.rig.until("EXISTS (SELECT FROM catalog.imports)").await;
    let over = "NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'product_import.run')";
    shop.rig.until(over).await;
    assert_eq!(imported(&shop).await, "a.csv");
}
