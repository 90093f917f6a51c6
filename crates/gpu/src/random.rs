//! Random numbers with the CPU's bits.

use crate::Gpu;
use crate::runtime::GpuRuntime;
use crate::types::U32;
use cubecl::prelude::*;
use gradus_core::rng::{Distribution, Key};
use gradus_core::{Buffer, DType, Error, Result, Scalar};
use gradus_kernels::random::{Draw, random_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn drawn(&self, distribution: Distribution, key: &Key, elements: usize, dtype: DType) -> Result<Buffer> {
        let (mut low, mut span, mut threshold) = (0i64, 0u32, 0u32);
        let draw = match distribution {
            Distribution::Bits => Draw::Bits,
            Distribution::Uniform => Draw::Uniform,
            Distribution::Normal => Draw::Normal,
            Distribution::Bernoulli(p) => {
                // uniform < p, for uniforms k·2⁻²⁴, is k < ⌈p·2²⁴⌉.
                threshold = (p * 16_777_216.0).ceil().clamp(0.0, 16_777_216.0) as u32;
                Draw::Bernoulli
            }
            Distribution::Integers(from, to) => {
                let width = (to as i128) - (from as i128);
                if !(1..=1 << 32).contains(&width) {
                    return Err(Error::misuse(format!(
                        "integers are drawn from 1 to 2^32 of them, not from {from} up to {to}"
                    )));
                }
                (low, span) = (from, width as u32); // 2³² becomes 0, which stands for it
                Draw::Integers
            }
        };
        let out = self.reserve(elements, dtype)?;
        if elements > 0 {
            let (cubes, dim) = self.grid(elements.div_ceil(4));
            let address = self.address(&[elements])?;
            let low = if draw == Draw::Integers {
                self.number(&Scalar::Int(low), dtype)
            } else {
                InputScalar::new(0u32, U32)
            };
            let (seed, stream) = (key.seed, key.stream);
            // SAFETY: the kernel stops at `elements`.
            unsafe {
                random_kernel::launch_unchecked::<R>(
                    self.client(),
                    cubes,
                    dim,
                    address,
                    self.array(&out),
                    seed as u32,
                    (seed >> 32) as u32,
                    key.step.get(),
                    stream as u32,
                    (stream >> 32) as u32,
                    span,
                    low,
                    threshold,
                    elements,
                    draw,
                    self.types.stored(dtype),
                );
            }
            self.launched();
        }
        self.done(out)
    }
}
