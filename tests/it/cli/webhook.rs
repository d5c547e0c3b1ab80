//! Webhooks by the command line.

use super::World;

const URL: &str = "https://example.com/hook";

#[tokio::test]
async fn a_webhook_is_made_tried_paused_and_removed() {
    let world = World::create().await;
    world.run("webhooks ls").says("no webhooks");
    let made = world
        .run(&format!("webhooks add {URL} --event job.dead --event run.failed --secret ops --kind product_import.* --json"))
        .json();
    let id = made["id"].as_i64().unwrap();
    assert_eq!(
        made["events"],
        serde_json::json!(["job.dead", "run.failed"])
    );
    assert!(world.run("webhooks ls").ok().contains(URL));
    assert!(
        world
            .run(&format!("webhooks show {id}"))
            .ok()
            .contains("product_import.*")
    );
    let said = world.run(&format!("webhooks pause {id}")).ok();
    assert!(said.contains("is paused"), "{said}");
    let said = world.run(&format!("webhooks pause {id}")).ok();
    assert!(said.contains("already"), "{said}");
    let said = world.run(&format!("webhooks resume {id}")).ok();
    assert!(said.contains("goes on"), "{said}");
    let tried = world.run(&format!("webhooks test {id} --json")).json();
    let job = tried["job"].as_i64().unwrap();
    let counted = format!("ingestd.jobs WHERE id = {job} AND args ->> 'type' = 'webhook.test'");
    assert_eq!(world.count(&counted).await, 1);
    world
        .run(&format!("webhooks deliveries {id}"))
        .says("nothing was delivered");
    world
        .run(&format!("webhooks rm {id}"))
        .code(64)
        .says("--yes");
    world.run(&format!("webhooks rm {id} --yes")).ok();
    for verb in ["add", "pause", "resume", "test", "remove"] {
        let object = format!("webhook/{id}");
        assert!(
            world.audited(&format!("webhook.{verb}"), &object).await,
            "{verb}"
        );
    }
    for verb in ["show", "pause", "resume", "test", "deliveries"] {
        world
            .run(&format!("webhooks {verb} {id}"))
            .code(66)
            .says("there is no webhook");
    }
}

#[tokio::test]
async fn what_is_no_webhook_is_refused() {
    let world = World::create().await;
    let add = |rest: &str| world.run(&format!("webhooks add {rest}"));
    add("http://169.254.169.254/ --event job.dead --secret ops")
        .code(65)
        .says("link-local");
    add(&format!("{URL} --event job.died --secret ops"))
        .code(64)
        .says("job.dead");
    add(&format!("{URL} --event job.dead --secret a/b"))
        .code(65)
        .says("plain file name");
    add(&format!("{URL} --secret ops")).code(64).says("--event");
    assert_eq!(world.count("ingestd.webhooks").await, 0);
}
