//! Data movement: strided copies, fills and gathers of elements of any size.

use crate::KernelError;

/// Most axes of a copy.
pub const AXES: usize = 6;

/// `output[out_offset + i · out_strides] = input[in_offset + i · in_strides]` for every index `i` below `counts`,
/// in elements.
#[derive(Clone, Debug)]
pub struct StridedCopy {
    /// Bytes per element: 1, 2, 4 or 8.
    pub element: usize,
    /// Steps along each axis, outermost first.
    pub counts: [u32; AXES],
    /// First source element.
    pub in_offset: u32,
    /// Source step along each axis.
    pub in_strides: [i32; AXES],
    /// First destination element.
    pub out_offset: u32,
    /// Destination step along each axis.
    pub out_strides: [i32; AXES],
}

impl StridedCopy {
    /// Elements copied, saturating.
    pub fn elements(&self) -> u64 {
        self.counts.iter().fold(1, |n: u64, &count| n.saturating_mul(count.into()))
    }

    /// Whether all indices lie inside buffers of `input` and `output` elements.
    fn fits(&self, input: usize, output: usize) -> bool {
        let inside = |offset: u32, strides: &[i32; AXES], len: usize| {
            let (mut low, mut high) = (i64::from(offset), i64::from(offset));
            for (&stride, &count) in strides.iter().zip(&self.counts) {
                let reach = i64::from(stride) * (i64::from(count) - 1);
                low += reach.min(0);
                high += reach.max(0);
            }
            low >= 0 && high < len as i64
        };
        inside(self.in_offset, &self.in_strides, input) && inside(self.out_offset, &self.out_strides, output)
    }
}

/// Runs a strided copy. Errors: [`KernelError::Shape`] when an index lies outside a buffer,
/// [`KernelError::Parameter`] for an element size of 0.
pub fn strided_copy(p: &StridedCopy, input: &[u8], output: &mut [u8]) -> Result<(), KernelError> {
    if p.element == 0 {
        return Err(KernelError::Parameter);
    }
    if p.elements() == 0 {
        return Ok(());
    }
    if !p.fits(input.len() / p.element, output.len() / p.element) {
        return Err(KernelError::Shape);
    }
    // The innermost axis is moved as one run of bytes when both sides are contiguous.
    let [outer @ .., inner] = p.counts;
    let contiguous = p.in_strides[AXES - 1] == 1 && p.out_strides[AXES - 1] == 1;
    let (repeats, run) = if contiguous { (1, inner as usize * p.element) } else { (inner, p.element) };
    let mut index = [0u32; AXES - 1];
    let (mut from, mut to) = (i64::from(p.in_offset), i64::from(p.out_offset));
    loop {
        for step in 0..i64::from(repeats) {
            let source = (from + step * i64::from(p.in_strides[AXES - 1])) as usize * p.element;
            let target = (to + step * i64::from(p.out_strides[AXES - 1])) as usize * p.element;
            let source = input.get(source..source + run).unwrap_or(&[]);
            if let Some(target) = output.get_mut(target..target + source.len()) {
                target.copy_from_slice(source);
            }
        }
        // Count up the outer axes like an odometer.
        let mut axis = AXES - 1;
        loop {
            if axis == 0 {
                return Ok(());
            }
            axis -= 1;
            let (in_stride, out_stride) = (i64::from(p.in_strides[axis]), i64::from(p.out_strides[axis]));
            index[axis] += 1;
            from += in_stride;
            to += out_stride;
            if index[axis] < outer[axis] {
                break;
            }
            from -= in_stride * i64::from(outer[axis]);
            to -= out_stride * i64::from(outer[axis]);
            index[axis] = 0;
        }
    }
}

/// Sets every element of `output` to `value`, which is one element's bytes.
pub fn fill(value: &[u8], output: &mut [u8]) -> Result<(), KernelError> {
    if value.is_empty() || !output.len().is_multiple_of(value.len()) {
        return Err(KernelError::Shape);
    }
    output.chunks_exact_mut(value.len()).for_each(|element| element.copy_from_slice(value));
    Ok(())
}

/// The geometry of a gather.
#[derive(Clone, Debug)]
pub struct Gather {
    /// Bytes per element.
    pub element: usize,
    /// Product of the axes that input and indices share.
    pub batch: usize,
    /// Product of the axes between those and the gathered one.
    pub outer: usize,
    /// Product of the axes behind the gathered one.
    pub inner: usize,
}

