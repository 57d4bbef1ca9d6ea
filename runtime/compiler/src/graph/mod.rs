//! The compiler's format-neutral model: values, nodes and states.
//!
//! A graph is in single-assignment form: every value has one producer (a node, the outside world, or the file).
//! Nodes stand in an order in which they can run.

mod op;

use std::rc::Rc;

pub use dunlin_artifact::DType;
pub use op::{Activation, BinaryOp, MirrorMode, Op, Padding2d, ReduceOp, SignalOp, UnaryOp, Window2d};

/// Index of a value in [`Graph::values`].
pub type ValueId = usize;
/// Index of a state in [`Graph::states`].
pub type StateId = usize;

/// A model.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All values.
    pub values: Vec<Value>,
    /// The operators in a runnable order.
    pub nodes: Vec<Node>,
    /// The model's inputs.
    pub inputs: Vec<ValueId>,
    /// The model's outputs.
    pub outputs: Vec<ValueId>,
    /// Variables that live from run to run.
    pub states: Vec<State>,
}

/// A tensor, known or computed.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its name in the source file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost axis first.
    pub shape: Vec<usize>,
    /// How integers stand for reals.
    pub quant: Option<Quant>,
    /// The bytes of a constant, little-endian.
    pub data: Option<Rc<[u8]>>,
    /// The value was uint8 in the source and has been shifted by -128 to int8. A few operators round uint8
    /// models differently.
    pub was_unsigned: bool,
}

/// Affine quantization: `real = scale * (stored - zero_point)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quant {
    /// One scale, or one for every slice along `axis`.
    pub scales: Vec<f32>,
    /// As many zero points.
    pub zero_points: Vec<i64>,
    /// The axis of per-channel quantization.
    pub axis: usize,
}

/// An operator with its operands.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Operands; `None` for one that is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Position in the source file, for messages.
    pub index: usize,
    /// The operator's name in the source file, for messages.
    pub name: String,
}

/// A variable that lives from run to run.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name in the source file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// How integers stand for reals.
    pub quant: Option<Quant>,
    /// The bytes it starts from; zeros when `None`.
    pub initial: Option<Rc<[u8]>>,
}

impl Value {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }

    /// Scale and zero point of a per-tensor quantized value.
    pub fn scale_and_zero_point(&self) -> Option<(f32, i32)> {
        match self.quant.as_ref() {
            Some(Quant { scales, zero_points, .. }) if scales.len() == 1 => {
                Some((scales[0], zero_points.first().copied().unwrap_or(0) as i32))
            }
            _ => None,
        }
    }

    /// A constant's elements as a vector of `T`; `None` for a computed value or another type's size.
    pub fn constant<T: bytemuck::AnyBitPattern>(&self) -> Option<Vec<T>> {
        let data = self.data.as_ref()?;
        (size_of::<T>() == self.dtype.size()).then(|| {
            data.chunks_exact(size_of::<T>()).map(|element| bytemuck::pod_read_unaligned(element)).collect()
        })
    }

    /// A constant of small integers (shape, axes, paddings, …) as `i64`.
    pub fn integers(&self) -> Option<Vec<i64>> {
        match self.dtype {
            DType::I32 => Some(self.constant::<i32>()?.into_iter().map(i64::from).collect()),
            DType::I64 => self.constant::<i64>(),
            DType::I16 => Some(self.constant::<i16>()?.into_iter().map(i64::from).collect()),
            DType::I8 => Some(self.constant::<i8>()?.into_iter().map(i64::from).collect()),
            _ => None,
        }
    }

    /// `int8[1, 49, 10, 1]`, for messages.
    pub fn describe(&self) -> String {
        format!("{}{:?}", self.dtype, self.shape)
    }
}

impl Graph {
    /// Adds a value and returns its index.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        self.values.len() - 1
    }

    /// Whether the value is a model input.
    pub fn is_input(&self, id: ValueId) -> bool {
        self.inputs.contains(&id)
    }

    /// Whether the value is a model output.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
    }

    /// The nodes (by position) that read a value.
    pub fn consumers(&self, id: ValueId) -> impl Iterator<Item = usize> + '_ {
        let reads = move |node: &Node| node.inputs.contains(&Some(id));
        self.nodes.iter().enumerate().filter(move |(_, node)| reads(node)).map(|(index, _)| index)
    }

    /// The node (by position) that computes a value.
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.nodes.iter().position(|node| node.outputs.contains(&id))
    }

    /// Types and shapes of a node's operands and results, for messages.
    pub fn describe(&self, node: &Node) -> String {
        let list = |ids: &mut dyn Iterator<Item = Option<ValueId>>| {
            let text: Vec<_> = ids.map(|id| id.map_or("-".into(), |id| self.values[id].describe())).collect();
            text.join(", ")
        };
        let inputs = list(&mut node.inputs.iter().copied());
        let outputs = list(&mut node.outputs.iter().copied().map(Some));
        format!("{inputs} -> {outputs}")
    }
}
