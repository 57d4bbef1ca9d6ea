//! The device side of the telemetry loop.
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
pub mod enroll;
#[cfg(feature = "std")]
mod files;
#[cfg(feature = "std")]
pub mod gauges;
#[cfg(feature = "std")]
pub mod identity;
#[cfg(feature = "std")]
pub mod queue;
#[cfg(feature = "std")]
pub mod transport;
pub mod uplink;
