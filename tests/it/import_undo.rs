//! Undoing an import as a whole, and what is left alone.

use ingestd::testing::Database;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    import::{accepted, accepted_as, count, finished, status},
    process::{Daemon, until},
};

/// Everything that is live, in words.
async fn live(pool: &PgPool) -> String {
    sqlx::query_scalar(
        "SELECT coalesce(string_agg(concat_ws('|', p.code, p.name, p.brand, p.import_id, p.row_hash,
             p.attributes, trim_scale(pp.price), pp.currency, pp.import_id, ps.qty, ps.import_id),
           E'\\n' ORDER BY p.code), '')
         FROM catalog.products p
         LEFT JOIN catalog.product_prices pp ON pp.product_id = p.id AND pp.archived_at IS NULL
         LEFT JOIN catalog.product_stocks ps ON ps.product_id = p.id AND ps.archived_at IS NULL
         WHERE p.archived_at IS NULL",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn get(daemon: &Daemon, path: &str) -> (u16, Value) {
    let answer = reqwest::get(daemon.url(path)).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn ask(daemon: &Daemon, id: i64) -> (u16, Value) {
    let path = format!("/api/v1/imports/{id}/rollback");
    let answer = reqwest::Client::new().post(daemon.url(&path)).send();
    let answer = answer.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Undoes an import and returns what it came to.
async fn undone(daemon: &Daemon, id: i64) -> Value {
    let (code, body) = ask(daemon, id).await;
    assert_eq!(code, 202, "{body}");
    let run = body["run_id"].as_i64().unwrap();
    let done = finished(daemon, run).await;
    assert_eq!(done["status"], "completed", "{done}");
    let (_, body) = get(daemon, &format!("/api/v1/imports/{id}/rollback")).await;
    assert_eq!(
        (&body["run_id"], &body["state"]),
        (&json!(run), &json!("completed"))
    );
    body["outcome"].clone()
}

fn figures(outcome: &Value) -> [i64; 3] {
    ["n_restored", "n_archived", "n_kept"].map(|name| outcome[name].as_i64().unwrap())
}

async fn world() -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    (db, storage, daemon)
}

async fn imported(daemon: &Daemon, file: &str, query: &str) -> i64 {
    let job = accepted_as(daemon, "products.csv", file.into(), query).await;
    assert_eq!(finished(daemon, job).await["status"], "completed");
    job
}

const FIRST: &str = "code,name,brand,price,currency,stock,colour\n\
    A,a,Acme,1,EUR,1,red\nB,b,Acme,2,EUR,2,red\nC,c,Acme,3,EUR,3,red\nD,d,Acme,4,EUR,4,red\n";
/// B changes in every way, C loses price and stock, D is missing, E and F are new.
const SECOND: &str = "code,name,brand,price,currency,stock,colour\n\
    A,a,Acme,1,EUR,1,red\nB,bb,,9,CZK,9,blue\nC,c,Acme,,EUR,,red\nE,e,,5,EUR,5,\nF,f,,6,EUR,6,\n";

#[tokio::test]
async fn an_undone_import_leaves_what_was_before_it() {
    let (db, _storage, daemon) = world().await;
    let first = imported(&daemon, FIRST, "").await;
    let before = live(db.pool()).await;
    let second = imported(&daemon, SECOND, "mode=replace_all&max_drop_percent=50").await;
    let after = live(db.pool()).await;
    assert_ne!(after, before);

    let (code, preview) = get(&daemon, &format!("/api/v1/imports/{second}/rollback")).await;
    assert_eq!((code, &preview["run_id"]), (200, &Value::Null));
    assert_eq!(figures(&preview["outcome"]), [3, 2, 0], "{preview}");
    assert_eq!(live(db.pool()).await, after, "a preview changes nothing");
    assert_eq!(figures(&undone(&daemon, second).await), [3, 2, 0]);
    assert_eq!(live(db.pool()).await, before);

    // Undone, it is not the same file any more, and the old one is unchanged.
    let again = imported(&daemon, FIRST, "").await;
    let results = status(&daemon, again).await["results"].clone();
    assert_eq!(
        (&results["unchangedCount"], &results["createdCount"]),
        (&json!(4), &json!(0))
    );

    // And the one before it can be undone as well.
    assert_eq!(figures(&undone(&daemon, first).await), [0, 4, 0]);
    assert_eq!(live(db.pool()).await, "");
    let third = imported(&daemon, SECOND, "").await;
    let results = status(&daemon, third).await["results"].clone();
    assert_eq!(results["successCount"], 5);
    let audited = "SELECT count(*) FROM ingestd.audit_log WHERE action = 'import.rollback'";
    assert_eq!(count(db.pool(), audited).await, 2);
}

