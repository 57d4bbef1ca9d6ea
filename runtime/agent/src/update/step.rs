//! The state machine of one slot.

use super::reason::Reason;
use super::record::{Bank, Candidate, Model, Record, Refusal, Stage, Trial};
use crate::actions;
use crate::pause::pause_ms;

/// Most actions of one step.
const MAX_ACTIONS: usize = 8;
/// A model that came so often with other bytes than its digest says is given up.
const MAX_WRONG: u8 = 3;

/// Times and bounds of an update; the defaults suit a device that is always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that a bank holds.
    pub bank_bytes: u32,
    /// After so many further bytes of an artifact the record is saved, so that a restart resumes there.
    pub save_every_bytes: u32,
    /// The first pause before fetching again after a failure, in milliseconds; doubled each time, and shortened at
    /// random by up to a half.
    pub least_pause_ms: u32,
    /// The longest pause, in milliseconds.
    pub longest_pause_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bank_bytes: u32::MAX,
            save_every_bytes: 64 << 10,
            least_pause_ms: 2_000,
            longest_pause_ms: 600_000,
        }
    }
}

/// What a slot should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The model; its digest is zeros when the slot is to be empty.
    pub model: Model,
    /// When it is kept.
    pub trial: Trial,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time has passed ([`Update::wake_at_ms`]).
    Tick,
    /// An assignment that is believed names this for the slot.
    Assigned {
        /// The assignment's generation.
        generation: u64,
        /// What the slot should hold.
        target: Target,
    },
    /// The answer to [`Action::Fetch`], as often as something came: all bytes below `upto` are in the bank for sure.
    Stored {
        /// Where the next byte goes.
        upto: u32,
    },
    /// Fetching ended before everything was there.
    FetchFailed {
        /// The server asks to wait so long, in milliseconds; 0 when it says nothing.
        retry_after_ms: u64,
    },
    /// More bytes came than were assigned.
    TooMuch,
    /// The answer to [`Action::Verify`] and to [`Action::Prove`]: what is wrong, if anything.
    Checked(Result<(), Reason>),
    /// The model that [`Action::Run`] names could not be started, or turned out to be unusable later.
    StartFailed(Reason),
    /// A window of the running model was closed.
    Window {
        /// Inferences that gave a result.
        inferences: u32,
        /// Inferences that gave none.
        failures: u32,
    },
    /// [`Action::Save`], or writing a bank, failed. What the step asked for after it was not done, and nothing is being
    /// fetched any more.
    StorageFailed,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store the record ([`Update::record`]) in one step. If that fails: drop the actions that follow, and pass
    /// [`Event::StorageFailed`].
    Save,
    /// Stop fetching, if something is being fetched. What comes late is dropped.
    StopFetching,
    /// Fetch the artifact into the bank, from the byte `offset` on. Answer with [`Event::Stored`],
    /// [`Event::FetchFailed`] or [`Event::TooMuch`]. With `offset` 0 the bank's old content is worth nothing.
    Fetch {
        /// Where it goes.
        bank: Bank,
        /// What is fetched.
        model: Model,
        /// The first byte that is missing.
        offset: u32,
    },
    /// Check the bytes in the bank: digest, format, kernels, memory. Answer with [`Event::Checked`].
    Verify {
        /// Where they are.
        bank: Bank,
        /// What they must be.
        model: Model,
    },
    /// Run the golden vectors of the artifact in the bank. Answer with [`Event::Checked`].
    Prove {
        /// Where it is.
        bank: Bank,
        /// What it is.
        model: Model,
    },
    /// From now on run the model in the bank, in the place of the one that runs (which may be the same already); answer
    /// with [`Event::StartFailed`] if that is not possible.
    Run {
        /// Where it is.
        bank: Bank,
        /// What it is.
        model: Model,
    },
    /// Run no model any more.
    Stop,
    /// What the slot does has changed ([`Update::status`]): report the state.
    Report,
    /// Tell that a model was given up and the one before it runs again.
    NoteReverted {
        /// Why.
        reason: Reason,
    },
    /// Tell that a golden vector came out wrong.
    NoteGoldenMismatch,
}

/// What one step asks for, to be performed in this order.
pub type Actions = actions::Actions<Action, MAX_ACTIONS>;

/// What a slot is busy with; not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Nothing,
    Fetching,
    /// Fetching failed; it is tried again then.
    Waiting {
        until_ms: u64,
    },
    Verifying,
    Proving,
    Trial {
        windows: u16,
    },
}

/// One model slot.
#[derive(Clone, Debug)]
pub struct Update {
    settings: Settings,
    record: Record,
    work: Work,
    /// Bytes of the candidate that are in the bank; the record may know of fewer.
    stored: u32,
    /// Attempts at fetching in a row that brought nothing.
    attempts: u32,
    /// The storage failed; the record is saved when it works again.
    fault: bool,
}

