//! LSTM.

use dunlin_artifact::{DType, Kernel, TensorId, op};
use dunlin_kernels::conv::fold_bias;
use dunlin_kernels::lstm::GATES;

use super::Lowering;
use crate::error::{Unsupported, unsupported};
use crate::graph::{Node, Quant, StateId, Value};
use crate::quantize::{factor, quantize_multiplier};

/// First operand of each group of four: input, forget, cell, output.
const INPUT_WEIGHTS: usize = 1;
const RECURRENT_WEIGHTS: usize = 5;
const BIASES: usize = 12;

/// Scale of a gate's pre-activation (Q3.12) and of an activated gate (Q0.15).
const GATE_INPUT_SCALE: f32 = 1.0 / 4096.0;
const GATE_OUTPUT_SCALE: f32 = 1.0 / 32768.0;

/// Shapes and tensors that all types share.
struct Common {
    tensors: op::LstmTensors,
    reads: [TensorId; 1],
    writes: [TensorId; 3],
    inputs: usize,
    units: usize,
    macs: usize,
}

pub(super) fn lstm(
    cx: &mut Lowering<'_>,
    node: &Node,
    time_major: bool,
    cell_clip: f32,
    [hidden, cell]: [StateId; 2],
) -> Result<(), Unsupported> {
    refuse_variants(cx, node)?;
    let common = common(cx, node, time_major, [hidden, cell])?;
    let input = cx.value(cx.input(node, 0)?);
    let output = cx.value(cx.output(node, 0)?);
    let weights = cx.value(cx.input(node, INPUT_WEIGHTS)?).dtype;
    let (hidden_type, cell_type) = (cx.graph.states[hidden].dtype, cx.graph.states[cell].dtype);
    if hidden_type != input.dtype || output.dtype != input.dtype {
        return unsupported("input, hidden state and output must have the same type");
    }
    match (input.dtype, weights, cell_type) {
        (DType::F32, DType::F32, DType::F32) => float(cx, node, common, cell_clip),
        (DType::I8 | DType::I16, DType::I8, DType::I16) => {
            quantized(cx, node, common, cell_clip, [hidden, cell])
        }
        _ => unsupported(
            "an LSTM must have float32 activations, weights and cell state, or int8 or int16 activations with int8 \
             weights and an int16 cell state",
        ),
    }
}

/// Refuses what is not a standard LSTM.
fn refuse_variants(cx: &Lowering<'_>, node: &Node) -> Result<(), Unsupported> {
    let given =
        |mut operands: std::ops::Range<usize>| operands.any(|at| cx.optional_input(node, at).is_some());
    if given(9..12) {
        return unsupported("peephole connections are not supported");
    }
    if given(16..18) {
        return unsupported("a projection is not supported");
    }
    if given(20..24) {
        return unsupported("layer normalization inside of an LSTM is not supported");
    }
    if [INPUT_WEIGHTS, RECURRENT_WEIGHTS, BIASES].into_iter().any(|at| cx.optional_input(node, at).is_none())
    {
        return unsupported("an LSTM without input gate (coupled input and forget gate) is not supported");
    }
    Ok(())
}

fn common(
    cx: &mut Lowering<'_>,
    node: &Node,
    time_major: bool,
    [hidden, cell]: [StateId; 2],
) -> Result<Common, Unsupported> {
    let (input, output) = (cx.input(node, 0)?, cx.output(node, 0)?);
    let (&[first, second, inputs], &[out_first, out_second, units]) =
        (&*cx.value(input).shape, &*cx.value(output).shape)
    else {
        return unsupported("input and output must have three axes");
    };
    let batch = if time_major { second } else { first };
    let state_fits = |id: StateId| cx.graph.states[id].shape.iter().product::<usize>() == batch * units;
    if [first, second] != [out_first, out_second] || !state_fits(hidden) || !state_fits(cell) {
        return unsupported("input, output and states do not fit together");
    }
    if [first, second, inputs, units].contains(&0) {
        return unsupported("an axis is empty");
    }
    let tensors = op::LstmTensors {
        input: cx.tensor(input),
        input_weights: 0,
        recurrent_weights: 0,
        bias: 0,
        recurrent_bias: None,
        hidden: cx.state(hidden),
        cell: cx.state(cell),
        output: cx.tensor(output),
        time_major,
    };
    Ok(Common {
        reads: [tensors.input],
        writes: [tensors.hidden, tensors.cell, tensors.output],
        tensors,
        inputs,
        units,
        macs: first * second * GATES * units * (inputs + units),
    })
}

