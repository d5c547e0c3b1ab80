//! Sources at URLs, in S3 buckets and on disk: imported when they change, once, whatever happens.

use std::os::unix::fs::symlink;

use ingestd::source::{self, Definition, Removed};

use crate::{
    process::{Daemon, until},
    source_rig::{Door, SECRET, Shop, Store, file, hex, write},
};
use sha2::{Digest as _, Sha256};

fn at(store: &Store, path: &str) -> Definition {
    Definition::new(format!("http://{}{path}", store.address))
}

#[tokio::test]
async fn a_url_is_imported_when_it_changes() {
    let store = Store::start(Door::Header(format!("Bearer {SECRET}"))).await;
    let shop = Shop::new(Some(&store)).await;
    let daemon = shop.daemon().await;
    let origin = format!("http://{}", store.address);
    shop.secret("ops", &format!("bearer {SECRET}\nfor {origin}\n"));
    let source = Definition {
        secret_ref: Some("secret://ops".into()),
        tenant: "acme".into(),
        ..at(&store, "/files/products.csv?x=1")
    };
    shop.add("supplier", &source).await;
    store.serve(file("A1", 10));
    shop.look("supplier").await;
    assert_eq!(shop.result("supplier").await, "imported");
    assert_eq!(shop.products().await, "A1 Lamp 10");
    let of = "SELECT concat_ws(' ', i.tenant, i.file_name, r.triggered_by)
              FROM catalog.imports i JOIN ingestd.runs r USING (id)";
    let of: String = shop.rig.ask(of).await;
    assert_eq!(of, "acme products.csv source:supplier");

    // The same version is not even sent again.
    shop.look("supplier").await;
    assert_eq!(shop.result("supplier").await, "unchanged");
    let etag = format!("\"{}\"", hex(&Sha256::digest(file("A1", 10))));
    assert_eq!(store.came().last().unwrap().header("if-none-match"), etag);

    // Nor imported where the server sends it under another tag, or knows no tags.
    store.change(|served| {
        served.headers.insert("etag", "\"other\"".into());
    });
    shop.look("supplier").await;
    store.change(|served| served.is_conditional = false);
    shop.look("supplier").await;
    assert_eq!(shop.result("supplier").await, "unchanged");
    assert_eq!(shop.n_imports().await, 1);

    store.serve(file("A1", 12));
    shop.look("supplier").await;
    assert_eq!(shop.products().await, "A1 Lamp 12");
    // And back: what is there now is another version than the one before.
    store.serve(file("A1", 10));
    shop.look("supplier").await;
    assert_eq!(shop.products().await, "A1 Lamp 10");
    assert_eq!(shop.n_imports().await, 3);

    // The secret went where it belongs and nowhere else.
    let told = "SELECT concat_ws(' ', (SELECT string_agg(s::text, ' ') FROM catalog.sources s),
        (SELECT string_agg(j::text, ' ') FROM ingestd.job_history j),
        (SELECT string_agg(r::text, ' ') FROM ingestd.runs r))";
    let told: String = shop.rig.ask(told).await;
    assert!(!told.contains(SECRET) && !daemon.log().contains(SECRET));
    assert!(told.contains("ops"));
}