#[tokio::test]
async fn what_something_newer_touched_is_kept_and_named() {
    let (db, _storage, daemon) = world().await;
    let rows = (0..8)
        .map(|n| format!("P{n},p,1\n"))
        .collect::<Vec<_>>()
        .concat();
    let first = imported(&daemon, &format!("code,name,price\n{rows}"), "").await;
    let rows = (0..6)
        .map(|n| format!("P{n},changed,2\n"))
        .collect::<Vec<_>>()
        .concat();
    let second = format!("code,name,price\n{rows}N1,new,1\nN2,new,1\nN3,new,1\nN4,new,1\n");
    let second = imported(&daemon, &second, "").await;
    imported(&daemon, "code,name,price\nP1,again,3\nN1,again,3\n", "").await;
    for statement in [
        "UPDATE catalog.products SET name = 'mine' WHERE code IN ('P2', 'N2')",
        "UPDATE catalog.product_prices SET archived_at = now() WHERE archived_at IS NULL
           AND product_id IN (SELECT id FROM catalog.products WHERE code IN ('P3', 'N3'))",
        "INSERT INTO catalog.product_prices (product_id, price)
           SELECT id, 77 FROM catalog.products WHERE code IN ('P3', 'N3')",
        "DELETE FROM catalog.products WHERE code = 'P4'",
    ] {
        sqlx::query(statement).execute(db.pool()).await.unwrap();
    }
    let outcome = undone(&daemon, second).await;
    assert_eq!(figures(&outcome), [2, 1, 7], "{outcome}");
    let mut kept: Vec<(&str, &str)> = outcome["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kept| {
            (
                kept["code"].as_str().unwrap_or("-"),
                kept["reason"].as_str().unwrap(),
            )
        })
        .collect();
    kept.sort_unstable();
    let expected = [
        ("-", "deleted"),
        ("N1", "imported_again"),
        ("N2", "edited"),
        ("N3", "edited"),
        ("P1", "imported_again"),
        ("P2", "edited"),
        ("P3", "edited"),
    ];
    assert_eq!(kept, expected);
    let live = live(db.pool()).await;
    for line in [
        "P0|p|",
        "P1|again|",
        "P2|mine|",
        "P3|changed|",
        "P5|p|",
        "N1|again",
        "N2|mine",
        "N3|new",
    ] {
        assert!(live.contains(line), "{line} in {live}");
    }
    assert!(!live.contains("N4|"), "{live}");
    assert_ne!(first, second);
}

/// Price and stock each have an owner of their own: what somebody set beside the imports stays, and
/// with it a product that the import made.
#[tokio::test]
async fn a_stock_that_somebody_set_stays() {
    let (db, _storage, daemon) = world().await;
    imported(&daemon, "code,name,stock\nA,a,1\nB,b,1\n", "").await;
    let second = "code,name,stock\nA,a,2\nB,b,2\nN1,n,2\nN2,n,2\n";
    let second = imported(&daemon, second, "").await;
    for statement in [
        "UPDATE catalog.product_stocks SET archived_at = now() WHERE archived_at IS NULL
           AND product_id IN (SELECT id FROM catalog.products WHERE code IN ('A', 'N1'))",
        "INSERT INTO catalog.product_stocks (product_id, qty)
           SELECT id, 77 FROM catalog.products WHERE code IN ('A', 'N1')",
    ] {
        sqlx::query(statement).execute(db.pool()).await.unwrap();
    }
    let outcome = undone(&daemon, second).await;
    assert_eq!(figures(&outcome), [1, 1, 2], "{outcome}");
    let kept = outcome["kept"].as_array().unwrap().iter();
    let kept = kept.map(|kept| [&kept["code"], &kept["reason"]].map(|it| it.as_str().unwrap()));
    assert!(kept.eq([["A", "edited"], ["N1", "edited"]]), "{outcome}");
    let stocks = "SELECT sum(s.qty)::int8 FROM catalog.product_stocks s
        JOIN catalog.products p ON p.id = s.product_id
        WHERE s.archived_at IS NULL AND p.archived_at IS NULL";
    assert_eq!(count(db.pool(), stocks).await, 77 + 1 + 77);
}

