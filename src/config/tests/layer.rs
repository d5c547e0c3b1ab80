//! A stronger layer wins, key by key, and the origin says which.

use std::time::Duration;

use super::World;
use crate::config::Origin;

#[test]
fn each_layer_beats_the_ones_below_it() {
    let key = "queue.concurrency";
    let world = World::empty();
    assert_eq!(*world.loaded().origins.get(key), Origin::Default);

    let world = world.file("ingestd.toml", "[queue]\nconcurrency = 1\n");
    assert_eq!(world.loaded().config.queue.concurrency, 1);
    let origin = Origin::File {
        path: world.path("ingestd.toml"),
        line: 2,
        column: 15,
    };
    assert_eq!(*world.loaded().origins.get(key), origin);

    let world = world
        .file("conf.d/20-b.toml", "queue.concurrency = 3\n")
        .file("conf.d/10-a.toml", "queue.concurrency = 2\n")
        .file("conf.d/30-c.conf", "not toml\n");
    assert_eq!(world.loaded().config.queue.concurrency, 3);
    let names = ["ingestd.toml", "conf.d/10-a.toml", "conf.d/20-b.toml"];
    assert_eq!(world.loaded().files, names.map(|name| world.path(name)));

    let world = world.env("INGESTD_QUEUE__CONCURRENCY", "4");
    assert_eq!(world.loaded().config.queue.concurrency, 4);
    let origin = Origin::Env("INGESTD_QUEUE__CONCURRENCY".to_owned());
    assert_eq!(*world.loaded().origins.get(key), origin);

    let world = world.flag("queue.concurrency", "5");
    assert_eq!(world.loaded().config.queue.concurrency, 5);
    assert_eq!(*world.loaded().origins.get(key), Origin::Flag);
}

#[test]
fn keys_that_a_layer_leaves_out_stay_as_they_were() {
    let loaded = World::empty()
        .file(
            "ingestd.toml",
            "[queue]\nlost_after = \"1m\"\n[queues.mail]\nconcurrency = 7\n",
        )
        .env("INGESTD_QUEUES__IMPORT__CONCURRENCY", "4")
        .env("INGESTD_KINDS__PRODUCT_IMPORT__RUN__TIMEOUT", "1h")
        .env("INGESTD_HTTP__MAX_BODY_BYTES", "2MiB")
        .env("INGESTD_PRODUCT_IMPORT__ALIASES__CODE", "['sku']")
        .loaded();
    let config = loaded.config;
    assert_eq!(config.queue.lost_after, Duration::from_mins(1));
    assert_eq!(config.queue.trust_window, Duration::from_secs(20));
    assert_eq!(config.concurrency("mail"), 7);
    assert_eq!(config.concurrency("import"), 4);
    assert_eq!(config.concurrency("system"), 2);
    assert_eq!(config.http.max_body_bytes, 2 << 20);
    assert_eq!(config.product_import.aliases["code"], ["sku"]);
    let kind = config.kinds.get("product_import.run").unwrap();
    assert_eq!(kind.timeout, Some(Duration::from_hours(1)));
}

#[test]
fn a_kind_may_be_written_as_one_quoted_name() {
    for header in ["[kinds.a.b]", "[kinds.\"a.b\"]"] {
        let text = format!("{header}\nmax_attempts = 4\n");
        let loaded = World::empty().file("ingestd.toml", &text).loaded();
        let kinds: Vec<_> = loaded.config.kinds.iter().collect();
        assert_eq!(kinds.len(), 1, "{header}");
        assert_eq!(
            (kinds[0].0.as_str(), kinds[0].1.max_attempts),
            ("a.b", Some(4))
        );
        assert_ne!(
            *loaded.origins.get("kinds.a.b.max_attempts"),
            Origin::Default
        );
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    World::empty()
        .env("INGESTD_PG_BIN", "/usr/bin")
        .env("INGESTD_TEST_DATABASE_URL", "postgres://h/db")
        .env("INGESTD_REVISION", "abc")
        .env("INGEST", "1")
        .env("DATABASE_URL", "")
        .loaded();
}
