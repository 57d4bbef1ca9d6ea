//! Integer layers with weights: convolutions and fully connected layers.
//!
//! Zero points go into the biases, multipliers into tables beside the weights; an accumulator is then a plain sum
//! of products.

use dunlin_artifact::{Kernel, TensorId, op};
use dunlin_kernels::conv::fold_bias;

use super::{Lowering, window};
use crate::error::{Unsupported, unsupported};
use crate::graph::{Activation, DType, Node, Value, ValueId, Window2d};
use crate::quantize::{activation_range, check_scale, factor, quantize_multiplier};

type Lowered = Result<(), Unsupported>;

pub(super) fn conv2d(
    cx: &mut Lowering<'_>,
    node: &Node,
    steps: &Window2d,
    activation: Activation,
    narrow_sums: bool,
) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let &[out, rows, columns, depth] = layer.weights.shape.as_slice() else {
        return unsupported("the weights must have four axes");
    };
    let channels = innermost(layer.input)?;
    if depth == 0 || !channels.is_multiple_of(depth) || !out.is_multiple_of(channels / depth) {
        return unsupported(format!(
            "{channels} input and {out} output channels cannot be divided into groups of {depth} input channels"
        ));
    }
    let bias = match layer.activations() {
        DType::I8 => Bias::Folded(Filters::Contiguous),
        _ => Bias::Either { narrow_sums },
    };
    let (kernel, params) =
        (layer.kernel(Kernel::Conv2dI8, Kernel::Conv2dI16), layer.parameters(cx, activation, out, bias)?);
    emit_convolution(cx, &layer, kernel, &params, steps, layer.output.elements() * rows * columns * depth)
}

pub(super) fn depthwise_conv2d(
    cx: &mut Lowering<'_>,
    node: &Node,
    steps: &Window2d,
    activation: Activation,
) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let &[1, rows, columns, out] = layer.weights.shape.as_slice() else {
        return unsupported("the weights must have four axes, the first of them 1");
    };
    let channels = innermost(layer.input)?;
    if channels == 0 || !out.is_multiple_of(channels) {
        return unsupported(format!("{out} output channels are not a multiple of {channels} input channels"));
    }
    let bias = match layer.activations() {
        DType::I8 => Bias::Folded(Filters::Interleaved),
        _ => Bias::Wide(&[DType::I64]),
    };
    let (kernel, params) = (
        layer.kernel(Kernel::DepthwiseI8, Kernel::DepthwiseI16),
        layer.parameters(cx, activation, out, bias)?,
    );
    emit_convolution(cx, &layer, kernel, &params, steps, layer.output.elements() * rows * columns)
}

pub(super) fn transpose_conv2d(
    cx: &mut Lowering<'_>,
    node: &Node,
    steps: &Window2d,
    activation: Activation,
) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let &[out, rows, columns, depth] = layer.weights.shape.as_slice() else {
        return unsupported("the weights must have four axes");
    };
    if innermost(layer.input)? != depth {
        return unsupported(format!("the weights are for {depth} input channels"));
    }
    let bias = match layer.activations() {
        DType::I8 => Bias::Plain,
        _ => Bias::Wide(&[DType::I64, DType::I16]),
    };
    let (kernel, params) = (
        layer.kernel(Kernel::TransposeConvI8, Kernel::TransposeConvI16),
        layer.parameters(cx, activation, out, bias)?,
    );
    let macs = layer.input.elements() * rows * columns * out;
    emit_convolution(cx, &layer, kernel, &params, steps, macs)
}

