//! Elementwise families: copies and casts, writing in place, and functions of one, two or three operands.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use gradus_core::backend::{Operand, WriteMode};
use gradus_core::ops::{BinaryOp, CompareOp, UnaryKind, UnaryOp};
use gradus_core::{Buffer, DType, Error, Layout, Result, Scalar, View};
use gradus_kernels::binary::{FloatBinary, IntBinary, Scalars, binary_kernel, int_binary_kernel};
use gradus_kernels::compare::{Comparison, compare_kernel, select_kernel};
use gradus_kernels::copy::{Convert, copy_kernel, fill_kernel, store_kernel};
use gradus_kernels::unary::{FloatUnary, IntUnary, int_unary_kernel, unary_kernel};

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

fn int_unary(op: UnaryOp, dtype: DType) -> Option<IntUnary> {
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

fn float_binary(op: BinaryOp) -> Option<FloatBinary> {
    Some(same_name!(op, BinaryOp => FloatBinary, [
        Add, Sub, Mul, Div, Pow, Atan2, Hypot, Maximum, Minimum, LogAddExp, Copysign, Remainder, Fmod, FloorDivide, Xlogy,
    ], _ => return None))
}

fn int_binary(op: BinaryOp) -> Option<IntBinary> {
    Some(same_name!(op, BinaryOp => IntBinary, [
        Add, Sub, Mul, Pow, Maximum, Minimum, Remainder, Fmod, FloorDivide, BitAnd, BitOr, BitXor, ShiftLeft, ShiftRight,
    ], _ => return None))
}

fn comparison(op: CompareOp) -> Comparison {
    same_name!(op, CompareOp => Comparison, [Eq, Ne, Lt, Le, Gt, Ge, LogicalAnd, LogicalOr, LogicalXor])
}

/// Two operands as a launch wants them: two views (a number's stands in for it, unread), the number, and which it is.
struct Pair<'a> {
    a: View<'a>,
    b: View<'a>,
    number: InputScalar,
    scalars: Scalars,
}

impl<R: GpuRuntime> Gpu<R> {
    fn unfit(&self, op: &str, dtype: DType) -> Error {
        Error::unsupported(format!("{} has no {op} of {dtype}", self.name))
    }

    /// The view's elements as a dense buffer of `to`.
    pub(crate) fn convert(&self, x: View<'_>, to: DType) -> Result<Buffer> {
        self.done(self.converted(x, to)?)
    }

