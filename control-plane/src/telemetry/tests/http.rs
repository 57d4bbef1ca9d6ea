//! From a device's message to the API's answer, through the whole application.

use axum::body::Body;
use axum::http::{Method, Request, header};
use dunlin_artifact::baseline::{Part, Source};
use dunlin_artifact::writer::{self, Baseline, Contents, Feature, instruction};
use dunlin_artifact::{DType, Kernel, Manifest, Place, Tensor, op};
use dunlin_monitor::{FeatureKind, Latency, Period, Shape, Totals, Window};
use dunlin_protocol::{Ack, Event, EventKind, Label, LabelCount, List, ReportEncoder, State};
use serde_json::{Value, json};

use super::devices::message;
use crate::access::{Role, Scope};
use crate::bus::{DeviceId, DownKind, Outcome, UpKind};
use crate::live::LiveEvent;
use crate::telemetry::background;
use crate::testing::{START_US, TestApp};

/// A model that looks eight values up, with a baseline of a numeric feature and one of classes.
fn artifact() -> Vec<u8> {
    let tensor = |shape: &[u32], place| Tensor::new(DType::I8, shape, place, 0.5, -3).unwrap();
    let feature =
        |name: &str, source, part, bins| Feature { name: name.into(), source, part, bins, missing: 3 };
    let numeric = writer::Bins::Numeric {
        edges: vec![-1.0, 0.0, 2.5],
        counts: vec![1, 2, 3, 4],
        min: -7.5,
        max: 63.5,
        unit: 0.5,
        zero: 1.0,
        sum: -5,
        squares: 100,
    };
    let features = vec![
        feature("loudness", Source::Input(0), Part::Elements { stride: 1 }, numeric),
        feature("word", Source::Output(0), Part::ArgMax, writer::Bins::Classes { counts: (0..8).collect() }),
    ];
    let contents = Contents {
        manifest: Manifest {
            name: "kws",
            producer: "test",
            target: "generic",
            source_format: "none",
            source_digest: [7; 32],
            macs: 42,
            arena_bound: 24,
            io_names: "in\nout",
        },
        tensors: vec![
            tensor(&[8], Place::Arena(8)),
            tensor(&[8], Place::Arena(16)),
            tensor(&[256], Place::Data(0)),
        ],
        program: vec![instruction(Kernel::Lut8, &op::Lut8 { input: 0, output: 1, table: 2 })],
        data: (0..=255).collect(),
        inputs: vec![0],
        outputs: vec![1],
        states: vec![],
        golden: vec![],
        baseline: Some(Baseline { samples: 10, features }),
        arena_len: 24,
        state_len: 0,
        work: 1000,
    };
    contents.write()
}

struct Fixture {
    test: TestApp,
    device: DeviceId,
    digest: String,
    ingest: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn new() -> Self {
        let test = TestApp::new().await;
        test.clock.advance_s(12 * 3_600);
        test.post("/api/v1/models", json!({ "name": "kws" })).await.expect(201);
        let upload = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/models/kws/versions")
            .header(header::AUTHORIZATION, format!("Bearer {}", test.admin))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::from(artifact()))
            .unwrap();
        let version = test.send(upload).await.expect(201);
        let digest = version["digest"].as_str().unwrap().to_owned();
        test.post("/api/v1/fleets", json!({ "id": "north" })).await.expect(201);
        let claim = test.post("/api/v1/fleets/north/claims", json!({ "name": "k" })).await.expect(201);
        let body = json!({ "claim": claim["claim"], "hardware": "pi" });
        let enrolled = test.request(Method::POST, "/api/v1/enroll", None, &[], body).await.expect(201);
        let device = DeviceId::new(enrolled["device"].as_str().unwrap()).unwrap();
        let ingest = tokio::spawn(crate::telemetry::run(test.app.clone()));
        Fixture { test, device, digest, ingest }
    }

    fn model(&self) -> [u8; 32] {
        hex::decode(&self.digest).unwrap().try_into().unwrap()
    }

    /// 40 inferences of about 1 ms in the minute that begins `minutes` before noon.
    fn report(&self, minutes: u64) -> Vec<u8> {
        let shapes = [
            Shape { kind: FeatureKind::Numeric, counters: 4 },
            Shape { kind: FeatureKind::Classes, counters: 8 },
        ];
        let mut window: Window<2, 12> = Window::new(self.model(), shapes).unwrap();
        window.add_inferences(40);
        window.add_failures(dunlin_monitor::Failure::Deadline, 2);
        assert!(window.add_latencies(Latency::bucket(1_000), 40));
        window.add_latency_sum(40_000, 1_010);
        assert!(window.add_count(0, 0, 10) && window.add_count(0, 3, 30) && window.add_count(1, 5, 40));
        let totals = Totals { missing: 1, min: -2.0, max: 9.0, sum: 80, squares: 320 };
        assert!(window.add_totals(0, &totals));
        let start_unix_s = START_US.unsigned_abs() / 1_000_000 + 12 * 3_600 - minutes * 60;
        window.set_period(Period { start_unix_s, duration_ms: 30_000, closed_ms: 0, windows: 1 });
        let mut out = [0; 1_000];
        let len = ReportEncoder::new("main", &window).next_body(&mut out).unwrap().unwrap();
        out[..len].to_vec()
    }

    async fn send(&self, seq: u64, kind: UpKind, body: &[u8]) {
        let delivery = self.test.bus.deliver(&self.device, kind, message(9, seq, 0, 1, body)).await;
        assert_eq!(delivery.outcome().await, Outcome::Committed);
    }

    async fn stop(self) -> TestApp {
        self.test.bus.close();
        self.test.app.shutdown.cancel();
        self.ingest.await.unwrap();
        self.test
    }
}

