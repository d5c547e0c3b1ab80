//! Two chunks of an import at once: loaded side by side, committed in the order of the file.

use std::time::Duration;

use ingestd::testing::Database;
use sqlx::{PgPool, Postgres, Transaction};
use tempfile::TempDir;

use super::{
    import::{accepted, accepted_as, assert_exactly, count, csv, finished, post, status},
    process::{Daemon, until},
};

const CHUNKED: (&str, &str) = ("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "100");
/// Chunks that have a turn at an owner's products with others, and all by themselves.
const SHARED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const ALONE: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND a.wait_event_type = 'Lock'
      AND a.datname = current_database()";
/// Chunks that are loaded and wait for the one before, whether or not they have looked meanwhile.
const LOADED: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND state = 'idle in transaction'
    AND (query LIKE 'RELEASE SAVEPOINT%' OR query LIKE 'SELECT EXISTS (SELECT FROM pg_locks%')";
const WAITS_FOR_ROW: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '-- Changed products.%'";
const COPIES: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE 'COPY catalog.products%'";
/// Another has the lease of the import from then on.
const LOSE: &str = "UPDATE ingestd.jobs SET lease_id = nextval('ingestd.lease_seq')
    WHERE shard = 0 AND run_id IS NOT NULL RETURNING 1::int8";
const COMMITTED: &str =
    "SELECT count(*) FROM ingestd.runs WHERE cursor IS NOT NULL AND state = 'running'";

/// A catalog with 1,000 products, and a file that changes all of them.
async fn world(settings: &[(&str, &str)]) -> (Database, TempDir, Daemon, Vec<u8>) {
    let (db, storage) = (Database::create().await, TempDir::new().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    let old = String::from_utf8(csv(1_000)).unwrap();
    let old = old.replace("Product", "Former").replace(".50,", ".75,");
    let first = accepted(&daemon, "first.csv", old.into()).await;
    assert_eq!(
        finished(&daemon, first).await["results"]["createdCount"],
        1_000
    );
    (db, storage, daemon, csv(1_000))
}

/// Holds the row of a code.
async fn hold(pool: &PgPool, code: &str) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    lock(&mut holder, code).await;
    holder
}

async fn lock(holder: &mut Transaction<'static, Postgres>, code: &str) {
    sqlx::query("SELECT FROM catalog.products WHERE code = $1 FOR UPDATE")
        .bind(code)
        .execute(&mut **holder)
        .await
        .unwrap();
}

/// Asserts that the catalog is what the file says, and that each product was changed once.
async fn assert_changed_once(pool: &PgPool) {
    let live = "DELETE FROM catalog.product_prices WHERE archived_at IS NOT NULL";
    let former = sqlx::query(live).execute(pool).await.unwrap();
    assert_eq!(former.rows_affected(), 1_000);
    assert_exactly(pool, 1_000).await;
    let changes = "SELECT count(*) FROM catalog.product_changes";
    assert_eq!(count(pool, changes).await, 1_000);
    let counted = "SELECT updated_count FROM catalog.imports ORDER BY id DESC LIMIT 1";
    assert_eq!(count(pool, counted).await, 1_000);
}

/// Waits until a chunk waits for a row and the next one is loaded.
async fn both_are_there(pool: &PgPool) {
    until(
        "a chunk waits for the row, and the next one for the chunk",
        || async { count(pool, WAITS_FOR_ROW).await == 1 && count(pool, LOADED).await == 1 },
    )
    .await;
    assert_eq!(count(pool, SHARED).await, 2);
}

#[tokio::test]
async fn a_chunk_is_loaded_beside_the_one_before_and_committed_behind_it() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let holder = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    assert_eq!(
        count(db.pool(), COMMITTED).await,
        0,
        "none before the first"
    );
    holder.rollback().await.unwrap();
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
}

