//! Dropout, whose mask is drawn in the kernel and never stored.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::functional::dropout::Dropout;
use gradus_core::{Result, View};
use gradus_kernels::dropout::dropout_kernel;

impl<R: GpuRuntime> Gpu<R> {
    /// Of x and, perhaps, a residual.
    pub(super) fn dropout(&self, op: &Dropout, all: &[View<'_>]) -> Result<Option<Fused>> {
        let (x, residual) = (all[0], *all.last().unwrap_or(&all[0]));
        let len = x.elements();
        if !covered(x.dtype) || len == 0 {
            return Ok(None);
        }
        let (memory, more) = (self.memory_of(x.buffer)?, self.memory_of(residual.buffer)?);
        let out = self.reserve(len, x.dtype)?;
        let keep = 1.0 - op.p;
        let threshold = (keep * 16_777_216.0).ceil().clamp(0.0, 16_777_216.0) as u32;
        let scale = if keep > 0.0 { (1.0 / keep) as f32 } else { 0.0 };
        let (shape, [from, more_from]) = folded(x.shape(), [&Steps::of(x.layout), &Steps::of(residual.layout)]);
        let (cubes, threads) = self.grid(len.div_ceil(4));
        let address = self.address(&[memory.elements, more.elements, len])?;
        let (seed, stream) = (op.key.seed, op.key.stream);
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            dropout_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(more),
                self.array(&out),
                lengths(&shape),
                from.place(),
                more_from.place(),
                seed as u32,
                (seed >> 32) as u32,
                op.key.step.get(),
                stream as u32,
                (stream >> 32) as u32,
                threshold,
                scale,
                len,
                all.len() > 1,
                self.types.stored(x.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