#[tokio::test]
async fn reports_become_statistics_beside_the_baseline() {
    let fixture = Fixture::new().await;
    let test = &fixture.test;
    let mut live = test.app.live.subscribe();
    fixture.send(0, UpKind::Report, &fixture.report(3)).await;
    fixture.send(1, UpKind::Report, &fixture.report(2)).await;
    fixture.send(1, UpKind::Report, &fixture.report(2)).await;
    let mut out = [0; 300];
    let entries = [LabelCount { predicted: 5, label: 4, confidence_bin: 8, count: 3 }];
    let label = Label { slot: "main", model: fixture.model(), entries: List::from(entries.as_slice()) };
    let len = label.encode(&mut out).unwrap();
    fixture.send(2, UpKind::Label, &out[..len]).await;

    let path = "/api/v1/telemetry/models/kws/versions/1";
    let statistics = test.get(path).await.expect(200);
    assert_eq!(statistics["resolution"], "minute");
    let total = &statistics["total"];
    assert_eq!(
        (&total["inferences"], &total["failures"], &total["reports"]),
        (&json!(80), &json!(4), &json!(2))
    );
    assert_eq!(total["failures_by_kind"], json!([{ "kind": "deadline", "count": 4 }]));
    assert_eq!((&total["latency"]["count"], &total["latency"]["mean_us"]), (&json!(80), &json!(1000.0)));
    let median = &total["latency"]["quantiles"][0];
    let (low, high) = Latency::bounds(Latency::bucket(1_000));
    assert_eq!(median["q"], 0.5);
    assert_eq!((&median["low_us"], &median["high_us"]), (&json!(low), &json!((high - 1).min(1_010))));
    let loudness = &statistics["features"][0];
    assert_eq!((&loudness["name"], &loudness["kind"]), (&json!("loudness"), &json!("numeric")));
    assert_eq!(loudness["edges"], json!([-1.0, 0.0, 2.5]));
    assert_eq!(loudness["counts"], json!([20, 0, 0, 60]));
    assert_eq!((&loudness["underflow"], &loudness["overflow"]), (&json!(20), &json!(60)));
    assert_eq!(
        (&loudness["missing"], &loudness["min"], &loudness["max"]),
        (&json!(2), &json!(-2.0), &json!(9.0))
    );
    // 80 values whose steps add up to 160, their squares to 640: 2 steps on average, 2 of deviation.
    assert_eq!((&loudness["mean"], &loudness["std"]), (&json!(2.0), &json!(1.0)));
    assert_eq!(loudness["baseline"]["counts"], json!([1, 2, 3, 4]));
    assert_eq!(loudness["baseline"]["mean"], 0.75);
    assert_eq!(statistics["features"][1]["counts"][5], 80);
    assert_eq!(statistics["contradicting_features"], 0);
    assert_eq!(statistics["confusion"], json!([{ "predicted": 5, "label": 4, "confidence": 8, "count": 3 }]));
    let series = statistics["series"].as_array().unwrap();
    let minutes: Vec<&str> = series.iter().map(|entry| entry["start"].as_str().unwrap()).collect();
    assert_eq!(minutes, ["2026-01-01T11:57:00.000000Z", "2026-01-01T11:58:00.000000Z"]);

    let by_digest = test.get(&format!("/api/v1/telemetry/digests/{}", fixture.digest)).await.expect(200);
    assert_eq!(by_digest, statistics);
    let summary = test.get("/api/v1/telemetry/summary").await.expect(200);
    let item = &summary["items"][0];
    assert_eq!(
        (&item["model"], &item["version"], &item["cohort"]),
        (&json!("kws"), &json!(1), &json!("north/pi"))
    );
    assert_eq!(item["inferences"], 80);
    let counters = test.get("/api/v1/telemetry/counters").await.expect(200);
    assert_eq!(
        (&counters["received"], &counters["applied"], &counters["duplicates"]),
        (&json!(4), &json!(3), &json!(1))
    );
    let device = test.get(&format!("/api/v1/devices/{}/statistics", fixture.device)).await.expect(200);
    assert_eq!(
        (&device["inferences"], &device["reports"], &device["boots"]),
        (&json!(80), &json!(2), &json!(1))
    );

    // What the device was told, and those who look on.
    let acks = test.bus.take_sent();
    let ack = acks.iter().rev().find(|sent| sent.kind == DownKind::Ack).unwrap();
    assert_eq!(Ack::decode(&ack.payload).unwrap(), Ack { boot: 9, base: 3, bitmap: 0 });
    let told = live.recv().await.unwrap();
    assert!(
        matches!(&*told, LiveEvent::Telemetry { model: Some(model), version: Some(1), reports: 1, .. } if model == "kws"),
        "{told:?}"
    );
    let metrics = String::from_utf8(test.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains("dunlin_telemetry_messages_total{outcome=\"applied\"} 3"), "{metrics}");

    // The same numbers from the roll-ups, at each resolution.
    let test = fixture.stop().await;
    background::roll_up_all(&test.app).await.unwrap();
    for (resolution, intervals) in [("minute", 2), ("hour", 1), ("day", 1)] {
        let path =
            format!("{path}?resolution={resolution}&from=2026-01-01T11:00:00Z&to=2026-01-01T12:00:00Z");
        let again = test.get(&path).await.expect(200);
        assert_eq!(again["total"], *total);
        assert_eq!(again["features"], statistics["features"]);
        assert_eq!(again["series"].as_array().unwrap().len(), intervals);
    }
}

