//! A model slot: what the application tells the agent about a model that it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_monitor::{Failure, GaugeKind, LayoutError, Mark, Monitor, Schedule};
use dunlin_protocol::{EncodeError, LabelCount, limits};
use dunlin_runtime::artifact::{Artifact, FormatError};
use self_cell::self_cell;
use tokio::sync::Notify;

use crate::bodies::{self, Labels};

/// Most different label entries of one window; more are left out and counted.
const MAX_LABELS: usize = 4096;

/// Why a slot cannot be monitored.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The name is too long or empty.
    #[error("a slot's name has 1 to {} bytes; {name:?} does not", limits::MAX_SLOT)]
    Name {
        /// The name.
        name: String,
    },
    /// The control plane fills it.
    #[error("the models of slot {slot} come from the control plane; give this one another slot")]
    Filled {
        /// The slot.
        slot: String,
    },
    /// There are too many slots.
    #[error("a device has at most {} slots", limits::MAX_SLOTS)]
    TooMany,
    /// The artifact is damaged.
    #[error("the artifact of slot {slot} cannot be used: {error}")]
    Artifact {
        /// The slot.
        slot: String,
        /// What is wrong with it.
        error: FormatError,
    },
    /// The baseline is too large.
    #[error("the artifact of slot {slot} cannot be monitored: {error}")]
    Layout {
        /// The slot.
        slot: String,
        /// How large it would have to be.
        error: LayoutError,
    },
}

/// Bytes at an address where tensors can be used in place.
pub(crate) struct Owned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Owned {
    /// A copy.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut owned = Self::zeroed(bytes.len());
        owned.bytes_mut().copy_from_slice(bytes);
        owned
    }

    pub(crate) fn zeroed(len: usize) -> Self {
        const ALIGNMENT: usize = dunlin_runtime::artifact::limits::ALIGNMENT;
        let memory = vec![0; len + ALIGNMENT - 1];
        // The memory stays where it is when its owner moves.
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Owned { memory, start, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// A monitor of some size.
trait Counting: Send {
    fn input(&mut self, index: usize, bytes: &[u8]);
    fn output(&mut self, index: usize, bytes: &[u8]);
    fn completed(&mut self, latency_us: u64);
    fn failed(&mut self, kind: Failure);
    fn reading(&mut self, gauge: GaugeKind, reading: i32);
    fn mark(&mut self, mark: Mark, bytes: u32);
    fn runs(&self) -> u64;
    fn due(&self, now_ms: u64) -> bool;
    fn schedule(&mut self, schedule: Schedule);
    fn close(&mut self, now_ms: u64, unix_s: u64, slot: &str, budget: usize) -> Result<Closed, EncodeError>;
}

/// A closed window as reports.
struct Closed {
    bodies: Vec<Vec<u8>>,
    inferences: u64,
    failures: u64,
}

impl<const FEATURES: usize, const COUNTERS: usize> Counting for Monitor<'_, FEATURES, COUNTERS> {
    fn input(&mut self, index: usize, bytes: &[u8]) {
        self.observe_input(index, bytes);
    }

    fn output(&mut self, index: usize, bytes: &[u8]) {
        self.observe_output(index, bytes);
    }

    fn completed(&mut self, latency_us: u64) {
        Monitor::completed(self, latency_us);
    }

    fn failed(&mut self, kind: Failure) {
        Monitor::failed(self, kind);
    }

    fn reading(&mut self, gauge: GaugeKind, reading: i32) {
        Monitor::reading(self, gauge, reading);
    }

    fn mark(&mut self, mark: Mark, bytes: u32) {
        Monitor::mark(self, mark, bytes);
    }

    fn runs(&self) -> u64 {
        u64::from(self.window().inferences()) + self.window().failures()
    }

    fn due(&self, now_ms: u64) -> bool {
        Monitor::due(self, now_ms)
    }

    fn schedule(&mut self, schedule: Schedule) {
        self.set_schedule(schedule);
    }

    fn close(&mut self, now_ms: u64, unix_s: u64, slot: &str, budget: usize) -> Result<Closed, EncodeError> {
        let window = Box::new(Monitor::close(self, now_ms, unix_s));
        Ok(Closed {
            bodies: bodies::reports(slot, &*window, budget)?,
            inferences: u64::from(window.inferences()),
            failures: window.failures(),
        })
    }
}

type AnyMonitor<'m> = Box<dyn Counting + 'm>;

self_cell!(
    struct Monitored {
        owner: Arc<Owned>,
        #[not_covariant]
        dependent: AnyMonitor,
    }
);

/// What was counted since the last close.
#[derive(Debug, Default)]
pub(crate) struct Harvest {
    pub(crate) reports: Vec<Vec<u8>>,
    pub(crate) labels: Vec<Vec<u8>>,
    pub(crate) inferences: u64,
    pub(crate) failures: u64,
}

struct Inner {
    monitored: Monitored,
    labels: Labels,
    labels_left_out: u64,
    /// When the open window was opened.
    opened_ms: u64,
}

/// A handle on one model slot. Cheap to clone; may be used from several threads.
///
/// For every run: [`input`](Self::input) before it, which is when the input's memory still holds the input, then
/// [`completed`](Self::completed) and [`output`](Self::output), or [`failed`](Self::failed).
#[derive(Clone)]
pub struct Slot {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    artifact: Arc<Owned>,
    model: [u8; 32],
    wake: Arc<Notify>,
    schedule: Mutex<Schedule>,
    inner: Mutex<Inner>,
}

/// A panic in another thread cannot have left the counters half-written in a way that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the smallest monitor that fits, as most models have few features and many agents may share a machine.
fn monitor<'m>(
    artifact: Artifact<'m>,
    schedule: Schedule,
    now_ms: u64,
) -> Result<AnyMonitor<'m>, LayoutError> {
    const MOST: (usize, usize) =
        (dunlin_runtime::artifact::limits::MAX_FEATURES, dunlin_runtime::artifact::limits::MAX_COUNTERS);
    if let Ok(monitor) = Monitor::<4, 160>::new(artifact, schedule, now_ms) {
        return Ok(Box::new(monitor));
    }
    if let Ok(monitor) = Monitor::<32, 1024>::new(artifact, schedule, now_ms) {
        return Ok(Box::new(monitor));
    }
    Ok(Box::new(Monitor::<{ MOST.0 }, { MOST.1 }>::new(artifact, schedule, now_ms)?))
}

