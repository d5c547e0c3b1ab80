//! Tokens by the command line.

use std::fmt::Write as _;

use super::World;

/// Returns what of a token nobody may see.
fn secret(text: &str) -> &str {
    text.splitn(3, '_').nth(2).unwrap()
}

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
    assert!(!listed.contains(secret(text)), "{listed}");
    assert!(!world.run("token ls --json").ok().contains(secret(text)));
    world
        .run(&format!("token revoke {id}"))
        .code(64)
        .says("--yes");
    let said = world.run(&format!("token revoke {id} --yes"));
    let said = said.says("no token is left").says("token create");
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

/// The log at its most talkative, every answer and `config show` know no credential.
#[tokio::test]
async fn credentials_are_in_no_log_and_no_answer() {
    const STATIC: &str = "canary-of-the-configuration";
    const SECRET: &str = "canary-of-thirty-two-bytes-or-more";
    let world = World::create().await;
    let made = world.run("token create ops --role admin --json").json();
    let token = made["token"].as_str().unwrap().to_owned();
    let log = world.dir.path().join("daemon.log");
    let mut command = world.command("run");
    command
        .env("INGESTD_HTTP__TOKEN", STATIC)
        .env("INGESTD_AUTH__JWT_SECRET", SECRET)
        .env("INGESTD_LOG__FILTER", "trace")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let daemon = super::Daemon(command.spawn().unwrap());
    world.until_worker().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", world.place.address);
    let mut wrong = token.clone();
    wrong.pop();
    wrong.push('x'); // no token ends with it
    let user = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.Y2FuYXJ5";
    let mut answers = String::new();
    for credential in [STATIC, &token, &wrong, user, SECRET] {
        for path in [
            "/api/v1/tokens",
            "/api/v1/session",
            "/api/v1/nowhere",
            "/readyz?verbose",
        ] {
            let ask = client.get(url(path)).bearer_auth(credential);
            let answer = ask.send().await.unwrap();
            write!(answers, "{:?}", answer.headers()).unwrap();
            answers += &answer.text().await.unwrap();
        }
        let body = serde_json::json!({ "token": credential });
        let opened = client
            .post(url("/api/v1/session"))
            .json(&body)
            .send()
            .await
            .unwrap();
        answers += &opened.text().await.unwrap();
    }
    assert_eq!(daemon.stop(), 0);
    let mut show = world.command("config show --json");
    show.env("INGESTD_HTTP__TOKEN", STATIC)
        .env("INGESTD_AUTH__JWT_SECRET", SECRET);
    answers += &super::ran(&mut show).ok();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a credential was refused"), "{log}");
    let secrets = [STATIC, secret(&token), secret(&wrong), user, SECRET];
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!answers.contains(secret), "{secret} is in an answer");
    }
}
