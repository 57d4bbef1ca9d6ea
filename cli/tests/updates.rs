//! A model's way to a running device and back, with nobody at the device: keys, push, assign, trial, commit, revert.

#![cfg(unix)]

mod support;

use std::process::Command;

use dunlin_artifact::layout::header;
use dunlin_artifact::{Artifact, Digester};
use dunlin_compiler::AlignedBytes;
use serde_json::Value;
use support::plane::{AgentProcess, Plane, digits, wait_for};
use support::{Bench, model_file};

/// Another artifact of the same model: its name differs.
fn another(bench: &Bench, name: &str) -> String {
    let artifact = bench.path(&format!("{name}.dunlin"));
    let (model, input) = (model_file("digits_resnet_int8.tflite"), model_file("digits_x_int8.npy"));
    support::dunlin(&["compile", &model, "--calibrate", &input, "--name", name, "-o", &artifact]).success();
    artifact
}

/// A control plane with keys and a fleet, and what devices need.
struct Site {
    bench: Bench,
    plane: Plane,
    claim: String,
    input: String,
    /// The first version of the model digits.
    first: String,
}

impl Site {
    fn new() -> Self {
        let bench = Bench::new();
        let plane = Plane::start(&bench, "data", &[]);
        let (first, input) = digits(&bench);
        plane.run(&["keys", "create"]);
        let site = Site { claim: plane.fleet("pumps"), plane, bench, input, first };
        site.push(&site.first);
        site
    }

    fn push(&self, artifact: &str) -> u64 {
        let pushed = self.plane.run(&["model", "push", artifact, "--name", "digits"]);
        assert_eq!(pushed["release"]["complete"], true, "{pushed}");
        pushed["version"].as_u64().expect("a version")
    }

    /// A device whose slot the control plane fills.
    fn agent(&self, device: &str, more: &[&str]) -> AgentProcess {
        AgentProcess::start(self.command(device, more))
    }

    fn command(&self, device: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command
            .args(["agent", "--json", "--server", self.plane.http(), "--device", device, "--slot", "digits"])
            .args(["--input", &self.input, "--state-dir", &self.bench.path(device)])
            .args(["--rate", "200", "--window", "100ms", "--patience", "110s"])
            .args(more)
            .env("DUNLIN_CLAIM", &self.claim);
        command
    }

    fn assign(&self, device: &str, version: u64) {
        let assigned = format!("digits={version}");
        self.plane.run(&["device", "assign", device, &assigned, "--set", "trial.windows=2"]);
    }

    /// What the device says of its slot.
    fn slot(&self, device: &str) -> Value {
        let shown = self.plane.try_run(&["device", "show", device, "--json"]);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        shown["slots"][0].clone()
    }

    #[track_caller]
    fn wait(&self, device: &str, status: &str, version: Option<u64>) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("{status} of version {version:?}"), || {
            last = self.slot(device);
            last["status"] == status && last["version"].as_u64() == version
        });
        last
    }

    /// The kinds of the device's events, and what they say.
    fn events(&self, device: &str) -> Vec<(String, String)> {
        let (status, body) = self.plane.get(&format!("/api/v1/devices/{device}/events"));
        assert_eq!(status, 200);
        let listed: Value = serde_json::from_slice(&body).expect("JSON");
        let items = listed["items"].as_array().expect("events").iter();
        let text = |event: &Value, key: &str| event[key].as_str().expect("text").to_owned();
        items.map(|event| (text(event, "kind"), text(event, "detail"))).collect()
    }
}

