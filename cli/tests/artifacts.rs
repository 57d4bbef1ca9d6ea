//! Artifacts in a bucket of an S3 service instead of a folder.

#![cfg(unix)]

mod support;

use dunlin_test_servers::S3;
use support::Bench;
use support::plane::{Plane, digits};

const SECRET: &str = "the-secret-of-the-bucket";

#[test]
#[ignore = "needs an S3 service"]
fn a_model_is_pushed_to_a_bucket_and_fetched_from_there() {
    let bench = Bench::new();
    let mut service = S3::start().expect("an S3 service");
    service.create_bucket("models").expect("a bucket");
    let endpoint = service.url();
    let more = [
        ["--artifacts-url", "s3://models/of/dunlin"],
        ["--artifacts-endpoint", &endpoint],
        ["--artifacts-region", "eu-west-3"],
        ["--artifacts-access-key", "the-key"],
        ["--artifacts-secret-key", SECRET],
    ];
    let mut plane = Plane::start(&bench, "data", more.as_flattened());
    let (artifact, _) = digits(&bench);
    plane.run(&["model", "push", &artifact, "--name", "digits"]);
    let bytes = std::fs::read(&artifact).expect("an artifact");
    let fetched = |plane: &Plane| plane.get("/api/v1/models/digits/versions/1/artifact");
    assert!(fetched(&plane) == (200, bytes.clone()), "the artifact as it was pushed");
    let listed = service.list("models").expect("a list");
    assert!(listed.contains("<Key>of/dunlin/"), "{listed}");
    assert!(!std::fs::exists(bench.path("data/artifacts")).expect("a folder"), "nothing is kept beside it");
    // The same again is the same version, and a server that starts anew finds it.
    assert_eq!(plane.run(&["model", "push", &artifact, "--name", "digits"])["version"], 1);
    plane.kill();
    plane.resume();
    assert!(fetched(&plane) == (200, bytes), "the artifact as it was pushed");

    // Without the service what needs it fails, with the service's name and without the secret.
    service.kill().expect("it ends");
    let other = bench.compiled("keyword_dscnn_int8");
    let said = plane.try_run(&["model", "push", &other, "--name", "keywords"]);
    assert_ne!(said.code, 0, "{}", said.stdout);
    assert_ne!(fetched(&plane).0, 200);
    assert_eq!(plane.readiness().0, 200, "everything else goes on");
    assert!(!plane.log().contains(SECRET), "{}", plane.log());
}
