//! What every endpoint shares, through HTTP.

use axum::body::Body;
use axum::http::{Method, Request, header};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::etag::{ETag, Preconditions};
use crate::access::{Role, Scope};
use crate::live::{DeviceChange, LiveEvent};
use crate::testing::TestApp;

/// A request with a raw body, as the administrator.
async fn raw(
    test: &TestApp,
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<Body>,
) -> crate::testing::Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", test.admin))
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .expect("a request");
    test.send(request).await
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let test = TestApp::new().await;
    let json = "application/json";
    let tokens = "/api/v1/tokens";
    let cases = [
        ("GET", "/nowhere", json, "", 404, "/problems/not-found"),
        ("GET", "/api/v1/nowhere", json, "", 404, "/problems/not-found"),
        ("PUT", tokens, json, "{}", 405, "/problems/method-not-allowed"),
        ("BREW", tokens, json, "{}", 405, "/problems/method-not-allowed"),
        ("POST", tokens, json, "{", 400, "/problems/bad-request"),
        ("POST", tokens, json, "{}", 422, "/problems/unprocessable"),
        ("POST", tokens, json, r#"{"name": "a\u0000b", "role": "viewer"}"#, 400, "/problems/bad-request"),
        ("POST", tokens, json, "{\"name\": \"a\0b\", \"role\": \"viewer\"}", 400, "/problems/bad-request"),
        ("POST", tokens, json, r#"{"name": "\ud800", "role": "viewer"}"#, 400, "/problems/bad-request"),
        ("POST", tokens, "text/plain", "{}", 415, "/problems/unsupported-media-type"),
        ("GET", "/api/v1/tokens/%00", json, "", 400, "/problems/bad-request"),
        ("GET", "/api/v1/tokens/%ff", json, "", 400, "/problems/bad-request"),
        ("GET", "/api/v1/tokens?limit=x", json, "", 400, "/problems/bad-request"),
        ("GET", "/api/docs/nothing.js", json, "", 404, "/problems/not-found"),
    ];
    for (method, path, content_type, body, status, kind) in cases {
        let answer = raw(&test, method, path, content_type, body).await;
        let problem = answer.expect(status);
        assert_eq!(problem["type"], kind, "{method} {path} {body}: {problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"));
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("POST,GET,HEAD"), "{method} {path}");
        }
    }
    let escaped = raw(&test, "POST", tokens, json, r#"{"name": "a\\u0000b", "role": "viewer"}"#).await;
    escaped.expect(201);
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(crate::limits::JSON_BODY_BYTES));
    assert_eq!(raw(&test, "POST", tokens, json, large).await.expect(413)["type"], "/problems/too-large");
    let long = format!("/api/v1/tokens?cursor={}", "x".repeat(crate::limits::TARGET_BYTES));
    test.get(&long).await.expect(400);
    let unauthorized = test.request(Method::GET, tokens, None, &[], Value::Null).await;
    unauthorized.expect(401);
    assert_eq!(unauthorized.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn request_ids_are_kept_when_they_are_plain_words() {
    let test = TestApp::new().await;
    for (sent, kept) in [("abc-1", true), ("a b", false), ("", false)] {
        let answer =
            test.request(Method::GET, "/healthz", None, &[("x-request-id", sent)], Value::Null).await;
        assert_eq!(answer.header("x-request-id") == Some(sent), kept, "{sent:?}");
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
    }
}

#[tokio::test]
async fn a_token_and_an_address_have_rates() {
    let settings = [
        ("http.token_rate", "1"),
        ("http.token_burst", "3"),
        ("http.address_rate", "1"),
        ("http.address_burst", "2"),
    ];
    let test = TestApp::with_settings(&settings).await;
    for expected in [200, 200, 200, 429] {
        let answer = test.get("/api/v1/me").await;
        assert_eq!(answer.status.as_u16(), expected);
        if expected == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
        }
    }
    test.clock.advance_s(1);
    test.get("/api/v1/me").await.expect(200);
    test.clock.advance_s(60);
    let guess = format!("dunlin_{}", "A".repeat(43));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = test.request(Method::GET, "/api/v1/me", Some(&guess), &[], Value::Null).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 429], "guessing is slowed down");
    test.request(Method::GET, "/healthz", None, &[], Value::Null).await.expect(200);
}

