//! Models, through HTTP.

use axum::http::Method;
use dunlin_artifact::baseline::{Part, Source};
use dunlin_artifact::writer::{Baseline, Bins, Contents, Feature, instruction};
use dunlin_artifact::{DType, Kernel, Manifest, Place, Tensor, op};
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

use crate::access::{Role, Scope};
use crate::testing::{Answer, TestApp};
use crate::trust::owner::{NOW, NewRelease, NewRoot, key};

/// A small artifact; another name gives another digest.
pub(crate) fn artifact(name: &'static str, with_baseline: bool) -> Vec<u8> {
    let tensor = |shape: &[u32], place| Tensor::new(DType::I8, shape, place, 0.5, -3).expect("a tensor");
    let numeric = Bins::Numeric {
        edges: vec![0.0, 1.0],
        counts: vec![1, 2, 1],
        min: -1.0,
        max: 2.0,
        unit: 0.5,
        zero: 0.0,
        sum: 4,
        squares: 8,
    };
    let feature =
        |name: &str, source, part, bins| Feature { name: name.to_owned(), source, part, bins, missing: 1 };
    let baseline = Baseline {
        samples: 4,
        features: vec![
            feature("energy", Source::Input(0), Part::Element(0), numeric),
            feature(
                "class",
                Source::Output(0),
                Part::ArgMax,
                Bins::Classes { counts: vec![1, 0, 0, 0, 0, 0, 0, 3] },
            ),
        ],
    };
    Contents {
        manifest: Manifest {
            name,
            producer: "test",
            target: "generic",
            source_format: "none",
            source_digest: [7; 32],
            macs: 42,
            arena_bound: 16,
            io_names: "in\nout",
        },
        tensors: vec![
            tensor(&[2, 4], Place::Arena(0)),
            tensor(&[8], Place::Arena(8)),
            tensor(&[256], Place::Data(0)),
        ],
        program: vec![instruction(Kernel::Lut8, &op::Lut8 { input: 0, output: 1, table: 2 })],
        data: (0..=255).collect(),
        inputs: vec![0],
        outputs: vec![1],
        states: vec![],
        golden: vec![],
        baseline: with_baseline.then_some(baseline),
        arena_len: 16,
        state_len: 0,
        work: 1000,
    }
    .write()
}

pub(crate) async fn upload(test: &TestApp, model: &str, token: &str, bytes: Vec<u8>) -> Answer {
    test.send_bytes(Method::POST, &format!("/api/v1/models/{model}/versions"), token, bytes).await
}

