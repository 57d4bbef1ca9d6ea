//! The status page: one file, with nothing from elsewhere.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::app::App;

/// The page. It has no data in it: its script asks for a token and reads the API.
const PAGE: &str = include_str!("status.html");

/// Only the page's own script and style may run, named by their hashes.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |element: &str| {
        let text = between(PAGE, &format!("<{element}>"), &format!("</{element}>")).unwrap_or_default();
        STANDARD.encode(Sha256::digest(text.as_bytes()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
});

/// The page at `/`.
pub fn router() -> Router<App> {
    Router::new().route("/", get(page))
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY.as_str())], Html(PAGE))
}

/// What stands between two marks, the first of each.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::Value;

    use super::*;
    use crate::testing::TestApp;

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
        let test = TestApp::new().await;
        let answer = test.request(Method::GET, "/", None, &[], Value::Null).await;
        assert_eq!(answer.status, 200);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"),
            "{policy}"
        );
        let page = String::from_utf8(answer.body.to_vec()).expect("text");
        for mark in ["http://", "https://", "src=", "<link", "style=", "onclick", "innerHTML", "eval("] {
            assert!(!page.contains(mark), "{mark}");
        }
        assert_eq!((page.matches("<script>").count(), page.matches("<style>").count()), (1, 1));
    }

    #[tokio::test]
    async fn the_page_reads_what_the_api_has() {
        let description = serde_json::to_value(crate::http::openapi()).expect("JSON");
        for path in ["/api/v1/status", "/api/v1/live", "/api/v1/me"] {
            assert!(PAGE.contains(path) && description["paths"][path].is_object(), "{path}");
        }
        let schemas = &description["components"]["schemas"];
        for field in ["devices_connected", "version", "database", "broker", "started"] {
            assert!(schemas["Status"]["properties"][field].is_object(), "{field}");
        }
    }
}
