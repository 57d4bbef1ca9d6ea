//! Half-precision models: constants that a `Dequantize` widens to float32.
//!
//! Weights stay halves in the file, because the kernels of layers with weights read them so; all other constants
//! (biases, slopes, addends) become float32.

use std::rc::Rc;

use half::f16;

use crate::graph::{DType, Graph, Op, ValueId};

pub(super) fn widen(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        let Some((halves, widened)) = widening(graph, index) else { continue };
        let Some(bits) = graph.values[halves].constant::<u16>() else { continue };
        for consumer in graph.consumers(widened).collect::<Vec<_>>() {
            let node = &mut graph.nodes[consumer];
            let reads_halves = matches!(
                node.op,
                Op::Conv2d { .. }
                    | Op::DepthwiseConv2d { .. }
                    | Op::TransposeConv2d { .. }
                    | Op::FullyConnected { .. }
            );
            if reads_halves && node.inputs.get(1) == Some(&Some(widened)) {
                node.inputs[1] = Some(halves);
            }
        }
        let bytes: Rc<[u8]> =
            bits.iter().flat_map(|&bits| f16::from_bits(bits).to_f32().to_le_bytes()).collect();
        graph.values[widened].data = Some(bytes);
    }
    // What they computed are constants now.
    let values = &graph.values;
    graph.nodes.retain(|node| {
        !matches!(node.op, Op::Dequantize) || node.outputs.iter().any(|&id| values[id].data.is_none())
    });
}

/// Operand and result of a node that widens a constant.
fn widening(graph: &Graph, index: usize) -> Option<(ValueId, ValueId)> {
    let node = &graph.nodes[index];
    let (from, to) = ((*node.inputs.first()?)?, *node.outputs.first()?);
    let (halves, widened) = (&graph.values[from], &graph.values[to]);
    let widens = node.op == Op::Dequantize
        && halves.dtype == DType::F16
        && halves.data.is_some()
        && widened.dtype == DType::F32
        && widened.shape == halves.shape;
    widens.then_some((from, to))
}