/// A server without tags is asked by the time it gave, and believed where it was asked.
#[tokio::test]
async fn a_server_without_tags_is_asked_by_its_time() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store)).await;
    let _daemon = shop.daemon().await;
    shop.add("s", &at(&store, "/a.csv")).await;
    let serve = |price: u32, time: &str| {
        store.serve(file("A1", price));
        store.change(|served| {
            served.headers.remove("etag");
            served.headers.insert("last-modified", time.to_owned());
        });
    };
    let asked = || {
        let last = store.came().last().unwrap().clone();
        last.header("if-modified-since").to_owned()
    };
    // "Not changed" to who never had it is no answer.
    let (one, two) = (
        "Sun, 01 Nov 2026 08:00:00 GMT",
        "Mon, 02 Nov 2026 08:00:00 GMT",
    );
    serve(1, one);
    store.change(|served| served.status = 304);
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.starts_with("failed: the answer was 304"), "{result}");
    store.change(|served| served.status = 200);
    shop.look("s").await;
    assert_eq!(shop.products().await, "A1 Lamp 1");
    assert_eq!(asked(), "");

    store.change(|served| served.status = 304);
    shop.look("s").await;
    assert_eq!(asked(), one);
    assert_eq!(shop.result("s").await, "unchanged");
    serve(2, two);
    store.change(|served| served.status = 200);
    shop.look("s").await;
    assert_eq!(asked(), one);
    assert_eq!(shop.products().await, "A1 Lamp 2");
    shop.look("s").await;
    assert_eq!(asked(), two);
    assert_eq!(shop.n_imports().await, 2);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_told_and_the_next_version_taken() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store))
        .await
        .set("HTTP__MAX_UPLOAD_BYTES", "1KiB");
    let _daemon = shop.daemon().await;
    shop.add("s", &at(&store, "/a.csv")).await;
    let fails = async |status: u16, told: &str| {
        store.change(|served| served.status = status);
        shop.look("s").await;
        let result = shop.result("s").await;
        assert!(
            result.starts_with("failed: ") && result.contains(told),
            "{result}"
        );
    };
    store.serve(file("A1", 1));
    let before = store.came().len();
    fails(404, "404, not there").await;
    assert_eq!(store.came().len(), before + 1, "nobody asks twice for that");
    let elsewhere = format!("http://10.0.0.1:{}/a.csv", store.address.port());
    fails(503, "503").await;
    assert_eq!(store.came().len(), before + 1 + 4, "that may pass");
    store.change(|served| {
        served.headers.insert("location", elsewhere);
    });
    fails(302, "10.0.0.1").await;
    store.serve("x".repeat(2000));
    fails(200, "larger than 1024 bytes").await;
    assert_eq!(shop.n_imports().await, 0);

    // A file that is none is fetched once, and told.
    store.serve("what,ever\n1,2\n");
    shop.look("s").await;
    let result = shop.result("s").await;
    assert!(result.starts_with("refused: "), "{result}");
    let dead = "SELECT count(*) FROM ingestd.dead_jobs";
    let n_dead: i64 = shop.rig.ask(dead).await;
    shop.look("s").await;
    assert_eq!(shop.result("s").await, "unchanged");
    assert_eq!(shop.rig.ask::<i64>(dead).await, n_dead);

    store.serve(file("A1", 2));
    shop.look("s").await;
    assert_eq!(shop.products().await, "A1 Lamp 2");
    until("what is not needed is not kept", || async {
        let left = std::fs::read_dir(shop.path("storage/blobs"));
        left.unwrap().count() == 1 // the imported file, for its downloads
    })
    .await;
}

