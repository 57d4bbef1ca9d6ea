//! Operators that only move elements: views where nothing need be copied, strided copies elsewhere.

use dunlin_artifact::{DType, Kernel, MAX_RANK, TensorId, op};

use super::Lowering;
use crate::error::{Unsupported, unsupported};
use crate::graph::{MirrorMode, Node, Op, StateId, ValueId};
use crate::lut::{self, Quantized8};
use crate::program::Storage;

type Lowered = Result<(), Unsupported>;

/// A box of elements to move, in elements of the tensors' type.
#[derive(Clone, Debug)]
struct Move {
    counts: Vec<usize>,
    in_offset: i64,
    in_strides: Vec<i64>,
    out_offset: i64,
    out_strides: Vec<i64>,
}

impl Move {
    /// Moves a dense block of shape `counts` from `input` to `output`, tensors of these shapes, element by
    /// element, starting at the given corners.
    fn block(counts: &[usize], input: &[usize], output: &[usize]) -> Self {
        Move {
            counts: counts.to_vec(),
            in_offset: 0,
            in_strides: strides(input),
            out_offset: 0,
            out_strides: strides(output),
        }
    }

    /// Drops axes of one step and merges neighbours that both sides walk through evenly.
    fn simplified(&self) -> Self {
        let mut simple = Move { counts: vec![], in_strides: vec![], out_strides: vec![], ..self.clone() };
        for axis in 0..self.counts.len() {
            let (count, from, to) = (self.counts[axis], self.in_strides[axis], self.out_strides[axis]);
            if count == 1 {
                continue;
            }
            let merges = simple.counts.last().is_some()
                && simple.in_strides.last() == Some(&(from * count as i64))
                && simple.out_strides.last() == Some(&(to * count as i64));
            if merges {
                *simple.counts.last_mut().expect("checked") *= count;
                *simple.in_strides.last_mut().expect("checked") = from;
                *simple.out_strides.last_mut().expect("checked") = to;
            } else {
                simple.counts.push(count);
                simple.in_strides.push(from);
                simple.out_strides.push(to);
            }
        }
        simple
    }

    /// The first element moved, if both sides are one contiguous run.
    fn contiguous_source(&self) -> Option<usize> {
        let simple = self.simplified();
        let runs = simple.counts.len() <= 1
            && simple.in_strides.iter().all(|&s| s == 1)
            && simple.out_strides.iter().all(|&s| s == 1);
        (runs && simple.out_offset == 0).then_some(simple.in_offset as usize)
    }

    fn is_empty(&self) -> bool {
        self.counts.contains(&0)
    }
}

/// Row-major strides of a dense tensor.
fn strides(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1] as i64;
    }
    strides
}

fn emit(cx: &mut Lowering<'_>, input: TensorId, output: TensorId, movement: &Move) -> Lowered {
    if movement.is_empty() {
        return Ok(());
    }
    let simple = movement.simplified();
    let rank = simple.counts.len();
    if rank > MAX_RANK {
        return unsupported(format!("needs a copy over {rank} axes; at most {MAX_RANK} are supported"));
    }
    let pad = MAX_RANK - rank;
    let mut params = op::Copy {
        input,
        output,
        counts: [1; MAX_RANK],
        in_offset: simple.in_offset as u32,
        // A single element still counts as one contiguous run.
        in_strides: [0, 0, 0, 0, 0, 1],
        out_offset: simple.out_offset as u32,
        out_strides: [0, 0, 0, 0, 0, 1],
    };
    for axis in 0..rank {
        params.counts[pad + axis] = simple.counts[axis] as u32;
        params.in_strides[pad + axis] = simple.in_strides[axis] as i32;
        params.out_strides[pad + axis] = simple.out_strides[axis] as i32;
    }
    cx.emit(Kernel::Copy, &params, &[input], &[output]);
    Ok(())
}

/// Moves elements from operand 0 to result 0; without a copy if the result is a contiguous part of the operand.
fn moved(cx: &mut Lowering<'_>, from: ValueId, to: ValueId, movement: &Move) -> Lowered {
    same_quantization(cx, from, to)?;
    let input = cx.tensor(from);
    match movement.contiguous_source() {
        Some(offset) if may_view(cx, from, to) => {
            cx.make_view(to, input, offset * cx.value(to).dtype.size());
            Ok(())
        }
        _ => {
            let output = cx.tensor(to);
            emit(cx, input, output, movement)
        }
    }
}