/// What a slot does, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No model.
    Empty,
    /// This model runs.
    Running(Model),
    /// This model runs on trial.
    Trial(Model),
    /// Another model is fetched and checked; this one runs meanwhile, if there is one.
    Updating(Option<Model>),
}

impl Update {
    /// A slot after a start of the device, with what it has stored; the default when it has stored nothing. The first
    /// actions say what to run.
    pub fn start(settings: Settings, record: Record) -> (Self, Actions) {
        let mut update = Self { settings, record, work: Work::Nothing, stored: 0, attempts: 0, fault: false };
        let mut actions = Actions::default();
        match update.record.candidate {
            Some(Candidate { stage: Stage::Trial { boots }, trial, .. }) if boots >= trial.boots => {
                update.refuse(Reason::Restarts, &mut actions);
            }
            Some(mut candidate @ Candidate { stage: Stage::Trial { boots }, .. }) => {
                // Counted before it runs: it may be the model that makes the device start again.
                candidate.stage = Stage::Trial { boots: boots.saturating_add(1) };
                update.record.candidate = Some(candidate);
                update.work = Work::Trial { windows: 0 };
                actions.push(Action::Save);
                actions.push(Action::Run { bank: update.record.candidate_bank(), model: candidate.model });
            }
            Some(Candidate { stage: Stage::Fetching { stored }, .. }) => {
                update.stored = stored;
                update.run_current(&mut actions);
                update.fetch(&mut actions);
            }
            None => update.run_current(&mut actions),
        }
        actions.push(Action::Report);
        (update, actions)
    }

    /// What has to be stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What the slot does.
    pub fn status(&self) -> Status {
        let current = self.record.current.map(|(_, model)| model);
        match (self.work, self.record.candidate, current) {
            (Work::Trial { .. }, Some(Candidate { model, .. }), _) => Status::Trial(model),
            (_, Some(_), current) => Status::Updating(current),
            (_, None, Some(model)) => Status::Running(model),
            (_, None, None) => Status::Empty,
        }
    }

    /// Why the model that was assigned last is not kept, if it is not.
    pub fn refusal(&self) -> Option<Refusal> {
        self.record.refusal
    }

    /// When to pass [`Event::Tick`], in milliseconds of the monotonic clock.
    pub fn wake_at_ms(&self) -> Option<u64> {
        match self.work {
            Work::Waiting { until_ms } => Some(until_ms),
            _ => None,
        }
    }

    /// Takes what happened at `now_ms` of the monotonic clock, with a random number, and says what to do.
    pub fn step(&mut self, event: Event, now_ms: u64, random: u32) -> Actions {
        let mut actions = Actions::default();
        let out = &mut actions;
        match event {
            Event::Tick => {
                if let Work::Waiting { until_ms } = self.work
                    && now_ms >= until_ms
                {
                    self.retry(out);
                }
            }
            Event::Assigned { generation, target } => self.assigned(generation, target, out),
            Event::Stored { upto } if self.work == Work::Fetching => self.stored(upto, out),
            Event::FetchFailed { retry_after_ms } if self.work == Work::Fetching => {
                self.wait(now_ms, retry_after_ms, random);
            }
            Event::TooMuch if self.work == Work::Fetching => {
                out.push(Action::StopFetching);
                self.wrong_bytes(now_ms, random, out);
            }
            Event::Checked(Ok(())) if self.work == Work::Verifying => {
                if let Some(Candidate { model, .. }) = self.record.candidate {
                    self.work = Work::Proving;
                    out.push(Action::Prove { bank: self.record.candidate_bank(), model });
                }
            }
            Event::Checked(Ok(())) if self.work == Work::Proving => self.try_out(out),
            Event::Checked(Err(Reason::Digest)) if self.work == Work::Verifying => {
                self.wrong_bytes(now_ms, random, out);
            }
            Event::Checked(Err(reason)) if matches!(self.work, Work::Verifying | Work::Proving) => {
                if reason == Reason::Golden {
                    out.push(Action::NoteGoldenMismatch);
                }
                self.refuse(reason, out);
            }
            Event::StartFailed(reason) if matches!(self.work, Work::Trial { .. }) => self.refuse(reason, out),
            Event::StartFailed(reason) => self.current_lost(reason, out),
            Event::Window { inferences, failures } => {
                if let Work::Trial { windows } = self.work {
                    self.window(windows, inferences, failures, out);
                }
            }
            Event::StorageFailed => self.storage_failed(now_ms, random, out),
            // Late answers to what is not wanted any more.
            Event::Stored { .. } | Event::FetchFailed { .. } | Event::TooMuch | Event::Checked(_) => {}
        }
        actions
    }