#[tokio::test]
async fn an_object_is_asked_for_with_a_signature() {
    let store = Store::start(Door::Signature("AKID", SECRET, "eu-central-1")).await;
    let shop = Shop::new(Some(&store)).await;
    let _daemon = shop.daemon().await;
    let source = Definition {
        endpoint: Some(format!("http://{}", store.address)),
        region: Some("eu-central-1".into()),
        secret_ref: Some("s3".into()),
        ..Definition::new("s3://exports/žluť/a b+c.csv")
    };
    shop.add("bucket", &source).await;
    store.serve(file("A1", 1));
    shop.secret("s3", "s3 AKID other");
    shop.look("bucket").await;
    let result = shop.result("bucket").await;
    assert!(result.contains("does the secret fit"), "{result}");
    shop.secret("s3", &format!("s3 AKID {SECRET}"));
    shop.look("bucket").await;
    assert_eq!(shop.result("bucket").await, "imported");
    shop.look("bucket").await;
    assert_eq!(shop.result("bucket").await, "unchanged");
    let last = store.came().last().unwrap().clone();
    assert_eq!(last.path, "/exports/%C5%BElu%C5%A5/a%20b%2Bc.csv");
    assert!(last.is_signed("AKID", SECRET, "eu-central-1"));
    let name: String = shop.rig.ask("SELECT file_name FROM catalog.imports").await;
    assert_eq!(name, "a b+c.csv");
    // An empty session token is none; a real one is signed with the rest.
    shop.secret("s3", &format!("s3 AKID {SECRET} session"));
    shop.look("bucket").await;
    let last = store.came().last().unwrap().clone();
    assert_eq!(last.header("x-amz-security-token"), "session");
    assert!(last.is_signed("AKID", SECRET, "eu-central-1"));
    // Whoever answers for the store leads a signed request nowhere else.
    let elsewhere = format!("http://{}/elsewhere", store.address);
    store.change(|served| {
        (served.status, served.is_conditional) = (307, false);
        served.headers.insert("location", elsewhere);
    });
    let n_before = store.came().len();
    shop.look("bucket").await;
    let result = shop.result("bucket").await;
    assert!(
        result.starts_with("failed") && result.contains("307"),
        "{result}"
    );
    let asked = store.came().split_off(n_before);
    assert!(asked.iter().all(|came| came.path == last.path), "{asked:?}");
}

#[tokio::test]
async fn a_path_is_read_where_that_is_allowed() {
    let shop = Shop::new(None).await;
    let _daemon = shop.daemon().await;
    let path = shop.path("in/products.csv");
    let source = Definition::new(path.to_str().unwrap());
    shop.add("disk", &source).await;
    shop.look("disk").await;
    let result = shop.result("disk").await;
    assert!(result.starts_with("failed: cannot open"), "{result}");
    write(&path, &file("A1", 1));
    shop.look("disk").await;
    assert_eq!(shop.result("disk").await, "imported");
    shop.look("disk").await;
    assert_eq!(shop.result("disk").await, "unchanged");
    // Written again with the same content: another time, the same version.
    write(&path, &file("A1", 1));
    shop.look("disk").await;
    assert_eq!(shop.result("disk").await, "unchanged");
    assert_eq!(shop.n_imports().await, 1);
    write(&path, &file("A1", 2));
    shop.look("disk").await;
    assert_eq!(shop.products().await, "A1 Lamp 2");

    write(&shop.path("secrets/elsewhere.csv"), &file("A2", 1));
    std::fs::remove_file(&path).unwrap();
    symlink(shop.path("secrets/elsewhere.csv"), &path).unwrap();
    shop.look("disk").await;
    let result = shop.result("disk").await;
    assert!(result.contains("symbolic link"), "{result}");
    // Somebody with SQL alone gets no further than the configuration lets the daemon go.
    let elsewhere = shop.path("secrets/elsewhere.csv");
    shop.rig
        .sql(&format!(
            "UPDATE catalog.sources SET location = '{}'",
            elsewhere.display()
        ))
        .await;
    shop.look("disk").await;
    let result = shop.result("disk").await;
    assert!(result.contains("sources.allowed_dirs"), "{result}");
    assert_eq!(shop.n_imports().await, 2);
}

/// Two looks that both fetched the same new version: one imports it.
#[tokio::test]
async fn looks_that_overlap_import_a_version_once() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store)).await;
    let _daemons = [shop.daemon().await, shop.daemon().await];
    shop.add("s", &at(&store, "/a.csv")).await;
    store.serve(file("A1", 1));
    store.hold();
    for _ in 0..3 {
        shop.enqueue("s").await;
    }
    until("three looks have asked", || async {
        store.came().len() == 3
    })
    .await;
    store.answer();
    shop.rig.until_idle().await;
    assert_eq!(shop.n_imports().await, 1);
    assert_eq!(shop.products().await, "A1 Lamp 1");
}

