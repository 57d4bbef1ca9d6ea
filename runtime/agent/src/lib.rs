//! The device side of the telemetry loop.
//!
//! [`uplink`] is the protocol, and [`update`] how a slot gets another model, each as a pure state machine for every
//! device, without std. The feature `std` adds a complete agent for Linux and phones: [`Agent`] counts what models do,
//! keeps closed windows on disk until the control plane has acknowledged them, and speaks MQTT.
//!
//! ```no_run
//! # #[cfg(feature = "std")] fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::{Duration, Instant};
//! use dunlin_agent::{Agent, Failure, Identity, Settings};
//!
//! let folder = std::path::PathBuf::from("/var/lib/pump");
//! let identity = Identity::load(&folder)?.ok_or("not enrolled")?;
//! let agent = Agent::start(identity, Settings { state_dir: Some(folder), ..Settings::default() })?;
//! let artifact = std::fs::read("anomaly.dunlin")?;
//! let slot = agent.slot("anomaly", &artifact)?;
//! # let (input, output) = ([0u8; 4], [0u8; 4]);
//! # let run = || Ok::<(), ()>(());
//!
//! slot.input(0, &input); // before the run, which may reuse the input's memory
//! let start = Instant::now();
//! match run() {
//!     Ok(()) => {
//!         slot.completed(start.elapsed());
//!         slot.output(0, &output);
//!     }
//!     Err(()) => slot.failed(Failure::Run),
//! }
//! agent.stop(Duration::from_secs(5));
//! # Ok(()) }
//! # #[cfg(not(feature = "std"))] fn main() {}
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

mod actions;
#[cfg(feature = "std")]
mod agent;
#[cfg(feature = "std")]
mod bodies;
#[cfg(feature = "std")]
pub mod enroll;
#[cfg(feature = "std")]
mod files;
pub mod flash;
#[cfg(feature = "std")]
pub mod gauges;
#[cfg(feature = "std")]
mod http;
#[cfg(feature = "std")]
pub mod identity;
#[cfg(feature = "std")]
mod install;
#[cfg(feature = "std")]
mod models;
mod pause;
#[cfg(feature = "std")]
pub mod queue;
#[cfg(feature = "std")]
mod runner;
#[cfg(feature = "std")]
mod slot;
#[cfg(feature = "std")]
pub mod transport;
pub mod update;
pub mod uplink;

#[cfg(feature = "std")]
pub use agent::{Agent, AgentError, Settings, Status};
#[cfg(feature = "std")]
pub use dunlin_monitor::{Failure, GaugeKind, Mark, Schedule};
#[cfg(feature = "std")]
pub use dunlin_protocol::EventKind;
#[cfg(feature = "std")]
pub use enroll::{EnrolError, Enrolment, enrol, enrol_blocking};
#[cfg(feature = "std")]
pub use identity::{Credential, Endpoint, Identity, IdentityError};
#[cfg(feature = "std")]
pub use install::TrustError;
#[cfg(feature = "std")]
pub use models::{ModelSettings, Models, ModelsError};
#[cfg(feature = "std")]
pub use queue::QueueLimits;
#[cfg(feature = "std")]
pub use slot::{Slot, SlotError};
