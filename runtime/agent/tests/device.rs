//! The firmware example over real sockets: a device without std, the same faults, the same exact counts.

mod board;
mod support;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use board::{Board, UPLINK, aligned};
use dunlin_agent::EventKind;
use dunlin_device::host::{CELLS, Flash};
use dunlin_device::{Application, Counted, Credentials, Device, Models, Settings, Totals, run};
use dunlin_monitor::{Failure, Schedule};
use dunlin_protocol::Desired;
use dunlin_runtime::{Aligned, Artifact, Session};
use dunlin_trust::Dalek;
use support::{CLASSES, CUT, FINE, FROZEN, Mood, Plane, Proxy, SOON, model};

/// Counts one inference every few milliseconds, of classes in turn; every seventh fails.
struct Counting<'c> {
    run: u64,
    total: u64,
    counted: &'c RefCell<[u64; CLASSES]>,
}

const EVERY_MS: u64 = 2;

impl Application for Counting<'_> {
    fn next_ms(&self) -> Option<u64> {
        (self.run < self.total).then_some(self.run * EVERY_MS)
    }

    fn accepts(&self, _artifact: &Artifact<'_>) -> bool {
        true
    }

    fn sample(&mut self, _session: &mut Session<'_, '_>, monitor: &mut Counted<'_>, _now_ms: u64) {
        let class = (self.run * self.run) as usize % CLASSES;
        self.run += 1;
        if self.run.is_multiple_of(7) {
            return monitor.failed(Failure::Hardware);
        }
        let mut scores = [0; CLASSES];
        scores[class] = 1;
        monitor.observe_input(0, &scores);
        monitor.completed(30);
        self.counted.borrow_mut()[class] += 1;
    }
}

/// Runs a device to its end; what it counted by class, and in closed windows.
async fn device(broker: SocketAddr, total: u64) -> ([u64; CLASSES], Totals) {
    let bytes = model();
    let mut memory = Vec::new();
    let artifact = Artifact::parse(aligned(&bytes, &mut memory)).unwrap();
    let schedule = Schedule { period_ms: 50, runs: 20 };
    let settings =
        Settings { slot: "kws", hardware: "test-board", schedule, uplink: UPLINK, ..Settings::default() };
    let mut device = Device::new(settings, Flash::new(CELLS), 4096, Dalek, 0xB007, 0).unwrap();
    let mut arena = Aligned([0; 64]);
    let banks = [Flash::new(4096), Flash::new(4096)];
    let mut models = Models { built_in: artifact, banks, arena: &mut arena.0 };
    let board = Board::new(broker);
    let counted = RefCell::new([0; CLASSES]);
    let mut application = Counting { run: 0, total, counted: &counted };
    let credentials = Credentials { device: "sensor-1", password: Some("secret") };
    let running = run(&mut device, &mut models, &board, &mut application, credentials);
    let ended = tokio::time::timeout(SOON, running).await;
    ended.expect("everything is acknowledged in the end").expect("the model runs");
    let totals = device.totals();
    (counted.into_inner(), totals)
}

fn compare(plane: &Plane, counted: [u64; CLASSES], totals: Totals) {
    let state = plane.state();
    assert_eq!(state.malformed, [""; 0]);
    assert_eq!(state.classes, counted);
    assert_eq!((state.inferences, state.failures), (totals.inferences, totals.failures));
    assert_eq!((counted.iter().sum::<u64>(), state.closed), (totals.inferences, totals.windows));
    assert_eq!(state.events[0].0, EventKind::Restarted);
    let (slots, hardware, _) = state.state.clone().unwrap();
    assert_eq!((slots[0].0.as_str(), hardware.as_str()), ("kws", "test-board"));
}

#[tokio::test]
async fn a_device_without_std_reports() {
    let plane = Plane::start().await;
    let desired = Desired { generation: 3, window_count: 5, ..Desired::default() };
    plane.desire("sensor-1", &desired);
    let (counted, totals) = device(plane.address, 500).await;
    compare(&plane, counted, totals);
    assert_eq!(plane.state().duplicates, 0);
    assert_eq!(plane.state().state.as_ref().unwrap().2, 3);
}

#[tokio::test]
async fn it_sends_again_what_is_not_acknowledged() {
    let plane = Plane::start().await;
    plane.mood(Mood::NoAcks);
    let (receiver, wait) = (&plane, Duration::from_millis(1500));
    let moods = async {
        tokio::time::sleep(wait).await;
        receiver.mood(Mood::FailsToCommit);
        tokio::time::sleep(wait).await;
        receiver.mood(Mood::Babbles);
    };
    let ((counted, totals), ()) = tokio::join!(device(plane.address, 1000), moods);
    compare(&plane, counted, totals);
    assert!(plane.state().duplicates > 0);
}

#[tokio::test]
async fn it_survives_a_network_that_fails_in_every_way() {
    let mut plane = Plane::start().await;
    let proxy = Proxy::start(plane.address).await;
    let address = proxy.address;
    let (ended, mut end) = tokio::sync::oneshot::channel();
    // The device has a thread of its own, as its future is not Send.
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(device(address, 1500));
        ended.send(()).unwrap();
        result
    });
    for round in 0..u64::MAX {
        for weather in [CUT, FINE, FROZEN, FINE] {
            proxy.weather(weather);
            tokio::time::sleep(Duration::from_millis(100 + round * 37 % 200)).await;
        }
        if round % 3 == 2 {
            plane.restart(Duration::from_millis(100)).await;
        }
        if end.try_recv().is_ok() {
            break;
        }
    }
    let (counted, totals) = running.join().unwrap();
    compare(&plane, counted, totals);
    assert!(plane.state().logins > 3, "{}", plane.state().logins);
}
