//! The agent: counts in the application's threads, everything else in one task of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_monitor::Schedule;
use dunlin_protocol::{Event, EventKind, UpKind, limits};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::identity::{Identity, IdentityError};
use crate::install::{Filled, Installer, TrustError};
use crate::models::{ModelSettings, Models, ModelsError, Publisher};
use crate::queue::{Item, Queue, QueueError, QueueLimits};
use crate::runner::Runner;
use crate::slot::{Slot, SlotError};
use crate::transport::{MqttTransport, Transport};

/// How an agent works. All fields have defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the queue and the identity are kept; without it the queue is in memory only, and so is a renewed
    /// certificate: the one before it, which a restart would begin with, is then no longer good.
    pub state_dir: Option<PathBuf>,
    /// Hardware class, at most 64 bytes.
    pub hardware: String,
    /// Facts about the device: at most 16, keys of at most 32 bytes, values of at most 96.
    pub attributes: BTreeMap<String, String>,
    /// When windows are closed, unless the control plane says otherwise.
    pub schedule: Schedule,
    /// Longest report, envelope included, in bytes.
    pub budget: usize,
    /// Bounds of the queue.
    pub limits: QueueLimits,
    /// Time between signs of life on an idle connection.
    pub keep_alive: Duration,
    /// Times and bounds of the connection.
    pub uplink: crate::uplink::Settings,
    /// Whether temperature and battery are read from the system.
    pub health: bool,
    /// The signed root (`dunlin keys export`) to begin with; without it, the one that came with the enrolment, or the
    /// first one that the server of the enrolment shows.
    pub root: Option<Vec<u8>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            state_dir: None,
            hardware: String::new(),
            attributes: BTreeMap::new(),
            schedule: Schedule::default(),
            budget: limits::REPORT_BUDGET,
            limits: QueueLimits::default(),
            keep_alive: Duration::from_secs(30),
            uplink: crate::uplink::Settings::default(),
            health: true,
            root: None,
        }
    }
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Whom the device believes.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A thread or a runtime cannot be made.
    #[error("the agent's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// What an agent is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there is none, if one was lost or refused.
    pub disconnected_because: Option<String>,
    /// Connections made since the start.
    pub connections: u64,
    /// Closed windows, labels and events that wait for a connection or for room.
    pub waiting: usize,
    /// Messages that the control plane has not acknowledged.
    pub unacknowledged: usize,
    /// Messages that it has, since the start.
    pub acknowledged: u64,
    /// Windows closed since the start, and the inferences and failures in them.
    pub windows: u64,
    /// Inferences in closed windows.
    pub inferences: u64,
    /// Failures in closed windows.
    pub failures: u64,
    /// Items that were merged because the queue was full.
    pub merged: u64,
    /// Events that gave way to newer ones.
    pub events_dropped: u64,
    /// Why the queue is in memory only at the moment.
    pub disk_fault: Option<String>,
    /// The generation of the desired state that was seen last.
    pub desired_generation: u64,
}

/// What the application and the agent's task share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) slots: Mutex<Vec<Slot>>,
    /// Models that were replaced, as long as the application still has them: what they count is not lost.
    pub(crate) retired: Mutex<Vec<Slot>>,
    /// Slots that the control plane fills. Locked before `slots` where both are.
    pub(crate) filled: Mutex<Vec<Filled>>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) stop: watch::Sender<Option<Duration>>,
    pub(crate) clock: Clock,
    /// When windows are closed, as the control plane or the settings say.
    pub(crate) schedule: Mutex<Schedule>,
    /// Models that could not be used.
    pub(crate) failed: Mutex<Vec<FailedSlot>>,
    /// Something in [`dunlin_protocol::State`] has changed.
    pub(crate) state_changed: Mutex<bool>,
}

/// A model that could not be used.
#[derive(Clone)]
pub(crate) struct FailedSlot {
    pub(crate) slot: String,
    pub(crate) model: [u8; 32],
    pub(crate) reason: String,
}

