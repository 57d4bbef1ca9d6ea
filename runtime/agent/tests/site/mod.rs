//! A device with a real agent and an application, a control plane, and a store of artifacts.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dunlin_agent::{Agent, EventKind, Failure, Identity, ModelSettings, Models, Slot};
use dunlin_protocol::{Desired, DesiredSlot, Pair, SlotStatus};

use crate::owner::{self, FIRST, NOW, Version, assignment};
use crate::store::Store;
use crate::support::{self, Plane, infer, model_named};

/// An artifact and what its owner says about it.
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) version: Version,
}

/// Version `number` of the model; versions differ.
pub(crate) fn made(number: u32) -> Made {
    let bytes = model_named(&format!("version {number}"));
    let digest = bytes[48..80].try_into().unwrap();
    let size = u32::try_from(bytes.len()).unwrap();
    Made { bytes, version: Version { digest, size, ..owner::version(number) } }
}

/// A control plane, a store of artifacts, and a device that runs version 1.
pub(crate) struct Site {
    pub(crate) plane: Plane,
    pub(crate) store: Store,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) agent: Option<Agent>,
    pub(crate) application: Option<Application>,
    pub(crate) generation: u64,
    /// What the application has counted.
    pub(crate) counted: Arc<Counted>,
    /// What is brought along.
    pub(crate) built_in: Option<Vec<u8>>,
}

/// What an application has counted, and how it treats models.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) inferences: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// The version that fails every third time.
    pub(crate) failing: AtomicU32,
    /// The version that it cannot start.
    pub(crate) unusable: AtomicU32,
}

/// Runs whatever the slot holds, all the time.
pub(crate) struct Application {
    end: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Application {
    fn start(mut models: Models, counted: Arc<Counted>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let is = |slot: &Slot, version: &AtomicU32| {
                let version = version.load(Ordering::Relaxed);
                version > 0 && slot.model() == made(version).version.digest
            };
            while !ends.load(Ordering::Relaxed) {
                let Some(slot) = models.current() else {
                    models.wait(Duration::from_millis(5));
                    continue;
                };
                if is(&slot, &counted.unusable) {
                    models.failed(&slot, "this application has no such sensor");
                    models.wait(Duration::from_millis(5));
                    continue;
                }
                let is_failing = is(&slot, &counted.failing);
                for run in 1.. {
                    if models.has_changed() || ends.load(Ordering::Relaxed) {
                        break;
                    }
                    if is_failing && run % 3 == 0 {
                        slot.failed(Failure::Run);
                        counted.failures.fetch_add(1, Ordering::Relaxed);
                    } else {
                        infer(&slot, 3);
                        counted.inferences.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Application { end, thread }
    }

    fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

impl Site {
    pub(crate) async fn new() -> Site {
        let mut site = Site::empty().await;
        site.start(Some(&FIRST.root(&[1])));
        let first = made(1);
        site.store.put(&first.bytes);
        site.assign(&first.version, |_| {});
        site.runs(1).await;
        site
    }

    pub(crate) async fn empty() -> Site {
        Site {
            plane: Plane::start().await,
            store: Store::start().await,
            folder: tempfile::tempdir().unwrap(),
            agent: None,
            application: None,
            generation: 0,
            counted: Arc::default(),
            built_in: None,
        }
    }

    pub(crate) fn start(&mut self, root: Option<&[u8]>) {
        let address = self.plane.address;
        let identity = Identity { server: self.store.address(), ..support::identity(address, owner::DEVICE) };
        let folder: &Path = self.folder.path();
        let settings = dunlin_agent::Settings {
            root: root.map(<[u8]>::to_vec),
            hardware: owner::HARDWARE.into(),
            ..support::settings(Some(folder))
        };
        let agent = Agent::start(identity, settings).unwrap();
        let pauses = (Duration::from_millis(10), Duration::from_secs(5));
        let built_in = self.built_in.clone();
        let settings = ModelSettings { pauses, built_in, ..ModelSettings::default() };
        let models = agent.models("main", settings).unwrap();
        self.application = Some(Application::start(models, Arc::clone(&self.counted)));
        self.agent = Some(agent);
    }

    pub(crate) async fn stop(&mut self) {
        self.application.take().unwrap().end();
        let status = self.agent.take().unwrap().stop_async(support::SOON).await;
        assert_eq!((status.waiting, status.unacknowledged), (0, 0));
    }

    /// Assigns a version, signed as it should be; `change` makes it wrong.
    pub(crate) fn assign(&mut self, version: &Version, change: impl FnOnce(&mut Assignment)) {
        self.generation += 1;
        let release = version.release(&[2]);
        let mut assignment = Assignment {
            slot: *version,
            release,
            director: vec![3],
            generation: self.generation,
            issued_s: NOW + self.generation,
            expires_s: 0,
            device: owner::DEVICE,
            root: 1,
            settings: vec![("trial.windows", "1")],
        };
        change(&mut assignment);
        self.plane.publish(owner::DEVICE, assignment.message(&self.store));
    }

    /// Waits until the device says that its slot is so; version 0 is none.
    pub(crate) async fn told(&self, version: u32, status: SlotStatus, reason: &str) {
        let digest = if version == 0 { [0; 32] } else { made(version).version.digest };
        let is_told = |told: &(String, [u8; 32], SlotStatus, String)| {
            (told.1, told.2) == (digest, status)
                && if reason.is_empty() { told.3.is_empty() } else { told.3.contains(reason) }
        };
        let from = Instant::now();
        while !self.plane.state().told.last().is_some_and(is_told) {
            let last = self.plane.state().told.last().cloned();
            assert!(from.elapsed() < support::SOON, "{version} {status:?} {reason:?}: {last:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn runs(&self, version: u32) {
        self.told(version, SlotStatus::Running, "").await;
    }

    /// Waits until the device has told of an event.
    pub(crate) async fn event(&self, kind: EventKind, detail: &str) {
        let is_it = |event: &(EventKind, i64, String)| event.0 == kind && event.2.contains(detail);
        self.plane.until(|state| state.events.iter().any(is_it)).await;
    }

    /// Everything that was counted has arrived, and nothing of other models than these.
    pub(crate) async fn finish(mut self, versions: &[u32]) {
        self.stop().await;
        let state = self.plane.state();
        let counted = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Counted { inferences, failures, .. } = &*self.counted;
        assert_eq!((state.inferences, state.failures), (counted(inferences), counted(failures)));
        let digests: Vec<_> = versions.iter().map(|number| made(*number).version.digest).collect();
        assert!(state.by_model.keys().all(|digest| digests.contains(digest)));
        assert_eq!(state.malformed, Vec::<String>::new());
    }
}

/// What goes into a desired state.
pub(crate) struct Assignment {
    pub(crate) slot: Version,
    pub(crate) release: Vec<u8>,
    pub(crate) director: Vec<u8>,
    pub(crate) generation: u64,
    pub(crate) issued_s: u64,
    pub(crate) expires_s: u64,
    pub(crate) device: &'static str,
    pub(crate) root: u32,
    pub(crate) settings: Vec<(&'static str, &'static str)>,
}

impl Assignment {
    fn message(&self, store: &Store) -> Vec<u8> {
        let url = store.url(&self.slot.digest);
        let settings: Vec<_> = self.settings.iter().map(|&(key, value)| Pair { key, value }).collect();
        let slot =
            DesiredSlot { url: &url, settings: settings.as_slice().into(), ..self.slot.slot(&self.release) };
        let slots = [slot];
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
