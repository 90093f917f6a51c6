//! Root-mean-square normalization, which keeps its rstd, perhaps of a sum with a residual, and its gradients.

use super::{covered, dense};
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::rms_norm::{add_rms_norm_kernel, rms_norm_dw_kernel, rms_norm_dx_kernel, rms_norm_kernel};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn rms_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || !dense(x) {
            return Ok(None);
        }
        let (count, width) = (x[0].shape()[0], x[0].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let out = self.reserve(count * width, x[0].dtype)?;
        let (meta, rstd) = self.statistic(count)?;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        // SAFETY: dense views of `[count, width]` and `[width]` lie inside their buffers, and the kernel stops at both.
        unsafe {
            rms_norm_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                self.address(&[memory[0].elements, out.elements])?,
                self.array(memory[0]),
                self.array(memory.get(1).copied().unwrap_or(memory[0])),
                self.array(&out),
                self.array(&rstd),
                x[0].layout.offset(),
                x.get(1).map_or(0, |w| w.layout.offset()),
                eps as f32,
                count,
                width,
                x.len() > 1,
                lanes,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(meta, self.done(rstd)?)))
    }

    /// Of x, a residual and, perhaps, w.
    pub(super) fn add_rms_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || !dense(x) {
            return Ok(None);
        }
        let (count, width) = (x[0].shape()[0], x[0].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (out, sum) = (self.reserve(count * width, x[0].dtype)?, self.reserve(count * width, x[0].dtype)?);
        let (meta, rstd) = self.statistic(count)?;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory[0].elements, memory[1].elements, out.elements])?;
        // SAFETY: as in `rms_norm`; the residual is like x.
        unsafe {
            add_rms_norm_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory.get(2).copied().unwrap_or(memory[0])),
                self.array(&out),
                self.array(&sum),
                self.array(&rstd),
                x[0].layout.offset(),
                x[1].layout.offset(),
                x.get(2).map_or(0, |w| w.layout.offset()),
                eps as f32,
                count,
                width,
                x.len() > 2,
                lanes,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        let fused = Fused { outputs: smallvec![self.done(out)?, self.done(sum)?], ..Fused::default() };
        Ok(Some(fused.keep(meta, self.done(rstd)?)))
    }

    /// Of g, x, w, rstd and, perhaps, what else flows to x.
    pub(super) fn rms_norm_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let kept = x.len() >= 4 && x[3].dtype == DType::F32 && x[3].layout.offset() == 0;
        if !kept || !covered(x[1].dtype) || !dense(x) {
            return Ok(None);
        }
        let (dtype, count, width) = (x[1].dtype, x[1].shape()[0], x[1].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let offset = |i: usize| x.get(i).map_or(0, |v| v.layout.offset());
        let (dx, dw) = (self.reserve(count * width, dtype)?, self.reserve(width, dtype)?);
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let (columns, column_threads) = self.grid(width);
        let address = self.address(&[memory[0].elements, memory[1].elements])?;
        // SAFETY: as in `rms_norm`; the statistic has `count` elements.
        unsafe {
            rms_norm_dx_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                self.array(&dx),
                offset(0),
                offset(1),
                offset(2),
                offset(4),
                count,
                width,
                x.len() > 4,
                lanes,
                self.types.stored(dtype),
            );
        }
        self.launched();
        // SAFETY: as above.
        unsafe {
            rms_norm_dw_kernel::launch_unchecked::<R>(
                self.client(),
                columns,
                column_threads,
                address,
                array(0),
                array(1),
                array(3),
                self.array(&dw),
                offset(0),
                offset(1),
                count,
                width,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(dx)?, self.done(dw)?], ..Fused::default() }))
    }
}
