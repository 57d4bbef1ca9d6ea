//! Lowering: every node of the graph becomes instructions.
//!
//! One file per family. A lowering function computes all constants (multipliers, tables, folded biases) and
//! refuses what the kernels cannot do with a reason that says what would work.

mod arith;
mod conv;
mod convert;
mod float;
mod lstm;
mod movement;
mod normalize;
mod pool;
mod prelu;
mod reduce;
mod resize;
mod signal;
mod softmax;
mod svdf;
mod unary;
mod window;

use std::collections::HashMap;
use std::rc::Rc;

use dunlin_artifact::{DType, Kernel, MAX_RANK, TensorId, limits, writer};

use crate::CompileError;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Graph, Node, Op, State, Value, ValueId};
use crate::program::{Program, ProgramTensor, Step, Storage};
use crate::resize::Sampling;

/// Turns a graph into a program.
pub(crate) fn lower(graph: &Graph) -> Result<Program, CompileError> {
    let mut cx = Lowering::new(graph);
    for &input in &graph.inputs {
        let tensor = cx.tensor(input);
        cx.program.inputs.push(tensor);
    }
    for (position, node) in graph.nodes.iter().enumerate() {
        cx.position = position;
        check_ranks(graph, node).and_then(|()| lower_node(&mut cx, node)).map_err(|error| {
            CompileError::Unsupported {
                index: node.index,
                operator: node.name.clone(),
                tensors: graph.describe(node),
                reason: error.0,
            }
        })?;
    }
    for &output in &graph.outputs {
        let tensor = cx.output_tensor(output);
        cx.program.outputs.push(tensor);
    }
    if cx.program.tensors.len() > limits::MAX_TENSORS {
        return Err(CompileError::Model(format!(
            "the model needs {} tensors; at most {} are supported",
            cx.program.tensors.len(),
            limits::MAX_TENSORS
        )));
    }
    // Inputs, outputs and states that no operator touches.
    let ranks = cx.program.tensors.iter().map(|tensor| tensor.shape.len());
    if let Some(rank) = ranks.max().filter(|&rank| rank > MAX_RANK) {
        let message = format!("a tensor of the model has {rank} axes; at most {MAX_RANK} are supported");
        return Err(CompileError::Model(message));
    }
    Ok(cx.program)
}