/// Whether `to` may share the memory of `from`. A constant may not: a view lies in the arena. A variable's
/// memory may be shared only as long as the variable keeps its value.
fn may_view(cx: &mut Lowering<'_>, from: ValueId, to: ValueId) -> bool {
    let tensor = cx.tensor(from);
    let (root, _) = cx.program.root(tensor);
    match cx.program.tensors[usize::from(root)].storage {
        Storage::Constant(_) => false,
        Storage::State(_) => {
            let first_write = cx
                .graph
                .nodes
                .iter()
                .position(|node| matches!(node.op, Op::AssignVariable(state) if cx.state(state) == root));
            first_write.is_none_or(|write| last_use(cx, to) <= write)
        }
        _ => true,
    }
}

/// Position of the last node that may read the memory of `value`, views of it included; beyond the end for a
/// model output.
fn last_use(cx: &Lowering<'_>, value: ValueId) -> usize {
    if cx.graph.is_output(value) {
        return usize::MAX;
    }
    let mut last = 0;
    for consumer in cx.graph.consumers(value) {
        last = last.max(consumer);
        let node = &cx.graph.nodes[consumer];
        let may_share =
            matches!(node.op, Op::Reshape | Op::Split { .. } | Op::StridedSlice { .. } | Op::Unpack { .. });
        if may_share {
            for &output in &node.outputs {
                last = last.max(last_use(cx, output));
            }
        }
    }
    last
}

/// Operators that move bytes cannot change their meaning.
fn same_quantization(cx: &Lowering<'_>, from: ValueId, to: ValueId) -> Lowered {
    let (from, to) = (cx.value(from), cx.value(to));
    if from.dtype != to.dtype {
        return unsupported(format!("input is {}, output is {}; they must be equal", from.dtype, to.dtype));
    }
    match (from.scale_and_zero_point(), to.scale_and_zero_point()) {
        (Some(a), Some(b)) if a != b && from.dtype.size() <= 2 => unsupported(format!(
            "input and output must have the same scale and zero point, but have {a:?} and {b:?}"
        )),
        _ => Ok(()),
    }
}

/// Copies a tensor into new memory in the arena.
pub(super) fn copy_whole(cx: &mut Lowering<'_>, tensor: TensorId) -> TensorId {
    let source = cx.program.tensors[usize::from(tensor)].clone();
    let elements: usize = source.shape.iter().product();
    let output = cx.add(source.dtype, &source.shape, source.quant, Storage::Temporary);
    emit(cx, tensor, output, &Move::block(&[elements], &[elements], &[elements])).expect("one axis");
    output
}

pub(super) fn reshape(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let elements = cx.value(from).elements();
    if elements != cx.value(to).elements() {
        return unsupported("input and output must have equally many elements");
    }
    // A reshape changes the shape alone: bytes keep their meaning by definition, so scales are not compared.
    let input = cx.tensor(from);
    if may_view(cx, from, to) {
        cx.make_view(to, input, 0);
        return Ok(());
    }
    let output = cx.tensor(to);
    emit(cx, input, output, &Move::block(&[elements], &[elements], &[elements]))
}

pub(super) fn transpose(cx: &mut Lowering<'_>, node: &Node, perm: &[usize]) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let in_strides = strides(&cx.value(from).shape);
    let shape = &cx.value(to).shape;
    let mut movement = Move::block(shape, shape, shape);
    movement.in_strides = perm.iter().map(|&axis| in_strides[axis]).collect();
    moved(cx, from, to, &movement)
}

pub(super) fn pad(cx: &mut Lowering<'_>, node: &Node, pads: &[[usize; 2]]) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_quantization(cx, from, to)?;
    let element = match cx.optional_input(node, 1) {
        Some(value) if cx.value(value).dtype != cx.value(to).dtype || cx.value(value).elements() != 1 => {
            return unsupported("the padding value must be one element of the tensor's type");
        }
        Some(value) => cx.tensor(value),
        None => zero_element(cx, to),
    };
    fill(cx, to, element);
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    emit(cx, input, output, &into_corner(&cx.value(from).shape, &cx.value(to).shape, pads))
}

