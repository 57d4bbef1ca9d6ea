//! Geometry of element-wise operators: shapes that broadcast, and walks over strided axes.

use crate::KernelError;

/// Most axes that a shape can have.
pub const MAX_RANK: usize = 6;

/// A walk over up to `A` axes that keeps `N` offsets into different buffers up to date, last axis fastest.
///
/// Additions instead of divisions, because small cores divide slowly or not at all.
pub(crate) struct Walk<const A: usize, const N: usize> {
    extents: [usize; A],
    strides: [[usize; A]; N],
    index: [usize; A],
}

impl<const A: usize, const N: usize> Walk<A, N> {
    /// Every extent must be at least 1.
    pub(crate) fn new(extents: [usize; A], strides: [[usize; A]; N]) -> Self {
        Walk { extents, strides, index: [0; A] }
    }

    /// Moves to the next position; `false` when the walk is back at its start.
    pub(crate) fn advance(&mut self, offsets: &mut [usize; N]) -> bool {
        for axis in (0..A).rev() {
            let last = self.extents[axis].saturating_sub(1);
            if self.index[axis] < last {
                self.index[axis] += 1;
                for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                    *offset = offset.wrapping_add(strides[axis]);
                }
                return true;
            }
            self.index[axis] = 0;
            for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                *offset = offset.wrapping_sub(strides[axis].wrapping_mul(last));
            }
        }
        false
    }
}

/// The product of all extents, or `None` when it does not fit.
pub(crate) fn element_count(extents: &[usize]) -> Option<usize> {
    extents.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent))
}

/// The shapes of two operands that broadcast against each other by NumPy's rules: per axis the extents are
/// equal, or one of them is 1.
///
/// Both are padded with leading ones to [`MAX_RANK`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// Extents of the first operand, outermost first.
    pub a: [usize; MAX_RANK],
    /// Extents of the second operand, outermost first.
    pub b: [usize; MAX_RANK],
}

impl Broadcast {
    /// Two operands of the same shape with `len` elements each.
    pub const fn same(len: usize) -> Self {
        Broadcast { a: [1, 1, 1, 1, 1, len], b: [1, 1, 1, 1, 1, len] }
    }

    /// The shape of the result, or `None` when the operands do not broadcast.
    pub fn output(&self) -> Option<[usize; MAX_RANK]> {
        let mut output = self.a;
        for (extent, &b) in output.iter_mut().zip(&self.b) {
            match (*extent, b) {
                (a, b) if a == b => {}
                (1, b) => *extent = b,
                (_, 1) => {}
                _ => return None,
            }
        }
        Some(output)
    }

    /// The same broadcast with as few axes as possible: neighbours that broadcast alike become one, so that the
    /// inner loop is long. Every extent must be at least 1.
    fn merged(&self) -> Broadcast {
        let mut merged = Broadcast { a: [1; MAX_RANK], b: [1; MAX_RANK] };
        let mut slot = MAX_RANK - 1;
        for (&a, &b) in self.a.iter().zip(&self.b).rev() {
            if a == 1 && b == 1 {
                continue;
            }
            let (in_a, in_b) = (merged.a[slot], merged.b[slot]);
            let free = in_a == 1 && in_b == 1;
            let alike = (a == 1) == (in_a == 1) && (b == 1) == (in_b == 1);
            if !free && !alike {
                slot = slot.saturating_sub(1);
            }
            merged.a[slot] = merged.a[slot].wrapping_mul(a);
            merged.b[slot] = merged.b[slot].wrapping_mul(b);
        }
        merged
    }
}

/// Element strides of a dense operand, 0 along axes on which it is repeated.
fn strides(operand: &[usize; MAX_RANK]) -> [usize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut stride = 1;
    for (own, &extent) in strides.iter_mut().zip(operand).rev() {
        *own = if extent == 1 { 0 } else { stride };
        stride *= extent;
    }
    strides
}

const OUTER: usize = MAX_RANK - 1;