#[tokio::test]
async fn a_repeated_request_with_an_idempotency_key_has_one_effect() {
    let test = TestApp::new().await;
    let headers = [("idempotency-key", "k1")];
    let body = json!({ "name": "once", "role": "viewer" });
    let send = async |headers: &[(&str, &str)], token: &str, body: &Value| {
        test.request(Method::POST, "/api/v1/tokens", Some(token), headers, body.clone()).await
    };
    let first = send(&headers, &test.admin, &body).await;
    let again = send(&headers, &test.admin, &body).await;
    assert_eq!(first.expect(201), again.expect(201), "the secret too is the same");
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );

    let other = json!({ "name": "other", "role": "viewer" });
    let problem = send(&headers, &test.admin, &other).await.expect(422);
    assert_eq!(problem["field"], "Idempotency-Key");
    let admin = test.token(Role::Admin, Scope::Everything).await;
    send(&headers, &admin, &other).await.expect(201);
    let wrong = send(&[("idempotency-key", "k2")], &test.admin, &json!({ "name": "" })).await;
    let again = send(&[("idempotency-key", "k2")], &test.admin, &json!({ "name": "" })).await;
    assert_eq!(
        (wrong.expect(422)["detail"].clone(), again.header("idempotency-replayed")),
        (again.expect(422)["detail"].clone(), Some("true"))
    );
    send(&[("idempotency-key", "a b")], &test.admin, &body).await.expect(400);

    let secret = first.json()["token"].as_str().expect("a token").to_owned();
    let kept: Vec<Vec<u8>> = sqlx::query_scalar("select answer from idempotency where answer is not null")
        .fetch_all(test.app.db.read())
        .await
        .expect("rows");
    assert_eq!(kept.len(), 3);
    for answer in kept {
        assert!(!String::from_utf8_lossy(&answer).contains(&secret[..12]), "kept answers are sealed");
    }

    test.clock.advance_s(24 * 3_600 + 1);
    assert_eq!(super::idempotency::forget_expired(&test.app).await.expect("deleted"), 3);
    let later = send(&headers, &test.admin, &body).await.expect(201);
    assert_ne!(later["id"], first.json()["id"]);
}

#[tokio::test]
async fn a_request_under_way_keeps_its_idempotency_key_for_a_while() {
    let test = TestApp::new().await;
    let headers = [("idempotency-key", "k")];
    let body = json!({ "name": "once", "role": "viewer" });
    let send = async || {
        test.request(Method::POST, "/api/v1/tokens", Some(&test.admin), &headers, body.clone()).await
    };
    send().await.expect(201);
    // As if the process had died before it stored the answer.
    sqlx::query("update idempotency set answer = null, locked_until_us = $1")
        .bind(crate::testing::START_US + 60_000_000)
        .execute(test.app.db.write())
        .await
        .expect("updated");
    let under_way = send().await;
    under_way.expect(409);
    assert_eq!(under_way.header("retry-after"), Some("1"));
    test.clock.advance_s(60);
    send().await.expect(201);
}

#[test]
fn preconditions_compare_entity_tags() {
    let (one, two) = (ETag::revision(1), ETag::revision(2));
    let parse = async |name: &str, value: &str| {
        let request = Request::builder().header(name, value).body(()).expect("a request");
        let (mut parts, ()) = request.into_parts();
        let Ok(preconditions) =
            <Preconditions as axum::extract::FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
        preconditions
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let status = |result: Result<(), super::Problem>| result.err().map_or(200, |problem| problem.status);
        assert_eq!(status(Preconditions::default().require(&one)), 428);
        assert_eq!(status(Preconditions::default().check(&one)), 200);
        for (value, expected) in
            [("\"1\"", 200), ("*", 200), ("\"7\", \"1\"", 200), ("\"2\"", 412), ("W/\"1\"", 412), ("", 412)]
        {
            let preconditions = parse("if-match", value).await;
            assert_eq!(status(preconditions.require(&one)), expected, "{value}");
            assert_eq!(status(preconditions.check(&one)), expected, "{value}");
        }
        let preconditions = parse("if-none-match", "W/\"1\"").await;
        assert!(preconditions.is_not_modified(&one) && !preconditions.is_not_modified(&two));
    });
}

