//! Devices, through HTTP.

use axum::http::Method;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::login::authenticate;
use crate::access::{Role, Scope};
use crate::bus::{Credential, DeviceId, DownKind, LoginRefused};
use crate::testing::{START_US, TestApp};

const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A fleet, and an enrolment key for it.
async fn fleet(test: &TestApp, id: &str) -> String {
    test.post("/api/v1/fleets", json!({ "id": id })).await.expect(201);
    let path = format!("/api/v1/fleets/{id}/claims");
    let created = test.post(&path, json!({ "name": "line 1" })).await.expect(201);
    created["claim"].as_str().expect("a claim").to_owned()
}

async fn enroll(test: &TestApp, body: Value) -> crate::testing::Answer {
    test.request(Method::POST, "/api/v1/enroll", None, &[], body).await
}

fn csr() -> (KeyPair, String) {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key).expect("a request");
    (key, request.pem().expect("PEM"))
}

async fn password_works(test: &TestApp, id: &str, password: &str) -> Result<String, LoginRefused> {
    let credential = Credential::Password { username: id, password: password.as_bytes() };
    authenticate(&test.app, credential, ADDRESS).await.map(|entry| entry.cohort.key.to_string())
}

/// Logs in with a certificate that TLS has verified (its dates are TLS' concern).
async fn certificate_works(test: &TestApp, id: &str, pem: &str) -> Result<(), LoginRefused> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
    let serial = hex::encode(block.parse_x509().expect("a certificate").raw_serial());
    let credential = Credential::Certificate { common_name: id, serial: Some(&serial) };
    authenticate(&test.app, credential, ADDRESS).await.map(|_| ())
}

