//! Audio front-end operators.

use dunlin_artifact::op;
use dunlin_kernels::{KernelError, signal as kernel};

use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn signal_window(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalWindow = decode(body)?;
    let weights = cx.constant(p.weights)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], []) = cx.borrow([p.output], [])?;
    Ok(kernel::window(p.shift.into(), weights, cast_mut(output)?)?)
}

pub(crate) fn signal_fft_auto_scale(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalFftAutoScale = decode(body)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output, scale_bits], []) = cx.borrow([p.output, p.scale_bits], [])?;
    let bits = kernel::fft_auto_scale(cast_mut(output)?);
    cast_mut(scale_bits)?.fill(bits as i32);
    Ok(())
}

pub(crate) fn signal_rfft_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    rfft(cx, body, kernel::rfft_i16)
}

pub(crate) fn signal_rfft_int32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    rfft(cx, body, kernel::rfft_i32)
}

pub(crate) fn signal_rfft_float32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    rfft(cx, body, kernel::rfft_f32)
}

/// An FFT kernel: parameters, twiddle factors, input, output.
type Transform<T> = fn(&kernel::Rfft, &[T], &[T], &mut [T]) -> Result<(), KernelError>;

fn rfft<T: Plain>(cx: &mut Context<'_, '_>, body: &[u8], transform: Transform<T>) -> Result<(), RunError> {
    let p: op::SignalRfft = decode(body)?;
    let input = cx.tensor(p.input)?;
    let frame = *input.shape().last().ok_or(RunError::BadTensor(p.input))?;
    // Every number takes part in one butterfly of each of at most log2(length) stages.
    let stages = u64::from(u32::BITS - p.length.leading_zeros());
    cx.charge((cx.tensor(p.output)?.elements() as u64).saturating_mul(stages))?;
    let params = kernel::Rfft { frame: frame as usize, length: p.length as usize };
    let twiddles = cx.constant(p.twiddles)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(transform(&params, twiddles, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn signal_energy(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalEnergy = decode(body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::energy(p.start as usize, p.end as usize, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn signal_filter_bank(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalFilterBank = decode(body)?;
    let bank = kernel::FilterBank {
        weights: cx.constant(p.weights)?,
        unweights: cx.constant(p.unweights)?,
        frequency_starts: cx.constant(p.frequency_starts)?,
        weight_starts: cx.constant(p.weight_starts)?,
        widths: cx.constant(p.widths)?,
    };
    // Runs may overlap, and all may have all weights.
    cx.charge((bank.weights.len() as u64).saturating_mul(bank.widths.len() as u64))?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::filter_bank(&bank, cast(input)?, cast_mut(output)?)?)
}

pub(crate) fn signal_filter_bank_square_root(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalFilterBankSquareRoot = decode(body)?;
    // Each channel's root is found bit by bit.
    cx.charge((cx.tensor(p.output)?.elements() as u64).saturating_mul(32))?;
    let ([output], [input, scale_bits]) = cx.borrow([p.output], [p.input, p.scale_bits])?;
    let scale_bits = cast(scale_bits)?.first().copied().ok_or(RunError::BadTensor(p.scale_bits))?;
    Ok(kernel::filter_bank_square_root(cast(input)?, scale_bits, cast_mut(output)?)?)
}

pub(crate) fn signal_spectral_subtraction(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalSpectralSubtraction = decode(body)?;
    let params = kernel::SpectralSubtraction {
        smoothing: p.smoothing,
        one_minus_smoothing: p.one_minus_smoothing,
        alternate_smoothing: p.alternate_smoothing,
        alternate_one_minus_smoothing: p.alternate_one_minus_smoothing,
        min_signal_remaining: p.min_signal_remaining,
        smoothing_bits: p.smoothing_bits.into(),
        spectral_subtraction_bits: p.spectral_subtraction_bits.into(),
        clamping: p.clamping,
    };
    let ([estimate, output, noise], [input]) = cx.borrow([p.estimate, p.output, p.noise], [p.input])?;
    let (estimate, output, noise) = (cast_mut(estimate)?, cast_mut(output)?, cast_mut(noise)?);
    Ok(kernel::spectral_subtraction(&params, cast(input)?, estimate, output, noise)?)
}

pub(crate) fn signal_pcan(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalPcan = decode(body)?;
    let gains = cx.constant(p.gains)?;
    cx.bring_in_place(p.input, p.output)?;
    let ([output], [noise]) = cx.borrow([p.output], [p.noise])?;
    Ok(kernel::pcan(p.snr_shift.into(), cast(noise)?, gains, cast_mut(output)?)?)
}

pub(crate) fn signal_filter_bank_log(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::SignalFilterBankLog = decode(body)?;
    let ([output], [input]) = cx.borrow([p.output], [p.input])?;
    Ok(kernel::filter_bank_log(p.correction_bits.into(), p.output_scale, cast(input)?, cast_mut(output)?)?)
}