/// Lowers one node.
fn lower_node(cx: &mut Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    match &node.op {
        op if float::takes(cx, node) => float::layer(cx, node, op),
        Op::Binary { op, activation } => arith::binary(cx, node, *op, *activation),
        Op::Reduce { op, axes } => reduce::reduce(cx, node, *op, axes),
        Op::ArgMax { axis } => reduce::arg_min_max(cx, node, *axis, true),
        Op::ArgMin { axis } => reduce::arg_min_max(cx, node, *axis, false),
        Op::Quantize => convert::quantize(cx, node),
        Op::Dequantize => convert::dequantize(cx, node),
        Op::Cast => convert::cast(cx, node),
        Op::ResizeBilinear { align_corners, half_pixel_centers } => resize::bilinear(
            cx,
            node,
            Sampling { align_corners: *align_corners, half_pixel_centers: *half_pixel_centers },
        ),
        Op::ResizeNearest { align_corners, half_pixel_centers } => resize::nearest(
            cx,
            node,
            Sampling { align_corners: *align_corners, half_pixel_centers: *half_pixel_centers },
        ),
        Op::Conv2d { window, activation, narrow_sums } => {
            conv::conv2d(cx, node, window, *activation, *narrow_sums)
        }
        Op::DepthwiseConv2d { window, activation } => conv::depthwise_conv2d(cx, node, window, *activation),
        Op::TransposeConv2d { window, activation } => conv::transpose_conv2d(cx, node, window, *activation),
        Op::FullyConnected { activation, narrow_sums, .. } => {
            conv::fully_connected(cx, node, *activation, *narrow_sums)
        }
        Op::AveragePool2d { window, size, activation } => {
            pool::pool(cx, node, pool::Pool::Average, window, *size, *activation)
        }
        Op::MaxPool2d { window, size, activation } => {
            pool::pool(cx, node, pool::Pool::Maximum, window, *size, *activation)
        }
        Op::Reshape => movement::reshape(cx, node),
        Op::Transpose { perm } => movement::transpose(cx, node, perm),
        Op::Pad { pads } => movement::pad(cx, node, pads),
        Op::MirrorPad { pads, mode } => movement::mirror_pad(cx, node, pads, *mode),
        Op::Concat { axis } => movement::concat(cx, node, *axis),
        Op::Split { axis } => movement::split(cx, node, *axis),
        Op::StridedSlice { begin, strides, .. } => movement::strided_slice(cx, node, begin, strides),
        Op::Pack { axis } => movement::pack(cx, node, *axis),
        Op::Unpack { axis } => movement::unpack(cx, node, *axis),
        Op::Gather { axis, batch_dims } => movement::gather(cx, node, *axis, *batch_dims),
        Op::BroadcastTo => movement::broadcast_to(cx, node),
        Op::BatchToSpace { block, crops } => movement::batch_to_space(cx, node, block, crops),
        Op::SpaceToBatch { block, pads } => movement::space_to_batch(cx, node, block, pads),
        Op::DepthToSpace { block } => movement::depth_to_space(cx, node, *block),
        Op::SpaceToDepth { block } => movement::space_to_depth(cx, node, *block),
        Op::Lstm { time_major, cell_clip, hidden, cell } => {
            lstm::lstm(cx, node, *time_major, *cell_clip, [*hidden, *cell])
        }
        Op::Svdf { rank, activation, state } => svdf::svdf(cx, node, *rank, *activation, *state),
        Op::Signal(op) => signal::signal(cx, node, op),
        Op::ReadVariable(state) => movement::read_variable(cx, node, *state),
        Op::AssignVariable(state) => movement::assign_variable(cx, node, *state),
        Op::Unary(op) => unary::unary(cx, node, *op),
        Op::Prelu => prelu::prelu(cx, node),
        Op::Softmax { beta } => softmax::softmax(cx, node, *beta),
        Op::LogSoftmax => softmax::log_softmax(cx, node),
        Op::L2Normalization => normalize::l2_normalization(cx, node),
    }
}

/// Names of the source operators that can be compiled, for documentation and messages.
pub fn supported_operators() -> &'static [&'static str] {
    crate::import::tflite::OPERATORS
}

fn check_ranks(graph: &Graph, node: &Node) -> Result<(), Unsupported> {
    let all = node.inputs.iter().flatten().chain(&node.outputs);
    match all.map(|&id| graph.values[id].shape.len()).find(|&rank| rank > MAX_RANK) {
        Some(rank) => unsupported(format!("a tensor has {rank} axes; at most {MAX_RANK} are supported")),
        None => Ok(()),
    }
}

/// What a variable without an initial value starts from: real zeros, as TensorFlow Lite Micro has it.
fn zero_points(state: &State) -> Option<Rc<[u8]>> {
    let zero_point = *state.quant.as_ref()?.zero_points.first()?;
    let elements = state.shape.iter().product::<usize>();
    match state.dtype {
        DType::I8 | DType::U8 => Some(vec![zero_point as u8; elements].into()),
        DType::I16 => Some((zero_point as i16).to_le_bytes().repeat(elements).into()),
        _ => None,
    }
}

