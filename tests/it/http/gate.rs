//! Gates over HTTP.

use serde_json::{Value, json};

use super::server::{Server, problem};

const GATE: &str = "/api/v1/gates/host:%2A";

#[tokio::test]
async fn a_gate_is_set_paused_resumed_and_removed() {
    let server = Server::start().await;
    let limits = json!({ "max_running": 3, "rate_per_sec": 2.5, "burst": 4 });
    let put = server.client.put(server.url(GATE)).json(&limits);
    let response = put.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer, json!({ "pattern": "host:*", "limits": limits }));
    sqlx::query("INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('system.noop', 'host:a')")
        .execute(server.pool())
        .await
        .unwrap();
    for verb in ["pause", "resume", "resume"] {
        let response = server.post(&format!("{GATE}/{verb}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{verb}");
    }
    let gates = server.json("/api/v1/gates").await;
    let gate = &gates["items"][0];
    assert_eq!(
        (&gate["pattern"], &gate["held"]),
        (&json!("host:*"), &json!(1))
    );
    assert_eq!(
        (&gate["burst"], &gate["origin"]),
        (&json!(4), &json!("user"))
    );
    let delete = || server.client.delete(server.url(GATE)).send();
    assert_eq!(delete().await.unwrap().status(), 200);
    problem(delete().await.unwrap(), 404, "not-found").await;
    let done: Vec<_> = server
        .audit()
        .await
        .into_iter()
        .map(|(_, action, _)| action)
        .collect();
    assert_eq!(
        done,
        ["gate.set", "gate.pause", "gate.resume", "gate.remove"]
    );
}

#[tokio::test]
async fn limits_out_of_range_are_refused_and_pointed_to() {
    let server = Server::start().await;
    for (body, pointer) in [
        (json!({ "max_running": 0 }), "/max_running"),
        (json!({ "rate_per_sec": 0.0 }), "/rate_per_sec"),
        (json!({ "burst": 1 }), "/burst"),
    ] {
        let put = server.client.put(server.url(GATE)).json(&body);
        let problem = problem(put.send().await.unwrap(), 422, "invalid").await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let put = server
        .client
        .put(server.url(GATE))
        .json(&json!({ "rate": 1 }));
    problem(put.send().await.unwrap(), 400, "bad-json").await;
}