#[tokio::test]
async fn a_claim_becomes_a_device_with_a_password() {
    let test = TestApp::new().await;
    let claim = fleet(&test, "factory").await;
    let body = json!({
        "claim": claim, "hardware": "raspberry-pi-4", "attributes": { "serial": "A1", "ram_mb": "4096" },
    });
    let enrolled = enroll(&test, body.clone()).await.expect(201);
    let id = enrolled["device"].as_str().expect("an id");
    let password = enrolled["password"].as_str().expect("a password");
    assert_eq!(enrolled["fleet"], "factory");
    assert_eq!(enrolled["mqtt"], json!({ "host": "127.0.0.1", "port": 1883, "tls": false }));
    assert_eq!(enrolled["ca"], Value::Null);
    assert_eq!(password_works(&test, id, password).await, Ok("factory/raspberry-pi-4".to_owned()));
    assert_eq!(password_works(&test, id, "wrong").await, Err(LoginRefused::BadCredential));
    assert_eq!(password_works(&test, "unknown", password).await, Err(LoginRefused::BadCredential));

    let device = test.get(&format!("/api/v1/devices/{id}")).await.expect(200);
    assert_eq!(device["serial"], "A1");
    assert_eq!(device["attributes"], json!({ "serial": "A1", "ram_mb": "4096" }));
    assert_eq!(device["credential"], json!({ "password": true, "certificate_expires": null }));
    assert_eq!(device["created"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(device["desired"]["generation"], 1);

    // The answer was lost: the same hardware asks again, is the same device, and has a new password.
    let again = enroll(&test, body).await.expect(201);
    assert_eq!(again["device"], id);
    assert_eq!(password_works(&test, id, password).await, Err(LoginRefused::BadCredential));
    assert!(password_works(&test, id, again["password"].as_str().unwrap()).await.is_ok());
    assert_eq!(test.bus.kicked(), [DeviceId::new(id).unwrap()], "whoever used the old password");
    let claims = test.get("/api/v1/fleets/factory/claims").await.expect(200);
    assert_eq!(claims["items"][0]["used"], 1);
    let audit = test.get("/api/v1/audit").await.expect(200);
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert!(
        actions.contains(&json!("device.enroll")) && actions.contains(&json!("device.enroll_again")),
        "{actions:?}"
    );
}

#[tokio::test]
async fn claims_have_limits() {
    let test = TestApp::new().await;
    fleet(&test, "factory").await;
    let body = json!({
        "name": "two boards", "expires": "2026-01-02T00:00:00Z", "use_limit": 2, "serials": ["S1", "S2", "S3"],
        "hardware": ["pi", "stm32"],
    });
    let created = test.post("/api/v1/fleets/factory/claims", body).await;
    assert_eq!(
        created.header("location").unwrap(),
        format!("/api/v1/claims/{}", created.json()["id"].as_str().unwrap())
    );
    let created = created.expect(201);
    let claim = created["claim"].as_str().unwrap();
    assert!(claim.starts_with("dunlin_key_"));
    let with =
        |serial: &str, hardware: &str| json!({ "claim": claim, "hardware": hardware, "serial": serial });
    let refused = |answer: crate::testing::Answer, why: &'static str| {
        let problem = answer.expect(403);
        assert!(problem["detail"].as_str().unwrap().contains(why), "{problem}");
        assert_eq!(problem["field"], "/claim");
    };
    refused(enroll(&test, with("S9", "pi")).await, "serial number");
    refused(enroll(&test, json!({ "claim": claim, "hardware": "pi" })).await, "serial number");
    refused(enroll(&test, with("S1", "esp32")).await, "hardware class");
    refused(enroll(&test, json!({ "claim": "dunlin_key_x", "hardware": "pi" })).await, "not known");
    let first = enroll(&test, with("S1", "pi")).await.expect(201);
    enroll(&test, with("S2", "stm32")).await.expect(201);
    refused(enroll(&test, with("S3", "pi")).await, "used up");
    // What is enrolled comes back even so.
    assert_eq!(enroll(&test, with("S1", "pi")).await.expect(201)["device"], first["device"]);
    test.clock.advance_s(86_400);
    refused(enroll(&test, with("S1", "pi")).await, "expired");
    let id = created["id"].as_str().unwrap();
    let shown = test.get(&format!("/api/v1/claims/{id}")).await.expect(200);
    assert_eq!(
        (&shown["used"], &shown["serials"], &shown["claim"]),
        (&json!(2), &json!(["S1", "S2", "S3"]), &Value::Null)
    );
    test.delete(&format!("/api/v1/claims/{id}")).await.expect(204);
    test.delete(&format!("/api/v1/claims/{id}")).await.expect(204);
    refused(enroll(&test, with("S1", "pi")).await, "revoked");
    test.get("/api/v1/claims/none").await.expect(404);
    test.get("/api/v1/fleets/none/claims").await.expect(404);
    test.post("/api/v1/fleets/none/claims", json!({ "name": "x" })).await.expect(404);
    for body in [
        json!({ "name": "" }),
        json!({ "name": "a\nb" }),
        json!({ "name": "x".repeat(257) }),
        json!({ "name": "x", "expires": "2025-01-01T00:00:00Z" }),
        json!({ "name": "x", "expires": "soon" }),
        json!({ "name": "x", "use_limit": 0 }),
        json!({ "name": "x", "hardware": ["a b"] }),
        json!({ "name": "x", "serials": [""] }),
        json!({ "name": "x", "other": 1 }),
    ] {
        test.post("/api/v1/fleets/factory/claims", body).await.expect(422);
    }
    // Another key does not take over hardware that is enrolled.
    let other = test.post("/api/v1/fleets/factory/claims", json!({ "name": "b" })).await.expect(201);
    let body = json!({ "claim": other["claim"], "hardware": "pi", "serial": "S1" });
    enroll(&test, body).await.expect(409);
}

#[tokio::test]
async fn enrolment_refuses_what_cannot_be() {
    let test = TestApp::new().await;
    let claim = fleet(&test, "factory").await;
    let base = json!({ "claim": claim, "hardware": "pi", "device": "pump-1" });
    assert_eq!(enroll(&test, base.clone()).await.expect(201)["device"], "pump-1");
    enroll(&test, base.clone()).await.expect(409);
    for (field, value) in [
        ("hardware", json!("a b")),
        ("hardware", json!("x".repeat(65))),
        ("device", json!("d/x")),
        ("serial", json!("")),
        ("serial", json!("x".repeat(257))),
        ("attributes", json!({ "a b": "x" })),
        ("attributes", json!({ "a": "x".repeat(257) })),
        ("csr", json!("no PEM")),
        ("other", json!(1)),
    ] {
        let mut body = base.clone();
        body["device"] = json!("pump-2");
        body[field] = value;
        enroll(&test, body).await.expect(422);
    }
    let mut body = base.clone();
    body["serial"] = json!("a\0");
    enroll(&test, body).await.expect(400);
    // A deleted device's id rests, since other processes may not know yet that it is gone.
    test.delete("/api/v1/devices/pump-1").await.expect(204);
    enroll(&test, base.clone()).await.expect(409);
    test.clock.advance_s(200);
    enroll(&test, base).await.expect(201);
}

#[tokio::test]
async fn a_device_is_blocked_unblocked_deleted() {
    let test = TestApp::new().await;
    let claim = fleet(&test, "factory").await;
    let enrolled =
        enroll(&test, json!({ "claim": claim, "hardware": "pi", "device": "pump-1" })).await.expect(201);
    let password = enrolled["password"].as_str().unwrap();
    let id = DeviceId::new("pump-1").unwrap();
    let path = "/api/v1/devices/pump-1";
    let blocked = test.post(&format!("{path}/block"), json!({ "reason": "stolen" })).await.expect(200);
    assert_eq!(blocked["blocked"], json!({ "since": "2026-01-01T00:00:00.000000Z", "reason": "stolen" }));
    assert_eq!(password_works(&test, "pump-1", password).await, Err(LoginRefused::Blocked));
    assert_eq!(password_works(&test, "pump-1", "guess").await, Err(LoginRefused::BadCredential));
    assert!(test.app.devices.directory.cohort("pump-1").is_none());
    assert_eq!(test.bus.kicked(), std::slice::from_ref(&id));
    test.post(&format!("{path}/block"), json!({ "reason": "a\nb" })).await.expect(422);
    test.post(&format!("{path}/unblock"), Value::Null).await.expect(200);
    assert!(password_works(&test, "pump-1", password).await.is_ok());
    let fresh = test.post(&format!("{path}/credentials"), json!({})).await.expect(201);
    assert_eq!(password_works(&test, "pump-1", password).await, Err(LoginRefused::BadCredential));
    assert!(password_works(&test, "pump-1", fresh["password"].as_str().unwrap()).await.is_ok());
    test.delete(path).await.expect(204);
    assert!(password_works(&test, "pump-1", fresh["password"].as_str().unwrap()).await.is_err());
    test.get(path).await.expect(404);
    test.delete(path).await.expect(404);
    test.post(&format!("{path}/block"), json!({})).await.expect(404);
    let audit = test.get("/api/v1/audit").await.expect(200);
    let entries = audit["items"].as_array().unwrap();
    let block = entries.iter().find(|entry| entry["action"] == "device.block").expect("an entry");
    assert_eq!(block["before"]["blocked"], Value::Null);
    assert_eq!(block["after"]["blocked"]["reason"], "stolen");
    assert!(entries.iter().any(|entry| entry["action"] == "device.delete"));
    assert!(!audit.to_string().contains(password), "no secret in the log");
}

#[tokio::test]
async fn fleets_are_made_changed_and_deleted() {
    let test = TestApp::new().await;
    let created =
        test.post("/api/v1/fleets", json!({ "id": "a", "settings": { "report_period_s": 60 } })).await;
    let tag = created.header("etag").unwrap().to_owned();
    assert_eq!(
        created.expect(201)["settings"],
        json!({ "report_period_s": 60, "window_period_s": 0, "window_count": 0 })
    );
    test.post("/api/v1/fleets", json!({ "id": "a" })).await.expect(409);
    for body in [
        json!({ "id": "a b" }),
        json!({ "id": "" }),
        json!({ "id": "b", "description": "x".repeat(1025) }),
        json!({ "id": "b", "settings": { "report_period_s": 604_801 } }),
        json!({ "id": "b", "settings": { "window_count": -1 } }),
    ] {
        test.post("/api/v1/fleets", body).await.expect(422);
    }
    let claim =
        test.post("/api/v1/fleets/a/claims", json!({ "name": "k" })).await.expect(201)["claim"].clone();
    enroll(&test, json!({ "claim": claim, "hardware": "pi", "device": "d1" })).await.expect(201);
    let patch = |tag: Option<String>, body: Value| {
        let headers: Vec<(String, String)> =
            tag.into_iter().map(|tag| ("if-match".to_owned(), tag)).collect();
        let test = &test;
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            test.request(Method::PATCH, "/api/v1/fleets/a", Some(&test.admin), &headers, body).await
        }
    };
    patch(None, json!({ "description": "x" })).await.expect(428);
    patch(Some(tag.clone()), json!({ "settings": { "report_period_s": 5 } })).await.expect(200);
    patch(Some(tag), json!({ "description": "x" })).await.expect(412);
    let device = test.get("/api/v1/devices/d1").await.expect(200);
    assert_eq!(device["desired"]["generation"], 2);
    let settings = test.get("/api/v1/devices/d1/settings").await.expect(200);
    assert_eq!(settings["effective"]["report_period_s"], 5);
    test.delete("/api/v1/fleets/a").await.expect(409);
    test.delete("/api/v1/devices/d1").await.expect(204);
    test.delete("/api/v1/fleets/a").await.expect(204);
    test.get("/api/v1/fleets/a").await.expect(404);
    test.patch("/api/v1/fleets/a", json!({})).await.expect(404);
    test.delete("/api/v1/fleets/a").await.expect(404);
}

