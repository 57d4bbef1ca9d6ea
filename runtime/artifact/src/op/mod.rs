//! The parameter structs of the instructions, one file per family.
//!
//! A struct is the postcard-coded body of an instruction (see `FORMAT.md`). Its shapes are not repeated: they
//! stand in the tensor table. Fields are only ever appended in a new kernel number, never changed.

mod copy;
mod factor;
mod lstm;
mod signal;
mod svdf;

pub use copy::{Copy, Fill, Gather, Lut8};
pub use factor::Factor;
pub use lstm::{LstmF32, LstmInt, LstmTensors};
pub use signal::{
    SignalEnergy, SignalFftAutoScale, SignalFilterBank, SignalFilterBankLog, SignalFilterBankSquareRoot,
    SignalPcan, SignalRfft, SignalSpectralSubtraction, SignalWindow,
};
pub use svdf::{SvdfF32, SvdfI8, SvdfTensors};
