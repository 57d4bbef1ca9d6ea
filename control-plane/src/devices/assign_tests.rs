//! Assignments, through HTTP and as devices read them: each message is given to a device's own `Trust`.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_protocol::Desired;
use dunlin_trust::{Dalek, Refused, Time, Trust};
use serde_json::{Value, json};

use super::background;
use crate::access::{Role, Scope};
use crate::bus::{DeviceId, DownKind};
use crate::db::lease::Lease;
use crate::limits;
use crate::models::tests::{artifact, upload};
use crate::testing::{Answer, TestApp};
use crate::trust::owner::{NOW, NewRelease, NewRoot};

/// The fleet `a` with the device `d` of the hardware `pi`, and two versions of the model `kws`.
async fn installation(settings: &[(&str, &str)]) -> (TestApp, [NewRelease; 2]) {
    let test = TestApp::with_settings(settings).await;
    test.post("/api/v1/fleets", json!({ "id": "a" })).await.expect(201);
    test.post("/api/v1/devices", json!({ "id": "d", "fleet": "a", "hardware": "pi" })).await.expect(201);
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    let first = upload(&test, "kws", &test.admin, artifact("one", false)).await.expect(201);
    let second = upload(&test, "kws", &test.admin, artifact("two", false)).await.expect(201);
    (test, [NewRelease::of("kws", &first), NewRelease::of("kws", &second)])
}

async fn put(test: &TestApp, slot: &str, body: Value) -> Answer {
    let path = format!("/api/v1/devices/d/slots/{slot}");
    test.request(Method::PUT, &path, Some(&test.admin), &[("if-match", "*")], body).await
}

fn kws(version: u32) -> Value {
    json!({ "model": "kws", "version": version })
}

/// The desired state that the device would get now.
async fn message(test: &TestApp) -> bytes::Bytes {
    super::desired(&test.app, &DeviceId::new("d").unwrap()).await.unwrap().expect("a device")
}

#[track_caller]
fn because(answer: &Answer, why: &str) {
    let problem = answer.expect(409);
    assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
}

#[tokio::test]
async fn without_a_root_assignments_need_no_signatures() {
    let (test, [first, _]) = installation(&[]).await;
    test.bus.take_sent();
    let path = "/api/v1/devices/d/slots/main";
    let body = json!({ "model": "kws", "version": 1, "settings": { "threshold": "0.8" } });
    test.request(Method::PUT, path, Some(&test.admin), &[], body.clone()).await.expect(428);
    let device = put(&test, "main", body.clone()).await;
    let tag = device.header("etag").unwrap().to_owned();
    let device = device.expect(200);
    assert_eq!(device["desired"]["generation"], 2);
    assert_eq!(
        device["desired"]["slots"],
        json!([{ "slot": "main", "model": "kws", "version": 1, "digest": hex::encode(first.digest), "size": first.size,
            "settings": { "threshold": "0.8" } }])
    );
    let sent = test.bus.take_sent();
    assert_eq!((sent.len(), sent[0].kind), (1, DownKind::Desired));
    let desired = Desired::decode(&sent[0].payload).unwrap();
    let slot = desired.slots.iter().next().unwrap();
    assert_eq!((slot.slot, slot.name, slot.version, slot.model), ("main", "kws", 1, first.digest));
    assert_eq!((desired.generation, desired.root, desired.expires_unix_s), (2, 0, 0));
    // The same again is no change.
    assert_eq!(put(&test, "main", body).await.expect(200)["desired"]["generation"], 2);
    let late = [("if-match", "\"1\"")];
    test.request(Method::PUT, path, Some(&test.admin), &late, kws(2)).await.expect(412);
    let now = [("if-match", tag.as_str())];
    test.request(Method::PUT, path, Some(&test.admin), &now, kws(2)).await.expect(200);

    let device = test.delete(path).await.expect(200);
    assert_eq!(device["desired"]["slots"][0]["model"], Value::Null);
    let bytes = message(&test).await;
    let slot = Desired::decode(&bytes).unwrap().slots.iter().next().unwrap();
    assert_eq!((slot.slot, slot.model, slot.size, slot.name), ("main", [0; 32], 0, ""));
    let audit = test.get("/api/v1/audit?kind=device&id=d").await.expect(200);
    assert_eq!(audit["items"][0]["action"], "device.assign");
    assert_eq!(audit["items"][0]["before"]["slots"]["main"]["version"], 2);
    assert_eq!(audit["items"][0]["after"]["slots"]["main"], Value::Null);
}

