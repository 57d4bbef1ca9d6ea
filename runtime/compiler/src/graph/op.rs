//! The operators of a graph. Options are normalized: paddings are explicit, axes are not negative.

use super::StateId;

/// An operator. The comment names the operands in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// input, weights `[out, kh, kw, in / groups]`, bias?
    Conv2d {
        /// Window.
        window: Window2d,
        /// Fused activation.
        activation: Activation,
        /// For int16 activations without a bias: sums are 32 bits wide.
        narrow_sums: bool,
    },
    /// input, weights `[1, kh, kw, in * multiplier]`, bias?
    DepthwiseConv2d {
        /// Window.
        window: Window2d,
        /// Fused activation.
        activation: Activation,
    },
    /// input, weights `[out, kh, kw, in]`, bias?; the padding is that of the forward convolution.
    TransposeConv2d {
        /// Window; its dilation is 1.
        window: Window2d,
        /// Fused activation.
        activation: Activation,
    },
    /// input (any shape; the last axes hold `in` elements), weights `[out, in]`, bias?
    FullyConnected {
        /// Fused activation.
        activation: Activation,
        /// For float activations with int8 weights: quantize the activations asymmetrically.
        asymmetric_inputs: bool,
        /// For int16 activations without a bias: sums are 32 bits wide.
        narrow_sums: bool,
    },
    /// input
    AveragePool2d {
        /// Window; its dilation is 1.
        window: Window2d,
        /// Window size, rows and columns.
        size: [usize; 2],
        /// Fused activation.
        activation: Activation,
    },
    /// input
    MaxPool2d {
        /// Window; its dilation is 1.
        window: Window2d,
        /// Window size, rows and columns.
        size: [usize; 2],
        /// Fused activation.
        activation: Activation,
    },
    /// left, right (broadcast against each other)
    Binary {
        /// Which.
        op: BinaryOp,
        /// Fused activation.
        activation: Activation,
    },
    /// input
    Unary(UnaryOp),
    /// input, alpha (broadcast)
    Prelu,
    /// input; over the last axis
    Softmax {
        /// Factor on the logits.
        beta: f32,
    },
    /// input; over the last axis
    LogSoftmax,
    /// input; over the last axis
    L2Normalization,
    /// input; the output's shape says the rest
    Reshape,
    /// input
    Transpose {
        /// Output axis `i` is input axis `perm[i]`.
        perm: Vec<usize>,
    },
    /// input, value? (a constant of one element; the zero point or 0 if left out)
    Pad {
        /// Elements before and behind each axis.
        pads: Vec<[usize; 2]>,
    },
    /// input
    MirrorPad {
        /// Elements before and behind each axis.
        pads: Vec<[usize; 2]>,
        /// Whether the edge itself is repeated.
        mode: MirrorMode,
    },
    /// one or more inputs
    Concat {
        /// Axis.
        axis: usize,
    },
    /// input; one output for each part, whose sizes are their shapes'
    Split {
        /// Axis.
        axis: usize,
    },
    /// input; element `begin[a] + i * strides[a]` along every axis `a`, as many as `counts[a]`
    StridedSlice {
        /// First element along each axis of the input.
        begin: Vec<usize>,
        /// Step along each axis, may be negative.
        strides: Vec<i64>,
        /// Elements along each axis; the output's shape may leave out or insert axes of 1.
        counts: Vec<usize>,
    },
    /// inputs of equal shape
    Pack {
        /// The new axis.
        axis: usize,
    },
    /// input; one output for each slice
    Unpack {
        /// The axis that disappears.
        axis: usize,
    },
    /// input, indices
    Gather {
        /// Axis of the input.
        axis: usize,
        /// Leading axes that input and indices share; not more than `axis`.
        batch_dims: usize,
    },
    /// input; repeated along axes of 1
    BroadcastTo,
    /// input
    BatchToSpace {
        /// Block size of each spatial axis.
        block: Vec<usize>,
        /// Elements cut before and behind each spatial axis.
        crops: Vec<[usize; 2]>,
    },
    /// input
    SpaceToBatch {
        /// Block size of each spatial axis.
        block: Vec<usize>,
        /// Elements added before and behind each spatial axis.
        pads: Vec<[usize; 2]>,
    },
    /// input
    DepthToSpace {
        /// Block size.
        block: usize,
    },
    /// input
    SpaceToDepth {
        /// Block size.
        block: usize,
    },
    /// input
    Reduce {
        /// Which.
        op: ReduceOp,
        /// Axes, ascending.
        axes: Vec<usize>,
    },
    /// input; the index of the largest element
    ArgMax {
        /// Axis.
        axis: usize,
    },
    /// input; the index of the smallest element
    ArgMin {
        /// Axis.
        axis: usize,
    },
    /// input: real or integer to integer
    Quantize,
    /// input: integer or half float to float32
    Dequantize,
    /// input: any to any type, values kept
    Cast,
    /// input
    ResizeBilinear {
        /// Corners of both images coincide.
        align_corners: bool,
        /// Pixels are areas, not points.
        half_pixel_centers: bool,
    },
    /// input
    ResizeNearest {
        /// Corners of both images coincide.
        align_corners: bool,
        /// Pixels are areas, not points.
        half_pixel_centers: bool,
    },
    /// input, weights feature, weights time, bias?
    Svdf {
        /// Rank of the approximation.
        rank: usize,
        /// Fused activation.
        activation: Activation,
        /// The filter memory.
        state: StateId,
    },
    /// TensorFlow Lite's operands 0 to 23, `None` where left out and in place of the two states (18 and 19)
    Lstm {
        /// Axis 0 is time, axis 1 the batch.
        time_major: bool,
        /// Bound of the cell state, 0 for none.
        cell_clip: f32,
        /// Output state.
        hidden: StateId,
        /// Cell state.
        cell: StateId,
    },
    /// no input; the variable's current value
    ReadVariable(StateId),
    /// value; no output
    AssignVariable(StateId),
    /// An audio front-end operator.
    Signal(SignalOp),
}

