//! Audio front-end operators.

use std::f64::consts::PI;

use dunlin_artifact::{DType, Kernel, TensorId, op};
use dunlin_kernels::signal::{
    FilterBank, PCAN_LUT_LEN, RFFT_MAX_LEN, filter_bank as filter_bank_kernel, rfft_supports,
};

use super::Lowering;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Node, SignalOp};

pub(super) fn signal(cx: &mut Lowering<'_>, node: &Node, signal: &SignalOp) -> Result<(), Unsupported> {
    match *signal {
        SignalOp::Window { shift } => {
            types(cx, node, &[DType::I16, DType::I16], &[DType::I16])?;
            let (input, weights, output) = (operand(cx, node, 0)?, table(cx, node, 1)?, result(cx, node, 0)?);
            same_size(cx, node, 0)?;
            let frame = cx.value(cx.input(node, 1)?).elements();
            if shift > 31 || frame == 0 || !cx.value(cx.input(node, 0)?).elements().is_multiple_of(frame) {
                return unsupported("the shift must be below 32 and the input a whole number of windows");
            }
            let params = op::SignalWindow { input, weights, output, shift };
            cx.emit(Kernel::SignalWindow, &params, &[input], &[output]).in_place(input, output);
        }
        SignalOp::FftAutoScale => {
            types(cx, node, &[DType::I16], &[DType::I16, DType::I32])?;
            let (input, output, scale_bits) =
                (operand(cx, node, 0)?, result(cx, node, 0)?, result(cx, node, 1)?);
            same_size(cx, node, 0)?;
            one_element(cx.value(cx.output(node, 1)?).elements())?;
            let params = op::SignalFftAutoScale { input, output, scale_bits };
            cx.emit(Kernel::SignalFftAutoScale, &params, &[input], &[output, scale_bits])
                .in_place(input, output);
        }
        SignalOp::Rfft { length } => rfft(cx, node, length)?,
        SignalOp::Energy { start, end } => {
            types(cx, node, &[DType::I16], &[DType::U32])?;
            let (input, output) = (operand(cx, node, 0)?, result(cx, node, 0)?);
            let bins = cx.value(cx.output(node, 0)?).elements();
            if cx.value(cx.input(node, 0)?).elements() != 2 * bins || start > end || end > bins {
                return unsupported(
                    "the bins must lie within the spectrum, which must have one pair for each result",
                );
            }
            let params = op::SignalEnergy { input, output, start: start as u32, end: end as u32 };
            cx.emit(Kernel::SignalEnergy, &params, &[input], &[output]).macs(2 * (end - start));
        }
        SignalOp::FilterBank => filter_bank(cx, node)?,
        SignalOp::FilterBankSquareRoot => {
            types(cx, node, &[DType::U64, DType::I32], &[DType::U32])?;
            let (input, scale_bits, output) =
                (operand(cx, node, 0)?, operand(cx, node, 1)?, result(cx, node, 0)?);
            same_size(cx, node, 0)?;
            one_element(cx.value(cx.input(node, 1)?).elements())?;
            let params = op::SignalFilterBankSquareRoot { input, scale_bits, output };
            cx.emit(Kernel::SignalFilterBankSquareRoot, &params, &[input, scale_bits], &[output]);
        }
        SignalOp::SpectralSubtraction {
            state,
            smoothing,
            one_minus_smoothing,
            alternate_smoothing,
            alternate_one_minus_smoothing,
            min_signal_remaining,
            smoothing_bits,
            spectral_subtraction_bits,
            clamping,
        } => {
            types(cx, node, &[DType::U32], &[DType::U32, DType::U32])?;
            let (input, output, noise) = (operand(cx, node, 0)?, result(cx, node, 0)?, result(cx, node, 1)?);
            same_size(cx, node, 0)?;
            same_size(cx, node, 1)?;
            if smoothing_bits > 31 || spectral_subtraction_bits > 63 {
                return unsupported("smoothing_bits must be below 32, spectral_subtraction_bits below 64");
            }
            let estimate = cx.state(state);
            let params = op::SignalSpectralSubtraction {
                input,
                estimate,
                output,
                noise,
                smoothing,
                one_minus_smoothing,
                alternate_smoothing,
                alternate_one_minus_smoothing,
                min_signal_remaining,
                smoothing_bits,
                spectral_subtraction_bits,
                clamping,
            };
            cx.emit(Kernel::SignalSpectralSubtraction, &params, &[input], &[estimate, output, noise]);
        }
        SignalOp::Pcan { snr_shift } => {
            types(cx, node, &[DType::U32, DType::U32, DType::I16], &[DType::U32])?;
            let (input, noise, gains) = (operand(cx, node, 0)?, operand(cx, node, 1)?, table(cx, node, 2)?);
            let output = result(cx, node, 0)?;
            same_size(cx, node, 0)?;
            let channels = cx.value(cx.input(node, 0)?).elements();
            if snr_shift > 63 || cx.value(cx.input(node, 1)?).elements() != channels {
                return unsupported(
                    "there must be one noise estimate for each channel, and the shift be below 64",
                );
            }
            if cx.value(cx.input(node, 2)?).elements() < PCAN_LUT_LEN {
                return unsupported(format!("the table of gains must have {PCAN_LUT_LEN} elements"));
            }
            let params = op::SignalPcan { input, noise, gains, output, snr_shift };
            let step = cx.emit(Kernel::SignalPcan, &params, &[input, noise], &[output]);
            // The noise is read after the output has been begun.
            if input != noise {
                step.in_place(input, output);
            }
        }
        SignalOp::FilterBankLog { correction_bits, output_scale } => {
            types(cx, node, &[DType::U32], &[DType::I16])?;
            let (input, output) = (operand(cx, node, 0)?, result(cx, node, 0)?);
            same_size(cx, node, 0)?;
            if correction_bits > 31 {
                return unsupported("input_correction_bits must be below 32");
            }
            let params = op::SignalFilterBankLog { input, output, correction_bits, output_scale };
            cx.emit(Kernel::SignalFilterBankLog, &params, &[input], &[output]);
        }
    }
    Ok(())
}