/// The move that puts a whole tensor into a larger one behind these pads.
fn into_corner(from: &[usize], to: &[usize], pads: &[[usize; 2]]) -> Move {
    let mut movement = Move::block(from, from, to);
    movement.out_offset = movement.out_strides.iter().zip(pads).map(|(s, p)| s * p[0] as i64).sum();
    movement
}

/// Sets every element of a value to that of a tensor.
fn fill(cx: &mut Lowering<'_>, to: ValueId, element: TensorId) {
    let output = cx.tensor(to);
    cx.emit(Kernel::Fill, &op::Fill { value: element, output }, &[element], &[output]);
}

/// A constant with the element that stands for 0.
fn zero_element(cx: &mut Lowering<'_>, id: ValueId) -> TensorId {
    let value = cx.value(id);
    let zero = value.scale_and_zero_point().map_or(0, |(_, zero_point)| zero_point);
    let mut element = i64::from(zero).to_le_bytes().to_vec();
    element.truncate(value.dtype.size());
    if matches!(value.dtype, DType::F32 | DType::F16) {
        element.fill(0);
    }
    cx.add(value.dtype, &[1], (0.0, 0), Storage::Constant(element.into()))
}

pub(super) fn mirror_pad(
    cx: &mut Lowering<'_>,
    node: &Node,
    pads: &[[usize; 2]],
    mode: MirrorMode,
) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_quantization(cx, from, to)?;
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    let (in_shape, out_shape) = (cx.value(from).shape.clone(), cx.value(to).shape.clone());
    emit(cx, input, output, &into_corner(&in_shape, &out_shape, pads))?;
    // Mirror one axis after the other inside the output: the slabs on both sides are copies of what is there.
    // Source and target are the same tensor, so each goes through memory of its own.
    let out_strides = strides(&out_shape);
    let skip = usize::from(mode == MirrorMode::Reflect);
    for axis in 0..in_shape.len() {
        for (side, &count) in pads[axis].iter().enumerate() {
            if count == 0 {
                continue;
            }
            if count + skip > in_shape[axis] {
                return unsupported("a mirror pad must not be longer than its axis");
            }
            // Axes before this one are complete already, those behind it hold the input only.
            let mut slab = Move {
                counts: (0..in_shape.len())
                    .map(|a| match a.cmp(&axis) {
                        std::cmp::Ordering::Less => out_shape[a],
                        std::cmp::Ordering::Equal => count,
                        std::cmp::Ordering::Greater => in_shape[a],
                    })
                    .collect(),
                in_offset: 0,
                in_strides: out_strides.clone(),
                out_offset: 0,
                out_strides: out_strides.clone(),
            };
            for behind in axis + 1..in_shape.len() {
                slab.in_offset += out_strides[behind] * pads[behind][0] as i64;
            }
            slab.out_offset = slab.in_offset;
            let first = pads[axis][0] as i64;
            let (source, target) = match side {
                0 => (first + (count - 1 + skip) as i64, 0),
                _ => {
                    let end = first + in_shape[axis] as i64;
                    (end - 1 - skip as i64, end)
                }
            };
            slab.in_offset += source * out_strides[axis];
            slab.in_strides[axis] = -out_strides[axis];
            slab.out_offset += target * out_strides[axis];
            through_scratch(cx, output, &slab)?;
        }
    }
    Ok(())
}

/// Moves elements within one tensor by way of scratch memory.
fn through_scratch(cx: &mut Lowering<'_>, tensor: TensorId, movement: &Move) -> Lowered {
    let elements = movement.counts.iter().product();
    let scratch = cx.scratch(cx.program.tensors[usize::from(tensor)].dtype, elements);
    let dense = strides(&movement.counts);
    let out = Move { out_offset: 0, out_strides: dense.clone(), ..movement.clone() };
    let back = Move { in_offset: 0, in_strides: dense, ..movement.clone() };
    emit(cx, tensor, scratch, &out)?;
    emit(cx, scratch, tensor, &back)
}

pub(super) fn concat(cx: &mut Lowering<'_>, node: &Node, axis: usize) -> Lowered {
    let to = cx.output(node, 0)?;
    let inputs: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
    join(cx, &inputs, to, axis, |cx, input| cx.value(input).shape.clone())
}

