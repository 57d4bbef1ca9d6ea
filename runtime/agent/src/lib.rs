//! The device side of the telemetry loop.
#![cfg_attr(not(feature = "std"), no_std)]
