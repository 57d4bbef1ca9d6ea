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
}
