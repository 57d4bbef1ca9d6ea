//! Fuses a stand-alone ReLU into the operator before it.
//!
//! Legal only where it changes no bit: input and output must have the same scale and zero point, so that the
//! ReLU is a pure clamp, as the fused activation is.

use crate::graph::{Activation, Graph, Op, UnaryOp};

pub(super) fn fuse(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let clamp = match node.op {
            Op::Unary(UnaryOp::Relu) => Activation::Relu,
            Op::Unary(UnaryOp::Relu6) => Activation::Relu6,
            Op::Unary(UnaryOp::ReluN1To1) => Activation::ReluN1To1,
            _ => continue,
        };
        let (Some(Some(input)), Some(&output)) = (node.inputs.first().copied(), node.outputs.first()) else {
            continue;
        };
        let (from, to) = (&graph.values[input], &graph.values[output]);
        let same = from.dtype == to.dtype && from.quant == to.quant && from.was_unsigned == to.was_unsigned;
        let alone = graph.consumers(input).count() == 1 && !graph.is_output(input);
        let Some(producer) = graph.producer(input).filter(|_| same && alone) else { continue };
        let producer = &mut graph.nodes[producer];
        let Some(fused) = fused_activation(&mut producer.op) else { continue };
        *fused = clamp;
        producer.outputs[0] = output;
        // The ReLU now computes a value that nobody reads.
        let unread = graph.values[input].clone();
        let unread = graph.add_value(unread);
        graph.nodes[index].outputs[0] = unread;
        graph.nodes[index].inputs[0] = Some(output);
    }
}

/// The activation of an operator that has none yet but could have one.
fn fused_activation(op: &mut Op) -> Option<&mut Activation> {
    let activation = match op {
        Op::Conv2d { activation, .. }
        | Op::DepthwiseConv2d { activation, .. }
        | Op::FullyConnected { activation, .. }
        | Op::Binary { activation, .. } => activation,
        _ => return None,
    };
    (*activation == Activation::None).then_some(activation)
}
