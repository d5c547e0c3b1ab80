//! The search sync by the command line.

use super::World;

const SERVER: [(&str, &str); 2] = [
    ("INGESTD_SEARCH__URL", "https://search.example.com:8108"),
    ("INGESTD_SEARCH__API_KEY", "canary-search-key"),
];

#[tokio::test]
async fn without_a_server_nothing_is_begun() {
    let world = World::create().await;
    let status = world.run("search status --json").json();
    assert_eq!(status["is_configured"], false);
    assert_eq!(status["noted"], 0);
    for verb in ["sync", "rebuild", "retry"] {
        world
            .run(&format!("search {verb}"))
            .code(78)
            .says("no search server is configured");
    }
    assert_eq!(world.count("ingestd.jobs").await, 0);
    assert_eq!(world.count("ingestd.audit_log").await, 0);
}

#[tokio::test]
async fn it_is_shown_synced_rebuilt_and_retried() {
    let world = World::create().await;
    sqlx::raw_sql(
        "INSERT INTO catalog.products (code, name) VALUES ('A', 'Anna');
         INSERT INTO catalog.search_outbox (product_ids) SELECT ARRAY[id] FROM catalog.products;
         INSERT INTO catalog.search_failures (collection, product_id, error, attempts)
         SELECT 'products', id, 'Field `price` must be a float.', 5 FROM catalog.products;
         INSERT INTO catalog.search_indexes (alias, live, live_fields)
         VALUES ('products', 'products_1', '{code}')",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let run = |line: &str| {
        let mut command = world.command(line);
        super::ran(command.envs(SERVER))
    };
    let shown = run("search status").says("ingestd search rebuild").ok();
    assert!(shown.contains("products_1"), "{shown}");
    let status = run("search status --json").json();
    for (name, value) in [("noted", 1), ("kept", 1), ("retrying", 0)] {
        assert_eq!(status[name], value, "{name}");
    }
    assert_eq!(status["fields_changed"], true);
    let failures = run("search failures").ok();
    assert!(failures.contains("must be a float"), "{failures}");

    let first = run("search sync --json").json();
    assert_eq!(first["inserted"], true);
    let again = run("search sync --json").json();
    assert_eq!(again["job"], first["job"]);
    assert_eq!(again["inserted"], false);
    let said = run("search rebuild").ok();
    assert!(said.contains("search status"), "{said}");
    assert_eq!(run("search retry --json").json()["n"], 1);
    let due = "catalog.search_failures WHERE retry_at <= now() AND attempts = 1";
    assert_eq!(world.count(due).await, 1);
    let jobs =
        "ingestd.jobs WHERE kind IN ('search.sync', 'search.rebuild') AND gate_key = 'search'";
    assert_eq!(world.count(jobs).await, 2);
    for action in ["search.sync", "search.rebuild", "search.retry"] {
        assert!(world.audited(action, "search/products").await, "{action}");
    }
}