    fn assigned(&mut self, generation: u64, target: Target, out: &mut Actions) {
        let model = target.model;
        let mut is_changed = false;
        if let Some(mut candidate) = self.record.candidate {
            if candidate.model == model {
                if candidate.generation != generation || candidate.trial != target.trial {
                    (candidate.generation, candidate.trial) = (generation, target.trial);
                    self.record.candidate = Some(candidate);
                    out.push(Action::Save);
                }
                return;
            }
            self.drop_candidate(out);
            is_changed = true;
        }
        let refusal = self.record.refusal;
        let is_refused = refusal
            .is_some_and(|refusal| refusal.model.digest == model.digest && refusal.generation >= generation);
        let running = self.record.current.map(|(_, model)| model);
        if model.digest == [0; 32] {
            if running.is_some() {
                (self.record.current, self.record.spare) = (None, None);
                // Before it is stored: its bank is free from then on.
                out.push(Action::Stop);
                is_changed = true;
            }
        } else if running.is_some_and(|running| running.digest == model.digest) {
            is_changed |= self.record.refusal.take().is_some();
        } else if !is_refused {
            return self.begin(generation, target, out);
        }
        if is_changed {
            out.push(Action::Save);
            out.push(Action::Report);
        }
    }

    fn begin(&mut self, generation: u64, Target { model, trial }: Target, out: &mut Actions) {
        self.record.refusal = None;
        // From here on the other bank is the candidate's.
        let is_there = self.record.spare.take().is_some_and(|spare| spare.digest == model.digest);
        self.stored = if is_there { model.size } else { 0 };
        self.attempts = 0;
        let stage = Stage::Fetching { stored: self.stored };
        self.record.candidate = Some(Candidate { model, generation, wrong: 0, stage, trial });
        if model.size > self.settings.bank_bytes {
            return self.refuse(Reason::TooLarge, out);
        }
        out.push(Action::Save);
        out.push(Action::Report);
        self.fetch(out);
    }

    /// Gives the candidate up without a reason against it: something else was assigned. To be saved.
    fn drop_candidate(&mut self, out: &mut Actions) {
        if self.work == Work::Fetching {
            out.push(Action::StopFetching);
        }
        if matches!(self.work, Work::Trial { .. }) {
            self.run_current(out);
        }
        self.record.candidate = None;
        self.work = Work::Nothing;
    }

    /// The model that was kept cannot be started any more: its bank is damaged. The one before it takes its place, if it
    /// is still there; what is assigned is fetched again when the assignment comes again.
    fn current_lost(&mut self, reason: Reason, out: &mut Actions) {
        let Some((bank, _)) = self.record.current.take() else { return };
        self.record.current = self.record.spare.take().map(|model| (bank.other(), model));
        if self.record.current.is_some() {
            out.push(Action::NoteReverted { reason });
        }
        let mut is_moved = false;
        if let Some(candidate) = &mut self.record.candidate
            && bank == Bank::A
        {
            // Without a current model the candidate's place is the first bank.
            candidate.stage = Stage::Fetching { stored: 0 };
            self.stored = 0;
            is_moved = true;
        }
        if is_moved && self.work == Work::Fetching {
            out.push(Action::StopFetching);
        }
        self.run_current(out);
        out.push(Action::Save);
        out.push(Action::Report);
        if is_moved && !matches!(self.work, Work::Waiting { .. }) {
            self.fetch(out);
        }
    }

    fn run_current(&self, out: &mut Actions) {
        out.push(match self.record.current {
            Some((bank, model)) => Action::Run { bank, model },
            None => Action::Stop,
        });
    }

    /// Fetches what is missing, or goes on to what follows.
    fn fetch(&mut self, out: &mut Actions) {
        let Some(Candidate { model, .. }) = self.record.candidate else { return };
        let bank = self.record.candidate_bank();
        if self.stored >= model.size {
            self.work = Work::Verifying;
            out.push(Action::Verify { bank, model });
        } else {
            self.work = Work::Fetching;
            out.push(Action::Fetch { bank, model, offset: self.stored });
        }
    }

    fn stored(&mut self, upto: u32, out: &mut Actions) {
        let Some(mut candidate) = self.record.candidate else { return };
        if upto <= self.stored {
            return;
        }
        self.stored = upto.min(candidate.model.size);
        self.attempts = 0;
        let saved = match candidate.stage {
            Stage::Fetching { stored } => stored,
            Stage::Trial { .. } => return,
        };
        let complete = self.stored >= candidate.model.size;
        if complete || self.stored - saved.min(self.stored) >= self.settings.save_every_bytes {
            candidate.stage = Stage::Fetching { stored: self.stored };
            self.record.candidate = Some(candidate);
            out.push(Action::Save);
        }
        if complete {
            self.fetch(out);
        }
    }