fn float(cx: &mut Lowering<'_>, node: &Node, common: Common, cell_clip: f32) -> Result<(), Unsupported> {
    let Common { mut tensors, inputs, units, .. } = common;
    let input_weights = gates::<f32>(cx, node, INPUT_WEIGHTS, DType::F32, &[units, inputs])?;
    let recurrent_weights = gates::<f32>(cx, node, RECURRENT_WEIGHTS, DType::F32, &[units, units])?;
    let bias = gates::<f32>(cx, node, BIASES, DType::F32, &[units])?;
    tensors.input_weights = interleave(cx, DType::F32, &input_weights, &[units, inputs]);
    tensors.recurrent_weights = interleave(cx, DType::F32, &recurrent_weights, &[units, units]);
    tensors.bias = interleave(cx, DType::F32, &bias, &[units]);
    let params = op::LstmF32 { tensors, cell_clip };
    cx.emit(Kernel::LstmF32, &params, &common.reads, &common.writes).macs(common.macs);
    Ok(())
}

fn quantized(
    cx: &mut Lowering<'_>,
    node: &Node,
    common: Common,
    cell_clip: f32,
    [hidden, cell]: [StateId; 2],
) -> Result<(), Unsupported> {
    let Common { mut tensors, inputs, units, .. } = common;
    let input = cx.value(cx.input(node, 0)?);
    let (input_scale, input_zero_point) = per_tensor(&input.quant, "the input")?;
    let (hidden_scale, hidden_zero_point) = per_tensor(&cx.graph.states[hidden].quant, "the hidden state")?;
    let (cell_scale, _) = per_tensor(&cx.graph.states[cell].quant, "the cell state")?;
    let wide = input.dtype == DType::I16;
    if wide && (input_zero_point, hidden_zero_point) != (0, 0) {
        return unsupported("int16 activations must have the zero point 0");
    }

    let input_weights = gates::<i8>(cx, node, INPUT_WEIGHTS, DType::I8, &[units, inputs])?;
    let recurrent_weights = gates::<i8>(cx, node, RECURRENT_WEIGHTS, DType::I8, &[units, units])?;
    tensors.input_weights = interleave(cx, DType::I8, &input_weights, &[units, inputs]);
    tensors.recurrent_weights = interleave(cx, DType::I8, &recurrent_weights, &[units, units]);
    if wide {
        let bias = gates::<i64>(cx, node, BIASES, DType::I64, &[units])?;
        tensors.bias = interleave(cx, DType::I64, &bias, &[units]);
    } else {
        let bias = gates::<i32>(cx, node, BIASES, DType::I32, &[units])?;
        let bias = fold(&bias, &input_weights, inputs, input_zero_point);
        tensors.bias = interleave(cx, DType::I32, &bias, &[units]);
        if hidden_zero_point != 0 {
            let bias = fold(&[const { Vec::new() }; GATES], &recurrent_weights, units, hidden_zero_point);
            tensors.recurrent_bias = Some(interleave(cx, DType::I32, &bias, &[units]));
        }
    }

    let ratio = |a: f32, b: f32, result: f32| scaled(f64::from(a) * f64::from(b) / f64::from(result));
    let (tanh_multiplier, tanh_shift) = cell_tanh(cell_scale)?;
    let params = op::LstmInt {
        tensors,
        input_factors: gate_factors(cx, node, INPUT_WEIGHTS, input_scale)?,
        recurrent_factors: gate_factors(cx, node, RECURRENT_WEIGHTS, hidden_scale)?,
        forget: ratio(GATE_OUTPUT_SCALE, cell_scale, cell_scale)?,
        update: ratio(GATE_OUTPUT_SCALE, GATE_OUTPUT_SCALE, cell_scale)?,
        output: ratio(GATE_OUTPUT_SCALE, GATE_OUTPUT_SCALE, hidden_scale)?,
        hidden_zero_point,
        // The conversion truncates and saturates.
        cell_clip: (cell_clip > 0.0).then(|| (f64::from(cell_clip) / f64::from(cell_scale)) as i16),
        tanh_multiplier,
        tanh_shift,
    };
    let kernel = if wide { Kernel::LstmI16 } else { Kernel::LstmI8 };
    cx.emit(kernel, &params, &common.reads, &common.writes).macs(common.macs);
    Ok(())
}

/// The constants of the four gates from operand `first` on.
fn gates<T: bytemuck::AnyBitPattern>(
    cx: &Lowering<'_>,
    node: &Node,
    first: usize,
    dtype: DType,
    shape: &[usize],
) -> Result<[Vec<T>; GATES], Unsupported> {
    let mut gates = [const { Vec::new() }; GATES];
    for (gate, values) in gates.iter_mut().enumerate() {
        let value = cx.value(cx.input(node, first + gate)?);
        if value.dtype != dtype || value.shape != shape {
            return unsupported(format!(
                "operand {} must be {dtype}{shape:?}, not {}",
                first + gate,
                value.describe()
            ));
        }
        let constant = value.constant();
        *values = constant
            .ok_or_else(|| Unsupported::new(format!("operand {} must be a constant", first + gate)))?;
    }
    Ok(gates)
}

