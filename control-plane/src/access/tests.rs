//! Access, through HTTP.

use serde_json::json;

use super::{Role, Scope};
use crate::testing::TestApp;

#[tokio::test]
async fn a_new_token_works_once_it_is_made() {
    let test = TestApp::new().await;
    let created = test.post("/api/v1/tokens", json!({ "name": "ci", "role": "admin" })).await.expect(201);
    let token = created["token"].as_str().expect("a token").to_owned();
    assert!(token.starts_with("dunlin_"), "{token}");
    let body = json!({ "name": "other", "role": "viewer" });
    let answer = test.request(axum::http::Method::POST, "/api/v1/tokens", Some(&token), &[], body).await;
    answer.expect(201);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    let body = json!({ "name": "other", "role": "viewer" });
    let answer = test.request(axum::http::Method::POST, "/api/v1/tokens", Some(&viewer), &[], body).await;
    answer.expect(403);
}