/// A person has a row of the first chunk and wants one of the second: no server sees that circle.
#[tokio::test]
async fn a_loaded_chunk_lets_go_of_what_somebody_waits_for() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let mut person = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    lock(&mut person, "P000150").await;
    assert_eq!(count(db.pool(), WAITS_FOR_ROW).await, 1, "it still waits");
    person.rollback().await.unwrap();
    assert_in_one_attempt(&db, &daemon, job).await;
    assert_changed_once(db.pool()).await;
}

/// Asserts that an import ended well, in one attempt that no outage broke off.
async fn assert_in_one_attempt(db: &Database, daemon: &Daemon, job: i64) {
    let done = finished(daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    let attempts = "SELECT count(*) FROM ingestd.job_attempts";
    assert_eq!(count(db.pool(), attempts).await, 0, "in one attempt");
    assert!(!daemon.log().contains("the import waits for the database"));
}

/// The same with new products, whose codes a person inserts: what was taken back is not counted, and
/// the import can be undone as a whole.
#[tokio::test]
async fn new_products_that_were_let_go_of_are_there_once() {
    let (db, _storage, daemon, _) = world(&[CHUNKED]).await;
    let mut person = db.pool().begin().await.unwrap();
    let insert = |code: &'static str| {
        sqlx::query("INSERT INTO catalog.products (code, name) VALUES ($1, 'by hand')").bind(code)
    };
    insert("Q000050").execute(&mut *person).await.unwrap();
    let file = String::from_utf8(csv(1_000)).unwrap().replace("\nP", "\nQ");
    let job = accepted(&daemon, "new.csv", file.into()).await;
    until(
        "one waits for the person, and the next is loaded",
        || async { count(db.pool(), COPIES).await == 1 && count(db.pool(), LOADED).await == 1 },
    )
    .await;
    insert("Q000150").execute(&mut *person).await.unwrap();
    person.rollback().await.unwrap();
    assert_in_one_attempt(&db, &daemon, job).await;
    let live = "SELECT count(*) FROM catalog.products p
        JOIN catalog.product_prices USING (import_id) WHERE product_id = p.id
         AND code LIKE 'Q%' AND p.archived_at IS NULL";
    assert_eq!(count(db.pool(), live).await, 1_000);
    let counted = "SELECT created_count FROM catalog.imports ORDER BY id DESC LIMIT 1";
    assert_eq!(count(db.pool(), counted).await, 1_000);
    post(&daemon, &format!("/api/v1/imports/{job}/rollback")).await;
    until("all of them are taken back", || async {
        count(db.pool(), live).await == 0
    })
    .await;
}

/// A crash of the server may take back the last chunks, whose commits do not wait for the disk. A
/// daemon that talked to it neither before nor after by one connection finds the cursor set back.
#[tokio::test]
async fn an_import_whose_last_chunks_a_crash_took_back_does_them_again() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let holder = hold(db.pool(), "P000550").await;
    let job = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    let take_back = "UPDATE ingestd.runs SET cursor = jsonb_set(cursor, '{next_chunk}', '3')
        WHERE state = 'running' AND cursor -> 'next_chunk' = '5'";
    let taken = sqlx::query(take_back).execute(db.pool()).await.unwrap();
    assert_eq!(taken.rows_affected(), 1);
    holder.rollback().await.unwrap();
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert!(daemon.log().contains("lost the last chunks in a crash"));
    // two chunks were done twice, the second time for nothing
    assert_eq!(done["results"]["unchangedCount"], 200, "{done}");
    assert_changed_once(db.pool()).await;
}

/// And the same where all were committed, and only the end is missing.
#[tokio::test]
async fn an_import_whose_last_chunks_a_crash_took_back_before_its_end_does_them_again() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let slow = "CREATE FUNCTION take_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF NEW.cursor -> 'next_chunk' = '10' AND OLD.cursor -> 'next_chunk' = '9'
             AND NOT EXISTS (SELECT FROM taken) THEN
            INSERT INTO taken VALUES (true);
            NEW.cursor = OLD.cursor;
          END IF;
          RETURN NEW;
        END $$;
        CREATE TABLE taken (is_taken bool);
        CREATE TRIGGER take_back BEFORE UPDATE ON ingestd.runs FOR EACH ROW
          EXECUTE FUNCTION take_back();";
    sqlx::raw_sql(slow).execute(db.pool()).await.unwrap();
    let job = accepted(&daemon, "second.csv", file).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert!(daemon.log().contains("lost the last chunks in a crash"));
    assert_eq!(count(db.pool(), "SELECT count(*) FROM taken").await, 1);
    assert_changed_once(db.pool()).await;
}