pub(super) fn fully_connected(
    cx: &mut Lowering<'_>,
    node: &Node,
    activation: Activation,
    narrow_sums: bool,
) -> Lowered {
    let layer = Layer::of(cx, node)?;
    let &[out, depth] = layer.weights.shape.as_slice() else {
        return unsupported("the weights must have two axes");
    };
    let vectors =
        layer.input.elements().checked_div(depth).filter(|vectors| vectors * depth == layer.input.elements());
    if vectors.map(|vectors| vectors * out) != Some(layer.output.elements()) {
        return unsupported(format!("weights of {out} x {depth} do not fit the input and the output"));
    }
    let bias = match layer.activations() {
        DType::I8 => Bias::Folded(Filters::Contiguous),
        _ => Bias::Either { narrow_sums },
    };
    let kernel = layer.kernel(Kernel::FullyConnectedI8, Kernel::FullyConnectedI16);
    let p = layer.parameters(cx, activation, out, bias)?;
    let (input, weights, output) =
        (cx.tensor(layer.ids[0]), cx.tensor(layer.ids[1]), cx.tensor(layer.ids[2]));
    let params = op::FullyConnectedInt {
        input,
        weights,
        bias: p.bias,
        output,
        scales: p.scales,
        weights_zero_point: p.weights_zero_point,
        output_zero_point: p.output_zero_point,
        min: p.range.0,
        max: p.range.1,
    };
    cx.emit(kernel, &params, &[input], &[output]).macs(layer.output.elements() * depth);
    Ok(())
}

fn emit_convolution(
    cx: &mut Lowering<'_>,
    layer: &Layer<'_>,
    kernel: Kernel,
    p: &Parameters,
    steps: &Window2d,
    macs: usize,
) -> Lowered {
    let window = window::window(steps)?;
    let (input, weights, output) =
        (cx.tensor(layer.ids[0]), cx.tensor(layer.ids[1]), cx.tensor(layer.ids[2]));
    let params = op::ConvInt {
        input,
        weights,
        bias: p.bias,
        output,
        window,
        scales: p.scales,
        input_zero_point: p.input_zero_point,
        weights_zero_point: p.weights_zero_point,
        output_zero_point: p.output_zero_point,
        min: p.range.0,
        max: p.range.1,
    };
    cx.emit(kernel, &params, &[input], &[output]).macs(macs);
    Ok(())
}

/// The values of a layer.
struct Layer<'g> {
    input: &'g Value,
    weights: &'g Value,
    bias: Option<&'g Value>,
    output: &'g Value,
    /// Input, weights, output.
    ids: [ValueId; 3],
}

/// What the instruction of a layer holds besides tensors and geometry.
struct Parameters {
    bias: Option<TensorId>,
    scales: op::Scales,
    input_zero_point: i8,
    weights_zero_point: i8,
    output_zero_point: i8,
    range: (i16, i16),
}

/// How the weights of one output channel lie.
#[derive(Clone, Copy)]
enum Filters {
    /// One behind the other.
    Contiguous,
    /// Those of all channels in turn.
    Interleaved,
}

/// What becomes of the bias.
#[derive(Clone, Copy)]
enum Bias {
    /// int32 with the zero points of input and weights added.
    Folded(Filters),
    /// int32 as it stands.
    Plain,
    /// For int16 activations: int64, or int32 for sums of 32 bits. `narrow_sums` decides where there is no bias.
    Either { narrow_sums: bool },
    /// For int16 activations: int64, made from one of these types.
    Wide(&'static [DType]),
}

impl<'g> Layer<'g> {
    /// Finds the values of an integer layer and checks their types.
    fn of(cx: &Lowering<'g>, node: &Node) -> Result<Self, Unsupported> {
        let ids = [cx.input(node, 0)?, cx.input(node, 1)?, cx.output(node, 0)?];
        let [input, weights, output] = ids.map(|id| cx.value(id));
        let bias = cx.optional_input(node, 2).map(|id| cx.value(id));
        if !matches!(
            (input.dtype, weights.dtype, output.dtype),
            (DType::I8, DType::I8, DType::I8) | (DType::I16, DType::I8, DType::I16)
        ) {
            return unsupported(format!(
                "activations of {} and weights of {} are not supported; int8 or int16 activations with int8 weights are",
                input.dtype, weights.dtype
            ));
        }
        if weights.data.is_none() || bias.is_some_and(|bias| bias.data.is_none()) {
            return unsupported("weights and bias must be constants");
        }
        Ok(Layer { input, weights, bias, output, ids })
    }

