//! What an operator's operands say: shapes, constants, windows, and whether they fit the results.

use dunlin_tflite_schema as schema;

use super::Importer;
use super::operators::{Read, Source};
use super::slice::Slice;
use crate::graph::{Op, Padding2d, ReduceOp, Window2d};

impl<'a> Importer<'a> {
    pub(super) fn shape(&self, source: &Source<'a>, input: usize) -> Read<&[usize]> {
        let id = source
            .inputs
            .get(input)
            .copied()
            .flatten()
            .ok_or_else(|| format!("operand {input} is missing"))?;
        Ok(&self.graph.values[id].shape)
    }

    pub(super) fn output_shape(&self, source: &Source<'a>, output: usize) -> Read<&[usize]> {
        let id = source.outputs.get(output).ok_or_else(|| format!("result {output} is missing"))?;
        Ok(&self.graph.values[*id].shape)
    }

    pub(super) fn rank(&self, source: &Source<'a>, input: usize) -> Read<usize> {
        Ok(self.shape(source, input)?.len())
    }

    pub(super) fn expect_shape(&self, source: &Source<'a>, output: usize, expected: &[usize]) -> Read<()> {
        let actual = self.output_shape(source, output)?;
        if actual == expected {
            return Ok(());
        }
        Err(format!("the result has shape {actual:?}, but {expected:?} follows from the operands"))
    }

    /// A constant operand of integers.
    pub(super) fn integers(&self, source: &Source<'a>, input: usize, what: &str) -> Read<Vec<i64>> {
        let id = source.inputs.get(input).copied().flatten().ok_or_else(|| format!("{what} is missing"))?;
        self.graph.values[id].integers().ok_or_else(|| format!("{what} must be a constant of integers"))
    }

    /// Rows and columns of the weights of a convolution.
    pub(super) fn kernel_size(&self, source: &Source<'a>) -> Read<[usize; 2]> {
        match *self.shape(source, 1)? {
            [_, rows, columns, _] => Ok([rows, columns]),
            _ => Err("the weights must have four axes".into()),
        }
    }

    /// The window of a convolution or pooling with TensorFlow's paddings made explicit.
    pub(super) fn window(
        &self,
        source: &Source<'a>,
        input: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        padding: schema::Padding,
    ) -> Read<Window2d> {
        let (&[_, in_h, in_w, _], &[_, out_h, out_w, _]) =
            (self.shape(source, input)?, self.output_shape(source, 0)?)
        else {
            return Err("input and output must have four axes (batch, rows, columns, channels)".into());
        };
        let [rows, columns] = [(in_h, out_h, 0), (in_w, out_w, 1)].map(|(input, output, axis)| {
            along_axis(input, output, kernel[axis], stride[axis], dilation[axis], padding)
        });
        let ([top, bottom], [left, right]) = (rows?, columns?);
        Ok(Window2d { stride, dilation, padding: Padding2d { top, bottom, left, right } })
    }

    /// The window of the forward convolution that a transposed one belongs to.
    pub(super) fn transposed_window(
        &self,
        source: &Source<'a>,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: schema::Padding,
    ) -> Read<Window2d> {
        let (&[_, in_h, in_w, _], &[_, out_h, out_w, _]) =
            (self.shape(source, 2)?, self.output_shape(source, 0)?)
        else {
            return Err("input and output must have four axes (batch, rows, columns, channels)".into());
        };
        // The forward convolution goes from this operator's output to its input.
        let [rows, columns] = [(out_h, in_h, 0), (out_w, in_w, 1)]
            .map(|(input, output, axis)| along_axis(input, output, kernel[axis], stride[axis], 1, padding));
        let ([top, bottom], [left, right]) = (rows?, columns?);
        Ok(Window2d { stride, dilation: [1, 1], padding: Padding2d { top, bottom, left, right } })
    }

    pub(super) fn pads(&self, source: &Source<'a>, input: usize) -> Read<Vec<[usize; 2]>> {
        let flat = self.integers(source, input, "the padding")?;
        let (pairs, rest) = flat.as_chunks::<2>();
        if !rest.is_empty() || self.shape(source, input)?.last() != Some(&2) {
            return Err("the padding must have two numbers for every axis".into());
        }
        let pair = |&[before, behind]: &[i64; 2]| -> Read<[usize; 2]> { Ok([pad(before)?, pad(behind)?]) };
        pairs.iter().map(pair).collect()
    }

