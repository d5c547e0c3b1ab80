//! The search sync by a daemon of its own, against the stand-in and against a real Typesense.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    process::{self, Daemon},
    queue_rig::Rig,
    search_rig::{self, Fault, KEY, Look, StandIn, expected},
};

/// Rows `from..to`, whose prices end in `cents`.
pub(crate) fn csv(rows: std::ops::Range<usize>, cents: &str) -> String {
    let rows = rows.map(|i| format!("P{i:04},Product {i},B{},{i}.{cents},{i}\n", i % 3));
    format!("code,name,brand,price,stock\n{}", rows.collect::<String>())
}

/// Imports a file to its end and returns the import's id.
pub(crate) async fn import(rig: &Rig, daemon: &Daemon, file: String) -> i64 {
    import_as(rig, daemon, file, "").await
}

/// As [`import`], with a query string.
pub(crate) async fn import_as(rig: &Rig, daemon: &Daemon, file: String, query: &str) -> i64 {
    let part = Part::bytes(file.into_bytes()).file_name("products.csv");
    let request = reqwest::Client::new()
        .post(daemon.url(&format!("/api/v1/import/products{query}")))
        .multipart(Form::new().part("file", part));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let id = answer["data"]["jobId"].as_i64().unwrap();
    rig.until(&format!(
        "(SELECT state = 'completed' FROM ingestd.runs WHERE id = {id})"
    ))
    .await;
    id
}

/// Waits until nothing is left to be told.
pub(crate) async fn synced(rig: &Rig) {
    rig.until(
        "NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind LIKE 'search.%')
         AND NOT EXISTS (SELECT FROM catalog.search_outbox)",
    )
    .await;
}

pub(crate) async fn id(rig: &Rig, code: &str) -> i64 {
    let sql = format!("SELECT id FROM catalog.products WHERE code = '{code}'");
    rig.ask(&sql).await
}

pub(crate) async fn post(daemon: &Daemon, path: &str) -> Value {
    let request = reqwest::Client::new().post(daemon.url(path));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 202, "{path}");
    response.json().await.unwrap()
}

/// Changes products as another writer would, with their notes in the same transaction.
async fn archive(rig: &Rig, code: &str) {
    rig.sql(&format!(
        "WITH gone AS (UPDATE catalog.products SET archived_at = now(), row_hash = NULL
                       WHERE code = '{code}' RETURNING id)
         INSERT INTO catalog.search_outbox (product_ids) SELECT ARRAY[id] FROM gone"
    ))
    .await;
}

pub(crate) async fn assert_equal(rig: &Rig, look: &Look) {
    let (found, expected) = (look.documents("products").await, expected(rig).await);
    assert_eq!(found, expected);
}

