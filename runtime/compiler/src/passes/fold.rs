//! Computes nodes whose operands are all constant, with the runtime itself, so that folding can never differ from
//! running.

use dunlin_artifact::{Artifact, Manifest};
use dunlin_runtime::Session;

use crate::assemble::Bounds;
use crate::graph::{Graph, Node, Op};
use crate::{assemble, lower};

/// Constants of up to this many bytes are computed at compile time; larger ones would only blow the file up.
const MAX_RESULT: usize = 1 << 22;

pub(super) fn constants(graph: &mut Graph, bounds: &Bounds) {
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let constant = !node.inputs.is_empty()
            && node.inputs.iter().flatten().all(|&id| graph.values[id].data.is_some())
            && node.outputs.iter().all(|&id| !graph.is_output(id) && graph.values[id].bytes() <= MAX_RESULT);
        let pure =
            !matches!(node.op, Op::AssignVariable(_) | Op::Svdf { .. } | Op::Lstm { .. } | Op::Signal(_));
        if !constant || !pure {
            continue;
        }
        // An operator that cannot be lowered is reported later, with all there is to say about it.
        if let Some(results) = evaluate(graph, node, bounds) {
            let outputs = node.outputs.clone();
            for (id, bytes) in outputs.into_iter().zip(results) {
                graph.values[id].data = Some(bytes.into());
            }
        }
    }
    let values = &graph.values;
    graph
        .nodes
        .retain(|node| node.outputs.is_empty() || node.outputs.iter().any(|&id| values[id].data.is_none()));
}

/// Runs one node; the bytes of its results.
fn evaluate(graph: &Graph, node: &Node, bounds: &Bounds) -> Option<Vec<Vec<u8>>> {
    let alone = Graph {
        values: graph.values.clone(),
        nodes: vec![node.clone()],
        inputs: vec![],
        outputs: node.outputs.clone(),
        states: vec![],
    };
    let mut program = lower::lower(&alone).ok()?;
    let placed = assemble::place(&mut program);
    let manifest = Manifest {
        name: "",
        producer: "",
        target: "",
        source_format: "",
        source_digest: [0; 32],
        macs: 0,
        arena_bound: 0,
        io_names: "",
    };
    let file = assemble::AlignedBytes::new(&assemble::assemble(&program, &placed, manifest, 0, bounds).ok()?);
    let artifact = Artifact::parse(file.as_slice()).ok()?;
    let mut arena = assemble::AlignedBytes::zeroed(artifact.arena_len());
    let mut session: Session<'_, '_> = Session::new(artifact, arena.as_mut_slice()).ok()?;
    session.run().ok()?;
    (0..node.outputs.len()).map(|output| session.output_bytes(output).ok().map(<[u8]>::to_vec)).collect()
}