/// The rows (last axes) of a broadcast, one after another in the order of the output.
struct Rows {
    walk: Walk<OUTER, 2>,
    offsets: [usize; 2],
    /// Elements of a row in the first operand (1 when it repeats), in the second, and in the output.
    len: [usize; 3],
}

impl Rows {
    /// Checks that the buffers have the lengths that the shapes demand. `a` is `None` when the first operand
    /// lies in the output already. The rows are `None` when there is nothing to compute.
    fn new(
        shape: &Broadcast,
        a: Option<usize>,
        b: usize,
        output: usize,
    ) -> Result<Option<Self>, KernelError> {
        let extents = shape.output().ok_or(KernelError::Shape)?;
        let fits = element_count(&extents) == Some(output)
            && element_count(&shape.a) == Some(a.unwrap_or(output))
            && element_count(&shape.b) == Some(b);
        if !fits {
            return Err(KernelError::Shape);
        }
        if output == 0 {
            return Ok(None);
        }
        let Broadcast { a, b } = shape.merged();
        let outer = |x: &[usize; MAX_RANK]| [x[0], x[1], x[2], x[3], x[4]];
        let mut extents = a;
        extents.iter_mut().zip(&b).for_each(|(extent, &b)| *extent = b.max(*extent));
        Ok(Some(Rows {
            walk: Walk::new(outer(&extents), [outer(&strides(&a)), outer(&strides(&b))]),
            offsets: [0; 2],
            len: [a[OUTER], b[OUTER], extents[OUTER]],
        }))
    }
}

/// Elements that are copied before they are combined, few enough to stay in the nearest cache.
const CHUNK: usize = 512;

/// Elements `start .. start + len` of a row, which is a single element when the operand repeats.
#[inline(always)]
fn part<T>(row: &[T], start: usize, len: usize) -> &[T] {
    if row.len() == 1 { row } else { row.get(start..start + len).unwrap_or_default() }
}

/// `output = f(a, b)` with broadcasting; `a` is `None` when the first operand is already in `output`.
pub(super) fn combine<T: Copy>(
    shape: &Broadcast,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
    f: impl Fn(T, T) -> T,
) -> Result<(), KernelError> {
    for_each_run(shape, a, b, output, &|a, b| match b {
        &[b] => a.iter_mut().for_each(|a| *a = f(*a, b)),
        b => a.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b)),
    })
}

/// Calls `run` for piece after piece of the output, which holds the first operand, and the part of the second
/// operand that belongs to it: as many elements or a single one.
///
/// A separate first operand is copied to the output piece by piece, so that every operator needs a loop for arrays
/// and one for scalars, and no more. The call through a pointer keeps the rest from being linked for each of them.
fn for_each_run<T: Copy>(
    shape: &Broadcast,
    a: Option<&[T]>,
    b: &[T],
    output: &mut [T],
    run: &dyn Fn(&mut [T], &[T]),
) -> Result<(), KernelError> {
    let Some(mut rows) = Rows::new(shape, a.map(<[T]>::len), b.len(), output.len())? else {
        return Ok(());
    };
    let [a_len, b_len, len] = rows.len;
    for output_row in output.chunks_exact_mut(len.max(1)) {
        let [a_start, b_start] = rows.offsets;
        let b_row = b.get(b_start..b_start + b_len).unwrap_or_default();
        for (i, output) in output_row.chunks_mut(CHUNK).enumerate() {
            if let Some(a) = a {
                let a_row = a.get(a_start..a_start + a_len).unwrap_or_default();
                copy(part(a_row, i * CHUNK, output.len()), output);
            }
            run(output, part(b_row, i * CHUNK, output.len()));
        }
        rows.walk.advance(&mut rows.offsets);
    }
    Ok(())
}

