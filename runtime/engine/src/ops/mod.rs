//! The operators: each decodes its parameters, borrows its tensors and calls its kernel.

mod arith;
mod conv;
mod convert;
mod copy;
mod factor;
mod float;
mod hybrid;
mod lstm;
mod normalize;
mod pool;
mod prelu;
mod reduce;
mod resize;
mod signal;
mod softmax;
mod svdf;
mod unary;
mod window;

pub(crate) use arith::*;
pub(crate) use conv::*;
pub(crate) use convert::{cast_elements, dequantize, quantize, requantize};
pub(crate) use copy::{copy, fill, gather, lut8};
pub(crate) use factor::factor;
pub(crate) use float::{
    average_pool_f32, conv2d_f32, depthwise_f32, exponential_f32, fully_connected_f32, l2_norm_f32,
    max_pool_f32, prelu_f32, softmax_f32, transpose_conv_f32, trigonometric_f32, unary_f32,
};
pub(crate) use hybrid::{conv2d_hybrid, depthwise_hybrid, fully_connected_hybrid};
pub(crate) use lstm::{lstm_float32, lstm_int8, lstm_int16};
pub(crate) use normalize::l2_norm_int8;
pub(crate) use pool::*;
pub(crate) use prelu::{prelu_int8, prelu_int16};
pub(crate) use reduce::*;
pub(crate) use resize::{resize_bilinear_f32, resize_bilinear_i8, resize_bilinear_u8, resize_nearest};
pub(crate) use signal::*;
pub(crate) use softmax::{log_softmax_int8, softmax_int8, softmax_int8_int16, softmax_int16};
pub(crate) use svdf::{svdf_float32, svdf_int8};
pub(crate) use unary::{sigmoid_int16, unary_int16};
