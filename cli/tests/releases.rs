//! What owners sign, and which device runs it.

#![cfg(unix)]

mod support;

use dunlin_protocol::{SlotState, SlotStatus, State};
use dunlin_trust::SigningKey;
use serde_json::{Value, json};
use support::mqtt::Raw;
use support::plane::{Plane, digits};
use support::watcher::Watcher;
use support::{Bench, message};

/// Another artifact of the same model: its name differs.
fn another(bench: &Bench, name: &str) -> String {
    let artifact = bench.path(&format!("{name}.dunlin"));
    let model = support::model_file("digits_resnet_int8.tflite");
    support::dunlin(&["compile", &model, "--name", name, "-o", &artifact]).success();
    artifact
}

/// A secret key in a file, and the public one.
fn owner(bench: &Bench, number: u8) -> (String, String) {
    let secret = [number; 32];
    let pem = dunlin_control_plane::trust::to_pem(&secret);
    let file = bench.file(&format!("owner-{number}.pem"), pem.as_bytes());
    (file, hex::encode(SigningKey::from_secret(&secret).public()))
}

fn push<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["model", "push", file, "--name", "digits"], more].concat()
}

#[test]
fn what_is_pushed_is_signed_where_there_is_a_key() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    let (file, public) = owner(&bench, 7);
    // Without a root nothing has to be signed, and who wants to sign is told so.
    let pushed = plane.try_run(&push(&artifact, &[])).success();
    assert!(pushed.stdout.contains("not signed: devices need no signatures"), "{}", pushed.stdout);
    plane
        .try_run(&push(&artifact, &["--release-key", &file]))
        .failure(4, &["has no root", "`dunlin keys create`"]);
    plane.try_run(&["model", "sign", "digits", "1"]).failure(1, &["need no signatures"]);

    plane.run(&["keys", "create"]);
    let signed = plane.run(&push(&artifact, &[]));
    assert_eq!(signed["version"], 1, "the same artifact");
    let first = signed["release"].clone();
    assert_eq!((&first["complete"], &first["signatures"]), (&json!(true), &json!(1)));
    assert_eq!(plane.run(&["model", "show", "digits=1"])["release"], first);
    // Again, nothing changes: not even the time of signing.
    let release = || plane.get("/api/v1/models/digits/versions/1/release").1;
    let message = release();
    plane.run(&push(&artifact, &[]));
    assert_eq!(release(), message);

    let second = another(&bench, "second");
    let unsigned = plane.run(&push(&second, &["--no-sign"]));
    assert_eq!((&unsigned["version"], &unsigned["release"]), (&json!(2), &Value::Null));
    let terms = ["--floor", "2", "--hardware", "mcu", "--hardware", "pi", "--expires", "30"];
    let release = &plane.run(&push(&second, &terms))["release"];
    assert_eq!((&release["floor"], &release["hardware"]), (&json!(2), &json!(["mcu", "pi"])));
    assert!(release["expires"].is_string());
    plane.try_run(&push(&second, &["--floor", "3"])).failure(2, &["--floor 3 withdraws version 2 itself"]);
    assert_eq!(plane.try_run(&push(&second, &["--no-sign", "--floor", "1"])).code, 2);

    // Keys that are no release keys, and files that are no keys.
    let refused = plane.try_run(&push(&second, &["--release-key", &file]));
    refused.failure(1, &[&file, "is no release key of root 1", &format!("--add {public}")]);
    let mut command = plane.command(&["model", "sign", "digits", "2"]);
    support::plane::said(command.env("DUNLIN_RELEASE_KEY", &artifact))
        .failure(1, &[&artifact, "is not text"]);
    let none = bench.path("no-keys");
    plane
        .try_run(&["model", "sign", "digits", "2", "--keys", &none])
        .failure(1, &[&none, "holds no release key", "--release-key KEY.pem"]);
    let pushed = plane.try_run(&push(&second, &["--keys", &none])).success();
    assert!(pushed.stdout.contains("dunlin model sign digits 2"), "{}", pushed.stdout);
    plane
        .try_run(&["model", "sign", "digits", "2", "--artifact", &artifact])
        .failure(1, &[&artifact, "digits version 2 is another artifact"]);
    plane.try_run(&["model", "sign", "digits", "9"]).failure(4, &["digits/9"]);
}

