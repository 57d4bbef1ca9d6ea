//! Whether a rollout may go on: decisions from counts of devices that may be looked at after every report.
//!
//! A fixed threshold that is looked at again and again stops healthy rollouts, and a test of fixed size counts for one
//! look only. Here evidence is an **e-value**: the wealth of someone who bets against a hypothesis at fair odds. Under the
//! hypothesis it exceeds 1 / alpha with a probability of at most alpha, at any time and however often one looks (Ville's
//! inequality), so nobody has to say beforehand when, or how often, the decision is made.
//!
//! - [`Bets`] are such wealth about the mean of values between 0 and 1 (Waudby-Smith and Ramdas, "Estimating means of
//!   bounded random variables by betting", 2024).
//! - [`rate_interval`] and [`mean_interval`] are confidence sequences: intervals that hold at all times together.
//! - [`Gate`] decides about a rate of failing devices, against a limit or against a control group at the same time.
//! - [`average`] and [`discoveries`] combine gates: e-values may be averaged whatever their dependence, and e-BH bounds
//!   the rate of false discoveries (Wang and Ramdas, "False discovery rate control with e-values", 2022).
//! - [`simulate`] shows what a gate does, beside the fixed thresholds of others.
//!
//! The unit is the device, not the inference: inferences of one device are not independent.

mod bets;
mod combine;
mod gate;
mod interval;
pub mod simulate;

pub use bets::{Bets, Side};
pub use combine::{average, discoveries};
pub use gate::{Against, Decision, Gate, GateError, Group, Pairs, Verdict};
pub use interval::{Interval, mean_interval, rate_interval};
