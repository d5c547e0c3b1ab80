//! Schedules of the configuration: made, changed and removed by daemons; who wins.

use ingestd::{
    config,
    queue::schedule::{
        Definition, Synced,
        control::{self, Paused},
        sync,
    },
};

use crate::queue_rig::{Rig, done, stop};

/// Brings in schedules of `t.kind`, as a daemon of the set does at its start.
async fn start(rig: &Rig, set: &str, schedules: &[(&str, &str)]) -> Synced {
    let wanted: Vec<_> = schedules
        .iter()
        .map(|(name, cron)| ((*name).to_owned(), Definition::new(*cron, "t.kind"), false))
        .collect();
    let mut conn = rig.pool().acquire().await.unwrap();
    sync(&mut conn, set, &wanted).await.unwrap()
}

/// Returns names, lines and owners.
async fn rows(rig: &Rig) -> String {
    rig.ask(
        "SELECT coalesce(string_agg(concat_ws(' ', name, cron, origin, config_set), ', ' ORDER BY name), '')
         FROM ingestd.schedules",
    )
    .await
}

#[tokio::test]
async fn a_tick_makes_a_job_of_the_schedules_tenant() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.kind")]).await;
    let wanted = [Some("acme"), None].map(|tenant| {
        let definition = Definition {
            tenant: tenant.map(str::to_owned),
            ..Definition::new("* * * * * *", "t.kind")
        };
        (tenant.unwrap_or("nobodys").to_owned(), definition, false)
    });
    let mut conn = rig.pool().acquire().await.unwrap();
    let synced = sync(&mut conn, "s", &wanted).await.unwrap();
    assert_eq!(synced.added.len(), 2);
    assert_eq!(
        sync(&mut conn, "s", &wanted).await.unwrap(),
        Synced::default()
    );
    let mut moved = wanted.clone();
    moved[0].1.tenant = None;
    let synced = sync(&mut conn, "s", &moved).await.unwrap();
    assert_eq!(synced.changed, names(&["acme"]));
    sync(&mut conn, "s", &wanted).await.unwrap();
    rig.until(
        "(SELECT count(DISTINCT t.schedule) = 2
          FROM ingestd.schedule_ticks t JOIN ingestd.job_history h ON h.id = t.job_id
          WHERE h.tenant IS NOT DISTINCT FROM nullif(t.schedule, 'nobodys'))",
    )
    .await;
    stop(engine).await;
}

/// A daemon that does not know the column enqueues a tick's job as this does, and adds a source's
/// schedule as this does.
#[tokio::test]
async fn what_an_older_daemon_makes_gets_its_schedules_tenant() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.kind', 'default', 3, 60), ('catalog.fetch_source', 'sources', 3, 60)",
    )
    .await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, tenant)
         VALUES ('n', '0 9 * * *', 't.kind', 'acme')",
    )
    .await;
    rig.sql(
        "INSERT INTO catalog.sources (name, tenant, kind, location)
         VALUES ('feed', 'acme', 'url', 'https://example.com/a.csv')",
    )
    .await;
    rig.sql(
        r#"INSERT INTO ingestd.schedules (name, cron, kind, args)
           VALUES ('source:feed', '0 9 * * *', 'catalog.fetch_source', '{"source": "feed"}')"#,
    )
    .await;
    for enqueue in [
        r#"'t.kind', meta => '{"schedule": "n", "source": "cron"}'"#,
        r#"'t.kind', meta => '{"schedule": "n"}', tenant => 'other'"#,
        r#"'t.kind', meta => '{"schedule": "gone"}'"#,
        r#"'t.kind', meta => '{"schedule": "source:feed"}'"#,
        r#"'catalog.fetch_source', meta => '{"schedule": "source:feed"}'"#,
        "'t.kind'",
    ] {
        rig.sql(&format!("SELECT ingestd.enqueue({enqueue})")).await;
    }
    let whose: String = rig
        .ask(
            "SELECT string_agg(coalesce(tenant, 'none'), ' ' ORDER BY id)
             FROM ingestd.jobs WHERE shard = 0",
        )
        .await;
    assert_eq!(whose, "acme other none none acme none");
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_rows_of_a_set_equal_the_file_that_started_last() {
    let rig = Rig::new().await;
    let synced = start(&rig, "s", &[("a", "0 1 * * *"), ("b", "0 2 * * *")]).await;
    assert_eq!(synced.added, names(&["a", "b"]));
    let synced = start(&rig, "s", &[("b", "0 3 * * *"), ("c", "0 4 * * *")]).await;
    let expected = Synced {
        added: names(&["c"]),
        changed: names(&["b"]),
        removed: names(&["a"]),
        shadowed: Vec::new(),
    };
    assert_eq!(synced, expected);
    assert_eq!(
        rows(&rig).await,
        "b 0 3 * * * config s, c 0 4 * * * config s"
    );
    let again = start(&rig, "s", &[("b", "0 3 * * *"), ("c", "0 4 * * *")]).await;
    assert_eq!(again, Synced::default());
    // Another set neither removes nor changes them.
    let other = start(&rig, "other", &[("c", "0 5 * * *"), ("d", "0 6 * * *")]).await;
    assert_eq!(other.added, names(&["d"]));
    assert_eq!(other.shadowed, [("c".to_owned(), "config".to_owned())]);
    assert_eq!(
        rows(&rig).await,
        "b 0 3 * * * config s, c 0 4 * * * config s, d 0 6 * * * config other"
    );
    start(&rig, "s", &[]).await;
    assert_eq!(rows(&rig).await, "d 0 6 * * * config other");
    let audited = "SELECT string_agg(concat_ws(' ', actor, action, object), ', ' ORDER BY id)
                   FROM ingestd.audit_log WHERE object IN ('schedule/b', 'schedule/d')";
    assert_eq!(
        rig.ask::<String>(audited).await,
        "config:s schedule.add schedule/b, config:s schedule.change schedule/b, \
         config:other schedule.add schedule/d, config:s schedule.remove schedule/b"
    );
}

