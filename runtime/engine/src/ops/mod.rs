//! The operators: each decodes its parameters, borrows its tensors and calls its kernel.

mod copy;

pub(crate) use copy::{copy, fill, gather, lut8};