#[tokio::test]
async fn lists_filters_pages_scopes_and_roles() {
    let test = TestApp::new().await;
    fleet(&test, "a").await;
    fleet(&test, "b").await;
    for (id, fleet, region) in [("d1", "a", "eu"), ("d2", "a", "us"), ("d3", "b", "eu"), ("d4", "b", "eu")] {
        let body = json!({ "id": id, "fleet": fleet, "hardware": "pi", "tags": { "region": region } });
        let created = test.post("/api/v1/devices", body).await.expect(201);
        assert_eq!(created["device"]["tags"], json!({ "region": region }));
        assert!(password_works(&test, id, created["password"].as_str().unwrap()).await.is_ok());
    }
    let ids = |list: Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect()
    };
    let eu = "/api/v1/devices?filter=tags.region%20%3D%3D%20%22eu%22";
    assert_eq!(ids(test.get(eu).await.expect(200)), ["d1", "d3", "d4"]);
    let page = test.get(&format!("{eu}&limit=2")).await.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(ids(page), ["d1", "d3"]);
    assert_eq!(ids(test.get(&format!("{eu}&limit=2&cursor={cursor}")).await.expect(200)), ["d4"]);
    let wrong = test.get("/api/v1/devices?filter=tags.region%20%3D%20%22eu%22").await.expect(422);
    assert!(wrong["detail"].as_str().unwrap().contains("^ equality is written =="), "{wrong}");
    let checked =
        test.post("/api/v1/devices/filter/check", json!({ "filter": "tags.region=='eu' && !blocked" })).await;
    assert_eq!(
        checked.expect(200),
        json!({ "valid": true, "canonical": "tags.region == \"eu\" and not blocked", "devices": 3, "error": null })
    );
    let checked =
        test.post("/api/v1/devices/filter/check", json!({ "filter": "fleet = 1" })).await.expect(200);
    assert_eq!((&checked["valid"], &checked["error"]["start"]), (&json!(false), &json!(6)));

    let only_a = test.token(Role::Operator, Scope::Fleet("a".to_owned())).await;
    let as_a = |method: Method, path: &'static str, body: Value| {
        let (test, token) = (&test, &only_a);
        async move { test.request(method, path, Some(token), &[("if-match", "*")], body).await }
    };
    assert_eq!(ids(as_a(Method::GET, "/api/v1/devices", Value::Null).await.expect(200)), ["d1", "d2"]);
    assert_eq!(ids(as_a(Method::GET, "/api/v1/fleets", Value::Null).await.expect(200)), ["a"]);
    as_a(Method::GET, "/api/v1/devices/d3", Value::Null).await.expect(404);
    as_a(Method::POST, "/api/v1/devices/d3/block", json!({})).await.expect(404);
    as_a(Method::GET, "/api/v1/fleets/b", Value::Null).await.expect(403);
    as_a(Method::POST, "/api/v1/fleets/b/claims", json!({ "name": "x" })).await.expect(403);
    as_a(Method::PATCH, "/api/v1/devices/d1", json!({ "fleet": "b" })).await.expect(403);
    as_a(Method::POST, "/api/v1/devices", json!({ "fleet": "b", "hardware": "pi" })).await.expect(403);
    as_a(Method::POST, "/api/v1/devices/d1/block", json!({})).await.expect(200);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    for (method, path, body) in [
        (Method::POST, "/api/v1/devices", json!({ "fleet": "a", "hardware": "pi" })),
        (Method::PATCH, "/api/v1/devices/d1", json!({})),
        (Method::DELETE, "/api/v1/devices/d1", Value::Null),
        (Method::POST, "/api/v1/devices/d1/block", json!({})),
        (Method::POST, "/api/v1/devices/d1/unblock", Value::Null),
        (Method::POST, "/api/v1/devices/d1/credentials", json!({})),
        (Method::PUT, "/api/v1/devices/d1/settings", json!({})),
        (Method::POST, "/api/v1/fleets", json!({ "id": "c" })),
        (Method::PATCH, "/api/v1/fleets/a", json!({})),
        (Method::DELETE, "/api/v1/fleets/a", Value::Null),
        (Method::GET, "/api/v1/fleets/a/claims", Value::Null),
        (Method::DELETE, "/api/v1/claims/x", Value::Null),
    ] {
        let headers = [("if-match", "*")];
        test.request(method.clone(), path, Some(&viewer), &headers, body.clone()).await.expect(403);
        test.request(method, path, None, &headers, body).await.expect(401);
    }
    test.request(Method::GET, "/api/v1/devices", Some(&viewer), &[], Value::Null).await.expect(200);
}

