//! What no route of ours can be made to do.

use axum::{Router, body::Body, middleware, routing::get};
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{super::admit::Peer, super::state::Health, *};
use crate::{blob, config::Config};

async fn boom() -> &'static str {
    std::panic::panic_any("the handler's secret")
}

#[tokio::test]
async fn a_panic_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.http.token = Some("s3cret".into());
    let app = Arc::new(AppState::new(
        PgPoolOptions::new()
            .connect_lazy("postgres://nowhere")
            .unwrap(),
        blob::Store::open(dir.path()).await.unwrap(),
        Arc::new(config),
        Health::new(|| true, CancellationToken::new()),
    ));
    let router = Router::new()
        .route("/boom", get(boom))
        .layer(middleware::from_fn_with_state(app, around));
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/boom".parse().unwrap();
    request
        .headers_mut()
        .insert("authorization", HeaderValue::from_static("Bearer s3cret"));
    request
        .extensions_mut()
        .insert(Peer("127.0.0.1:1".parse().unwrap()));
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 10_000)
        .await
        .unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("urn:ingestd:problem:internal"), "{body}");
    assert!(!body.contains("secret"), "{body}");
}
