//! Artifacts as devices fetch them, through HTTP.

use axum::body::Body;
use axum::http::{Method, Request};
use dunlin_protocol::Desired;
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

use super::tests::{artifact, upload};
use crate::bus::DeviceId;
use crate::limits;
use crate::testing::{Answer, TestApp};
use crate::trust::owner::{NOW, NewRelease, NewRoot};

/// An installation whose device `d` should run version 1 of `kws`, signed; and the path that the device is told.
pub(crate) async fn assigned(settings: &[(&str, &str)]) -> (TestApp, String) {
    let test = TestApp::with_settings(settings).await;
    test.post("/api/v1/fleets", json!({ "id": "a" })).await.expect(201);
    for id in ["d", "e"] {
        test.post("/api/v1/devices", json!({ "id": id, "fleet": "a", "hardware": "pi" })).await.expect(201);
    }
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    let version = upload(&test, "kws", &test.admin, artifact("one", false)).await.expect(201);
    NewRoot::first(&test).upload(&test, &[1]).await.expect(201);
    NewRelease::of("kws", &version).upload(&test, &[10]).await.expect(200);
    let body = json!({ "model": "kws", "version": 1 });
    let headers = [("if-match", "*")];
    test.request(Method::PUT, "/api/v1/devices/d/slots/main", Some(&test.admin), &headers, body)
        .await
        .expect(200);
    let path = told(&test).await;
    (test, path)
}

/// The path of the artifact in the device's desired state.
async fn told(test: &TestApp) -> String {
    let message = crate::devices::desired(&test.app, &DeviceId::new("d").unwrap()).await.unwrap().unwrap();
    let slot = Desired::decode(&message).unwrap().slots.iter().next().expect("a slot");
    let path = slot.url.strip_prefix(&test.app.endpoints().http_url);
    path.expect("the server's own address").to_owned()
}

async fn fetch(test: &TestApp, path: &str, headers: &[(&str, &str)]) -> Answer {
    test.request(Method::GET, path, None, headers, Value::Null).await
}

#[tokio::test]
async fn a_device_fetches_its_artifact_in_parts_as_it_likes() {
    // Its ticket says who it is: the rate of its address does not matter.
    let (test, path) = assigned(&[("http.address_burst", "1"), ("http.address_rate", "1")]).await;
    let bytes = artifact("one", false);
    let all = fetch(&test, &path, &[]).await;
    assert_eq!((all.status.as_u16(), all.body.as_ref()), (200, bytes.as_slice()));
    let tag = all.header("etag").unwrap().to_owned();
    assert!(path.contains(tag.trim_matches('"')));
    assert_eq!(all.header("cache-control"), Some("private, max-age=31536000, immutable"));
    assert_eq!(all.header("accept-ranges"), Some("bytes"));
    assert_eq!(all.header("content-length"), Some(&*bytes.len().to_string()));

    let first = fetch(&test, &path, &[("range", "bytes=0-99")]).await;
    assert_eq!((first.status.as_u16(), first.body.as_ref()), (206, &bytes[..100]));
    assert_eq!(first.header("content-range"), Some(&*format!("bytes 0-99/{}", bytes.len())));
    let rest = fetch(&test, &path, &[("range", "bytes=100-"), ("if-range", &tag)]).await;
    assert_eq!((rest.status.as_u16(), rest.body.as_ref()), (206, &bytes[100..]));
    let other = fetch(&test, &path, &[("range", "bytes=100-"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status.as_u16(), other.body.as_ref()), (200, bytes.as_slice()));
    let beyond = fetch(&test, &path, &[("range", &format!("bytes={}-", bytes.len()))]).await;
    beyond.expect(416);
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{}", bytes.len())));
    assert_eq!(fetch(&test, &path, &[("if-none-match", &tag)]).await.status, 304);
    let head = test.request(Method::HEAD, &path, None, &[], Value::Null).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(&*bytes.len().to_string()));
    // People get parts too.
    let part = [("range", "bytes=-8")];
    let people = "/api/v1/models/kws/versions/1/artifact";
    let part = test.request(Method::GET, people, Some(&test.admin), &part, Value::Null).await;
    assert_eq!((part.status.as_u16(), part.body.as_ref()), (206, &bytes[bytes.len() - 8..]));
}

