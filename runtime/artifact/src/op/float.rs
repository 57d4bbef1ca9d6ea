//! Float32 operators. A fused activation is given by its bounds `min` and `max`.

use serde::{Deserialize, Serialize};

use super::Window2d;
use crate::TensorId;

/// Body of [`crate::Kernel::Conv2dF32`], [`crate::Kernel::DepthwiseF32`] and [`crate::Kernel::TransposeConvF32`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvF32 {
    /// `[batch, rows, columns, channels]`.
    pub input: TensorId,
    /// float32 or float16 constant, or int8 for a hybrid layer: `[out, rows, columns, in / groups]`, for a depthwise
    /// convolution `[1, rows, columns, out]`.
    pub weights: TensorId,
    /// float32 constant, `[out]`.
    pub bias: Option<TensorId>,
    /// `[batch, rows, columns, out]`.
    pub output: TensorId,
    /// The steps of the window.
    pub window: Window2d,
    /// Smallest output.
    pub min: f32,
    /// Largest output.
    pub max: f32,
}

/// Body of [`crate::Kernel::FullyConnectedF32`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FullyConnectedF32 {
    /// Vectors one behind the other, in any shape.
    pub input: TensorId,
    /// float32 or float16 constant, or int8 for a hybrid layer: `[out, in]`.
    pub weights: TensorId,
    /// float32 constant, `[out]`.
    pub bias: Option<TensorId>,
    /// As many vectors of `out` elements, in any shape.
    pub output: TensorId,
    /// Smallest output.
    pub min: f32,
    /// Largest output.
    pub max: f32,
}

/// What a hybrid layer (int8 weights, float32 activations) needs besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hybrid {
    /// float32 constant: the weights' scale, one or one for each output channel.
    pub scales: TensorId,
    /// int8: memory for one quantized image or vector.
    pub scratch: TensorId,
    /// The input is quantized with a zero point.
    pub asymmetric: bool,
}

/// Body of [`crate::Kernel::Conv2dHybrid`] and [`crate::Kernel::DepthwiseHybrid`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvHybrid {
    /// The convolution.
    pub layer: ConvF32,
    /// Its quantization.
    pub hybrid: Hybrid,
}

/// Body of [`crate::Kernel::FullyConnectedHybrid`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FullyConnectedHybrid {
    /// The layer.
    pub layer: FullyConnectedF32,
    /// Its quantization.
    pub hybrid: Hybrid,
}

/// Body of [`crate::Kernel::AveragePoolF32`] and [`crate::Kernel::MaxPoolF32`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolF32 {
    /// `[batch, rows, columns, channels]`.
    pub input: TensorId,
    /// `[batch, rows, columns, channels]`.
    pub output: TensorId,
    /// Rows and columns of the window.
    pub size: [u32; 2],
    /// The steps of the window.
    pub window: Window2d,
    /// Smallest output.
    pub min: f32,
    /// Largest output.
    pub max: f32,
}

/// Body of [`crate::Kernel::UnaryF32`], [`crate::Kernel::ExponentialF32`] and [`crate::Kernel::TrigonometricF32`].
/// May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnaryF32 {
    /// Source.
    pub input: TensorId,
    /// Destination with as many elements.
    pub output: TensorId,
    /// Which function; one of those that the kernel has.
    pub function: FunctionF32,
}

/// A function of one number. The comment names its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum FunctionF32 {
    /// Unary: not below 0.
    Relu,
    /// Unary: in 0 ..= 6.
    Relu6,
    /// Unary: in -1 ..= 1.
    ReluN1To1,
    /// Unary: multiplied by this slope below 0.
    LeakyRelu(f32),
    /// Unary: `x * relu6(x + 3) / 6`.
    HardSwish,
    /// Unary: absolute value.
    Abs,
    /// Unary: negation.
    Neg,
    /// Unary: square.
    Square,
    /// Unary: rounded down.
    Floor,
    /// Unary: rounded up.
    Ceil,
    /// Unary: rounded to the nearest integer, ties to even.
    Round,
    /// Exponential: e to the power of x.
    Exp,
    /// Exponential: natural logarithm.
    Log,
    /// Exponential: logistic function.
    Logistic,
    /// Exponential: hyperbolic tangent.
    Tanh,
    /// Exponential: `e^x - 1` below 0.
    Elu,
    /// Unary: square root.
    Sqrt,
    /// Unary: `1 / sqrt(x)`.
    Rsqrt,
    /// Trigonometric: sine.
    Sin,
    /// Trigonometric: cosine.
    Cos,
}

/// Body of [`crate::Kernel::SoftmaxF32`], over the innermost axis. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoftmaxF32 {
    /// Source.
    pub input: TensorId,
    /// Destination of the same shape.
    pub output: TensorId,
    /// The factor on the input of a softmax; `None` for a log-softmax.
    pub beta: Option<f32>,
}

/// Body of [`crate::Kernel::L2NormF32`], over the innermost axis. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2NormF32 {
    /// Source.
    pub input: TensorId,
    /// Destination of the same shape.
    pub output: TensorId,
}

/// Body of [`crate::Kernel::PreluF32`]. May run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreluF32 {
    /// Source of at most four axes.
    pub input: TensorId,
    /// The slopes, broadcast against the input.
    pub alpha: TensorId,
    /// Destination of the input's shape.
    pub output: TensorId,
}
