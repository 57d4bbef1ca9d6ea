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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Activation, Node, Padding2d, Value, Window2d};

    fn value(name: &str, dtype: DType, shape: &[usize], data: Option<&[u8]>) -> Value {
        let data = data.map(Rc::from);
        Value { name: name.into(), dtype, shape: shape.to_vec(), quant: None, data, was_unsigned: false }
    }

    fn node(op: Op, inputs: &[ValueId], output: ValueId) -> Node {
        let inputs = inputs.iter().copied().map(Some).collect();
        Node { op, inputs, outputs: vec![output], index: 0, name: String::new() }
    }

    #[test]
    fn weights_stay_halves_and_biases_widen() {
        let mut graph = Graph::default();
        // 1.5 and -2 in half precision.
        let halves: &[u8] = &[0x00, 0x3E, 0x00, 0xC0];
        let input = graph.add_value(value("input", DType::F32, &[1, 1], None));
        let weights = graph.add_value(value("weights", DType::F16, &[2, 1], Some(halves)));
        let wide_weights = graph.add_value(value("wide weights", DType::F32, &[2, 1], None));
        let bias = graph.add_value(value("bias", DType::F16, &[2], Some(halves)));
        let wide_bias = graph.add_value(value("wide bias", DType::F32, &[2], None));
        let output = graph.add_value(value("output", DType::F32, &[1, 2], None));
        let layer =
            Op::FullyConnected { activation: Activation::None, asymmetric_inputs: false, narrow_sums: false };
        graph.nodes = vec![
            node(Op::Dequantize, &[weights], wide_weights),
            node(Op::Dequantize, &[bias], wide_bias),
            node(layer, &[input, wide_weights, wide_bias], output),
        ];
        (graph.inputs, graph.outputs) = (vec![input], vec![output]);

        widen(&mut graph);

        let [layer] = graph.nodes.as_slice() else { panic!("{:?}", graph.nodes) };
        assert_eq!(layer.inputs, [Some(input), Some(weights), Some(wide_bias)]);
        assert_eq!(graph.values[wide_bias].constant::<f32>(), Some(vec![1.5, -2.0]));
    }

    #[test]
    fn weights_that_others_read_too_are_there_in_both_widths() {
        let mut graph = Graph::default();
        let input = graph.add_value(value("input", DType::F32, &[1, 1, 1, 1], None));
        let halves = graph.add_value(value("halves", DType::F16, &[1, 1, 1, 1], Some(&[0x00, 0x3E])));
        let wide = graph.add_value(value("wide", DType::F32, &[1, 1, 1, 1], None));
        let a = graph.add_value(value("a", DType::F32, &[1, 1, 1, 1], None));
        let b = graph.add_value(value("b", DType::F32, &[1, 1, 1, 1], None));
        let window = Window2d { stride: [1, 1], dilation: [1, 1], padding: Padding2d::default() };
        let layer = Op::DepthwiseConv2d { window, activation: Activation::None };
        graph.nodes = vec![
            node(Op::Dequantize, &[halves], wide),
            node(layer, &[input, wide], a),
            node(Op::Prelu, &[a, wide], b),
        ];
        (graph.inputs, graph.outputs) = (vec![input], vec![b]);

        widen(&mut graph);

        assert_eq!(graph.nodes.len(), 2);
        assert_eq!(graph.nodes[0].inputs[1], Some(halves));
        assert_eq!(graph.nodes[1].inputs[1], Some(wide));
        assert_eq!(graph.values[wide].constant::<f32>(), Some(vec![1.5]));
    }
}
