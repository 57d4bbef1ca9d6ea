//! Access, through HTTP.

use axum::http::Method;
use serde_json::{Value, json};

use super::{Action, Caller, Principal, Resource, Role, Scope, Subject, audit, authorize};
use crate::testing::{START_US, TestApp};

fn caller(role: Role, scope: Scope) -> Caller {
    let principal = Principal { id: "token:1".to_owned(), name: "one".to_owned() };
    Caller { principal, role, scope, request_id: None }
}

/// The whole matrix, written out: what a role may do, and where a scope lets it.
#[test]
fn the_access_matrix() {
    let roles: Vec<(Role, Vec<&str>)> = Role::ALL
        .into_iter()
        .map(|role| {
            let allowed = Action::ALL.into_iter().filter(|action| role.allows(*action));
            (role, allowed.map(Action::name).collect())
        })
        .collect();
    let operator = vec![
        "read",
        "manage devices",
        "manage fleets",
        "manage enrolment keys",
        "publish models",
        "read the audit log",
    ];
    let mut admin = operator.clone();
    admin.extend(["manage tokens", "manage keys that devices believe"]);
    let expected = [
        (Role::Viewer, vec!["read"]),
        (Role::Operator, operator),
        (Role::Ci, vec!["read", "publish models"]),
        (Role::Admin, admin),
    ];
    assert_eq!(roles, expected);

    let resources = [
        Resource::Installation,
        Resource::Listing,
        Resource::Fleet("a"),
        Resource::Fleet("b"),
        Resource::Model("m"),
        Resource::Model("n"),
        Resource::ModelInFleet { model: "m", fleet: "a" },
        Resource::ModelInFleet { model: "n", fleet: "b" },
    ];
    let reach = |scope: Scope, action: Action| {
        let operator = caller(Role::Operator, scope);
        resources.map(|resource| u8::from(authorize(&operator, action, resource).is_ok()))
    };
    let (fleet, model) = (Scope::Fleet("a".to_owned()), Scope::Model("m".to_owned()));
    assert_eq!(reach(Scope::Everything, Action::ManageDevices), [1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(reach(fleet.clone(), Action::Read), [0, 1, 1, 0, 1, 1, 1, 0]);
    assert_eq!(reach(fleet.clone(), Action::ManageDevices), [0, 1, 1, 0, 0, 0, 1, 0]);
    assert_eq!(reach(fleet, Action::PublishModels), [0, 1, 1, 0, 0, 0, 1, 0]);
    assert_eq!(reach(model.clone(), Action::Read), [0, 1, 0, 0, 1, 0, 1, 0]);
    assert_eq!(reach(model, Action::PublishModels), [0, 1, 0, 0, 1, 0, 1, 0]);
}

#[tokio::test]
async fn a_token_is_shown_once_and_stored_as_a_hash() {
    let test = TestApp::new().await;
    let body = json!({ "name": "ci", "role": "ci", "model": "kws" });
    let answer = test.post("/api/v1/tokens", body).await;
    let created = answer.expect(201);
    let token = created["token"].as_str().expect("a token").to_owned();
    assert!(token.starts_with("dunlin_") && token.len() == 7 + 43, "{token}");
    let id = created["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), Some(format!("/api/v1/tokens/{id}").as_str()));

    let shown = test.get(&format!("/api/v1/tokens/{id}")).await.expect(200);
    let principal = test.get("/api/v1/me").await.expect(200)["principal"].clone();
    let expected = json!({
        "id": id, "name": "ci", "role": "ci", "fleet": null, "model": "kws",
        "created": "2026-01-01T00:00:00.000000Z", "created_by": principal,
        "expires": null, "last_used": null,
    });
    assert_eq!(shown, expected);
    let dump: Vec<String> =
        sqlx::query_scalar("select digest from tokens").fetch_all(test.app.db.read()).await.expect("rows");
    assert!(dump.iter().all(|digest| digest.len() == 64 && !digest.contains(&token)));

    let me = test.request(Method::GET, "/api/v1/me", Some(&token), &[], Value::Null).await.expect(200);
    let expected = json!({ "principal": format!("token:{id}"), "name": "ci", "role": "ci", "fleet": null, "model": "kws" });
    assert_eq!(me, expected);
    let shown = test.get(&format!("/api/v1/tokens/{id}")).await.expect(200);
    assert_eq!(shown["last_used"], "2026-01-01T00:00:00.000000Z");
}

#[tokio::test]
async fn tokens_end_when_they_expire_or_are_revoked() {
    let test = TestApp::new().await;
    let body = json!({ "name": "short", "role": "viewer", "expires": "2026-01-01T01:00:00Z" });
    let created = test.post("/api/v1/tokens", body).await.expect(201);
    let short = created["token"].as_str().expect("a token").to_owned();
    let long = test.token(Role::Viewer, Scope::Everything).await;
    let status = async |token: &str| {
        test.request(Method::GET, "/api/v1/me", Some(token), &[], Value::Null).await.status.as_u16()
    };
    assert_eq!((status(&short).await, status(&long).await), (200, 200));
    test.clock.advance_s(3_600);
    assert_eq!((status(&short).await, status(&long).await), (401, 200));

    let tokens = test.get("/api/v1/tokens").await.expect(200);
    let id = tokens["items"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(tokens["items"][0]["name"], "test viewer", "the newest first");
    let path = format!("/api/v1/tokens/{id}");
    let stale = [("if-match", "\"0\"")];
    test.request(Method::DELETE, &path, Some(&test.admin), &stale, Value::Null).await.expect(412);
    let etag = test.get(&path).await.header("etag").expect("a tag").to_owned();
    let known = [("if-none-match", etag.as_str())];
    test.request(Method::GET, &path, Some(&test.admin), &known, Value::Null).await.expect(304);
    let seen = [("if-match", etag.as_str())];
    test.request(Method::DELETE, &path, Some(&test.admin), &seen, Value::Null).await.expect(204);
    test.delete(&path).await.expect(404);
    test.get(&path).await.expect(404);
    assert!(!test.get("/api/v1/tokens").await.expect(200).to_string().contains(&id));
    assert_eq!(status(&long).await, 401);
    test.delete("/api/v1/tokens/none").await.expect(404);
    let unknown = format!("dunlin_{}", "A".repeat(43));
    assert_eq!(status(&unknown).await, 401);
    assert_eq!(status("other").await, 401);
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let test = TestApp::new().await;
    let tokens = test.get("/api/v1/tokens").await.expect(200);
    let own = tokens["items"][0]["id"].as_str().expect("an id").to_owned();
    test.delete(&format!("/api/v1/tokens/{own}")).await.expect(409);
    test.token(Role::Admin, Scope::Everything).await;
    test.delete(&format!("/api/v1/tokens/{own}")).await.expect(204);
    assert_eq!(test.get("/api/v1/tokens").await.status, 401);
}

#[tokio::test]
async fn impossible_tokens_are_refused() {
    let test = TestApp::new().await;
    let cases = [
        (json!({ "name": "", "role": "viewer" }), "/name"),
        (json!({ "name": "x".repeat(65), "role": "viewer" }), "/name"),
        (json!({ "name": "a\nb", "role": "viewer" }), "/name"),
        (json!({ "name": "x", "role": "viewer", "fleet": "" }), "/fleet"),
        (json!({ "name": "x", "role": "viewer", "fleet": "a", "model": "b" }), "/model"),
        (json!({ "name": "x", "role": "admin", "fleet": "a" }), "/role"),
        (json!({ "name": "x", "role": "viewer", "expires": "2025-01-01T00:00:00Z" }), "/expires"),
        (json!({ "name": "x", "role": "owner" }), "body"),
        (json!({ "name": "x", "role": "viewer", "scope": "a" }), "body"),
    ];
    for (body, field) in cases {
        let problem = test.post("/api/v1/tokens", body.clone()).await.expect(422);
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
}

#[tokio::test]
async fn only_administrators_manage_tokens_and_operators_read_the_audit_log() {
    let test = TestApp::new().await;
    for (role, tokens, log) in
        [(Role::Viewer, 403, 403), (Role::Ci, 403, 403), (Role::Operator, 403, 200), (Role::Admin, 200, 200)]
    {
        let token = test.token(role, Scope::Everything).await;
        for (path, expected) in [("/api/v1/tokens", tokens), ("/api/v1/audit", log)] {
            let answer = test.request(Method::GET, path, Some(&token), &[], Value::Null).await;
            assert_eq!(answer.status.as_u16(), expected, "{role:?} {path}");
        }
    }
    assert_eq!(test.request(Method::GET, "/api/v1/tokens", None, &[], Value::Null).await.status, 401);
}

#[tokio::test]
async fn the_audit_log_tells_who_changed_what_and_is_append_only() {
    let test = TestApp::new().await;
    let headers = [("x-request-id", "r-1")];
    let body = json!({ "name": "ci", "role": "ci" });
    let created =
        test.request(Method::POST, "/api/v1/tokens", Some(&test.admin), &headers, body).await.expect(201);
    let id = created["id"].as_str().expect("an id");
    test.clock.advance_s(1);
    test.delete(&format!("/api/v1/tokens/{id}")).await.expect(204);

    let log = test.get(&format!("/api/v1/audit?kind=token&id={id}")).await.expect(200);
    let items = log["items"].as_array().expect("entries");
    let (revoke, create) = (&items[0], &items[1]);
    assert_eq!(items.len(), 2);
    let made = json!({ "name": "ci", "role": "ci", "fleet": null, "model": null, "expires_us": null });
    assert_eq!(
        (&create["action"], &create["before"], &create["after"]),
        (&json!("token.create"), &Value::Null, &made)
    );
    assert_eq!(
        (&revoke["action"], &revoke["before"], &revoke["after"]),
        (&json!("token.revoke"), &made, &Value::Null)
    );
    assert_eq!(create["request_id"], "r-1");
    assert_eq!(revoke["at"], "2026-01-01T00:00:01.000000Z");
    assert_eq!(revoke["principal_name"], "test admin");
    assert!(!log.to_string().contains("dunlin_"));
    test.get("/api/v1/audit?id=x").await.expect(422);

    for statement in ["update audit set action = 'x'", "delete from audit"] {
        let result = sqlx::raw_sql(statement).execute(test.app.db.write()).await;
        assert!(result.is_err(), "{statement} must be refused by the database itself");
    }
}

#[tokio::test]
async fn a_scoped_token_sees_its_part_of_the_audit_log() {
    let test = TestApp::new().await;
    let admin = caller(Role::Admin, Scope::Everything);
    let mut tx = test.app.db.begin().await.expect("a transaction");
    for (subject, action) in [
        (Subject::of_fleet("device", "d1", "a"), "device.block"),
        (Subject::of_fleet("device", "d2", "b"), "device.block"),
        (Subject::of_model("model", "m", "m"), "model.create"),
    ] {
        audit(&test.app, &mut tx, &admin, action, subject, None, None).await.expect("written");
    }
    tx.commit().await.expect("committed");
    for (scope, expected) in
        [(Scope::Fleet("a".to_owned()), vec!["d1"]), (Scope::Model("m".to_owned()), vec!["m"])]
    {
        let token = test.token(Role::Operator, scope).await;
        let log =
            test.request(Method::GET, "/api/v1/audit", Some(&token), &[], Value::Null).await.expect(200);
        let items = log["items"].as_array().expect("entries");
        let seen: Vec<&str> = items.iter().filter_map(|entry| entry["resource"].as_str()).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn lists_come_in_pages_that_stay_right() {
    let test = TestApp::new().await;
    for _ in 0..5 {
        test.clock.advance_s(1);
        test.token(Role::Viewer, Scope::Everything).await;
    }
    let mut path = "/api/v1/tokens?limit=2".to_owned();
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = test.get(&path).await.expect(200);
        let items = page["items"].as_array().expect("entries");
        seen.extend(items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
        pages += 1;
        // What comes in between does not shift the pages.
        test.token(Role::Viewer, Scope::Everything).await;
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/tokens?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((pages, seen.len()), (3, 6));
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!(seen, sorted);
    for query in ["limit=0", "limit=1001", "cursor=x", "cursor=eA"] {
        test.get(&format!("/api/v1/tokens?{query}")).await.expect(422);
    }
    test.get("/api/v1/tokens?limit=-1").await.expect(400);
    assert_eq!(START_US % 1_000_000, 0);
}