/// No attempt is counted while the server's disk is full, so that the import goes on once it is not.
#[tokio::test]
async fn an_import_waits_for_room_on_the_servers_disk() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let full = "CREATE TABLE full_disk (is_full bool);
        INSERT INTO full_disk VALUES (true);
        CREATE FUNCTION extend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM full_disk) THEN
            RAISE 'could not extend file' USING ERRCODE = 'disk_full';
          END IF;
          RETURN NULL;
        END $$;
        CREATE TRIGGER extend AFTER UPDATE ON catalog.products EXECUTE FUNCTION extend();";
    sqlx::raw_sql(full).execute(db.pool()).await.unwrap();
    let job = accepted(&daemon, "second.csv", file).await;
    until("the import waits", || async {
        daemon.log().contains("the import waits for the database")
    })
    .await;
    let waits = "SELECT count(*) FROM ingestd.jobs WHERE run_id IS NOT NULL AND attempt <= 1";
    assert_eq!(count(db.pool(), waits).await, 1);
    let free = sqlx::query("DELETE FROM full_disk");
    free.execute(db.pool()).await.unwrap();
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    let attempts = "SELECT count(*) FROM ingestd.job_attempts";
    assert_eq!(count(db.pool(), attempts).await, 0, "none was counted");
    assert_changed_once(db.pool()).await;
}

/// Where the owner's own triggers make chunks meet, one of the two lets go, at once or when the
/// server says that they wait for each other.
#[tokio::test]
async fn chunks_that_meet_by_a_trigger_are_loaded_one_after_the_other() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let trigger = "CREATE TABLE meet (key text PRIMARY KEY, n int NOT NULL);
        INSERT INTO meet VALUES ('x', 0), ('y', 0), ('all', 0);
        CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF TG_LEVEL = 'STATEMENT' THEN UPDATE meet SET n = n + 1 WHERE key = 'all';
          ELSIF NEW.code IN ('P000000', 'P000199') THEN UPDATE meet SET n = n + 1 WHERE key = 'x';
          ELSIF NEW.code IN ('P000099', 'P000100') THEN UPDATE meet SET n = n + 1 WHERE key = 'y';
          END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER a_row BEFORE UPDATE ON catalog.products FOR EACH ROW EXECUTE FUNCTION meet();
        CREATE TRIGGER statements AFTER UPDATE ON catalog.products EXECUTE FUNCTION meet();";
    sqlx::raw_sql(trigger).execute(db.pool()).await.unwrap();
    // The first chunk has x and is held before y; the second is let to y, and then wants x.
    let holder = hold(db.pool(), "P000050").await;
    let other = hold(db.pool(), "P000100").await;
    let job = accepted(&daemon, "second.csv", file).await;
    until("both chunks wait for a person", || async {
        count(db.pool(), WAITS_FOR_ROW).await == 2
    })
    .await;
    other.rollback().await.unwrap();
    until("the second waits for the first", || async {
        let waits = "SELECT count(*) FROM pg_stat_activity one
            JOIN pg_stat_activity other ON other.pid = ANY (pg_blocking_pids(one.pid))
            WHERE one.datname = current_database() AND other.wait_event_type = 'Lock'";
        count(db.pool(), waits).await == 1
    })
    .await;
    holder.rollback().await.unwrap();
    assert_in_one_attempt(&db, &daemon, job).await;
    let met = "SELECT sum(n) FROM meet"; // 10 chunks, and two rows of two of them
    assert_eq!(count(db.pool(), met).await, 14);
    assert_changed_once(db.pool()).await;
}

