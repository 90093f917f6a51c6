//! Group normalization, which keeps mean and rstd of each group, perhaps with a residual and a ReLU, and its gradients.

use super::covered;
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::batch_norm::Around;
use gradus_kernels::group_norm::{group_norm_dw_kernel, group_norm_dx_kernel, group_norm_kernel};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    /// Of x, w, b and a residual; the last three may be absent.
    pub(super) fn group_norm(&self, x: &[View<'_>], groups: usize, eps: f64, relu: bool) -> Result<Option<Fused>> {
        let (dtype, elements) = (x[0].dtype, x[0].elements());
        if !covered(dtype) || elements == 0 {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let (rows, channels, places) = (x[0].shape()[0] * groups, x[0].shape()[1] / groups, x[0].shape()[2]);
        let out = self.reserve(elements, dtype)?;
        let ((meta, mean), (_, rstd)) = (self.statistic(rows)?, self.statistic(rows)?);
        let (cubes, threads, lanes) = self.by_rows(rows, channels * places);
        let address = self.address(&[elements])?;
        // SAFETY: x is dense and has `rows` groups of `channels * places`, where the kernel stops; w and b have a number for each
        // channel, the residual is like x; what `Around` says is absent is not read.
        unsafe {
            group_norm_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                self.array(&out),
                self.array(&mean),
                self.array(&rstd),
                eps as f32,
                rows,
                groups,
                channels,
                places,
                Around { affine: x.len() > 1, relu, residual: x.len() > 3 },
                lanes,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(meta, self.done(mean)?).keep(meta, self.done(rstd)?)))
    }

    /// Of g, x, mean, rstd and, if there is one, w; where a ReLU followed, of the output, too.
    pub(super) fn group_norm_grad(&self, x: &[View<'_>], groups: usize, residual: bool) -> Result<Option<Fused>> {
        let (dtype, elements) = (x[1].dtype, x[1].elements());
        if !covered(dtype) || elements == 0 || x[2].dtype != DType::F32 {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[1]));
        let (batch, all, places) = (x[1].shape()[0], x[1].shape()[1], x[1].shape()[2]);
        let (rows, channels) = (batch * groups, all / groups);
        let around = Around { affine: x.len() > 4, relu: x.len() > 5, residual };
        let dx = self.reserve(elements, dtype)?;
        // Without a residual the kernel wants memory all the same, which it leaves alone.
        let of_residual = self.reserve(if residual { elements } else { 1 }, dtype)?;
        let address = self.address(&[elements])?;
        let stored = self.types.stored(dtype);
        let (cubes, threads, lanes) = self.by_rows(rows, channels * places);
        // SAFETY: as in `group_norm`; the statistics have `rows` elements each.
        unsafe {
            group_norm_dx_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                operand(0),
                operand(1),
                operand(2),
                operand(3),
                operand(4),
                operand(5),
                self.array(&dx),
                self.array(&of_residual),
                rows,
                groups,
                channels,
                places,
                around,
                lanes,
                stored,
            );
        }
        self.launched();
        let mut outputs = smallvec![self.done(dx)?];
        if around.affine {
            let (dw, db) = (self.reserve(all, dtype)?, self.reserve(all, dtype)?);
            let (cubes, threads, lanes) = self.by_rows(all, batch * places);
            // SAFETY: as above.
            unsafe {
                group_norm_dw_kernel::launch_unchecked::<R>(
                    self.client(),
                    cubes,
                    threads,
                    address,
                    operand(0),
                    operand(1),
                    operand(2),
                    operand(3),
                    operand(5),
                    self.array(&dw),
                    self.array(&db),
                    batch * places,
                    groups,
                    channels,
                    places,
                    around.relu,
                    lanes,
                    stored,
                );
            }
            self.launched();
            outputs.extend([self.done(dw)?, self.done(db)?]);
        }
        if residual {
            outputs.push(self.done(of_residual)?);
        }
        Ok(Some(Fused { outputs, ..Fused::default() }))
    }
}
