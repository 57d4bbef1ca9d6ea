//! Compilations, through HTTP and as the worker does them.

use axum::http::Method;
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::worker::{round, work};
use crate::access::{Role, Scope};
use crate::db::lease::Lease;
use crate::limits;
use crate::testing::{Answer, TestApp};

const MODEL: &[u8] = include_bytes!("../../../../models/digits_lstm_int8.tflite");
const OTHER: &[u8] = include_bytes!("../../../../models/vibration_autoencoder_int8.tflite");
const VERSIONS: &str = "/api/v1/models/digits/versions";

async fn with_model() -> TestApp {
    let test = TestApp::new().await;
    test.post("/api/v1/models", json!({ "name": "digits" })).await.expect(201);
    test
}

async fn push(test: &TestApp, query: &str, source: &[u8]) -> Answer {
    let path = format!("{VERSIONS}?format=tflite{query}");
    test.send_bytes(Method::POST, &path, &test.admin, source.to_vec()).await
}

async fn shown(test: &TestApp, id: &Value) -> Value {
    let id = id.as_str().expect("an id");
    test.get(&format!("/api/v1/models/digits/compilations/{id}")).await.expect(200)
}

/// Whether the object store has a source still.
async fn has_source(test: &TestApp, id: &Value) -> bool {
    test.app.artifacts.head(&super::path(id.as_str().expect("an id"))).await.is_ok()
}

