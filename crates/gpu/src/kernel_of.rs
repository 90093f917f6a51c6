//! Which kernel computes which op, for each kind of element; `None` where none does.

use cubecl::ir::StorageType;
use gradus_core::DType;
use gradus_core::ops::{BinaryOp, CompareOp, UnaryOp};
use gradus_kernels::binary::{FloatBinary, IntBinary};
use gradus_kernels::compare::Comparison;
use gradus_kernels::unary::{FloatUnary, IntUnary};

/// A match from one enum's variants to another's of the same names.
macro_rules! same_name {
    ($op:expr, $from:ident => $to:ident, [$($name:ident),* $(,)?] $(, $rest:pat => $else:expr)?) => {
        match $op { $($from::$name => $to::$name,)* $($rest => $else,)? }
    };
}

/// The kernel of a function of a float, if it is one.
pub(crate) fn float_unary(op: UnaryOp) -> Option<FloatUnary> {
    Some(same_name!(op, UnaryOp => FloatUnary, [
        Neg, Abs, Sign, Floor, Ceil, Round, Trunc, Frac, Square, Sqrt, Rsqrt, Reciprocal, Exp, Exp2, Expm1, Log, Log2,
        Log10, Log1p, Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Tanh, Asinh, Acosh, Atanh, Erf, Erfc, Erfinv, Sigmoid,
        LogSigmoid, Softplus, Relu, Relu6, Gelu, GeluTanh, Silu, Mish, Softsign, HardSigmoid, HardSwish, IsNan, IsInf,
        IsFinite, LogicalNot,
    ], UnaryOp::BitNot => return None))
}

/// The kernel of a function of an integer, if it is one.
pub(crate) fn int_unary(op: UnaryOp, dtype: DType) -> Option<IntUnary> {
    Some(match op {
        UnaryOp::Neg => IntUnary::Neg,
        UnaryOp::Abs => IntUnary::Abs,
        UnaryOp::Sign => IntUnary::Sign,
        UnaryOp::Square => IntUnary::Square,
        UnaryOp::Relu => IntUnary::Relu,
        UnaryOp::Relu6 => IntUnary::Relu6,
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc => IntUnary::Same,
        UnaryOp::IsNan | UnaryOp::IsInf => IntUnary::Zero,
        UnaryOp::IsFinite => IntUnary::One,
        UnaryOp::LogicalNot => IntUnary::LogicalNot,
        // The bits of a truth value are one bit.
        UnaryOp::BitNot if dtype == DType::Bool => IntUnary::LogicalNot,
        UnaryOp::BitNot => IntUnary::BitNot,
        _ => return None,
    })
}

/// The kernel of a function of two floats, if it is one.
pub(crate) fn float_binary(op: BinaryOp) -> Option<FloatBinary> {
    Some(same_name!(op, BinaryOp => FloatBinary, [
        Add, Sub, Mul, Div, Pow, Atan2, Hypot, Maximum, Minimum, LogAddExp, Copysign, Remainder, Fmod, FloorDivide, Xlogy,
    ], _ => return None))
}

/// The kernel of a function of two integers, if it is one.
pub(crate) fn int_binary(op: BinaryOp) -> Option<IntBinary> {
    Some(same_name!(op, BinaryOp => IntBinary, [
        Add, Sub, Mul, Pow, Maximum, Minimum, Remainder, Fmod, FloorDivide, BitAnd, BitOr, BitXor, ShiftLeft, ShiftRight,
    ], _ => return None))
}

/// The kernel of a comparison.
pub(crate) fn comparison(op: CompareOp) -> Comparison {
    same_name!(op, CompareOp => Comparison, [Eq, Ne, Lt, Le, Gt, Ge, LogicalAnd, LogicalOr, LogicalXor])
}

/// The bounds between which a float becomes an integer of this type by truncation: the largest float at or below the
/// smallest integer, and the smallest float at or above the largest.
pub(crate) fn bounds(to: StorageType) -> (f64, f64) {
    use cubecl::ir::{ElemType, IntKind, UIntKind};
    match to.elem_type() {
        ElemType::Int(IntKind::I64) => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0),
        ElemType::Int(_) => (f64::from(i32::MIN), 2_147_483_648.0),
        ElemType::UInt(UIntKind::U8) => (0.0, 255.0),
        _ => (0.0, 4_294_967_296.0),
    }
}
