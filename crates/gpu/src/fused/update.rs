//! Optimizer steps in place. AMSGrad's fourth target, and `f64`, run by definition.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use gradus_core::functional::update::{AdamUpdate, SgdUpdate};
use gradus_core::tensor::UpdateCall;
use gradus_core::{Buffer, Meta, Result, Scalar, View};
use gradus_kernels::update::{AdamNumbersLaunch, SgdNumbersLaunch, adam_kernel, sgd_kernel};

impl<R: GpuRuntime> Gpu<R> {
    /// The gradient's and the targets' memory of an update of `N` targets, where a kernel covers it.
    pub(super) fn update_of<'a, const N: usize>(
        &self,
        targets: &'a [&mut Buffer],
        meta: Meta,
        x: &[View<'a>],
    ) -> Result<Option<(View<'a>, [&'a GpuBuffer; N])>> {
        let [g] = x else { return Ok(None) };
        if !covered(meta.dtype)
            || g.dtype != meta.dtype
            || *g.shape() != meta.shape
            || targets.len() != N
            || g.elements() == 0
        {
            return Ok(None);
        }
        let memory = targets.iter().map(|b| self.memory_of(b)).collect::<Result<Vec<_>>>()?;
        Ok(memory.try_into().ok().map(|memory| (*g, memory)))
    }

    pub(super) fn sgd(&self, c: UpdateCall<'_, '_, SgdUpdate>) -> Result<bool> {
        let with_buffer = self.update_of::<2>(c.targets, c.meta, c.x)?;
        let plain = self.update_of::<1>(c.targets, c.meta, c.x)?;
        let momentum = with_buffer.is_some();
        let stand_in; // without a buffer the kernel wants memory of another tensor, which it leaves alone
        let (g, p, b) = match (with_buffer, plain) {
            (Some((g, [p, b])), _) => (g, p, b),
            (None, Some((g, [p]))) => {
                stand_in = self.reserve(1, c.meta.dtype)?;
                (g, p, &stand_in)
            }
            (None, None) => return Ok(false),
        };
        let (memory, len) = (self.memory_of(g.buffer)?, g.elements());
        let (shape, [at_g]) = folded(g.shape(), [&Steps::of(g.layout)]);
        let number = |s: &Scalar| s.to_f64() as f32;
        let sign = if c.op.maximize { -1.0 } else { 1.0 };
        let numbers = SgdNumbersLaunch::new(
            number(&c.op.learning_rate),
            number(&c.op.momentum),
            number(&c.op.gain),
            c.op.weight_decay as f32,
            sign,
        );
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, len])?;
        // SAFETY: the targets are dense, held alone and of g's shape (the caller's contract); the kernel stops at `len`.
        unsafe {
            sgd_kernel::launch_unchecked::<R>(
                &self.client,
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(p),
                self.array(b),
                lengths(&shape),
                at_g.place(),
                numbers,
                len,
                momentum,
                c.op.nesterov,
                self.types.stored(c.meta.dtype),
            );
        }
        self.updated();
        Ok(true)
    }

    pub(super) fn adam(&self, c: UpdateCall<'_, '_, AdamUpdate>) -> Result<bool> {
        let Some((g, [p, m, v])) = self.update_of::<3>(c.targets, c.meta, c.x)? else { return Ok(false) };
        let (memory, len) = (self.memory_of(g.buffer)?, g.elements());
        let (shape, [at_g]) = folded(g.shape(), [&Steps::of(g.layout)]);
        let number = |s: &Scalar| s.to_f64() as f32;
        let op = c.op;
        let numbers = AdamNumbersLaunch::new(
            number(&op.one_minus_beta1),
            op.beta2 as f32,
            (1.0 - op.beta2) as f32,
            op.eps as f32,
            number(&op.step_size),
            number(&op.rsqrt_bias2),
            op.weight_decay as f32,
            op.decay.as_ref().map_or(1.0, number),
            if op.maximize { -1.0 } else { 1.0 },
        );
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, len])?;
        // SAFETY: as in `sgd`.
        unsafe {
            adam_kernel::launch_unchecked::<R>(
                &self.client,
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(p),
                self.array(m),
                self.array(v),
                lengths(&shape),
                at_g.place(),
                numbers,
                len,
                self.types.stored(c.meta.dtype),
            );
        }
        self.updated();
        Ok(true)
    }
}