    /// int8 or int16.
    fn activations(&self) -> DType {
        self.input.dtype
    }

    fn kernel(&self, int8: Kernel, int16: Kernel) -> Kernel {
        if self.activations() == DType::I8 { int8 } else { int16 }
    }

    /// Computes and checks everything that depends on scales and zero points. `channels` is the number of outputs.
    fn parameters(
        &self,
        cx: &mut Lowering<'_>,
        activation: Activation,
        channels: usize,
        bias: Bias,
    ) -> Result<Parameters, Unsupported> {
        let (input_scale, input_zero_point) = per_tensor(self.input, "input")?;
        let (output_scale, output_zero_point) = per_tensor(self.output, "output")?;
        let weights_zero_point = self.weights_zero_point()?;
        let zero_points = [input_zero_point, weights_zero_point, output_zero_point];
        if self.activations() == DType::I16 && zero_points != [0; 3] {
            return unsupported(format!("int16 activations need zero points of 0, not {zero_points:?}"));
        }
        let narrow = |zero_point: i32| {
            i8::try_from(zero_point)
                .map_err(|_| Unsupported::new(format!("zero point {zero_point} is not an int8")))
        };
        let (min, max) = activation_range(activation, self.output.dtype, output_scale, output_zero_point)?;
        Ok(Parameters {
            scales: self.scales(cx, input_scale, output_scale, channels)?,
            bias: self.bias(cx, channels, bias, input_zero_point, weights_zero_point)?,
            input_zero_point: narrow(input_zero_point)?,
            weights_zero_point: narrow(weights_zero_point)?,
            output_zero_point: narrow(output_zero_point)?,
            range: (min as i16, max as i16),
        })
    }

    /// The zero point that all weights share.
    fn weights_zero_point(&self) -> Result<i32, Unsupported> {
        let zero_points = self.weights.quant.as_ref().map_or(&[][..], |quant| &quant.zero_points);
        let first = zero_points.first().copied().unwrap_or(0);
        if zero_points.iter().any(|&zero_point| zero_point != first) {
            return unsupported("the weights must have the same zero point in all channels");
        }
        // For int8 the reference looks at this zero point in one place only: fully connected, one scale for all weights.
        let one_scale = self.weights.quant.as_ref().is_some_and(|quant| quant.scales.len() == 1);
        let applied = self.weights.was_unsigned || one_scale && self.weights.shape.len() == 2;
        if first != 0 && !applied {
            return unsupported(format!("int8 weights of this kind need a zero point of 0, not {first}"));
        }
        Ok(first as i32)
    }

    /// `input scale * weight scale / output scale`, in double precision; the reference for uint8 multiplies in single
    /// precision first.
    fn scales(
        &self,
        cx: &mut Lowering<'_>,
        input_scale: f32,
        output_scale: f32,
        channels: usize,
    ) -> Result<op::Scales, Unsupported> {
        let scales = self.weights.quant.as_ref().map_or(&[][..], |quant| &quant.scales);
        if scales.len() != 1 && scales.len() != channels {
            return unsupported(format!(
                "{channels} channels need 1 or {channels} weight scales, not {}",
                scales.len()
            ));
        }
        let mut factors = Vec::with_capacity(scales.len());
        for &scale in scales {
            check_scale(scale)?;
            let product = match self.weights.was_unsigned {
                true => f64::from(input_scale * scale),
                false => f64::from(input_scale) * f64::from(scale),
            };
            factors.push(factor(quantize_multiplier(product / f64::from(output_scale))?));
        }
        if let Some(&first) = factors.first()
            && factors.iter().all(|&factor| factor == first)
        {
            return Ok(op::Scales::Shared(first));
        }
        let multipliers: Vec<i32> = factors.iter().map(|factor| factor.multiplier).collect();
        let shifts: Vec<i8> = factors.iter().map(|factor| factor.shift).collect();
        Ok(op::Scales::PerChannel {
            multipliers: cx.constant(DType::I32, &[channels], &multipliers),
            shifts: cx.constant(DType::I8, &[channels], &shifts),
        })
    }

