//! Modes, dry runs, duplicates and files that come twice, through the front door.

use std::process::Command;

use ingestd::testing::Database;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    import::{accepted, accepted_as, count, csv, finished, post, status, upload_as},
    process::{Daemon, until},
};

const LIVE: &str = "SELECT count(*) FROM catalog.products WHERE archived_at IS NULL";

async fn world(settings: &[(&str, &str)]) -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    (db, storage, daemon)
}

async fn codes(pool: &PgPool) -> String {
    sqlx::query_scalar(
        "SELECT coalesce(string_agg(code, ' ' ORDER BY code), '') FROM catalog.products
         WHERE archived_at IS NULL",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn replace_all_archives_what_the_file_lacks() {
    let (db, _storage, daemon) = world(&[]).await;
    let first = "code,name,price\nA,a,1\nB,b,2\nC,c,3\nD,d,4\nE,e,5\n";
    finished(&daemon, accepted(&daemon, "first.csv", first.into()).await).await;
    // C is there with a bad price, and so not missing; E is.
    let second = "code,name,price\nA,a,1\nB,b,9\nC,c,x\nD,d,4\nF,f,6\n";
    let job = accepted_as(&daemon, "second.csv", second.into(), "mode=replace_all").await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(codes(db.pool()).await, "A B C D F");
    let results = &done["results"];
    let figures = [
        "createdCount",
        "updatedCount",
        "unchangedCount",
        "archivedCount",
        "errorCount",
    ];
    let figures = figures.map(|name| results[name].as_i64().unwrap());
    assert_eq!(figures, [1, 1, 2, 1, 1]);
    let archived = "SELECT count(*) FROM catalog.products p JOIN catalog.product_changes c
        ON c.product_id = p.id AND c.import_id = p.import_id WHERE p.code = 'E' AND p.archived_at IS NOT NULL";
    assert_eq!(count(db.pool(), archived).await, 1);
}

#[tokio::test]
async fn a_drop_beyond_the_limit_is_refused_with_its_figures() {
    let (db, _storage, daemon) = world(&[]).await;
    finished(&daemon, accepted(&daemon, "all.csv", csv(1000)).await).await;
    let cut_short = csv(700);
    let job = accepted_as(&daemon, "cut.csv", cut_short.clone(), "mode=replace_all").await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    for word in ["300 of 1000", "30.0 %", "at most 20 %", "max_drop_percent"] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(count(db.pool(), LIVE).await, 1000);
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM catalog.product_changes").await,
        0
    );

    // A dry run says the same and does not fail.
    let query = "mode=replace_all&dry_run=true";
    let job = accepted_as(&daemon, "cut.csv", cut_short.clone(), query).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    let refusal = done["results"]["preview"]["refusal"].as_str().unwrap();
    assert!(refusal.contains("300 of 1000"), "{refusal}");
    assert_eq!(done["results"]["archivedCount"], 300, "{done}");
    let listed = reqwest::get(daemon.url(&format!("/api/v1/imports/{job}")));
    let listed: Value = listed.await.unwrap().json().await.unwrap();
    assert_eq!(listed["refusal"], refusal);

    let query = "mode=replace_all&max_drop_percent=30";
    let job = accepted_as(&daemon, "cut.csv", cut_short, query).await;
    assert_eq!(
        finished(&daemon, job).await["results"]["archivedCount"],
        300
    );
    assert_eq!(count(db.pool(), LIVE).await, 700);
}

#[tokio::test]
async fn nothing_is_archived_while_a_code_behind_an_ignored_column_cannot_be_read() {
    let (db, _storage, daemon) = world(&[]).await;
    let first = "code,name\nA,a\nB,b\nC,c\n";
    finished(&daemon, accepted(&daemon, "first.csv", first.into()).await).await;
    // The column of a download stands before the code: the bad row's cells begin with the code.
    let code = "x".repeat(1_100);
    let second = format!("import_error_row,code,name\n2,A,a\n3,{code},\n");
    let query = "mode=replace_all&max_drop_percent=100";
    let job = accepted_as(&daemon, "second.csv", second.into(), query).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    assert!(
        error.contains("1 rows have a code that cannot be read"),
        "{error}"
    );
    assert_eq!(codes(db.pool()).await, "A B C");
}

