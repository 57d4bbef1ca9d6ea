//! Fixed-size, exactly mergeable statistics of what a model does on a device.
//!
//! A [`Window`] counts what happened in a stretch of time: inferences, failures by kind, latencies, and for every
//! monitored feature the bins whose edges the artifact carries. Everything in it is an integer or a minimum or
//! maximum, so that two windows merge into one exactly as if all had been observed in one: in any order, on the
//! device and on the server. A [`Ring`] keeps closed windows until they are sent, in bounded memory.
//!
//! Nothing here allocates, panics, or knows a clock: the caller passes the time.
#![no_std]

mod counter;
mod failure;
mod feature;
mod gauge;
mod latency;
mod monitor;
mod observe;
mod ring;
mod window;

pub use failure::Failure;
pub use feature::{Feature, FeatureKind, Scale, Shape, Totals};
pub use gauge::{Gauge, GaugeKind, Mark};
pub use latency::Latency;
pub use monitor::{Monitor, Schedule};
pub use observe::{visit_integers, visit_values};
pub use ring::Ring;
pub use window::{LayoutError, MergeError, Period, Window, window_bytes};