/// The only place that reads the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: std::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Clock { started: std::time::Instant::now() }
    }

    /// Milliseconds since the agent was started.
    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Seconds since 1970 UTC; 0 when the system's clock has not been set.
    pub(crate) fn unix_s(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = now.map_or(0, |since| since.as_secs());
        // A clock that shows a time before this program was written is not set.
        if seconds < 1_700_000_000 { 0 } else { seconds }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports what models do on this device to the control plane.
///
/// Counting happens in the application's threads ([`Slot`]); one task closes windows, keeps them on disk, sends them,
/// and forgets them when the control plane has acknowledged them. Nothing that was counted in a closed window is lost
/// or counted twice, whatever happens to the process, the network or the server.
pub struct Agent {
    shared: Arc<Shared>,
    running: Running,
}

enum Running {
    Thread(Option<std::thread::JoinHandle<()>>),
    Task(Option<JoinHandle<()>>),
}

/// A uniform random number.
pub(crate) fn random() -> Result<u64, AgentError> {
    getrandom::u64().map_err(|error| AgentError::Random(error.to_string()))
}

impl Agent {
    /// Starts an agent with a thread of its own. Opens the queue, recovers what an earlier run has left, and begins
    /// to connect.
    ///
    /// # Errors
    /// [`AgentError`] names what is in the way. A server that cannot be reached is no error: the agent keeps trying.
    pub fn start(identity: Identity, settings: Settings) -> Result<Self, AgentError> {
        let transport = MqttTransport::new(identity.mqtt_options(settings.keep_alive)?);
        let (shared, runner) = Self::prepare(identity, settings, transport)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("dunlin-agent".into())
            .spawn(move || runtime.block_on(runner.run()))?;
        Ok(Agent { shared, running: Running::Thread(Some(thread)) })
    }

    /// Starts an agent as a task of the current tokio runtime: for many agents in one process, or another transport.
    /// Writing the queue blocks for as long as the disk takes.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn spawn<T: Transport + 'static>(
        identity: Identity,
        settings: Settings,
        transport: T,
    ) -> Result<Self, AgentError> {
        let (shared, runner) = Self::prepare(identity, settings, transport)?;
        Ok(Agent { shared, running: Running::Task(Some(tokio::spawn(runner.run()))) })
    }

    fn prepare<T: Transport>(
        identity: Identity,
        settings: Settings,
        transport: T,
    ) -> Result<(Arc<Shared>, Runner<T>), AgentError> {
        let boot = random()?;
        let budget = settings.budget;
        let (queue, recovered) = match &settings.state_dir {
            Some(folder) => Queue::open(folder, settings.limits, boot, budget)?,
            None => (Queue::in_memory(settings.limits, boot, budget), Default::default()),
        };
        let shared = Arc::new(Shared {
            schedule: Mutex::new(settings.schedule),
            failed: Mutex::new(Vec::new()),
            settings,
            queue: Mutex::new(queue),
            slots: Mutex::new(Vec::new()),
            retired: Mutex::new(Vec::new()),
            filled: Mutex::new(Vec::new()),
            wake: Arc::new(Notify::new()),
            status: watch::Sender::new(Status::default()),
            stop: watch::Sender::new(None),
            clock: Clock::new(),
            state_changed: Mutex::new(true),
        });
        let installer = Installer::new(Arc::clone(&shared), &identity)?;
        let runner = Runner::new(Arc::clone(&shared), identity, transport, recovered, installer);
        Ok((shared, runner))
    }

    /// Begins to monitor a model. `artifact` is the compiled model that the application runs; its baseline says what
    /// is counted.
    ///
    /// # Errors
    /// [`SlotError`] says what is wrong with the name or the artifact.
    pub fn slot(&self, name: &str, artifact: &[u8]) -> Result<Slot, SlotError> {
        let shared = &self.shared;
        if lock(&shared.filled).iter().any(|filled| filled.name() == name) {
            return Err(SlotError::Filled { slot: name.to_owned() });
        }
        let slot = shared.make_slot(name, artifact)?;
        shared.check_room(name)?;
        shared.put_slot(slot.clone());
        lock(&shared.failed).retain(|failed| failed.slot != name);
        Ok(slot)
    }

    /// Begins to run what the control plane assigns to a slot. Models are fetched, checked, run on trial and kept or
    /// given up without the application; it only runs what [`Models`] gives. What the slot held before is there at once,
    /// with and without a connection.
    ///
    /// # Errors
    /// [`ModelsError`] says what is in the way.
    pub fn models(&self, name: &str, settings: ModelSettings) -> Result<Models, ModelsError> {
        let shared = &self.shared;
        ModelsError::check_name(name)?;
        let folder = shared.settings.state_dir.as_deref().ok_or(ModelsError::NoStateDir)?;
        if let Some(artifact) = &settings.built_in {
            shared.make_slot(name, artifact)?;
        }
        let file = |error| ModelsError::File { slot: name.to_owned(), path: folder.to_owned(), error };
        let mut slots = lock(&shared.filled);
        let is_taken = slots.iter().any(|filled| filled.name() == name)
            || lock(&shared.slots).iter().any(|slot| slot.name() == name);
        if is_taken {
            return Err(ModelsError::Taken { slot: name.to_owned() });
        }
        shared.check_room(name)?;
        let publisher = Arc::new(Publisher::new());
        let models = Models::new(name, Arc::clone(shared), Arc::clone(&publisher));
        slots.push(Filled::start(name, folder, settings, publisher, shared).map_err(file)?);
        Ok(models)
    }

    /// Tells the control plane that something happened.
    pub fn event(&self, slot: &str, kind: EventKind, value: i64, detail: &str) {
        self.shared.event(slot, kind, value, detail);
        self.shared.wake.notify_one();
    }

    /// Reports that a model cannot be used in a slot, with the reason, and that this has happened just now (`kind`).
    pub fn failed(&self, slot: &str, model: [u8; 32], kind: EventKind, reason: &str) {
        let mut failed = lock(&self.shared.failed);
        failed.retain(|other| other.slot != slot);
        failed.push(FailedSlot { slot: slot.to_owned(), model, reason: reason.to_owned() });
        drop(failed);
        lock(&self.shared.slots).retain(|other| other.name() != slot);
        *lock(&self.shared.state_changed) = true;
        self.event(slot, kind, 0, reason);
    }

    /// What the agent is doing.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Follows what the agent is doing.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Closes all windows, puts them on disk, tries to get everything acknowledged for as long as `patience`, and
    /// ends. What is left is sent after the next start. Blocks; not to be called in a task (see
    /// [`Agent::stop_async`]).
    pub fn stop(mut self, patience: Duration) -> Status {
        self.shared.stop.send_replace(Some(patience));
        if let Running::Thread(thread) = &mut self.running
            && let Some(thread) = thread.take()
        {
            // A panic of the agent's thread has been printed already.
            let _ = thread.join();
        }
        self.status()
    }

    /// [`Agent::stop`] for an agent that is a task.
    pub async fn stop_async(mut self, patience: Duration) -> Status {
        self.shared.stop.send_replace(Some(patience));
        match &mut self.running {
            Running::Task(task) => {
                if let Some(task) = task.take() {
                    let _ = task.await;
                }
            }
            Running::Thread(thread) => {
                if let Some(thread) = thread.take() {
                    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
                }
            }
        }
        self.status()
    }
}