#[tokio::test]
async fn versions_are_numbered_found_by_digest_and_read_back() {
    let test = TestApp::new().await;
    let created = test.post("/api/v1/models", json!({ "name": "kws", "description": "keywords" })).await;
    assert_eq!(created.header("location"), Some("/api/v1/models/kws"));
    assert_eq!(created.expect(201)["latest"], Value::Null);
    let first = upload(&test, "kws", &test.admin, artifact("one", true)).await;
    assert_eq!(first.header("location"), Some("/api/v1/models/kws/versions/1"));
    let first = first.expect(201);
    assert_eq!((&first["version"], &first["has_baseline"]), (&json!(1), &json!(true)));
    assert_eq!(
        first["artifact"]["inputs"][0],
        json!({ "name": "in", "type": "int8", "shape": [2, 4], "scale": 0.5, "zero_point": -3 })
    );
    upload(&test, "kws", &test.admin, artifact("two", false)).await.expect(201);
    // The same artifact again is the same version; in another model it is a mistake.
    assert_eq!(upload(&test, "kws", &test.admin, artifact("one", true)).await.expect(200)["version"], 1);
    test.post("/api/v1/models", json!({ "name": "other" })).await.expect(201);
    let other = upload(&test, "other", &test.admin, artifact("one", true)).await.expect(409);
    assert!(other["detail"].as_str().unwrap().contains("version 1 of the model \"kws\""), "{other}");
    assert_eq!(upload(&test, "kws", &test.admin, artifact("three", true)).await.expect(201)["version"], 3);

    let digest = first["digest"].as_str().unwrap();
    let mut db = test.app.db.read().acquire().await.unwrap();
    let found = super::find_by_digest(&test.app, &mut db, digest).await.unwrap().expect("a version");
    assert_eq!((found.model.as_str(), found.version), ("kws", 1));
    assert_eq!(super::find_by_digest(&test.app, &mut db, &"0".repeat(64)).await.unwrap(), None);
    drop(db);

    let download = test.get("/api/v1/models/kws/versions/1/artifact").await;
    assert_eq!(download.body, artifact("one", true));
    let tag = download.header("etag").unwrap().to_owned();
    let path = "/api/v1/models/kws/versions/1/artifact";
    let again =
        test.request(Method::GET, path, Some(&test.admin), &[("if-none-match", &tag)], Value::Null).await;
    assert_eq!(again.status, 304);
    let baseline = test.get("/api/v1/models/kws/versions/1/baseline").await.expect(200);
    assert_eq!(baseline["samples"], 4);
    assert_eq!(baseline["features"][0]["edges"], json!([0.0, 1.0]));
    assert_eq!(baseline["features"][0]["counts"], json!([1, 2, 1]));
    assert_eq!(
        baseline["features"][0]["moments"],
        json!({ "min": -1.0, "max": 2.0, "mean": 0.5, "standard_deviation": 0.5 })
    );
    assert_eq!(baseline["features"][1]["kind"], "classes");
    test.get("/api/v1/models/kws/versions/2/baseline").await.expect(404);
    let page = test.get("/api/v1/models/kws/versions?limit=2").await.expect(200);
    assert_eq!(
        page["items"].as_array().unwrap().iter().map(|v| v["version"].clone()).collect::<Vec<_>>(),
        [3, 2]
    );
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = test.get(&format!("/api/v1/models/kws/versions?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!((page["items"][0]["version"].clone(), page["next_cursor"].clone()), (json!(1), Value::Null));
    assert_eq!(test.get("/api/v1/models").await.expect(200)["items"][0]["latest"], 3);
    assert_eq!(test.get("/api/v1/models/kws").await.expect(200)["description"], "keywords");
    assert_eq!(
        test.get("/api/v1/models/kws/versions/1").await.expect(200)["size"],
        artifact("one", true).len()
    );
    let audit = test.get("/api/v1/audit").await.expect(200);
    let uploads =
        audit["items"].as_array().unwrap().iter().filter(|entry| entry["action"] == "model.upload").count();
    assert_eq!(uploads, 3);
}

#[tokio::test]
async fn bad_uploads_are_refused_and_damage_is_noticed() {
    let test = TestApp::with_settings(&[("http.artifact_size", "4KiB")]).await;
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    let mut damaged = artifact("one", true);
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut longer = artifact("one", true);
    longer.push(0);
    for bytes in [Vec::new(), b"not an artifact at all".to_vec(), damaged, longer] {
        let problem = upload(&test, "kws", &test.admin, bytes).await.expect(422);
        assert!(problem["detail"].as_str().unwrap().starts_with("this is no usable artifact: "), "{problem}");
    }
    upload(&test, "kws", &test.admin, vec![0; 5000]).await.expect(413);
    upload(&test, "none", &test.admin, artifact("one", true)).await.expect(404);
    test.post("/api/v1/models/kws/versions", json!({})).await.expect(415);
    let version = upload(&test, "kws", &test.admin, artifact("one", true)).await.expect(201);
    assert_eq!(version["version"], 1, "refused uploads take no number");
    let object = super::path(version["digest"].as_str().unwrap());
    test.app.artifacts.put(&object, "damaged".into()).await.unwrap();
    test.get("/api/v1/models/kws/versions/1/artifact").await.expect(500);
    test.app.artifacts.delete(&object).await.unwrap();
    test.get("/api/v1/models/kws/versions/1/artifact").await.expect(500);
    for missing in [
        "/api/v1/models/x",
        "/api/v1/models/x/versions",
        "/api/v1/models/kws/versions/9",
        "/api/v1/models/kws/versions/a",
    ] {
        test.get(missing).await.expect(404);
    }
}

#[tokio::test]
async fn names_roles_scopes_and_tags() {
    let test = TestApp::new().await;
    for name in ["", "a/b", "-a", "a b", &"x".repeat(65)] {
        test.post("/api/v1/models", json!({ "name": name })).await.expect(422);
    }
    test.post("/api/v1/models", json!({ "name": "a\0" })).await.expect(400);
    test.post("/api/v1/models", json!({ "name": "kws", "description": "x".repeat(1025) })).await.expect(422);
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(409);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    upload(&test, "kws", &viewer, artifact("one", true)).await.expect(403);
    let other = test.token(Role::Ci, Scope::Model("other".to_owned())).await;
    upload(&test, "kws", &other, artifact("one", true)).await.expect(403);
    let list = test.request(Method::GET, "/api/v1/models", Some(&other), &[], Value::Null).await.expect(200);
    assert_eq!(list["items"], json!([]));
    let own = test.token(Role::Ci, Scope::Model("kws".to_owned())).await;
    upload(&test, "kws", &own, artifact("one", true)).await.expect(201);
    test.request(Method::GET, "/api/v1/models/kws", None, &[], Value::Null).await.expect(401);

    let path = "/api/v1/models/kws";
    let tag = test.get(path).await.header("etag").unwrap().to_owned();
    let body = json!({ "description": "new" });
    test.request(Method::PATCH, path, Some(&test.admin), &[], body.clone()).await.expect(428);
    test.request(Method::PATCH, path, Some(&test.admin), &[("if-match", &tag)], body.clone())
        .await
        .expect(200);
    let late = json!({ "description": "late" });
    test.request(Method::PATCH, path, Some(&test.admin), &[("if-match", &tag)], late).await.expect(412);
    assert_eq!(test.get(path).await.expect(200)["description"], "new");
}

/// The model `kws` with its first version.
async fn kws(test: &TestApp) -> NewRelease {
    test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
    let version = upload(test, "kws", &test.admin, artifact("one", false)).await.expect(201);
    assert_eq!(version["release"], Value::Null);
    NewRelease::of("kws", &version)
}

#[tokio::test]
async fn releases_are_signed_one_after_another() {
    let test = TestApp::new().await;
    let release = kws(&test).await;
    test.get(&release.path()).await.expect(404);
    release.upload(&test, &[10]).await.expect(409);
    let root = NewRoot { release: (vec![10, 11, 12], 2), ..NewRoot::first(&test) };
    root.upload(&test, &[1]).await.expect(201);

    let release = NewRelease { floor: 1, hardware: vec!["pi", "mcu"], expires: NOW + 60, ..release };
    let one = release.upload(&test, &[11]).await.expect(200);
    let public = |numbers: &[u8]| {
        let mut keys: Vec<_> = numbers.iter().map(|number| hex::encode(key(*number).public())).collect();
        keys.sort();
        keys
    };
    let expected = json!({
        "signatures": 1, "threshold": 2, "complete": false, "keys": public(&[11]), "floor": 1,
        "expires": "2026-01-01T00:01:00.000000Z", "hardware": ["pi", "mcu"],
    });
    assert_eq!(one, expected);
    // The same signature again adds nothing; another owner's does, and both stay.
    assert_eq!(release.upload(&test, &[11, 11]).await.expect(200), expected);
    let two = release.upload(&test, &[10]).await.expect(200);
    assert_eq!((&two["complete"], &two["keys"]), (&json!(true), &json!(public(&[10, 11]))));
    assert_eq!(test.get("/api/v1/models/kws/versions/1").await.expect(200)["release"], two);
    assert_eq!(test.get("/api/v1/models/kws/versions").await.expect(200)["items"][0]["release"], two);
    let stored = test.get(&release.path()).await;
    assert_eq!(stored.header("content-type"), Some("application/octet-stream"));
    // What comes back can be uploaded again.
    let again = test.send_bytes(Method::PUT, &release.path(), &test.admin, stored.body.to_vec()).await;
    assert_eq!(again.expect(200), two);

    // Another statement replaces it only when it is as good, and not older.
    let newer = NewRelease { floor: 0, issued: NOW + 1, ..release.clone() };
    let refused = newer.upload(&test, &[10]).await.expect(409);
    assert!(refused["detail"].as_str().unwrap().contains("let 2 keys sign"), "{refused}");
    assert_eq!(newer.upload(&test, &[10, 12]).await.expect(200)["floor"], 0);
    let refused = release.upload(&test, &[10, 11]).await.expect(409);
    assert!(refused["detail"].as_str().unwrap().contains("written later"), "{refused}");

    // A revoked key counts no more, and its signature goes when another one comes.
    let root = NewRoot { number: 2, release: (vec![11, 12], 2), ..root };
    root.upload(&test, &[1]).await.expect(201);
    let shown = test.get("/api/v1/models/kws/versions/1").await.expect(200);
    assert_eq!((&shown["release"]["signatures"], &shown["release"]["complete"]), (&json!(1), &json!(false)));
    assert_eq!(newer.upload(&test, &[11]).await.expect(200)["complete"], true);
    let stored = test.get(&newer.path()).await.body;
    let old = key(10).public();
    assert!(!stored.windows(32).any(|bytes| bytes == old));
    let audit = test.get("/api/v1/audit?kind=version").await.expect(200);
    assert_eq!(audit["items"][0]["action"], "model.release");
    assert_eq!(audit["items"][0]["after"]["complete"], true);
}

#[tokio::test]
async fn releases_that_devices_would_refuse_are_refused() {
    let test = TestApp::new().await;
    let release = kws(&test).await;
    NewRoot::first(&test).upload(&test, &[1]).await.expect(201);
    let path = release.path();
    let send = |bytes: Vec<u8>| test.send_bytes(Method::PUT, &path, &test.admin, bytes);
    let wrong = |change: fn(&mut NewRelease)| {
        let mut wrong = release.clone();
        change(&mut wrong);
        wrong.signed(&[10])
    };
    let mut tampered = release.signed(&[10]);
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    for (bytes, why) in [
        (wrong(|release| release.model = "other"), "its model is not that of the version"),
        (wrong(|release| release.version = 2), "its version is not"),
        (wrong(|release| release.digest[0] ^= 1), "its digest is not"),
        (wrong(|release| release.size += 1), "its size is not"),
        (wrong(|release| release.expires = NOW - 1), "it expired"),
        (wrong(|release| release.floor = 2), "withdraws versions below 2"),
        (release.signed(&[]), "nobody has signed it"),
        (release.signed(&[11]), "is no release key of the newest root"),
        (release.signed(&[1]), "is no release key of the newest root"),
        (release.signed(&[10, 11]), "is no release key of the newest root"),
        (tampered, "is wrong"),
        (Vec::new(), "the release is refused"),
        (release.signed(&[10])[..60].to_vec(), "the release is refused"),
    ] {
        let problem = send(bytes).await.expect(422);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("the release is refused: ") && detail.contains(why), "{why}: {detail}");
    }
    send(vec![1; 1_537]).await.expect(413);
    assert_eq!(test.get("/api/v1/models/kws/versions/1").await.expect(200)["release"], Value::Null);
    let bytes = release.signed(&[10]);
    let viewer = test.token(Role::Viewer, Scope::Everything).await;
    let other = test.token(Role::Ci, Scope::Model("other".to_owned())).await;
    for token in [&viewer, &other] {
        test.send_bytes(Method::PUT, &path, token, bytes.clone()).await.expect(403);
    }
    for missing in ["kws/versions/2", "kws/versions/x", "none/versions/1"] {
        let path = format!("/api/v1/models/{missing}/release");
        test.send_bytes(Method::PUT, &path, &test.admin, bytes.clone()).await.expect(404);
    }
    let ci = test.token(Role::Ci, Scope::Model("kws".to_owned())).await;
    test.send_bytes(Method::PUT, &path, &ci, bytes).await.expect(200);
}
