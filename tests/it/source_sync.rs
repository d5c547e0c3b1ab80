//! Sources of the configuration: made, changed and removed by daemons; who wins.

use ingestd::source::{self, Added, Definition, Removed, Synced, sync};

use crate::queue_rig::Rig;

/// A source in `/data`, looked at by a line.
fn path(name: &str, cron: &str) -> Definition {
    Definition {
        cron: Some(cron.into()),
        ..Definition::new(format!("/data/{name}"))
    }
}

/// Brings in sources, as a daemon of the set does at its start.
async fn start(rig: &Rig, set: &str, sources: &[(&str, Definition)]) -> Synced {
    let wanted: Vec<_> = sources
        .iter()
        .map(|(name, definition)| ((*name).to_owned(), definition.clone(), false))
        .collect();
    let mut conn = rig.pool().acquire().await.unwrap();
    sync(&mut conn, set, &wanted, Vec::new()).await.unwrap()
}

async fn rig() -> Rig {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('catalog.fetch_source', 'sources', 4, 60)",
    )
    .await;
    rig
}

/// Returns the sources and the schedules, with their owners.
async fn rows(rig: &Rig) -> String {
    rig.ask(
        "SELECT concat_ws(' | ',
           (SELECT string_agg(concat_ws(' ', name, location, origin, config_set, shadows_set), ', ' ORDER BY name) FROM catalog.sources),
           (SELECT string_agg(concat_ws(' ', name, cron, origin, config_set), ', ' ORDER BY name) FROM ingestd.schedules))",
    )
    .await
}

#[tokio::test]
async fn the_rows_of_a_set_equal_the_file_that_started_last() {
    let rig = rig().await;
    let two = [("a", path("a", "0 1 * * *")), ("b", path("b", "0 2 * * *"))];
    let synced = start(&rig, "s", &two).await;
    assert_eq!(synced.added, ["a", "b"]);
    rig.sql("UPDATE catalog.sources SET seen_etag = 'x', seen_no = 7")
        .await;
    let again = start(&rig, "s", &two).await;
    assert_eq!(again, Synced::default());
    // Another place, another line: what was seen at the old place is not what is there.
    let synced = start(&rig, "s", &[("b", path("c", "0 3 * * *"))]).await;
    assert_eq!(
        (synced.changed, synced.removed),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
    assert_eq!(
        rows(&rig).await,
        "b /data/c config s | source:b 0 3 * * * config s"
    );
    let seen = "SELECT concat_ws(' ', seen_etag, seen_no) FROM catalog.sources";
    assert_eq!(rig.ask::<String>(seen).await, "8");
    // Another set neither removes nor changes it.
    let other = start(&rig, "other", &[("b", path("d", "0 4 * * *"))]).await;
    assert_eq!(other.shadowed, [("b".to_owned(), "config".to_owned())]);
    assert_eq!(
        rows(&rig).await,
        "b /data/c config s other | source:b 0 3 * * * config s"
    );
    let audit = "SELECT string_agg(concat_ws(' ', actor, action, object), ', ' ORDER BY id)
                 FROM ingestd.audit_log WHERE object LIKE 'source/%'";
    assert_eq!(
        rig.ask::<String>(audit).await,
        "config:s source.add source/a, config:s source.add source/b, \
         config:s source.change source/b, config:s source.remove source/a"
    );
}

#[tokio::test]
async fn a_users_source_stays_and_the_configurations_is_its_own() {
    let rig = rig().await;
    let mut conn = rig.pool().acquire().await.unwrap();
    // One that is looked at by hand only: the configuration's line must not look at its place.
    let by_hand = Definition::new("/data/mine");
    let added = source::add(&mut conn, "a", &by_hand, false).await.unwrap();
    assert_eq!(added, Added::Made);
    let both = [("a", path("a", "0 1 * * *")), ("b", path("b", "0 2 * * *"))];
    let synced = start(&rig, "s", &both).await;
    assert_eq!(synced.shadowed, [("a".to_owned(), "user".to_owned())]);
    assert_eq!(
        rows(&rig).await,
        "a /data/mine user s, b /data/b config s | source:b 0 2 * * * config s"
    );
    let taken = source::add(&mut conn, "b", &by_hand, false).await.unwrap();
    assert_eq!(taken, Added::Taken("config".into()));
    let removed = source::remove(&mut conn, "b").await.unwrap();
    assert_eq!(removed, Removed::InConfig);
    // A person's pause outlives daemons.
    rig.sql("UPDATE ingestd.schedules SET paused_at = now() WHERE name = 'source:b'")
        .await;
    let removed = source::remove(&mut conn, "a").await.unwrap();
    assert_eq!(removed, Removed::Gone("default".into()));
    let synced = start(&rig, "s", &both).await;
    assert_eq!(synced.added, ["a"]);
    let paused = source::get(&mut *conn, "b").await.unwrap().unwrap();
    assert!(paused.is_paused());
}