    /// The bias as the kernel takes it; `None` for zeros.
    fn bias(
        &self,
        cx: &mut Lowering<'_>,
        channels: usize,
        kind: Bias,
        input_zero_point: i32,
        weights_zero_point: i32,
    ) -> Result<Option<TensorId>, Unsupported> {
        if let Some(bias) = self.bias
            && bias.elements() != channels
        {
            return unsupported(format!("{channels} channels need as many biases, not {}", bias.elements()));
        }
        match kind {
            Bias::Folded(filters) => {
                let weights = constant::<i8>(self.weights)?;
                let filter_len = weights.len() / channels.max(1);
                let mut biases = self.bias_i32(channels)?;
                for (channel, bias) in biases.iter_mut().enumerate() {
                    let (start, step) = match filters {
                        Filters::Contiguous => (channel * filter_len, 1),
                        Filters::Interleaved => (channel, channels),
                    };
                    let filter = weights.iter().skip(start).step_by(step).take(filter_len);
                    *bias = fold_bias(*bias, filter.copied(), input_zero_point, weights_zero_point);
                }
                Ok(unless_zero(cx, DType::I32, &biases))
            }
            Bias::Plain => Ok(unless_zero(cx, DType::I32, &self.bias_i32(channels)?)),
            Bias::Either { narrow_sums } => match self.bias {
                // The type of the bias tells the kernel how wide to sum, so zeros must be there, too.
                None if narrow_sums => Ok(Some(cx.constant(DType::I32, &[channels], &vec![0i32; channels]))),
                Some(bias) if bias.dtype == DType::I32 => {
                    Ok(Some(cx.constant(DType::I32, &[channels], &constant::<i32>(bias)?)))
                }
                _ => Ok(unless_zero(cx, DType::I64, &self.bias_i64(&[DType::I64, DType::I32], channels)?)),
            },
            Bias::Wide(dtypes) => Ok(unless_zero(cx, DType::I64, &self.bias_i64(dtypes, channels)?)),
        }
    }

    fn bias_i32(&self, channels: usize) -> Result<Vec<i32>, Unsupported> {
        match self.bias {
            None => Ok(vec![0; channels]),
            Some(bias) if bias.dtype == DType::I32 => constant(bias),
            Some(bias) => unsupported(format!("int8 activations need a bias of int32, not {}", bias.dtype)),
        }
    }

    fn bias_i64(&self, dtypes: &[DType], channels: usize) -> Result<Vec<i64>, Unsupported> {
        match self.bias {
            None => Ok(vec![0; channels]),
            Some(bias) if dtypes.contains(&bias.dtype) => {
                bias.integers().ok_or_else(|| Unsupported::new("the bias must be a constant"))
            }
            Some(bias) => {
                let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
                let names = names.join(" or ");
                unsupported(format!("int16 activations need a bias of {names} here, not {}", bias.dtype))
            }
        }
    }
}

/// A constant unless all its elements are zero.
fn unless_zero<T: bytemuck::NoUninit + Default + PartialEq>(
    cx: &mut Lowering<'_>,
    dtype: DType,
    values: &[T],
) -> Option<TensorId> {
    let zeros = values.iter().all(|value| *value == T::default());
    (!zeros).then(|| cx.constant(dtype, &[values.len()], values))
}

fn constant<T: bytemuck::AnyBitPattern>(value: &Value) -> Result<Vec<T>, Unsupported> {
    value.constant().ok_or_else(|| Unsupported::new(format!("{} must be a constant", value.describe())))
}

fn per_tensor(value: &Value, what: &str) -> Result<(f32, i32), Unsupported> {
    let (scale, zero_point) = value
        .scale_and_zero_point()
        .ok_or_else(|| Unsupported::new(format!("the {what} needs one scale and one zero point")))?;
    check_scale(scale)?;
    Ok((scale, zero_point))
}

fn innermost(value: &Value) -> Result<usize, Unsupported> {
    value.shape.last().copied().ok_or_else(|| Unsupported::new("the input must have four axes"))
}
