//! The parameter structs of the instructions, one file per family.
//!
//! A struct is the postcard-coded body of an instruction (see `FORMAT.md`). Its shapes are not repeated: they
//! stand in the tensor table. Fields are only ever appended in a new kernel number, never changed.

mod copy;

pub use copy::{Copy, Fill, Gather, Lut8};
