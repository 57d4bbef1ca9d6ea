//! Golden vectors: inputs with the exact outputs that they must give.

use crate::DType;

/// A defined input that need not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every byte is zero.
    Zeros,
    /// Bytes of the linear congruential generator `x = 1664525 x + 1013904223 (mod 2^32)`, the top byte of `x`
    /// after each step; floats are uniform in [-1, 1).
    Lcg(u32),
}

impl Pattern {
    /// Fills `bytes`, a tensor of type `dtype`, and advances the generator, so that the next input or step
    /// continues the sequence.
    pub fn fill(&mut self, dtype: DType, bytes: &mut [u8]) {
        let Pattern::Lcg(state) = self else {
            bytes.fill(0);
            return;
        };
        let mut next = || {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *state
        };
        match dtype {
            DType::F32 => {
                for value in bytes.as_chunks_mut::<4>().0 {
                    let unit = (next() >> 8) as f32 / (1 << 23) as f32;
                    *value = (unit - 1.0).to_le_bytes();
                }
            }
            DType::Bool => bytes.iter_mut().for_each(|byte| *byte = (next() >> 31) as u8),
            _ => bytes.iter_mut().for_each(|byte| *byte = (next() >> 24) as u8),
        }
    }
}

/// Where a golden vector's inputs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoldenInput<'a> {
    /// Computed on the spot.
    Pattern(Pattern),
    /// Stored: for every step the inputs in order, without gaps.
    Stored(&'a [u8]),
}

/// One golden vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Golden<'a> {
    /// The inputs.
    pub input: GoldenInput<'a>,
    /// Runs in this vector; state is reset before the first and carried between them.
    pub steps: u16,
    /// For every step the outputs in order, without gaps.
    pub outputs: &'a [u8],
}

const KIND_ZEROS: u8 = 0;
const KIND_LCG: u8 = 1;
const KIND_STORED: u8 = 2;

/// Takes one vector off the front of `bytes`; `None` when it is malformed.
pub(crate) fn read<'a>(
    bytes: &mut &'a [u8],
    steps: u16,
    input_len: usize,
    output_len: usize,
) -> Option<Golden<'a>> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let seed = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let (input, rest) = match head[0] {
        KIND_ZEROS => (GoldenInput::Pattern(Pattern::Zeros), rest),
        KIND_LCG => (GoldenInput::Pattern(Pattern::Lcg(seed)), rest),
        KIND_STORED => {
            let (stored, rest) = rest.split_at_checked(input_len.checked_mul(steps.into())?)?;
            (GoldenInput::Stored(stored), rest)
        }
        _ => return None,
    };
    let (outputs, rest) = rest.split_at_checked(output_len.checked_mul(steps.into())?)?;
    *bytes = rest;
    Some(Golden { input, steps, outputs })
}

/// Appends one vector.
#[cfg(feature = "std")]
pub(crate) fn write(golden: &Golden<'_>, out: &mut std::vec::Vec<u8>) {
    let (kind, seed, stored): (u8, u32, &[u8]) = match golden.input {
        GoldenInput::Pattern(Pattern::Zeros) => (KIND_ZEROS, 0, &[]),
        GoldenInput::Pattern(Pattern::Lcg(seed)) => (KIND_LCG, seed, &[]),
        GoldenInput::Stored(stored) => (KIND_STORED, 0, stored),
    };
    out.extend([kind, 0, 0, 0]);
    out.extend(seed.to_le_bytes());
    out.extend(stored);
    out.extend(golden.outputs);
}