#[tokio::test]
async fn tags_attributes_and_the_place_of_a_device_change() {
    let test = TestApp::new().await;
    fleet(&test, "a").await;
    fleet(&test, "b").await;
    test.post("/api/v1/devices", json!({ "id": "d", "fleet": "a", "hardware": "pi", "serial": "1" }))
        .await
        .expect(201);
    let path = "/api/v1/devices/d";
    let tag = test.get(path).await.header("etag").unwrap().to_owned();
    let body = json!({ "tags": { "x": "1", "y": "2" }, "attributes": { "z": "3" } });
    test.request(Method::PATCH, path, Some(&test.admin), &[], body.clone()).await.expect(428);
    let changed =
        test.request(Method::PATCH, path, Some(&test.admin), &[("if-match", &tag)], body.clone()).await;
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    assert_eq!(changed.expect(200)["tags"], json!({ "x": "1", "y": "2" }));
    test.request(Method::PATCH, path, Some(&test.admin), &[("if-match", &tag)], body).await.expect(412);
    // Every other change heeds the tag as well.
    for (method, path, body) in [
        (Method::PUT, "/api/v1/devices/d/settings", json!({})),
        (Method::POST, "/api/v1/devices/d/block", json!({})),
        (Method::POST, "/api/v1/devices/d/unblock", json!({})),
        (Method::POST, "/api/v1/devices/d/credentials", json!({})),
        (Method::DELETE, "/api/v1/devices/d", Value::Null),
        (Method::DELETE, "/api/v1/fleets/a", Value::Null),
    ] {
        let stale = [("if-match", "\"0\"")];
        test.request(method, path, Some(&test.admin), &stale, body).await.expect(412);
    }
    let settings = "/api/v1/devices/d/settings";
    test.request(Method::PUT, settings, Some(&test.admin), &[], json!({})).await.expect(428);
    let moved =
        test.patch(path, json!({ "tags": { "x": null }, "fleet": "b", "hardware": "pi5" })).await.expect(200);
    assert_eq!((&moved["tags"], &moved["attributes"]), (&json!({ "y": "2" }), &json!({ "z": "3" })));
    assert_eq!(test.app.devices.directory.cohort("d").unwrap().key.as_ref(), "b/pi5");
    for body in [
        json!({ "fleet": "none" }),
        json!({ "fleet": "a/b" }),
        json!({ "hardware": "" }),
        json!({ "tags": { "-a": "1" } }),
        json!({ "tags": { "a": "x".repeat(257) } }),
        json!({ "tags": (0..65).map(|n| (format!("t{n}"), "1".into())).collect::<serde_json::Map<_, _>>() }),
        json!({ "unknown": 1 }),
    ] {
        test.patch(path, body).await.expect(422);
    }
    test.patch(path, json!({ "tags": { "a": "\0" } })).await.expect(400);
    test.post("/api/v1/devices", json!({ "id": "e", "fleet": "a", "hardware": "pi", "serial": "1" }))
        .await
        .expect(201);
    test.patch(path, json!({ "fleet": "a" })).await.expect(409);
    test.post("/api/v1/devices", json!({ "id": "d", "fleet": "a", "hardware": "pi" })).await.expect(409);
    test.post("/api/v1/devices", json!({ "fleet": "a", "hardware": "pi", "serial": "1" })).await.expect(409);
    test.post("/api/v1/devices", json!({ "fleet": "none", "hardware": "pi" })).await.expect(422);
}

#[tokio::test]
async fn settings_reach_the_device_and_its_state_comes_back() {
    use dunlin_protocol::{Desired, List, Pair, SlotState, SlotStatus, State};
    let test = TestApp::new().await;
    fleet(&test, "a").await;
    test.post("/api/v1/devices", json!({ "id": "d", "fleet": "a", "hardware": "pi" })).await.expect(201);
    let path = "/api/v1/devices/d/settings";
    test.bus.take_sent();
    let put = |body: Value| test.request(Method::PUT, path, Some(&test.admin), &[("if-match", "*")], body);
    assert_eq!(put(json!({ "report_period_s": 30 })).await.expect(200)["effective"]["report_period_s"], 30);
    for body in
        [json!({ "report_period_s": -1 }), json!({ "window_count": 4_294_967_296_i64 }), json!({ "x": 1 })]
    {
        put(body).await.expect(422);
    }
    test.request(Method::PUT, path, Some(&test.admin), &[], json!({})).await.expect(428);
    let sent = test.bus.take_sent();
    assert_eq!((sent.len(), sent[0].kind, sent[0].device.as_str()), (1, DownKind::Desired, "d"));
    let desired = Desired::decode(&sent[0].payload).unwrap();
    assert_eq!((desired.generation, desired.report_period_s, desired.slots.len()), (2, 30, 0));
    let id = DeviceId::new("d").unwrap();
    assert_eq!(super::desired(&test.app, &id).await.unwrap().unwrap(), sent[0].payload);
    assert_eq!(super::desired(&test.app, &DeviceId::new("x").unwrap()).await.unwrap(), None);

    let slots =
        [SlotState { slot: "kws", model: [0xab; 32], status: SlotStatus::Failed, reason: "golden vector 1" }];
    let attributes = [Pair { key: "os", value: "linux" }];
    let mut state = State {
        agent_version: "0.1.0",
        hardware: "pi",
        attributes: List::from(&attributes),
        slots: List::from(&slots),
        desired_generation: 1,
    };
    let apply = async |state: &State<'_>, id: &DeviceId| {
        let mut tx = test.app.db.begin().await.unwrap();
        let now_us = test.app.clock.now_us();
        let applied = super::apply_state(&test.app, &mut tx, id, state, now_us).await.unwrap();
        let unseen = test.app.devices.directory.unseen([id], now_us);
        super::write_seen(&mut tx, &unseen, now_us).await.unwrap();
        tx.commit().await.unwrap();
        test.app.devices.directory.mark_seen(&unseen, now_us);
        applied
    };
    assert_eq!(apply(&state, &id).await, super::Applied::Behind);
    test.clock.advance_s(60);
    state.desired_generation = 2;
    assert_eq!(apply(&state, &id).await, super::Applied::UpToDate);
    assert_eq!(apply(&state, &DeviceId::new("x").unwrap()).await, super::Applied::Unknown);
    let device = test.get("/api/v1/devices/d").await.expect(200);
    assert_eq!(device["slots"][0]["since"], "2026-01-01T00:00:00.000000Z", "its state has not changed since");
    assert_eq!(device["slots"][0]["reason"], "golden vector 1");
    assert_eq!(device["slots"][0]["digest"], "ab".repeat(32));
    assert_eq!(device["last_seen"], "2026-01-01T00:01:00.000000Z");
    assert_eq!(device["attributes"], json!({ "os": "linux" }));
    assert_eq!(device["desired"]["reported_generation"], 2);
    let mut tx = test.app.db.begin().await.unwrap();
    super::name_model(&mut tx, &"ab".repeat(32), "kws", 7).await.unwrap();
    tx.commit().await.unwrap();
    let list = test
        .get("/api/v1/devices?filter=running.kws%20%3D%3D%207%20and%20status.kws%20%3D%3D%20%22failed%22")
        .await;
    assert_eq!(list.expect(200)["items"][0]["slots"][0]["model"], "kws");
}

