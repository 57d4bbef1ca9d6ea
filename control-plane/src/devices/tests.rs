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
