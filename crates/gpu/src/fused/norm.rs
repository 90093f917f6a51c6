//! Layer normalization, which keeps mean and rstd, perhaps of a sum with a residual, and its gradients.

use super::{covered, dense};
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::layer_norm::{
    add_layer_norm_kernel, layer_norm_dw_kernel, layer_norm_dx_kernel, layer_norm_kernel,
};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn layer_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
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
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                parameter(1),
                parameter(2),
                self.array(&out),
                self.array(&mean),
                self.array(&rstd),
                offset(0),
                offset(1),
                offset(2),
                eps as f32,
                count,
                width,
                x.len() as u32 - 1,
                lanes,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(meta, self.done(mean)?).keep(meta, self.done(rstd)?)))
    }

    /// Of x, a residual and, perhaps, w and b.
    pub(super) fn add_layer_norm(&self, x: &[View<'_>], eps: f64) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || !dense(x) {
            return Ok(None);
        }
        let (count, width) = (x[0].shape()[0], x[0].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let offset = |i: usize| x.get(i).map_or(0, |v| v.layout.offset());
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let (out, sum) = (self.reserve(count * width, x[0].dtype)?, self.reserve(count * width, x[0].dtype)?);
        let ((meta, mean), (_, rstd)) = (self.statistic(count)?, self.statistic(count)?);
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory[0].elements, memory[1].elements, out.elements])?;
        // SAFETY: as in `layer_norm`; the residual is like x.
        unsafe {
            add_layer_norm_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                self.array(&out),
                self.array(&sum),
                self.array(&mean),
                self.array(&rstd),
                offset(0),
                offset(1),
                offset(2),
                offset(3),
                eps as f32,
                count,
                width,
                x.len() as u32 - 2,
                lanes,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        let fused = Fused { outputs: smallvec![self.done(out)?, self.done(sum)?], ..Fused::default() };
        Ok(Some(fused.keep(meta, self.done(mean)?).keep(meta, self.done(rstd)?)))
    }

    /// Of g, x, w, mean, rstd and, perhaps, what else flows to x.
    pub(super) fn layer_norm_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let statistics = x[3..5].iter().all(|v| v.dtype == DType::F32 && v.layout.offset() == 0);
        if !covered(x[1].dtype) || !dense(x) || !statistics {
            return Ok(None);
        }
        let (count, width) = (x[1].shape()[0], x[1].shape()[1]);
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let offset = |i: usize| x.get(i).map_or(0, |v| v.layout.offset());
        let dtype = x[1].dtype;
        let (dx, dw, db) =
            (self.reserve(count * width, dtype)?, self.reserve(width, dtype)?, self.reserve(width, dtype)?);
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory[0].elements, memory[1].elements])?;
        let stored = self.types.stored(dtype);
        let (columns, column_threads) = self.grid(width);
        // SAFETY: as in `layer_norm`; the statistics have `count` elements each.
        unsafe {
            layer_norm_dx_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                array(5),
                self.array(&dx),
                offset(0),
                offset(1),
                offset(2),
                offset(5),
                count,
                width,
                x.len() > 5,
                lanes,
                stored,
            );
        }
        self.launched();
        // SAFETY: as above.
        unsafe {
            layer_norm_dw_kernel::launch_unchecked::<R>(
                self.client(),
                columns,
                column_threads,
                address,
                array(0),
                array(1),
                array(3),
                array(4),
                self.array(&dw),
                self.array(&db),
                offset(0),
                offset(1),
                count,
                width,
                stored,
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(dx)?, self.done(dw)?, self.done(db)?], ..Fused::default() }))
    }
}