/// What holds with any server: all of it comes, changes follow, archived products go, a rebuild
/// takes the old collection's place.
async fn goes_all_the_way(rig: &Rig, look: &Look) {
    let folder = TempDir::new().unwrap();
    let mut daemon = look.daemon(rig, folder.path(), &[]).await;
    import(rig, &daemon, csv(0..35, "50")).await;
    synced(rig).await;
    assert_equal(rig, look).await;
    assert_eq!(look.documents("products").await.len(), 35);
    let first = look.leads_to("products").await.unwrap();
    assert!(first.starts_with("products_2"), "{first}");

    let changed = csv(0..2, "75") + csv(2..37, "50").split_once('\n').unwrap().1;
    import(rig, &daemon, changed).await;
    archive(rig, "P0009").await;
    post(&daemon, "/api/v1/search/sync").await;
    synced(rig).await;
    assert_equal(rig, look).await;
    let documents = look.documents("products").await;
    assert_eq!(documents.len(), 36);
    assert_eq!(documents["P0001"]["price"], 1.75);
    assert!(!documents.contains_key("P0009"));

    post(&daemon, "/api/v1/search/rebuild").await;
    synced(rig).await;
    let second = look.leads_to("products").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(look.leads_to(&first).await, None, "the old one is dropped");
    assert_equal(rig, look).await;
    let status: Value = reqwest::get(daemon.url("/api/v1/search"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    for (name, value) in [
        ("is_configured", json!(true)),
        ("live", json!(second)),
        ("building", Value::Null),
        ("noted", json!(0)),
        ("trouble", Value::Null),
        ("fields_changed", json!(false)),
        ("deleted", json!(1)),
    ] {
        assert_eq!(status[name], value, "{name} {status}");
    }
    assert!(!daemon.log().contains(&look.key));
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn products_reach_the_server_and_their_changes_follow() {
    let (rig, server) = (Rig::new().await, StandIn::start().await);
    goes_all_the_way(&rig, &server.look()).await;
    server.assert_no_offence();
}

#[tokio::test]
#[ignore = "needs a Typesense without a collection products: INGESTD_TEST_TYPESENSE_URL and _KEY"]
async fn a_real_typesense_does_as_the_stand_in() {
    let variable = |name: &str| std::env::var(format!("INGESTD_TEST_TYPESENSE_{name}")).unwrap();
    let (rig, look) = (
        Rig::new().await,
        Look {
            url: variable("URL"),
            key: variable("KEY"),
        },
    );
    goes_all_the_way(&rig, &look).await;
}

#[tokio::test]
async fn what_did_not_change_is_neither_noted_nor_sent_again() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..20, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    let before = server.inner.lock().unwrap().taken.clone();
    let changed = csv(0..1, "75") + csv(1..20, "50").split_once('\n').unwrap().1;
    import(&rig, &daemon, changed).await;
    synced(&rig).await;
    let after = server.inner.lock().unwrap().taken.clone();
    let more: Vec<_> = after
        .iter()
        .filter(|(key, n)| before.get(*key) != Some(*n))
        .map(|(key, _)| key.clone())
        .collect();
    let changed = id(&rig, "P0000").await.to_string();
    assert_eq!(more, [(live, changed)]);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn nothing_is_noted_where_no_server_is_configured() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let mut daemon = Daemon::start(rig.url(), folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..20, "50")).await;
    let noted = "SELECT count(*) FROM catalog.search_outbox";
    assert_eq!(rig.ask::<i64>(noted).await, 0);
    let jobs =
        "SELECT count(*) FROM ingestd.all_jobs WHERE kind IN ('search.sync', 'search.rebuild')";
    assert_eq!(rig.ask::<i64>(jobs).await, 0);
    for path in ["sync", "rebuild", "retry"] {
        let url = daemon.url(&format!("/api/v1/search/{path}"));
        let response = reqwest::Client::new().post(url).send().await.unwrap();
        assert_eq!(response.status(), 409, "{path}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_refused_line_is_kept_with_its_reason_and_the_others_are_done_once() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..1, "50")).await;
    synced(&rig).await; // the collection is there
    server.inner.lock().unwrap().refuses = vec!["P0003".into()];
    import(&rig, &daemon, csv(0..8, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    let refused = id(&rig, "P0003").await;
    for code in ["P0001", "P0002", "P0004", "P0007"] {
        let product = id(&rig, code).await;
        assert_eq!(server.n_taken(&live, product), 1, "{code}");
    }
    let list: Value = reqwest::get(daemon.url("/api/v1/search/failures"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["product_id"], refused);
    assert_eq!(list["items"][0]["code"], "P0003");
    assert_eq!(list["items"][0]["error"], "Field `price` must be a float.");

    // Refused to the end it is kept, and asked for by nobody.
    for attempts in 2..=5 {
        rig.sql("UPDATE catalog.search_failures SET retry_at = now()")
            .await;
        post(&daemon, "/api/v1/search/sync").await;
        synced(&rig).await;
        let row = "SELECT attempts || ' ' || (retry_at IS NULL) FROM catalog.search_failures";
        let expected = format!("{attempts} {}", attempts == 5);
        assert_eq!(rig.ask::<String>(row).await, expected);
    }
    let asked = server.n_imports();
    post(&daemon, "/api/v1/search/sync").await;
    synced(&rig).await;
    assert_eq!(server.n_imports(), asked);

    // Once it fits, a retry brings it in, alone.
    server.inner.lock().unwrap().refuses.clear();
    assert_eq!(post(&daemon, "/api/v1/search/retry").await["n"], 1);
    synced(&rig).await;
    assert_eq!(server.n_imports(), asked + 1);
    assert_eq!(server.n_taken(&live, refused), 1);
    let kept = "SELECT count(*) FROM catalog.search_failures";
    assert_eq!(rig.ask::<i64>(kept).await, 0);
    assert_equal(&rig, &look).await;
    server.assert_no_offence();
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_busy_server_is_left_alone_as_long_as_it_asks() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..1, "50")).await;
    synced(&rig).await;
    for status in [503, 429, 422] {
        server.fault(Fault::Busy(status, 1));
    }
    import(&rig, &daemon, csv(0..25, "50")).await;
    // Another job does not come before the time either.
    post(&daemon, "/api/v1/search/sync").await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    server.assert_no_offence();
    let failed = "SELECT count(*) FROM ingestd.job_attempts WHERE kind LIKE 'search.%'";
    assert_eq!(rig.ask::<i64>(failed).await, 0, "to wait is no failure");
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn an_answer_that_lacks_a_line_removes_no_note() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut daemon = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..1, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    server.fault(Fault::Short);
    import(&rig, &daemon, csv(0..5, "50")).await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    for code in ["P0001", "P0004"] {
        let product = id(&rig, code).await;
        assert_eq!(server.n_taken(&live, product), 2, "{code}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_crash_between_the_answer_and_its_note_loses_nothing() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut first = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &first, csv(0..1, "50")).await;
    synced(&rig).await;
    let live = look.leads_to("products").await.unwrap();
    server.fault(Fault::Silence);
    import(&rig, &first, csv(0..5, "50")).await;
    let product = id(&rig, "P0004").await;
    process::until("the server took the lines", || async {
        server.n_taken(&live, product) == 1
    })
    .await;
    first.kill9();
    let noted = "SELECT sum(n_products) FROM catalog.search_outbox";
    assert_eq!(rig.ask::<i64>(noted).await, 4);
    let mut second = look.daemon(&rig, folder.path(), &[]).await;
    synced(&rig).await;
    assert_equal(&rig, &look).await;
    assert_eq!(server.n_taken(&live, product), 2);
    server.assert_no_offence();
    assert!(second.terminate().success());
}

#[tokio::test]
async fn a_rebuild_goes_on_after_a_crash_and_misses_no_change() {
    let (rig, server, folder) = search_rig::start().await;
    let look = server.look();
    let mut first = look.daemon(&rig, folder.path(), &[]).await;
    import(&rig, &first, csv(0..35, "50")).await;
    synced(&rig).await;
    let old = look.leads_to("products").await.unwrap();
    let changed = id(&rig, "P0001").await;
    let before = server.n_taken(&old, changed);
    server.hold_after(2).await;
    post(&first, "/api/v1/search/rebuild").await;
    let begun = "(SELECT build_rows = 20 FROM catalog.search_indexes)";
    rig.until(begun).await; // and the third page waits for a permit
    first.kill9();
    let new: String = rig.ask("SELECT building FROM catalog.search_indexes").await;
    assert_eq!(look.leads_to("products").await, Some(old.clone()));

    // Products of pages that are done change and go, one of a page to come changes.
    for code in ["P0001", "P0033"] {
        rig.sql(&format!(
            "WITH p AS (UPDATE catalog.products SET name = 'changed' WHERE code = '{code}' RETURNING id)
             INSERT INTO catalog.search_outbox (product_ids) SELECT ARRAY[id] FROM p"
        ))
        .await;
    }
    archive(&rig, "P0002").await;
    server.release();
    let mut second = look.daemon(&rig, folder.path(), &[]).await;
    synced(&rig).await;
    assert_eq!(look.leads_to("products").await, Some(new.clone()));
    assert_eq!(look.leads_to(&old).await, None);
    assert_equal(&rig, &look).await;
    let product = id(&rig, "P0005").await;
    assert_eq!(server.n_taken(&new, product), 1, "pages are not done again");
    let kept_fresh = server.n_taken(&old, changed) == before + 1;
    assert!(kept_fresh, "the old one is told of changes too");
    server.assert_no_offence();
    assert!(second.terminate().success());
}

#[tokio::test]
async fn a_server_that_lost_everything_is_filled_again() {
    let (rig, server, folder) = search_rig::start().await;
    let mut daemon = server.look().daemon(&rig, folder.path(), &[]).await;
    import(&rig, &daemon, csv(0..12, "50")).await;
    synced(&rig).await;
    server.forget_everything();
    import(&rig, &daemon, csv(0..13, "50")).await;
    synced(&rig).await;
    assert_equal(&rig, &server.look()).await;
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_private_address_is_not_asked_unless_it_is_allowed() {
    let (rig, server, folder) = search_rig::start().await;
    let url = server.look().url;
    let settings = [
        ("INGESTD_SEARCH__URL", url.as_str()),
        ("INGESTD_SEARCH__API_KEY", KEY),
        ("INGESTD_KINDS__SEARCH__REBUILD__MAX_ATTEMPTS", "1"),
    ];
    let mut daemon = Daemon::start(rig.url(), folder.path(), &settings).await;
    post(&daemon, "/api/v1/search/rebuild").await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs WHERE kind = 'search.rebuild')")
        .await;
    let error: String = rig.ask("SELECT error FROM ingestd.dead_jobs").await;
    assert!(error.contains("127.0.0.1"), "{error}");
    assert!(!error.contains(KEY), "{error}");
    assert_eq!(server.n_requests(), 0);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_wrong_key_says_so_and_changes_nothing() {
    let (rig, server, folder) = search_rig::start().await;
    let look = Look {
        key: "another".to_owned(),
        ..server.look()
    };
    let once = [("INGESTD_KINDS__SEARCH__REBUILD__MAX_ATTEMPTS", "1")];
    let mut daemon = look.daemon(&rig, folder.path(), &once).await;
    import(&rig, &daemon, csv(0..3, "50")).await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs WHERE kind = 'search.rebuild')")
        .await;
    let trouble: String = rig.ask("SELECT trouble FROM catalog.search_indexes").await;
    assert!(trouble.contains("search.api_key"), "{trouble}");
    let noted = "SELECT sum(n_products) FROM catalog.search_outbox";
    assert_eq!(rig.ask::<i64>(noted).await, 3);
    assert!(daemon.terminate().success());
}
