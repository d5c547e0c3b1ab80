//! Tokens by the command line.

use super::World;

#[tokio::test]
async fn a_token_is_made_listed_and_revoked() {
    let world = World::create().await;
    world.run("token ls").says("no tokens");
    let made = world
        .run("token create ci --role operator --tenant acme --tenant globex --expires 90d --json")
        .json();
    let (id, text) = (
        made["id"].as_i64().unwrap(),
        made["token"].as_str().unwrap(),
    );
    assert!(text.starts_with("igd_") && text.len() == 60, "{text}");
    assert_eq!(made["tenants"], serde_json::json!(["acme", "globex"]));
    assert!(made["expires_at"].is_string(), "{made}");
    let listed = world.run("token ls").ok();
    assert!(
        listed.contains("acme globex") && listed.contains("operator"),
        "{listed}"
    );
    assert!(!listed.contains(&text[17..]), "{listed}");
    assert!(!world.run("token ls --json").ok().contains(&text[17..]));
    world
        .run(&format!("token revoke {id}"))
        .code(64)
        .says("--yes");
    let said = world.run(&format!("token revoke {id} --yes"));
    let said = said.says("no token is left");
    assert!(said.out.contains("is revoked"), "{said:?}");
    let again = world.run(&format!("token revoke {id} --yes")).ok();
    assert!(again.contains("already"), "{again}");
    for verb in ["create", "revoke"] {
        let object = format!("token/{id}");
        assert!(
            world.audited(&format!("token.{verb}"), &object).await,
            "{verb}"
        );
    }
    let plain = world.run("token create ops --role admin").ok();
    assert!(
        plain.starts_with("igd_") && plain.trim().len() == 60,
        "{plain}"
    );
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let world = World::create().await;
    world
        .run("token create ops --role root")
        .code(64)
        .says("viewer");
    world.run("token create ops").code(64).says("--role");
    world
        .run_with("token create --role admin", "")
        .code(65)
        .says("name");
    let short = world.run("token create ops --role admin --expires 1s");
    short.code(65).says("a minute");
    world
        .run("token revoke 404 --yes")
        .code(66)
        .says("there is no token");
    assert_eq!(world.count("ingestd.api_tokens").await, 0);
}