#[tokio::test]
async fn a_users_schedule_wins_and_says_so() {
    let rig = Rig::new().await;
    rig.sql("INSERT INTO ingestd.schedules (name, cron, kind) VALUES ('n', '0 9 * * *', 't.kind')")
        .await;
    let synced = start(&rig, "s", &[("n", "0 1 * * *")]).await;
    assert_eq!(synced.shadowed, [("n".to_owned(), "user".to_owned())]);
    assert_eq!(rows(&rig).await, "n 0 9 * * * user");
    let shadows = "SELECT coalesce(shadows_set, 'none') FROM ingestd.schedules";
    assert_eq!(rig.ask::<String>(shadows).await, "s");
    // Another set's start does not hide it, the file's own correction does.
    start(&rig, "other", &[]).await;
    assert_eq!(rig.ask::<String>(shadows).await, "s");
    start(&rig, "s", &[]).await;
    assert_eq!(rig.ask::<String>(shadows).await, "none");
    assert_eq!(rows(&rig).await, "n 0 9 * * * user");
}

#[tokio::test]
async fn a_built_in_schedule_gives_way_and_comes_back() {
    let rig = Rig::new().await;
    let mut kind = done("t.kind").kind;
    kind.schedule = Some("*/5 * * * *");
    let mut conn = rig.pool().acquire().await.unwrap();
    let mut daemon = async |schedules: &[(&str, &str)]| {
        ingestd::queue::register(&mut conn, &[kind]).await.unwrap();
        start(&rig, "s", schedules).await;
        ingestd::queue::register(&mut conn, &[kind]).await.unwrap();
        rows(&rig).await
    };
    assert_eq!(daemon(&[]).await, "t.kind */5 * * * * built_in");
    let own = [("t.kind", "*/7 * * * *")];
    assert_eq!(daemon(&own).await, "t.kind */7 * * * * config s");
    assert_eq!(daemon(&own).await, "t.kind */7 * * * * config s");
    assert_eq!(daemon(&[]).await, "t.kind */5 * * * * built_in");
}

