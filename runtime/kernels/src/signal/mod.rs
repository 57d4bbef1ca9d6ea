//! Audio front-end operators: window, FFT, energy, filter bank, noise suppression, gain control, logarithm.
//!
//! They follow TensorFlow Lite Micro's signal library bit for bit. Everything but the FFT of int32 and float32 is
//! fixed point: samples are int16, energies uint32, filter bank channels uint64 and, after the square root, uint32.

mod energy;
mod fft;
mod filter_bank;
mod log;
mod pcan;
mod spectral_subtraction;
mod square_root;
mod window;

pub use energy::energy;
pub use fft::{RFFT_MAX_LEN, Rfft, rfft_f32, rfft_i16, rfft_i32, rfft_supports, rfft_twiddle_len};
pub use filter_bank::{FilterBank, filter_bank};
pub use log::filter_bank_log;
pub use pcan::{PCAN_LUT_LEN, pcan};
pub use spectral_subtraction::{SpectralSubtraction, spectral_subtraction};
pub use square_root::filter_bank_square_root;
pub use window::{fft_auto_scale, window};

use crate::KernelError;

/// Checks a shift of a `bits`-bit number.
#[inline(always)]
fn check_shift(shift: u32, bits: u32) -> Result<(), KernelError> {
    if shift < bits { Ok(()) } else { Err(KernelError::Parameter) }
}
