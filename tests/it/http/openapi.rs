//! The OpenAPI document tells what the handlers really take, and the daemon stands what it provokes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::server::Server;

/// What follows "expected" in a refusal of an unknown name.
fn expected(text: &str) -> BTreeSet<String> {
    let (_, expected) = text.split_once("expected ").unwrap_or_default();
    let words = expected.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

fn path_of(template: &str) -> String {
    let path = template
        .replace("{queue}", "default")
        .replace("{name}", "none");
    let path = path.replace("{pattern}", "none:*");
    path.replace("{id}", "404404").replace("{jobId}", "404404")
}

fn names(of: &Value) -> BTreeSet<String> {
    let properties = of.as_object().into_iter().flatten();
    properties.map(|(name, _)| name.clone()).collect()
}

/// Reads what there is out of a sentence of the product import's document.
fn listed(message: &str) -> BTreeSet<String> {
    let (_, there) = message.split_once("there are ").unwrap_or_default();
    let (_, alone) = message.split_once("no options but ").unwrap_or_default();
    let alone = alone.split(',').next().unwrap_or_default();
    let names = there.split(", ").chain([alone]);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn it_is_served_and_names_what_handlers_read() {
    let server = Server::start().await;
    let document = server.json("/openapi.json").await;
    let paths: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_value(document["paths"].clone()).unwrap();
    let (mut n_queries, mut n_bodies) = (0, 0);
    for (template, operations) in &paths {
        for (method, operation) in operations {
            let method = method.to_uppercase().parse().unwrap();
            let url = server.url(&path_of(template));
            let what = format!("{method} {template}");
            let parameters = operation["parameters"].as_array().unwrap();
            let query: BTreeSet<String> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            if !query.is_empty() && template != "/readyz" {
                let ask = server
                    .client
                    .request(reqwest::Method::clone(&method), format!("{url}?zz=1"));
                let told: Value = ask.send().await.unwrap().json().await.unwrap();
                let known = match told["detail"].as_str() {
                    Some(detail) => expected(detail),
                    None => listed(told["message"].as_str().unwrap()),
                };
                assert_eq!(known, query, "{what}: {told}");
                n_queries += 1;
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            // The product import's document has errors that say less; `answers` sends such bodies.
            if body.is_object() && !template.contains("/import/") {
                let mut sent = json!({ "zz": 1 });
                let mut known = names(&body["properties"]);
                if what == "POST /api/v1/schedules" {
                    sent["name"] = "n".into();
                    // These two are taken out before the others are read.
                    known.retain(|name| name != "name" && name != "paused");
                }
                let ask = server.client.request(method, url).json(&sent);
                let told: Value = ask.send().await.unwrap().json().await.unwrap();
                let detail = told["errors"][0]["detail"].as_str().unwrap_or_default();
                assert_eq!(expected(detail), known, "{what}: {told}");
                n_bodies += 1;
            }
        }
    }
    assert!(n_queries >= 11 && n_bodies >= 12, "{n_queries} {n_bodies}");
}

/// Runs schemathesis for some minutes: `INGESTD_SCHEMATHESIS` names it, else it is installed into a
/// folder of the test's own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs schemathesis and takes minutes"]
async fn nightly_schemathesis_finds_no_server_error() {
    let server = Server::with(|config| {
        config.auth.requests_per_minute = 0;
        config.auth.requests_per_minute_per_address = 0;
        config.auth.failures_per_minute = 0;
    })
    .await;
    let url = server.url("/openapi.json");
    let output = tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let bin = std::env::var_os("INGESTD_SCHEMATHESIS")
            .map_or_else(|| install(dir.path()), PathBuf::from);
        schemathesis(&bin, dir.path(), &url)
    });
    let (is_fine, said) = output.await.unwrap();
    assert!(is_fine, "{said}");
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Installs the version that these checks were written for; returns its program.
fn install(dir: &Path) -> PathBuf {
    let venv = dir.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let pip = venv.join("bin/pip");
    run(Command::new(pip).args(["-q", "install", "schemathesis==4.32.5"]));
    venv.join("bin/schemathesis")
}

fn schemathesis(bin: &Path, dir: &Path, url: &str) -> (bool, String) {
    let done = Command::new(bin)
        .current_dir(dir)
        .args([
            "run",
            url,
            "--checks",
            CHECKS,
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args([
            "--max-examples",
            "40",
            "--seed",
            "1",
            "--suppress-health-check",
            "all",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    (done.status.success(), said)
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
