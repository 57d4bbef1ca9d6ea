//! What the compiler did, for people and for programs.

use std::collections::BTreeMap;

use dunlin_artifact::Kernel;
use serde::Serialize;

use crate::Options;
use crate::assemble::Placed;
use crate::graph::Graph;
use crate::program::{Program, Storage};

/// The compiler's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub name: String,
    /// The target.
    pub target: String,
    /// Bytes of the source file.
    pub source_bytes: usize,
    /// Bytes of the artifact.
    pub artifact_bytes: usize,
    /// Bytes of constants in the artifact.
    pub constant_bytes: usize,
    /// Bytes of arena.
    pub arena_bytes: usize,
    /// Bytes of arena that hold state between runs.
    pub state_bytes: usize,
    /// The largest sum of bytes that live at one step: no layout can be smaller.
    pub arena_bound_bytes: usize,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Names of the kernels that the program needs.
    pub kernels: Vec<&'static str>,
    /// Operators of the source by name.
    pub source_operators: BTreeMap<String, usize>,
    /// The instructions in order.
    pub operators: Vec<OperatorReport>,
    /// Temporary tensors: where they lie and when they live.
    pub buffers: Vec<BufferReport>,
}

/// One instruction.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorReport {
    /// The source operator.
    pub operator: String,
    /// Its position in the source.
    pub source_index: usize,
    /// The kernel that runs it.
    pub kernel: &'static str,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// One block of the arena.
#[derive(Clone, Debug, Serialize)]
pub struct BufferReport {
    /// Offset in the arena.
    pub offset: usize,
    /// Size in bytes.
    pub bytes: usize,
    /// First instruction at which it is live.
    pub first: usize,
    /// Last instruction at which it is live.
    pub last: usize,
}

/// What the source looked like before the passes.
pub(crate) struct SourceSummary {
    operators: BTreeMap<String, usize>,
}

impl SourceSummary {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut operators = BTreeMap::new();
        for node in &graph.nodes {
            *operators.entry(node.name.clone()).or_default() += 1;
        }
        SourceSummary { operators }
    }
}

pub(crate) fn report(
    source: &SourceSummary,
    graph: &Graph,
    program: &Program,
    placed: &Placed,
    artifact: &[u8],
    source_bytes: usize,
    options: &Options,
) -> Report {
    let mut kernels: Vec<Kernel> = program.steps.iter().map(|step| step.kernel).collect();
    kernels.sort_unstable();
    kernels.dedup();
    let mut buffers: Vec<BufferReport> = placed
        .lifetimes
        .iter()
        .filter(|(id, _)| matches!(program.tensors[usize::from(**id)].storage, Storage::Temporary))
        .map(|(id, &(first, last))| {
            let tensor = &placed.tensors[usize::from(*id)];
            let dunlin_artifact::Place::Arena(offset) = tensor.place else { unreachable!("temporary") };
            BufferReport { offset: offset as usize, bytes: tensor.bytes(), first, last }
        })
        .collect();
    buffers.sort_by_key(|buffer| (buffer.first, buffer.offset));
    Report {
        name: options.name.clone(),
        target: options.target.name().into(),
        source_bytes,
        artifact_bytes: artifact.len(),
        constant_bytes: placed.data.len(),
        arena_bytes: placed.arena_len,
        state_bytes: placed.state_len,
        arena_bound_bytes: placed.arena_bound,
        macs: program.steps.iter().map(|step| step.macs).sum(),
        kernels: kernels.iter().map(|kernel| kernel.name()).collect(),
        source_operators: source.operators.clone(),
        operators: program
            .steps
            .iter()
            .map(|step| OperatorReport {
                operator: graph.nodes.get(step.node).map_or_else(String::new, |node| node.name.clone()),
                source_index: graph.nodes.get(step.node).map_or(0, |node| node.index),
                kernel: step.kernel.name(),
                macs: step.macs,
            })
            .collect(),
        buffers,
    }
}
