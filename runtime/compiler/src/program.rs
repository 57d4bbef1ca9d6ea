//! The program before it is laid out: instructions over tensors that have no address yet.

use std::rc::Rc;

use dunlin_artifact::{DType, Kernel, TensorId};

/// Instructions and the tensors they use. A tensor's index here is its index in the artifact.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) tensors: Vec<ProgramTensor>,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Vec<TensorId>,
    pub(crate) outputs: Vec<TensorId>,
}

/// A tensor of the program.
#[derive(Clone, Debug)]
pub(crate) struct ProgramTensor {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Scale and zero point, for whoever reads an input or output; (0, 0) when not quantized.
    pub(crate) quant: (f32, i32),
    pub(crate) storage: Storage,
}

/// Where a tensor lives.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// In the file.
    Constant(Rc<[u8]>),
    /// In the arena while it is needed.
    Temporary,
    /// A part of another tensor, which begins `offset` bytes into it.
    View { of: TensorId, offset: usize },
    /// In the arena from run to run, starting from these bytes (zeros if `None`).
    State(Option<Rc<[u8]>>),
}

/// An instruction with what the planner must know of it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kernel: Kernel,
    pub(crate) body: Vec<u8>,
    pub(crate) reads: Vec<TensorId>,
    pub(crate) writes: Vec<TensorId>,
    /// The kernel may write its output over this input.
    pub(crate) in_place: Option<(TensorId, TensorId)>,
    /// Multiply-accumulates.
    pub(crate) macs: u64,
    /// The node that this step belongs to, by position in the graph.
    pub(crate) node: usize,
}

impl ProgramTensor {
    pub(crate) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

impl Program {
    /// The tensor in whose memory `id` lies, and the offset in it.
    pub(crate) fn root(&self, id: TensorId) -> (TensorId, usize) {
        let (mut root, mut total) = (id, 0);
        while let Storage::View { of, offset } = self.tensors[usize::from(root)].storage {
            root = of;
            total += offset;
        }
        (root, total)
    }
}
