//! An LSTM's step from its gates, forward and backward, in one pass.

use super::{covered, lines};
use crate::Gpu;
use crate::launch::lengths;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{Result, View};
use gradus_kernels::lstm::{lstm_step_grad_kernel, lstm_step_kernel};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn lstm_step(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [gx, gh, c] = x else { return Ok(None) };
        let len = c.elements();
        if !covered(c.dtype) || len == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (h_next, c_next) = (self.reserve(len, c.dtype)?, self.reserve(len, c.dtype)?);
        let last = c.shape().rank() - 1;
        let step = |v: &View<'_>| v.layout.strides()[last];
        // The state's rows are the gates' rows.
        let (rows, [at_c, at_x, at_h]) = lines([c.layout, gx.layout, gh.layout], last);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory[0].elements, memory[1].elements, memory[2].elements, 4 * len])?;
        // SAFETY: the views lie inside their buffers (the caller's contract): a row of gates is four rows of the state.
        unsafe {
            lstm_step_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory[2]),
                self.array(&h_next),
                self.array(&c_next),
                lengths(&rows),
                at_x.place(),
                at_h.place(),
                at_c.place(),
                step(gx),
                step(gh),
                step(c),
                c.shape()[last],
                len,
                self.types.stored(c.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(h_next)?, self.done(c_next)?], ..Fused::default() }))
    }

    pub(super) fn lstm_step_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [gx, gh, c, of_h, of_c] = x else { return Ok(None) };
        let len = c.elements();
        if !covered(c.dtype) || len == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let array = |i: usize| self.array(memory[i]);
        let (gates, dc) = (self.reserve(4 * len, c.dtype)?, self.reserve(len, c.dtype)?);
        let last = c.shape().rank() - 1;
        let step = |v: &View<'_>| v.layout.strides()[last];
        let (rows, [at_c, at_x, at_h, at_of_h, at_of_c]) =
            lines([c.layout, gx.layout, gh.layout, of_h.layout, of_c.layout], last);
        let (cubes, threads) = self.grid(len);
        let longest = memory.iter().map(|m| m.elements).max().unwrap_or(0);
        let address = self.address(&[longest, 4 * len])?;
        // SAFETY: as in `lstm_step`.
        unsafe {
            lstm_step_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                array(0),
                array(1),
                array(2),
                array(3),
                array(4),
                self.array(&gates),
                self.array(&dc),
                lengths(&rows),
                at_x.place(),
                at_h.place(),
                at_c.place(),
                at_of_h.place(),
                at_of_c.place(),
                step(gx),
                step(gh),
                step(c),
                step(of_h),
                step(of_c),
                c.shape()[last],
                len,
                self.types.stored(c.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(gates)?, self.done(dc)?], ..Fused::default() }))
    }
}
