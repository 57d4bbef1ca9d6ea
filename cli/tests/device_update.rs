//! The firmware example under the real control plane: a device without std fetches its models over MQTT into flash,
//! tries them, keeps them or goes back, with nobody at the device.

#![cfg(unix)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use dunlin_artifact::layout::header;
use dunlin_artifact::writer::Contents;
use dunlin_artifact::{Artifact, DType, Digester, Manifest, Place, Tensor};
use dunlin_compiler::AlignedBytes;
use dunlin_device::host::{Done, Options, device};
use serde_json::Value;
use support::plane::{Plane, digits, wait_for};
use support::{Bench, Npy, model_file};

const DEVICE: &str = "pump-1";

/// A control plane with keys, a model in it, and what the device needs.
struct Site {
    plane: Plane,
    bench: Bench,
    /// The first version of the model digits, also built into the firmware.
    first: String,
    options: Options,
}

/// The device, in a thread of its own as its future is not Send.
struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Done>,
}

impl Running {
    fn end(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends")
    }
}

impl Site {
    fn new() -> Self {
        let bench = Bench::new();
        let plane = Plane::start(&bench, "data", &[]);
        let (first, input) = digits(&bench);
        let root = bench.path("root.bin");
        plane.run(&["keys", "create"]);
        plane.run(&["keys", "export", &root]);
        plane.fleet("pumps");
        let broker = ([127, 0, 0, 1], plane.mqtt_port).into();
        let bytes = std::fs::read(&first).expect("an artifact");
        let options = Options {
            password: Some(plane.device("pumps", DEVICE)),
            slot: "digits".into(),
            flash: Some(bench.path("flash").into()),
            root: Some(std::fs::read(root).expect("a root")),
            inputs: Npy::read(&input).bytes,
            every_ms: 5,
            window_ms: 100,
            ..Options::new(broker, DEVICE, &first, bytes)
        };
        let site = Site { plane, bench, first, options };
        assert_eq!(site.push(&site.first), 1);
        site
    }

    fn push(&self, artifact: &str) -> u64 {
        let pushed = self.plane.run(&["model", "push", artifact, "--name", "digits"]);
        assert_eq!(pushed["release"]["complete"], true, "{pushed}");
        pushed["version"].as_u64().expect("a version")
    }

    /// Another artifact of the same model: its name differs.
    fn another(&self, name: &str) -> String {
        let artifact = self.bench.path(&format!("{name}.dunlin"));
        let (model, input) = (model_file("digits_resnet_int8.tflite"), model_file("digits_x_int8.npy"));
        support::dunlin(&["compile", &model, "--calibrate", &input, "--name", name, "-o", &artifact])
            .success();
        artifact
    }

    fn start(&self) -> Running {
        self.start_with(|_| {})
    }

    fn start_with(&self, change: impl FnOnce(&mut Options)) -> Running {
        let mut options = Options { stop: Arc::default(), ..self.options.clone() };
        change(&mut options);
        let stop = Arc::clone(&options.stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let running = device(options);
            runtime.expect("a runtime").block_on(running).map_err(|error| error.to_string()).expect("it runs")
        });
        Running { stop, thread }
    }

    fn assign(&self, version: u64) {
        let assigned = format!("digits={version}");
        self.plane.run(&["device", "assign", DEVICE, &assigned, "--set", "trial.windows=1"]);
    }

    /// What the device says of its slot.
    fn slot(&self) -> Value {
        let shown = self.plane.try_run(&["device", "show", DEVICE, "--json"]);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        shown["slots"][0].clone()
    }

    #[track_caller]
    fn wait(&self, status: &str, version: u64, reason: &str) {
        let mut last = Value::Null;
        let mut is_so = || {
            last = self.slot();
            let is_said = last["reason"].as_str().is_some_and(|said| match reason {
                "" => said.is_empty(),
                part => said.contains(part),
            });
            last["status"] == status && last["version"] == version && is_said
        };
        wait_for(&format!("{status} {version} {reason:?}"), &mut is_so);
    }

    /// The kinds of the device's events, and what they say.
    fn events(&self) -> Vec<(String, String)> {
        let (status, body) = self.plane.get(&format!("/api/v1/devices/{DEVICE}/events"));
        assert_eq!(status, 200);
        let listed: Value = serde_json::from_slice(&body).expect("JSON");
        let items = listed["items"].as_array().expect("events").iter();
        let text = |event: &Value, key: &str| event[key].as_str().expect("text").to_owned();
        items.map(|event| (text(event, "kind"), text(event, "detail"))).collect()
    }

    fn starts(&self) -> usize {
        self.events().iter().filter(|(kind, _)| kind == "restarted").count()
    }

    /// Inferences of a version.
    fn inferences(&self, version: u64) -> u64 {
        let stats = self.plane.run(&["stats"]);
        let items = stats["items"].as_array().expect("items").iter();
        items
            .filter(|item| item["version"] == version)
            .map(|item| item["inferences"].as_u64().expect("a count"))
            .sum()
    }

    /// The control plane has every inference of these lives, and none failed.
    fn counted_is(&self, done: &[Done]) {
        let inferences = done.iter().map(|done| done.totals.inferences).sum();
        assert!(done.iter().all(|done| done.totals.failures == 0 && done.totals.inferences > 0));
        assert_eq!(self.plane.counted(), (inferences, 0));
    }
}

