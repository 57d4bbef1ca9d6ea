//! One slot that the control plane fills: what the state machine asks for is done here.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dunlin_protocol::{EventKind, SlotStatus};

use super::banks::Banks;
use crate::agent::{Shared, lock, random};
use crate::models::{ModelSettings, Publisher};
use crate::slot::Slot;
use crate::update::{Action, Actions, Bank, Event, Model, Reason, Record, Settings, Status, Target, Update};

/// After so many bytes of an artifact what was fetched is made to stay.
pub(super) const SAVE_EVERY_BYTES: u32 = 256 << 10;

/// Work that takes a while, and is done beside everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Fetch { bank: Bank, model: Model, offset: u32 },
    Verify { bank: Bank, model: Model },
    Prove { bank: Bank, model: Model },
}

/// What a job has to say.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(super) event: Event,
    /// For people.
    pub(super) text: Option<String>,
    /// Which golden vector came out wrong, if one did.
    pub(super) wrong_vector: i64,
}

/// A slot that the control plane fills.
pub(crate) struct Filled {
    pub(super) name: String,
    pub(super) banks: Banks,
    pub(super) settings: ModelSettings,
    update: Update,
    publisher: Arc<Publisher>,
    /// Where the assigned model is fetched from; not known after a restart until the assignment comes again.
    url: Option<String>,
    /// Work that has not begun.
    job: Option<Job>,
    /// The number of the newest job: answers of older ones are late.
    newest: u64,
    /// Why what was assigned is not believed.
    refused: Option<String>,
    /// What holds the update up.
    trouble: Option<String>,
    /// Why the record cannot be kept.
    fault: Option<String>,
    /// More about why a model was refused: what a check found, or what the application says.
    detail: Option<String>,
    /// Which golden vector came out wrong.
    wrong_vector: i64,
    /// Why the model that was brought along cannot be run.
    unusable: Option<String>,
    told: Option<Told>,
}

/// What stands in the device's state about a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) model: [u8; 32],
    pub(crate) status: SlotStatus,
    pub(crate) reason: String,
}