/// Audio front-end operators (TensorFlow Lite Micro's signal library).
#[derive(Clone, Debug, PartialEq)]
pub enum SignalOp {
    /// input, weights
    Window {
        /// Right shift of the products.
        shift: u8,
    },
    /// input; two results: the scaled samples and the number of bits
    FftAutoScale,
    /// input; pairs of real and imaginary part
    Rfft {
        /// Length of the FFT.
        length: usize,
    },
    /// input (pairs of real and imaginary part)
    Energy {
        /// First bin.
        start: usize,
        /// Behind the last bin.
        end: usize,
    },
    /// input, weights, unweights, frequency starts, weight starts, widths
    FilterBank,
    /// input, scale bits
    FilterBankSquareRoot,
    /// input; two results: the signal without noise and the noise. Coefficients have `spectral_subtraction_bits`
    /// fractional bits.
    SpectralSubtraction {
        /// The noise estimate.
        state: StateId,
        /// Coefficient of even channels.
        smoothing: u32,
        /// 1 - `smoothing`.
        one_minus_smoothing: u32,
        /// Coefficient of odd channels.
        alternate_smoothing: u32,
        /// 1 - `alternate_smoothing`.
        alternate_one_minus_smoothing: u32,
        /// The part of the signal that always remains.
        min_signal_remaining: u32,
        /// Fractional bits of the estimate.
        smoothing_bits: u8,
        /// Fractional bits of the coefficients.
        spectral_subtraction_bits: u8,
        /// The estimate never stays above the signal.
        clamping: bool,
    },
    /// input, noise, gains
    Pcan {
        /// Right shift of the products.
        snr_shift: u8,
    },
    /// input
    FilterBankLog {
        /// Left shift of the input.
        correction_bits: u8,
        /// Factor on the natural logarithm.
        output_scale: u32,
    },
}

/// Explicit padding of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding2d {
    /// Rows above.
    pub top: usize,
    /// Rows below; may be less than the window would reach.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

/// A sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window2d {
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns from tap to tap.
    pub dilation: [usize; 2],
    /// Padding.
    pub padding: Padding2d,
}

/// A fused activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// max(x, 0)
    Relu,
    /// x in [0, 6]
    Relu6,
    /// x in [-1, 1]
    ReluN1To1,
}

/// Binary element-wise operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
    /// min(a, b)
    Minimum,
    /// max(a, b)
    Maximum,
    /// (a - b)^2
    SquaredDifference,
}

/// Unary element-wise operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// |x|
    Abs,
    /// cos x
    Cos,
    /// Smallest integer not below x.
    Ceil,
    /// x for x > 0, else e^x - 1
    Elu,
    /// e^x
    Exp,
    /// Largest integer not above x.
    Floor,
    /// x * relu6(x + 3) / 6
    HardSwish,
    /// x for x > 0, else alpha x
    LeakyRelu {
        /// Slope of the negative part.
        alpha: f32,
    },
    /// ln x
    Log,
    /// 1 / (1 + e^-x)
    Logistic,
    /// -x
    Neg,
    /// max(x, 0)
    Relu,
    /// x in [0, 6]
    Relu6,
    /// x in [-1, 1]
    ReluN1To1,
    /// Nearest integer, ties to even.
    Round,
    /// 1 / sqrt x
    Rsqrt,
    /// sin x
    Sin,
    /// sqrt x
    Sqrt,
    /// x^2
    Square,
    /// tanh x
    Tanh,
}

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// Arithmetic mean.
    Mean,
    /// Sum.
    Sum,
    /// Largest element.
    Max,
    /// Smallest element.
    Min,
}

/// How a mirror pad treats the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorMode {
    /// The edge is not repeated.
    Reflect,
    /// The edge is repeated.
    Symmetric,
}
