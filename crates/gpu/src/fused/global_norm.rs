//! The 2-norm of several tensors together: a launch for each, and one for their sum.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::runtime::GpuRuntime;
use cubecl::prelude::{CubeCount, CubeDim};
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::global_norm::{root_sum_kernel, square_sum_kernel};
use gradus_kernels::rows::LANES;

/// The most elements of one cube.
const CHUNK: usize = 16_384;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn global_norm(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let dtype = x[0].dtype;
        let count = x.iter().map(|v| v.elements().div_ceil(CHUNK)).sum();
        if !covered(dtype) || count == 0 {
            return Ok(None);
        }
        let (parts, out) = (self.reserve(count, DType::F32)?, self.reserve(1, dtype)?);
        let mut first = 0;
        for v in x.iter().filter(|v| v.elements() > 0) {
            let (memory, len) = (self.memory_of(v.buffer)?, v.elements());
            let (shape, [at]) = folded(v.shape(), [&Steps::of(v.layout)]);
            let chunks = len.div_ceil(CHUNK);
            // SAFETY: the view lies inside its buffer (the caller's contract), the kernel stops at `len`, and writes one number
            // for each of `chunks`, for which there is room.
            unsafe {
                square_sum_kernel::launch_unchecked::<R>(
                    &self.client,
                    self.cubes(chunks),
                    CubeDim::new_1d(LANES as u32),
                    self.address(&[memory.elements, count])?,
                    self.array(memory),
                    self.array(&parts),
                    lengths(&shape),
                    at.place(),
                    first,
                    len,
                    CHUNK,
                    chunks,
                    self.types.stored(dtype),
                );
            }
            self.launched();
            first += chunks;
        }
        // SAFETY: the kernel reads `count` numbers, and writes one.
        unsafe {
            root_sum_kernel::launch_unchecked::<R>(
                &self.client,
                CubeCount::new_single(),
                CubeDim::new_1d(LANES as u32),
                self.address(&[count])?,
                self.array(&parts),
                self.array(&out),
                count,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
