//! Removes nodes whose results nobody uses.

use crate::graph::{Graph, Op};

pub(super) fn remove(graph: &mut Graph) {
    let mut used: Vec<bool> = vec![false; graph.values.len()];
    graph.outputs.iter().for_each(|&id| used[id] = true);
    let mut keep = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        // Whatever changes a state must run even if its result is not looked at.
        let stateful =
            matches!(node.op, Op::AssignVariable(_) | Op::Svdf { .. } | Op::Lstm { .. } | Op::Signal(_));
        if stateful || node.outputs.iter().any(|&id| used[id]) {
            keep[index] = true;
            node.inputs.iter().flatten().for_each(|&id| used[id] = true);
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
}