#[tokio::test]
async fn certificates_are_issued_renewed_and_revoked() {
    let settings = [("mqtt.tls_certificate", "/nonexistent.pem"), ("mqtt.client_certificates", "required")];
    let test = TestApp::with_settings(&settings).await;
    let claim = fleet(&test, "factory").await;
    let (key, request) = csr();
    let body = json!({ "claim": claim, "hardware": "pi", "serial": "1", "device": "pump-1" });
    let problem = enroll(&test, body.clone()).await.expect(422);
    assert_eq!(problem["field"], "/csr");
    let mut with_csr = body;
    with_csr["csr"] = json!(request);
    let enrolled = enroll(&test, with_csr.clone()).await.expect(201);
    assert_eq!(enrolled.get("password"), None);
    assert_eq!(enrolled["certificate_expires"], "2026-01-31T00:00:00.000000Z");
    assert_eq!(enrolled["mqtt"]["tls"], true);
    let certificate = enrolled["certificate"].as_str().unwrap();
    let ca = test.get("/api/v1/ca").await.expect(200)["certificate"].as_str().unwrap().to_owned();
    let (_, block) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
    let parsed = block.parse_x509().unwrap();
    let (_, ca_block) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).unwrap();
    let ca_parsed = ca_block.parse_x509().unwrap();
    parsed.verify_signature(Some(ca_parsed.public_key())).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=pump-1");
    assert!(!parsed.is_ca() && ca_parsed.is_ca());

    assert_eq!(certificate_works(&test, "pump-1", certificate).await, Ok(()));
    assert!(password_works(&test, "pump-1", "").await.is_err());

    // Over HTTP, with the certificate as proof: the same key only.
    let renew = async |body: Value| test.request(Method::POST, "/api/v1/enroll/renew", None, &[], body).await;
    test.clock.advance_s(20 * 86_400);
    let again = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let renewed =
        renew(json!({ "device": "pump-1", "csr": again, "certificate": certificate })).await.expect(201);
    assert_eq!(renewed["expires"], "2026-02-20T00:00:00.000000Z");
    let (_, stranger) = csr();
    renew(json!({ "device": "pump-1", "csr": stranger, "certificate": certificate })).await.expect(403);
    renew(json!({ "device": "pump-2", "csr": again, "certificate": certificate })).await.expect(403);
    renew(json!({ "device": "pump-1", "csr": again, "certificate": ca })).await.expect(403);
    renew(json!({ "device": "pump-1", "csr": again, "password": "guess" })).await.expect(403);
    renew(json!({ "device": "pump-1", "csr": again })).await.expect(422);
    renew(json!({ "device": "pump-1", "csr": "x" })).await.expect(422);

    // Over MQTT, where the connection is the proof: any key.
    let (_, next) = csr();
    let (_, der) = x509_parser::pem::parse_x509_pem(next.as_bytes()).unwrap();
    let mut message = vec![0; 4096];
    let length = dunlin_protocol::CertificateRequest { der: &der.contents }.encode(&mut message).unwrap();
    let id = DeviceId::new("pump-1").unwrap();
    let answer = super::renew(&test.app, &id, &message[..length]).await.unwrap();
    let answer = dunlin_protocol::Certificate::decode(&answer).unwrap();
    assert_eq!(answer.authority, ca_block.contents);
    assert!(matches!(super::renew(&test.app, &id, b"").await, Err(super::RenewError::Message(_))));

    // Three certificates were issued, none is revoked.
    let revoked = async || {
        let list = test.get("/api/v1/ca/crl").await;
        assert_eq!(list.status, 200);
        let (_, block) = x509_parser::pem::parse_x509_pem(&list.body).unwrap();
        let (_, crl) = x509_parser::parse_x509_crl(&block.contents).unwrap();
        crl.iter_revoked_certificates().count()
    };
    assert_eq!(revoked().await, 0);
    test.post("/api/v1/devices/pump-1/block", json!({})).await.expect(200);
    assert_eq!(revoked().await, 3);
    assert_eq!(certificate_works(&test, "pump-1", certificate).await, Err(LoginRefused::Blocked));
    renew(json!({ "device": "pump-1", "csr": again, "certificate": certificate })).await.expect(403);
    enroll(&test, with_csr.clone()).await.expect(403);
    assert!(matches!(
        super::renew(&test.app, &id, &message[..length]).await,
        Err(super::RenewError::Refused)
    ));
    test.post("/api/v1/devices/pump-1/unblock", Value::Null).await.expect(200);
    assert_eq!(revoked().await, 0);
    // New credentials: the old certificates are no longer good.
    test.post("/api/v1/devices/pump-1/credentials", json!({})).await.expect(422);
    let kicked = test.bus.kicked().len();
    let fresh = test.post("/api/v1/devices/pump-1/credentials", json!({ "csr": stranger })).await.expect(201);
    assert_eq!(revoked().await, 3);
    assert_eq!(test.bus.kicked().len(), kicked + 1, "whoever used the old ones");
    assert_eq!(certificate_works(&test, "pump-1", certificate).await, Err(LoginRefused::Revoked));
    assert_eq!(
        certificate_works(&test, "pump-1", fresh["certificate"].as_str().unwrap()).await,
        Ok(()),
        "the new one"
    );
    renew(json!({ "device": "pump-1", "csr": again, "certificate": certificate })).await.expect(403);
    renew(json!({ "device": "pump-1", "csr": stranger, "certificate": fresh["certificate"] }))
        .await
        .expect(201);
    // A deleted device's id rests as long as its certificates are valid.
    test.delete("/api/v1/devices/pump-1").await.expect(204);
    with_csr["serial"] = json!("2");
    enroll(&test, with_csr.clone()).await.expect(409);
    test.clock.advance_s(31 * 86_400);
    renew(json!({ "device": "pump-1", "csr": stranger, "certificate": fresh["certificate"] }))
        .await
        .expect(403);
    enroll(&test, with_csr).await.expect(201);
}