#[test]
fn two_of_three_owners_sign_one_after_another_and_a_revoked_key_counts_no_more() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    plane.run(&["keys", "create"]);
    let (second, second_key) = owner(&bench, 2);
    let (third, third_key) = owner(&bench, 3);
    plane.run(&[
        "keys",
        "change",
        "--role",
        "release",
        "--add",
        &second_key,
        "--add",
        &third_key,
        "--threshold",
        "2",
    ]);
    plane.fleet("meters");
    plane.device("meters", "pump-1");
    let assign = ["device", "assign", "pump-1", "digits=1"];

    let pushed = plane.try_run(&push(&artifact, &["--floor", "1"])).success();
    let missing = "signed: 1 of 2 signatures; another owner adds one with: dunlin model sign digits 1\n";
    assert!(pushed.stdout.ends_with(missing), "{}", pushed.stdout);
    plane.try_run(&assign).failure(5, &["signed by 1 of the 2 keys", "dunlin model sign digits 1"]);
    // The second owner signs the same: what the first one said about it stays.
    let sign = |key: &str| plane.run(&["model", "sign", "digits", "1", "--release-key", key]);
    let signed = sign(&second);
    assert_eq!((&signed["complete"], &signed["floor"]), (&json!(true), &json!(1)));
    let keys = signed["keys"].as_array().expect("keys");
    assert!(keys.contains(&json!(second_key)), "{signed}");
    plane.run(&assign);

    // Without the second key the signature of the first one is alone again.
    plane.run(&["keys", "revoke", &second_key]);
    let shown = plane.run(&["model", "show", "digits=1"]);
    assert_eq!((&shown["release"]["complete"], &shown["release"]["signatures"]), (&json!(false), &json!(1)));
    plane
        .try_run(&["device", "assign", "pump-1", "other=digits:1"])
        .failure(5, &["signed by 1 of the 2 keys"]);
    plane
        .try_run(&["model", "sign", "digits", "1", "--release-key", &second])
        .failure(1, &[&second, "is no release key of root 3"]);
    assert_eq!(sign(&third)["complete"], true);
    plane.run(&["device", "assign", "pump-1", "other=digits:1"]);
}

#[test]
fn release_keys_that_stay_offline_sign_a_file() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    plane.run(&["keys", "create"]);
    let (offline, public) = owner(&bench, 2);
    plane.run(&["keys", "rotate", "--role", "release", "--with", &public]);
    let pushed = plane.try_run(&push(&artifact, &[])).success();
    assert!(pushed.stdout.contains("holds no release key"), "{}", pushed.stdout);
    let file = bench.path("digits-1.release");
    let written =
        plane.run(&["model", "sign", "digits", "1", "--floor", "1", "--hardware", "mcu", "--out", &file]);
    assert_eq!((&written["model"], &written["signers"]), (&json!("digits"), &json!([])));
    plane.try_run(&["keys", "submit", &file]).failure(1, &[&file, "nobody has signed it"]);
    // On the other machine: no server. What is signed is shown.
    let none = bench.path("none");
    let arguments = ["keys", "--dir", &none, "sign", &file, "--key", &offline];
    let signed = support::dunlin(&arguments).success().stdout;
    let digest = written["digest"].as_str().expect("a digest");
    for part in ["release of digits version 1\n", digest, "mcu", &public] {
        assert!(signed.contains(part), "{signed}");
    }
    assert_eq!(plane.run(&["keys", "show", &file])["signers"], json!([public]));
    let taken = plane.try_run(&["keys", "submit", &file]).success().stdout;
    assert!(taken.ends_with("signed: 1 of 1 signatures\n"), "{taken}");
    let release = plane.run(&["model", "show", "digits=1"])["release"].clone();
    assert_eq!((&release["complete"], &release["floor"]), (&json!(true), &json!(1)));
}

/// A device that says what its slot holds.
struct Device {
    connection: Raw,
    seq: u64,
}

impl Device {
    fn connect(plane: &Plane, id: &str, password: &str) -> Self {
        let (connection, code) = Raw::connect(plane.mqtt_port, id, id, password).expect("a connection");
        assert_eq!(code, 0);
        Device { connection, seq: 0 }
    }

    fn tell(&mut self, id: &str, digest: &str, status: SlotStatus, reason: &str) {
        let mut model = [0; 32];
        hex::decode_to_slice(digest, &mut model).expect("a digest");
        let slots = [SlotState { slot: "digits", model, status, reason }];
        let state = State {
            agent_version: "test",
            hardware: "test",
            slots: slots.as_slice().into(),
            ..State::default()
        };
        let mut body = [0; 512];
        let len = state.encode(&mut body).expect("it fits");
        let message = message::message(self.seq, self.seq, &body[..len]);
        self.connection.publish(1, &format!("d/{id}/up/state"), &message).expect("sent");
        self.connection.acknowledged(1).expect("taken");
        self.seq += 1;
    }
}