/// New products up to the seventh chunk: those behind it are taken for new as well, two at a time.
#[tokio::test]
async fn chunks_that_are_not_as_new_as_expected_are_written_after_all() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let file = String::from_utf8(file).unwrap();
    let (head, rows) = file.split_once('\n').unwrap();
    let (new, old) = rows.split_at(rows.find("P000700").unwrap());
    let new = format!("\n{new}").replace("\nP", "\nQ");
    let file = format!("{head}{new}{old}");
    let job = accepted(&daemon, "mixed.csv", file.into()).await;
    let done = finished(&daemon, job).await;
    let figures = ["createdCount", "updatedCount"].map(|name| done["results"][name].clone());
    assert_eq!(figures, [700, 300], "{done}");
    let live = "SELECT count(*) FROM catalog.product_prices WHERE archived_at IS NULL";
    assert_eq!(count(db.pool(), live).await, 1_700);
}

/// The server ends the session of the first of two chunks, with the second loaded or in the middle of
/// its COPY: it must not be committed.
#[tokio::test]
async fn a_chunk_that_fails_takes_the_one_behind_it_back() {
    const END: &str =
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query LIKE '-- Changed products.%'";
    for is_in_copy in [false, true] {
        let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
        post(&daemon, "/api/v1/queues/import/pause").await;
        if is_in_copy {
            let gone = "DELETE FROM catalog.products WHERE code = 'P000150'";
            sqlx::query(gone).execute(db.pool()).await.unwrap();
        }
        let job = accepted(&daemon, "second.csv", file).await;
        let mut holder = hold(db.pool(), "P000050").await;
        if is_in_copy {
            let there = "INSERT INTO catalog.products (code, name) VALUES ('P000150', 'by hand')";
            sqlx::query(there).execute(&mut *holder).await.unwrap();
        }
        post(&daemon, "/api/v1/queues/import/resume").await;
        until("both chunks are there", || async {
            let second = if is_in_copy { COPIES } else { LOADED };
            count(db.pool(), WAITS_FOR_ROW).await == 1 && count(db.pool(), second).await == 1
        })
        .await;
        post(&daemon, "/api/v1/queues/import/pause").await; // no other attempt
        assert_eq!(count(db.pool(), END).await, 1);
        until("the attempt has ended", || async {
            let running =
                "SELECT count(*) FROM ingestd.jobs WHERE state = 'running' AND run_id IS NOT NULL";
            count(db.pool(), running).await == 0
        })
        .await;
        let changed = "SELECT count(*) FROM catalog.products WHERE name LIKE 'Product%'";
        assert_eq!(count(db.pool(), changed).await, 0);
        holder.rollback().await.unwrap();
        post(&daemon, "/api/v1/queues/import/resume").await;
        let done = finished(&daemon, job).await;
        let n_new = i64::from(is_in_copy);
        assert_eq!(done["results"]["createdCount"], n_new, "{done}");
        assert_eq!(done["results"]["updatedCount"], 1_000 - n_new, "{done}");
        assert_eq!(count(db.pool(), changed).await, 1_000);
    }
}

/// The fence comes last: what was loaded under a lease that is lost by then is not committed.
#[tokio::test]
async fn neither_of_two_loaded_chunks_is_committed_without_the_lease() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let holder = hold(db.pool(), "P000050").await;
    accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    assert_eq!(count(db.pool(), LOSE).await, 1, "another has it now");
    holder.rollback().await.unwrap();
    until("both chunks have given up", || async {
        count(db.pool(), SHARED).await == 0
    })
    .await;
    let changed = "SELECT count(*) FROM catalog.products WHERE name LIKE 'Product%'";
    assert_eq!(count(db.pool(), changed).await, 0);
    assert_eq!(count(db.pool(), COMMITTED).await, 0);
}

