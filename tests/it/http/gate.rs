//! Gates over HTTP.

use serde_json::{Value, json};

use super::server::{Server, pages, problem};

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
async fn lists_of_gates_and_of_queues_go_on_from_their_cursors() {
    let server = Server::start().await;
    let put = async |pattern: &str| {
        let url = server.url(&format!("/api/v1/gates/{pattern}"));
        let put = server.client.put(url).json(&json!({ "max_running": 3 }));
        assert_eq!(put.send().await.unwrap().status(), 200);
    };
    for pattern in ["a", "b:%2A", "c"] {
        put(pattern).await;
    }
    sqlx::query("INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('system.noop', 'z')")
        .execute(server.pool())
        .await
        .unwrap();
    let gates = pages(&server, "/api/v1/gates").await;
    let gates: Vec<_> = gates.iter().map(|gate| gate["pattern"].clone()).collect();
    assert_eq!(gates, [json!("a"), json!("b:*"), json!("c"), Value::Null]);
    let all = server.json("/api/v1/queues?limit=200").await;
    assert_eq!(all["next_cursor"], Value::Null);
    let names = |items: &[Value]| -> Vec<Value> {
        items.iter().map(|item| item["queue"].clone()).collect()
    };
    let queues = names(&pages(&server, "/api/v1/queues").await);
    assert!(queues.len() > 2, "{queues:?}");
    assert_eq!(queues, names(all["items"].as_array().unwrap()));
    for path in ["gates", "queues"] {
        let wrong = server
            .get(&format!("/api/v1/{path}?cursor=c1"))
            .send()
            .await;
        problem(wrong.unwrap(), 400, "bad-request").await;
    }
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