/// A product that somebody archived since is nothing to undo any more, and one that the import only
/// changed is put back and not archived, though its id lies among those that the import made.
#[tokio::test]
async fn what_an_import_made_is_archived_once_and_nothing_else_is() {
    let (db, _storage, daemon) = world().await;
    imported(&daemon, "code,name\nA,a\nB,b\n", "").await;
    let second = imported(&daemon, "code,name\nA,changed\nN1,n\nN2,n\n", "").await;
    for statement in [
        "UPDATE catalog.products SET archived_at = now() WHERE code = 'N1'",
        "UPDATE catalog.imports SET first_created_id = (SELECT min(id) FROM catalog.products)
         WHERE id = (SELECT max(id) FROM catalog.imports)",
    ] {
        let done = sqlx::query(statement).execute(db.pool()).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
    let (_, preview) = get(&daemon, &format!("/api/v1/imports/{second}/rollback")).await;
    assert_eq!(figures(&preview["outcome"]), [1, 1, 0], "{preview}");
    assert_eq!(figures(&undone(&daemon, second).await), [1, 1, 0]);
    let live = live(db.pool()).await;
    assert_eq!(live.lines().count(), 2, "{live}");
    assert!(live.contains("A|a|") && live.contains("B|b|"), "{live}");
}

/// Who writes a product by hand takes no turns and comes between the look at it and its restoring.
#[tokio::test]
async fn what_changes_while_it_is_being_undone_is_kept() {
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '-- Puts the products%'";
    let (db, _storage, daemon) = world().await;
    let first = imported(&daemon, "code,name\nA,a\nB,b\n", "").await;
    let second = imported(&daemon, "code,name\nA,aa\nB,bb\n", "").await;
    let mut person = db.pool().begin().await.unwrap();
    sqlx::query("UPDATE catalog.products SET name = 'newer', import_id = $1 WHERE code = 'A'")
        .bind(first)
        .execute(&mut *person)
        .await
        .unwrap();
    let (outcome, ()) = tokio::join!(undone(&daemon, second), async {
        until("the undoing waits for the person", || async {
            count(db.pool(), WAITS).await == 1
        })
        .await;
        person.commit().await.unwrap();
    });
    assert_eq!(figures(&outcome), [1, 0, 1], "{outcome}");
    let kept = &outcome["kept"][0];
    assert_eq!(
        (&kept["code"], &kept["reason"]),
        (&json!("A"), &json!("imported_again"))
    );
    let live = live(db.pool()).await;
    assert!(live.contains("A|newer|") && live.contains("B|b|"), "{live}");
}

/// No chunk of an import is written while a page of an undoing is.
#[tokio::test]
async fn an_undoing_takes_turns_with_the_chunks_of_imports() {
    const TURN: &str =
        "SELECT pg_advisory_xact_lock(hashtextextended('catalog.products:default', 0))";
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
    let (db, _storage, daemon) = world().await;
    let first = imported(&daemon, FIRST, "").await;
    let mut chunk = db.pool().begin().await.unwrap();
    sqlx::query(TURN).execute(&mut *chunk).await.unwrap();
    let (outcome, ()) = tokio::join!(undone(&daemon, first), async {
        until("the undoing waits for its turn", || async {
            count(db.pool(), WAITS).await == 1
        })
        .await;
        let gated = "SELECT count(*) FROM ingestd.jobs WHERE gate_key = 'catalog:default'";
        assert_eq!(count(db.pool(), gated).await, 1, "nor do they run at once");
        chunk.commit().await.unwrap();
    });
    assert_eq!(figures(&outcome), [0, 4, 0], "{outcome}");
}

#[tokio::test]
async fn what_cannot_be_undone_says_why() {
    let (db, _storage, daemon) = world().await;
    let dry = imported(&daemon, FIRST, "dry_run=true").await;
    let (code, body) = ask(&daemon, dry).await;
    assert_eq!(code, 409, "{body}");
    assert!(
        body["detail"].as_str().unwrap().contains("dry run"),
        "{body}"
    );
    assert_eq!(ask(&daemon, 99).await.0, 404);
    super::import::post(&daemon, "/api/v1/queues/import/pause").await;
    let waits = accepted(&daemon, "a.csv", FIRST.into()).await;
    let (code, body) = ask(&daemon, waits).await;
    assert_eq!(code, 409, "{body}");
    assert!(
        body["detail"].as_str().unwrap().contains("cancel it first"),
        "{body}"
    );
    super::import::post(&daemon, "/api/v1/queues/import/resume").await;
    finished(&daemon, waits).await;
    undone(&daemon, waits).await;
    let (code, body) = ask(&daemon, waits).await;
    assert_eq!(code, 409, "{body}");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("is undone by run"),
        "{body}"
    );
    assert_eq!(live(db.pool()).await, "");
}