pub(super) fn pack(cx: &mut Lowering<'_>, node: &Node, axis: usize) -> Lowered {
    let to = cx.output(node, 0)?;
    let inputs: Vec<ValueId> = node.inputs.iter().copied().flatten().collect();
    join(cx, &inputs, to, axis, |cx, input| {
        let mut shape = cx.value(input).shape.clone();
        shape.insert(axis, 1);
        shape
    })
}

/// Puts the inputs, seen in the shapes that `shape_of` gives, one behind the other along `axis`. An input that
/// fills one contiguous part of the output and is computed by a step of its own is computed right there.
fn join(
    cx: &mut Lowering<'_>,
    inputs: &[ValueId],
    to: ValueId,
    axis: usize,
    shape_of: impl Fn(&Lowering<'_>, ValueId) -> Vec<usize>,
) -> Lowered {
    let output = cx.tensor(to);
    let out_shape = cx.value(to).shape.clone();
    let out_strides = strides(&out_shape);
    let contiguous = out_shape[..axis].iter().product::<usize>() == 1;
    let mut position = 0;
    // An input that is there twice, or of which another input is a view, must keep memory of its own: it could not
    // be copied from one part of the output to another.
    let tensors: Vec<TensorId> = inputs.iter().map(|&input| cx.tensor(input)).collect();
    let roots: Vec<TensorId> = tensors.iter().map(|&input| cx.program.root(input).0).collect();
    let unshared = |root: TensorId| roots.iter().filter(|&&other| other == root).count() == 1;
    for &from in inputs {
        let shape = shape_of(cx, from);
        let rescaled = rescaled(cx, from, to)?;
        let input = match rescaled {
            Some(input) => input,
            None => {
                same_quantization(cx, from, to)?;
                cx.tensor(from)
            }
        };
        let offset = position as i64 * out_strides[axis];
        position += shape[axis];
        let temporary = matches!(cx.program.tensors[usize::from(input)].storage, Storage::Temporary);
        let free = rescaled.is_some() || (temporary && !cx.graph.is_input(from) && unshared(input));
        if contiguous && free {
            let offset = offset as usize * cx.value(to).dtype.size();
            cx.program.tensors[usize::from(input)].storage = Storage::View { of: output, offset };
            continue;
        }
        let mut movement = Move::block(&shape, &shape, &out_shape);
        movement.out_offset = offset;
        emit(cx, input, output, &movement)?;
    }
    Ok(())
}

/// An operand of a uint8 concatenation at the output's scale and zero point, if its own differ: such models may
/// mix them.
fn rescaled(cx: &mut Lowering<'_>, from: ValueId, to: ValueId) -> Result<Option<TensorId>, Unsupported> {
    let (source, target) = (cx.value(from), cx.value(to));
    if !source.was_unsigned || !target.was_unsigned || source.quant == target.quant {
        return Ok(None);
    }
    let (Some(old), Some(new)) = (Quantized8::of(source), Quantized8::of(target)) else { return Ok(None) };
    let table = lut::concatenated(old, new)?;
    let table = cx.constant(DType::U8, &[table.len()], &table);
    let input = cx.tensor(from);
    let output = cx.add(source.dtype, &source.shape, (new.scale, new.zero_point), Storage::Temporary);
    cx.emit(Kernel::Lut8, &op::Lut8 { input, output, table }, &[input], &[output]);
    Ok(Some(output))
}

pub(super) fn split(cx: &mut Lowering<'_>, node: &Node, axis: usize) -> Lowered {
    let from = cx.input(node, 0)?;
    let in_shape = cx.value(from).shape.clone();
    let mut position = 0;
    for &to in &node.outputs {
        let shape = &cx.value(to).shape;
        let mut movement = Move::block(shape, &in_shape, shape);
        movement.in_offset = position as i64 * movement.in_strides[axis];
        position += shape[axis];
        moved(cx, from, to, &movement)?;
    }
    Ok(())
}

pub(super) fn unpack(cx: &mut Lowering<'_>, node: &Node, axis: usize) -> Lowered {
    let from = cx.input(node, 0)?;
    let in_shape = cx.value(from).shape.clone();
    for (index, &to) in node.outputs.iter().enumerate() {
        let mut slice = in_shape.clone();
        slice[axis] = 1;
        let mut movement = Move::block(&slice, &in_shape, &slice);
        movement.in_offset = index as i64 * movement.in_strides[axis];
        moved(cx, from, to, &movement)?;
    }
    Ok(())
}

pub(super) fn strided_slice(cx: &mut Lowering<'_>, node: &Node, begin: &[usize], steps: &[i64]) -> Lowered {
    let Op::StridedSlice { counts, .. } = &node.op else { return unsupported("not a slice") };
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let mut movement = Move::block(counts, &cx.value(from).shape, counts);
    for axis in 0..begin.len() {
        movement.in_offset += begin[axis] as i64 * movement.in_strides[axis];
        movement.in_strides[axis] *= steps[axis];
    }
    moved(cx, from, to, &movement)
}

pub(super) fn gather(cx: &mut Lowering<'_>, node: &Node, axis: usize, batch_dims: usize) -> Lowered {
    let (from, indices, to) = (cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?);
    same_quantization(cx, from, to)?;
    if cx.value(indices).dtype != DType::I32 {
        return unsupported("gather needs int32 indices");
    }
    let shape = &cx.value(from).shape;
    let batch = shape[..batch_dims].iter().product::<usize>() as u32;
    let outer = shape[batch_dims..axis].iter().product::<usize>() as u32;
    let inner = shape[axis + 1..].iter().product::<usize>() as u32;
    let (input, indices, output) = (cx.tensor(from), cx.tensor(indices), cx.tensor(to));
    let params = op::Gather { input, indices, output, batch, outer, inner };
    cx.emit(Kernel::Gather, &params, &[input, indices], &[output]);
    Ok(())
}

pub(super) fn broadcast_to(cx: &mut Lowering<'_>, node: &Node) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let (in_shape, out_shape) = (&cx.value(from).shape, &cx.value(to).shape);
    let new_axes = out_shape.len().checked_sub(in_shape.len());
    let Some(new_axes) = new_axes else { return unsupported("the output has fewer axes than the input") };
    let mut movement = Move::block(out_shape, out_shape, out_shape);
    let in_strides = strides(in_shape);
    for axis in 0..out_shape.len() {
        let source = axis.checked_sub(new_axes).map(|a| (in_shape[a], in_strides[a]));
        movement.in_strides[axis] = match source {
            Some((size, stride)) if size == out_shape[axis] => stride,
            Some((1, _)) | None => 0,
            Some(_) => return unsupported("the shapes cannot be broadcast"),
        };
    }
    moved(cx, from, to, &movement)
}

/// Axis 0 of the batched side counts block offsets in its outer part and batches in its inner part. For each
/// block offset the elements that belong together lie a block apart in the other tensor.
pub(super) fn batch_to_space(
    cx: &mut Lowering<'_>,
    node: &Node,
    block: &[usize],
    crops: &[[usize; 2]],
) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_quantization(cx, from, to)?;
    let (batched, spatial) = (cx.value(from).shape.clone(), cx.value(to).shape.clone());
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    for (inside, outside) in block_moves(&batched, &spatial, block, crops) {
        emit(cx, input, output, &inside.to(&outside))?;
    }
    Ok(())
}

