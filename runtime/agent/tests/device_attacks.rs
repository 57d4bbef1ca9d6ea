//! A device without std whose models come from somewhere else: what attackers and broken servers try, what the device
//! says about it, and that the model before it runs on and is counted to the last inference. And the power that goes at
//! any moment.

mod board;
#[path = "../../trust/tests/support/mod.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod owner;
mod shelf;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use board::{Board, UPLINK, aligned};
use dunlin_agent::{EventKind, update};
use dunlin_device::host::{CELLS, Flash};
use dunlin_device::{Application, Counted, Credentials, Device, Models, Settings, run};
use dunlin_monitor::{Failure, Schedule};
use dunlin_protocol::{Desired, DesiredSlot, Name, Pair, SlotStatus};
use dunlin_runtime::{Aligned, Artifact, Session};
use dunlin_trust::Dalek;
use owner::{Authority, FIRST, NOW, Version, assignment};
use shelf::{Mood, Shelf};
use support::{CLASSES, Plane, SOON, State_, model_with};

/// Bytes of a bank.
const BANK: usize = 16 << 10;
/// What is built in.
const BUILT_IN: u32 = 0;

/// An artifact and what its owner says about it.
struct Made {
    bytes: Vec<u8>,
    version: Version,
}

/// Version `number` of the model, of five pieces; versions differ.
fn made(number: u32) -> Made {
    let data = (0..9000u32).map(|at| (at.wrapping_mul(31) ^ number) as u8).collect();
    let bytes = model_with(&format!("version {number}"), data);
    let digest = bytes[48..80].try_into().unwrap();
    let size = u32::try_from(bytes.len()).unwrap();
    Made { bytes, version: Version { digest, size, ..owner::version(number) } }
}

/// Runs a model every millisecond, until it is told to end.
struct Steady {
    run: u64,
    stop: Arc<AtomicBool>,
    counted: Arc<AtomicU64>,
}

impl Application for Steady {
    fn next_ms(&self) -> Option<u64> {
        (!self.stop.load(Ordering::Relaxed)).then_some(self.run)
    }

    fn accepts(&self, artifact: &Artifact<'_>) -> bool {
        artifact.inputs().len() == 1
    }

    fn sample(&mut self, session: &mut Session<'_, '_>, monitor: &mut Counted<'_>, now_ms: u64) {
        self.run = now_ms + 1;
        let mut scores = [0; CLASSES];
        scores[3] = 1;
        session.input_bytes_mut(0).unwrap().copy_from_slice(&scores);
        monitor.observe_input(0, &scores);
        if session.run().is_err() {
            return monitor.failed(Failure::Run);
        }
        monitor.completed(30);
        self.counted.fetch_add(1, Ordering::Relaxed);
    }
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A control plane, a shelf of artifacts, and a device that runs version 1.
struct Site {
    plane: Plane,
    shelf: Arc<Shelf>,
    folder: tempfile::TempDir,
    running: Option<Running>,
    generation: u64,
    /// Inferences that the application has counted.
    counted: Arc<AtomicU64>,
}

/// How often an event told that an assignment was refused for this reason.
fn refusals(state: &State_, reason: &str) -> usize {
    let refused = state.events.iter().filter(|event| event.0 == EventKind::AssignmentRefused);
    refused.filter(|event| event.2.contains(reason)).count()
}

/// The device, from its start until it is told to end and everything is acknowledged.
async fn device(plane: std::net::SocketAddr, folder: &Path, root: Option<Vec<u8>>, mut application: Steady) {
    let (mut memory, mut arena) = (Vec::new(), Aligned([0; 64]));
    let built_in = made(BUILT_IN).bytes;
    let built_in = Artifact::parse(aligned(&built_in, &mut memory)).unwrap();
    let open = |name: &str, length| Flash::open(&folder.join(name), length).unwrap();
    let settings = Settings {
        slot: "main",
        hardware: owner::HARDWARE,
        root: root.as_deref(),
        schedule: Schedule { period_ms: 50, runs: 1000 },
        uplink: UPLINK,
        update: update::Settings {
            least_pause_ms: 10,
            longest_pause_ms: 5_000,
            save_every_bytes: 4096,
            ..update::Settings::default()
        },
    };
    let mut device = Device::new(settings, open("cells", CELLS), BANK, Dalek, boot(), 0).unwrap();
    let banks = [open("a", BANK), open("b", BANK)];
    let mut models = Models { built_in, banks, arena: &mut arena.0 };
    let board = Board::new(plane);
    let credentials = Credentials { device: owner::DEVICE, password: Some("secret") };
    run(&mut device, &mut models, &board, &mut application, credentials).await.unwrap();
}

/// A number that no other start of a device has.
fn boot() -> u64 {
    static STARTS: AtomicU64 = AtomicU64::new(0xB007);
    STARTS.fetch_add(1, Ordering::Relaxed)
}

impl Site {
    async fn new() -> Site {
        let mut site = Site::empty().await;
        site.start(Some(&FIRST.root(&[1])));
        site.shelf.put(&made(1).bytes);
        site.assign(&made(1).version, |_| {});
        site.runs(1).await;
        site
    }