#[tokio::test]
async fn what_contradicts_the_registered_baseline_is_counted_apart() {
    let fixture = Fixture::new().await;
    fixture.send(0, UpKind::Report, &fixture.report(3)).await;
    // Reports that name this model: one bin too many, another kind, a feature that the baseline does not have.
    let numeric = |counters| Shape { kind: FeatureKind::Numeric, counters };
    let classes = |counters| Shape { kind: FeatureKind::Classes, counters };
    let layouts = [
        [numeric(5), classes(8), classes(2)],
        [classes(4), classes(8), classes(2)],
        [numeric(4), classes(8), numeric(4)],
    ];
    for (seq, shapes) in (1..).zip(layouts) {
        let mut window: Window<3, 20> = Window::new(fixture.model(), shapes).unwrap();
        window.add_inferences(7);
        for feature in 0..3 {
            assert!(window.add_count(feature, 1, 7));
        }
        let start_unix_s = START_US.unsigned_abs() / 1_000_000 + 12 * 3_600 - 180;
        window.set_period(Period { start_unix_s, duration_ms: 30_000, closed_ms: 0, windows: 1 });
        let mut out = [0; 1_000];
        let len = ReportEncoder::new("main", &window).next_body(&mut out).unwrap().unwrap();
        fixture.send(seq, UpKind::Report, &out[..len]).await;
    }
    let statistics = fixture.test.get("/api/v1/telemetry/models/kws/versions/1").await.expect(200);
    // Feature 0 with five bins and as classes; feature 2 as classes and as numeric.
    assert_eq!(statistics["contradicting_features"], 4, "{statistics}");
    assert_eq!(
        statistics["total"]["inferences"],
        40 + 3 * 7,
        "what no baseline is needed for counts all the same"
    );
    let features = statistics["features"].as_array().unwrap();
    assert_eq!(features.len(), 2, "those of the baseline");
    // Only counts of the same bins are added: the first report and the one whose feature 0 fits.
    assert_eq!(features[0]["counts"], json!([10, 7, 0, 30]));
    assert_eq!(features[1]["counts"][5], 40);
    assert_eq!(features[1]["counts"][1], 3 * 7);
    fixture.stop().await;
}

