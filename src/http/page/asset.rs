//! The files that pages load. Their names carry a hash, so that a browser keeps them until they
//! change.

use std::sync::LazyLock;

use axum::{
    extract::RawQuery,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::IntoResponse,
};
use twox_hash::XxHash3_64;

const CSS: &str = include_str!("asset/page.css");
const JS: &str = include_str!("asset/page.js");
const ICON: &str = include_str!("asset/icon.svg");

/// The style sheet's version, and the script's.
static VERSIONS: LazyLock<[String; 2]> = LazyLock::new(|| [CSS, JS].map(version));

fn version(text: &str) -> String {
    format!("v={:016x}", XxHash3_64::oneshot(text.as_bytes()))
}

/// Where the style sheet is.
pub(super) fn css_path() -> String {
    let [version, _] = &*VERSIONS;
    format!("/assets/page.css?{version}")
}

/// Where the script is.
pub(super) fn js_path() -> String {
    let [_, version] = &*VERSIONS;
    format!("/assets/page.js?{version}")
}

/// `GET /assets/page.css`.
pub(in crate::http) async fn css(RawQuery(asked): RawQuery) -> impl IntoResponse {
    let [version, _] = &*VERSIONS;
    file(
        CSS,
        "text/css; charset=utf-8",
        asked.as_ref() == Some(version),
    )
}

/// `GET /assets/page.js`.
pub(in crate::http) async fn js(RawQuery(asked): RawQuery) -> impl IntoResponse {
    let [_, version] = &*VERSIONS;
    file(
        JS,
        "text/javascript; charset=utf-8",
        asked.as_ref() == Some(version),
    )
}

/// `GET /assets/icon.svg`.
pub(in crate::http) async fn icon() -> impl IntoResponse {
    file(ICON, "image/svg+xml", false)
}

fn file(text: &'static str, media: &'static str, is_this_version: bool) -> impl IntoResponse {
    let keep = if is_this_version {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    ([(CONTENT_TYPE, media), (CACHE_CONTROL, keep)], text)
}
