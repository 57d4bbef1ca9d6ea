//! Folds a padding with zeros into the convolutions that read it.

use crate::graph::{Graph, Op, Padding2d, ValueId, Window2d};

pub(super) fn fold(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        let Some((source, padded, padding)) = image_padding(graph, index) else { continue };
        let consumers: Vec<usize> = graph.consumers(padded).collect();
        let all_fold = consumers.iter().all(|&consumer| {
            let node = &graph.nodes[consumer];
            node.inputs[1..].iter().all(|&input| input != Some(padded)) && window_of(&node.op).is_some()
        });
        if consumers.is_empty() || !all_fold || graph.is_output(padded) {
            continue;
        }
        for consumer in consumers {
            let node = &mut graph.nodes[consumer];
            node.inputs[0] = Some(source);
            if let Op::Conv2d { window, .. } | Op::DepthwiseConv2d { window, .. } = &mut node.op {
                let own = &mut window.padding;
                own.top += padding.top;
                own.bottom += padding.bottom;
                own.left += padding.left;
                own.right += padding.right;
            }
        }
    }
}

/// Operand, result and amount of a node that pads rows and columns of an image with zeros.
fn image_padding(graph: &Graph, index: usize) -> Option<(ValueId, ValueId, Padding2d)> {
    let node = &graph.nodes[index];
    let Op::Pad { pads } = &node.op else { return None };
    let &[[0, 0], [top, bottom], [left, right], [0, 0]] = pads.as_slice() else { return None };
    let (source, padded) = (node.inputs[0]?, *node.outputs.first()?);
    let (from, to) = (&graph.values[source], &graph.values[padded]);
    let keeps_meaning = from.dtype == to.dtype && from.quant == to.quant;
    let with_zeros = node.inputs.get(1).copied().flatten().is_none();
    (keeps_meaning && with_zeros).then_some((source, padded, Padding2d { top, bottom, left, right }))
}

/// The window of an operator that treats padding as zeros.
fn window_of(op: &Op) -> Option<Window2d> {
    match op {
        Op::Conv2d { window, .. } | Op::DepthwiseConv2d { window, .. } => Some(*window),
        _ => None,
    }
}