/// Copies a part of a row, or repeats its single element.
fn copy<T: Copy>(from: &[T], to: &mut [T]) {
    match from {
        &[value] => to.fill(value),
        _ => to.iter_mut().zip(from).for_each(|(to, &from)| *to = from),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Independent of [`Walk`]: decomposes every output position by division.
    fn expected(shape: &Broadcast, a: &[i32], b: &[i32]) -> Vec<i32> {
        let extents = shape.output().unwrap();
        let pick = |operand: &[usize; MAX_RANK], index: &[usize; MAX_RANK]| {
            (0..MAX_RANK).fold(0, |offset, axis| offset * operand[axis] + index[axis] % operand[axis])
        };
        (0..extents.iter().product())
            .map(|position: usize| {
                let mut index = [0; MAX_RANK];
                let mut rest = position;
                for axis in (0..MAX_RANK).rev() {
                    index[axis] = rest % extents[axis];
                    rest /= extents[axis];
                }
                a[pick(&shape.a, &index)] * 1000 - b[pick(&shape.b, &index)]
            })
            .collect()
    }

    fn count(extents: &[usize]) -> i32 {
        extents.iter().product::<usize>() as i32
    }

    proptest! {
        #[test]
        fn broadcasts_like_numpy(axes in prop::array::uniform6((1usize..4, 0..4u8))) {
            let mut shape = Broadcast { a: [1; 6], b: [1; 6] };
            for (axis, (extent, kind)) in axes.into_iter().enumerate() {
                if kind != 1 { shape.a[axis] = extent }
                if kind != 2 { shape.b[axis] = extent }
            }
            let a: Vec<i32> = (0..count(&shape.a)).collect();
            let b: Vec<i32> = (0..count(&shape.b)).collect();
            let expected = expected(&shape, &a, &b);
            let f = |a: i32, b: i32| a * 1000 - b;

            let mut output = std::vec![0; expected.len()];
            combine(&shape, Some(&a), &b, &mut output, f).unwrap();
            prop_assert_eq!(&output, &expected);

            let mut in_place = a.clone();
            let result = combine(&shape, None, &b, &mut in_place, f);
            if a.len() == expected.len() {
                prop_assert_eq!(result, Ok(()));
                prop_assert_eq!(&in_place, &expected);
            } else {
                prop_assert_eq!(result, Err(KernelError::Shape));
                prop_assert_eq!(&in_place, &a);
            }
        }
    }

    #[test]
    fn rows_longer_than_a_chunk() {
        let a: Vec<i32> = (0..2 * CHUNK as i32 + 3).collect();
        let b: Vec<i32> = a.iter().map(|x| 7 * x).collect();
        let mut output = std::vec![0; a.len()];
        combine(&Broadcast::same(a.len()), Some(&a), &b, &mut output, |a, b| b - a).unwrap();
        assert!(output.iter().zip(&a).all(|(&y, &x)| y == 6 * x));

        let scalar_first = Broadcast { a: [1; 6], b: Broadcast::same(a.len()).b };
        combine(&scalar_first, Some(&[10]), &b, &mut output, |a, b| b - a).unwrap();
        assert!(output.iter().zip(&a).all(|(&y, &x)| y == 7 * x - 10));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let f = |a: i32, _: i32| a;
        let shape = Broadcast { a: [1, 1, 1, 1, 1, 2], b: [1, 1, 1, 1, 1, 3] };
        assert_eq!(combine(&shape, Some(&[1, 2]), &[1, 2, 3], &mut [0; 3], f), Err(KernelError::Shape));
        assert_eq!(
            combine(&Broadcast::same(2), Some(&[1, 2]), &[1, 2, 3], &mut [0; 2], f),
            Err(KernelError::Shape)
        );
        assert_eq!(
            combine(&Broadcast::same(2), Some(&[1]), &[1, 2], &mut [0; 2], f),
            Err(KernelError::Shape)
        );
        assert_eq!(combine(&Broadcast::same(2), None, &[1, 2], &mut [0; 1], f), Err(KernelError::Shape));
        let huge = Broadcast { a: [usize::MAX; 6], b: [usize::MAX; 6] };
        assert_eq!(combine(&huge, Some(&[]), &[], &mut [], f), Err(KernelError::Shape));
        let empty = Broadcast { a: [1, 1, 1, 1, 0, 4], b: [1, 1, 1, 1, 1, 4] };
        assert_eq!(combine(&empty, Some(&[]), &[1, 2, 3, 4], &mut [], f), Ok(()));
    }
}
