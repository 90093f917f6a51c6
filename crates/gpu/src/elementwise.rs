//! Elementwise families: copies and casts, writing in place, and functions of one, two or three operands.

use crate::Gpu;
use crate::kernel_of::{bounds, comparison, float_binary, float_unary, int_binary, int_unary};
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use gradus_core::backend::{Operand, WriteMode};
use gradus_core::ops::{BinaryOp, CompareOp, UnaryKind, UnaryOp};
use gradus_core::{Buffer, DType, Error, Layout, Result, Scalar, View};
use gradus_kernels::binary::{Scalars, binary_kernel, int_binary_kernel};
use gradus_kernels::compare::{compare_kernel, select_kernel};
use gradus_kernels::copy::{Convert, copy_kernel, fill_kernel, store_kernel};
use gradus_kernels::unary::{int_unary_kernel, unary_kernel};

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
        let bound = |v: f64| {
            if how == Convert::FloatToInt {
                InputScalar::new(v, self.types.computed(x.dtype))
            } else {
                InputScalar::new(0u32, crate::types::U32)
            }
        };
        let (shape, [steps]) = folded(x.shape(), [&Steps::of(x.layout)]);
        let (count, dim) = self.grid(len);
        let address = self.address(&[src.elements, len])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `len`.
        unsafe {
            copy_kernel::launch_unchecked::<R>(
                self.client(),
                count,
                dim,
                address,
                self.array(src),
                self.array(&out),
                lengths(&shape),
                steps.place(),
                len,
                bound(low),
                bound(high),
                how,
                [from, self.types.stored(to)],
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
                    self.client(),
                    count,
                    dim,
                    address,
                    self.array(&out),
                    self.number(value, dtype),
                    elements,
                    self.types.stored(dtype),
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
                self.client(),
                count,
                dim,
                address,
                self.array(from),
                self.array(to),
                lengths(&shape),
                read.place(),
                write.place(),
                len,
                mode == WriteMode::Add,
                types,
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
                unary_kernel::launch_unchecked::<R>(
                    self.client(),
                    count,
                    dim,
                    address,
                    array,
                    target,
                    shape,
                    steps.place(),
                    len,
                    f,
                    types,
                );
            } else {
                let f = int_unary(op, x.dtype).ok_or_else(unfit)?;
                let types = [stored, result];
                int_unary_kernel::launch_unchecked::<R>(
                    self.client(),
                    count,
                    dim,
                    address,
                    array,
                    target,
                    shape,
                    steps.place(),
                    len,
                    f,
                    types,
                );
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
            (Operand::Scalar(_), Operand::Scalar(_)) => {
                return Err(Error::misuse("an elementwise kernel needs a tensor"));
            }
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
                    self.client(),
                    count,
                    dim,
                    address,
                    x,
                    y,
                    target,
                    lengths(&shape),
                    at_a.place(),
                    at_b.place(),
                    number,
                    len,
                    f,
                    scalars,
                    types,
                );
            } else {
                let f = int_binary(op).ok_or_else(unfit)?;
                let width = self.types.bits(a.dtype);
                int_binary_kernel::launch_unchecked::<R>(
                    self.client(),
                    count,
                    dim,
                    address,
                    x,
                    y,
                    target,
                    lengths(&shape),
                    at_a.place(),
                    at_b.place(),
                    number,
                    len,
                    f,
                    scalars,
                    width,
                    stored,
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
                self.client(),
                count,
                dim,
                address,
                self.array(left),
                self.array(right),
                self.array(&out),
                lengths(&shape),
                at_a.place(),
                at_b.place(),
                number,
                len,
                comparison(op),
                scalars,
                types,
            );
        }
        self.launched();
        self.done(out)
    }

    pub(crate) fn chosen(&self, condition: View<'_>, a: View<'_>, b: View<'_>) -> Result<Buffer> {
        let (test, left, right) =
            (self.memory_of(condition.buffer)?, self.memory_of(a.buffer)?, self.memory_of(b.buffer)?);
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
                self.client(),
                count,
                dim,
                address,
                self.array(test),
                self.array(left),
                self.array(right),
                self.array(&out),
                lengths(&shape),
                at_c.place(),
                at_a.place(),
                at_b.place(),
                len,
                types,
            );
        }
        self.launched();
        self.done(out)
    }
}
