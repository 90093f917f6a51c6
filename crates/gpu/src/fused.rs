//! Fused kernels of composites and updates, and their registration. What a kernel does not cover (`f64`, class weights,
//! label smoothing, AMSGrad) runs by its definition.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::*;
use gradus_core::backend::{Dims, MatmulSpec, Operand};
use gradus_core::composite::{Fused, FusedCall};
use gradus_core::functional::linear::Linear;
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad, Reduction};
use gradus_core::functional::norm::{LayerNorm, LayerNormGrad};
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::functional::update::{AdamUpdate, SgdUpdate};
use gradus_core::ops::{BinaryOp, ReduceOp, UnaryGrad, UnaryOp};
use gradus_core::tensor::UpdateCall;
use gradus_core::{Backend, Buffer, DType, Layout, Meta, Result, Scalar, Shape, View};
use gradus_kernels::cross_entropy::{cross_entropy_grad_kernel, cross_entropy_kernel};
use gradus_kernels::layer_norm::{layer_norm_dw_kernel, layer_norm_dx_kernel, layer_norm_kernel};
use gradus_kernels::rows::LANES;
use gradus_kernels::softmax::{softmax_grad_kernel, softmax_kernel};
use gradus_kernels::unary_grad::{self, unary_grad_kernel};
use gradus_kernels::update::{AdamNumbersLaunch, SgdNumbersLaunch, adam_kernel, sgd_kernel};
use smallvec::smallvec;

/// Up to this width a row is one thread's work.
const NARROW: usize = 32;

/// Dtypes that the fused kernels compute, in `f32`.
fn covered(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::Bf16)
}

fn dense(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0
}

/// A view's lines along a dimension: the other dimensions, and the step along it.
fn lines<const N: usize>(layouts: [&Layout; N], dim: usize) -> (Vec<usize>, [Steps; N]) {
    let shape: Vec<usize> = layouts[0].shape().without(dim).to_vec();
    let steps = layouts.map(|l| Steps {
        strides: (0..l.shape().rank()).filter(|&d| d != dim).map(|d| l.strides()[d]).collect(),
        offset: l.offset() as isize,
    });
    folded(&shape, std::array::from_fn(|i| &steps[i]))
}

/// The kernel of an op's gradient, where there is one.
fn gradient(op: UnaryOp) -> Option<unary_grad::UnaryGrad> {
    use unary_grad::UnaryGrad as G;
    Some(match op {
        UnaryOp::Relu => G::Relu,
        UnaryOp::Sigmoid => G::Sigmoid,
        UnaryOp::Tanh => G::Tanh,
        UnaryOp::Exp => G::Exp,
        UnaryOp::Sqrt => G::Sqrt,
        UnaryOp::Log => G::Log,
        UnaryOp::Square => G::Square,
        UnaryOp::Silu => G::Silu,
        UnaryOp::Gelu => G::Gelu,
        UnaryOp::GeluTanh => G::GeluTanh,
        UnaryOp::Abs => G::Abs,
        UnaryOp::Sin => G::Sin,
        UnaryOp::Cos => G::Cos,
        UnaryOp::Softplus => G::Softplus,
        _ => return None,
    })
}