fn rfft(cx: &mut Lowering<'_>, node: &Node, length: usize) -> Result<(), Unsupported> {
    let (input, output) = (operand(cx, node, 0)?, result(cx, node, 0)?);
    let (from, to) = (cx.value(cx.input(node, 0)?), cx.value(cx.output(node, 0)?));
    let (Some((&frame, rows)), Some((&spectrum, out_rows))) =
        (from.shape.split_last(), to.shape.split_last())
    else {
        return unsupported("input and output must have an axis");
    };
    if !rfft_supports(length) {
        return unsupported(format!(
            "an FFT of length {length} is not supported; the length must be even, 4 to {RFFT_MAX_LEN}, and have no \
             prime factor above 5"
        ));
    }
    if frame == 0 || frame > length || spectrum != length + 2 || rows != out_rows {
        return unsupported(
            "a frame must not be longer than the FFT, and the result have a pair for each bin",
        );
    }
    types(cx, node, &[from.dtype], &[from.dtype])?;
    let angles = twiddles(length);
    let (kernel, twiddles) = match from.dtype {
        DType::I16 => {
            let fractions: Vec<i16> =
                angles.map(|x| (0.5 + f64::from(i16::MAX) * x).floor() as i16).collect();
            (Kernel::SignalRfft, cx.constant(DType::I16, &[fractions.len()], &fractions))
        }
        DType::I32 => {
            let fractions: Vec<i32> =
                angles.map(|x| (0.5 + f64::from(i32::MAX) * x).floor() as i32).collect();
            (Kernel::SignalRfftI32, cx.constant(DType::I32, &[fractions.len()], &fractions))
        }
        DType::F32 => {
            let numbers: Vec<f32> = angles.map(|x| x as f32).collect();
            (Kernel::SignalRfftF32, cx.constant(DType::F32, &[numbers.len()], &numbers))
        }
        _ => return unsupported("the samples must be int16, int32 or float32"),
    };
    let params = op::SignalRfft { input, twiddles, output, length: length as u32 };
    cx.emit(kernel, &params, &[input], &[output]);
    Ok(())
}

/// Cosines and sines in the order of [`op::SignalRfft::twiddles`], each angle computed as KISS FFT does.
fn twiddles(length: usize) -> impl Iterator<Item = f64> {
    let n = length / 2;
    let transform = (0..n).map(move |k| -2.0 * PI * k as f64 / n as f64);
    let separation = (1..=n / 2).map(move |k| -PI * (k as f64 / n as f64 + 0.5));
    transform.chain(separation).flat_map(|phase| [libm::cos(phase), libm::sin(phase)])
}