/// Picks rows: `input` is `[batch, outer, axis, inner]`, `indices` is `[batch, n]`, `output` is
/// `[batch, outer, n, inner]`. A row whose index lies outside the axis becomes zero.
pub fn gather(p: &Gather, input: &[u8], indices: &[i32], output: &mut [u8]) -> Result<(), KernelError> {
    let row = p.inner.checked_mul(p.element).filter(|&row| row > 0).ok_or(KernelError::Parameter)?;
    let blocks = p.batch.checked_mul(p.outer).filter(|&n| n > 0).ok_or(KernelError::Parameter)?;
    let in_row = row.checked_mul(blocks).ok_or(KernelError::Parameter)?;
    let picked = indices.len() / p.batch;
    let fits = input.len().is_multiple_of(in_row)
        && indices.len().is_multiple_of(p.batch)
        && in_row.checked_mul(picked) == Some(output.len());
    if !fits {
        return Err(KernelError::Shape);
    }
    let axis = input.len() / in_row;
    for (block, rows) in output.chunks_exact_mut((row * picked).max(1)).enumerate() {
        let first = block / p.outer * picked;
        let indices = indices.get(first..first + picked).unwrap_or(&[]);
        for (target, &index) in rows.chunks_exact_mut(row).zip(indices) {
            let at = usize::try_from(index).ok().filter(|&index| index < axis);
            match at.and_then(|index| input.get((block * axis + index) * row..)?.get(..row)) {
                Some(source) => target.copy_from_slice(source),
                None => target.fill(0),
            }
        }
    }
    Ok(())
}

/// `bytes[i] = table[bytes[i]]`: any unary operator on 8-bit values.
pub fn lut8(table: &[u8; 256], bytes: &mut [u8]) {
    for byte in bytes {
        *byte = table[usize::from(*byte)];
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn transposes_a_matrix() {
        // [2, 3] -> [3, 2]
        let p = StridedCopy {
            element: 1,
            counts: [1, 1, 1, 1, 3, 2],
            in_offset: 0,
            in_strides: [0, 0, 0, 0, 1, 3],
            out_offset: 0,
            out_strides: [0, 0, 0, 0, 2, 1],
        };
        let mut out = [0; 6];
        strided_copy(&p, &[1, 2, 3, 4, 5, 6], &mut out).unwrap();
        assert_eq!(out, [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn reverses_with_a_negative_stride_and_wide_elements() {
        let p = StridedCopy {
            element: 2,
            counts: [1, 1, 1, 1, 1, 3],
            in_offset: 2,
            in_strides: [0, 0, 0, 0, 0, -1],
            out_offset: 1,
            out_strides: [0, 0, 0, 0, 0, 1],
        };
        let mut out = [9; 8];
        strided_copy(&p, &[1, 1, 2, 2, 3, 3], &mut out).unwrap();
        assert_eq!(out, [9, 9, 3, 3, 2, 2, 1, 1]);
    }

    #[test]
    fn refuses_an_index_outside_the_buffers() {
        let mut p = StridedCopy {
            element: 1,
            counts: [1, 1, 1, 1, 1, 4],
            in_offset: 0,
            in_strides: [0, 0, 0, 0, 0, 1],
            out_offset: 0,
            out_strides: [0, 0, 0, 0, 0, 1],
        };
        assert_eq!(strided_copy(&p, &[0; 3], &mut [0; 4]), Err(KernelError::Shape));
        assert_eq!(strided_copy(&p, &[0; 4], &mut [0; 3]), Err(KernelError::Shape));
        p.in_strides[5] = -1;
        assert_eq!(strided_copy(&p, &[0; 4], &mut [0; 4]), Err(KernelError::Shape));
    }

    #[test]
    fn gathers_rows_and_zeroes_what_is_outside() {
        let input: Vec<u8> = (0..12).collect(); // [2, 3, 2]
        let mut out = vec![9; 2 * 2 * 2];
        let shared = Gather { element: 1, batch: 1, outer: 2, inner: 2 };
        gather(&shared, &input, &[2, 7], &mut out).unwrap();
        assert_eq!(out, [4, 5, 0, 0, 10, 11, 0, 0]);
        let batched = Gather { element: 1, batch: 2, outer: 1, inner: 2 };
        gather(&batched, &input, &[2, 1, 0, -1], &mut out).unwrap();
        assert_eq!(out, [4, 5, 2, 3, 6, 7, 0, 0]);
    }
}