#[test]
fn what_is_assigned_is_fetched_tried_and_kept_and_nothing_is_lost_of_what_was_counted() {
    let site = Site::new();
    let second = site.push(&another(&site.bench, "second"));
    let agent = site.agent("pump-1", &[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    assert_eq!(site.wait("pump-1", "running", Some(1))["reason"], "");
    site.assign("pump-1", second);
    assert_eq!(site.wait("pump-1", "running", Some(second))["reason"], "");
    // Back: a new assignment of the old version, which is still on the device.
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    // A restart runs what was kept, with nobody to ask.
    let report = agent.terminate();
    assert_eq!(report["failures"], 0, "{report}");
    let counted = |report: &Value| report["inferences"].as_u64().expect("a count");
    let again = site.agent("pump-1", &["--count", "100"]).finish();
    assert_eq!((counted(&again), &again["model"]), (100, &report["model"]));
    assert_eq!(site.plane.counted(), (counted(&report) + 100, 0));
    let kinds: Vec<String> = site.events("pump-1").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["restarted", "restarted"]);
}

/// The artifact with a golden output that no device computes, and the digest that belongs to it.
fn with_wrong_golden(bench: &Bench, artifact: &str) -> String {
    let mut bytes = AlignedBytes::new(&std::fs::read(artifact).expect("an artifact"));
    let read = Artifact::parse(bytes.as_slice()).expect("an artifact");
    let outputs = read.golden().nth(1).expect("a second golden vector").outputs;
    let at = outputs.as_ptr().addr() - bytes.as_slice().as_ptr().addr();
    bytes.as_mut_slice()[at] ^= 0x55;
    let mut digester = Digester::new();
    digester.update(bytes.as_slice());
    let digest = digester.finish();
    bytes.as_mut_slice()[header::DIGEST..header::SIZE].copy_from_slice(&digest);
    bench.file("wrong.dunlin", bytes.as_slice())
}

#[test]
fn a_model_that_this_machine_computes_wrongly_never_runs() {
    let site = Site::new();
    let wrong = site.push(&with_wrong_golden(&site.bench, &another(&site.bench, "second")));
    let agent = site.agent("pump-1", &["--artifact", &site.first]);
    site.wait("pump-1", "running", Some(1));
    site.assign("pump-1", wrong);
    let mut slot = Value::Null;
    wait_for("the reason", || {
        slot = site.slot("pump-1");
        slot["reason"].as_str().is_some_and(|reason| reason.contains("golden"))
    });
    assert_eq!((&slot["status"], &slot["version"]), (&"running".into(), &1.into()), "{slot}");
    let reason = slot["reason"].as_str().expect("a reason");
    assert!(reason.contains("version 2") && reason.contains("vector 1: output 0 element 0"), "{reason}");
    let report = agent.terminate();
    assert_eq!(site.plane.counted(), (report["inferences"].as_u64().expect("a count"), 0));
    let events = site.events("pump-1");
    assert!(
        events.iter().any(|(kind, detail)| kind == "golden_mismatch" && detail.contains("vector 1")),
        "{events:?}"
    );
    let shown = site.plane.run(&["stats"]);
    assert!(shown["items"].as_array().expect("items").iter().all(|item| item["version"] == 1), "{shown}");
}

#[test]
fn a_model_that_fails_on_trial_gives_way_to_the_one_before_it() {
    let site = Site::new();
    // It takes other inputs than this application has: it can be started nowhere.
    let model = model_file("keyword_dscnn_int8.tflite");
    let other = site.bench.path("other.dunlin");
    support::dunlin(&["compile", &model, "-o", &other]).success();
    let other = site.push(&other);
    let agent = site.agent("pump-1", &[]);
    wait_for("the device", || site.plane.try_run(&["device", "show", "pump-1"]).code == 0);
    site.assign("pump-1", 1);
    site.wait("pump-1", "running", Some(1));
    site.assign("pump-1", other);
    let mut slot = Value::Null;
    wait_for("the reason", || {
        slot = site.slot("pump-1");
        slot["reason"].as_str().is_some_and(|reason| reason.contains("could not be started"))
    });
    assert_eq!((&slot["status"], &slot["version"]), (&"running".into(), &1.into()), "{slot}");
    agent.terminate();
    let events = site.events("pump-1");
    assert!(
        events.iter().any(|(kind, detail)| kind == "reverted" && detail.contains("started")),
        "{events:?}"
    );
}