/// A device with a certificate, its key, and what renews it: over HTTP, with a certificate and the same key.
async fn with_certificate(test: &TestApp, id: &str) -> (KeyPair, String) {
    let claim = fleet(test, "factory").await;
    let (key, request) = csr();
    let body = json!({ "claim": claim, "hardware": "pi", "device": id, "csr": request });
    let enrolled = enroll(test, body).await.expect(201);
    (key, enrolled["certificate"].as_str().expect("a certificate").to_owned())
}

async fn renew(test: &TestApp, id: &str, key: &KeyPair, certificate: &str) -> crate::testing::Answer {
    let request = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    let body = json!({ "device": id, "csr": request, "certificate": certificate });
    test.request(Method::POST, "/api/v1/enroll/renew", None, &[], body).await
}

const MUTUAL_TLS: [(&str, &str); 2] =
    [("mqtt.tls_certificate", "/nonexistent.pem"), ("mqtt.client_certificates", "required")];

#[tokio::test]
async fn a_certificate_is_good_until_its_successor_was_shown() {
    let test = TestApp::with_settings(&MUTUAL_TLS).await;
    let (key, first) = with_certificate(&test, "pump-1").await;
    let renewed = async |certificate: &str| {
        let answer = renew(&test, "pump-1", &key, certificate).await.expect(201);
        answer["certificate"].as_str().unwrap().to_owned()
    };
    // One answer gets lost, and the clock goes back: the order of the certificates stays.
    let lost = renewed(&first).await;
    test.clock.set_us(START_US - 1_000_000_000);
    renew(&test, "pump-1", &key, &first).await.expect(429);
    test.clock.advance_s(10);
    let second = renewed(&first).await;
    test.clock.set_us(START_US + 10_000_000);
    for certificate in [&first, &first, &lost] {
        assert_eq!(certificate_works(&test, "pump-1", certificate).await, Ok(()));
    }
    assert_eq!(certificate_works(&test, "pump-1", &first).await, Err(LoginRefused::Revoked), "it is older");
    assert_eq!(certificate_works(&test, "pump-1", &second).await, Ok(()));
    assert_eq!(certificate_works(&test, "pump-1", &second).await, Ok(()));
    for certificate in [&first, &lost] {
        assert_eq!(certificate_works(&test, "pump-1", certificate).await, Err(LoginRefused::Revoked));
        renew(&test, "pump-1", &key, certificate).await.expect(403);
    }
    assert!(test.bus.kicked().is_empty(), "the device that shows the new one stays");
    // Another device's is not this one's, whatever TLS says of its name.
    let body = json!({ "id": "pump-2", "fleet": "factory", "hardware": "pi", "csr": csr().1 });
    let other = test.post("/api/v1/devices", body).await.expect(201);
    let other = other["certificate"].as_str().expect("a certificate");
    assert_eq!(certificate_works(&test, "pump-1", other).await, Err(LoginRefused::Revoked));
    let audit = test.get("/api/v1/audit").await.expect(200);
    let replaced = audit["items"].as_array().unwrap().iter();
    assert_eq!(replaced.filter(|entry| entry["action"] == "device.replace_certificate").count(), 2);
}

#[tokio::test]
async fn a_device_that_asks_again_and_again_fills_no_table() {
    let test = TestApp::with_settings(&MUTUAL_TLS).await;
    let (key, certificate) = with_certificate(&test, "pump-1").await;
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let mut message = vec![0; 4096];
    let length = dunlin_protocol::CertificateRequest { der: request.der() }.encode(&mut message).unwrap();
    let id = DeviceId::new("pump-1").unwrap();
    for _ in 1..crate::limits::CERTIFICATES_PER_DAY {
        super::renew(&test.app, &id, &message[..length]).await.unwrap();
    }
    let refused = super::renew(&test.app, &id, &message[..length]).await.unwrap_err();
    assert!(matches!(refused, super::RenewError::TooOften), "{refused}");
    renew(&test, "pump-1", &key, &certificate).await.expect(409);
    test.clock.advance_s(86_401);
    renew(&test, "pump-1", &key, &certificate).await.expect(201);
}