impl Slot {
    pub(crate) fn new(
        name: &str,
        artifact: &[u8],
        schedule: Schedule,
        now_ms: u64,
        wake: Arc<Notify>,
    ) -> Result<Self, SlotError> {
        if name.is_empty() || name.len() > limits::MAX_SLOT {
            return Err(SlotError::Name { name: name.to_owned() });
        }
        let slot = || name.to_owned();
        let owned = Arc::new(Owned::new(artifact));
        let parse = |error| SlotError::Artifact { slot: slot(), error };
        let artifact = Artifact::parse(owned.bytes()).map_err(parse)?;
        artifact.verify_digest().map_err(parse)?;
        let model = artifact.digest();
        let monitored = Monitored::try_new(Arc::clone(&owned), |owned| {
            let artifact = Artifact::parse(owned.bytes()).map_err(parse)?;
            monitor(artifact, schedule, now_ms).map_err(|error| SlotError::Layout { slot: slot(), error })
        })?;
        let inner = Inner { monitored, labels: Labels::new(), labels_left_out: 0, opened_ms: now_ms };
        let (schedule, inner) = (Mutex::new(schedule), Mutex::new(inner));
        let shared = Shared { name: slot(), artifact: owned, model, wake, schedule, inner };
        Ok(Slot { shared: Arc::new(shared) })
    }

    /// The slot's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The bytes of the artifact that runs in it, aligned as [`Artifact::parse`] demands.
    pub fn artifact(&self) -> &[u8] {
        self.shared.artifact.bytes()
    }

    /// Whether nobody else has this handle: what it counted is all that it will ever count.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Whether both are handles on the same slot with the same model.
    pub(crate) fn is(&self, other: &Slot) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The digest of the artifact that runs in it.
    pub fn model(&self) -> [u8; 32] {
        self.shared.model
    }