#[tokio::test]
async fn an_undone_import_does_not_begin_again() {
    let (db, _storage, daemon) = world().await;
    super::import::post(&daemon, "/api/v1/queues/import/pause").await;
    let job = accepted(&daemon, "a.csv", FIRST.into()).await;
    super::import::post(&daemon, &format!("/api/v1/runs/{job}/cancel")).await;
    super::import::post(&daemon, "/api/v1/queues/import/resume").await;
    assert_eq!(figures(&undone(&daemon, job).await), [0, 0, 0]);
    let reset = reqwest::Client::new().post(daemon.url(&format!("/api/v1/runs/{job}/reset")));
    let reset = reset.send().await.unwrap();
    assert_eq!(reset.status(), 409);
    let told: Value = reset.json().await.unwrap();
    assert!(
        told["detail"].as_str().unwrap().contains("takes back"),
        "{told}"
    );
    let left = status(&daemon, job).await;
    assert_eq!(
        (&left["status"], &left["error"]),
        (&json!("failed"), &json!("cancelled"))
    );
    assert!(left["undoneBy"].is_i64(), "{left}");
    // Undone by an older release, which left no word of it with the run, its job refuses.
    sqlx::query("UPDATE ingestd.runs SET details = '{}' WHERE id = $1")
        .bind(job)
        .execute(db.pool())
        .await
        .unwrap();
    super::import::post(&daemon, &format!("/api/v1/runs/{job}/reset")).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed");
    assert!(done["error"].as_str().unwrap().contains("undone"), "{done}");
    assert_eq!(live(db.pool()).await, "");
}

/// Whoever resets it at the same moment comes first or second, and never between.
#[tokio::test]
async fn an_import_that_begins_again_meanwhile_is_not_undone() {
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE OF r'";
    let (db, _storage, daemon) = world().await;
    super::import::post(&daemon, "/api/v1/queues/import/pause").await;
    let job = accepted(&daemon, "a.csv", FIRST.into()).await;
    super::import::post(&daemon, &format!("/api/v1/runs/{job}/cancel")).await;
    let mut person = db.pool().begin().await.unwrap();
    sqlx::query("UPDATE ingestd.runs SET state = 'pending', finished_at = NULL WHERE id = $1")
        .bind(job)
        .execute(&mut *person)
        .await
        .unwrap();
    let ((code, body), ()) = tokio::join!(ask(&daemon, job), async {
        until("the undoing waits to hear of the run", || async {
            count(db.pool(), WAITS).await == 1
        })
        .await;
        person.commit().await.unwrap();
    });
    assert_eq!(code, 409, "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("cancel it first"), "{detail}");
}

#[tokio::test]
async fn undoing_goes_on_where_a_killed_daemon_left_it() {
    let (db, storage, mut first) = world().await;
    let n = 20_000;
    let file = |price: i32, from: i32| {
        let rows = (from..from + n).map(|i| format!("P{i:06},p,{price},7\n"));
        format!("code,name,price,stock\n{}", rows.collect::<String>())
    };
    imported(&first, &file(1, 0), "").await;
    let before = live(db.pool()).await;
    // Half of the rows change, the other half is new.
    let second = imported(&first, &file(2, n / 2), "").await;
    let mut holds = db.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM catalog.products WHERE code = 'P016000' FOR UPDATE")
        .execute(&mut *holds)
        .await
        .unwrap();
    let (code, body) = ask(&first, second).await;
    assert_eq!(code, 202, "{body}");
    let run = body["run_id"].as_i64().unwrap();
    let restored = "SELECT items_ok FROM ingestd.runs ORDER BY id DESC LIMIT 1";
    until("some are restored", || async {
        count(db.pool(), restored).await > 0
    })
    .await;
    first.kill9();
    holds.rollback().await.unwrap();
    let n_restored = count(db.pool(), restored).await;
    assert!(n_restored < n.into(), "killed at {n_restored}");

    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    assert_eq!(finished(&daemon, run).await["status"], "completed");
    assert_eq!(live(db.pool()).await, before);
    let (_, body) = get(&daemon, &format!("/api/v1/imports/{second}/rollback")).await;
    assert_eq!(figures(&body["outcome"]), [10_000, 10_000, 0]);
    let left = "SELECT count(*) FROM catalog.product_changes";
    assert_eq!(count(db.pool(), left).await, 0);
    // Each price: the first, the second's until it was undone, and the first again.
    let prices = "SELECT count(*) FROM catalog.product_prices";
    assert_eq!(count(db.pool(), prices).await, 50_000);
}
