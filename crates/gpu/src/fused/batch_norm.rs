//! Batch normalization of `f32`, which keeps mean and rstd, perhaps with a residual and a ReLU, and its gradients; averages
//! that follow batches; and normalization by known statistics. (In halves what is kept would be halves, too.)

use super::{covered, dense};
use crate::Gpu;
use crate::runtime::GpuRuntime;
use cubecl::prelude::CubeDim;
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::batch_norm::{Around, batch_norm_grad_kernel, batch_norm_kernel};
use gradus_kernels::channel_affine::channel_affine_kernel;
use gradus_kernels::rows::LANES;
use gradus_kernels::running_average::running_average_kernel;
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    /// Of x, w, b and a residual; the last three may be absent.
    pub(super) fn batch_norm(&self, x: &[View<'_>], eps: f64, relu: bool) -> Result<Option<Fused>> {
        if x[0].dtype != DType::F32 || !dense(x) {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let (shape, dtype) = (x[0].shape(), x[0].dtype);
        let (channels, places) = (shape[1], shape[2]);
        let out = self.reserve(x[0].elements(), dtype)?;
        let (mean, var) = (self.reserve(channels, dtype)?, self.reserve(channels, dtype)?);
        let ((meta, kept_mean), (_, kept_rstd)) = (self.statistic(channels)?, self.statistic(channels)?);
        let address = self.address(&[memory[0].elements, out.elements])?;
        // SAFETY: dense `[batch, channels, places]` and `[channels]` lie inside their buffers, and the kernel stops at both; what
        // `Around` says is absent is not read.
        unsafe {
            batch_norm_kernel::launch_unchecked::<R>(
                self.client(),
                self.cubes(channels),
                CubeDim::new_1d(LANES as u32),
                address,
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                self.array(&out),
                self.array(&mean),
                self.array(&var),
                self.array(&kept_mean),
                self.array(&kept_rstd),
                eps as f32,
                channels,
                places,
                shape[0] * places,
                Around { affine: x.len() > 1, relu, residual: x.len() > 3 },
                self.types.stored(dtype),
            );
        }
        self.launched();
        let outputs = smallvec![self.done(out)?, self.done(mean)?, self.done(var)?];
        let fused = Fused { outputs, ..Fused::default() };
        Ok(Some(fused.keep(meta, self.done(kept_mean)?).keep(meta, self.done(kept_rstd)?)))
    }

    /// Of g, x, w, mean and rstd.
    pub(super) fn batch_norm_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, x, w, mean, rstd] = x else { return Ok(None) };
        // No bias is read, and no output.
        self.batch_norm_back([g, x, w, w, mean, rstd, g], Around { affine: true, relu: false, residual: false })
    }

    /// Of g, x, w, b, mean, rstd and, if there is a residual, the output.
    pub(super) fn batch_norm_relu_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, x, w, b, mean, rstd, y @ ..] = x else { return Ok(None) };
        let around = Around { affine: true, relu: true, residual: !y.is_empty() };
        self.batch_norm_back([g, x, w, b, mean, rstd, y.first().unwrap_or(g)], around)
    }

    /// The gradients of x, w and b, and of the residual, if there is one: of g, x, w, b, mean, rstd and y.
    fn batch_norm_back(&self, of: [&View<'_>; 7], around: Around) -> Result<Option<Fused>> {
        let x = of[1];
        let statistics = of[4..6].iter().all(|v| v.dtype == DType::F32);
        if x.dtype != DType::F32 || x.elements() == 0 || !of.iter().all(|v| v.layout.is_dense()) || !statistics {
            return Ok(None);
        }
        let held = of.iter().map(|v| self.dense(**v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory[i]);
        let (shape, dtype) = (x.shape(), x.dtype);
        let (channels, places) = (shape[1], shape[2]);
        let dx = self.reserve(x.elements(), dtype)?;
        let (dw, db) = (self.reserve(channels, dtype)?, self.reserve(channels, dtype)?);
        // Without a residual the kernel wants memory all the same, which it leaves alone.
        let of_residual = self.reserve(if around.residual { x.elements() } else { 1 }, dtype)?;
        let address = self.address(&[memory[0].elements, memory[1].elements])?;
        // SAFETY: as in `batch_norm`; the statistics have `channels` elements each.
        unsafe {
            batch_norm_grad_kernel::launch_unchecked::<R>(
                self.client(),
                self.cubes(channels),
                CubeDim::new_1d(LANES as u32),
                address,
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                operand(4),
                operand(5),
                operand(6),
                self.array(&dx),
                self.array(&dw),
                self.array(&db),
                self.array(&of_residual),
                channels,
                places,
                shape[0] * places,
                around,
                self.types.stored(dtype),
            );
        }
        self.launched();
        let mut outputs = smallvec![self.done(dx)?, self.done(dw)?, self.done(db)?];
        if around.residual {
            outputs.push(self.done(of_residual)?);
        }
        Ok(Some(Fused { outputs, ..Fused::default() }))
    }

    /// Of an average and what it follows.
    pub(super) fn running_average(&self, x: &[View<'_>], momentum: f64) -> Result<Option<Fused>> {
        let [old, new] = x else { return Ok(None) };
        if !covered(old.dtype) || !dense(x) {
            return Ok(None);
        }
        let (old, new, len, dtype) = (self.dense(*old)?, self.dense(*new)?, old.elements(), old.dtype);
        let (old, new, out) = (self.memory_of(&old)?, self.memory_of(&new)?, self.reserve(len, dtype)?);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[len])?;
        // SAFETY: both are dense and have `len` elements, where the kernel stops.
        unsafe {
            running_average_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(old),
                self.array(new),
                self.array(&out),
                (1.0 - momentum) as f32,
                momentum as f32,
                len,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    /// Of x, scale and shift.
    pub(super) fn channel_affine(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let (len, dtype) = (x[0].elements(), x[0].dtype);
        if !covered(dtype) || len == 0 {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let out = self.reserve(len, dtype)?;
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[len])?;
        // SAFETY: x is dense and has `len` elements, where the kernel stops; scale and shift have a number for each channel.
        unsafe {
            channel_affine_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory[2]),
                self.array(&out),
                x[0].shape()[1],
                x[0].shape()[2],
                len,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
