//! LSTM.

use dunlin_artifact::op;
use dunlin_kernels::fixed::Multiplier;
use dunlin_kernels::lstm::{
    GATES, GateScales, LstmF32, LstmInt, LstmShape, LstmWeights, lstm_f32, lstm_i8, lstm_i16,
};
use dunlin_kernels::unary_i16::SigmoidI16;

use super::factor;
use crate::RunError;
use crate::context::{Context, Plain, cast, cast_mut, decode};

pub(crate) fn lstm_int8(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::LstmInt = decode(body)?;
    let weights = weights(cx, &p.tensors)?;
    let params = int_parameters(&p, shape(cx, &p.tensors)?);
    let ([hidden, cell, output], [input]) = borrow(cx, &p.tensors)?;
    Ok(lstm_i8(&params, &weights, cast(input)?, cast_mut(hidden)?, cast_mut(cell)?, cast_mut(output)?)?)
}

pub(crate) fn lstm_int16(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::LstmInt = decode(body)?;
    let weights = weights(cx, &p.tensors)?;
    let params = int_parameters(&p, shape(cx, &p.tensors)?);
    let ([hidden, cell, output], [input]) = borrow(cx, &p.tensors)?;
    Ok(lstm_i16(&params, &weights, cast(input)?, cast_mut(hidden)?, cast_mut(cell)?, cast_mut(output)?)?)
}

pub(crate) fn lstm_float32(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
    let p: op::LstmF32 = decode(body)?;
    let weights = weights(cx, &p.tensors)?;
    let params = LstmF32 { shape: shape(cx, &p.tensors)?, cell_clip: p.cell_clip };
    let ([hidden, cell, output], [input]) = borrow(cx, &p.tensors)?;
    Ok(lstm_f32(&params, &weights, cast(input)?, cast_mut(hidden)?, cast_mut(cell)?, cast_mut(output)?)?)
}

/// The shapes, from those of input and output; takes the multiply-accumulates from the budget.
fn shape(cx: &mut Context<'_, '_>, p: &op::LstmTensors) -> Result<LstmShape, RunError> {
    let &[first, second, inputs] = cx.tensor(p.input)?.shape() else {
        return Err(RunError::BadTensor(p.input));
    };
    let &[_, _, units] = cx.tensor(p.output)?.shape() else { return Err(RunError::BadTensor(p.output)) };
    let (batch, steps) = if p.time_major { (second, first) } else { (first, second) };
    let [vectors, products] = [(batch, steps), (units, inputs.saturating_add(units))]
        .map(|(a, b)| u64::from(a).saturating_mul(u64::from(b)));
    cx.charge(vectors.saturating_mul(products).saturating_mul(GATES as u64))?;
    let [batch, steps, inputs, units] = [batch, steps, inputs, units].map(|size| size as usize);
    Ok(LstmShape { batch, steps, inputs, units, time_major: p.time_major })
}

fn weights<'m, W: Plain, B: Plain>(
    cx: &Context<'m, '_>,
    p: &op::LstmTensors,
) -> Result<LstmWeights<'m, W, B>, RunError> {
    Ok(LstmWeights {
        input: cx.constant(p.input_weights)?,
        recurrent: cx.constant(p.recurrent_weights)?,
        bias: cx.constant(p.bias)?,
        recurrent_bias: p.recurrent_bias.map_or(Ok(&[][..]), |bias| cx.constant(bias))?,
    })
}

/// Hidden state, cell state, output; input.
#[expect(clippy::type_complexity)]
fn borrow<'c>(
    cx: &'c mut Context<'_, '_>,
    p: &op::LstmTensors,
) -> Result<([&'c mut [u8]; 3], [&'c [u8]; 1]), RunError> {
    cx.borrow([p.hidden, p.cell, p.output], [p.input])
}

fn int_parameters(p: &op::LstmInt, shape: LstmShape) -> LstmInt {
    let mut gates = [GateScales::default(); GATES];
    for (gate, (&input, &recurrent)) in gates.iter_mut().zip(p.input_factors.iter().zip(&p.recurrent_factors))
    {
        let [input, recurrent]: [Multiplier; 2] = [factor(input), factor(recurrent)];
        *gate = GateScales { input, recurrent };
    }
    LstmInt {
        shape,
        gates,
        forget: factor(p.forget),
        update: factor(p.update),
        cell_clip: p.cell_clip,
        cell_tanh: SigmoidI16 { multiplier: p.tanh_multiplier, shift: p.tanh_shift.into() },
        output: factor(p.output),
        hidden_zero_point: p.hidden_zero_point,
    }
}
