//! The 2-norm of several tensors together: a launch for as many as it has room for, and one for their sum.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::{CubeCount, CubeDim, SequenceArg};
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::global_norm::{SummandLaunch, root_sum_kernel, square_sum_kernel};
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
        let tensors: Vec<&View<'_>> = x.iter().filter(|v| v.elements() > 0).collect();
        let mut first = 0;
        for some in tensors.chunks(self.most_tensors(1)) {
            first += self.square_sums(some, &parts, first)?;
        }
        // SAFETY: the kernel reads `count` numbers, and writes one.
        unsafe {
            root_sum_kernel::launch_unchecked::<R>(
                self.client(),
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
    /// Writes the sums of squares of these tensors' chunks, from `first` on; gives how many there are.
    fn square_sums(&self, x: &[&View<'_>], parts: &GpuBuffer, first: usize) -> Result<usize> {
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (mut chunks, mut summands) = (0, SequenceArg::new());
        for v in x {
            let (shape, [at]) = folded(v.shape(), [&Steps::of(v.layout)]);
            summands.push(SummandLaunch::new(chunks, v.elements(), lengths(&shape), at.place()));
            chunks += v.elements().div_ceil(CHUNK);
        }
        let longest = memory.iter().map(|m| m.elements).max().unwrap_or(0);
        // SAFETY: the views lie inside their buffers (the caller's contract), the kernel stops at each one's length, and writes one
        // number for each of `chunks`, for which there is room.
        unsafe {
            square_sum_kernel::launch_unchecked::<R>(
                self.client(),
                self.cubes(chunks),
                CubeDim::new_1d(LANES as u32),
                self.address(&[longest, chunks * CHUNK])?,
                memory.iter().map(|m| self.array(m)).collect(),
                self.array(parts),
                summands,
                first,
                CHUNK,
                chunks,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        Ok(chunks)
    }
}
