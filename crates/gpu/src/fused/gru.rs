//! A GRU's step from its gates, forward and backward, in one pass.

use super::{covered, lines};
use crate::Gpu;
use crate::launch::{Steps, lengths};
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{Result, View};
use gradus_kernels::gru::{LinesLaunch, gru_step_grad_kernel, gru_step_kernel};
use smallvec::smallvec;

/// How the rows of a view lie.
fn along<R: GpuRuntime>(rows: &Steps, v: &View<'_>) -> LinesLaunch<R> {
    LinesLaunch::new(rows.place(), v.layout.strides()[v.shape().rank() - 1])
}

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn gru_step(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [gx, gh, h] = x else { return Ok(None) };
        let len = h.elements();
        if !covered(h.dtype) || len == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let out = self.reserve(len, h.dtype)?;
        let last = h.shape().rank() - 1;
        // The state's rows are the gates' rows.
        let (rows, [at_h, at_x, at_s]) = lines([h.layout, gx.layout, gh.layout], last);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory[0].elements, memory[1].elements, memory[2].elements, 3 * len])?;
        // SAFETY: the views lie inside their buffers (the caller's contract): a row of gates is three rows of the state.
        unsafe {
            gru_step_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory[2]),
                self.array(&out),
                lengths(&rows),
                along(&at_x, gx),
                along(&at_s, gh),
                along(&at_h, h),
                h.shape()[last],
                len,
                self.types.stored(h.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    pub(super) fn gru_step_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [gx, gh, h, g] = x else { return Ok(None) };
        let (len, dtype) = (h.elements(), h.dtype);
        if !covered(dtype) || len == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (dx, ds) = (self.reserve(3 * len, dtype)?, self.reserve(3 * len, dtype)?);
        let dh = self.reserve(len, dtype)?;
        let last = h.shape().rank() - 1;
        let (rows, [at_h, at_x, at_s, at_g]) = lines([h.layout, gx.layout, gh.layout, g.layout], last);
        let (cubes, threads) = self.grid(len);
        let longest = memory.iter().map(|m| m.elements).max().unwrap_or(0);
        let address = self.address(&[longest, 3 * len])?;
        // SAFETY: as in `gru_step`.
        unsafe {
            gru_step_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory[2]),
                self.array(memory[3]),
                self.array(&dx),
                self.array(&ds),
                self.array(&dh),
                lengths(&rows),
                along(&at_x, gx),
                along(&at_s, gh),
                along(&at_h, h),
                along(&at_g, g),
                h.shape()[last],
                len,
                self.types.stored(dtype),
            );
        }
        self.launched();
        let outputs = smallvec![self.done(dx)?, self.done(ds)?, self.done(dh)?];
        Ok(Some(Fused { outputs, ..Fused::default() }))
    }
}
