//! Comparing outputs.

use dunlin_artifact::DType;

/// How far an output may be from the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Floats: this times the larger of 1 and the largest magnitude in the reference tensor, because sums of large
    /// terms leave an error of their own size.
    pub relative: f64,
    /// Integers: this many steps.
    pub steps: u32,
}

impl Tolerance {
    /// Not at all.
    pub const EXACT: Tolerance = Tolerance { relative: 0.0, steps: 0 };
    /// For whole models: integers are equal, floats agree to 1e-5.
    pub const MODEL: Tolerance = Tolerance { relative: 1e-5, steps: 0 };
}

/// How two outputs, or many, differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Values compared.
    pub values: usize,
    /// Values beyond the tolerance.
    pub differing: usize,
    /// The largest difference, within the tolerance or not.
    pub largest: f64,
    /// Where the first value beyond the tolerance is, and what it is.
    pub first: Option<String>,
}

impl Difference {
    /// Adds another comparison's counts; `place` says where it was.
    pub fn add(&mut self, other: Difference, place: impl FnOnce() -> String) {
        self.values += other.values;
        self.differing += other.differing;
        self.largest = self.largest.max(other.largest);
        if self.first.is_none() {
            self.first = other.first.map(|first| format!("{} {first}", place()));
        }
    }
}

/// Compares two tensors of one type.
pub fn compare(dtype: DType, actual: &[u8], expected: &[u8], tolerance: Tolerance) -> Difference {
    if actual.len() != expected.len() {
        let first = Some(format!("has {} bytes; expected are {}", actual.len(), expected.len()));
        let values = expected.len() / dtype.size();
        return Difference { values, differing: values.max(1), largest: f64::INFINITY, first };
    }
    let expected_values: Vec<f64> = values(dtype, expected).collect();
    let allowed = match dtype {
        DType::F32 => tolerance.relative * expected_values.iter().fold(1.0_f64, |most, v| most.max(v.abs())),
        _ => tolerance.steps.into(),
    };
    let mut result = Difference { values: expected_values.len(), ..Difference::default() };
    let size = dtype.size();
    for (at, (actual_value, &expected_value)) in values(dtype, actual).zip(&expected_values).enumerate() {
        if actual[at * size..][..size] == expected[at * size..][..size] {
            continue;
        }
        let apart = (actual_value - expected_value).abs();
        // Two 64-bit integers may look equal as real numbers. A NaN is never within the tolerance.
        if apart <= allowed && (allowed > 0.0 || dtype == DType::F32) {
            result.largest = result.largest.max(apart);
            continue;
        }
        result.differing += 1;
        result.largest = result.largest.max(if apart.is_nan() { f64::INFINITY } else { apart });
        result.first.get_or_insert_with(|| format!("[{at}] is {actual_value}, expected {expected_value}"));
    }
    result
}

/// The elements as real numbers; 64-bit ones may be rounded.
pub fn values(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(dtype.size()).map(move |element| {
        let mut wide = [0; 8];
        wide[..element.len()].copy_from_slice(element);
        let unsigned = u64::from_le_bytes(wide);
        let signed = (unsigned << (64 - 8 * element.len())) as i64 >> (64 - 8 * element.len());
        match dtype {
            DType::F32 => f64::from(f32::from_bits(unsigned as u32)),
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => signed as f64,
            _ => unsigned as f64,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_must_be_equal() {
        let difference = compare(DType::I8, &[1, 255, 3], &[1, 254, 3], Tolerance::MODEL);
        assert_eq!((difference.values, difference.differing, difference.largest), (3, 1, 1.0));
        assert_eq!(difference.first.as_deref(), Some("[1] is -1, expected -2"));
        let one_step = Tolerance { steps: 1, ..Tolerance::EXACT };
        assert_eq!(compare(DType::I8, &[1, 255, 3], &[1, 254, 3], one_step).differing, 0);
        assert_eq!(compare(DType::U8, &[127], &[128], one_step).differing, 0);
        assert_eq!(compare(DType::I8, &[127], &[128], one_step).differing, 1);
    }

    #[test]
    fn floats_may_differ_by_the_tolerance_times_the_largest_magnitude() {
        let bytes = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        let expected = bytes([0.5, 20.0]);
        let near = compare(DType::F32, &bytes([0.5001, 20.0]), &expected, Tolerance::MODEL);
        assert_eq!(near.differing, 0);
        let far = compare(DType::F32, &bytes([0.5003, 20.0]), &expected, Tolerance::MODEL);
        assert_eq!(far.differing, 1);
        let nan = compare(DType::F32, &bytes([f32::NAN, 20.0]), &expected, Tolerance::MODEL);
        assert_eq!((nan.differing, nan.largest), (1, f64::INFINITY));
        let exact = compare(DType::F32, &bytes([0.500_000_1, 20.0]), &expected, Tolerance::EXACT);
        assert_eq!(exact.differing, 1);
    }
}
