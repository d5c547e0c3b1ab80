//! What a tenant may have only so many of.

use serde_json::json;

use super::server::{Server, problem};

#[tokio::test]
async fn a_tenant_has_only_so_many_sources_and_mappings() {
    let server = Server::start().await;
    for fill in [
        "INSERT INTO catalog.sources (name, tenant, kind, location)
         SELECT 's' || n, 'default', 'url', 'https://x.test/' FROM generate_series(2, 1000) n",
        "INSERT INTO catalog.header_maps (tenant, name, headers)
         SELECT 'default', 'm' || n, '{\"a\": \"code\"}' FROM generate_series(2, 1000) n",
    ] {
        sqlx::query(fill).execute(server.pool()).await.unwrap();
    }
    let source = async |name: &str, tenant: &str| {
        let body = json!({ "name": name, "location": "https://x.test/a.csv", "tenant": tenant });
        let ask = server.post("/api/v1/sources").json(&body);
        ask.send().await.unwrap()
    };
    let mapping = async |name: &str, tenant: &str| {
        let url = server.url(&format!("/api/v1/mappings/{name}?tenant={tenant}"));
        let ask = server.client.put(url);
        let ask = ask.json(&json!({ "headers": { "Artikelnr": "code" } }));
        ask.send().await.unwrap()
    };
    assert_eq!(source("last", "default").await.status(), 201);
    let told = problem(source("more", "default").await, 409, "conflict").await;
    assert!(
        told["detail"].to_string().contains("at most 1000"),
        "{told}"
    );
    assert_eq!(source("other", "acme").await.status(), 201);
    assert_eq!(mapping("last", "default").await.status(), 201);
    let told = problem(mapping("more", "default").await, 409, "conflict").await;
    assert!(
        told["detail"].to_string().contains("at most 1000"),
        "{told}"
    );
    assert_eq!(mapping("last", "default").await.status(), 200, "changed");
    assert_eq!(mapping("other", "acme").await.status(), 201);
}
