//! What a report costs in ingest: from the bus to the durable commit (decoding, deduplication, counting), without MQTT.
//!
//! `cargo run --release -p dunlin-control-plane --example ingest_cost -- [--devices 400] [--reports 200000]
//! [--in-flight 2000] [--database postgres://…]`
//!
//! The database is SQLite in a temporary folder, unless another one is named (its contents stay). CPU time is that of
//! this process alone: PostgreSQL's is not in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request, header};
use dunlin_control_plane::access::{Caller, NewToken, Role, Scope, create_token};
use dunlin_control_plane::bus::{DeviceId, MemoryBus, Outcome, UpKind};
use dunlin_control_plane::clock::SystemClock;
use dunlin_control_plane::config::Config;
use dunlin_control_plane::db::{Db, migrations};
use dunlin_control_plane::{App, devices, http, telemetry};
use dunlin_monitor::{FeatureKind, Latency, Period, Shape, Window};
use dunlin_protocol::{Envelope, ReportEncoder};
use tower::ServiceExt as _;

#[tokio::main]
async fn main() {
    let devices: usize = option("--devices").map_or(400, |text| text.parse().expect("a number"));
    let reports: usize = option("--reports").map_or(200_000, |text| text.parse().expect("a number"));
    let in_flight: usize = option("--in-flight").map_or(2_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = || format!("sqlite:{}?mode=rwc", folder.path().join("cost.sqlite").display());
    let url = option("--database").unwrap_or_else(file);

    let (app, bus) = application(folder.path(), &url, in_flight).await;
    let run = app.ids.next();
    let ids = enrolled(&app, &run, devices).await;
    let body = report();
    let boot = app.started_us.unsigned_abs();
    let messages: Vec<(&DeviceId, Vec<u8>)> = ids
        .iter()
        .cycle()
        .take(reports)
        .enumerate()
        .map(|(n, id)| (id, message(boot, (n / devices) as u64, &body)))
        .collect();

    let ingest = tokio::spawn(telemetry::run(app.clone()));
    let (begin, cpu) = (Instant::now(), cpu_time());
    for chunk in messages.chunks(in_flight) {
        let mut deliveries = Vec::with_capacity(chunk.len());
        for (id, bytes) in chunk {
            deliveries.push(bus.deliver(id, UpKind::Report, bytes.clone()).await);
        }
        for delivery in deliveries {
            assert_eq!(delivery.outcome().await, Outcome::Committed);
        }
    }
    let (clock, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
    app.shutdown.cancel();
    bus.close();
    ingest.await.expect("it ends");

    let per = |time: Duration| time.as_secs_f64() * 1e6 / reports as f64;
    println!(
        "{}: {:.1} us a report, {:.1} us CPU of this process ({reports} reports of {devices} devices, {in_flight} in flight)",
        url.split(':').next().unwrap_or_default(),
        per(clock),
        per(cpu)
    );
}

/// What follows a flag on the command line.
fn option(flag: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != flag);
    arguments.nth(1)
}

/// A control plane without HTTP and MQTT endpoints.
async fn application(folder: &std::path::Path, url: &str, in_flight: usize) -> (App, Arc<MemoryBus>) {
    let flags = BTreeMap::from([
        ("data-dir".to_owned(), folder.display().to_string()),
        ("http-token-rate".to_owned(), "1000000".to_owned()),
    ]);
    let (config, _) = Config::load(None, &BTreeMap::new(), &flags).expect("settings");
    let db = Db::connect(url, 4).await.expect("a database");
    let clock = Arc::new(SystemClock);
    let app = App::new(config, db, clock, Arc::new(object_store::memory::InMemory::new()));
    app.db.migrate(migrations(), app.clock.now_us()).await.expect("the schema");
    let bus = Arc::new(MemoryBus::new(in_flight));
    app.set_bus(Arc::clone(&bus) as _);
    devices::open(&app).await.expect("devices");
    (app, bus)
}

/// Makes devices in a fleet of this run's own.
async fn enrolled(app: &App, run: &str, count: usize) -> Vec<DeviceId> {
    let caller = Caller::internal("example", "ingest_cost", None);
    let new =
        NewToken { name: run.to_owned(), role: Role::Admin, scope: Scope::Everything, expires_us: None };
    let (_, token) = create_token(app, &caller, new).await.expect("a token");
    let router = http::router(app);
    let post = async |path: &str, body: String| {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(answer.status().as_u16(), 201, "{path}");
    };
    post("/api/v1/fleets", format!(r#"{{"id":"{run}"}}"#)).await;
    let mut ids = Vec::with_capacity(count);
    for n in 0..count {
        let id = format!("{run}-{n}");
        post("/api/v1/devices", format!(r#"{{"id":"{id}","fleet":"{run}","hardware":"pi"}}"#)).await;
        ids.push(DeviceId::new(&id).expect("an id"));
    }
    ids
}

/// A report of sixty inferences: latencies, a feature of classes and a numeric one.
fn report() -> Vec<u8> {
    let shapes = [
        Shape { kind: FeatureKind::Numeric, counters: 8 },
        Shape { kind: FeatureKind::Classes, counters: 12 },
    ];
    let mut window: Window<2, 20> = Window::new([0xab; 32], shapes).expect("the layout fits");
    window.add_inferences(60);
    assert!(window.add_latencies(Latency::bucket(900), 60));
    window.add_latency_sum(54_000, 900);
    assert!(window.add_count(0, 4, 60) && window.add_count(1, 7, 60));
    window.set_period(Period { start_unix_s: 0, duration_ms: 60_000, closed_ms: 0, windows: 1 });
    let mut out = [0; 1_024];
    let len = ReportEncoder::new("kws", &window).next_body(&mut out).expect("it fits").expect("a report");
    out[..len].to_vec()
}

fn message(boot: u64, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut out = [0; 1_100];
    let len = Envelope { boot, seq, oldest: seq, age_s: 0 }.encode(body, &mut out).expect("it fits");
    out[..len].to_vec()
}

/// User and system time of this process, from Linux' /proc (ticks of 10 ms).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
