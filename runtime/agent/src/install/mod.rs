//! What the control plane assigns: believed or not, fetched, checked, and brought to run.
//!
//! ```text
//! down/desired ─▶ Trustee (roots, signatures, counters) ─▶ Filled, one per slot ─▶ jobs (fetch, verify, prove)
//! ```

mod banks;
mod download;
mod filled;
mod jobs;
mod roots;
mod sealed;
mod trustee;

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_protocol::{Desired, EventKind, SlotState, SlotStatus, limits};
use dunlin_trust::{Dalek, Refused, Time, Trust};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

use crate::agent::{Shared, cut, lock};
use crate::identity::Identity;
use crate::update::{self, Room};
use download::Download;
use filled::{Job, Said};
use trustee::Trustee;

pub(crate) use filled::{Filled, Told};
pub use trustee::TrustError;

/// Time between attempts at fetching a root, in milliseconds.
const ROOT_PERIOD_MS: u64 = 60_000;
/// When to look again at what may be believed later, in milliseconds: the first time, and at the latest.
const AGAIN_MS: (u64, u64) = (10_000, 3_600_000);
/// An application has so long after the agent's start to declare its slots, in milliseconds.
const DECLARE_MS: u64 = 10_000;

/// What became of a desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts.
    Believed,
    /// It does not.
    Refused,
    /// The device has no root: whom to believe is not known, and nothing is installed.
    Rootless,
}

/// What comes from tasks.
pub(crate) enum Answer {
    Job { slot: String, number: u64, said: Said },
    Root { number: u32, root: Result<Vec<u8>, String> },
}

/// The agent's part that installs models.
pub(crate) struct Installer {
    shared: Arc<Shared>,
    trustee: Trustee,
    server: String,
    server_ca: Option<String>,
    device: String,
    /// The desired state that was believed last: looked at again when a slot was declared.
    believed: Option<Vec<u8>>,
    /// One that cannot be judged yet: looked at again when a root has come.
    pending: Option<Vec<u8>>,
    /// Models that were assigned to slots which the control plane does not fill here.
    unfilled: BTreeMap<String, [u8; 32]>,
    /// It is too late to declare one of them.
    is_late: bool,
    /// Slots that were looked at with the newest desired state.
    declared: usize,
    /// Why the newest desired state is not believed.
    refused: Option<String>,
    /// A root is being fetched.
    asking: bool,
    /// When to look again at what is pending.
    again_at_ms: Option<u64>,
    again_pause_ms: u64,
    tasks: JoinSet<()>,
    /// The job of each slot, to be ended when it is not wanted any more.
    running: Vec<(String, u64, AbortHandle)>,
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
}

impl Installer {
    pub(crate) fn new(shared: Arc<Shared>, identity: &Identity) -> Result<Self, TrustError> {
        let settings = &shared.settings;
        let trustee =
            Trustee::open(settings.state_dir.as_deref(), settings.root.as_deref(), identity.root.as_deref())?;
        Ok(Installer {
            trustee,
            shared,
            server: identity.server.clone(),
            server_ca: identity.server_ca.clone(),
            device: identity.device.clone(),
            believed: None,
            pending: None,
            unfilled: BTreeMap::new(),
            is_late: false,
            declared: 0,
            refused: None,
            asking: false,
            again_at_ms: None,
            again_pause_ms: AGAIN_MS.0,
            tasks: JoinSet::new(),
            running: Vec::new(),
            answers: mpsc::unbounded_channel(),
        })
    }

    /// Waits for what a task has to say.
    pub(crate) async fn next(&mut self) -> Answer {
        match self.answers.1.recv().await {
            Some(answer) => answer,
            // The other end is in this struct.
            None => std::future::pending().await,
        }
    }

    /// Takes what a task has to say; the desired state that can now be looked at again.
    pub(crate) fn take(&mut self, answer: Answer) -> Option<Vec<u8>> {
        match answer {
            Answer::Job { slot, number, said } => {
                let shared = Arc::clone(&self.shared);
                if let Some(filled) = lock(&shared.filled).iter_mut().find(|filled| filled.name == slot) {
                    filled.answer(number, said, &shared);
                }
                None
            }
            Answer::Root { number, root } => {
                self.asking = false;
                match root.and_then(|root| self.trustee.take_root(&root)) {
                    Ok(()) => {
                        tracing::info!(number, "another root counts");
                        self.again_at_ms = None;
                        self.pending.take()
                    }
                    Err(why) => {
                        tracing::warn!(number, why, "the root cannot be used");
                        self.again_at_ms = Some(self.shared.clock.ms() + ROOT_PERIOD_MS);
                        self.refuse_all(0, &format!("root {number} is needed, but {why}"));
                        None
                    }
                }
            }
        }
    }