pub(super) fn space_to_batch(
    cx: &mut Lowering<'_>,
    node: &Node,
    block: &[usize],
    pads: &[[usize; 2]],
) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    same_quantization(cx, from, to)?;
    let (spatial, batched) = (cx.value(from).shape.clone(), cx.value(to).shape.clone());
    if pads.iter().flatten().any(|&pad| pad > 0) {
        let zero = zero_element(cx, to);
        fill(cx, to, zero);
    }
    let (input, output) = (cx.tensor(from), cx.tensor(to));
    for (inside, outside) in block_moves(&batched, &spatial, block, pads) {
        emit(cx, input, output, &outside.to(&inside))?;
    }
    Ok(())
}

/// One side of a move.
struct Side {
    counts: Vec<usize>,
    offset: i64,
    strides: Vec<i64>,
}

impl Side {
    fn to(&self, target: &Side) -> Move {
        Move {
            counts: self.counts.clone(),
            in_offset: self.offset,
            in_strides: self.strides.clone(),
            out_offset: target.offset,
            out_strides: target.strides.clone(),
        }
    }
}

/// For every block offset the elements that the batched and the spatial tensor share.
fn block_moves(
    batched: &[usize],
    spatial: &[usize],
    block: &[usize],
    margin: &[[usize; 2]],
) -> Vec<(Side, Side)> {
    let (batched_strides, spatial_strides) = (strides(batched), strides(spatial));
    let batch = spatial[0];
    let offsets: usize = block.iter().product();
    let mut moves = Vec::new();
    for index in 0..offsets {
        let mut rest = index;
        let mut inside = Side {
            counts: batched.to_vec(),
            offset: (index * batch) as i64 * batched_strides[0],
            strides: batched_strides.clone(),
        };
        inside.counts[0] = batch;
        let mut outside = Side { counts: vec![], offset: 0, strides: spatial_strides.clone() };
        for k in (0..block.len()).rev() {
            let (axis, shift) = (k + 1, rest % block[k]);
            rest /= block[k];
            // Element i of the batched axis is element i * block + shift - margin of the spatial one.
            let first = margin[k][0].saturating_sub(shift).div_ceil(block[k]);
            let end =
                (spatial[axis] + margin[k][0]).saturating_sub(shift).div_ceil(block[k]).min(batched[axis]);
            inside.counts[axis] = end.saturating_sub(first);
            inside.offset += first as i64 * batched_strides[axis];
            let start = (first * block[k] + shift) as i64 - margin[k][0] as i64;
            outside.offset += start * spatial_strides[axis];
            outside.strides[axis] *= block[k] as i64;
        }
        if !inside.counts.contains(&0) {
            outside.counts.clone_from(&inside.counts);
            moves.push((inside, outside));
        }
    }
    moves
}