#[tokio::test]
async fn an_expired_certificate_renews_itself_for_a_while() {
    let mut settings = MUTUAL_TLS.to_vec();
    settings.extend([("devices.certificate_life", "10d"), ("devices.certificate_grace", "5d")]);
    let test = TestApp::with_settings(&settings).await;
    let (key, certificate) = with_certificate(&test, "pump-1").await;
    test.clock.advance_s(14 * 86_400);
    super::background::forget_expired(
        &test.app,
        &crate::db::lease::Lease::new("x", "y", crate::limits::LEASE),
    )
    .await
    .unwrap();
    // Not for a stranger's key, whoever has read the certificate.
    renew(&test, "pump-1", &csr().0, &certificate).await.expect(403);
    test.post("/api/v1/devices/pump-1/block", json!({})).await.expect(200);
    renew(&test, "pump-1", &key, &certificate).await.expect(403);
    test.post("/api/v1/devices/pump-1/unblock", Value::Null).await.expect(200);
    let renewed = renew(&test, "pump-1", &key, &certificate).await.expect(201);
    assert_eq!(renewed["expires"], "2026-01-25T00:00:00.000000Z");
    let renewed = renewed["certificate"].as_str().unwrap();
    assert_eq!(certificate_works(&test, "pump-1", renewed).await, Ok(()));
    renew(&test, "pump-1", &key, &certificate).await.expect(403);
    // New credentials revoke it, and an expired certificate that is revoked is worth nothing.
    test.post("/api/v1/devices/pump-1/credentials", json!({ "csr": csr().1 })).await.expect(201);
    test.clock.advance_s(11 * 86_400);
    renew(&test, "pump-1", &key, renewed).await.expect(403);
}

#[tokio::test]
async fn a_certificate_that_expired_too_long_ago_is_worth_nothing() {
    let mut settings = MUTUAL_TLS.to_vec();
    settings.extend([("devices.certificate_life", "10d"), ("devices.certificate_grace", "5d")]);
    let test = TestApp::with_settings(&settings).await;
    let (key, certificate) = with_certificate(&test, "pump-1").await;
    test.clock.advance_s(15 * 86_400);
    renew(&test, "pump-1", &key, &certificate).await.expect(201);
    test.clock.advance_s(1);
    renew(&test, "pump-1", &key, &certificate).await.expect(403);
}

#[test]
fn the_authority_is_made_once_and_its_key_is_private() {
    use super::authority::{Authority, AuthorityError};
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("sub/ca.pem"), folder.path().join("sub/ca.key"));
    assert!(matches!(Authority::open(&certificate, &key, false, START_US), Err(AuthorityError::File { .. })));
    let first = Authority::open(&certificate, &key, true, START_US).unwrap();
    let second = Authority::open(&certificate, &key, true, START_US + 1).unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    // The first start ended between the two files: the key stays.
    std::fs::remove_file(&certificate).unwrap();
    let third = Authority::open(&certificate, &key, true, START_US).unwrap();
    assert_ne!(third.certificate_pem(), "");
    std::fs::remove_file(&key).unwrap();
    let error = Authority::open(&certificate, &key, true, START_US).unwrap_err();
    assert!(error.to_string().contains("ca.key is missing"), "{error}");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = Authority::open(&certificate, &key, true, START_US).unwrap_err();
    assert!(error.to_string().contains("does not belong to the key"), "{error}");
}

#[tokio::test]
async fn processes_on_one_database_share_devices_and_the_authority() {
    let test = TestApp::new().await;
    let claim = fleet(&test, "a").await;
    let clock: std::sync::Arc<dyn crate::clock::Clock> = test.clock.clone();
    let store = std::sync::Arc::new(object_store::memory::InMemory::new());
    let other = crate::App::new(test.app.config.clone(), test.app.db.clone(), clock.clone(), store.clone());
    super::open(&other).await.unwrap();
    let bus = std::sync::Arc::new(crate::bus::MemoryBus::new(8));
    other.set_bus(bus.clone());
    let enrolled =
        enroll(&test, json!({ "claim": claim, "hardware": "pi", "device": "d" })).await.expect(201);
    let password = enrolled["password"].as_str().unwrap().to_owned();
    // A device enrolled a moment ago by another process is looked up.
    let login = async || {
        let credential = Credential::Password { username: "d", password: password.as_bytes() };
        authenticate(&other, credential, ADDRESS).await.map(|_| ())
    };
    assert_eq!(login().await, Ok(()));
    test.post("/api/v1/devices/d/block", json!({})).await.expect(200);
    let changes = other.devices.directory.poll(&other.db, START_US).await.unwrap();
    super::background::act(&other, changes).await;
    assert_eq!(bus.kicked().len(), 1);
    assert_eq!(login().await, Err(LoginRefused::Blocked));
    test.delete("/api/v1/devices/d").await.expect(204);
    let changes = other.devices.directory.load(&other.db).await.unwrap();
    assert_eq!(changes, [super::directory::Change::Out(DeviceId::new("d").unwrap())]);
    assert!(other.devices.directory.is_empty());
    // A process with an authority of its own must not start.
    let folder = tempfile::tempdir().unwrap();
    let mut config = test.app.config.clone();
    config.data_dir = folder.path().to_owned();
    let third = crate::App::new(config, test.app.db.clone(), clock, store);
    let error = super::open(&third).await.unwrap_err();
    assert!(error.to_string().contains("devices.ca_certificate"), "{error}");
}