fn filter_bank(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let i16_tables = [DType::I16; 5];
    types(cx, node, &[&[DType::U32][..], &i16_tables].concat(), &[DType::U64])?;
    check_filter_bank(cx, node)?;
    let params = op::SignalFilterBank {
        input: operand(cx, node, 0)?,
        weights: table(cx, node, 1)?,
        unweights: table(cx, node, 2)?,
        frequency_starts: table(cx, node, 3)?,
        weight_starts: table(cx, node, 4)?,
        widths: table(cx, node, 5)?,
        output: result(cx, node, 0)?,
    };
    let weights = cx.value(cx.input(node, 1)?).elements();
    cx.emit(Kernel::SignalFilterBank, &params, &[params.input], &[params.output]).macs(2 * weights);
    Ok(())
}

/// Tries the tables on silence: the kernel knows whether they point outside of the spectrum or the weights.
fn check_filter_bank(cx: &Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let mut tables = [const { Vec::new() }; 5];
    for (at, table) in (1..).zip(&mut tables) {
        let constant = cx.value(cx.input(node, at)?).constant::<i16>();
        *table = constant.ok_or_else(|| Unsupported::new(format!("operand {at} must be a constant")))?;
    }
    let [weights, unweights, frequency_starts, weight_starts, widths] = tables.each_ref().map(Vec::as_slice);
    let bank = FilterBank { weights, unweights, frequency_starts, weight_starts, widths };
    let silence = vec![0; cx.value(cx.input(node, 0)?).elements()];
    let mut channels = vec![0; cx.value(cx.output(node, 0)?).elements()];
    filter_bank_kernel(&bank, &silence, &mut channels).map_err(|_| {
        Unsupported::new(
            "the tables of starts and widths must have one element more than there are channels and stay within the \
             energies and the weights",
        )
    })
}

fn operand(cx: &mut Lowering<'_>, node: &Node, at: usize) -> Result<TensorId, Unsupported> {
    Ok(cx.tensor(cx.input(node, at)?))
}

fn result(cx: &mut Lowering<'_>, node: &Node, at: usize) -> Result<TensorId, Unsupported> {
    Ok(cx.tensor(cx.output(node, at)?))
}

/// An operand that must be a constant.
fn table(cx: &mut Lowering<'_>, node: &Node, at: usize) -> Result<TensorId, Unsupported> {
    let id = cx.input(node, at)?;
    match cx.value(id).data {
        Some(_) => Ok(cx.tensor(id)),
        None => unsupported(format!("operand {at} must be a constant")),
    }
}

/// Checks the types of all operands and results.
fn types(cx: &Lowering<'_>, node: &Node, inputs: &[DType], outputs: &[DType]) -> Result<(), Unsupported> {
    for (at, &expected) in inputs.iter().enumerate() {
        let actual = cx.value(cx.input(node, at)?).dtype;
        if actual != expected {
            return unsupported(format!("operand {at} must be {expected}, not {actual}"));
        }
    }
    for (at, &expected) in outputs.iter().enumerate() {
        let actual = cx.value(cx.output(node, at)?).dtype;
        if actual != expected {
            return unsupported(format!("result {at} must be {expected}, not {actual}"));
        }
    }
    Ok(())
}

/// Result `at` has as many elements as operand 0.
fn same_size(cx: &Lowering<'_>, node: &Node, at: usize) -> Result<(), Unsupported> {
    let (input, output) =
        (cx.value(cx.input(node, 0)?).elements(), cx.value(cx.output(node, at)?).elements());
    if input == output { Ok(()) } else { unsupported(format!("result {at} must be as long as the input")) }
}

fn one_element(elements: usize) -> Result<(), Unsupported> {
    if elements == 1 { Ok(()) } else { unsupported("the scale bits must be one number") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_come_in_two_parts() {
        let factors: Vec<f64> = twiddles(8).collect();
        assert_eq!(factors.len(), dunlin_kernels::signal::rfft_twiddle_len(8));
        let half = f64::sqrt(0.5);
        // Quarters of a turn; then -3/4 and -1 of half a turn.
        let expected = [1.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0, 1.0, -half, -half, -1.0, 0.0];
        for (factor, expected) in factors.iter().zip(expected) {
            assert!((factor - expected).abs() < 1e-15, "{factor} instead of {expected}");
        }
    }
}
