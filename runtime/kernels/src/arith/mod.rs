//! Element-wise binary operators with broadcasting.
//!
//! Every operator takes its first operand either as a slice of its own or, with `None`, from the output, which
//! then already holds it: the operator works in place. The first operand must have the output's shape then.
//! Errors are the same for all: [`KernelError::Shape`](crate::KernelError::Shape) when the operands do not broadcast
//! or a slice has another length than its shape, [`KernelError::Parameter`](crate::KernelError::Parameter) when a
//! shift lies outside its range.

mod broadcast;
mod plain;
mod quantized;

pub use broadcast::{Broadcast, MAX_RANK};
pub(crate) use broadcast::{Walk, element_count};
pub use plain::{Arith, ArithOp, arith_f32, arith_i32, arith_i64};
pub use quantized::{
    Operand, QuantizedAdd, QuantizedMul, add_i8, add_i16, div_i8, min_max_i8, min_max_i16, mul_i8, mul_i16,
    squared_difference_i8, squared_difference_i16,
};

/// An integer tensor element that is computed with in 32 bits.
pub(crate) trait Narrow: Copy + Ord + Into<i32> {
    /// The low bits of `value`.
    fn narrow(value: i32) -> Self;
}

impl Narrow for i8 {
    #[inline(always)]
    fn narrow(value: i32) -> Self {
        value as i8
    }
}

impl Narrow for i16 {
    #[inline(always)]
    fn narrow(value: i32) -> Self {
        value as i16
    }
}
