//! STRIDED_SLICE with its five masks.

use crate::graph::Op;

/// The operands and masks of a strided slice.
pub(super) struct Slice<'a> {
    pub(super) begin: &'a [i64],
    pub(super) end: &'a [i64],
    pub(super) strides: &'a [i64],
    pub(super) begin_mask: i32,
    pub(super) end_mask: i32,
    pub(super) ellipsis_mask: i32,
    pub(super) new_axis_mask: i32,
    pub(super) shrink_axis_mask: i32,
    /// `end` counts from `begin`.
    pub(super) offset: bool,
}

impl Slice<'_> {
    /// Resolves the slice for an input of this shape, by NumPy's rules.
    pub(super) fn resolve(&self, shape: &[usize]) -> Result<Op, String> {
        let items = self.begin.len();
        if self.end.len() != items || self.strides.len() != items || items > 31 {
            return Err("begin, end and strides must have equal lengths".into());
        }
        let bit = |mask: i32, item: usize| mask >> item & 1 != 0;
        let new_axes = (0..items).filter(|&item| bit(self.new_axis_mask, item)).count();
        let ellipses = (0..items).filter(|&item| bit(self.ellipsis_mask, item)).count();
        if ellipses > 1 {
            return Err("more than one ellipsis".into());
        }
        let named = items - new_axes - ellipses;
        let skipped = shape.len().checked_sub(named).ok_or("more items than axes")?;
        let (mut begin, mut strides, mut counts) = (vec![], vec![], vec![]);
        let whole = |axis: usize, begin: &mut Vec<usize>, strides: &mut Vec<i64>, counts: &mut Vec<usize>| {
            begin.push(0);
            strides.push(1);
            counts.push(shape[axis]);
        };
        for item in 0..items {
            if bit(self.ellipsis_mask, item) {
                for _ in 0..skipped {
                    whole(begin.len(), &mut begin, &mut strides, &mut counts);
                }
                continue;
            }
            if bit(self.new_axis_mask, item) {
                continue;
            }
            let (first, step, count) = self.item(item, shape[begin.len()])?;
            begin.push(first);
            strides.push(step);
            counts.push(count);
        }
        while begin.len() < shape.len() {
            whole(begin.len(), &mut begin, &mut strides, &mut counts);
        }
        Ok(Op::StridedSlice { begin, strides, counts })
    }

    /// First element, step and number of elements along an axis of this size.
    fn item(&self, item: usize, size: usize) -> Result<(usize, i64, usize), String> {
        let bit = |mask: i32| mask >> item & 1 != 0;
        let (size, step) = (size as i64, self.strides[item]);
        if step == 0 {
            return Err("a stride is 0".into());
        }
        let wrapped = |index: i64| if index < 0 { index + size } else { index };
        if bit(self.shrink_axis_mask) {
            let index = wrapped(self.begin[item]);
            if !(0..size).contains(&index) {
                return Err(format!("index {index} lies outside an axis of {size}"));
            }
            return Ok((index as usize, 1, 1));
        }
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let first = match bit(self.begin_mask) {
            true if step > 0 => 0,
            true => size - 1,
            false => wrapped(self.begin[item]).clamp(low, high),
        };
        let end = match bit(self.end_mask) {
            true if step > 0 => size,
            true => -1,
            false if self.offset => first.saturating_add(self.end[item]).clamp(low, high),
            false => wrapped(self.end[item]).clamp(low, high),
        };
        let span = if step > 0 { end - first } else { first - end };
        let count = if span > 0 { (span as u64).div_ceil(step.unsigned_abs()) } else { 0 };
        Ok((first.max(0) as usize, step, count as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice<'a>(begin: &'a [i64], end: &'a [i64], strides: &'a [i64]) -> Slice<'a> {
        Slice {
            begin,
            end,
            strides,
            begin_mask: 0,
            end_mask: 0,
            ellipsis_mask: 0,
            new_axis_mask: 0,
            shrink_axis_mask: 0,
            offset: false,
        }
    }

    #[test]
    fn negative_indices_and_steps() {
        let resolved = slice(&[-1, 0], &[-5, -1], &[-2, 1]).resolve(&[4, 3]).unwrap();
        assert_eq!(
            resolved,
            Op::StridedSlice { begin: vec![3, 0], strides: vec![-2, 1], counts: vec![2, 2] }
        );
    }

    #[test]
    fn masks() {
        let mut s = slice(&[1, 9, 2], &[1, 9, 9], &[1, 1, 1]);
        s.begin_mask = 1;
        s.end_mask = 1;
        s.ellipsis_mask = 2;
        s.shrink_axis_mask = 4;
        let resolved = s.resolve(&[2, 3, 4, 5]).unwrap();
        let expected =
            Op::StridedSlice { begin: vec![0, 0, 0, 2], strides: vec![1, 1, 1, 1], counts: vec![2, 3, 4, 1] };
        assert_eq!(resolved, expected);
    }

    #[test]
    fn refuses_nonsense() {
        assert!(slice(&[0], &[1], &[0]).resolve(&[4]).is_err());
        assert!(slice(&[0, 0], &[1, 1], &[1, 1]).resolve(&[4]).is_err());
        let mut shrink = slice(&[7], &[8], &[1]);
        shrink.shrink_axis_mask = 1;
        assert!(shrink.resolve(&[4]).is_err());
    }
}
