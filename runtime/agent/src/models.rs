//! The application's view of a slot that the control plane fills.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use dunlin_protocol::limits;
use tokio::sync::watch;

use crate::agent::Shared;
use crate::slot::{Slot, SlotError};

/// What a slot that the control plane fills offers to its models. All fields have defaults.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// An artifact that the application brings along: it runs while the slot is empty, which is before the first
    /// assignment and after the last.
    pub built_in: Option<Vec<u8>>,
    /// The kernels that the application has linked, as in `Session`.
    pub kernels: u128,
    /// Most bytes of a model's arena.
    pub arena_bytes: usize,
    /// Most bytes of an artifact.
    pub bank_bytes: u32,
    /// Most bytes that are fetched in a second; 0 as many as come.
    pub bytes_per_s: u32,
    /// Time between attempts at fetching: the first pause, and the longest.
    pub pauses: (Duration, Duration),
}

impl Default for ModelSettings {
    fn default() -> Self {
        ModelSettings {
            built_in: None,
            kernels: dunlin_runtime::ALL_KERNELS,
            arena_bytes: 256 << 20,
            bank_bytes: 64 << 20,
            bytes_per_s: 0,
            pauses: (Duration::from_secs(2), Duration::from_secs(600)),
        }
    }
}

/// Why the control plane cannot fill a slot.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The name, or the artifact that was brought along.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// Models have to be kept.
    #[error("a slot that the control plane fills needs a state folder: set Settings::state_dir")]
    NoStateDir,
    /// The slot is taken.
    #[error("slot {slot} is in use already")]
    Taken {
        /// The slot.
        slot: String,
    },
    /// What is kept of the slot cannot be read.
    #[error("the models of slot {slot} cannot be kept in {}: {error}", path.display())]
    File {
        /// The slot.
        slot: String,
        /// Its folder.
        path: std::path::PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl ModelsError {
    pub(crate) fn check_name(slot: &str) -> Result<(), ModelsError> {
        if slot.is_empty() || slot.len() > limits::MAX_SLOT {
            return Err(SlotError::Name { name: slot.to_owned() }.into());
        }
        Ok(())
    }
}

/// Which model runs now; the agent's side of [`Models`].
pub(crate) struct Publisher {
    current: watch::Sender<Option<Slot>>,
    /// For those who wait without a runtime.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Publisher { current: watch::Sender::new(None), lock: Mutex::new(()), changed: Condvar::new() }
    }

    pub(crate) fn current(&self) -> Option<Slot> {
        self.current.borrow().clone()
    }

    pub(crate) fn publish(&self, slot: Option<Slot>) {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.send_replace(slot);
        drop(held);
        self.changed.notify_all();
    }
}

/// The models that run one after another in a slot that the control plane fills ([`crate::Agent::models`]).
///
/// ```no_run
/// # use std::time::Duration;
/// # fn run_the_model(_: &dunlin_agent::Slot) {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (identity, settings) = (dunlin_agent::Identity::load("".as_ref())?.unwrap(), Default::default());
/// let agent = dunlin_agent::Agent::start(identity, settings)?;
/// let mut models = agent.models("kws", dunlin_agent::ModelSettings::default())?;
/// loop {
///     match models.current() {
///         // The artifact's bytes are `slot.artifact()`: make a session of them, and tell `slot` about each run.
///         Some(slot) => while !models.has_changed() { run_the_model(&slot); },
///         None => { models.wait(Duration::from_secs(60)); }
///     }
/// }
/// # }
/// ```
pub struct Models {
    name: String,
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    seen: watch::Receiver<Option<Slot>>,
}

impl Models {
    pub(crate) fn new(name: &str, shared: Arc<Shared>, publisher: Arc<Publisher>) -> Self {
        let seen = publisher.current.subscribe();
        Models { name: name.to_owned(), shared, publisher, seen }
    }

    /// The model that is to run now; none while there is none. What was taken before still counts what it is told, until
    /// it is dropped.
    pub fn current(&mut self) -> Option<Slot> {
        self.seen.borrow_and_update().clone()
    }

    /// Whether another model is to run than [`Models::current`] gave.
    pub fn has_changed(&self) -> bool {
        // The publisher lives as long as this.
        self.seen.has_changed().unwrap_or(false)
    }

    /// Waits until another model is to run than [`Models::current`] gave.
    pub async fn changed(&mut self) {
        // The publisher lives as long as this. The change stays unseen until `current` is called.
        if self.seen.changed().await.is_ok() {
            self.seen.mark_changed();
        }
    }

    /// Waits until another model is to run than [`Models::current`] gave, for so long at most; whether one is. Not to be
    /// called in a task.
    pub fn wait(&self, patience: Duration) -> bool {
        let held = self.publisher.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.publisher.changed.wait_timeout_while(held, patience, |()| !self.has_changed());
        drop(waited);
        self.has_changed()
    }

    /// Tells that a model cannot be run in this application, and why: the one before it comes back.
    pub fn failed(&self, slot: &Slot, reason: &str) {
        self.shared.model_failed(&self.name, slot, reason);
    }
}