#[tokio::test]
async fn presence_is_written_down_and_ends_with_its_process() {
    use crate::bus::DeviceAccess as _;
    let test = TestApp::new().await;
    fleet(&test, "a").await;
    test.post("/api/v1/devices", json!({ "id": "d", "fleet": "a", "hardware": "pi" })).await.expect(201);
    let gate = super::Gate::new(test.app.clone());
    let id = DeviceId::new("d").unwrap();
    // What the device, and the sum of all devices, say.
    let connected = async || {
        let connected = test.get("/api/v1/devices/d").await.expect(200)["connected"].clone();
        let status = test.get("/api/v1/status").await.expect(200);
        assert_eq!(status["devices_connected"], i64::from(connected == true), "{status}");
        connected
    };
    super::background::renew_endpoint(&test.app).await.unwrap();
    gate.presence(&id, true);
    gate.presence(&DeviceId::new("deleted-meanwhile").unwrap(), true);
    super::background::write_presence(&test.app).await;
    assert_eq!(connected().await, true);
    assert_eq!(test.get("/api/v1/devices?filter=connected").await.expect(200)["items"][0]["id"], "d");
    // Another process holds a connection of its own; whoever is asked knows of both.
    test.post("/api/v1/devices", json!({ "id": "e", "fleet": "a", "hardware": "pi" })).await.expect(201);
    let mut tx = test.app.db.begin().await.unwrap();
    let (e, until_us) = (DeviceId::new("e").unwrap(), START_US + 10_000_000);
    super::store::devices::renew_endpoint(&mut tx, "another", until_us).await.unwrap();
    super::store::devices::write_presence(&mut tx, "another", &[(e, true)], START_US).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(test.get("/api/v1/status").await.expect(200)["devices_connected"], 2);
    let elsewhere = test.token(Role::Viewer, Scope::Fleet("b".into())).await;
    let status = test.request(Method::GET, "/api/v1/status", Some(&elsewhere), &[], Value::Null).await;
    assert_eq!(status.expect(200)["devices_connected"], 0, "not of fleets that the token does not reach");
    // The process stops renewing its sign of life: it was killed.
    test.clock.advance_s(16);
    assert_eq!(connected().await, false);
    super::background::renew_endpoint(&test.app).await.unwrap();
    assert_eq!(connected().await, true);
    gate.presence(&id, false);
    super::background::write_presence(&test.app).await;
    assert_eq!(connected().await, false);
    assert!(gate.desired(&id).await.is_some());
}

#[tokio::test]
async fn with_an_external_broker_those_heard_of_lately_are_connected() {
    let test = TestApp::with_settings(&[("broker.url", "mqtt://broker")]).await;
    fleet(&test, "a").await;
    let ids = ["d", "e"].map(|id| DeviceId::new(id).unwrap());
    for id in &ids {
        let body = json!({ "id": id.as_str(), "fleet": "a", "hardware": "pi" });
        test.post("/api/v1/devices", body).await.expect(201);
    }
    let connected = async || test.get("/api/v1/status").await.expect(200)["devices_connected"].clone();
    assert_eq!(connected().await, 0);
    for (id, seen_us) in ids.iter().zip([START_US, START_US + 60_000_000]) {
        let mut tx = test.app.db.begin().await.unwrap();
        super::write_seen(&mut tx, std::slice::from_ref(id), seen_us).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(connected().await, 2);
    test.clock.advance_s(200);
    assert_eq!(connected().await, 1);
    test.clock.advance_s(60);
    assert_eq!(connected().await, 0);
}

#[tokio::test]
async fn brokers_ask_who_may_connect() {
    let test = TestApp::with_settings(&[("broker.hook_secret", "open sesame")]).await;
    let claim = fleet(&test, "a").await;
    let enrolled =
        enroll(&test, json!({ "claim": claim, "hardware": "pi", "device": "d" })).await.expect(201);
    let password = enrolled["password"].as_str().unwrap();
    let ask = async |path: &str, secret: &str, body: Value| {
        let header = format!("Bearer {secret}");
        let path = format!("/internal/mqtt/emqx/{path}");
        test.request(Method::POST, &path, None, &[("authorization", &header)], body).await
    };
    let login = json!({ "clientid": "d", "username": "d", "password": password, "peerhost": "10.0.0.1" });
    let allowed = ask("authn", "open sesame", login.clone()).await.expect(200);
    assert_eq!(allowed["result"], "allow");
    assert_eq!(allowed["acl"][0], json!({ "permission": "allow", "action": "publish", "topic": "d/d/up/#" }));
    ask("authn", "wrong", login.clone()).await.expect(401);
    let mut stolen = login.clone();
    stolen["clientid"] = json!("other");
    for body in [
        stolen,
        json!({ "clientid": "d", "username": "d", "password": "guess" }),
        json!({ "clientid": "d" }),
        json!({ "clientid": "x", "cert_common_name": "x" }),
    ] {
        assert_eq!(ask("authn", "open sesame", body).await.expect(200), json!({ "result": "deny" }));
    }
    let by_name = json!({ "clientid": "d", "cert_common_name": "d" });
    assert_eq!(ask("authn", "open sesame", by_name).await.expect(200)["result"], "allow");
    let topic = |topic: &str| json!({ "clientid": "d", "action": "publish", "topic": topic });
    assert_eq!(ask("authz", "open sesame", topic("d/d/up/report")).await.expect(200)["result"], "allow");
    assert_eq!(ask("authz", "open sesame", topic("d/e/up/report")).await.expect(200)["result"], "deny");
    ask("authz", "", topic("d/d/up/report")).await.expect(401);
    ask("authn", "open sesame", json!({})).await.expect(422);
    // A broker that reconnects all its devices is not a stranger that asks too often.
    for _ in 0..300 {
        assert_eq!(ask("authn", "open sesame", login.clone()).await.status, 200);
    }
    let off = TestApp::new().await;
    off.request(Method::POST, "/internal/mqtt/emqx/authn", None, &[], login).await.expect(403);
}

#[tokio::test]
async fn strangers_cannot_flood_the_database_and_do_not_lock_devices_out() {
    let test = TestApp::new().await;
    let claim = fleet(&test, "a").await;
    let enrolled =
        enroll(&test, json!({ "claim": claim, "hardware": "pi", "device": "d" })).await.expect(201);
    let mut unavailable = 0;
    for index in 0..400 {
        match password_works(&test, &format!("guess-{index}"), "x").await {
            Err(LoginRefused::Unavailable) => unavailable += 1,
            other => assert_eq!(other, Err(LoginRefused::BadCredential)),
        }
    }
    assert_eq!(unavailable, 200, "look-ups beyond the burst are refused");
    assert!(password_works(&test, "d", enrolled["password"].as_str().unwrap()).await.is_ok());
    assert_eq!(password_works(&test, "not/an/id", "x").await, Err(LoginRefused::BadCredential));
}
