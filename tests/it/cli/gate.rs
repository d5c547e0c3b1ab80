//! `ingestd gates`.

use super::World;

#[tokio::test]
async fn a_gate_is_set_listed_paused_and_removed() {
    let world = World::create().await;
    let said = world.run("gates ls").code(0).err;
    assert!(said.contains("each key runs one job at a time"), "{said}");
    world.run("gates set host:* --max-running 2").ok();
    world
        .run("gates set api:x --rate 0.5 --burst 3 --max-running 4")
        .ok();
    assert!(world.audited("gate.set", "gate/api:x").await);
    sqlx::query(
        "INSERT INTO ingestd.jobs (kind, gate_key)
         VALUES ('system.noop', 'host:a'), ('system.noop', 'host:b'), ('system.noop', 'lone')",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let gates = world.run("gates ls --json").json();
    let seen: Vec<_> = gates
        .as_array()
        .unwrap()
        .iter()
        .map(|g| {
            let [pattern, max, keys, held] =
                ["pattern", "max_running", "keys", "held"].map(|field| g[field].to_string());
            format!("{pattern} {max} {keys} {held}")
        })
        .collect();
    assert_eq!(seen, ["\"api:x\" 4 0 0", "\"host:*\" 2 2 2", "null 1 1 1"]);
    assert_eq!(
        (&gates[0]["rate_per_sec"], &gates[0]["burst"]),
        (&0.5.into(), &3.into())
    );

    let said = world.run("gates pause host:a").ok();
    assert!(said.contains("is paused"), "{said}");
    assert!(world.audited("gate.pause", "gate/host:a").await);
    let of = "ingestd.gates WHERE pattern = 'host:a' AND max_running = 2 AND paused_at IS NOT NULL";
    assert_eq!(world.count(of).await, 1);
    assert!(world.run("gates ls").ok().contains("paused since"));
    assert!(world.run("gates resume host:a").ok().contains("goes on"));
    assert!(world.audited("gate.resume", "gate/host:a").await);
    let again = world.run("gates resume host:a").ok();
    assert!(again.contains("was not paused"), "{again}");
    world.run("gates rm host:a").ok();
    assert!(world.audited("gate.remove", "gate/host:a").await);
    world
        .run("gates rm host:a")
        .code(66)
        .says("there is no gate");
}

#[tokio::test]
async fn limits_out_of_range_are_refused() {
    let world = World::without_kinds().await;
    for line in [
        "gates set x --max-running 0",
        "gates set x --rate 0",
        "gates set x --rate NaN",
        "gates set x --burst 2",
    ] {
        world.run(line).code(64);
    }
    world.run_with("gates set", "").code(65).says("1 to 1024");
}
