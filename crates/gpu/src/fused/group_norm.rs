//! Group normalization, which keeps mean and rstd of each group, and its gradients.

use super::covered;
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::functional::group_norm::GroupNorm;
use gradus_core::{DType, Result, View};
use gradus_kernels::group_norm::{group_norm_dw_kernel, group_norm_dx_kernel, group_norm_kernel};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    /// Of x, and of w and b, which may be absent.
    pub(super) fn group_norm(&self, op: &GroupNorm, x: &[View<'_>]) -> Result<Option<Fused>> {
        let (dtype, elements) = (x[0].dtype, x[0].elements());
        if !covered(dtype) || elements == 0 {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[0]));
        let (rows, channels, places) = (x[0].shape()[0] * op.groups, x[0].shape()[1] / op.groups, x[0].shape()[2]);
        let out = self.reserve(elements, dtype)?;
        let ((meta, mean), (_, rstd)) = (self.statistic(rows)?, self.statistic(rows)?);
        let (cubes, threads, lanes) = self.by_rows(rows, channels * places);
        let address = self.address(&[elements])?;
        // SAFETY: x is dense and has `rows` groups of `channels * places`, where the kernel stops; w and b have a number for each
        // channel, and are not read where there are none.
        unsafe {
            group_norm_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                operand(0),
                operand(1),
                operand(2),
                self.array(&out),
                self.array(&mean),
                self.array(&rstd),
                op.eps as f32,
                rows,
                op.groups,
                channels,
                places,
                x.len() > 1,
                lanes,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?).keep(meta, self.done(mean)?).keep(meta, self.done(rstd)?)))
    }

    /// Of g, x, mean, rstd and, if their gradients are wanted, w.
    pub(super) fn group_norm_grad(&self, groups: usize, x: &[View<'_>]) -> Result<Option<Fused>> {
        let (dtype, elements) = (x[1].dtype, x[1].elements());
        if !covered(dtype) || elements == 0 || x[2].dtype != DType::F32 {
            return Ok(None);
        }
        let held = x.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>>>()?;
        let memory = held.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        let operand = |i: usize| self.array(memory.get(i).copied().unwrap_or(memory[1]));
        let (batch, all, places) = (x[1].shape()[0], x[1].shape()[1], x[1].shape()[2]);
        let (rows, channels, affine) = (batch * groups, all / groups, x.len() > 4);
        let dx = self.reserve(elements, dtype)?;
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
                self.array(&dx),
                rows,
                groups,
                channels,
                places,
                affine,
                lanes,
                stored,
            );
        }
        self.launched();
        let mut outputs = smallvec![self.done(dx)?];
        if affine {
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
                    self.array(&dw),
                    self.array(&db),
                    batch * places,
                    groups,
                    channels,
                    places,
                    lanes,
                    stored,
                );
            }
            self.launched();
            outputs.extend([self.done(dw)?, self.done(db)?]);
        }
        Ok(Some(Fused { outputs, ..Fused::default() }))
    }
}
