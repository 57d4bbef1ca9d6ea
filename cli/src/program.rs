//! An artifact's program, explained: instructions, their tensors, their multiply-accumulates.

use std::collections::BTreeMap;

use dunlin_artifact::op::{self, Operands, operands};
use dunlin_artifact::{Artifact, Instruction, Kernel, Place, TensorId};
use serde::Serialize;

use crate::model::kernel_name;

/// One instruction.
#[derive(Debug, Serialize)]
pub(crate) struct InstructionReport {
    pub(crate) index: usize,
    pub(crate) kernel: String,
    /// Its result, `int8[1, 25, 5, 64]`.
    pub(crate) output: String,
    pub(crate) macs: u64,
    /// Tensors read and written, by index; `null` for a kernel that this version does not know.
    #[serde(flatten)]
    pub(crate) operands: Option<OperandsReport>,
}

/// The tensors of an instruction.
#[derive(Debug, Serialize)]
pub(crate) struct OperandsReport {
    pub(crate) reads: Vec<TensorId>,
    pub(crate) writes: Vec<TensorId>,
}

/// All instructions of one kernel together.
#[derive(Debug, Default, Serialize)]
pub(crate) struct KernelReport {
    pub(crate) kernel: String,
    pub(crate) instructions: usize,
    pub(crate) macs: u64,
}

/// The instructions in order.
pub(crate) fn instructions(artifact: &Artifact<'_>) -> Vec<InstructionReport> {
    let explain = |(index, instruction): (usize, Instruction<'_>)| {
        let operands = operands(&instruction);
        let macs = operands.as_ref().and_then(|operands| macs(artifact, &instruction, operands));
        let result = operands.as_ref().and_then(|operands| artifact.tensor(*operands.writes.first()?));
        InstructionReport {
            index,
            kernel: kernel_name(instruction.kernel),
            output: result.map_or_else(String::new, |tensor| format!("{}{:?}", tensor.dtype, tensor.shape())),
            macs: macs.unwrap_or(0),
            operands: operands.map(|Operands { reads, writes }| OperandsReport { reads, writes }),
        }
    };
    artifact.program().enumerate().map(explain).collect()
}

/// Instructions and work by kernel, in the order of the names.
pub(crate) fn by_kernel(instructions: &[InstructionReport]) -> Vec<KernelReport> {
    let mut kernels: BTreeMap<&str, KernelReport> = BTreeMap::new();
    for instruction in instructions {
        let kernel = kernels.entry(&instruction.kernel).or_default();
        kernel.kernel.clone_from(&instruction.kernel);
        kernel.instructions += 1;
        kernel.macs += instruction.macs;
    }
    kernels.into_values().collect()
}

/// Multiply-accumulates of an instruction with weights, from the shapes of its tensors.
fn macs(artifact: &Artifact<'_>, instruction: &Instruction<'_>, operands: &Operands) -> Option<u64> {
    let tensor = |list: &[TensorId], at: usize| artifact.tensor(*list.get(at)?);
    let elements = |tensor: dunlin_artifact::Tensor| tensor.elements() as u64;
    let (input, output) = (tensor(&operands.reads, 0)?, tensor(&operands.writes, 0)?);
    let weights = tensor(&operands.reads, 1);
    let axis = |axis: usize| weights.and_then(|weights| weights.shape().get(axis).copied()).map(u64::from);
    let last_axis = weights.and_then(|weights| weights.shape().last().copied()).map(u64::from);
    // Weights per element of `count` channels.
    let per = |count: Option<u64>| elements(weights?).checked_div(count?);
    match Kernel::from_code(instruction.kernel)? {
        Kernel::Conv2dI8 | Kernel::Conv2dI16 | Kernel::Conv2dF32 | Kernel::Conv2dHybrid => {
            elements(output).checked_mul(per(axis(0))?)
        }
        Kernel::DepthwiseI8 | Kernel::DepthwiseI16 | Kernel::DepthwiseF32 | Kernel::DepthwiseHybrid => {
            elements(output).checked_mul(per(axis(3))?)
        }
        Kernel::FullyConnectedI8
        | Kernel::FullyConnectedI16
        | Kernel::FullyConnectedF32
        | Kernel::FullyConnectedHybrid => elements(output).checked_mul(axis(1)?),
        Kernel::TransposeConvI8 | Kernel::TransposeConvI16 | Kernel::TransposeConvF32 => {
            elements(input).checked_mul(per(axis(3))?)
        }
        Kernel::LstmI8 | Kernel::LstmI16 | Kernel::LstmF32 => {
            // For every step all weights of the input and all of the recurrence.
            let recurrent = elements(tensor(&operands.reads, 2)?);
            elements(input).checked_div(last_axis?)?.checked_mul(elements(weights?) + recurrent)
        }
        Kernel::SvdfI8 | Kernel::SvdfF32 => {
            let time = elements(tensor(&operands.reads, 2)?);
            elements(input).checked_div(last_axis?)?.checked_mul(elements(weights?) + time)
        }
        // Real and imaginary part of every bin; a weight and what it leaves for the next channel.
        Kernel::SignalEnergy => {
            let body: op::SignalEnergy = postcard::from_bytes(instruction.body).ok()?;
            Some(2 * u64::from(body.end.checked_sub(body.start)?))
        }
        Kernel::SignalFilterBank => elements(weights?).checked_mul(2),
        _ => None,
    }
}

/// Where a tensor lies.
pub(crate) fn arena_range(artifact: &Artifact<'_>, id: TensorId) -> Option<(usize, usize)> {
    let tensor = artifact.tensor(id)?;
    match tensor.place {
        Place::Arena(offset) => Some((offset as usize, offset as usize + tensor.bytes())),
        Place::Data(_) => None,
    }
}