pub(super) fn depth_to_space(cx: &mut Lowering<'_>, node: &Node, block: usize) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let (deep, wide) = (cx.value(from).shape.clone(), cx.value(to).shape.clone());
    let (deep, wide) = depth_sides(&deep, &wide, block)?;
    moved(cx, from, to, &deep.to(&wide))
}

pub(super) fn space_to_depth(cx: &mut Lowering<'_>, node: &Node, block: usize) -> Lowered {
    let (from, to) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let (wide, deep) = (cx.value(from).shape.clone(), cx.value(to).shape.clone());
    let (deep, wide) = depth_sides(&deep, &wide, block)?;
    moved(cx, from, to, &wide.to(&deep))
}

/// The axes (batch, row, column, block row, block column, channel) of both tensors.
fn depth_sides(deep: &[usize], wide: &[usize], block: usize) -> Result<(Side, Side), Unsupported> {
    let (&[batch, rows, columns, _], &[_, _, _, channels]) = (deep, wide) else {
        return unsupported("needs tensors of four axes");
    };
    let (d, w) = (strides(deep), strides(wide));
    let (step, channel) = (block as i64, channels as i64);
    let counts = vec![batch, rows, columns, block, block, channels];
    let deep = Side {
        counts: counts.clone(),
        offset: 0,
        strides: vec![d[0], d[1], d[2], step * channel, channel, 1],
    };
    let wide = Side { counts, offset: 0, strides: vec![w[0], w[1] * step, w[2] * step, w[1], w[2], 1] };
    Ok((deep, wide))
}

pub(super) fn read_variable(cx: &mut Lowering<'_>, node: &Node, state: StateId) -> Lowered {
    let to = cx.output(node, 0)?;
    let tensor = cx.state(state);
    let (elements, expected) = (cx.value(to).elements(), &cx.graph.states[state]);
    if elements != expected.shape.iter().product::<usize>() || cx.value(to).dtype != expected.dtype {
        return unsupported("the variable is read with another shape or type than it is assigned with");
    }
    let first_write = cx
        .graph
        .nodes
        .iter()
        .position(|node| matches!(node.op, Op::AssignVariable(written) if written == state));
    if first_write.is_none_or(|write| cx.position() < write && last_use(cx, to) <= write) {
        cx.make_view(to, tensor, 0);
        return Ok(());
    }
    let output = cx.tensor(to);
    emit(cx, tensor, output, &Move::block(&[elements], &[elements], &[elements]))
}

pub(super) fn assign_variable(cx: &mut Lowering<'_>, node: &Node, state: StateId) -> Lowered {
    let from = cx.input(node, 0)?;
    let (input, tensor) = (cx.tensor(from), cx.state(state));
    let elements = cx.value(from).elements();
    if cx.program.root(input).0 == tensor {
        return unsupported("a variable is assigned from itself");
    }
    emit(cx, input, tensor, &Move::block(&[elements], &[elements], &[elements]))
}
