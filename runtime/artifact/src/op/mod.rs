//! The parameter structs of the instructions, one file per family.
//!
//! A struct is the postcard-coded body of an instruction (see `FORMAT.md`). Its shapes are not repeated: they
//! stand in the tensor table. Fields are only ever appended in a new kernel number, never changed.

mod arith;
mod conv;
mod convert;
mod copy;
mod factor;
mod float;
mod lstm;
mod normalize;
#[cfg(feature = "std")]
mod operands;
mod pool;
mod prelu;
mod reduce;
mod resize;
mod signal;
mod softmax;
mod svdf;
mod unary;
mod window;

pub use arith::{Add, Arith, ArithOp, MinMax, Mul};
pub use conv::{ConvInt, FullyConnectedInt, Scales};
pub use convert::{Cast, Quantize, Requantize};
pub use copy::{Copy, Fill, Gather, Lut8};
pub use factor::Factor;
pub use float::{
    ConvF32, ConvHybrid, FullyConnectedF32, FullyConnectedHybrid, FunctionF32, Hybrid, L2NormF32, PoolF32,
    PreluF32, SoftmaxF32, UnaryF32,
};
pub use lstm::{LstmF32, LstmInt, LstmTensors};
pub use normalize::L2NormI8;
#[cfg(feature = "std")]
pub use operands::{Operands, operands};
pub use pool::PoolInt;
pub use prelu::Prelu;
pub use reduce::{ArgMinMax, Mean, Reduce, ReduceOp};
pub use resize::{ResizeBilinear, ResizeNearest};
pub use signal::{
    SignalEnergy, SignalFftAutoScale, SignalFilterBank, SignalFilterBankLog, SignalFilterBankSquareRoot,
    SignalPcan, SignalRfft, SignalSpectralSubtraction, SignalWindow,
};
pub use softmax::{LogSoftmaxI8, SoftmaxI8, SoftmaxI16};
pub use svdf::{SvdfF32, SvdfI8, SvdfTensors};
pub use unary::{FunctionI16, SigmoidI16, UnaryI16};
pub use window::Window2d;