#[tokio::test]
async fn impossible_assignments_are_refused() {
    let (test, _) = installation(&[]).await;
    for (slot, body, field) in [
        ("-a", kws(1), "slot"),
        (&*"x".repeat(33), kws(1), "slot"),
        ("main", kws(3), "/version"),
        ("main", json!({ "model": "none", "version": 1 }), "/version"),
        ("main", json!({ "model": "a b", "version": 1 }), "/model"),
        ("main", json!({ "model": "kws", "version": 1, "settings": { "-": "" } }), "/settings"),
        ("main", json!({ "model": "kws", "version": 1, "settings": { "k": "x".repeat(97) } }), "/settings/k"),
        ("main", json!({ "model": "kws", "version": 1, "settings": { "x".repeat(33): "" } }), "/settings"),
    ] {
        assert_eq!(put(&test, slot, body.clone()).await.expect(422)["field"], field, "{slot} {body}");
    }
    let path = "/api/v1/devices/x/slots/main";
    test.request(Method::PUT, path, Some(&test.admin), &[("if-match", "*")], kws(1)).await.expect(404);
    let path = "/api/v1/devices/d/slots/main";
    for (role, scope, status) in [
        (Role::Viewer, Scope::Everything, 403),
        (Role::Ci, Scope::Everything, 403),
        (Role::Operator, Scope::Model("kws".to_owned()), 404),
        (Role::Operator, Scope::Fleet("b".to_owned()), 404),
    ] {
        let token = test.token(role, scope).await;
        let put = test.request(Method::PUT, path, Some(&token), &[("if-match", "*")], kws(1));
        put.await.expect(status);
        test.request(Method::DELETE, path, Some(&token), &[], Value::Null).await.expect(status);
    }
    // What no message can hold: many settings in many slots; a ninth slot.
    let settings: serde_json::Map<String, Value> =
        (0..16).map(|n| (format!("setting-{n}"), json!("x".repeat(96)))).collect();
    let large = json!({ "model": "kws", "version": 1, "settings": settings });
    for slot in ["s0", "s1", "s2", "s3"] {
        put(&test, slot, large.clone()).await.expect(200);
    }
    let problem = put(&test, "s4", large.clone()).await.expect(422);
    assert!(problem["detail"].as_str().unwrap().contains("do not fit a message of 8192 bytes"), "{problem}");
    for slot in ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"] {
        put(&test, slot, kws(1)).await.expect(200);
    }
    assert_eq!(put(&test, "s8", kws(1)).await.expect(422)["field"], "slot");
    let bytes = message(&test).await;
    assert_eq!(Desired::decode(&bytes).unwrap().slots.len(), 8, "nothing was left out");
}

