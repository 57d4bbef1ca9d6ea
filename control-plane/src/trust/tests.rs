//! Roots, through HTTP: what a device would refuse is refused here already.

use axum::http::Method;
use serde_json::{Value, json};

use super::owner::{NOW, NewRoot, key};
use crate::access::{Role, Scope};
use crate::testing::{Answer, TestApp};

/// That the root was refused with this status and these words.
#[track_caller]
fn refused(answer: &Answer, status: u16, why: &str) {
    let problem = answer.expect(status);
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("the root is refused: ") && detail.contains(why), "{detail}");
}

#[tokio::test]
async fn roots_follow_one_another_and_everybody_can_fetch_them() {
    let test = TestApp::new().await;
    let director = hex::encode(test.app.trust.director().unwrap().public());
    let none = json!({ "director": director, "root": null, "expires": null, "roles": [] });
    let viewer = test.token(Role::Viewer, Scope::Fleet("a".to_owned())).await;
    let show = || test.request(Method::GET, "/api/v1/trust", Some(&viewer), &[], Value::Null);
    assert_eq!(show().await.expect(200), none);
    test.get("/api/v1/trust/roots/1").await.expect(404);

    let first = NewRoot::first(&test);
    let created = first.upload(&test, &[1]).await;
    assert_eq!(created.header("location"), Some("/api/v1/trust/roots/1"));
    assert_eq!(created.expect(201), json!({ "number": 1 }));
    assert_eq!(first.upload(&test, &[1]).await.expect(200), json!({ "number": 1 }), "the answer was lost");

    // Root 2: two of three release keys must sign; the root key is replaced, so both sign.
    let second = NewRoot {
        number: 2,
        expires: NOW + 86_400,
        root: (vec![2], 1),
        release: (vec![10, 11, 12], 2),
        ..first.clone()
    };
    second.upload(&test, &[1, 2]).await.expect(201);
    let shown = show().await.expect(200);
    assert_eq!(shown["root"], 2);
    assert_eq!(shown["expires"], "2026-01-02T00:00:00.000000Z");
    let public = |numbers: &[u8]| numbers.iter().map(|n| hex::encode(key(*n).public())).collect::<Vec<_>>();
    assert_eq!(
        shown["roles"],
        json!([
            { "role": "root", "threshold": 1, "keys": public(&[2]) },
            { "role": "release", "threshold": 2, "keys": public(&[10, 11, 12]) },
            { "role": "director", "threshold": 1, "keys": [director] },
        ])
    );
    for (number, bytes) in [(1, first.signed(&[1])), (2, second.signed(&[1, 2]))] {
        let path = format!("/api/v1/trust/roots/{number}");
        let answer = test.request(Method::GET, &path, None, &[], Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.body.to_vec()), (200, bytes));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    }
    for missing in ["3", "0", "x", "4294967296"] {
        test.get(&format!("/api/v1/trust/roots/{missing}")).await.expect(404);
    }
    let audit = test.get("/api/v1/audit?kind=root").await.expect(200);
    assert_eq!(audit["items"][0]["action"], "trust.add_root");
    assert_eq!(audit["items"][0]["before"]["number"], 1);
    assert_eq!(audit["items"][0]["after"]["roles"][1]["threshold"], 2);
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(2), "what was refused or known changed nothing");
}

#[tokio::test]
async fn roots_that_a_device_would_refuse_are_refused() {
    let test = TestApp::new().await;
    let first = NewRoot::first(&test);
    // The first root: not number 1, not signed, signed by others, roles that make no sense.
    refused(&NewRoot { number: 2, ..first.clone() }.upload(&test, &[1]).await, 409, "1 is next");
    refused(&first.upload(&test, &[]).await, 422, "signed by 0 root keys, needs 1");
    refused(&first.upload(&test, &[10, 2]).await, 422, "signed by 0 root keys, needs 1");
    let none = NewRoot { release: (vec![], 1), ..first.clone() };
    refused(&none.upload(&test, &[1]).await, 422, "release role");
    let twice = NewRoot { root: (vec![1, 1], 2), ..first.clone() };
    refused(&twice.upload(&test, &[1]).await, 422, "root role");
    // What devices could not use.
    let expired = NewRoot { expires: NOW, ..first.clone() };
    refused(&expired.upload(&test, &[1]).await, 422, "expired");
    let future = NewRoot { issued: NOW + 7_200, ..first.clone() };
    refused(&future.upload(&test, &[1]).await, 422, "yet to come");
    let other_director = NewRoot { director: (vec![[7; 32]], 1), ..first.clone() };
    refused(&other_director.upload(&test, &[1]).await, 409, "does not name this server's key");
    let mut both = first.director.0.clone();
    both.push([7; 32]);
    let threshold = NewRoot { director: (both, 2), ..first.clone() };
    refused(&threshold.upload(&test, &[1]).await, 422, "demands 2 signatures");
    // Other bytes.
    let path = "/api/v1/trust/roots";
    for bytes in [vec![], vec![0; 100], first.signed(&[1])[..40].to_vec()] {
        refused(&test.send_bytes(Method::POST, path, &test.admin, bytes).await, 422, "");
    }
    test.send_bytes(Method::POST, path, &test.admin, vec![1; 2_049]).await.expect(413);
    test.post(path, json!({})).await.expect(415);
    assert_eq!(test.get("/api/v1/trust").await.expect(200)["root"], Value::Null);

    first.upload(&test, &[1]).await.expect(201);
    // The next one: another first one, a gap, without the old key, without the new one.
    let other = NewRoot { root: (vec![2], 1), ..first.clone() };
    refused(&other.upload(&test, &[2]).await, 409, "root 1 does not follow: 2 is next");
    refused(&NewRoot { number: 3, ..first.clone() }.upload(&test, &[1]).await, 409, "2 is next");
    let next = NewRoot { number: 2, ..other };
    refused(&next.upload(&test, &[2]).await, 422, "signed by 0 root keys");
    refused(&next.upload(&test, &[1]).await, 422, "signed by 0 root keys");
    let mut tampered = next.signed(&[1, 2]);
    tampered[3] ^= 1;
    refused(&test.send_bytes(Method::POST, path, &test.admin, tampered).await, 422, "signed by 0 root keys");
    assert_eq!(test.get("/api/v1/trust").await.expect(200)["root"], 1);
    next.upload(&test, &[1, 2]).await.expect(201);
}

#[tokio::test]
async fn only_administrators_of_everything_add_roots() {
    let test = TestApp::new().await;
    let message = NewRoot::first(&test).signed(&[1]);
    let scoped = Scope::Fleet("a".to_owned());
    for (role, scope) in [
        (Role::Viewer, Scope::Everything),
        (Role::Operator, Scope::Everything),
        (Role::Ci, Scope::Everything),
        (Role::Admin, scoped),
    ] {
        let token = test.token(role, scope).await;
        test.send_bytes(Method::POST, "/api/v1/trust/roots", &token, message.clone()).await.expect(403);
    }
    test.request(Method::GET, "/api/v1/trust", None, &[], Value::Null).await.expect(401);
}

#[tokio::test]
async fn who_asks_for_roots_without_a_token_is_limited_like_everybody() {
    let test = TestApp::with_settings(&[("http.address_burst", "2"), ("http.address_rate", "1")]).await;
    let ask = || test.request(Method::GET, "/api/v1/trust/roots/1", None, &[], Value::Null);
    ask().await.expect(404);
    ask().await.expect(404);
    let refused = ask().await;
    refused.expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
}