    async fn empty() -> Site {
        let (plane, shelf) = (Plane::start().await, Arc::<Shelf>::default());
        let giver = Arc::clone(&shelf);
        plane.state().giver = Some(Arc::new(move |fetch| giver.give(fetch)));
        let folder = tempfile::tempdir().unwrap();
        Site { plane, shelf, folder, running: None, generation: 0, counted: Arc::default() }
    }

    fn start(&mut self, root: Option<&[u8]>) {
        let stop = Arc::<AtomicBool>::default();
        let application = Steady { run: 0, stop: Arc::clone(&stop), counted: Arc::clone(&self.counted) };
        let (plane, folder) = (self.plane.address, self.folder.path().to_owned());
        let root = root.map(<[u8]>::to_vec);
        // It has a thread of its own, as its future is not Send.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(device(plane, &folder, root, application));
        });
        self.running = Some(Running { stop, thread });
    }

    async fn stop(&mut self) {
        let Running { stop, thread } = self.running.take().unwrap();
        stop.store(true, Ordering::Relaxed);
        let from = Instant::now();
        while !thread.is_finished() {
            assert!(from.elapsed() < SOON, "everything is acknowledged in the end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        thread.join().unwrap();
    }

    /// Assigns a version, signed as it should be; `change` makes it wrong.
    fn assign(&mut self, version: &Version, change: impl FnOnce(&mut Assignment)) {
        self.generation += 1;
        let mut assignment = Assignment {
            slot: *version,
            release: version.release(&[2]),
            director: vec![3],
            generation: self.generation,
            issued_s: NOW + self.generation,
            expires_s: 0,
            device: owner::DEVICE,
            root: 1,
        };
        change(&mut assignment);
        self.plane.publish(owner::DEVICE, assignment.message());
    }

    /// Waits until the device says that its slot is so.
    async fn told(&self, version: u32, status: SlotStatus, reason: &str) {
        let digest = made(version).version.digest;
        let is_told = |told: &(String, [u8; 32], SlotStatus, String)| {
            (told.1, told.2) == (digest, status)
                && if reason.is_empty() { told.3.is_empty() } else { told.3.contains(reason) }
        };
        let from = Instant::now();
        while !self.plane.state().told.last().is_some_and(is_told) {
            let last = self.plane.state().told.last().cloned();
            assert!(from.elapsed() < SOON, "{version} {status:?} {reason:?}: {last:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn runs(&self, version: u32) {
        self.told(version, SlotStatus::Running, "").await;
    }

    /// Everything that was counted has arrived, and nothing of other models than these.
    async fn finish(mut self, versions: &[u32]) {
        self.stop().await;
        let state = self.plane.state();
        assert_eq!((state.inferences, state.failures), (self.counted.load(Ordering::Relaxed), 0));
        let digests: Vec<_> = versions.iter().map(|number| made(*number).version.digest).collect();
        assert!(state.by_model.keys().all(|digest| digests.contains(digest)));
        assert_eq!(state.malformed, Vec::<String>::new());
    }
}

/// What goes into a desired state.
struct Assignment {
    slot: Version,
    release: Vec<u8>,
    director: Vec<u8>,
    generation: u64,
    issued_s: u64,
    expires_s: u64,
    device: &'static str,
    root: u32,
}

impl Assignment {
    fn message(&self) -> Vec<u8> {
        let settings = [Pair { key: "trial.windows", value: "1" }];
        let slots = [DesiredSlot { settings: settings.as_slice().into(), ..self.slot.slot(&self.release) }];
        let desired = Desired {
            issued_unix_s: self.issued_s,
            expires_unix_s: self.expires_s,
            device: self.device,
            root: self.root,
            ..owner::desired(self.generation, &slots)
        };
        assignment(&desired, &self.director)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_both_for_this_device_and_now_is_not_installed() {
    let mut site = Site::new().await;
    let second = made(2);
    site.shelf.put(&second.bytes);
    // Before the root and the assignments that the device has seen, which is all it knows of the time.
    let past = NOW - 1_000_000;
    type Change<'a> = &'a dyn Fn(&mut Assignment);
    let wholes: [(Change<'_>, &str); 6] = [
        (&|assignment| assignment.director = vec![9], "signed by 0 director keys, needs 1"),
        (&|assignment| assignment.director = vec![], "signed by 0 director keys, needs 1"),
        (&|assignment| assignment.device = "pump-8", "for another device"),
        (&|assignment| (assignment.generation, assignment.issued_s) = (1, NOW), "assignment 1 is older than"),
        (&|assignment| assignment.expires_s = past, "the assignment expired"),
        (&|assignment| assignment.director = vec![2], "signed by 0 director keys, needs 1"),
    ];
    for (change, reason) in wholes {
        site.assign(&second.version, change);
        site.told(1, SlotStatus::Running, reason).await;
        // A good one in between: the same reason is told again then.
        site.assign(&made(1).version, |_| {});
        site.runs(1).await;
    }
    let parts: [(Change<'_>, &str); 7] = [
        (&|assignment| assignment.release = assignment.slot.release(&[9]), "signed by 0 release keys"),
        (&|assignment| assignment.release = assignment.slot.release(&[3]), "signed by 0 release keys"),
        (&|assignment| assignment.release = vec![], "no signed release"),
        (
            &|assignment| assignment.release = made(3).version.release(&[2]),
            "release and assignment differ in version",
        ),
        (
            &|assignment| {
                let digest = made(1).version.digest;
                assignment.release = Version { digest, ..assignment.slot }.release(&[2]);
            },
            "release and assignment differ in digest",
        ),
        (
            &|assignment| {
                assignment.release = Version { expires: past, ..assignment.slot }.release(&[2]);
            },
            "the release expired",
        ),
        (
            &|assignment| {
                let hardware = &[Name("another")];
                assignment.release = Version { hardware, ..assignment.slot }.release(&[2]);
            },
            "not for this hardware",
        ),
    ];
    for (change, reason) in parts {
        let before = refusals(&site.plane.state(), reason);
        for _ in 0..2 {
            site.assign(&second.version, change);
            site.told(1, SlotStatus::Running, reason).await;
        }
        // The second time it is no news.
        site.plane.until(|state| refusals(state, reason) > before).await;
        assert_eq!(refusals(&site.plane.state(), reason), before + 1);
        site.assign(&made(1).version, |_| {});
        site.runs(1).await;
    }
    assert_eq!(site.shelf.asked(&second.version.digest), [] as [u32; 0], "nothing was even fetched");
    // And the very same version as it should be.
    site.assign(&second.version, |_| {});
    site.runs(2).await;
    site.finish(&[BUILT_IN, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_assignment_counts_no_more_after_a_restart() {
    let mut site = Site::new().await;
    let second = made(2);
    site.shelf.put(&second.bytes);
    site.assign(&second.version, |_| {});
    site.runs(2).await;
    site.stop().await;
    // The broker was made to retain the first assignment again.
    site.assign(&made(1).version, |assignment| {
        (assignment.generation, assignment.issued_s) = (1, NOW + 1);
    });
    site.start(Some(&FIRST.root(&[1])));
    site.told(2, SlotStatus::Running, "assignment 1 is older than 2").await;
    site.finish(&[BUILT_IN, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_counts_no_more_and_roots_are_followed_one_by_one() {
    let mut site = Site::new().await;
    let second = made(2);
    site.shelf.put(&second.bytes);
    // Key 2 was stolen: root 2 names key 4, root 3 another director.
    let after = Authority { number: 2, release: (&[4], 1), ..FIRST };
    let last = Authority { number: 3, director: (&[5], 1), ..after };
    // Somebody without root keys makes root 2.
    site.shelf.put_root(2, after.root(&[9]));
    site.assign(&second.version, |assignment| assignment.root = 3);
    site.told(1, SlotStatus::Running, "root 2 is needed, but signed by 0 root keys").await;
    site.stop().await;
    site.shelf.put_root(2, after.root(&[1]));
    site.shelf.put_root(3, last.root(&[1]));
    site.start(Some(&FIRST.root(&[1])));
    // Both roots are there now: the director of root 1 is not believed any more.
    site.told(1, SlotStatus::Running, "signed by 0 director keys").await;
    site.assign(&second.version, |assignment| (assignment.root, assignment.director) = (3, vec![5]));
    site.told(1, SlotStatus::Running, "signed by 0 release keys").await;
    site.assign(&second.version, |assignment| {
        (assignment.root, assignment.director) = (3, vec![5]);
        assignment.release = assignment.slot.release(&[4]);
    });
    site.runs(2).await;
    site.stop().await;
    // What it believes survives a restart, whatever root is built in.
    site.start(Some(&FIRST.root(&[1])));
    site.assign(&made(1).version, |_| {});
    site.told(2, SlotStatus::Running, "signed by 0 director keys").await;
    site.finish(&[BUILT_IN, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_those_that_were_released_never_run() {
    let mut site = Site::new().await;
    for (number, mood) in [(2, Mood::Tampered), (3, Mood::Endless), (4, Mood::Longer)] {
        let next = made(number);
        site.shelf.put(&next.bytes);
        site.shelf.mood(mood);
        site.assign(&next.version, |_| {});
        let reason = format!("version {number} the bytes are not those that were released");
        site.told(1, SlotStatus::Running, &reason).await;
        let begun = site.shelf.asked(&next.version.digest).into_iter().filter(|offset| *offset == 0).count();
        assert_eq!(begun, 3, "{mood:?}: all of it three times, and then no more");
    }
    // A later assignment tries again.
    site.shelf.mood(Mood::Good);
    site.assign(&made(4).version, |_| {});
    site.runs(4).await;
    site.finish(&[BUILT_IN, 1, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_is_busy_or_confused_holds_the_update_up_and_no_more() {
    let mut site = Site::new().await;
    let second = made(2);
    site.shelf.put(&second.bytes);
    for (mood, reason) in [
        (Mood::Gone, "the control plane does not give it"),
        (Mood::Shorter, "it is shorter than was assigned"),
    ] {
        site.shelf.mood(mood);
        site.assign(&second.version, |_| {});
        site.told(1, SlotStatus::Updating, reason).await;
    }
    // One that asks to wait is not asked again before.
    site.shelf.mood(Mood::Busy);
    site.told(1, SlotStatus::Updating, "the control plane asks to wait").await;
    let asked = site.shelf.asked(&second.version.digest).len();
    let begin = Instant::now();
    while site.shelf.asked(&second.version.digest).len() < asked + 3 {
        assert!(begin.elapsed() < SOON, "it asks again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begin.elapsed() > Duration::from_millis(800), "it waits a second: {:?}", begin.elapsed());
    // Every piece twice, in the wrong order, with pieces that nobody wants in between.
    site.shelf.mood(Mood::Confused);
    site.runs(2).await;
    site.finish(&[BUILT_IN, 1, 2]).await;
}