#[tokio::test]
async fn what_stays_keeps_its_next_time_and_a_persons_pause_stays() {
    let rig = Rig::new().await;
    start(
        &rig,
        "s",
        &[
            ("same", "0 1 * * *"),
            ("new line", "0 2 * * *"),
            ("paused", "0 3 * * *"),
        ],
    )
    .await;
    rig.sql("UPDATE ingestd.schedules SET next_at = '2020-01-01T01:00Z', last_error = 'x'")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert_eq!(
        control::pause(&mut conn, "paused").await.unwrap(),
        Paused::Changed
    );
    assert_eq!(
        control::pause(&mut conn, "paused").await.unwrap(),
        Paused::AsBefore
    );
    start(
        &rig,
        "s",
        &[
            ("same", "0 1 * * *"),
            ("new line", "0 9 * * *"),
            ("paused", "0 4 * * *"),
        ],
    )
    .await;
    let after: String = rig
        .ask(
            "SELECT string_agg(concat_ws(' ', name, next_at::date, paused_at IS NOT NULL), ', '
                               ORDER BY name) FROM ingestd.schedules",
        )
        .await;
    assert_eq!(after, "new line f, paused t, same 2020-01-01 f");
}

#[tokio::test]
async fn the_configuration_pauses_what_only_it_lets_go_on() {
    let rig = Rig::new().await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let mut wanted = vec![("n".to_owned(), Definition::new("0 1 * * *", "t.kind"), true)];
    sync(&mut conn, "s", &wanted).await.unwrap();
    let resumed = control::resume(&mut conn, "n").await.unwrap();
    assert_eq!(resumed, Paused::InConfig(false));
    control::pause(&mut conn, "n").await.unwrap();
    let resumed = control::resume(&mut conn, "n").await.unwrap();
    assert_eq!(resumed, Paused::InConfig(true));
    control::pause(&mut conn, "n").await.unwrap();
    wanted[0].2 = false;
    sync(&mut conn, "s", &wanted).await.unwrap();
    let both = "SELECT paused_at IS NOT NULL AND NOT paused_in_config FROM ingestd.schedules";
    assert!(rig.ask::<bool>(both).await, "the person's pause stays");
    assert_eq!(
        control::resume(&mut conn, "n").await.unwrap(),
        Paused::Changed
    );
    assert_eq!(
        control::resume(&mut conn, "n").await.unwrap(),
        Paused::AsBefore
    );
    assert_eq!(
        control::resume(&mut conn, "no").await.unwrap(),
        Paused::NotFound
    );
    assert_eq!(
        control::pause(&mut conn, "no").await.unwrap(),
        Paused::NotFound
    );
}

#[tokio::test]
async fn a_schedule_paused_by_the_configuration_ticks_past() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.kind")]).await;
    let every_second = || Definition::new("* * * * * *", "t.kind");
    let mut wanted = vec![
        ("paused".to_owned(), every_second(), true),
        ("witness".to_owned(), every_second(), false),
    ];
    let mut conn = rig.pool().acquire().await.unwrap();
    sync(&mut conn, "s", &wanted).await.unwrap();
    rig.until("(SELECT count(*) >= 2 FROM ingestd.schedule_ticks WHERE schedule = 'witness')")
        .await;
    let ticked = "EXISTS (SELECT FROM ingestd.schedule_ticks WHERE schedule = 'paused')";
    assert!(!rig.ask::<bool>(&format!("SELECT {ticked}")).await);
    wanted[0].2 = false;
    sync(&mut conn, "s", &wanted).await.unwrap();
    rig.until(ticked).await;
    let first =
        "SELECT min(tick_at) > (SELECT updated_at FROM ingestd.schedules WHERE name = 'paused')
                 FROM ingestd.schedule_ticks WHERE schedule = 'paused'";
    assert!(
        rig.ask::<bool>(first).await,
        "what passed is not made up for"
    );
    stop(engine).await;
}

#[tokio::test]
async fn daemons_that_start_together_leave_one_files_rows() {
    let rig = Rig::new().await;
    let one = [("a", "0 1 * * *"), ("both", "0 1 * * *")];
    let two = [("b", "0 2 * * *"), ("both", "0 2 * * *")];
    tokio::join!(
        start(&rig, "s", &one),
        start(&rig, "s", &two),
        start(&rig, "s", &one)
    );
    let left = rows(&rig).await;
    let whole = [
        "a 0 1 * * * config s, both 0 1 * * * config s",
        "b 0 2 * * * config s, both 0 2 * * * config s",
    ];
    assert!(whole.contains(&left.as_str()), "{left}");
}

#[test]
fn the_set_has_a_default() {
    assert_eq!(config::Queue::default().schedule_set, "default");
}
