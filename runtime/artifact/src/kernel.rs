//! The kernels that an instruction can name.

macro_rules! kernels {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal, $text:literal;)+) => {
        /// A kernel: the code that executes one kind of instruction.
        ///
        /// The numbers are part of the file format and never change; an instruction's body is the parameter
        /// struct of the same family in [`crate::op`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kernel {
            $($(#[doc = $doc])+ $name = $id,)+
        }

        impl Kernel {
            /// All kernels, in the order of their numbers.
            pub const ALL: &'static [Kernel] = &[$(Kernel::$name),+];

            /// The kernel with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($id => Some(Kernel::$name),)+
                    _ => None,
                }
            }

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kernel::$name => $text,)+
                }
            }
        }
    };
}

kernels! {
    /// Strided copy between tensors of any element type.
    Copy = 0, "copy";
    /// Fill of a tensor with one element.
    Fill = 1, "fill";
    /// Convolution, int8.
    Conv2dI8 = 2, "conv2d_i8";
    /// Convolution, int16 activations.
    Conv2dI16 = 3, "conv2d_i16";
    /// Convolution, float32.
    Conv2dF32 = 4, "conv2d_f32";
    /// Convolution, float32 with int8 weights.
    Conv2dHybrid = 5, "conv2d_hybrid";
    /// Depthwise convolution, int8.
    DepthwiseI8 = 6, "depthwise_i8";
    /// Depthwise convolution, int16 activations.
    DepthwiseI16 = 7, "depthwise_i16";
    /// Depthwise convolution, float32.
    DepthwiseF32 = 8, "depthwise_f32";
    /// Depthwise convolution, float32 with int8 weights.
    DepthwiseHybrid = 9, "depthwise_hybrid";
    /// Fully connected, int8.
    FullyConnectedI8 = 10, "fully_connected_i8";
    /// Fully connected, int16 activations.
    FullyConnectedI16 = 11, "fully_connected_i16";
    /// Fully connected, float32.
    FullyConnectedF32 = 12, "fully_connected_f32";
    /// Fully connected, float32 with int8 weights.
    FullyConnectedHybrid = 13, "fully_connected_hybrid";
    /// Transposed convolution, int8.
    TransposeConvI8 = 14, "transpose_conv_i8";
    /// Transposed convolution, int16 activations.
    TransposeConvI16 = 15, "transpose_conv_i16";
    /// Transposed convolution, float32.
    TransposeConvF32 = 16, "transpose_conv_f32";
    /// Average pooling, int8.
    AveragePoolI8 = 17, "average_pool_i8";
    /// Average pooling, int16.
    AveragePoolI16 = 18, "average_pool_i16";
    /// Average pooling, float32.
    AveragePoolF32 = 19, "average_pool_f32";
    /// Maximum pooling, int8.
    MaxPoolI8 = 20, "max_pool_i8";
    /// Maximum pooling, int16.
    MaxPoolI16 = 21, "max_pool_i16";
    /// Maximum pooling, float32.
    MaxPoolF32 = 22, "max_pool_f32";
    /// Table look-up of int8 values: every unary int8 operator.
    Lut8 = 23, "lut8";
    /// Unary operators on int16.
    UnaryI16 = 24, "unary_i16";
    /// Unary operators on float32 that need no elementary function.
    UnaryF32 = 25, "unary_f32";
    /// Softmax, int8 to int8.
    SoftmaxI8 = 26, "softmax_i8";
    /// Softmax, int8 to int16.
    SoftmaxI8I16 = 27, "softmax_i8_i16";
    /// Softmax, int16.
    SoftmaxI16 = 28, "softmax_i16";
    /// Softmax and log-softmax, float32.
    SoftmaxF32 = 29, "softmax_f32";
    /// Log-softmax, int8.
    LogSoftmaxI8 = 30, "log_softmax_i8";
    /// L2 normalization, int8.
    L2NormI8 = 31, "l2_norm_i8";
    /// L2 normalization, float32.
    L2NormF32 = 32, "l2_norm_f32";
    /// PReLU, int8.
    PreluI8 = 33, "prelu_i8";
    /// PReLU, float32.
    PreluF32 = 34, "prelu_f32";
    /// Addition and subtraction, int8.
    AddI8 = 35, "add_i8";
    /// Addition and subtraction, int16.
    AddI16 = 36, "add_i16";
    /// Multiplication, int8.
    MulI8 = 37, "mul_i8";
    /// Multiplication, int16.
    MulI16 = 38, "mul_i16";
    /// Squared difference, int8.
    SquaredDifferenceI8 = 39, "squared_difference_i8";
    /// Division, int8.
    DivI8 = 40, "div_i8";
    /// Minimum and maximum, int8.
    MinMaxI8 = 41, "min_max_i8";
    /// Minimum and maximum, int16.
    MinMaxI16 = 42, "min_max_i16";
    /// Arithmetic on float32.
    ArithF32 = 43, "arith_f32";
    /// Arithmetic on int32.
    ArithI32 = 44, "arith_i32";
    /// Arithmetic on int64.
    ArithI64 = 45, "arith_i64";
    /// Mean and sum, int8.
    MeanI8 = 46, "mean_i8";
    /// Mean and sum, int16.
    MeanI16 = 47, "mean_i16";
    /// Reductions, float32.
    ReduceF32 = 48, "reduce_f32";
    /// Maximum and minimum over axes, int8.
    ReduceMinMaxI8 = 49, "reduce_min_max_i8";
    /// Index of the extreme value, int8.
    ArgMinMaxI8 = 50, "arg_min_max_i8";
    /// Index of the extreme value, float32.
    ArgMinMaxF32 = 51, "arg_min_max_f32";
    /// Quantization of float32.
    Quantize = 52, "quantize";
    /// Dequantization to float32.
    Dequantize = 53, "dequantize";
    /// Change of scale between integer types of different width.
    Requantize = 54, "requantize";
    /// Change of element type.
    Cast = 55, "cast";
    /// Bilinear resize, int8.
    ResizeBilinearI8 = 56, "resize_bilinear_i8";
    /// Bilinear resize, float32.
    ResizeBilinearF32 = 57, "resize_bilinear_f32";
    /// Nearest-neighbour resize, any type.
    ResizeNearest = 58, "resize_nearest";
    /// Gather along an axis with indices known at run time.
    Gather = 59, "gather";
    /// SVDF, int8.
    SvdfI8 = 60, "svdf_i8";
    /// SVDF, float32.
    SvdfF32 = 61, "svdf_f32";
    /// LSTM over a sequence, int8 activations.
    LstmI8 = 62, "lstm_i8";
    /// LSTM over a sequence, int16 activations.
    LstmI16 = 63, "lstm_i16";
    /// LSTM over a sequence, float32.
    LstmF32 = 64, "lstm_f32";
    /// Windowing of an audio frame.
    SignalWindow = 65, "signal_window";
    /// Automatic scaling before a fixed-point FFT.
    SignalFftAutoScale = 66, "signal_fft_auto_scale";
    /// Real FFT, int16.
    SignalRfft = 67, "signal_rfft";
    /// Energy of a spectrum.
    SignalEnergy = 68, "signal_energy";
    /// Filter bank.
    SignalFilterBank = 69, "signal_filter_bank";
    /// Square root of filter bank channels.
    SignalFilterBankSquareRoot = 70, "signal_filter_bank_square_root";
    /// Spectral subtraction.
    SignalSpectralSubtraction = 71, "signal_spectral_subtraction";
    /// Per-channel amplitude normalization.
    SignalPcan = 72, "signal_pcan";
    /// Logarithm of filter bank channels.
    SignalFilterBankLog = 73, "signal_filter_bank_log";
    /// Minimum and maximum over axes, int16.
    ReduceMinMaxI16 = 74, "reduce_min_max_i16";
    /// Reductions, int32.
    ReduceI32 = 75, "reduce_i32";
    /// Squared difference, int16.
    SquaredDifferenceI16 = 76, "squared_difference_i16";
    /// Real FFT, int32.
    SignalRfftI32 = 77, "signal_rfft_i32";
    /// Real FFT, float32.
    SignalRfftF32 = 78, "signal_rfft_f32";
    /// Bilinear resize, uint8 (stored shifted by -128).
    ResizeBilinearU8 = 79, "resize_bilinear_u8";
    /// Logistic function and hyperbolic tangent, int16.
    SigmoidI16 = 80, "sigmoid_i16";
    /// PReLU, int16.
    PreluI16 = 81, "prelu_i16";
    /// Exponential functions, logistic function, hyperbolic tangent and logarithm on float32.
    ExponentialF32 = 82, "exponential_f32";
    /// Sine and cosine on float32.
    TrigonometricF32 = 83, "trigonometric_f32";
}

impl Kernel {
    /// The kernel's bit in a kernel set.
    pub const fn bit(self) -> u128 {
        1 << (self as u8)
    }
}