#[test]
fn models_are_assigned_and_their_way_is_watched() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    plane.fleet("meters");
    let password = plane.device("meters", "pump-1");
    let digest = |file: &str| plane.run(&push(file, &[]))["digest"].as_str().expect("a digest").to_owned();
    let (first, second) = (digest(&artifact), digest(&another(&bench, "second")));
    let watcher = Watcher::start(&plane, &["device", "watch", "pump-1"]);
    let programs = Watcher::start(&plane, &["device", "watch", "pump-1", "--json"]);
    // Until both of them look.
    let mut seen = [false; 2];
    support::plane::wait_for("the watchers", || {
        plane.run(&["device", "block", "pump-1"]);
        plane.run(&["device", "unblock", "pump-1"]);
        for (seen, watcher) in seen.iter_mut().zip([&watcher, &programs]) {
            *seen = *seen || watcher.lines.try_recv().is_ok();
        }
        seen == [true; 2]
    });
    let next = || loop {
        let line = watcher.line();
        if line.contains("  state  ") {
            return line;
        }
    };

    let shown = plane.try_run(&["device", "assign", "pump-1", "digits=1", "--set", "rate=5"]).success();
    assert_eq!(shown.stdout, "pump-1, generation 2: digits=digits:1\n");
    assert_eq!(next(), "pump-1  state  digits assigned digits:1");
    let mut device = Device::connect(&plane, "pump-1", &password);
    device.tell("pump-1", &first, SlotStatus::Running, "");
    assert_eq!(next(), "pump-1  state  digits running digits:1");

    // The settings stay while the model does.
    let desired =
        plane.run(&["device", "assign", "pump-1", "digits=2", "--set", "gain=2"])["desired"].clone();
    assert_eq!(desired["slots"][0]["settings"], json!({ "rate": "5", "gain": "2" }));
    assert_eq!(next(), "pump-1  state  digits assigned digits:2");
    for (digest, status, reason, line) in [
        (&second, SlotStatus::Trial, "", "digits trial digits:2"),
        (&second, SlotStatus::Running, "", "digits committed digits:2"),
        (&first, SlotStatus::Trial, "", "digits trial digits:1"),
        (
            &second,
            SlotStatus::Running,
            "3 of 3 inferences failed",
            "digits reverted digits:2: 3 of 3 inferences failed",
        ),
        (
            &second,
            SlotStatus::Failed,
            "golden vector 1 differs",
            "digits failed digits:2: golden vector 1 differs",
        ),
    ] {
        device.tell("pump-1", digest, status, reason);
        assert_eq!(next(), format!("pump-1  state  {line}"));
    }
    let trial = loop {
        let event: Value = serde_json::from_str(&programs.line()).expect("an object a line");
        if event["slots"][0]["change"] == "trial" {
            break event;
        }
    };
    let slot = json!({ "slot": "digits", "change": "trial", "holds": "digits:2", "reason": "" });
    assert_eq!(trial["slots"], json!([slot]));

    // Several slots at once, and taken back.
    let shown =
        plane.try_run(&["device", "assign", "pump-1", "a=digits:1", "digits=2", "--set", "rate-"]).success();
    assert_eq!(shown.stdout, "pump-1, generation 5: a=digits:1 digits=digits:2\n");
    let shown = plane.try_run(&["device", "unassign", "pump-1", "a"]).success();
    assert_eq!(shown.stdout, "pump-1, generation 6: a=nothing digits=digits:2\n");
    plane.try_run(&["device", "unassign", "pump-1", "b"]).failure(4, &["nothing was assigned", "\"b\""]);
    assert!(plane.try_run(&["device", "show", "pump-1"]).success().stdout.contains("assigned"));

    plane.try_run(&["device", "assign", "pump-1", "digits=9"]).failure(1, &["there is no version 9"]);
    plane.try_run(&["device", "assign", "pump-9", "digits=1"]).failure(4, &["pump-9"]);
    plane.try_run(&["device", "assign", "pump-1", "digits=1", "--set", "x"]).failure(2, &["KEY=VALUE"]);
    let wrong = plane.try_run(&["device", "assign", "pump-1", "digits"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("kws=7"), "{}", wrong.stderr);
}

/// The public part of a test's digest arguments.
const DATASET: &str = "abababababababababababababababababababababababababababababababab";