    fn wait(&mut self, now_ms: u64, retry_after_ms: u64, random: u32) {
        let (least, longest) = (self.settings.least_pause_ms, self.settings.longest_pause_ms);
        let pause = pause_ms(least, longest, self.attempts, random);
        self.attempts = self.attempts.saturating_add(1);
        // The server may ask for more, but not for ever.
        let pause = pause.max(retry_after_ms.min(u64::from(longest)));
        self.work = Work::Waiting { until_ms: now_ms.saturating_add(pause) };
    }

    /// What came is not what was assigned: all of it is fetched once more, after a pause, but not for ever.
    fn wrong_bytes(&mut self, now_ms: u64, random: u32, out: &mut Actions) {
        let Some(mut candidate) = self.record.candidate else { return };
        candidate.wrong = candidate.wrong.saturating_add(1);
        if candidate.wrong >= MAX_WRONG {
            return self.refuse(Reason::Digest, out);
        }
        candidate.stage = Stage::Fetching { stored: 0 };
        self.record.candidate = Some(candidate);
        self.stored = 0;
        self.wait(now_ms, 0, random);
        out.push(Action::Save);
    }

    fn retry(&mut self, out: &mut Actions) {
        if self.fault {
            self.fault = false;
            out.push(Action::Save);
        }
        match self.record.candidate {
            Some(Candidate { stage: Stage::Fetching { .. }, .. }) => self.fetch(out),
            Some(Candidate { stage: Stage::Trial { .. }, model, .. }) => {
                self.work = Work::Trial { windows: 0 };
                out.push(Action::Run { bank: self.record.candidate_bank(), model });
                out.push(Action::Report);
            }
            None => {
                self.work = Work::Nothing;
                self.run_current(out);
                out.push(Action::Report);
            }
        }
    }

    /// The storage could not be written: what is in memory may be ahead of it. Tried again after a pause; meanwhile the
    /// model runs that ran before.
    fn storage_failed(&mut self, now_ms: u64, random: u32, out: &mut Actions) {
        self.fault = true;
        if let Some(Candidate { stage: Stage::Trial { .. }, .. }) = self.record.candidate {
            self.run_current(out);
        }
        self.wait(now_ms, 0, random);
    }

    /// Everything is proven: the candidate runs, and the model before it stays where it is.
    fn try_out(&mut self, out: &mut Actions) {
        let Some(mut candidate) = self.record.candidate else { return };
        let bank = self.record.candidate_bank();
        let model = candidate.model;
        candidate.stage = Stage::Trial { boots: 1 };
        self.record.candidate = Some(candidate);
        self.work = Work::Trial { windows: 0 };
        out.push(Action::Save);
        out.push(Action::Run { bank, model });
        out.push(Action::Report);
    }

    fn window(&mut self, windows: u16, inferences: u32, failures: u32, out: &mut Actions) {
        let Some(Candidate { trial, .. }) = self.record.candidate else { return };
        let (inferences, failures) = (u64::from(inferences), u64::from(failures));
        if failures * 1000 > u64::from(trial.failures_permille) * (inferences + failures) {
            return self.refuse(Reason::Failures, out);
        }
        // A window without inferences proves nothing.
        let windows = windows.saturating_add(u16::from(inferences > 0));
        self.work = Work::Trial { windows };
        if windows >= trial.windows {
            self.commit(out);
            out.push(Action::Report);
        }
    }

    fn commit(&mut self, out: &mut Actions) {
        let bank = self.record.candidate_bank();
        if let Some(candidate) = self.record.candidate.take() {
            let before = self.record.current.replace((bank, candidate.model));
            self.record.spare = before.map(|(_, model)| model);
        }
        self.work = Work::Nothing;
        out.push(Action::Save);
    }

    /// The candidate is given up for a reason; not tried again for this assignment. If it was on trial, the model before
    /// it runs again: at once, whatever becomes of the storage.
    fn refuse(&mut self, reason: Reason, out: &mut Actions) {
        let Some(candidate) = self.record.candidate.take() else { return };
        let on_trial = matches!(candidate.stage, Stage::Trial { .. });
        let Candidate { model, generation, .. } = candidate;
        self.record.refusal = Some(Refusal { model, generation, reason });
        self.work = Work::Nothing;
        if on_trial {
            self.run_current(out);
            out.push(Action::NoteReverted { reason });
        }
        out.push(Action::Save);
        out.push(Action::Report);
    }
}