/// The program under construction.
pub(crate) struct Lowering<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) program: Program,
    tensors: HashMap<ValueId, TensorId>,
    states: Vec<TensorId>,
    /// Position of the node being lowered.
    position: usize,
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut cx = Lowering {
            graph,
            program: Program::default(),
            tensors: HashMap::new(),
            states: Vec::new(),
            position: 0,
        };
        for state in &graph.states {
            let initial = state.initial.clone().or_else(|| zero_points(state));
            let id = cx.add(state.dtype, &state.shape, (0.0, 0), Storage::State(initial));
            cx.states.push(id);
        }
        cx
    }

    /// The position, in the graph, of the node being lowered.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// A value of the graph.
    pub(crate) fn value(&self, id: ValueId) -> &'g Value {
        &self.graph.values[id]
    }

    /// The node's operand `index`, which must be there.
    pub(crate) fn input(&self, node: &Node, index: usize) -> Result<ValueId, Unsupported> {
        node.inputs
            .get(index)
            .copied()
            .flatten()
            .ok_or_else(|| Unsupported::new(format!("operand {index} is missing")))
    }

    /// The node's operand `index`, which may be left out.
    pub(crate) fn optional_input(&self, node: &Node, index: usize) -> Option<ValueId> {
        node.inputs.get(index).copied().flatten()
    }

    /// The node's result `index`.
    pub(crate) fn output(&self, node: &Node, index: usize) -> Result<ValueId, Unsupported> {
        node.outputs.get(index).copied().ok_or_else(|| Unsupported::new(format!("result {index} is missing")))
    }

    /// The tensor of a value: a constant if the value is one, memory in the arena otherwise.
    pub(crate) fn tensor(&mut self, id: ValueId) -> TensorId {
        if let Some(&tensor) = self.tensors.get(&id) {
            return tensor;
        }
        let value = self.value(id);
        let storage = match &value.data {
            Some(data) => Storage::Constant(data.clone()),
            None => Storage::Temporary,
        };
        let tensor =
            self.add(value.dtype, &value.shape, value.scale_and_zero_point().unwrap_or((0.0, 0)), storage);
        self.tensors.insert(id, tensor);
        tensor
    }

    /// Makes a value that has no tensor yet a view of another tensor: nothing is copied.
    pub(crate) fn make_view(&mut self, id: ValueId, of: TensorId, offset: usize) {
        let value = self.value(id);
        let quant = value.scale_and_zero_point().unwrap_or((0.0, 0));
        let tensor = self.add(value.dtype, &value.shape, quant, Storage::View { of, offset });
        self.tensors.insert(id, tensor);
    }

    /// A new constant.
    pub(crate) fn constant<T: bytemuck::NoUninit>(
        &mut self,
        dtype: DType,
        shape: &[usize],
        data: &[T],
    ) -> TensorId {
        debug_assert_eq!(dtype.size(), size_of::<T>());
        let bytes: Rc<[u8]> = bytemuck::cast_slice(data).into();
        self.add(dtype, shape, (0.0, 0), Storage::Constant(bytes))
    }

    /// Memory that the current step alone uses; list it among the step's writes.
    pub(crate) fn scratch(&mut self, dtype: DType, elements: usize) -> TensorId {
        self.add(dtype, &[elements], (0.0, 0), Storage::Temporary)
    }

    /// The tensor of a state of the graph.
    pub(crate) fn state(&self, state: usize) -> TensorId {
        self.states[state]
    }

    /// Appends an instruction. `reads` and `writes` name all tensors in the arena that it touches; constants may
    /// be listed or not. A kernel that needs a state to change lists it among the writes.
    pub(crate) fn emit<P: serde::Serialize>(
        &mut self,
        kernel: Kernel,
        params: &P,
        reads: &[TensorId],
        writes: &[TensorId],
    ) -> &mut Step {
        let (kernel, body) = writer::instruction(kernel, params);
        self.program.steps.push(Step {
            kernel,
            body,
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            in_place: None,
            macs: 0,
            node: self.position,
        });
        self.program.steps.last_mut().expect("just pushed")
    }

    fn add(&mut self, dtype: DType, shape: &[usize], quant: (f32, i32), storage: Storage) -> TensorId {
        self.program.tensors.push(ProgramTensor { dtype, shape: shape.to_vec(), quant, storage });
        (self.program.tensors.len() - 1) as TensorId
    }

    /// The tensor of a model output: in the arena, where the caller can read it even if it is a constant or a
    /// state.
    fn output_tensor(&mut self, id: ValueId) -> TensorId {
        let tensor = self.tensor(id);
        let (root, _) = self.program.root(tensor);
        match self.program.tensors[usize::from(root)].storage {
            Storage::Constant(_) | Storage::State(_) => movement::copy_whole(self, tensor),
            _ => tensor,
        }
    }
}

impl Step {
    /// Allows the kernel to write `output` over `input`.
    pub(crate) fn in_place(&mut self, input: TensorId, output: TensorId) -> &mut Self {
        self.in_place = Some((input, output));
        self
    }

    /// States the multiply-accumulates of the step.
    pub(crate) fn macs(&mut self, macs: usize) -> &mut Self {
        self.macs = macs as u64;
        self
    }
}
