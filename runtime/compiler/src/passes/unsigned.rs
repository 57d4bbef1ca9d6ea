//! Turns uint8 models of the older kind into int8 ones: every value is shifted by -128, and its zero point with
//! it. Affine quantization does not notice; the few operators that round differently for uint8 look at
//! [`crate::graph::Value::was_unsigned`].

use std::rc::Rc;

use crate::graph::{DType, Graph, Node, Op, Value, ValueId};

pub(super) fn shift(graph: &mut Graph) {
    for id in 0..graph.values.len() {
        if !must_shift(graph, id) {
            continue;
        }
        let original = graph.values[id].clone();
        shift_value(&mut graph.values[id]);
        // The outside world keeps its uint8.
        if graph.is_input(id) {
            let outside = graph.add_value(original);
            graph.inputs.iter_mut().filter(|input| **input == id).for_each(|input| *input = outside);
            graph.nodes.insert(0, border(outside, id));
        } else if graph.is_output(id) {
            let outside = graph.add_value(original);
            graph.outputs.iter_mut().filter(|output| **output == id).for_each(|output| *output = outside);
            graph.nodes.push(border(id, outside));
        }
    }
}

/// A uint8 value that only passes between the outside world and operators that change types stays what it is.
fn must_shift(graph: &Graph, id: ValueId) -> bool {
    let value = &graph.values[id];
    if value.dtype != DType::U8 || value.quant.is_none() {
        return false;
    }
    let touches: Vec<&Op> = graph
        .nodes
        .iter()
        .filter(|node| node.outputs.contains(&id) || node.inputs.contains(&Some(id)))
        .map(|node| &node.op)
        .collect();
    let converts = |op: &&Op| matches!(op, Op::Quantize | Op::Dequantize | Op::Cast);
    !touches.iter().all(converts) && !touches.iter().any(|op| matches!(op, Op::Cast))
}

fn shift_value(value: &mut Value) {
    value.dtype = DType::I8;
    value.was_unsigned = true;
    if let Some(quant) = &mut value.quant {
        quant.zero_points.iter_mut().for_each(|zero_point| *zero_point -= 128);
    }
    if let Some(data) = &value.data {
        value.data = Some(data.iter().map(|byte| byte ^ 0x80).collect::<Rc<[u8]>>());
    }
}

/// The change of type between the model and the outside world.
fn border(from: ValueId, to: ValueId) -> Node {
    Node { op: Op::Quantize, inputs: vec![Some(from)], outputs: vec![to], index: 0, name: "QUANTIZE".into() }
}