/// How many are missing is known before the first row is written; what somebody else adds
/// meanwhile is not the file's to archive.
#[tokio::test]
async fn no_more_is_archived_than_was_missing_when_it_began() {
    let (db, _storage, daemon) = world(&[]).await;
    let first = "code,name\nA,a\nB,b\nC,c\n";
    finished(&daemon, accepted(&daemon, "first.csv", first.into()).await).await;
    let mut holds = db.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM catalog.products WHERE code = 'A' FOR UPDATE")
        .execute(&mut *holds)
        .await
        .unwrap();
    let query = "mode=replace_all&max_drop_percent=100";
    let second = "code,name\nA,changed\nB,b\n";
    let job = accepted_as(&daemon, "second.csv", second.into(), query).await;
    until("the rows are being written", || async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND wait_event_type = 'Lock' AND query LIKE '%catalog.products%'";
        count(db.pool(), waits).await > 0
    })
    .await;
    sqlx::query("INSERT INTO catalog.products (tenant, code, name) VALUES ('default', 'X', 'x')")
        .execute(&mut *holds)
        .await
        .unwrap();
    holds.commit().await.unwrap();
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    assert!(
        error.contains("more than the 1 products are missing"),
        "{error}"
    );
    assert_eq!(codes(db.pool()).await, "A B C X");
}

#[tokio::test]
async fn archiving_goes_on_where_a_killed_daemon_left_it() {
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "5000")];
    let (db, storage, mut first) = world(&settings).await;
    let (n_all, n_left) = (60_000, 10_000);
    finished(&first, accepted(&first, "all.csv", csv(n_all)).await).await;
    // The first page is archived, the next one waits for a row that somebody else holds.
    let mut holds = db.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM catalog.products WHERE code = 'P040000' FOR UPDATE")
        .execute(&mut *holds)
        .await
        .unwrap();
    let query = "mode=replace_all&max_drop_percent=90";
    let job = accepted_as(&first, "few.csv", csv(n_left), query).await;
    let archived = "SELECT count(*) FROM catalog.products WHERE archived_at IS NOT NULL";
    until("some are archived and some are not", || async {
        count(db.pool(), archived).await > 0
    })
    .await;
    first.kill9();
    holds.rollback().await.unwrap();
    let n_archived = count(db.pool(), archived).await;
    assert!(n_archived < 50_000, "killed at {n_archived}");

    let second = Daemon::start(db.url(), storage.path(), &settings).await;
    let done = finished(&second, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["results"]["archivedCount"], 50_000);
    assert_eq!(done["results"]["unchangedCount"], 10_000);
    assert_eq!(count(db.pool(), LIVE).await, 10_000);
    let kept = "SELECT count(*) FROM catalog.product_changes";
    assert_eq!(count(db.pool(), kept).await, 50_000);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be() {
    let (db, _storage, daemon) = world(&[]).await;
    let first = "code,name,price\nA,a,1\nB,b,2\nC,c,3\n";
    finished(&daemon, accepted(&daemon, "first.csv", first.into()).await).await;
    let second = "code,name,price\nA,a,1\nB,b,9\nD,d,x\nE,e,5\n";
    let query = "mode=replace_all&dryRun=1&max_drop_percent=50";
    let job = accepted_as(&daemon, "second.csv", second.into(), query).await;
    let done = finished(&daemon, job).await;
    let results = &done["results"];
    let figures = [
        "createdCount",
        "updatedCount",
        "unchangedCount",
        "archivedCount",
        "errorCount",
    ];
    let figures = figures.map(|name| results[name].as_i64().unwrap());
    assert_eq!(
        (figures, &results["dryRun"]),
        ([1, 1, 1, 1, 1], &json!(true)),
        "{done}"
    );
    let preview = &results["preview"];
    assert_eq!(preview["would_archive"], json!([{ "code": "C" }]));
    let changes = json!({ "price": { "from": "2", "to": "9" } });
    assert_eq!(preview["changed"][0]["changes"], changes);
    assert_eq!(preview["rejected"][0]["column"], "price");
    let told = "SELECT count(*) FROM catalog.import_errors e JOIN catalog.rejected_rows r
        USING (import_id, row_no) WHERE e.code = 'invalid_number'";
    assert_eq!(count(db.pool(), told).await, 1, "row errors stay");
    assert_eq!(codes(db.pool()).await, "A B C");
    let prices = "SELECT count(*) FROM catalog.product_prices WHERE archived_at IS NOT NULL";
    assert_eq!(count(db.pool(), prices).await, 0);
}

#[tokio::test]
async fn duplicates_within_a_file_are_settled_as_asked() {
    let (db, _storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "2")]).await;
    let file = "code,name\nA,first\nB,b\nA,second\nC,c\nA,third\n";
    let name = "SELECT count(*) FROM catalog.products WHERE name = ";
    for (policy, n_errors, found) in [
        (
            "first_wins",
            2,
            "SELECT count(*) FROM catalog.products WHERE name = 'first'",
        ),
        (
            "last_wins",
            2,
            "SELECT count(*) FROM catalog.products WHERE name = 'third'",
        ),
        (
            "reject",
            3,
            "SELECT 1 - count(*) FROM catalog.products WHERE code = 'A'",
        ),
    ] {
        sqlx::query("DELETE FROM catalog.products")
            .execute(db.pool())
            .await
            .unwrap();
        let query = format!("duplicates={policy}");
        let job = accepted_as(&daemon, "twice.csv", file.into(), &query).await;
        let done = finished(&daemon, job).await;
        assert_eq!(done["results"]["errorCount"], n_errors, "{policy}: {done}");
        assert_eq!(
            done["results"]["successCount"],
            5 - n_errors,
            "{policy}: {done}"
        );
        assert_eq!(done["results"]["errors"][0]["code"], "duplicate_code");
        assert_eq!(count(db.pool(), found).await, 1, "{policy} {name}");
    }
}

