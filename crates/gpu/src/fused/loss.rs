//! Softmax cross-entropy with class indices, which keeps ln Σ e^x and the number of rows that count, and its gradient.

use super::covered;
use crate::Gpu;
use crate::launch::Steps;
use crate::runtime::GpuRuntime;
use gradus_core::backend::{Dims, Operand};
use gradus_core::composite::Fused;
use gradus_core::functional::loss::{CrossEntropy, Reduction};
use gradus_core::ops::{BinaryOp, ReduceOp};
use gradus_core::{Buffer, DType, Layout, Meta, Result, Scalar, Shape, View};
use gradus_kernels::cross_entropy::{cross_entropy_grad_kernel, cross_entropy_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn cross_entropy(&self, op: &CrossEntropy, x: &[View<'_>]) -> Result<Option<Fused>> {
        let logits = x[0];
        if x.len() > 2 || op.smoothing != 0.0 || !covered(logits.dtype) || logits.elements() == 0 {
            return Ok(None);
        }
        let (count, classes) = (logits.shape()[0], logits.shape()[1]);
        let (memory, targets) = (self.memory_of(logits.buffer)?, self.memory_of(x[1].buffer)?);
        let ((_, losses), (meta, lse), (_, counted)) =
            (self.statistic(count)?, self.statistic(count)?, self.statistic(count)?);
        let (cubes, threads, lanes) = self.by_rows(count, classes);
        let address = self.address(&[memory.elements, targets.elements])?;
        let types = [self.types.stored(logits.dtype), self.types.stored(DType::I64)];
        let ignore = self.number(&Scalar::Int(op.ignore), DType::I64);
        // SAFETY: the views lie inside their buffers (the caller's contract); the kernel stops at `count` and `classes`, and
        // follows no target out of range.
        unsafe {
            cross_entropy_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(targets),
                self.array(&losses),
                self.array(&lse),
                self.array(&counted),
                self.fault(),
                Steps::of(logits.layout).place(),
                Steps::of(x[1].layout).place(),
                ignore,
                count,
                classes,
                self.site("cross_entropy", classes, true),
                lanes,
                types,
            );
        }
        self.launched();
        let (losses, counted) = (self.done(losses)?, self.done(counted)?);
        let (rows, one) = (Layout::dense(*x[1].shape()), Layout::dense(Shape::SCALAR));
        fn view<'a>(buffer: &'a Buffer, layout: &'a Layout) -> View<'a> {
            View { buffer, layout, dtype: DType::F32 }
        }
        let divisor = self.reduced(ReduceOp::Sum, view(&counted, &rows), Dims::all(1))?;
        let (out, layout) = match op.reduction {
            Reduction::None => (losses, rows),
            Reduction::Sum => (self.reduced(ReduceOp::Sum, view(&losses, &rows), Dims::all(1))?, one),
            Reduction::Mean => {
                let sum = self.reduced(ReduceOp::Sum, view(&losses, &rows), Dims::all(1))?;
                let mean =
                    self.zip(BinaryOp::Div, Operand::View(view(&sum, &one)), Operand::View(view(&divisor, &one)))?;
                (mean, one)
            }
        };
        let out = if logits.dtype == DType::F32 { out } else { self.convert(view(&out, &layout), logits.dtype)? };
        Ok(Some(Fused::one(out).keep(meta, self.done(lse)?).keep(Meta::new(DType::F32, Shape::SCALAR), divisor)))
    }

    pub(super) fn cross_entropy_grad(&self, op: &CrossEntropy, x: &[View<'_>]) -> Result<Option<Fused>> {
        let kept = x.len() == 5
            && x[3..].iter().all(|v| v.dtype == DType::F32 && v.layout.is_dense() && v.layout.offset() == 0);
        if op.smoothing != 0.0 || !kept || !covered(x[1].dtype) || x[1].elements() == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory[i]);
        let len = x[1].elements();
        let out = self.reserve(len, x[1].dtype)?;
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory[1].elements, len])?;
        let types = [self.types.stored(x[1].dtype), self.types.stored(DType::I64)];
        let ignore = self.number(&Scalar::Int(op.ignore), DType::I64);
        // One number for all rows stands still.
        let g = Steps {
            strides: vec![x[0].layout.strides().first().copied().unwrap_or(0)],
            offset: x[0].layout.offset() as isize,
        };
        let place = |i: usize| Steps::of(x[i].layout).place();
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            cross_entropy_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                self.array(&out),
                g.place(),
                place(1),
                place(2),
                ignore,
                x[1].shape()[1],
                len,
                op.reduction == Reduction::Mean,
                types,
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
