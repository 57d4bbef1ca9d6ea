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
                    return $operator(cx, instruction.body);
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
}