#[tokio::test]
async fn live_events_reach_those_who_may_see_them() {
    let test = TestApp::new().await;
    let scoped = test.token(Role::Viewer, Scope::Fleet("a".to_owned())).await;
    let mut streams = Vec::new();
    for token in [test.admin.clone(), scoped] {
        let request = Request::builder()
            .uri("/api/v1/live")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::empty())
            .expect("a request");
        let response = test.open(request).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        streams.push(response.into_body().into_data_stream());
    }
    for fleet in ["b", "a"] {
        let change = DeviceChange::Connected;
        test.app.live.publish(LiveEvent::Device { fleet: fleet.to_owned(), device: "d".to_owned(), change });
    }
    let mut texts = Vec::new();
    for (stream, events) in streams.iter_mut().zip([2, 1]) {
        let mut text = String::new();
        while text.matches("data:").count() < events {
            let chunk = stream.next().await.expect("an event").expect("no error");
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        texts.push(text);
    }
    let event = |fleet: &str| {
        format!(
            "event: device\ndata: {{\"type\":\"device\",\"fleet\":\"{fleet}\",\"device\":\"d\",\"change\":\"connected\"}}\n\n"
        )
    };
    assert_eq!(
        texts,
        [format!(": live\n\n{}{}", event("b"), event("a")), format!(": live\n\n{}", event("a"))]
    );

    for _ in 0..crate::limits::LIVE_EVENTS + 10 {
        let (fleet, device) = ("a".to_owned(), "d".to_owned());
        test.app.live.publish(LiveEvent::Device { fleet, device, change: DeviceChange::State });
    }
    let chunk = streams[0].next().await.expect("an event").expect("no error");
    let text = std::str::from_utf8(&chunk).expect("text");
    assert_eq!(text, "event: lagged\ndata: {\"missed\":10,\"type\":\"lagged\"}\n\n");

    test.app.shutdown.cancel();
    // What is waiting may still come; then the stream ends by itself.
    while streams[1].next().await.is_some() {}
}

#[tokio::test]
async fn health_metrics_and_documentation() {
    let test = TestApp::new().await;
    let anonymous = async |path: &str| test.request(Method::GET, path, None, &[], Value::Null).await;
    assert_eq!(anonymous("/healthz").await.expect(200), json!({ "status": "ok" }));
    assert_eq!(anonymous("/readyz").await.expect(200), json!({ "status": "ok" }));
    anonymous("/metrics").await.expect(401);
    test.get("/api/v1/tokens/none").await.expect(404);
    let metrics = test.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).expect("text");
    let line = "dunlin_http_requests_total{method=\"GET\",route=\"/api/v1/tokens/{id}\",status=\"404\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(text.ends_with("# EOF\n"));

    let page = anonymous("/api/docs/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    let description = anonymous("/api/v1/openapi.json").await.expect(200);
    assert_eq!(description["openapi"].as_str().map(|version| &version[..2]), Some("3."));
    let operation = &description["paths"]["/api/v1/tokens"]["post"];
    assert!(operation["responses"]["default"]["content"]["application/problem+json"].is_object());
    let parameters = operation["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key"));

    test.app.shutdown.cancel();
    anonymous("/readyz").await.expect(503);
    test.app.shutdown.cancelled().await;
}

#[tokio::test]
async fn every_operation_is_described() {
    let description = serde_json::to_value(super::openapi()).expect("JSON");
    let paths = description["paths"].as_object().expect("paths");
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("an item") {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id), "{place}: the operation's id is used twice");
            assert!(
                operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()),
                "{place}: no summary"
            );
            assert!(operation["tags"].is_array(), "{place}: no tag");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                let kinds = schema["type"].to_string();
                let bounded = schema["maxLength"].is_u64()
                    || schema["maximum"].is_number()
                    || schema["format"] == "int64"
                    || schema["enum"].is_array()
                    || schema["$ref"].is_string()
                    || schema["format"] == "date-time"
                    || schema["oneOf"].is_array()
                    || kinds.contains("boolean");
                assert!(bounded, "{place}: the parameter {} has no limits: {schema}", parameter["name"]);
            }
        }
    }
}