impl Drop for Agent {
    /// An agent that is not stopped still puts its windows on disk, without waiting for anyone.
    fn drop(&mut self) {
        if self.shared.stop.borrow().is_none() {
            self.shared.stop.send_replace(Some(Duration::ZERO));
            if let Running::Thread(thread) = &mut self.running
                && let Some(thread) = thread.take()
            {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// Puts an event into the queue. Text that is too long is cut.
    pub(crate) fn event(&self, slot: &str, kind: EventKind, value: i64, detail: &str) {
        let detail = cut(detail, limits::MAX_DETAIL);
        let event =
            Event { unix_s: self.clock.unix_s(), slot: cut(slot, limits::MAX_SLOT), kind, value, detail };
        let mut body = [0; 512];
        if let Ok(len) = event.encode(&mut body) {
            let bodies = vec![body.get(..len).unwrap_or_default().to_vec()];
            self.push(Item { kind: UpKind::Event, group: Vec::new(), bodies });
        }
    }

    /// Puts an item into the queue.
    pub(crate) fn push(&self, item: Item) {
        let mut queue = lock(&self.queue);
        let before = queue.merged();
        queue.push(item, self.clock.ms());
        let merged = queue.merged() - before;
        drop(queue);
        if merged > 0 {
            tracing::debug!(merged, "the queue is full: the oldest windows were merged");
        }
    }

    /// A monitor for an artifact.
    pub(crate) fn make_slot(&self, name: &str, artifact: &[u8]) -> Result<Slot, SlotError> {
        let schedule = *lock(&self.schedule);
        Slot::new(name, artifact, schedule, self.clock.ms(), Arc::clone(&self.wake))
    }

    /// Whether there may be another slot.
    fn check_room(&self, name: &str) -> Result<(), SlotError> {
        let slots = lock(&self.slots);
        let is_new = slots.iter().all(|slot| slot.name() != name);
        if is_new && slots.len() >= limits::MAX_SLOTS { Err(SlotError::TooMany) } else { Ok(()) }
    }

    /// Runs a model, in the place of the one that the slot has.
    pub(crate) fn put_slot(&self, slot: Slot) {
        self.take_slot(slot.name());
        lock(&self.slots).push(slot);
        *lock(&self.state_changed) = true;
        self.wake.notify_one();
    }

    /// The slot has no model any more. What was counted goes into a window now; what the application counts until it has
    /// noticed, into later ones.
    pub(crate) fn take_slot(&self, name: &str) {
        let mut slots = lock(&self.slots);
        let before = slots.iter().position(|slot| slot.name() == name).map(|index| slots.remove(index));
        drop(slots);
        if let Some(slot) = before {
            if slot.due(0).1 {
                self.harvest(&slot);
            }
            lock(&self.retired).push(slot);
        }
        *lock(&self.state_changed) = true;
    }

    /// The application cannot run a model of a slot that the control plane fills.
    pub(crate) fn model_failed(&self, name: &str, slot: &Slot, reason: &str) {
        if let Some(filled) = lock(&self.filled).iter_mut().find(|filled| filled.name() == name) {
            filled.failed(slot, reason, self);
        }
    }

    /// Closes a slot's window and puts it into the queue; how many inferences and failures were in it.
    pub(crate) fn harvest(&self, slot: &Slot) -> (u64, u64) {
        let harvest = match slot.close(self.clock.ms(), self.clock.unix_s(), self.settings.budget) {
            Ok(harvest) => harvest,
            Err(error) => {
                // The name is checked and the budget is clamped: cannot happen.
                tracing::error!(slot = slot.name(), %error, "a window cannot be encoded");
                return (0, 0);
            }
        };
        let mut group = slot.name().as_bytes().to_vec();
        group.extend_from_slice(&slot.model());
        let item = |kind, bodies| Item { kind, group: group.clone(), bodies };
        if !harvest.labels.is_empty() {
            self.push(item(UpKind::Label, harvest.labels));
        }
        self.push(item(UpKind::Report, harvest.reports));
        tracing::debug!(
            slot = slot.name(),
            inferences = harvest.inferences,
            failures = harvest.failures,
            "window closed"
        );
        self.status.send_modify(|status| {
            status.windows += 1;
            status.inferences += harvest.inferences;
            status.failures += harvest.failures;
        });
        (harvest.inferences, harvest.failures)
    }
}

/// The longest beginning of at most `len` bytes.
pub(crate) fn cut(text: &str, len: usize) -> &str {
    text.get(..text.floor_char_boundary(len)).unwrap_or_default()
}