impl Filled {
    /// Takes up what the slot was left with. Whatever can run without the control plane runs from now on.
    pub(crate) fn start(
        name: &str,
        state_dir: &Path,
        settings: ModelSettings,
        publisher: Arc<Publisher>,
        shared: &Shared,
    ) -> io::Result<Self> {
        let banks = Banks::open(state_dir, name)?;
        let record = match banks.record() {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let detail = format!("which models the slot has: {error}");
                shared.event(name, EventKind::StorageLost, 1, &detail);
                Record::default()
            }
            Err(error) => return Err(error),
        };
        let ms = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let bounds = Settings {
            bank_bytes: settings.bank_bytes,
            save_every_bytes: SAVE_EVERY_BYTES,
            least_pause_ms: ms(settings.pauses.0),
            longest_pause_ms: ms(settings.pauses.1),
        };
        let (update, actions) = Update::start(bounds, record);
        let mut filled = Filled {
            name: name.to_owned(),
            banks,
            settings,
            update,
            publisher,
            url: None,
            job: None,
            newest: 0,
            refused: None,
            trouble: None,
            fault: None,
            detail: None,
            wrong_vector: 0,
            unusable: None,
            told: None,
        };
        filled.follow(actions, shared);
        Ok(filled)
    }

    /// The slot's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An assignment that is believed names this for the slot, and where to fetch it.
    pub(super) fn assigned(&mut self, generation: u64, target: Target, url: &str, shared: &Shared) {
        self.refused = None;
        self.url = Some(url.to_owned()).filter(|url| !url.is_empty());
        self.trouble = match self.url {
            Some(_) => self.trouble.take(),
            None => Some("the assignment does not say where to fetch the model".to_owned()),
        };
        self.step(Event::Assigned { generation, target }, shared);
    }

    /// What was assigned is not believed; true if that is news.
    pub(super) fn refuse(&mut self, why: &str) -> bool {
        let is_news = self.refused.as_deref() != Some(why);
        self.refused = Some(why.to_owned());
        is_news
    }

    /// A window of a model in this slot was closed.
    pub(super) fn window(&mut self, model: [u8; 32], inferences: u64, failures: u64, shared: &Shared) {
        // Late windows of the model before it do not count.
        if matches!(self.update.status(), Status::Trial(trial) if trial.digest == model) {
            let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            let (inferences, failures) = (count(inferences), count(failures));
            self.step(Event::Window { inferences, failures }, shared);
        }
    }

    /// The application cannot run a model.
    pub(crate) fn failed(&mut self, slot: &Slot, reason: &str, shared: &Shared) {
        if !self.publisher.current().is_some_and(|current| current.is(slot)) {
            return;
        }
        if self.running().is_none() {
            // There is nothing before the model that was brought along.
            self.unusable = Some(reason.to_owned());
            *lock(&shared.state_changed) = true;
            return;
        }
        self.detail = Some(reason.to_owned());
        self.step(Event::StartFailed(Reason::Start), shared);
    }

    /// Time has passed; when to call this again, in milliseconds.
    pub(super) fn tick(&mut self, now_ms: u64, shared: &Shared) -> Option<u64> {
        if self.update.wake_at_ms().is_some_and(|at_ms| now_ms >= at_ms) {
            self.step(Event::Tick, shared);
        }
        self.update.wake_at_ms()
    }

    /// The job that can begin now, and its number.
    pub(super) fn begin(&mut self) -> Option<(Job, u64, Option<String>)> {
        if matches!(self.job, Some(Job::Fetch { .. })) && self.url.is_none() {
            return None;
        }
        let job = self.job.take()?;
        self.newest += 1;
        Some((job, self.newest, self.url.clone()))
    }

    /// Whether the job with this number is still wanted.
    pub(super) fn wants(&self, number: u64) -> bool {
        self.newest == number && self.job.is_none()
    }

    /// An answer of the job with this number.
    pub(super) fn answer(&mut self, number: u64, said: Said, shared: &Shared) {
        if !self.wants(number) {
            return;
        }
        (self.trouble, self.detail) = match said.event {
            Event::Checked(_) => (None, said.text),
            Event::TooMuch => (said.text.clone(), said.text),
            _ => (said.text, None),
        };
        self.wrong_vector = said.wrong_vector;
        self.step(said.event, shared);
    }

    /// What is to be reported.
    pub(crate) fn told(&self) -> Told {
        let (model, status) = match self.update.status() {
            Status::Empty => (None, SlotStatus::Empty),
            Status::Running(model) => (Some(model.digest), SlotStatus::Running),
            Status::Trial(model) => (Some(model.digest), SlotStatus::Trial),
            Status::Updating(model) => (model.map(|model| model.digest), SlotStatus::Updating),
        };
        let (built_in, status) = match (status, self.publisher.current()) {
            (SlotStatus::Empty, Some(slot)) => (Some(slot.model()), SlotStatus::Running),
            (SlotStatus::Updating, Some(slot)) => (Some(slot.model()), SlotStatus::Updating),
            (status, _) => (None, status),
        };
        let refusal = || {
            let refusal = self.update.refusal()?;
            Some(format!("version {} {}", refusal.model.version, self.words(refusal.reason)))
        };
        let trouble = || self.trouble.clone().filter(|_| status == SlotStatus::Updating);
        let faults = [&self.refused, &self.fault].into_iter().flatten().next().cloned();
        let reason = faults.or_else(trouble).or_else(refusal);
        let status = match (&self.unusable, self.running()) {
            (Some(_), None) => SlotStatus::Failed,
            _ => status,
        };
        let unusable = self.unusable.clone().filter(|_| status == SlotStatus::Failed);
        let reason = unusable.or(reason).unwrap_or_default();
        Told { model: model.or(built_in).unwrap_or_default(), status, reason }
    }

    fn running(&self) -> Option<Model> {
        match self.update.status() {
            Status::Empty | Status::Updating(None) => None,
            Status::Running(model) | Status::Trial(model) | Status::Updating(Some(model)) => Some(model),
        }
    }

    /// A reason in words, with what else is known about it.
    fn words(&self, reason: Reason) -> String {
        match &self.detail {
            Some(detail) => format!("{reason}: {detail}"),
            None => reason.to_string(),
        }
    }

    fn step(&mut self, event: Event, shared: &Shared) {
        let random = random().map_or(0, |random| random as u32);
        let actions = self.update.step(event, shared.clock.ms(), random);
        self.follow(actions, shared);
    }

    /// Does what a step asks for, and what follows from that.
    fn follow(&mut self, actions: Actions, shared: &Shared) {
        let mut events: VecDeque<Event> = self.perform(actions, shared).into_iter().collect();
        while let Some(event) = events.pop_front() {
            let random = random().map_or(0, |random| random as u32);
            let actions = self.update.step(event, shared.clock.ms(), random);
            events.extend(self.perform(actions, shared));
        }
        self.tell(shared);
    }

    /// The answer, if one is known at once. What comes behind a failure of the storage is not done.
    fn perform(&mut self, actions: Actions, shared: &Shared) -> Option<Event> {
        let mut answer = None;
        for action in actions {
            match action {
                Action::Save => {
                    let saved = self.banks.save(self.update.record());
                    self.fault =
                        saved.err().map(|error| format!("the slot's record cannot be kept: {error}"));
                    if self.fault.is_some() {
                        self.forget_job();
                        return Some(Event::StorageFailed);
                    }
                }
                Action::StopFetching => self.forget_job(),
                Action::Fetch { bank, model, offset } => self.job = Some(Job::Fetch { bank, model, offset }),
                Action::Verify { bank, model } => self.job = Some(Job::Verify { bank, model }),
                Action::Prove { bank, model } => self.job = Some(Job::Prove { bank, model }),
                Action::Run { bank, model } => {
                    if let Err(why) = self.run(bank, &model, shared) {
                        tracing::error!(
                            slot = self.name,
                            version = model.version,
                            why,
                            "a model cannot be started"
                        );
                        self.detail = Some(why);
                        answer = Some(Event::StartFailed(Reason::Start));
                    }
                }
                Action::Stop => self.run_built_in(shared),
                Action::Report => *lock(&shared.state_changed) = true,
                Action::NoteReverted { reason } => {
                    shared.event(&self.name, EventKind::Reverted, 0, &self.words(reason));
                }
                Action::NoteGoldenMismatch => {
                    let detail = self.detail.as_deref().unwrap_or_default();
                    shared.event(&self.name, EventKind::GoldenMismatch, self.wrong_vector, detail);
                }
            }
        }
        shared.wake.notify_one();
        answer
    }

    fn forget_job(&mut self) {
        self.job = None;
        self.newest += 1;
    }

    fn run(&mut self, bank: Bank, model: &Model, shared: &Shared) -> Result<(), String> {
        if self.publisher.current().is_some_and(|slot| slot.model() == model.digest) {
            return Ok(());
        }
        let bytes = self.banks.read(bank, model.size).map_err(|error| error.to_string())?;
        let slot = shared.make_slot(&self.name, &bytes).map_err(|error| error.to_string())?;
        if slot.model() != model.digest {
            return Err("it is another model than was stored".into());
        }
        tracing::info!(slot = self.name, version = model.version, "another model runs");
        shared.put_slot(slot.clone());
        self.publisher.publish(Some(slot));
        Ok(())
    }

    /// Runs what the application brought along, or nothing.
    fn run_built_in(&mut self, shared: &Shared) {
        let slot = self.settings.built_in.as_deref().map(|bytes| shared.make_slot(&self.name, bytes));
        match slot {
            Some(Ok(slot)) => {
                if self.publisher.current().is_none_or(|current| current.model() != slot.model()) {
                    shared.put_slot(slot.clone());
                    self.publisher.publish(Some(slot));
                }
                return;
            }
            // Checked when the slot was made.
            Some(Err(error)) => self.unusable = Some(error.to_string()),
            None => {}
        }
        if self.publisher.current().is_some() {
            shared.take_slot(&self.name);
            self.publisher.publish(None);
        }
    }

    /// Has the state reported when something in it has changed.
    fn tell(&mut self, shared: &Shared) {
        let told = self.told();
        if self.told.as_ref() != Some(&told) {
            self.told = Some(told);
            *lock(&shared.state_changed) = true;
            shared.wake.notify_one();
        }
    }
}
