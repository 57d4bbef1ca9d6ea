//! Aliases, through HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use crate::access::{Role, Scope};
use crate::limits;
use crate::models::tests::{artifact, upload};
use crate::testing::{Answer, TestApp};

const CHAMPION: &str = "/api/v1/models/kws/aliases/champion";

async fn with_versions() -> TestApp {
    let test = TestApp::new().await;
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    for name in ["one", "two"] {
        upload(&test, "kws", &test.admin, artifact(name, false)).await.expect(201);
    }
    test
}

async fn put(test: &TestApp, path: &str, version: i64, tag: &str) -> Answer {
    let body = json!({ "version": version });
    test.request(Method::PUT, path, Some(&test.admin), &[("if-match", tag)], body).await
}

#[tokio::test]
async fn an_alias_names_one_version_at_a_time() {
    let test = with_versions().await;
    test.get(CHAMPION).await.expect(404);
    let body = json!({ "version": 1 });
    test.request(Method::PUT, CHAMPION, Some(&test.admin), &[], body).await.expect(428);
    put(&test, CHAMPION, 1, "\"1\"").await.expect(412);
    let first = put(&test, CHAMPION, 1, "\"0\"").await;
    assert_eq!(first.header("etag"), Some("\"1\""));
    assert_eq!(first.expect(200)["version"], 1);
    // The same again is no change.
    assert_eq!(put(&test, CHAMPION, 1, "*").await.header("etag"), Some("\"1\""));
    put(&test, CHAMPION, 2, "\"0\"").await.expect(412);
    put(&test, CHAMPION, 2, "\"1\"").await.expect(200);
    put(&test, "/api/v1/models/kws/aliases/challenger", 1, "*").await.expect(200);
    assert_eq!(test.get(CHAMPION).await.expect(200)["version"], 2);
    let versions = test.get("/api/v1/models/kws/versions").await.expect(200);
    assert_eq!(versions["items"][0]["aliases"], json!(["champion"]));
    assert_eq!(test.get("/api/v1/models/kws/versions/1").await.expect(200)["aliases"], json!(["challenger"]));

    let page = test.get("/api/v1/models/kws/aliases?limit=1").await.expect(200);
    assert_eq!(page["items"][0]["alias"], "challenger");
    let cursor = page["next_cursor"].as_str().expect("more");
    let page = test.get(&format!("/api/v1/models/kws/aliases?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!((&page["items"][0]["alias"], &page["next_cursor"]), (&json!("champion"), &Value::Null));

    test.delete(CHAMPION).await.expect(204);
    test.delete(CHAMPION).await.expect(404);
    let audit = test.get("/api/v1/audit?kind=alias").await.expect(200);
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["model.delete_alias", "model.alias", "model.alias", "model.alias"]);
    assert_eq!(audit["items"][2]["before"], json!({ "version": 1 }));
}

#[tokio::test]
async fn wrong_aliases_are_refused() {
    let test = with_versions().await;
    let wrong = put(&test, CHAMPION, 9, "*").await.expect(422);
    assert!(wrong["detail"].as_str().unwrap().contains("no version 9"), "{wrong}");
    put(&test, "/api/v1/models/none/aliases/champion", 1, "*").await.expect(404);
    put(&test, "/api/v1/models/kws/aliases/@x", 1, "*").await.expect(422);
    test.get("/api/v1/models/none/aliases").await.expect(404);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    let other = test.token(Role::Ci, Scope::Model("other".to_owned())).await;
    for token in [&viewer, &other] {
        let body = json!({ "version": 1 });
        let tag = [("if-match", "*")];
        test.request(Method::PUT, CHAMPION, Some(token), &tag, body).await.expect(403);
        test.request(Method::DELETE, CHAMPION, Some(token), &[], Value::Null).await.expect(403);
    }
    for number in 0..limits::ALIASES {
        put(&test, &format!("/api/v1/models/kws/aliases/a{number}"), 1, "*").await.expect(200);
    }
    put(&test, CHAMPION, 1, "*").await.expect(409);
    put(&test, "/api/v1/models/kws/aliases/a0", 2, "*").await.expect(200);
}