/// A source that is removed and added again while it is looked at is another one.
#[tokio::test]
async fn a_look_at_a_source_that_is_gone_imports_nothing_into_the_next() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store)).await;
    let _daemon = shop.daemon().await;
    shop.add("s", &at(&store, "/old.csv")).await;
    store.serve(file("A1", 1));
    store.hold();
    shop.enqueue("s").await;
    until("a look has asked", || async { store.came().len() == 1 }).await;
    let mut tx = shop.rig.pool().begin().await.unwrap();
    let removed = source::remove(&mut tx, "s").await.unwrap();
    assert_eq!(removed, Removed::Gone("default".into()));
    tx.commit().await.unwrap();
    let next = Definition {
        tenant: "acme".into(),
        ..at(&store, "/new.csv")
    };
    shop.add("s", &next).await;
    store.answer();
    shop.rig.until_idle().await;
    let of = "SELECT string_agg(i.tenant, ' ') FROM catalog.imports i";
    assert_eq!(shop.rig.ask::<String>(of).await, "acme");
    assert_eq!(store.came().last().unwrap().path, "/new.csv");
}

/// A schedule of a second, daemons that are killed at random moments, a file that changes.
#[tokio::test]
async fn each_version_is_imported_once_however_often_daemons_die() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store)).await;
    let mut daemons: Vec<Daemon> = vec![shop.daemon().await, shop.daemon().await];
    let source = Definition {
        cron: Some("* * * * * *".into()),
        ..at(&store, "/a.csv")
    };
    store.serve(file("A1", 1));
    shop.add("s", &source).await;
    for version in 1..=4 {
        let body = file("A1", version);
        let sha256 = hex(&Sha256::digest(&body));
        store.serve(body);
        let n_before = store.came().len();
        until("somebody looks", || async { store.came().len() > n_before }).await;
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..100))).await;
        let mut killed = daemons.remove(0);
        killed.kill9();
        daemons.push(shop.daemon().await);
        shop.rig
            .until(&format!(
                "EXISTS (SELECT FROM catalog.imports WHERE file_sha256 = '\\x{sha256}')"
            ))
            .await;
    }
    shop.rig
        .sql("UPDATE ingestd.schedules SET paused_at = now() WHERE name = 'source:s'")
        .await;
    shop.rig.until_idle().await;
    assert_eq!(shop.n_imports().await, 4);
    assert_eq!(shop.products().await, "A1 Lamp 4");
    let twice = "SELECT count(*) FROM (SELECT FROM ingestd.schedule_ticks WHERE job_id IS NOT NULL
                 GROUP BY job_id HAVING count(*) > 1) t";
    assert_eq!(shop.rig.ask::<i64>(twice).await, 0);
}

#[tokio::test]
async fn a_job_of_another_tenant_fetches_nothing() {
    let store = Store::start(Door::Open).await;
    let shop = Shop::new(Some(&store)).await;
    let mut daemon = shop.daemon().await;
    store.serve(file("A1", 10));
    let source = Definition {
        tenant: "acme".into(),
        ..at(&store, "/a.csv")
    };
    shop.add("acme-feed", &source).await;
    let location = format!("http://{}/a.csv", store.address);
    shop.rig
        .sql(&format!(
            "INSERT INTO ingestd.jobs (kind, tenant, args) VALUES
               ('catalog.fetch_source', 'other', '{{\"source\": \"acme-feed\", \"force\": true}}'),
               ('catalog.fetch_file', 'other', '{{\"location\": \"{location}\", \"tenant\": \"acme\"}}'),
               ('catalog.fetch_file', NULL, '{{\"location\": \"{location}\", \"tenant\": \"acme\"}}')"
        ))
        .await;
    let dead = "(SELECT count(*) = 3 FROM ingestd.dead_jobs WHERE kind LIKE 'catalog.fetch%' AND reason = 'fatal')";
    shop.rig.until(dead).await;
    assert_eq!(store.came().len(), 0);
    assert_eq!(shop.n_imports().await, 0);
    assert!(daemon.terminate().success());
}
