//! Rotation by position, in one launch, of rows that lie anywhere.

use super::{covered, lines};
use crate::Gpu;
use crate::launch::lengths;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::functional::rotary::Rotary;
use gradus_core::{Result, View};
use gradus_kernels::rotary::{TurningLaunch, rotary_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn rotary(&self, op: &Rotary, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [x, cos, sin] = x else { return Ok(None) };
        let tables = cos.layout.is_dense() && sin.layout.is_dense();
        if !covered(x.dtype) || x.elements() == 0 || !tables {
            return Ok(None);
        }
        let [mx, mc, ms] = [self.memory_of(x.buffer)?, self.memory_of(cos.buffer)?, self.memory_of(sin.buffer)?];
        let last = x.shape().rank() - 1;
        let (width, pairs) = (x.shape()[last], cos.shape()[1]);
        let (rows, [at_x]) = lines([x.layout], last);
        let out = self.reserve(x.elements(), x.dtype)?;
        let len = x.elements() / width * (width - pairs);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[mx.elements, mc.elements, ms.elements, out.elements])?;
        let turning = TurningLaunch::new(
            width,
            pairs,
            cos.shape()[0],
            x.layout.strides()[last],
            cos.layout.offset(),
            sin.layout.offset(),
            if op.back { -1.0 } else { 1.0 },
        );
        // SAFETY: the views lie inside their buffers (the caller's contract); the composite's `infer` checked that there are angles for
        // each position and numbers for each pair, and the kernel stops at `len`.
        unsafe {
            rotary_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(mx),
                self.array(mc),
                self.array(ms),
                self.array(&out),
                lengths(&rows),
                at_x.place(),
                turning,
                len,
                op.interleaved,
                self.types.stored(x.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