#[tokio::test]
async fn a_file_that_comes_twice_is_told_or_refused() {
    let (db, _storage, daemon) = world(&[]).await;
    let (_, body) = upload_as(&daemon, "a.csv", csv(10), "").await;
    assert_eq!(body["data"].get("note"), None);
    let first = body["data"]["jobId"].as_i64().unwrap();
    finished(&daemon, first).await;
    let (code, body) = upload_as(&daemon, "b.csv", csv(10), "").await;
    assert_eq!((code, &body["data"]["sameFileAs"]), (202, &json!(first)));
    assert!(
        body["data"]["note"]
            .as_str()
            .unwrap()
            .contains(&first.to_string())
    );
    let second = body["data"]["jobId"].as_i64().unwrap();
    finished(&daemon, second).await;
    let (code, body) = upload_as(&daemon, "c.csv", csv(10), "on_duplicate_file=reject").await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (409, &json!("duplicate_file"))
    );
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains(&second.to_string()),
        "{body}"
    );
    // Asked for in another way it is not the same.
    let query = "on_duplicate_file=reject&mode=update_only";
    let (code, body) = upload_as(&daemon, "c.csv", csv(10), query).await;
    assert_eq!((code, body["data"].get("note")), (202, None), "{body}");
    let n_runs = count(db.pool(), "SELECT count(*) FROM ingestd.runs").await;
    assert_eq!(n_runs, 3);
}

/// A file that two people send at once, or one twice, is taken once where that is asked for.
#[tokio::test]
async fn the_same_file_at_once_is_refused_but_once() {
    let (db, _storage, daemon) = world(&[]).await;
    let uploads =
        (0..6).map(|_| upload_as(&daemon, "a.csv", csv(1000), "on_duplicate_file=reject"));
    let told = futures::future::join_all(uploads).await;
    let mut codes: Vec<u16> = told.iter().map(|(code, _)| *code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [202, 409, 409, 409, 409, 409], "{told:?}");
    let n_imports = count(db.pool(), "SELECT count(*) FROM catalog.imports").await;
    assert_eq!(n_imports, 1);
}

/// Where an import stopped and a newer one wrote meanwhile, whoever lets it go on is told before.
#[tokio::test]
async fn a_stopped_import_says_what_overtook_it() {
    let (db, _storage, daemon) = world(&[]).await;
    post(&daemon, "/api/v1/queues/import/pause").await;
    let older = accepted_as(&daemon, "old.csv", csv(10), "").await;
    post(&daemon, &format!("/api/v1/runs/{older}/pause")).await;
    post(&daemon, "/api/v1/queues/import/resume").await;
    let alone = status(&daemon, older).await;
    assert_eq!(alone["paused"], true, "{alone}");
    assert_eq!(alone.get("overtakenBy"), None, "{alone}");
    let dry = accepted_as(&daemon, "new.csv", csv(20), "dry_run=true").await;
    finished(&daemon, dry).await;
    assert_eq!(status(&daemon, older).await.get("overtakenBy"), None);
    let newer = accepted_as(&daemon, "new.csv", csv(20), "").await;
    finished(&daemon, newer).await;
    assert_eq!(status(&daemon, older).await["overtakenBy"], newer);
    let page = async || {
        let page = reqwest::get(daemon.url(&format!("/imports/{older}")));
        page.await.unwrap().text().await.unwrap()
    };
    assert!(page().await.contains("came later and has written"));
    let resume = Command::new(env!("CARGO_BIN_EXE_ingestd"))
        .args(["runs", "resume", &older.to_string()])
        .env("DATABASE_URL", db.url())
        .output()
        .unwrap();
    let said = String::from_utf8(resume.stdout).unwrap();
    assert!(
        said.contains(&format!("import {newer} came later")),
        "{said}"
    );
    let done = finished(&daemon, older).await;
    assert_eq!(done.get("overtakenBy"), None, "{done}");
    assert!(!page().await.contains("came later"));
}

