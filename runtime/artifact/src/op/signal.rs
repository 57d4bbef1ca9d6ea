//! Audio front-end operators.

use serde::{Deserialize, Serialize};

use crate::TensorId;

/// Body of [`crate::Kernel::SignalWindow`]: `(input * weight) >> shift`, saturated. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalWindow {
    /// int16, any number of frames.
    pub input: TensorId,
    /// int16, one frame; constant.
    pub weights: TensorId,
    /// int16.
    pub output: TensorId,
    /// 0 ..= 31.
    pub shift: u8,
}

/// Body of [`crate::Kernel::SignalFftAutoScale`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFftAutoScale {
    /// int16.
    pub input: TensorId,
    /// int16.
    pub output: TensorId,
    /// int32, one element: by how many bits the output is shifted left.
    pub scale_bits: TensorId,
}

/// Body of [`crate::Kernel::SignalRfft`], [`crate::Kernel::SignalRfftI32`] and [`crate::Kernel::SignalRfftF32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRfft {
    /// `[.., frame]`.
    pub input: TensorId,
    /// Constant pairs (cosine, sine): of `-2 pi k / n` for `k` in `0 .. n`, then of `-pi (k / n + 1/2)` for `k` in
    /// `1 ..= n / 2`, where `n = length / 2`; integers hold `floor(MAX * x + 1/2)`.
    pub twiddles: TensorId,
    /// `[.., length + 2]`: pairs (real, imaginary).
    pub output: TensorId,
    /// Length of the FFT, not below that of a frame.
    pub length: u32,
}

/// Body of [`crate::Kernel::SignalEnergy`]: the bins `start .. end`; all others become 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalEnergy {
    /// int16 pairs (real, imaginary).
    pub input: TensorId,
    /// uint32, one element for each pair.
    pub output: TensorId,
    /// First bin.
    pub start: u32,
    /// Behind the last bin.
    pub end: u32,
}

/// Body of [`crate::Kernel::SignalFilterBank`]. The tables are int16 constants; those of runs have one element more
/// than there are channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFilterBank {
    /// uint32 energies.
    pub input: TensorId,
    /// Weights towards a run's own channel.
    pub weights: TensorId,
    /// Weights towards the next channel.
    pub unweights: TensorId,
    /// First energy of each run.
    pub frequency_starts: TensorId,
    /// First weight of each run.
    pub weight_starts: TensorId,
    /// Length of each run.
    pub widths: TensorId,
    /// uint64 channels.
    pub output: TensorId,
}

/// Body of [`crate::Kernel::SignalFilterBankSquareRoot`]: `sqrt(input) >> scale_bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFilterBankSquareRoot {
    /// uint64.
    pub input: TensorId,
    /// int32, one element.
    pub scale_bits: TensorId,
    /// uint32.
    pub output: TensorId,
}

/// Body of [`crate::Kernel::SignalSpectralSubtraction`]. All tensors are uint32 of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSpectralSubtraction {
    /// The signal.
    pub input: TensorId,
    /// State: the noise estimate.
    pub estimate: TensorId,
    /// The signal without noise.
    pub output: TensorId,
    /// A copy of the noise estimate.
    pub noise: TensorId,
    /// Coefficient of even channels.
    pub smoothing: u32,
    /// 1 - `smoothing`.
    pub one_minus_smoothing: u32,
    /// Coefficient of odd channels.
    pub alternate_smoothing: u32,
    /// 1 - `alternate_smoothing`.
    pub alternate_one_minus_smoothing: u32,
    /// The part of the signal that always remains.
    pub min_signal_remaining: u32,
    /// Fractional bits of the estimate, 0 ..= 31.
    pub smoothing_bits: u8,
    /// Fractional bits of the coefficients, 0 ..= 63.
    pub spectral_subtraction_bits: u8,
    /// The estimate never stays above the signal.
    pub clamping: bool,
}

/// Body of [`crate::Kernel::SignalPcan`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalPcan {
    /// uint32.
    pub input: TensorId,
    /// uint32, one element for each of the input.
    pub noise: TensorId,
    /// int16, at least 125 elements; constant.
    pub gains: TensorId,
    /// uint32.
    pub output: TensorId,
    /// 0 ..= 63.
    pub snr_shift: u8,
}

/// Body of [`crate::Kernel::SignalFilterBankLog`]: `output_scale * ln(input << correction_bits)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFilterBankLog {
    /// uint32.
    pub input: TensorId,
    /// int16.
    pub output: TensorId,
    /// 0 ..= 31.
    pub correction_bits: u8,
    /// Factor on the natural logarithm.
    pub output_scale: u32,
}