    /// As [`Gpu::convert`], before the buffer is shared.
    pub(crate) fn converted(&self, x: View<'_>, to: DType) -> Result<GpuBuffer> {
        let (src, len) = (self.memory_of(x.buffer)?, x.elements());
        let out = self.reserve(len, to)?;
        if len == 0 {
            return Ok(out);
        }
        let how = match (x.dtype, to) {
            (from, to) if from == to => Convert::Plain,
            (_, DType::Bool) => Convert::ToBool,
            (from, to) if from.is_float() && to.is_int() => Convert::FloatToInt,
            _ => Convert::Plain,
        };
        let from = self.types.stored(x.dtype);
        // Halves reach integers' bounds only through infinity, which compares with these like any other number.
        let (low, high) = bounds(self.types.stored(to));
        let bound = |v: f64| if how == Convert::FloatToInt { InputScalar::new(v, self.types.computed(x.dtype)) } else { InputScalar::new(0u32, crate::types::U32) };
        let (shape, [steps]) = folded(x.shape(), [&Steps::of(x.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[src.elements, len])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `len`.
        unsafe {
            copy_kernel::launch_unchecked::<R>(
                &self.client, count, dim, address, self.array(src), self.array(&out), lengths(&shape), steps.place(), len,
                bound(low), bound(high), how, [from, self.types.stored(to)],
            );
        }
        self.launched();
        Ok(out)
    }

    pub(crate) fn filled(&self, elements: usize, dtype: DType, value: &Scalar) -> Result<Buffer> {
        let out = self.reserve(elements, dtype)?;
        if elements > 0 {
            let (count, dim) = self.grid(elements);
            let address = self.address(&[elements])?;
            // SAFETY: the kernel stops at `elements`.
            unsafe {
                fill_kernel::launch_unchecked::<R>(
                    &self.client, count, dim, address, self.array(&out), self.number(value, dtype), elements, self.types.stored(dtype),
                );
            }
            self.launched();
        }
        self.done(out)
    }

    pub(crate) fn write_into(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
        let (to, from, len) = (self.memory_of(dst)?, self.memory_of(src.buffer)?, src.elements());
        if len == 0 {
            return Ok(());
        }
        let (shape, [read, write]) = folded(src.shape(), [&Steps::of(src.layout), &Steps::of(at)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[from.elements, to.elements])?;
        let types = [self.types.stored(src.dtype), self.types.computed(src.dtype)];
        // SAFETY: both layouts lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            store_kernel::launch_unchecked::<R>(
                &self.client, count, dim, address, self.array(from), self.array(to), lengths(&shape), read.place(), write.place(), len,
                mode == WriteMode::Add, types,
            );
        }
        self.launched();
        Ok(())
    }

    pub(crate) fn map(&self, op: UnaryOp, x: View<'_>) -> Result<Buffer> {
        let (src, len) = (self.memory_of(x.buffer)?, x.elements());
        let to = if op.kind() == UnaryKind::Test { DType::Bool } else { x.dtype };
        let out = self.reserve(len, to)?;
        if len == 0 {
            return self.done(out);
        }
        let (shape, [steps]) = folded(x.shape(), [&Steps::of(x.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[src.elements, len])?;
        let (stored, result) = (self.types.stored(x.dtype), self.types.stored(to));
        let unfit = || self.unfit(op.name(), x.dtype);
        let (array, target, shape) = (self.array(src), self.array(&out), lengths(&shape));
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernels stop at `len`.
        unsafe {
            if x.dtype.is_float() {
                let f = float_unary(op).ok_or_else(unfit)?;
                let types = [stored, self.types.computed(x.dtype), result];
                unary_kernel::launch_unchecked::<R>(&self.client, count, dim, address, array, target, shape, steps.place(), len, f, types);
            } else {
                let f = int_unary(op, x.dtype).ok_or_else(unfit)?;
                let types = [stored, result];
                int_unary_kernel::launch_unchecked::<R>(&self.client, count, dim, address, array, target, shape, steps.place(), len, f, types);
            }
        }
        self.launched();
        self.done(out)
    }

    fn pair<'a>(&self, a: Operand<'a>, b: Operand<'a>) -> Result<Pair<'a>> {
        Ok(match (a, b) {
            (Operand::View(a), Operand::View(b)) => {
                Pair { a, b, number: InputScalar::new(0u32, crate::types::U32), scalars: Scalars::Neither }
            }
            (Operand::View(a), Operand::Scalar(s)) => {
                Pair { a, b: a, number: self.number(&s, a.dtype), scalars: Scalars::Right }
            }
            (Operand::Scalar(s), Operand::View(b)) => {
                Pair { a: b, b, number: self.number(&s, b.dtype), scalars: Scalars::Left }
            }
            (Operand::Scalar(_), Operand::Scalar(_)) => return Err(Error::misuse("an elementwise kernel needs a tensor")),
        })
    }

    pub(crate) fn zip(&self, op: BinaryOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        let Pair { a, b, number, scalars } = self.pair(a, b)?;
        let (left, right, len) = (self.memory_of(a.buffer)?, self.memory_of(b.buffer)?, a.elements());
        let out = self.reserve(len, a.dtype)?;
        if len == 0 {
            return self.done(out);
        }
        let (shape, [at_a, at_b]) = folded(a.shape(), [&Steps::of(a.layout), &Steps::of(b.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[left.elements, right.elements, len])?;
        let stored = self.types.stored(a.dtype);
        let unfit = || self.unfit(op.name(), a.dtype);
        let (x, y, target) = (self.array(left), self.array(right), self.array(&out));
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernels stop at `len`.
        unsafe {
            if a.dtype.is_float() {
                let f = float_binary(op).ok_or_else(unfit)?;
                let types = [stored, self.types.computed(a.dtype), stored];
                binary_kernel::launch_unchecked::<R>(
                    &self.client, count, dim, address, x, y, target, lengths(&shape), at_a.place(), at_b.place(), number, len, f, scalars, types,
                );
            } else {
                let f = int_binary(op).ok_or_else(unfit)?;
                let width = self.types.bits(a.dtype);
                int_binary_kernel::launch_unchecked::<R>(
                    &self.client, count, dim, address, x, y, target, lengths(&shape), at_a.place(), at_b.place(), number, len, f, scalars, width, stored,
                );
            }
        }
        self.launched();
        self.done(out)
    }

    pub(crate) fn compared(&self, op: CompareOp, a: Operand<'_>, b: Operand<'_>) -> Result<Buffer> {
        let Pair { a, b, number, scalars } = self.pair(a, b)?;
        let (left, right, len) = (self.memory_of(a.buffer)?, self.memory_of(b.buffer)?, a.elements());
        let out = self.reserve(len, DType::Bool)?;
        if len == 0 {
            return self.done(out);
        }
        let (shape, [at_a, at_b]) = folded(a.shape(), [&Steps::of(a.layout), &Steps::of(b.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[left.elements, right.elements, len])?;
        let types = [self.types.stored(a.dtype), self.types.computed(a.dtype), self.types.stored(DType::Bool)];
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            compare_kernel::launch_unchecked::<R>(
                &self.client, count, dim, address, self.array(left), self.array(right), self.array(&out), lengths(&shape), at_a.place(),
                at_b.place(), number, len, comparison(op), scalars, types,
            );
        }
        self.launched();
        self.done(out)
    }

    pub(crate) fn chosen(&self, condition: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer> {
        let (test, left, right) = (self.memory_of(condition.buffer)?, self.memory_of(a.buffer)?, self.memory_of(b.buffer)?);
        let len = a.elements();
        let out = self.reserve(len, a.dtype)?;
        if len == 0 {
            return self.done(out);
        }
        let (shape, [at_c, at_a, at_b]) =
            folded(a.shape(), [&Steps::of(condition.layout), &Steps::of(a.layout), &Steps::of(b.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[test.elements, left.elements, right.elements, len])?;
        let types: [StorageType; 2] = [self.types.stored(DType::Bool), self.types.stored(a.dtype)];
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            select_kernel::launch_unchecked::<R>(
                &self.client, count, dim, address, self.array(test), self.array(left), self.array(right), self.array(&out), lengths(&shape),
                at_c.place(), at_a.place(), at_b.place(), len, types,
            );
        }
        self.launched();
        self.done(out)
    }
}

/// The bounds between which a float becomes an integer of this type by truncation: the largest float at or below the
/// smallest integer, and the smallest float at or above the largest.
fn bounds(to: StorageType) -> (f64, f64) {
    use cubecl::ir::{ElemType, IntKind, UIntKind};
    match to.elem_type() {
        ElemType::Int(IntKind::I64) => (-9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0),
        ElemType::Int(_) => (f64::from(i32::MIN), 2_147_483_648.0),
        ElemType::UInt(UIntKind::U8) => (0.0, 255.0),
        _ => (0.0, 4_294_967_296.0),
    }
}
