//! Batch normalization of `f32`, which keeps mean and rstd, and its gradients. (In halves what is kept would be halves, too.)

use super::dense;
use crate::Gpu;
use crate::runtime::GpuRuntime;
use cubecl::prelude::CubeDim;
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::batch_norm::{batch_norm_grad_kernel, batch_norm_kernel};
use gradus_kernels::rows::LANES;
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn batch_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
        if x[0].dtype != DType::F32 || !dense(x) {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let parameter = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let (shape, dtype) = (x[0].shape(), x[0].dtype);
        let (channels, places) = (shape[1], shape[2]);
        let out = self.reserve(x[0].elements(), dtype)?;
        let (mean, var) = (self.reserve(channels, dtype)?, self.reserve(channels, dtype)?);
        let ((meta, kept_mean), (_, kept_rstd)) = (self.statistic(channels)?, self.statistic(channels)?);
        let address = self.address(&[memory[0].elements, out.elements])?;
        // SAFETY: dense `[batch, channels, places]` and `[channels]` lie inside their buffers, and the kernel stops at both.
        unsafe {
            batch_norm_kernel::launch_unchecked::<R>(
                &self.client,
                self.cubes(channels),
                CubeDim::new_1d(LANES as u32),
                address,
                self.array(memory[0]),
                parameter(1),
                parameter(2),
                self.array(&out),
                self.array(&mean),
                self.array(&var),
                self.array(&kept_mean),
                self.array(&kept_rstd),
                eps as f32,
                channels,
                places,
                shape[0] * places,
                x.len() > 1,
                self.types.stored(dtype),
            );
        }
        self.launched();
        let outputs = smallvec![self.done(out)?, self.done(mean)?, self.done(var)?];
        let fused = Fused { outputs, ..Fused::default() };
        Ok(Some(fused.keep(meta, self.done(kept_mean)?).keep(meta, self.done(kept_rstd)?)))
    }

    pub(super) fn batch_norm_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let statistics = x.len() == 5 && x[3..].iter().all(|v| v.dtype == DType::F32);
        if x[1].dtype != DType::F32 || !dense(x) || !statistics {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory[i]);
        let (shape, dtype) = (x[1].shape(), x[1].dtype);
        let (channels, places) = (shape[1], shape[2]);
        let dx = self.reserve(x[1].elements(), dtype)?;
        let (dw, db) = (self.reserve(channels, dtype)?, self.reserve(channels, dtype)?);
        let address = self.address(&[memory[0].elements, memory[1].elements])?;
        // SAFETY: as in `batch_norm`; the statistics have `channels` elements each.
        unsafe {
            batch_norm_grad_kernel::launch_unchecked::<R>(
                &self.client,
                self.cubes(channels),
                CubeDim::new_1d(LANES as u32),
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                self.array(&dx),
                self.array(&dw),
                self.array(&db),
                channels,
                places,
                shape[0] * places,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(dx)?, self.done(dw)?, self.done(db)?], ..Fused::default() }))
    }
}