#[tokio::test]
async fn a_source_becomes_a_version_with_report_and_lineage() {
    let test = with_model().await;
    let dataset = "ab".repeat(32);
    let answer = push(&test, &format!("&run=exp-7&dataset={dataset}"), MODEL).await;
    let location = answer.header("location").expect("a location").to_owned();
    let job = answer.expect(202);
    assert_eq!(
        location,
        format!("/api/v1/models/digits/compilations/{}", job["id"].as_str().expect("an id"))
    );
    assert_eq!((&job["status"], &job["ahead"], &job["steps_done"]), (&json!("queued"), &json!(0), &json!(0)));
    let other = push(&test, "", OTHER).await.expect(202);
    assert_eq!(other["ahead"], 1);
    // The same again waits only once; said to come from elsewhere it is another one.
    assert_eq!(
        push(&test, &format!("&run=exp-7&dataset={dataset}"), MODEL).await.expect(202)["id"],
        job["id"]
    );
    assert!(has_source(&test, &job["id"]).await);

    assert!(round(&test.app).await.expect("it works"));
    let done = shown(&test, &job["id"]).await;
    assert_eq!(
        (&done["status"], &done["version"], &done["message"]),
        (&json!("done"), &json!(1), &Value::Null)
    );
    assert_eq!(done["steps_done"], done["steps"]);
    assert!(!has_source(&test, &job["id"]).await);
    let version = test.get(&format!("{VERSIONS}/1")).await.expect(200);
    let source = hex::encode(Sha256::digest(MODEL));
    assert_eq!(version["lineage"], json!({ "run": "exp-7", "dataset": dataset, "source": source }));
    assert_eq!(
        (&version["artifact"]["name"], &version["artifact"]["source_digest"]),
        (&json!("digits"), &json!(source))
    );
    let report = test.get(&format!("{VERSIONS}/1/report")).await.expect(200);
    assert_eq!(report["source_bytes"], MODEL.len());
    assert!(report["operators"].as_array().is_some_and(|operators| !operators.is_empty()));

    assert!(round(&test.app).await.expect("it works"));
    assert_eq!(shown(&test, &other["id"]).await["version"], 2);
    assert!(!round(&test.app).await.expect("nothing is left"));
    // Compiled again it is the same artifact, and the same version.
    let again = push(&test, "", MODEL).await.expect(202);
    round(&test.app).await.expect("it works");
    assert_eq!(shown(&test, &again["id"]).await["version"], 1);
    let list = test.get("/api/v1/models/digits/compilations?limit=2").await.expect(200);
    assert_eq!((&list["items"][0]["id"], &list["items"][1]["id"]), (&again["id"], &other["id"]));
    let cursor = list["next_cursor"].as_str().expect("more");
    let rest =
        test.get(&format!("/api/v1/models/digits/compilations?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&job["id"], &Value::Null));
    let audit = test.get("/api/v1/audit?kind=version").await.expect(200);
    assert_eq!(audit["items"][1]["after"]["run"], "exp-7");
    assert_eq!(audit["items"][1]["principal_name"], "compilation");
}

#[tokio::test]
async fn what_cannot_be_compiled_says_why() {
    let test = with_model().await;
    for (query, source, field) in [
        ("", &b"not a model"[..], "body"),
        ("&dataset=ab", MODEL, "dataset"),
        (&format!("&source={}", "0".repeat(64)), MODEL, "source"),
        (&format!("&run={}", "x".repeat(257)), MODEL, "run"),
    ] {
        assert_eq!(push(&test, query, source).await.expect(422)["field"], field, "{query}");
    }
    test.send_bytes(Method::POST, &format!("{VERSIONS}?format=onnx"), &test.admin, MODEL.to_vec())
        .await
        .expect(400);
    let none = "/api/v1/models/none/versions?format=tflite";
    test.send_bytes(Method::POST, none, &test.admin, MODEL.to_vec()).await.expect(404);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    let path = format!("{VERSIONS}?format=tflite");
    test.send_bytes(Method::POST, &path, &viewer, MODEL.to_vec()).await.expect(403);
    test.get("/api/v1/models/digits/compilations/x").await.expect(404);
    test.get("/api/v1/models/none/compilations").await.expect(404);

    let mut damaged = MODEL.to_vec();
    damaged.truncate(MODEL.len() / 2);
    let job = push(&test, "", &damaged).await.expect(202);
    round(&test.app).await.expect("it works");
    let failed = shown(&test, &job["id"]).await;
    assert_eq!((&failed["status"], &failed["version"]), (&json!("failed"), &Value::Null));
    assert!(!failed["message"].as_str().expect("a message").is_empty(), "{failed}");
    assert!(!has_source(&test, &job["id"]).await);

    for (damage, why) in [(None, "is missing"), (Some("damaged"), "was damaged")] {
        let job = push(&test, "", MODEL).await.expect(202);
        let object = super::path(job["id"].as_str().expect("an id"));
        match damage {
            None => test.app.artifacts.delete(&object).await.expect("deleted"),
            Some(bytes) => test.app.artifacts.put(&object, bytes.into()).await.map(|_| ()).expect("put"),
        }
        round(&test.app).await.expect("it works");
        let failed = shown(&test, &job["id"]).await;
        assert!(failed["message"].as_str().expect("a message").contains(why), "{failed}");
    }
    // The artifact of another model.
    test.post("/api/v1/models", json!({ "name": "other" })).await.expect(201);
    push(&test, "", MODEL).await.expect(202);
    round(&test.app).await.expect("it works");
    let artifact = test.get(&format!("{VERSIONS}/1/artifact")).await.body.to_vec();
    crate::models::tests::upload(&test, "other", &test.admin, artifact).await.expect(409);
    assert_eq!(test.get("/api/v1/models/digits").await.expect(200)["latest"], 1);
}

#[tokio::test]
async fn what_a_process_died_over_is_begun_again_but_not_for_ever() {
    let test = with_model().await;
    let job = push(&test, "", MODEL).await.expect(202);
    let id = job["id"].as_str().expect("an id");
    // Another process has it.
    let other = Lease::new(format!("models.compile.{id}"), "other", limits::LEASE);
    assert!(other.acquire(&test.app.db, test.app.clock.now_us()).await.expect("a lease"));
    assert!(!round(&test.app).await.expect("nothing to do"));
    // It dies: its lease ends by itself.
    test.clock.advance_s(11);
    assert!(round(&test.app).await.expect("it works"));
    assert_eq!(shown(&test, &job["id"]).await["version"], 1);

    let job = push(&test, "", OTHER).await.expect(202);
    let begun = "update model_compilations set attempts = $1, status = 'compiling' where id = $2";
    sqlx::query(begun)
        .bind(limits::COMPILATION_ATTEMPTS)
        .bind(job["id"].as_str().expect("an id"))
        .execute(test.app.db.write())
        .await
        .expect("updated");
    assert!(round(&test.app).await.expect("it works"));
    let failed = shown(&test, &job["id"]).await;
    assert!(failed["message"].as_str().expect("a message").contains("begun 3 times"), "{failed}");
}

#[tokio::test]
async fn no_more_wait_than_allowed_and_a_process_that_stops_leaves_them_to_others() {
    let test = with_model().await;
    for number in 0..limits::COMPILATIONS {
        push(&test, &format!("&run=r{number}"), MODEL).await.expect(202);
    }
    let full = push(&test, "&run=more", MODEL).await;
    assert_eq!(full.header("retry-after"), Some("1"));
    full.expect(503);
    test.app.shutdown.cancel();
    assert!(!round(&test.app).await.expect("it stops"));
    let list = test.get("/api/v1/models/digits/compilations").await.expect(200);
    assert!(list["items"].as_array().expect("items").iter().all(|job| job["status"] == "queued"));
}

#[tokio::test]
async fn a_process_that_stops_in_the_middle_gives_the_source_back() {
    let test = with_model().await;
    let job = push(&test, "", MODEL).await.expect(202);
    let id = job["id"].as_str().expect("an id");
    let lease = Lease::new(format!("models.compile.{id}"), &test.app.process, limits::LEASE);
    test.app.shutdown.cancel();
    work(&test.app, id, &lease).await.expect("it stops");
    let given_back = shown(&test, &job["id"]).await;
    assert_eq!((&given_back["status"], &given_back["step"]), (&json!("queued"), &Value::Null));
    assert!(has_source(&test, &job["id"]).await);
    let attempts: i64 = sqlx::query_scalar("select attempts from model_compilations where id = $1")
        .bind(id)
        .fetch_one(test.app.db.read())
        .await
        .expect("a row");
    assert_eq!(attempts, 0, "stopping is not the source's fault");
}