/// A constant with the rows of all gates of a unit behind one another. `shape` is that of one gate.
fn interleave<T: bytemuck::NoUninit>(
    cx: &mut Lowering<'_>,
    dtype: DType,
    gates: &[Vec<T>; GATES],
    shape: &[usize],
) -> TensorId {
    let (units, row) = (shape[0], shape[1..].iter().product::<usize>());
    let rows = (0..units).flat_map(|unit| gates.iter().map(move |gate| &gate[unit * row..(unit + 1) * row]));
    let values: Vec<T> = rows.flatten().copied().collect();
    let shape: Vec<usize> = [units, GATES].into_iter().chain(shape[1..].iter().copied()).collect();
    cx.constant(dtype, &shape, &values)
}

/// Folds the zero point of what the weights' rows (`row` elements each) multiply into the biases, zeros if empty.
fn fold(
    biases: &[Vec<i32>; GATES],
    weights: &[Vec<i8>; GATES],
    row: usize,
    zero_point: i32,
) -> [Vec<i32>; GATES] {
    std::array::from_fn(|gate| {
        let biases = biases[gate].iter().copied().chain(std::iter::repeat(0));
        let rows = weights[gate].chunks_exact(row).zip(biases);
        rows.map(|(weights, bias)| fold_bias(bias, weights.iter().copied(), zero_point, 0)).collect()
    })
}

/// From the sums over four weights' products to pre-activations. The ratio of scales is computed in double precision.
fn gate_factors(
    cx: &Lowering<'_>,
    node: &Node,
    first: usize,
    scale: f32,
) -> Result<[op::Factor; GATES], Unsupported> {
    let mut factors = [op::Factor::default(); GATES];
    for (gate, factor) in factors.iter_mut().enumerate() {
        let weights: &Value = cx.value(cx.input(node, first + gate)?);
        let (weight_scale, zero_point) = per_tensor(&weights.quant, "a gate's weights")?;
        if zero_point != 0 {
            return unsupported("the weights of an LSTM must have the zero point 0");
        }
        *factor = scaled(f64::from(scale) * f64::from(weight_scale) / f64::from(GATE_INPUT_SCALE))?;
    }
    Ok(factors)
}

/// The factor and the right shift that take the cell state to the argument of tanh, in units of 1/12288: the scale is
/// taken to be a power of two.
fn cell_tanh(scale: f32) -> Result<(i32, u8), Unsupported> {
    let power = (libm::logf(scale) * (1.0 / libm::logf(2.0))).round() as i32;
    match power + 12 {
        left @ 0..=29 => Ok((3 << left, 0)),
        right @ -31..0 => Ok((3, -right as u8)),
        _ => unsupported(format!("a cell state with the scale {scale} is not supported; usual is 2^-11")),
    }
}

fn scaled(ratio: f64) -> Result<op::Factor, Unsupported> {
    Ok(factor(quantize_multiplier(ratio)?))
}

