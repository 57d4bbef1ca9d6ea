//! What a device believes about the models it is told to run.
//!
//! Two parties have to agree before a device installs anything, as in Uptane:
//!
//! - the **release** keys, which the owner of the models keeps, say that an artifact is a certain version of a model
//!   ([`dunlin_protocol::Release`]);
//! - the **director** key, which the control plane keeps, says that this device shall run it
//!   ([`dunlin_protocol::Desired`]).
//!
//! Which keys these are, and how many of them have to sign, stands in a [`dunlin_protocol::Root`]. A device is given
//! root 1 (pinned), and follows from there: root N + 1 counts when it is signed as root N *and* root N + 1 demand.
//!
//! [`Trust`] is what the device remembers. It refuses what is forged, meant for another device, older than what was
//! seen before, expired, or in contradiction to itself, and says why ([`Refused`]). It is small, is kept as bytes
//! ([`Trust::encode`]), and knows no clock, network or storage. Nothing here allocates or panics.
//!
//! # What an attacker can do
//! | who has | can |
//! | --- | --- |
//! | the network, the broker, the object store | withhold; nothing else |
//! | the director key | assign any valid release at or above its floor |
//! | the release keys | nothing: no device is told to run what they sign |
//! | both | run anything, until the next root is out |
//! | fewer keys of a role than its threshold | nothing |
#![no_std]

#[cfg(feature = "dalek")]
mod dalek;
mod keys;
mod refused;
mod state;
mod trust;

#[cfg(feature = "dalek")]
pub use dalek::{Dalek, SigningKey};
pub use keys::{Verifier, digest};
pub use refused::Refused;
pub use state::{STATE_BYTES, StateError};
pub use trust::{Assigned, MAX_FLOORS, Time, Trust};