impl<R: GpuRuntime> Gpu<R> {
    /// Enters the fused kernels into this device's table. A device lives as long as the program, so its kernels may hold it.
    pub(crate) fn register_fused(&'static self) {
        let table = self.kernels();
        table.register(|c: FusedCall<'_, Softmax>| self.softmax(c.x, c.op.dim, false));
        table.register(|c: FusedCall<'_, LogSoftmax>| self.softmax(c.x, c.op.dim, true));
        table.register(|c: FusedCall<'_, SoftmaxGrad>| self.softmax_grad(c.x, c.op.dim, false));
        table.register(|c: FusedCall<'_, LogSoftmaxGrad>| self.softmax_grad(c.x, c.op.dim, true));
        table.register(|c: FusedCall<'_, LayerNorm>| self.layer_norm(c.x, c.op.eps));
        table.register(|c: FusedCall<'_, LayerNormGrad>| self.layer_norm_grad(c.x));
        table.register(|c: FusedCall<'_, CrossEntropy>| self.cross_entropy(c.op, c.x));
        table.register(|c: FusedCall<'_, CrossEntropyGrad>| self.cross_entropy_grad(&c.op.0, c.x));
        table.register(|c: FusedCall<'_, UnaryGrad>| self.unary_grad(c.op.0, c.x));
        table.register(|c: FusedCall<'_, Linear>| self.linear(c.op.activation, c.x));
        table.register_update(|c: UpdateCall<'_, '_, SgdUpdate>| self.sgd(c));
        table.register_update(|c: UpdateCall<'_, '_, AdamUpdate>| self.adam(c));
    }

    /// One thread or one cube for each of `rows` rows of `width`.
    fn by_rows(&self, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
        if width <= NARROW {
            let (count, dim) = self.grid(rows);
            (count, dim, 1)
        } else {
            (self.cubes(rows), CubeDim::new_1d(LANES as u32), LANES)
        }
    }

    /// Memory for a statistic of each row, in `f32`.
    fn statistic(&self, rows: usize) -> Result<(Meta, GpuBuffer)> {
        Ok((Meta::new(DType::F32, Shape::try_new(&[rows])?), self.reserve(rows, DType::F32)?))
    }

    fn softmax(&self, x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
        let x = x[0];
        if !covered(x.dtype) || x.elements() == 0 {
            return Ok(None);
        }
        let (memory, out) = (self.memory_of(x.buffer)?, self.reserve(x.elements(), x.dtype)?);
        let dense = Layout::dense(*x.shape());
        let (rows, [from, to]) = lines([x.layout, &dense], dim);
        let width = x.shape()[dim];
        let count = x.elements() / width;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory.elements, out.elements])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `count` and `width`.
        unsafe {
            softmax_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(memory), self.array(&out), lengths(&rows), from.place(),
                x.layout.strides()[dim], to.place(), dense.strides()[dim], count, width, log, lanes, self.types.stored(x.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    fn softmax_grad(&self, x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
        let (g, y) = (x[0], x[1]);
        if !covered(y.dtype) || y.elements() == 0 {
            return Ok(None);
        }
        let (mg, my, out) = (self.memory_of(g.buffer)?, self.memory_of(y.buffer)?, self.reserve(y.elements(), y.dtype)?);
        let dense = Layout::dense(*y.shape());
        let (rows, [from_g, from_y, to]) = lines([g.layout, y.layout, &dense], dim);
        let width = y.shape()[dim];
        let count = y.elements() / width;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[mg.elements, my.elements, out.elements])?;
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `count` and `width`.
        unsafe {
            softmax_grad_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(mg), self.array(my), self.array(&out), lengths(&rows), from_g.place(),
                g.layout.strides()[dim], from_y.place(), y.layout.strides()[dim], to.place(), dense.strides()[dim], count, width, log, lanes,
                self.types.stored(y.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    fn layer_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || !dense(x) {
            return Ok(None);
        }
        let (count, width) = (x[0].shape()[0], x[0].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let offset = |i: usize| x.get(i).map_or(0, |v| v.layout.offset());
        let parameter = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let out = self.reserve(count * width, x[0].dtype)?;
        let ((meta, mean), (_, rstd)) = (self.statistic(count)?, self.statistic(count)?);
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory[0].elements, out.elements])?;
        // SAFETY: dense views of `[count, width]` and `[width]` lie inside their buffers, and the kernel stops at both.
        unsafe {
            layer_norm_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(memory[0]), parameter(1), parameter(2), self.array(&out), self.array(&mean),
                self.array(&rstd), offset(0), offset(1), offset(2), eps as f32, count, width, x.len() as u32 - 1, lanes,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(meta, self.done(mean)?).keep(meta, self.done(rstd)?)))
    }

    fn layer_norm_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let statistics = x[3..].iter().all(|v| v.dtype == DType::F32 && v.layout.offset() == 0);
        if !covered(x[1].dtype) || !dense(x) || !statistics {
            return Ok(None);
        }
        let (count, width) = (x[1].shape()[0], x[1].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory[i]);
        let offset = |i: usize| x[i].layout.offset();
        let dtype = x[1].dtype;
        let (dx, dw, db) = (self.reserve(count * width, dtype)?, self.reserve(width, dtype)?, self.reserve(width, dtype)?);
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory[0].elements, memory[1].elements])?;
        let stored = self.types.stored(dtype);
        let (columns, column_threads) = self.grid(width);
        // SAFETY: as in `layer_norm`; the statistics have `count` elements each.
        unsafe {
            layer_norm_dx_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, array(0), array(1), array(2), array(3), array(4), self.array(&dx), offset(0), offset(1),
                offset(2), count, width, lanes, stored,
            );
            layer_norm_dw_kernel::launch_unchecked::<R>(
                &self.client, columns, column_threads, address, array(0), array(1), array(3), array(4), self.array(&dw), self.array(&db),
                offset(0), offset(1), count, width, stored,
            );
        }
        self.launched();
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(dx)?, self.done(dw)?, self.done(db)?], ..Fused::default() }))
    }

    fn cross_entropy(&self, op: &CrossEntropy, x: &[View<'_>]) -> Result<Option<Fused>> {
        let logits = x[0];
        if x.len() > 2 || op.smoothing != 0.0 || !covered(logits.dtype) || logits.elements() == 0 {
            return Ok(None);
        }
        let (count, classes) = (logits.shape()[0], logits.shape()[1]);
        let (memory, targets) = (self.memory_of(logits.buffer)?, self.memory_of(x[1].buffer)?);
        let ((_, losses), (meta, lse), (_, counted)) = (self.statistic(count)?, self.statistic(count)?, self.statistic(count)?);
        let (cubes, threads, lanes) = self.by_rows(count, classes);
        let address = self.address(&[memory.elements, targets.elements])?;
        let types = [self.types.stored(logits.dtype), self.types.stored(DType::I64)];
        let ignore = self.number(&Scalar::Int(op.ignore), DType::I64);
        // SAFETY: the views lie inside their buffers (the caller's contract); the kernel stops at `count` and `classes`, and
        // follows no target out of range.
        unsafe {
            cross_entropy_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(memory), self.array(targets), self.array(&losses), self.array(&lse),
                self.array(&counted), self.raw(&self.fault, 1), Steps::of(logits.layout).place(), Steps::of(x[1].layout).place(), ignore,
                count, classes, lanes, types,
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
                let mean = self.zip(BinaryOp::Div, Operand::View(view(&sum, &one)), Operand::View(view(&divisor, &one)))?;
                (mean, one)
            }
        };
        let out = if logits.dtype == DType::F32 { out } else { self.convert(view(&out, &layout), logits.dtype)? };
        Ok(Some(Fused::one(out).keep(meta, self.done(lse)?).keep(Meta::new(DType::F32, Shape::SCALAR), divisor)))
    }

    fn cross_entropy_grad(&self, op: &CrossEntropy, x: &[View<'_>]) -> Result<Option<Fused>> {
        let kept = x.len() == 5 && x[3..].iter().all(|v| v.dtype == DType::F32 && v.layout.is_dense() && v.layout.offset() == 0);
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
        let g = Steps { strides: vec![x[0].layout.strides().first().copied().unwrap_or(0)], offset: x[0].layout.offset() as isize };
        let place = |i: usize| Steps::of(x[i].layout).place();
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            cross_entropy_grad_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, array(0), array(1), array(2), array(3), array(4), self.array(&out), g.place(), place(1),
                place(2), ignore, x[1].shape()[1], len, op.reduction == Reduction::Mean, types,
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    fn unary_grad(&self, op: UnaryOp, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, v] = x else { return Ok(None) };
        let Some(kernel) = gradient(op).filter(|_| covered(g.dtype) && v.dtype == g.dtype && g.elements() > 0) else {
            return Ok(None);
        };
        let (mg, mv, len) = (self.memory_of(g.buffer)?, self.memory_of(v.buffer)?, g.elements());
        let out = self.reserve(len, g.dtype)?;
        let (shape, [at_g, at_v]) = folded(g.shape(), [&Steps::of(g.layout), &Steps::of(v.layout)]);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[mg.elements, mv.elements, len])?;
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            unary_grad_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(mg), self.array(mv), self.array(&out), lengths(&shape), at_g.place(),
                at_v.place(), len, kernel, self.types.stored(g.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    fn linear(&self, activation: Option<UnaryOp>, x: &[View<'_>]) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) {
            return Ok(None);
        }
        let turned = x[1].layout.permute(&[1, 0]); // [in, out]
        let spec = MatmulSpec { bias: x.get(2).copied(), activation };
        Ok(Some(Fused::one(self.product(x[0], View { layout: &turned, ..x[1] }, &spec)?)))
    }

    /// The gradient's and the targets' memory of an update of `N` targets, where a kernel covers it.
    fn update_of<'a, const N: usize>(&self, targets: &'a [&mut Buffer], meta: Meta, x: &[View<'a>]) -> Result<Option<(View<'a>, [&'a GpuBuffer; N])>> {
        let [g] = x else { return Ok(None) };
        if !covered(meta.dtype) || g.dtype != meta.dtype || *g.shape() != meta.shape || targets.len() != N || g.elements() == 0 {
            return Ok(None);
        }
        let memory = targets.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        Ok(memory.try_into().ok().map(|memory| (*g, memory)))
    }

    fn sgd(&self, c: UpdateCall<'_, '_, SgdUpdate>) -> Result<bool> {
        let with_buffer = self.update_of::<2>(c.targets, c.meta, c.x)?;
        let plain = self.update_of::<1>(c.targets, c.meta, c.x)?;
        let momentum = with_buffer.is_some();
        let stand_in; // without a buffer the kernel wants memory of another tensor, which it leaves alone
        let (g, p, b) = match (with_buffer, plain) {
            (Some((g, [p, b])), _) => (g, p, b),
            (None, Some((g, [p]))) => {
                stand_in = self.reserve(1, c.meta.dtype)?;
                (g, p, &stand_in)
            }
            (None, None) => return Ok(false),
        };
        let (memory, len) = (self.memory_of(g.buffer)?, g.elements());
        let (shape, [at_g]) = folded(g.shape(), [&Steps::of(g.layout)]);
        let number = |s: &Scalar| s.to_f64() as f32;
        let sign = if c.op.maximize { -1.0 } else { 1.0 };
        let numbers =
            SgdNumbersLaunch::new(number(&c.op.learning_rate), number(&c.op.momentum), number(&c.op.gain), c.op.weight_decay as f32, sign);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, len])?;
        // SAFETY: the targets are dense, held alone and of g's shape (the caller's contract); the kernel stops at `len`.
        unsafe {
            sgd_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(memory), self.array(p), self.array(b), lengths(&shape), at_g.place(), numbers,
                len, momentum, c.op.nesterov, self.types.stored(c.meta.dtype),
            );
        }
        self.launched();
        Ok(true)
    }

    fn adam(&self, c: UpdateCall<'_, '_, AdamUpdate>) -> Result<bool> {
        let Some((g, [p, m, v])) = self.update_of::<3>(c.targets, c.meta, c.x)? else { return Ok(false) };
        let (memory, len) = (self.memory_of(g.buffer)?, g.elements());
        let (shape, [at_g]) = folded(g.shape(), [&Steps::of(g.layout)]);
        let number = |s: &Scalar| s.to_f64() as f32;
        let op = c.op;
        let numbers = AdamNumbersLaunch::new(
            number(&op.one_minus_beta1),
            op.beta2 as f32,
            (1.0 - op.beta2) as f32,
            op.eps as f32,
            number(&op.step_size),
            number(&op.rsqrt_bias2),
            op.weight_decay as f32,
            op.decay.as_ref().map_or(1.0, number),
            if op.maximize { -1.0 } else { 1.0 },
        );
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, len])?;
        // SAFETY: as in `sgd`.
        unsafe {
            adam_kernel::launch_unchecked::<R>(
                &self.client, cubes, threads, address, self.array(memory), self.array(p), self.array(m), self.array(v), lengths(&shape),
                at_g.place(), numbers, len, self.types.stored(c.meta.dtype),
            );
        }
        self.launched();
        Ok(true)
    }
}
