//! Operator kernels: the portable definition of what a Dunlin program computes.
//!
//! Every kernel is a function over borrowed slices and one parameter struct. It allocates nothing, holds no
//! state, never panics, and checks once on entry that the slices fit the geometry; after that check it cannot
//! fail. Integer kernels follow TensorFlow Lite Micro's arithmetic bit for bit (double rounding
//! requantization); see [`fixed`].
//!
//! Tensors are dense and row-major; images are NHWC.
#![no_std]

pub mod arith;
pub mod conv;
pub mod convert;
pub mod copy;
pub mod depthwise;
pub mod error;
pub mod fixed;
pub mod float;
pub mod fully_connected;
pub mod hybrid;
pub mod lstm;
pub mod normalize;
pub mod pool;
pub mod prelu;
pub mod reduce;
pub mod resize;
pub mod signal;
pub mod softmax;
pub mod svdf;
pub mod transpose_conv;
pub mod unary_i16;
pub mod window;

pub use error::KernelError;