#[tokio::test]
async fn a_ticket_is_for_one_device_one_artifact_and_a_time() {
    let (test, path) = assigned(&[("http.address_burst", "1000")]).await;
    let other = upload(&test, "kws", &test.admin, artifact("two", false)).await.expect(201);
    let (place, ticket) = path.split_once('?').unwrap();
    let until = NOW + 30 * 86_400;
    assert!(ticket.contains(&format!("&until={until}&")), "{ticket}");
    let digest = place.rsplit('/').next().unwrap();
    let last = if path.ends_with('0') { "1" } else { "0" };
    for wrong in [
        path.replace(digest, other["digest"].as_str().unwrap()),
        path.replace("device=d", "device=e"),
        path.replace(&until.to_string(), &(until + 1).to_string()),
        path.replace(&until.to_string(), "0"),
        format!("{}{last}", &path[..path.len() - 1]),
        path[..path.len() - 2].to_owned(),
        format!("{place}?device=d&until={until}&ticket="),
    ] {
        let problem = fetch(&test, &wrong, &[]).await.expect(403);
        assert!(problem["detail"].as_str().unwrap().contains("desired state has a good one"), "{problem}");
    }
    fetch(&test, place, &[]).await.expect(400);
    fetch(&test, &path, &[]).await;
    // Blocked, and let in again.
    test.post("/api/v1/devices/d/block", json!({})).await.expect(200);
    fetch(&test, &path, &[]).await.expect(403);
    test.post("/api/v1/devices/d/unblock", json!({})).await.expect(200);
    assert_eq!(fetch(&test, &path, &[]).await.status, 200);
    test.clock.advance_s(30 * 86_400 + 1);
    fetch(&test, &path, &[]).await.expect(403);
    let newer = told(&test).await;
    assert_eq!(fetch(&test, &newer, &[]).await.status, 200);
    test.delete("/api/v1/devices/d").await.expect(204);
    fetch(&test, &newer, &[]).await.expect(403);
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    // One of the three was the administrator's, whose token was not known yet.
    let (test, path) = assigned(&[("http.address_burst", "3"), ("http.address_rate", "1")]).await;
    // Guessing tickets.
    let wrong = path.replace("device=d", "device=e");
    fetch(&test, &wrong, &[]).await.expect(403);
    fetch(&test, &wrong, &[]).await.expect(403);
    let refused = fetch(&test, &wrong, &[]).await;
    refused.expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    // A device with all its downloads under way; the server with all of them.
    let downloads = &test.app.models.downloads;
    let now_us = test.app.clock.now_us();
    let begin = || downloads.begin_by("d", now_us).expect("a permit");
    let own: Vec<_> = (0..limits::DEVICE_DOWNLOADS).map(|_| begin()).collect();
    let refused = fetch(&test, &path, &[]).await;
    refused.expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(own);
    let all: Vec<_> = (0..limits::DOWNLOADS).map(|_| downloads.begin().expect("a permit")).collect();
    let refused = fetch(&test, &path, &[]).await;
    refused.expect(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(all);
    assert_eq!(fetch(&test, &path, &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_damaged_in_the_object_store_reaches_nobody_as_a_whole() {
    let (test, path) = assigned(&[]).await;
    let bytes = artifact("one", false);
    let digest = path.split_once('?').unwrap().0.rsplit('/').next().unwrap();
    let object = super::path(digest);
    let mut damaged = bytes.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    test.app.artifacts.put(&object, damaged.into()).await.unwrap();
    let request = Request::builder().uri(&path).body(Body::empty()).expect("a request");
    let response = test.open(request).await;
    assert_eq!(response.status(), 200);
    axum::body::to_bytes(response.into_body(), 1 << 20).await.expect_err("the last piece is held back");
    // Nor in parts, not even those that are right.
    fetch(&test, &path, &[("range", "bytes=0-9")]).await.expect(500);
    for other in [[bytes.as_slice(), b"more"].concat(), bytes[..bytes.len() - 1].to_vec(), Vec::new()] {
        test.app.artifacts.put(&object, other.into()).await.unwrap();
        fetch(&test, &path, &[]).await.expect(500);
    }
    test.app.artifacts.delete(&object).await.unwrap();
    fetch(&test, &path, &[]).await.expect(500);
    test.app.artifacts.put(&object, bytes.into()).await.unwrap();
    assert_eq!(fetch(&test, &path, &[]).await.status, 200);
    for _ in 0..2 {
        assert_eq!(fetch(&test, &path, &[("range", "bytes=0-9")]).await.status, 206);
    }
}
