//! From a kernel's number to its code.

use dunlin_artifact::{Instruction, Kernel};

use crate::context::Context;
use crate::{RunError, ops};

macro_rules! dispatch {
    ($($kernel:ident => $operator:path),+ $(,)?) => {
        /// The kernels that this version has code for.
        pub(crate) const LINKABLE: u128 = 0 $(| Kernel::$kernel.bit())+;

        /// Runs one instruction with the kernels in the set `KERNELS`; the code of all others is not linked.
        #[inline(always)]
        pub(crate) fn run<const KERNELS: u128>(
            cx: &mut Context<'_, '_>,
            instruction: Instruction<'_>,
        ) -> Result<(), RunError> {
            $(
                if KERNELS & Kernel::$kernel.bit() != 0 && instruction.kernel == Kernel::$kernel as u8 {
                    // A frame of its own: inlined together, the operators' locals would add up on the stack. Named
                    // after the kernel, for listings of what takes flash.
                    #[inline(never)]
                    #[allow(non_snake_case)]
                    fn $kernel(cx: &mut Context<'_, '_>, body: &[u8]) -> Result<(), RunError> {
                        $operator(cx, body)
                    }
                    return $kernel(cx, instruction.body);
                }
            )+
            Err(RunError::MissingKernel(instruction.kernel))
        }
    };
}

dispatch! {
    Copy => ops::copy,
    Fill => ops::fill,
    Gather => ops::gather,
    Lut8 => ops::lut8,
    Conv2dI8 => ops::conv2d_int8,
    Conv2dI16 => ops::conv2d_int16,
    DepthwiseI8 => ops::depthwise_int8,
    DepthwiseI16 => ops::depthwise_int16,
    FullyConnectedI8 => ops::fully_connected_int8,
    FullyConnectedI16 => ops::fully_connected_int16,
    TransposeConvI8 => ops::transpose_conv_int8,
    TransposeConvI16 => ops::transpose_conv_int16,
    AveragePoolI8 => ops::average_pool_int8,
    AveragePoolI16 => ops::average_pool_int16,
    MaxPoolI8 => ops::max_pool_int8,
    MaxPoolI16 => ops::max_pool_int16,
    AddI8 => ops::add_i8,
    AddI16 => ops::add_i16,
    MulI8 => ops::mul_i8,
    MulI16 => ops::mul_i16,
    SquaredDifferenceI8 => ops::squared_difference_i8,
    SquaredDifferenceI16 => ops::squared_difference_i16,
    DivI8 => ops::div_i8,
    MinMaxI8 => ops::min_max_i8,
    MinMaxI16 => ops::min_max_i16,
    ArithF32 => ops::arith_f32,
    ArithI32 => ops::arith_i32,
    ArithI64 => ops::arith_i64,
    MeanI8 => ops::mean_i8,
    MeanI16 => ops::mean_i16,
    ReduceF32 => ops::reduce_f32,
    ReduceI32 => ops::reduce_i32,
    ReduceMinMaxI8 => ops::reduce_min_max_i8,
    ReduceMinMaxI16 => ops::reduce_min_max_i16,
    ArgMinMaxI8 => ops::arg_min_max_i8,
    ArgMinMaxF32 => ops::arg_min_max_f32,
    Quantize => ops::quantize,
    Dequantize => ops::dequantize,
    Requantize => ops::requantize,
    Cast => ops::cast_elements,
    ResizeBilinearI8 => ops::resize_bilinear_i8,
    ResizeBilinearU8 => ops::resize_bilinear_u8,
    ResizeBilinearF32 => ops::resize_bilinear_f32,
    ResizeNearest => ops::resize_nearest,
    SvdfI8 => ops::svdf_int8,
    SvdfF32 => ops::svdf_float32,
    LstmI8 => ops::lstm_int8,
    LstmI16 => ops::lstm_int16,
    LstmF32 => ops::lstm_float32,
    SignalWindow => ops::signal_window,
    SignalFftAutoScale => ops::signal_fft_auto_scale,
    SignalRfft => ops::signal_rfft_int16,
    SignalRfftI32 => ops::signal_rfft_int32,
    SignalRfftF32 => ops::signal_rfft_float32,
    SignalEnergy => ops::signal_energy,
    SignalFilterBank => ops::signal_filter_bank,
    SignalFilterBankSquareRoot => ops::signal_filter_bank_square_root,
    SignalSpectralSubtraction => ops::signal_spectral_subtraction,
    SignalPcan => ops::signal_pcan,
    SignalFilterBankLog => ops::signal_filter_bank_log,
    UnaryI16 => ops::unary_int16,
    SigmoidI16 => ops::sigmoid_int16,
    SoftmaxI8 => ops::softmax_int8,
    SoftmaxI8I16 => ops::softmax_int8_int16,
    SoftmaxI16 => ops::softmax_int16,
    LogSoftmaxI8 => ops::log_softmax_int8,
    L2NormI8 => ops::l2_norm_int8,
    PreluI8 => ops::prelu_int8,
    PreluI16 => ops::prelu_int16,
    Conv2dF32 => ops::conv2d_f32,
    DepthwiseF32 => ops::depthwise_f32,
    TransposeConvF32 => ops::transpose_conv_f32,
    FullyConnectedF32 => ops::fully_connected_f32,
    Conv2dHybrid => ops::conv2d_hybrid,
    DepthwiseHybrid => ops::depthwise_hybrid,
    FullyConnectedHybrid => ops::fully_connected_hybrid,
    AveragePoolF32 => ops::average_pool_f32,
    MaxPoolF32 => ops::max_pool_f32,
    UnaryF32 => ops::unary_f32,
    ExponentialF32 => ops::exponential_f32,
    TrigonometricF32 => ops::trigonometric_f32,
    SoftmaxF32 => ops::softmax_f32,
    L2NormF32 => ops::l2_norm_f32,
    PreluF32 => ops::prelu_f32,
}