#[tokio::test]
async fn events_states_and_dead_letters_are_found_again() {
    let fixture = Fixture::new().await;
    let test = &fixture.test;
    let mut out = [0; 300];
    for (seq, detail) in [(0, "first"), (1, "second"), (2, "third")] {
        let event = Event { unix_s: 0, slot: "main", kind: EventKind::GoldenMismatch, value: 4, detail };
        let len = event.encode(&mut out).unwrap();
        fixture.send(seq, UpKind::Event, &out[..len]).await;
    }
    let state = State { agent_version: "1.2.3", hardware: "pi", ..State::default() };
    let len = state.encode(&mut out).unwrap();
    fixture.send(3, UpKind::State, &out[..len]).await;
    fixture.send(4, UpKind::Report, b"rubbish").await;
    let path = format!("/api/v1/devices/{}", fixture.device);
    assert_eq!(test.get(&path).await.expect(200)["agent_version"], "1.2.3");
    let page = test.get(&format!("{path}/events?limit=2")).await.expect(200);
    let details = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["detail"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(details(&page), ["third", "second"]);
    assert_eq!(page["items"][0]["kind"], "golden_mismatch");
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = test.get(&format!("{path}/events?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!((details(&page), &page["next_cursor"]), (vec!["first".to_owned()], &Value::Null));
    let letters = test.get("/api/v1/telemetry/dead-letters?reason=body").await.expect(200);
    assert_eq!(letters["items"].as_array().unwrap().len(), 1);
    assert_eq!(letters["items"][0]["fleet"], "north");
    fixture.stop().await;
}

#[tokio::test]
async fn tokens_see_their_fleet_and_model_only() {
    let fixture = Fixture::new().await;
    let test = &fixture.test;
    fixture.send(0, UpKind::Report, &fixture.report(2)).await;
    fixture.send(1, UpKind::Report, b"rubbish").await;
    let get = async |token: &str, path: &str| {
        test.request(Method::GET, &format!("/api/v1{path}"), Some(token), &[], Value::Null).await
    };
    let north = test.token(Role::Viewer, Scope::Fleet("north".to_owned())).await;
    let south = test.token(Role::Viewer, Scope::Fleet("south".to_owned())).await;
    let kws = test.token(Role::Viewer, Scope::Model("kws".to_owned())).await;
    let other = test.token(Role::Viewer, Scope::Model("other".to_owned())).await;
    let device = format!("/devices/{}/statistics", fixture.device);
    let version = "/telemetry/models/kws/versions/1";
    let digest = format!("/telemetry/digests/{}", fixture.digest);
    for (token, items, letters, device_status, version_status, inferences) in [
        (&north, 1, 1, 200, 200, 40),
        (&south, 0, 0, 403, 200, 0),
        (&kws, 1, 0, 403, 200, 40),
        (&other, 0, 0, 403, 403, 0),
    ] {
        let summary = get(token, "/telemetry/summary").await.expect(200);
        assert_eq!(summary["items"].as_array().unwrap().len(), items);
        let list = get(token, "/telemetry/dead-letters").await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), letters);
        assert_eq!(get(token, &device).await.status.as_u16(), device_status);
        for path in [version, &digest] {
            let answer = get(token, path).await.expect(version_status);
            if version_status == 200 {
                assert_eq!(answer["total"]["inferences"], inferences);
            }
        }
        assert_eq!(get(token, "/telemetry/counters").await.status.as_u16(), 403);
    }
    get(&north, "/telemetry/summary?fleet=south").await.expect(403);
    let unknown = format!("/telemetry/digests/{}", "0".repeat(64));
    assert_eq!(get(&test.admin, &unknown).await.expect(200)["total"]["reports"], 0);
    for (path, status) in [
        ("/telemetry/digests/xyz", 422),
        ("/telemetry/summary?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
        ("/telemetry/summary?resolution=minute&from=2020-01-01T00:00:00Z", 422),
        ("/telemetry/summary?resolution=week", 400),
        ("/telemetry/summary?from=yesterday", 400),
        ("/telemetry/summary?from=0000-01-01T00:00:00Z&to=0000-01-01T00:00:01Z", 200),
        ("/telemetry/summary?slot=%00", 400),
        ("/telemetry/models/kws/versions/2", 404),
        ("/telemetry/models/kws/versions/x", 400),
        ("/devices/nobody/events", 404),
        ("/telemetry/dead-letters?cursor=x", 422),
    ] {
        assert_eq!(get(&test.admin, path).await.status.as_u16(), status, "{path}");
    }
    fixture.stop().await;
}