#[tokio::test]
async fn with_a_root_devices_get_what_they_believe_and_nothing_else_is_assigned() {
    let (test, [first, second]) = installation(&[]).await;
    let root = NewRoot { release: (vec![10, 11], 2), ..NewRoot::first(&test) };
    root.upload(&test, &[1]).await.expect(201);
    let mut trust = Trust::pin(&root.signed(&[1]), &Dalek).unwrap();
    because(
        &put(&test, "main", kws(1)).await,
        "has no signed release; sign it with: dunlin model sign kws 1",
    );
    first.upload(&test, &[10]).await.expect(200);
    because(&put(&test, "main", kws(1)).await, "signed by 1 of the 2 keys that must");
    first.upload(&test, &[11]).await.expect(200);
    put(&test, "main", kws(1)).await.expect(200);

    let install = |trust: &mut Trust, bytes: &[u8], now: u64| -> Result<u32, Refused> {
        let assigned = trust.assignment(bytes, "d", Time::UnixS(now), &Dalek)?;
        trust.keep(&assigned);
        let slot = assigned.desired.slots.iter().next().expect("a slot");
        trust.release(&slot, "pi", Time::UnixS(now), &Dalek).map(|release| release.version)
    };
    let old = message(&test).await;
    assert_eq!(install(&mut trust, &old, NOW), Ok(1));
    // Signed again later: the same generation, believed for longer.
    let generation = trust.generation();
    test.clock.advance_s(20 * 86_400);
    let now = NOW + 20 * 86_400;
    let again = message(&test).await;
    assert_eq!(install(&mut trust, &again, now), Ok(1));
    assert_eq!(trust.generation(), generation);
    assert!(matches!(install(&mut trust, &old, now), Err(Refused::Older { .. })));
    assert!(matches!(install(&mut trust, &again, now + 31 * 86_400), Err(Refused::Expired { .. })));
    // Another device's message is nothing to this one, and a message is not believed when a byte of it changes.
    assert_eq!(trust.assignment(&again, "e", Time::UnixS(now), &Dalek), Err(Refused::Device));
    let mut tampered = again.to_vec();
    tampered[2] ^= 1;
    assert!(install(&mut trust, &tampered, now).is_err());

    // Version 2 is for other hardware; then it withdraws version 1, once enough keys have said so.
    let other = NewRelease { hardware: vec!["mcu"], ..second.clone() };
    other.upload(&test, &[10, 11]).await.expect(200);
    because(&put(&test, "main", kws(2)).await, "is for mcu; the device's hardware is \"pi\"");
    let newer = NewRelease { floor: 2, issued: now, expires: now + 60, ..second };
    newer.upload(&test, &[10, 11]).await.expect(200);
    put(&test, "main", kws(2)).await.expect(200);
    assert_eq!(install(&mut trust, &message(&test).await, now), Ok(2));
    because(&put(&test, "main", kws(1)).await, "withdrawn by the release of version 2: 2 is the lowest");
    test.clock.advance_s(61);
    test.delete("/api/v1/devices/d/slots/main").await.expect(200);
    because(&put(&test, "main", kws(2)).await, "has expired");

    // Another root: it is named at once, and the device follows it.
    let next = NewRoot { number: 2, release: (vec![12], 1), ..root };
    next.upload(&test, &[1]).await.expect(201);
    let bytes = message(&test).await;
    let missing = Err(Refused::RootMissing { known: 1, needed: 2 });
    assert_eq!(trust.assignment(&bytes, "d", Time::UnixS(now), &Dalek).map(|_| ()), missing);
    trust.rotate(&next.signed(&[1]), &Dalek).unwrap();
    assert!(trust.assignment(&bytes, "d", Time::UnixS(now + 61), &Dalek).is_ok());
}

#[tokio::test]
async fn enrolment_hands_out_the_newest_root() {
    let (test, _) = installation(&[]).await;
    let key = test.post("/api/v1/fleets/a/claims", json!({ "name": "k" })).await.expect(201);
    let body = json!({ "claim": key["claim"], "hardware": "pi" });
    let enroll = || test.request(Method::POST, "/api/v1/enroll", None, &[], body.clone());
    assert!(enroll().await.expect(201).get("root").is_none());
    let root = NewRoot::first(&test);
    root.upload(&test, &[1]).await.expect(201);
    let given = enroll().await.expect(201)["root"].as_str().map(|root| STANDARD.decode(root).unwrap());
    assert_eq!(given, Some(root.signed(&[1])));
}

#[tokio::test]
async fn an_external_broker_gets_new_signatures_before_the_old_ones_expire() {
    let (test, [first, _]) = installation(&[("broker.url", "mqtt://127.0.0.1:1")]).await;
    let lease = Lease::new("devices.publish", &test.app.process, limits::LEASE);
    let round = async || {
        background::publish_waiting(&test.app, &lease).await.unwrap();
        let sent = test.bus.take_sent();
        sent.into_iter()
            .map(|sent| Desired::decode(&sent.payload).unwrap().expires_unix_s)
            .collect::<Vec<_>>()
    };
    test.bus.take_sent();
    round().await;
    test.clock.advance_s(400 * 86_400);
    assert_eq!(round().await, [0; 0], "without a root nothing expires");
    NewRoot::first(&test).upload(&test, &[1]).await.expect(201);
    first.upload(&test, &[10]).await.expect(200);
    put(&test, "main", kws(1)).await.expect(200);
    let now = NOW + 400 * 86_400;
    test.bus.take_sent();
    round().await;
    test.clock.advance_s(15 * 86_400);
    assert_eq!(round().await, [0; 0]);
    test.clock.advance_s(1);
    assert_eq!(round().await, [now + 45 * 86_400 + 1]);
    assert_eq!(round().await, [0; 0]);
}