    pub(super) fn expect_padded(&self, source: &Source<'a>, pads: &[[usize; 2]]) -> Read<()> {
        let shape = self.shape(source, 0)?;
        if pads.len() != shape.len() {
            return Err(format!("{} pairs of paddings for {} axes", pads.len(), shape.len()));
        }
        let padded: Vec<_> =
            shape.iter().zip(pads).map(|(size, [before, behind])| size + before + behind).collect();
        self.expect_shape(source, 0, &padded)
    }

    pub(super) fn check_concat(&self, source: &Source<'a>, axis: usize) -> Read<()> {
        let mut shape = self.shape(source, 0)?.to_vec();
        shape[axis] = 0;
        for at in 0..source.inputs.len() {
            let part = self.shape(source, at)?;
            let fits =
                part.len() == shape.len() && (0..shape.len()).all(|a| a == axis || part[a] == shape[a]);
            if !fits {
                return Err(format!("operand {at} differs from the others beyond axis {axis}"));
            }
            shape[axis] += part[axis];
        }
        self.expect_shape(source, 0, &shape)
    }

    pub(super) fn check_split(&self, source: &Source<'a>, data: usize, axis: usize) -> Read<()> {
        let shape = self.shape(source, data)?;
        let mut total = 0;
        for at in 0..source.outputs.len() {
            let part = self.output_shape(source, at)?;
            let fits =
                part.len() == shape.len() && (0..shape.len()).all(|a| a == axis || part[a] == shape[a]);
            if !fits {
                return Err(format!("result {at} differs from the operand beyond axis {axis}"));
            }
            total += part[axis];
        }
        if total == shape[axis] { Ok(()) } else { Err("the parts do not add up to the whole".into()) }
    }

    pub(super) fn slice(&self, source: &Source<'a>) -> Read<Op> {
        let shape = self.shape(source, 0)?;
        let begin = self.integers(source, 1, "the begin")?;
        let sizes = self.integers(source, 2, "the size")?;
        if begin.len() != shape.len() || sizes.len() != shape.len() {
            return Err("begin and size must have one number for every axis".into());
        }
        let mut counts = Vec::new();
        for axis in 0..shape.len() {
            let rest =
                (shape[axis] as i64).checked_sub(begin[axis]).filter(|&rest| begin[axis] >= 0 && rest >= 0);
            let rest = rest.ok_or_else(|| format!("begin {} lies outside axis {axis}", begin[axis]))?;
            let count = if sizes[axis] == -1 { rest } else { sizes[axis] };
            if !(0..=rest).contains(&count) {
                return Err(format!("size {count} reaches beyond axis {axis}"));
            }
            counts.push(count as usize);
        }
        self.expect_shape(source, 0, &counts)?;
        let begin = begin.iter().map(|&b| b as usize).collect();
        Ok(Op::StridedSlice { begin, strides: vec![1; shape.len()], counts })
    }

    pub(super) fn strided_slice(&self, source: &Source<'a>) -> Read<Op> {
        let p = source.operator.builtin_options_as_strided_slice_options().ok_or("options are missing")?;
        let begin = self.integers(source, 1, "the begin")?;
        let end = self.integers(source, 2, "the end")?;
        let strides = self.integers(source, 3, "the strides")?;
        let slice = Slice {
            begin: &begin,
            end: &end,
            strides: &strides,
            begin_mask: p.begin_mask(),
            end_mask: p.end_mask(),
            ellipsis_mask: p.ellipsis_mask(),
            new_axis_mask: p.new_axis_mask(),
            shrink_axis_mask: p.shrink_axis_mask(),
            offset: p.offset(),
        };
        let op = slice.resolve(self.shape(source, 0)?)?;
        let Op::StridedSlice { counts, .. } = &op else { return Ok(op) };
        let elements: usize = counts.iter().product();
        if elements != self.output_shape(source, 0)?.iter().product::<usize>() {
            return Err("the result's shape does not follow from the operands".into());
        }
        Ok(op)
    }

