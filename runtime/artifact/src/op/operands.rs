//! Which tensors an instruction reads and writes, for tools that explain a program. The engine does not need it:
//! every operator knows its own.

use std::vec::Vec;

use crate::{Instruction, Kernel, TensorId, op};

/// The tensors that an instruction touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operands {
    /// Tensors that it reads, the main operand first. State that it changes is listed here, too.
    pub reads: Vec<TensorId>,
    /// Tensors that it writes, the result first, then state and scratch memory.
    pub writes: Vec<TensorId>,
}

/// A field of a parameter struct that names tensors.
trait Names {
    fn add_to(&self, list: &mut Vec<TensorId>);
}

impl Names for TensorId {
    fn add_to(&self, list: &mut Vec<TensorId>) {
        list.push(*self);
    }
}

impl Names for Option<TensorId> {
    fn add_to(&self, list: &mut Vec<TensorId>) {
        list.extend(*self);
    }
}

impl Names for op::Scales {
    fn add_to(&self, list: &mut Vec<TensorId>) {
        if let op::Scales::PerChannel { multipliers, shifts } = self {
            list.extend([*multipliers, *shifts]);
        }
    }
}

/// What an LSTM reads.
impl Names for op::LstmTensors {
    fn add_to(&self, list: &mut Vec<TensorId>) {
        list.extend([self.input, self.input_weights, self.recurrent_weights, self.bias]);
        list.extend(self.recurrent_bias);
        list.extend([self.hidden, self.cell]);
    }
}

macro_rules! operands {
    ($($($kernel:ident)|+: $body:ty, [$($($read:ident).+),*] -> [$($($write:ident).+),*];)+) => {
        fn decode(kernel: Kernel, body: &[u8]) -> Option<Operands> {
            let mut operands = Operands::default();
            match kernel {
                $($(Kernel::$kernel)|+ => {
                    let body: $body = postcard::from_bytes(body).ok()?;
                    $(body.$($read).+.add_to(&mut operands.reads);)*
                    $(body.$($write).+.add_to(&mut operands.writes);)*
                })+
            }
            Some(operands)
        }
    };
}

operands! {
    Copy: op::Copy, [input] -> [output];
    Fill: op::Fill, [value] -> [output];
    Lut8: op::Lut8, [input, table] -> [output];
    Gather: op::Gather, [input, indices] -> [output];

    Conv2dI8 | Conv2dI16 | DepthwiseI8 | DepthwiseI16 | TransposeConvI8 | TransposeConvI16:
        op::ConvInt, [input, weights, bias, scales] -> [output];
    Conv2dF32 | DepthwiseF32 | TransposeConvF32: op::ConvF32, [input, weights, bias] -> [output];
    Conv2dHybrid | DepthwiseHybrid:
        op::ConvHybrid, [layer.input, layer.weights, layer.bias, hybrid.scales] -> [layer.output, hybrid.scratch];
    FullyConnectedI8 | FullyConnectedI16: op::FullyConnectedInt, [input, weights, bias, scales] -> [output];
    FullyConnectedF32: op::FullyConnectedF32, [input, weights, bias] -> [output];
    FullyConnectedHybrid: op::FullyConnectedHybrid,
        [layer.input, layer.weights, layer.bias, hybrid.scales] -> [layer.output, hybrid.scratch];
    AveragePoolI8 | AveragePoolI16 | MaxPoolI8 | MaxPoolI16: op::PoolInt, [input] -> [output];
    AveragePoolF32 | MaxPoolF32: op::PoolF32, [input] -> [output];

    UnaryI16: op::UnaryI16, [input] -> [output];
    SigmoidI16: op::SigmoidI16, [input] -> [output];
    UnaryF32 | ExponentialF32 | TrigonometricF32: op::UnaryF32, [input] -> [output];
    SoftmaxI8 | SoftmaxI8I16: op::SoftmaxI8, [input] -> [output];
    SoftmaxI16: op::SoftmaxI16, [input] -> [output];
    SoftmaxF32: op::SoftmaxF32, [input] -> [output];
    LogSoftmaxI8: op::LogSoftmaxI8, [input] -> [output];
    L2NormI8: op::L2NormI8, [input] -> [output];
    L2NormF32: op::L2NormF32, [input] -> [output];
    PreluI8 | PreluI16: op::Prelu, [input, alpha] -> [output];
    PreluF32: op::PreluF32, [input, alpha] -> [output];

    AddI8 | AddI16 | SquaredDifferenceI8 | SquaredDifferenceI16: op::Add, [a, b] -> [output];
    MulI8 | MulI16 | DivI8: op::Mul, [a, b] -> [output];
    MinMaxI8 | MinMaxI16: op::MinMax, [a, b] -> [output];
    ArithF32: op::Arith<f32>, [a, b] -> [output];
    ArithI32: op::Arith<i32>, [a, b] -> [output];
    ArithI64: op::Arith<i64>, [a, b] -> [output];
    MeanI8 | MeanI16: op::Mean, [input] -> [output];
    ReduceF32 | ReduceI32 | ReduceMinMaxI8 | ReduceMinMaxI16: op::Reduce, [input] -> [output];
    ArgMinMaxI8 | ArgMinMaxF32: op::ArgMinMax, [input] -> [output];

    Quantize | Dequantize: op::Quantize, [input] -> [output];
    Requantize: op::Requantize, [input] -> [output];
    Cast: op::Cast, [input] -> [output];
    ResizeBilinearI8: op::ResizeBilinear<i32>, [input] -> [output];
    ResizeBilinearF32 | ResizeBilinearU8: op::ResizeBilinear<f32>, [input] -> [output];
    ResizeNearest: op::ResizeNearest, [input, rows, columns] -> [output];

    SvdfI8: op::SvdfI8,
        [tensors.input, tensors.feature_weights, tensors.time_weights, tensors.bias, feature_bias, tensors.state]
        -> [tensors.output, tensors.state];
    SvdfF32: op::SvdfF32,
        [tensors.input, tensors.feature_weights, tensors.time_weights, tensors.bias, tensors.state]
        -> [tensors.output, tensors.state];
    LstmI8 | LstmI16: op::LstmInt, [tensors] -> [tensors.output, tensors.hidden, tensors.cell];
    LstmF32: op::LstmF32, [tensors] -> [tensors.output, tensors.hidden, tensors.cell];

    SignalWindow: op::SignalWindow, [input, weights] -> [output];
    SignalFftAutoScale: op::SignalFftAutoScale, [input] -> [output, scale_bits];
    SignalRfft | SignalRfftI32 | SignalRfftF32: op::SignalRfft, [input, twiddles] -> [output];
    SignalEnergy: op::SignalEnergy, [input] -> [output];
    SignalFilterBank: op::SignalFilterBank,
        [input, weights, unweights, frequency_starts, weight_starts, widths] -> [output];
    SignalFilterBankSquareRoot: op::SignalFilterBankSquareRoot, [input, scale_bits] -> [output];
    SignalSpectralSubtraction: op::SignalSpectralSubtraction, [input, estimate] -> [output, noise, estimate];
    SignalPcan: op::SignalPcan, [input, noise, gains] -> [output];
    SignalFilterBankLog: op::SignalFilterBankLog, [input] -> [output];
}

/// The tensors that an instruction touches; `None` for a kernel that this version does not know, or a malformed
/// instruction.
pub fn operands(instruction: &Instruction<'_>) -> Option<Operands> {
    decode(Kernel::from_code(instruction.kernel)?, instruction.body)
}