    /// Decides about a desired state, and hands what is believed of it to the slots.
    pub(crate) fn desired(&mut self, message: &[u8], desired: &Desired<'_>) -> Verdict {
        self.declared = lock(&self.shared.filled).len();
        let now = match self.shared.clock.unix_s() {
            0 => Time::Unknown,
            seconds => Time::UnixS(seconds),
        };
        let Some(trust) = self.trustee.trust() else {
            self.pending = Some(message.to_owned());
            self.rootless(desired);
            return Verdict::Rootless;
        };
        let mut trust = trust.clone();
        let assigned = match trust.assignment(message, &self.device, now, &Dalek) {
            Ok(assigned) => assigned,
            Err(Refused::RootMissing { .. }) => {
                self.pending = Some(message.to_owned());
                self.ask_root(self.trustee.next_root());
                return Verdict::Refused;
            }
            Err(refused) => {
                if let Refused::Expired { .. } = refused {
                    self.look_again(message);
                }
                self.refuse_all(desired.generation, &format!("the assignment is not believed: {refused}"));
                return Verdict::Refused;
            }
        };
        trust.keep(&assigned);
        match self.install(trust, &assigned.desired, now) {
            Ok(is_expired) => {
                self.refused = None;
                self.believed = Some(message.to_owned());
                if is_expired {
                    self.look_again(message);
                } else {
                    (self.again_at_ms, self.again_pause_ms) = (None, AGAIN_MS.0);
                }
            }
            Err(error) => {
                tracing::error!(%error, "what the device believes cannot be kept: nothing is installed");
                self.refuse_all(desired.generation, &error.to_string());
                self.look_again(message);
                return Verdict::Refused;
            }
        }
        Verdict::Believed
    }

    /// What is refused now may be believed later: the clock may be wrong, or the disk full.
    fn look_again(&mut self, message: &[u8]) {
        self.pending = Some(message.to_owned());
        // One that came because of the last look does not postpone the next.
        self.again_at_ms.get_or_insert(self.shared.clock.ms() + self.again_pause_ms);
    }

    /// Hands what is believed to the slots; whether something in it has expired. Nothing is acted upon before what it
    /// changes in the device's trust is stored.
    fn install(&mut self, mut trust: Trust, desired: &Desired<'_>, now: Time) -> Result<bool, TrustError> {
        let hardware = cut(&self.shared.settings.hardware, limits::MAX_NAME).to_owned();
        let targets: Vec<_> = desired
            .slots
            .iter()
            .map(|slot| (slot, update::target(&mut trust, &slot, &hardware, now, &Dalek)))
            .collect();
        self.trustee.replace(trust)?;
        let shared = Arc::clone(&self.shared);
        self.unfilled.clear();
        let mut is_expired = false;
        let mut slots = lock(&shared.filled);
        for (slot, target) in targets {
            let Some(filled) = slots.iter_mut().find(|filled| filled.name == slot.slot) else {
                if slot.model != [0; 32] {
                    self.unfilled.insert(slot.slot.to_owned(), slot.model);
                }
                continue;
            };
            match target {
                Ok(target) => {
                    filled.assigned(desired.generation, target, &self.address(slot.url), &shared);
                }
                Err(refused) => {
                    is_expired |= matches!(refused, Refused::Expired { .. });
                    let why = format!("version {} is not believed: {refused}", slot.version);
                    if filled.refuse(&why) {
                        let generation = i64::try_from(desired.generation).unwrap_or(i64::MAX);
                        shared.event(slot.slot, EventKind::AssignmentRefused, generation, &why);
                    }
                }
            }
        }
        drop(slots);
        *lock(&shared.state_changed) = true;
        Ok(is_expired)
    }

    /// Where to fetch: a server that does not know under which name it is reached says `localhost`.
    fn address(&self, url: &str) -> String {
        let (Ok(mut url), Ok(server)) = (Url::parse(url), Url::parse(&self.server)) else {
            return url.to_owned();
        };
        if url.host_str() == Some("localhost") {
            // Both have hosts, or they would be no addresses of HTTP; else it stays as it was.
            let _ = url.set_host(server.host_str());
            let _ = url.set_port(server.port());
            let _ = url.set_scheme(server.scheme());
        }
        url.into()
    }

    /// Without a root nobody is believed. The first one comes from the server that enrolled the device.
    fn rootless(&mut self, desired: &Desired<'_>) {
        if desired.root > 0 {
            return self.ask_root(Some(desired.root));
        }
        if desired.slots.iter().any(|slot| slot.model != [0; 32]) {
            self.refuse_all(desired.generation, "the control plane has no keys yet: dunlin keys create");
        }
    }

    /// Takes note of why an assignment does not count; tells it once.
    fn refuse_all(&mut self, generation: u64, why: &str) {
        if self.refused.as_deref() == Some(why) {
            return;
        }
        tracing::warn!(why, "the assignment is refused");
        self.refused = Some(why.to_owned());
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.shared.event("", EventKind::AssignmentRefused, generation, why);
        *lock(&self.shared.state_changed) = true;
        self.shared.wake.notify_one();
    }

    fn ask_root(&mut self, number: Option<u32>) {
        let Some(number) = number.filter(|_| !self.asking && self.again_at_ms.is_none()) else { return };
        self.asking = true;
        let (server, ca, answers) = (self.server.clone(), self.server_ca.clone(), self.answers.0.clone());
        self.tasks.spawn(async move {
            let root = roots::root(server, ca, number).await;
            // The agent has ended otherwise.
            let _ = answers.send(Answer::Root { number, root });
        });
    }