    /// Spatial axes come directly behind the batch.
    pub(super) fn check_blocks(
        &self,
        source: &Source<'a>,
        block: &[usize],
        margin: &[[usize; 2]],
        to_batch: bool,
    ) -> Read<()> {
        let (spatial, batched) = match to_batch {
            true => (self.shape(source, 0)?, self.output_shape(source, 0)?),
            false => (self.output_shape(source, 0)?, self.shape(source, 0)?),
        };
        let axes = block.len();
        if margin.len() != axes || spatial.len() < axes + 1 || spatial.len() != batched.len() {
            return Err("block shape, paddings and axes do not fit together".into());
        }
        let mut expected = spatial.to_vec();
        for k in 0..axes {
            expected[0] *= block[k];
            let padded = spatial[k + 1] + margin[k][0] + margin[k][1];
            if !padded.is_multiple_of(block[k]) {
                return Err(format!("axis {} is no multiple of its block size", k + 1));
            }
            expected[k + 1] = padded / block[k];
        }
        if expected == batched {
            Ok(())
        } else {
            Err("the result's shape does not follow from the operands".into())
        }
    }

    pub(super) fn check_depth(&self, wide: &[usize], deep: &[usize], block: usize) -> Read<()> {
        match (wide, deep) {
            (&[wb, wh, ww, wc], &[db, dh, dw, dc])
                if wb == db && wh == dh * block && ww == dw * block && dc == wc * block * block =>
            {
                Ok(())
            }
            _ => Err("the result's shape does not follow from the operands".into()),
        }
    }

    pub(super) fn reduce(&self, source: &Source<'a>, op: ReduceOp) -> Read<Op> {
        let rank = self.rank(source, 0)?;
        let axes = self.integers(source, 1, "the axes")?;
        let mut axes = axes.iter().map(|&axis| normal_axis(axis, rank)).collect::<Read<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        let kept: usize = (0..rank)
            .filter(|a| !axes.contains(a))
            .map(|a| self.shape(source, 0).map_or(0, |s| s[a]))
            .product();
        if kept != self.output_shape(source, 0)?.iter().product::<usize>() {
            return Err("the result's shape does not follow from the operands".into());
        }
        Ok(Op::Reduce { op, axes })
    }
}

/// Paddings before and behind one axis.
fn along_axis(
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: schema::Padding,
) -> Read<[usize; 2]> {
    let reach = kernel.checked_sub(1).and_then(|n| n.checked_mul(dilation)).and_then(|n| n.checked_add(1));
    let reach = reach.ok_or("the window is empty or too large")?;
    let same = padding == schema::Padding::SAME;
    let expected = match same {
        true => input.div_ceil(stride),
        false => (input + 1).checked_sub(reach).map_or(0, |room| room.div_ceil(stride)),
    };
    if output != expected {
        return Err(format!("a window of {kernel} over {input} gives {expected} positions, not {output}"));
    }
    if !same || output == 0 {
        return Ok([0, 0]);
    }
    let total = ((output - 1) * stride + reach).saturating_sub(input);
    Ok([total / 2, total - total / 2])
}

pub(super) fn normal_axis(axis: i64, rank: usize) -> Read<usize> {
    let normal = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(normal).ok().filter(|&a| a < rank).ok_or_else(|| format!("axis {axis} of {rank}"))
}

pub(super) fn sizes(values: [i32; 2]) -> Read<[usize; 2]> {
    Ok([size(values[0].into())?, size(values[1].into())?])
}

/// A stride, dilation or window: positive and of sensible size.
pub(super) fn size(value: i64) -> Read<usize> {
    usize::try_from(value)
        .ok()
        .filter(|&n| n > 0 && n <= usize::from(u16::MAX))
        .ok_or_else(|| format!("{value} is out of range; 1 to 65535 are supported"))
}

fn pad(value: i64) -> Read<usize> {
    usize::try_from(value)
        .ok()
        .filter(|&n| n <= usize::from(u16::MAX))
        .ok_or_else(|| format!("padding {value} is out of range; 0 to 65535 are supported"))
}