/// Only what completed, wrote and still stands makes a file one that came before.
#[tokio::test]
async fn a_file_whose_import_came_to_nothing_is_new() {
    let (_db, _storage, daemon) = world(&[]).await;
    let note = async |query: &str| {
        let (code, body) = upload_as(&daemon, "a.csv", csv(10), query).await;
        assert_eq!(code, 202, "{body}");
        let data = &body["data"];
        (
            data["jobId"].as_i64().unwrap(),
            data.get("sameFileAs").cloned(),
        )
    };
    let (dry, _) = note("dry_run=true").await;
    assert_eq!(finished(&daemon, dry).await["status"], "completed");
    post(&daemon, "/api/v1/queues/import/pause").await;
    let (cancelled, same) = note("").await;
    assert_eq!(same, None, "a dry run wrote nothing");
    post(&daemon, &format!("/api/v1/runs/{cancelled}/cancel")).await;
    post(&daemon, "/api/v1/queues/import/resume").await;
    let (written, same) = note("").await;
    assert_eq!(same, None, "cancelled, it is not there");
    finished(&daemon, written).await;
    let (again, same) = note("").await;
    assert_eq!(same, Some(json!(written)));
    finished(&daemon, again).await;
    for import in [again, written] {
        let path = format!("/api/v1/imports/{import}/rollback");
        let asked = reqwest::Client::new().post(daemon.url(&path)).send();
        let asked: Value = asked.await.unwrap().json().await.unwrap();
        finished(&daemon, asked["run_id"].as_i64().unwrap()).await;
    }
    let (last, same) = note("").await;
    assert_eq!(same, None, "undone, they are as if they had not been");
    let done = finished(&daemon, last).await;
    assert_eq!(done["results"]["updatedCount"], 10, "{done}"); // live again
}

#[tokio::test]
async fn an_option_that_is_none_is_refused() {
    let (db, _storage, daemon) = world(&[]).await;
    for (query, word) in [
        ("mode=merge", "replace_all"),
        ("dryrum=1", "dry_run"),
        ("priority=9", "priority"),
    ] {
        let (code, body) = upload_as(&daemon, "a.csv", csv(10), query).await;
        assert_eq!(
            (code, &body["error"]["code"]),
            (400, &json!("bad_option")),
            "{body}"
        );
        assert!(body["message"].as_str().unwrap().contains(word), "{body}");
    }
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM ingestd.runs").await,
        0
    );
}

#[tokio::test]
async fn one_import_of_an_owner_runs_at_a_time_the_urgent_one_first() {
    let (db, _storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "200")]).await;
    post(&daemon, "/api/v1/queues/import/pause").await;
    let mut jobs = Vec::new();
    for (n, query) in [
        (3000, "priority=2"),
        (3001, "priority=3"),
        (3002, "priority=0"),
    ] {
        jobs.push(accepted_as(&daemon, "p.csv", csv(n), query).await);
    }
    post(&daemon, "/api/v1/queues/import/resume").await;
    for job in &jobs {
        assert_eq!(finished(&daemon, *job).await["status"], "completed");
    }
    let order: Vec<(i64, bool)> = sqlx::query_as(
        "SELECT id, coalesce(started_at >= lag(finished_at) OVER (ORDER BY started_at), true)
         FROM ingestd.runs ORDER BY started_at",
    )
    .fetch_all(db.pool())
    .await
    .unwrap();
    // None began before the one before it had ended.
    assert_eq!(order, [(jobs[2], true), (jobs[0], true), (jobs[1], true)]);
}

#[tokio::test]
async fn a_paused_import_gives_way_and_goes_on_later() {
    let (db, _storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "200")]).await;
    let long = accepted(&daemon, "long.csv", csv(60_000)).await;
    until("the first chunk is committed", || async {
        count(db.pool(), "SELECT count(*) FROM catalog.products").await > 0
    })
    .await;
    post(&daemon, &format!("/api/v1/runs/{long}/pause")).await;
    let other = "code,name\nX1,x\n";
    let other = accepted(&daemon, "other.csv", other.into()).await;
    assert_eq!(finished(&daemon, other).await["status"], "completed");
    let written = "SELECT count(*) FROM catalog.products WHERE code LIKE 'P%'";
    let counted = "SELECT items_ok FROM ingestd.runs ORDER BY id LIMIT 1";
    let n_written = count(db.pool(), written).await;
    assert_eq!(n_written, count(db.pool(), counted).await);
    assert!(n_written < 60_000, "paused, it writes no more");
    post(&daemon, &format!("/api/v1/runs/{long}/resume")).await;
    let gate: Value =
        sqlx::query_scalar("SELECT to_jsonb(gate_key) FROM ingestd.jobs WHERE run_id = $1")
            .bind(long)
            .fetch_optional(db.pool())
            .await
            .unwrap()
            .unwrap_or(json!("catalog:default"));
    assert_eq!(gate, "catalog:default");
    assert_eq!(
        finished(&daemon, long).await["results"]["createdCount"],
        60_000
    );
}