/// The same for what a file lacks: a page of it is archived only by who holds the lease.
#[tokio::test]
async fn nothing_is_archived_without_the_lease() {
    const WAITS: &str = "SELECT coalesce(max(pid), 0)::int8 FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query LIKE 'UPDATE catalog.products%'";
    let (db, _storage, daemon, file) = world(&[]).await;
    let file = String::from_utf8(file).unwrap();
    let (file, lacks) = file.split_at(file.find("P000999").unwrap());
    assert!(lacks.starts_with("P000999"));
    let holder = hold(db.pool(), "P000999").await;
    accepted_as(&daemon, "less.csv", file.into(), "mode=replace_all").await;
    until("the archiving waits for the row", || async {
        count(db.pool(), WAITS).await > 0
    })
    .await;
    let pid = count(db.pool(), WAITS).await;
    assert_eq!(count(db.pool(), LOSE).await, 1, "another has it now");
    holder.rollback().await.unwrap();
    until("its transaction has ended", || async {
        let open =
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL";
        let open = sqlx::query_scalar::<_, i64>(open).bind(i32::try_from(pid).unwrap());
        open.fetch_one(db.pool()).await.unwrap() == 0
    })
    .await;
    let archived = "SELECT count(*) FROM catalog.products WHERE archived_at IS NOT NULL";
    assert_eq!(count(db.pool(), archived).await, 0);
}

/// Where an owner's gate lets two imports through, one of them takes turns chunk by chunk.
#[tokio::test]
async fn of_two_imports_of_an_owner_only_one_loads_two_chunks() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let wide = "INSERT INTO ingestd.gates (pattern, max_running) VALUES ('catalog:default', 2)";
    sqlx::query(wide).execute(db.pool()).await.unwrap();
    let holder = hold(db.pool(), "P000050").await;
    let first = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    let third = String::from_utf8(csv(1_000)).unwrap();
    let third = third.replace("Product", "Later").into_bytes();
    let second = accepted(&daemon, "third.csv", third).await;
    until(
        "the other import waits for all of the first one's chunks",
        || async {
            let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE locktype = 'advisory' AND NOT granted AND mode = 'ExclusiveLock'
              AND a.datname = current_database()";
            count(db.pool(), waits).await == 1
        },
    )
    .await;
    holder.rollback().await.unwrap();
    for job in [first, second] {
        let done = finished(&daemon, job).await;
        assert_eq!(done["status"], "completed", "{done}");
        assert_eq!(done["results"]["successCount"], 1_000, "{done}");
    }
    let live = "SELECT count(*) FROM catalog.product_prices WHERE archived_at IS NULL";
    assert_eq!(count(db.pool(), live).await, 1_000);
}

/// A dry run shows its rows in their order, and `connections = 1` is meant.
#[tokio::test]
async fn a_dry_run_and_an_import_by_one_connection_load_one_chunk_at_a_time() {
    let one = ("INGESTD_PRODUCT_IMPORT__CONNECTIONS", "1");
    for (settings, options) in [(&[CHUNKED][..], "dry_run=true"), (&[CHUNKED, one], "")] {
        let (db, _storage, daemon, file) = world(settings).await;
        let holder = hold(db.pool(), "P000050").await;
        let job = accepted_as(&daemon, "second.csv", file, options).await;
        until("a chunk waits for the row, alone", || async {
            count(db.pool(), ALONE).await == 1
        })
        .await;
        holder.rollback().await.unwrap();
        let done = finished(&daemon, job).await;
        assert_eq!(done["results"]["updatedCount"], 1_000, "{done}");
    }
}

/// Half of the pool is left to others: of two connections an import has one.
#[tokio::test]
async fn a_small_pool_is_not_taken_up_by_an_import() {
    let few = [CHUNKED, ("INGESTD_DATABASE__MAX_CONNECTIONS", "2")];
    let (db, _storage, daemon, file) = world(&few).await;
    let holder = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    until("a chunk waits for the row", || async {
        count(db.pool(), WAITS_FOR_ROW).await == 1
    })
    .await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await; // a second one would be there by then
        assert_eq!(count(db.pool(), SHARED).await, 1);
    }
    status(&daemon, job).await; // by the other connection
    holder.rollback().await.unwrap();
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
}
