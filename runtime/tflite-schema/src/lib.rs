//! Bindings for the TensorFlow Lite model schema (`.tflite`, file identifier `TFL3`).
//!
//! `schema_generated.rs` is the unedited output of `flatc --rust` 25.2.10 for `schema.fbs` of LiteRT at commit
//! f67457790 (August 2026, Apache-2.0). To regenerate it see the README beside this crate.
//!
//! Read models through [`root_as_model`] only: it runs the verifier, after which no accessor can read outside
//! the buffer.

#[allow(
    clippy::all,
    dead_code,
    mismatched_lifetime_syntaxes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]
#[rustfmt::skip]
mod schema_generated;

pub use schema_generated::tflite::*;