#[test]
fn what_is_assigned_is_fetched_over_mqtt_tried_kept_and_survives_a_restart() {
    let mut site = Site::new();
    let (second, third) = (site.push(&site.another("second")), site.push(&site.another("third")));
    let running = site.start();
    site.wait("running", 1, "");
    site.assign(second);
    site.wait("running", second, "");
    let first_life = running.end();
    assert_eq!(first_life.version.map(u64::from), Some(second));
    // Nobody is there to give it anything: what runs from the first inference on comes from flash.
    let built_in = site.inferences(1);
    site.plane.kill();
    let running = site.start();
    site.plane.resume();
    wait_for("a second start", || site.starts() == 2);
    site.assign(third);
    site.wait("running", third, "");
    // Back to the version before, which is still whole in the other bank.
    site.assign(second);
    site.wait("running", second, "");
    let second_life = running.end();
    assert_eq!((second_life.version, second_life.digest), (first_life.version, first_life.digest));
    assert_eq!(site.inferences(1), built_in);
    // And to what is built in.
    let running = site.start();
    site.plane.run(&["device", "unassign", DEVICE, "digits"]);
    site.wait("running", 1, "");
    let third_life = running.end();
    assert_eq!(third_life.version, None);
    site.counted_is(&[first_life, second_life, third_life]);
    let events = site.events();
    assert!(events.iter().all(|(kind, _)| kind == "restarted" || kind == "queue_merged"), "{events:?}");
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
fn a_model_that_this_device_computes_wrongly_or_cannot_feed_never_stays() {
    let site = Site::new();
    let wrong = site.push(&with_wrong_golden(&site.bench, &site.another("second")));
    // It takes other inputs than this product has.
    let other = site.push(&site.bench.compiled("keyword_dscnn_int8"));
    let running = site.start();
    site.wait("running", 1, "");
    site.assign(wrong);
    site.wait("running", 1, "version 2 a golden vector came out wrong on this device");
    site.assign(other);
    site.wait("running", 1, "version 3 could not be started");
    let done = running.end();
    assert_eq!(done.version, None);
    site.counted_is(&[done]);
    let mut events = site.events();
    // The connection is made anew when the model changes; windows of 100 ms do not all fit into the ring meanwhile.
    events.retain(|(kind, _)| kind != "queue_merged");
    let told = |kind: &str, detail: &str| {
        events.iter().filter(|event| event.0 == kind && event.1.contains(detail)).count()
    };
    assert_eq!((told("golden_mismatch", "golden vector"), told("reverted", "could not be started")), (1, 1));
    assert_eq!(events.len(), 3, "{events:?}");
}

#[test]
fn a_device_without_a_root_installs_nothing_and_says_so() {
    let site = Site::new();
    let second = site.push(&site.another("second"));
    let running = site.start_with(|options| options.root = None);
    site.wait("running", 1, "");
    site.assign(second);
    site.wait("running", 1, "no root is built in: dunlin keys export");
    let done = running.end();
    let events = site.events();
    assert!(
        events.iter().any(|event| event.0 == "assignment_refused" && event.1.contains("no root is built in")),
        "{events:?}"
    );
    // The next firmware has one.
    let running = site.start();
    site.wait("running", second, "");
    site.counted_is(&[done, running.end()]);
}

/// An artifact of 400 KB that takes and gives a single byte, and computes nothing.
fn large(bench: &Bench, name: &str) -> String {
    let manifest = Manifest {
        name,
        producer: "test",
        target: "generic",
        source_format: "none",
        source_digest: [0; 32],
        macs: 0,
        arena_bound: 64,
        io_names: "",
    };
    let contents = Contents {
        manifest,
        tensors: vec![Tensor::new(DType::I8, &[1, 1], Place::Arena(0), 1.0, 0).expect("a tensor")],
        program: vec![],
        data: (0..400 << 10).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        inputs: vec![0],
        outputs: vec![0],
        states: vec![],
        golden: vec![],
        baseline: None,
        arena_len: 64,
        state_len: 0,
        work: 0,
    };
    bench.file(&format!("{name}.dunlin"), &contents.write())
}

/// How many bytes of flash are not erased.
fn written(path: &str) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte != 0xff).count())
}

#[test]
fn a_server_that_is_killed_during_the_transfer_is_asked_for_the_rest() {
    let mut site = Site::new();
    let first = large(&site.bench, "large-1");
    let size = std::fs::metadata(&first).expect("an artifact").len() as usize;
    let (first, second) = (site.push(&first), site.push(&large(&site.bench, "large-2")));
    site.options.artifact = std::fs::read(site.bench.path("large-1.dunlin")).expect("an artifact");
    let bank = site.bench.path("flash/a.flash");
    let running = site.start();
    site.wait("running", first, "");
    site.assign(second);
    // More than is in flight, and not all of it: the server gives 50 KB a second after the first 100.
    let mut there = 0;
    for least in [1, size / 3] {
        wait_for("bytes", || {
            let now = written(&bank);
            assert!(now >= there, "{now} of {there} bytes: it began anew");
            now > least
        });
        site.plane.kill();
        there = written(&bank);
        assert!(there < size * 9 / 10, "{there} of {size} bytes: too many to see it resume");
        site.plane.resume();
    }
    site.wait("running", second, "");
    let done = running.end();
    assert_eq!(done.version.map(u64::from), Some(second));
    site.counted_is(&[done]);
}