/// Scale and zero point.
pub(super) fn per_tensor(quant: &Option<Quant>, what: &str) -> Result<(f32, i32), Unsupported> {
    match quant {
        Some(Quant { scales, zero_points, .. }) if scales.len() == 1 && scales[0] > 0.0 => {
            Ok((scales[0], zero_points.first().copied().unwrap_or(0) as i32))
        }
        _ => unsupported(format!("{what} must be quantized with one positive scale for the whole tensor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Op, State};
    use crate::lower::lower;

    /// An LSTM with one input and one unit; all weights are 10, all biases 100.
    fn graph() -> Graph {
        let quant = |scale: f32, zero_point| {
            Some(Quant { scales: vec![scale], zero_points: vec![zero_point], axis: 0 })
        };
        let value = |dtype, shape: &[usize], quant, data: Option<Vec<u8>>| Value {
            name: String::new(),
            dtype,
            shape: shape.to_vec(),
            quant,
            data: data.map(Into::into),
            was_unsigned: false,
        };
        let mut graph = Graph::default();
        let mut operands = vec![Some(graph.add_value(value(DType::I8, &[1, 2, 1], quant(0.5, 3), None)))];
        for at in 1..24 {
            let constant = match at {
                1..9 => value(DType::I8, &[1, 1], quant(0.01, 0), Some(vec![10])),
                12..16 => value(DType::I32, &[1], None, Some(100i32.to_le_bytes().to_vec())),
                _ => {
                    operands.push(None);
                    continue;
                }
            };
            operands.push(Some(graph.add_value(constant)));
        }
        let output = graph.add_value(value(DType::I8, &[1, 2, 1], quant(1.0 / 128.0, -5), None));
        let state = |dtype, scale, zero_point| State {
            name: String::new(),
            dtype,
            shape: vec![1, 1],
            quant: quant(scale, zero_point),
            initial: None,
        };
        graph.states = vec![state(DType::I8, 1.0 / 128.0, -5), state(DType::I16, 1.0 / 2048.0, 0)];
        graph.inputs = vec![0];
        graph.outputs = vec![output];
        graph.nodes = vec![Node {
            op: Op::Lstm { time_major: false, cell_clip: 0.0, hidden: 0, cell: 1 },
            inputs: operands,
            outputs: vec![output],
            index: 0,
            name: "UNIDIRECTIONAL_SEQUENCE_LSTM".into(),
        }];
        graph
    }

    fn refusal(change: impl Fn(&mut Graph)) -> String {
        let mut graph = graph();
        change(&mut graph);
        lower(&graph).expect_err("should be refused").to_string()
    }

    #[test]
    fn zero_points_are_folded_into_the_biases() {
        let program = lower(&graph()).unwrap();
        let constants: Vec<&[u8]> = program
            .tensors
            .iter()
            .filter_map(|tensor| match &tensor.storage {
                crate::program::Storage::Constant(bytes) if tensor.dtype == DType::I32 => Some(&bytes[..]),
                _ => None,
            })
            .collect();
        let four = |bias: i32| bias.to_le_bytes().repeat(GATES);
        assert_eq!(constants, [four(100 - 3 * 10), four(5 * 10)]);
        assert_eq!(program.steps[0].macs, 2 * 4 * 2);
    }

    #[test]
    fn refuses_variants_with_a_reason() {
        assert!(refusal(|g| g.nodes[0].inputs[9] = Some(1)).contains("peephole"));
        assert!(refusal(|g| g.nodes[0].inputs[16] = Some(1)).contains("projection"));
        assert!(refusal(|g| g.nodes[0].inputs[20] = Some(1)).contains("layer normalization"));
        assert!(refusal(|g| g.nodes[0].inputs[1] = None).contains("without input gate"));
        assert!(refusal(|g| g.states[1].dtype = DType::I8).contains("int16 cell state"));
        assert!(refusal(|g| g.states[0].dtype = DType::I16).contains("same type"));
        assert!(refusal(|g| g.values[1].data = None).contains("operand 1 must be a constant"));
        assert!(refusal(|g| g.values[1].shape = vec![1, 2]).contains("int8[1, 1], not int8[1, 2]"));
        assert!(
            refusal(|g| g.values[1].quant.as_mut().unwrap().scales.push(1.0)).contains("one positive scale")
        );
        assert!(refusal(|g| g.values[1].quant.as_mut().unwrap().zero_points[0] = 1).contains("zero point 0"));
        assert!(refusal(|g| g.states[1].shape = vec![2]).contains("do not fit together"));
        assert!(refusal(|g| g.states[1].quant.as_mut().unwrap().scales[0] = 1e20).contains("scale"));
    }

    #[test]
    fn the_cell_state_is_read_as_a_power_of_two() {
        assert_eq!(cell_tanh(1.0 / 4096.0).unwrap(), (3, 0));
        assert_eq!(cell_tanh(1.0 / 2048.0).unwrap(), (6, 0));
        assert_eq!(cell_tanh(1.0 / 2000.0).unwrap(), (6, 0));
        assert_eq!(cell_tanh(1.0 / 32768.0).unwrap(), (3, 3));
        assert!(cell_tanh(f32::MIN_POSITIVE).is_err());
        assert!(cell_tanh(f32::MAX).is_err());
    }

    #[test]
    fn rows_of_a_unit_follow_one_another() {
        let empty = Graph::default();
        let mut cx = Lowering::new(&empty);
        let gates = [vec![1i8, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10, 11, 12], vec![13, 14, 15, 16]];
        let id = interleave(&mut cx, DType::I8, &gates, &[2, 2]);
        let tensor = &cx.program.tensors[usize::from(id)];
        assert_eq!(tensor.shape, [2, 4, 2]);
        let crate::program::Storage::Constant(bytes) = &tensor.storage else { panic!("not a constant") };
        assert_eq!(bytes[..], [1, 2, 5, 6, 9, 10, 13, 14, 3, 4, 7, 8, 11, 12, 15, 16]);
    }
}