    /// Counts an input's bytes, as the model takes them. Before the run, which may reuse that memory.
    pub fn input(&self, index: usize, bytes: &[u8]) {
        self.count(|monitor| monitor.input(index, bytes));
    }

    /// Counts an output's bytes, as the model gives them.
    pub fn output(&self, index: usize, bytes: &[u8]) {
        self.count(|monitor| monitor.output(index, bytes));
    }

    /// Counts an inference that gave a result.
    pub fn completed(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.ran(|monitor| monitor.completed(us));
    }

    /// Counts an inference that gave none.
    pub fn failed(&self, kind: Failure) {
        self.ran(|monitor| monitor.failed(kind));
    }

    /// Takes a reading of the device, in the gauge's unit: percent, or degrees Celsius.
    pub fn reading(&self, gauge: GaugeKind, value: f32) {
        if value.is_finite() {
            self.count(|monitor| monitor.reading(gauge, (value * 1000.0).round() as i32));
        }
    }

    /// Raises a high-water mark of memory.
    pub fn mark(&self, mark: Mark, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.count(|monitor| monitor.mark(mark, bytes));
    }

    /// Counts what would have been right for a prediction. `confidence` from 0 to 1 is that of the prediction.
    pub fn label(&self, predicted: u32, label: u32, confidence: Option<f32>) {
        let bin = LabelCount::bin(confidence.unwrap_or(f32::NAN));
        let mut inner = lock(&self.shared.inner);
        let key = (predicted, label, bin);
        if inner.labels.len() < MAX_LABELS || inner.labels.contains_key(&key) {
            *inner.labels.entry(key).or_default() += 1;
        } else {
            inner.labels_left_out += 1;
        }
    }

    fn count(&self, count: impl FnOnce(&mut dyn Counting)) {
        lock(&self.shared.inner).monitored.with_dependent_mut(|_, monitor| count(&mut **monitor));
    }

    /// Counts a run, and wakes the agent where it has to look at the clock or to close the window.
    fn ran(&self, count: impl FnOnce(&mut dyn Counting)) {
        let runs = lock(&self.shared.inner).monitored.with_dependent_mut(|_, monitor| {
            count(&mut **monitor);
            monitor.runs()
        });
        if runs == 1 || runs == u64::from(lock(&self.shared.schedule).runs.clamp(1, Schedule::MAX_RUNS)) {
            self.shared.wake.notify_one();
        }
    }

    /// Whether the open window is to be closed, and whether there is anything in it.
    pub(crate) fn due(&self, now_ms: u64) -> (bool, bool) {
        let inner = lock(&self.shared.inner);
        let labelled = !inner.labels.is_empty();
        inner.monitored.with_dependent(|_, monitor| (monitor.due(now_ms), labelled || monitor.runs() > 0))
    }

    /// When the open window is to be closed, in milliseconds of the agent's clock.
    pub(crate) fn closes_at_ms(&self) -> u64 {
        let period_ms = u64::from(lock(&self.shared.schedule).period_ms);
        lock(&self.shared.inner).opened_ms.saturating_add(period_ms)
    }

    pub(crate) fn set_schedule(&self, schedule: Schedule) {
        *lock(&self.shared.schedule) = schedule;
        self.count(|monitor| monitor.schedule(schedule));
    }

    /// Closes the window and opens an empty one.
    pub(crate) fn close(&self, now_ms: u64, unix_s: u64, budget: usize) -> Result<Harvest, EncodeError> {
        let mut inner = lock(&self.shared.inner);
        let (name, model) = (self.name(), self.shared.model);
        let closed =
            inner.monitored.with_dependent_mut(|_, monitor| monitor.close(now_ms, unix_s, name, budget))?;
        let labels = bodies::labels(name, model, &inner.labels, budget)?;
        inner.labels.clear();
        inner.opened_ms = now_ms;
        let (inferences, failures) = (closed.inferences, closed.failures);
        Ok(Harvest { reports: closed.bodies, labels, inferences, failures })
    }

    /// Labels that found no room, since the agent was started.
    pub fn labels_left_out(&self) -> u64 {
        lock(&self.shared.inner).labels_left_out
    }
}