    /// A window was closed.
    pub(crate) fn window(&self, slot: &str, model: [u8; 32], inferences: u64, failures: u64) {
        if let Some(filled) = lock(&self.shared.filled).iter_mut().find(|filled| filled.name == slot) {
            filled.window(model, inferences, failures, &self.shared);
        }
    }

    /// Does what is due: the desired state to look at again, and when there is something to do next.
    pub(crate) fn upkeep(&mut self, now_ms: u64) -> (Option<Vec<u8>>, Option<u64>) {
        while self.tasks.try_join_next().is_some() {}
        let mut next_ms = None;
        let mut at = |ms: Option<u64>| next_ms = next_ms.into_iter().chain(ms).min();
        let shared = Arc::clone(&self.shared);
        let mut slots = lock(&shared.filled);
        slots.iter_mut().for_each(|filled| at(filled.tick(now_ms, &shared)));
        // What is not wanted any more ends before something else begins.
        self.running.retain(|(slot, number, task)| {
            let wanted = slots.iter().any(|filled| filled.name == *slot && filled.wants(*number));
            if !wanted {
                task.abort();
            }
            wanted
        });
        slots.iter_mut().for_each(|filled| self.spawn(filled));
        let is_new = slots.len() > self.declared;
        drop(slots);
        if !self.unfilled.is_empty() && !self.is_late {
            at(Some(DECLARE_MS));
            if now_ms >= DECLARE_MS {
                self.is_late = true;
                *lock(&shared.state_changed) = true;
            }
        }
        if self.again_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.again_at_ms = None;
            self.again_pause_ms = (2 * self.again_pause_ms).min(AGAIN_MS.1);
            // The control plane hears that its assignment is not known here, and sends it again, signed anew.
            *lock(&shared.state_changed) = true;
            return (self.pending.take(), Some(now_ms));
        }
        at(self.again_at_ms);
        (self.believed.clone().filter(|_| is_new), next_ms)
    }

    fn spawn(&mut self, filled: &mut Filled) {
        let Some((job, number, url)) = filled.begin() else { return };
        let (answers, slot) = (self.answers.0.clone(), filled.name.clone());
        let say = move |said| {
            // The agent has ended otherwise.
            let _ = answers.send(Answer::Job { slot: slot.clone(), number, said });
        };
        let banks = filled.banks.clone();
        let settings = &filled.settings;
        let task = match job {
            Job::Fetch { bank, model, offset } => {
                let url = url.unwrap_or_default();
                tracing::info!(slot = filled.name, version = model.version, offset, "fetching a model");
                let download = Download {
                    ca: self.server_ca.clone(),
                    url,
                    model,
                    sync_every: filled::SAVE_EVERY_BYTES,
                    bytes_per_s: settings.bytes_per_s,
                };
                let file = banks.append(bank, offset);
                self.tasks.spawn(jobs::fetch(download, file, say))
            }
            Job::Verify { bank, model } => {
                let room = Room { kernels: settings.kernels, arena: settings.arena_bytes };
                self.tasks.spawn(jobs::check(move || jobs::verify_bank(&banks, bank, &model, room), say))
            }
            Job::Prove { bank, model } => {
                self.tasks.spawn(jobs::check(move || jobs::prove_bank(&banks, bank, &model), say))
            }
        };
        self.running.push((filled.name.clone(), number, task));
    }

    /// What the slots are to be reported as: those that the control plane fills, and those that it assigned in vain.
    pub(crate) fn told(&self) -> Vec<(String, Told)> {
        let slots = lock(&self.shared.filled);
        let filled = slots.iter().map(|filled| {
            let mut told = filled.told();
            if let Some(refused) = &self.refused {
                told.reason.clone_from(refused);
            }
            (filled.name.clone(), told)
        });
        let mut told: Vec<_> = filled.collect();
        drop(slots);
        let fixed = lock(&self.shared.slots).iter().map(|slot| slot.name().to_owned()).collect::<Vec<_>>();
        for slot in self.unfilled.keys().filter(|slot| self.is_late && !fixed.contains(slot)) {
            let reason = "no application on this device has this slot".to_owned();
            told.push((slot.clone(), Told { model: [0; 32], status: SlotStatus::Failed, reason }));
        }
        told
    }

    /// Why a slot that the application fills itself does not hold what was assigned; empty if it does.
    pub(crate) fn fixed_reason(&self, slot: &str, model: [u8; 32]) -> &'static str {
        match self.unfilled.get(slot) {
            Some(assigned) if *assigned != model => "the application on this device brings its own model",
            _ => "",
        }
    }
}

impl Told {
    /// As it goes into the message.
    pub(crate) fn state<'a>(&'a self, slot: &'a str) -> SlotState<'a> {
        let reason = cut(&self.reason, limits::MAX_DETAIL);
        SlotState { slot, model: self.model, status: self.status, reason }
    }
}
