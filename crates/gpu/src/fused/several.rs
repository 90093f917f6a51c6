//! The 2-norm of several tensors together, or whether all of their elements are finite: a launch for as many as it has room for, and one
//! for their sum.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::{CubeCount, CubeDim, SequenceArg};
use gradus_core::composite::Fused;
use gradus_core::{DType, Result, View};
use gradus_kernels::rows::LANES;
use gradus_kernels::several::{Question, SummandLaunch, answer_kernel, several_kernel};

/// The most elements of one cube.
const CHUNK: usize = 16_384;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn global_norm(&self, x: &[View<'_>], factor: f64) -> Result<Option<Fused>> {
        self.several(x, Question::Norm, factor as f32, x[0].dtype)
    }
    pub(super) fn all_finite(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        self.several(x, Question::Finite, 1.0, DType::Bool)
    }

    /// What is asked of all of them, as one number of the dtype `answer`.
    fn several(&self, x: &[View<'_>], asked: Question, factor: f32, answer: DType) -> Result<Option<Fused>> {
        let count = x.iter().map(|v| v.elements().div_ceil(CHUNK)).sum();
        if !covered(x[0].dtype) || count == 0 {
            return Ok(None);
        }
        let (parts, out) = (self.reserve(count, DType::F32)?, self.reserve(1, answer)?);
        let tensors: Vec<&View<'_>> = x.iter().filter(|v| v.elements() > 0).collect();
        let mut first = 0;
        for some in tensors.chunks(self.most_tensors(1)) {
            first += self.sums(some, asked, factor, &parts, first)?;
        }
        // SAFETY: the kernel reads `count` numbers, and writes one.
        unsafe {
            answer_kernel::launch_unchecked::<R>(
                self.client(),
                CubeCount::new_single(),
                CubeDim::new_1d(LANES as u32),
                self.address(&[count])?,
                self.array(&parts),
                self.array(&out),
                count,
                asked,
                self.types.stored(answer),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
    /// Writes the sums over these tensors' chunks, from `first` on; gives how many there are.
    fn sums(&self, x: &[&View<'_>], asked: Question, factor: f32, parts: &GpuBuffer, first: usize) -> Result<usize> {
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
            several_kernel::launch_unchecked::<R>(
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
                factor,
                asked,
                self.types.stored(x[0].dtype),
            );
        }
        self.launched();
        Ok(chunks)
    }
}
