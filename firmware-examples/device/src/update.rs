//! The model slot: what its state machine asks for is done here.

use core::fmt::Write as _;

use dunlin_agent::update::{Action, Actions, Bank, Event, Model, Reason, Status};
use dunlin_protocol::{EventKind, SlotStatus};
use dunlin_trust::Verifier;
use embedded_storage::nor_flash::NorFlash;

use crate::device::{Device, Now, Text};
use crate::transfer::Transfer;

/// Work that takes a while.
#[allow(clippy::large_enum_variant, reason = "there is no memory to put it elsewhere")]
pub(crate) enum Job {
    Nothing,
    /// `transfer` is there once it has begun.
    Fetch {
        model: Model,
        offset: u32,
        transfer: Option<Transfer>,
    },
    Verify {
        model: Model,
    },
    Prove {
        bank: Bank,
        model: Model,
    },
}

/// What stands in the device's state about the slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) model: [u8; 32],
    /// None before anything was told.
    pub(crate) status: Option<SlotStatus>,
    pub(crate) reason: Text,
}

impl<F: NorFlash, V: Verifier> Device<'_, F, V> {
    /// Something happened to the slot.
    pub(crate) fn update(&mut self, event: Event, now: Now) {
        let actions = self.update.step(event, now.ms, now.random);
        self.follow(actions, now);
    }

    /// A job has come to its end.
    pub(crate) fn ended(&mut self, event: Event, trouble: &'static str, now: Now) {
        self.job = Job::Nothing;
        self.trouble = trouble;
        self.update(event, now);
    }

    /// Does what a step asks for, and what follows from that.
    pub(crate) fn follow(&mut self, mut actions: Actions, now: Now) {
        while let Some(event) = self.perform_update(actions, now) {
            actions = self.update.step(event, now.ms, now.random);
        }
        self.tell(now);
    }

    /// The answer, if one is known at once. What comes behind a failure of the storage is not done.
    fn perform_update(&mut self, actions: Actions, now: Now) -> Option<Event> {
        for action in actions {
            match action {
                Action::Save => {
                    self.is_faulty = self.store.save_record(self.update.record()).is_err();
                    if self.is_faulty {
                        self.job = Job::Nothing;
                        return Some(Event::StorageFailed);
                    }
                }
                Action::StopFetching => self.job = Job::Nothing,
                Action::Fetch { model, offset, .. } => {
                    self.job = Job::Fetch { model, offset, transfer: None }
                }
                Action::Verify { model, .. } => self.job = Job::Verify { model },
                Action::Prove { bank, model } => self.job = Job::Prove { bank, model },
                Action::Run { bank, model } => self.wanted = Some((bank, model)),
                Action::Stop => self.wanted = None,
                // The state is compared with what was told after every step.
                Action::Report => {}
                Action::NoteReverted { reason } => {
                    self.note(EventKind::Reverted, 0, reason.as_str(), now);
                }
                Action::NoteGoldenMismatch => {
                    self.note(EventKind::GoldenMismatch, 0, Reason::Golden.as_str(), now);
                }
            }
        }
        None
    }

    /// Has the state reported when something in it has changed.
    pub(crate) fn tell(&mut self, now: Now) {
        let told = self.slot_state();
        if self.told != told {
            self.told = told;
            self.step(dunlin_agent::uplink::Event::StateChanged, now);
        }
    }

    /// What is to be reported.
    pub(crate) fn slot_state(&self) -> Told {
        let (model, status) = match self.update.status() {
            Status::Empty => (None, SlotStatus::Running),
            Status::Running(model) => (Some(model), SlotStatus::Running),
            Status::Trial(model) => (Some(model), SlotStatus::Trial),
            Status::Updating(model) => (model, SlotStatus::Updating),
        };
        let mut reason = self.refused.clone();
        if reason.is_empty() && self.is_faulty {
            let _ = reason.write_str("the slot's record cannot be kept: the flash fails");
        } else if reason.is_empty() && status == SlotStatus::Updating && !self.trouble.is_empty() {
            let _ = reason.write_str(self.trouble);
        } else if reason.is_empty()
            && let Some(refusal) = self.update.refusal()
        {
            let _ = write!(reason, "version {} {}", refusal.model.version, refusal.reason);
        }
        let model = model.map_or(self.built_in, |model| model.digest);
        Told { model, status: Some(status), reason }
    }
}
