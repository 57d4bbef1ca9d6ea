//! Proof on the device: golden vectors.

use dunlin_artifact::{DType, GoldenInput};

use crate::{RunError, Session};

/// The first element at which a golden vector and the run differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// Which golden vector.
    pub vector: usize,
    /// Which step of it.
    pub step: usize,
    /// Which output.
    pub output: usize,
    /// Which element of the output.
    pub element: usize,
    /// The bytes that the artifact promises, zero-extended.
    pub expected: u64,
    /// The bytes that this device computed, zero-extended.
    pub actual: u64,
}

/// Relative tolerance for float outputs: devices may add in another order. Integers must be equal.
const FLOAT_TOLERANCE: f32 = 1e-4;

/// Runs all golden vectors and returns how many agreed, or the first difference. Leaves the state reset.
#[inline(never)] // so that its locals do not lie on the stack of the caller's own runs
pub fn verify_golden<const K: u128>(
    session: &mut Session<'_, '_, K>,
) -> Result<Result<usize, Mismatch>, RunError> {
    let artifact = session.artifact();
    let mut agreed = 0;
    for (vector, golden) in artifact.golden().enumerate() {
        session.reset();
        let (mut input, mut expected) = (golden.input, golden.outputs);
        for step in 0..usize::from(golden.steps) {
            for (index, tensor) in artifact.inputs().enumerate() {
                let bytes = session.input_bytes_mut(index)?;
                match &mut input {
                    GoldenInput::Pattern(pattern) => pattern.fill(tensor.dtype, bytes),
                    GoldenInput::Stored(stored) => {
                        let taken = stored.split_off(..bytes.len()).ok_or(RunError::BadInstruction)?;
                        bytes.copy_from_slice(taken);
                    }
                }
            }
            session.run()?;
            for (output, tensor) in artifact.outputs().enumerate() {
                let actual = session.output_bytes(output)?;
                let promised = expected.split_off(..actual.len()).ok_or(RunError::BadInstruction)?;
                let difference = first_difference(tensor.dtype, promised, actual);
                if let Some((element, expected, actual)) = difference {
                    return Ok(Err(Mismatch { vector, step, output, element, expected, actual }));
                }
            }
        }
        agreed += 1;
    }
    session.reset();
    Ok(Ok(agreed))
}

/// The first differing element, and its expected and actual bytes.
fn first_difference(dtype: DType, expected: &[u8], actual: &[u8]) -> Option<(usize, u64, u64)> {
    let elements = expected.chunks_exact(dtype.size()).zip(actual.chunks_exact(dtype.size()));
    for (index, (expected, actual)) in elements.enumerate() {
        let (expected, actual) = (bits(expected), bits(actual));
        let close = || {
            let (a, b) = (f32::from_bits(expected as u32), f32::from_bits(actual as u32));
            (a - b).abs() <= FLOAT_TOLERANCE * a.abs().max(1.0)
        };
        if expected != actual && !(dtype == DType::F32 && close()) {
            return Some((index, expected, actual));
        }
    }
    None
}

fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}
