//! The sums of Muon's iteration.

use super::{covered, dense};
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::{DType, Result, View};
use gradus_kernels::newton_schulz::newton_schulz_kernel;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn newton_schulz(&self, op: &NewtonSchulzSum, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [a, b] = *x else { return Ok(None) };
        if !covered(a.dtype) || !dense(x) || op.halves && !self.types.has(DType::Bf16) {
            return Ok(None);
        }
        let (len, dtype) = (a.elements(), a.dtype);
        let (a, b, out) = (self.dense(a)?, self.dense(b)?, self.reserve(len, dtype)?);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[len])?;
        let rounded = if op.halves { DType::Bf16 } else { dtype };
        // SAFETY: all are dense and have `len` elements, where the kernel stops.
        unsafe {
            newton_schulz_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(self.memory_of(&a)?),
                self.array(self.memory_of(&b)?),
                self.array(&out),
                op.own as f32,
                op.other as f32,
                len,
                self.types.stored(dtype),
                self.types.stored(rounded),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
