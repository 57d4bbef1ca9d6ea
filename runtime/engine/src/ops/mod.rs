//! The operators: each decodes its parameters, borrows its tensors and calls its kernel.

mod copy;
mod factor;
mod lstm;
mod signal;
mod svdf;

pub(crate) use copy::{copy, fill, gather, lut8};
pub(crate) use factor::factor;
pub(crate) use lstm::{lstm_float32, lstm_int8, lstm_int16};
pub(crate) use signal::*;
pub(crate) use svdf::{svdf_float32, svdf_int8};
