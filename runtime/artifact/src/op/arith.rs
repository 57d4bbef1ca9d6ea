//! Element-wise binary operators. Their operands broadcast by NumPy's rules, shapes aligned at the last axis; the
//! first one may be the output itself, which then is computed in place.

use serde::{Deserialize, Serialize};

use super::Factor;
use crate::TensorId;

/// Body of [`crate::Kernel::AddI8`], [`crate::Kernel::AddI16`], [`crate::Kernel::SquaredDifferenceI8`] and
/// [`crate::Kernel::SquaredDifferenceI16`]: both operands are brought to one scale first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    /// First operand.
    pub a: TensorId,
    /// Second operand.
    pub b: TensorId,
    /// Result, of the operands' type.
    pub output: TensorId,
    /// Bits by which the operands are shifted left before they are scaled, 0 ..= 31.
    pub left_shift: u8,
    /// Whether the second operand is subtracted.
    pub subtract: bool,
    /// Zero point of the first operand.
    pub a_zero_point: i32,
    /// Zero point of the second operand.
    pub b_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Scale of the first operand / common scale.
    pub a_factor: Factor,
    /// Scale of the second operand / common scale.
    pub b_factor: Factor,
    /// From the shifted sum (or the squared shifted difference) in the common scale to the output.
    pub output_factor: Factor,
    /// Smallest output.
    pub min: i32,
    /// Largest output.
    pub max: i32,
}

/// Body of [`crate::Kernel::MulI8`], [`crate::Kernel::MulI16`] and [`crate::Kernel::DivI8`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mul {
    /// First operand.
    pub a: TensorId,
    /// Second operand.
    pub b: TensorId,
    /// Result, of the operands' type.
    pub output: TensorId,
    /// Zero point of the first operand.
    pub a_zero_point: i32,
    /// Zero point of the second operand.
    pub b_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Product or quotient of the operands' scales / output scale.
    pub factor: Factor,
    /// Smallest output.
    pub min: i32,
    /// Largest output.
    pub max: i32,
}

/// Body of [`crate::Kernel::MinMaxI8`] and [`crate::Kernel::MinMaxI16`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinMax {
    /// First operand.
    pub a: TensorId,
    /// Second operand.
    pub b: TensorId,
    /// Result, of the operands' type.
    pub output: TensorId,
    /// Whether the larger element is wanted.
    pub maximum: bool,
}

/// What [`Arith`] does with two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArithOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller one.
    Minimum,
    /// The larger one.
    Maximum,
    /// `(a - b)^2`
    SquaredDifference,
}

/// Body of [`crate::Kernel::ArithF32`], [`crate::Kernel::ArithI32`] and [`crate::Kernel::ArithI64`], with bounds of the
/// elements' type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arith<T> {
    /// First operand.
    pub a: TensorId,
    /// Second operand.
    pub b: TensorId,
    /// Result, of the operands' type.
    pub output: TensorId,
    /// The operator.
    pub op: ArithOp,
    /// Smallest output.
    pub min: T,
    /// Largest output.
    pub max: T,
}