#[test]
fn a_model_file_is_compiled_by_the_control_plane_and_signed() {
    let bench = Bench::new();
    let mut plane = Plane::start(&bench, "data", &[]);
    plane.run(&["keys", "create"]);
    let model = support::model_file("digits_resnet_int8.tflite");
    let pushed = plane.run(&push(&model, &["--run", "exp-7", "--dataset", DATASET, "--floor", "1"]));
    assert_eq!((&pushed["version"], &pushed["has_report"]), (&json!(1), &json!(true)));
    assert_eq!((&pushed["release"]["complete"], &pushed["release"]["floor"]), (&json!(true), &json!(1)));
    let lineage = &pushed["lineage"];
    assert_eq!((&lineage["run"], &lineage["dataset"]), (&json!("exp-7"), &json!(DATASET)));
    assert_eq!(lineage["source"], pushed["artifact"]["source_digest"]);
    let shown = plane.try_run(&["model", "show", "digits=1"]).success().stdout;
    assert!(shown.contains("exp-7") && shown.contains(DATASET), "{shown}");

    // An artifact says itself what it was compiled from.
    let artifact = another(&bench, "second");
    let uploaded = plane.run(&push(&artifact, &[]));
    assert_eq!((&uploaded["version"], &uploaded["has_report"]), (&json!(2), &json!(false)));
    assert_eq!(uploaded["lineage"]["source"], lineage["source"]);

    let damaged = &std::fs::read(&model).expect("a model")[..1000];
    let damaged = bench.file("damaged.tflite", damaged);
    plane.try_run(&push(&damaged, &[])).failure(1, &[&damaged]);
    let onnx = bench.file("model.onnx", b"model");
    plane.try_run(&push(&onnx, &[])).failure(2, &[&onnx, "ONNX", ".tflite"]);
    plane.try_run(&push(&artifact, &["--dataset", "x"])).failure(1, &["dataset", "64 hexadecimal digits"]);

    // Nobody waits for it, and the server is killed meanwhile: it is compiled all the same.
    let other = support::model_file("digits_cnn_int16.tflite");
    let waiting = plane.try_run(&push(&other, &["--no-wait"])).success();
    assert!(waiting.stdout.contains("`dunlin model compilations digits`"), "{}", waiting.stdout);
    plane.kill();
    plane.resume();
    support::plane::wait_for("the compilation", || {
        plane.run(&["model", "compilations", "digits"])[0]["status"] == "done"
    });
    let list = plane.try_run(&["model", "compilations", "digits"]).success().stdout;
    assert!(list.contains("done") && list.contains("failed"), "{list}");
    assert_eq!(plane.run(&["model", "show", "digits=3"])["release"], Value::Null);
    assert_eq!(plane.run(&["model", "sign", "digits", "3"])["complete"], true);
}

#[test]
fn an_alias_stands_for_a_version() {
    let bench = Bench::new();
    let plane = Plane::start(&bench, "data", &[]);
    let (artifact, _) = digits(&bench);
    for file in [&artifact, &another(&bench, "second")] {
        plane.run(&push(file, &[]));
    }
    plane.fleet("meters");
    plane.device("meters", "pump-1");
    assert!(plane.try_run(&["model", "alias", "digits"]).success().stdout.starts_with("no aliases"));
    let alias =
        |version: &str| plane.try_run(&["model", "alias", "digits", "champion", version]).success().stdout;
    assert_eq!(alias("1"), "digits@champion is version 1\n");
    let assigned = || plane.try_run(&["device", "assign", "pump-1", "a=digits:@champion"]).success().stdout;
    assert!(assigned().ends_with("a=digits:1\n"));
    assert_eq!(alias("2"), "digits@champion is version 2\n");
    assert!(assigned().ends_with("a=digits:2\n"));
    assert_eq!(plane.run(&["model", "alias", "digits", "champion"])["version"], 2);
    assert!(plane.try_run(&["model", "alias", "digits"]).success().stdout.contains("champion"));
    assert_eq!(plane.run(&["model", "show", "digits=2"])["aliases"], json!(["champion"]));
    plane.try_run(&["model", "alias", "digits", "champion", "9"]).failure(1, &["no version 9"]);
    plane.try_run(&["model", "alias", "digits", "champion", "--remove"]).success();
    plane.try_run(&["model", "alias", "digits", "champion"]).failure(4, &["digits@champion"]);
    plane.try_run(&["device", "assign", "pump-1", "digits=@champion"]).failure(4, &["digits@champion"]);
}
