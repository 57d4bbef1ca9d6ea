//! What a model slot holds, and how another model gets into it: a pure state machine for every device.
//!
//! [`Update::step`] takes what happened and the time, and says what to do. It knows no clock, no network, no storage and
//! no random source, allocates nothing and never panics. Around it stands a *shell*, which performs the actions.
//!
//! # How a model changes
//! A slot has two [`Bank`]s. One holds the model that runs, the other one is free for the next:
//!
//! ```text
//! assigned ─▶ fetch ─▶ verify ─▶ prove ─▶ trial ─▶ commit
//!               │         │        │        │
//!               └─ again  └────────┴────────┴──▶ refused: the old model runs (on), and the reason is reported
//! ```
//!
//! - **fetch**: the artifact's bytes go into the free bank, resumed where they stopped, at most as many as were assigned;
//! - **verify**: digest, format, and whether this device has the kernels and the memory;
//! - **prove**: the golden vectors, on this very silicon;
//! - **trial**: the new model runs, the old one is kept; after [`Trial::windows`] good windows it is
//! - **committed**. A bad window, or more than [`Trial::boots`] starts without an end of the trial, bring the old one
//!   back.
//!
//! Whether an assignment is to be believed decides `dunlin-trust`; [`target`] is the way from there to here. [`verify`]
//! and [`prove`] are the checks that a shell makes.
//!
//! # What survives
//! [`Record`] is all that has to survive a loss of power. The shell stores it whenever [`Action::Save`] says so, in one
//! step (the old record or the new one is there afterwards, nothing else), and performs the actions that follow only
//! when that has succeeded. As a bank is written only while no record that could come back calls it the current one,
//! a device that loses power at any moment starts with the old model or the new one.

mod assign;
mod check;
mod reason;
mod record;
mod step;

pub use assign::{TRIAL_BOOTS, TRIAL_FAILURES, TRIAL_WINDOWS, target};
pub use check::{Room, prove, verify};
pub use reason::Reason;
pub use record::{Bank, Candidate, Model, RECORD_BYTES, Record, RecordError, Refusal, Stage, Trial};
pub use step::{Action, Actions, Event, Settings, Status, Target, Update};
