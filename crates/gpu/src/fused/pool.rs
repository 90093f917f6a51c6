//! Pooling, which keeps where each maximum was, and its gradients.

use super::covered;
use super::window::{spatial, windows};
use crate::Gpu;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::functional::pool::{AvgPool, MaxPool};
use gradus_core::functional::window::Window;
use gradus_core::{DType, Meta, Result, View};
use gradus_kernels::pool::{avg_pool_grad_kernel, avg_pool_kernel, max_pool_grad_kernel, max_pool_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn max_pool(&self, op: &MaxPool, x: View<'_>, outputs: &[Meta]) -> Result<Option<Fused>> {
        let (shape, kept) = (outputs[0].shape, MaxPool::places_dtype(&op.window));
        let len = shape.elements();
        if !covered(x.dtype) || len == 0 || !self.types.has(kept) {
            return Ok(None);
        }
        let source = self.dense(x)?;
        let source = self.memory_of(&source)?;
        let (out, places) = (self.reserve(len, x.dtype)?, self.reserve(len, kept)?);
        // Indices that nobody asked for are not written.
        let indices = self.reserve(if op.indices { len } else { 1 }, DType::I64)?;
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[source.elements, len])?;
        let types = [x.dtype, kept, DType::I64].map(|d| self.types.stored(d));
        // SAFETY: a dense input of the composite's shape (which its `infer` checked); the kernel stops at `len`, and reads no
        // padding.
        unsafe {
            max_pool_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(source),
                self.array(&out),
                self.array(&places),
                self.array(&indices),
                windows(&op.window),
                len,
                op.indices,
                types,
            );
        }
        self.launched();
        let mut fused = Fused::one(self.done(out)?).keep(Meta::new(kept, shape), self.done(places)?);
        if op.indices {
            fused.outputs.push(self.done(indices)?);
        }
        Ok(Some(fused))
    }

    pub(super) fn max_pool_grad(&self, w: &Window, x: &[View<'_>], outputs: &[Meta]) -> Result<Option<Fused>> {
        let len = outputs[0].shape.elements();
        if !covered(x[0].dtype) || len == 0 || !self.types.has(x[1].dtype) {
            return Ok(None);
        }
        let (g, places) = (self.dense(x[0])?, self.dense(x[1])?);
        let (g, places) = (self.memory_of(&g)?, self.memory_of(&places)?);
        let out = self.reserve(len, x[0].dtype)?;
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[g.elements, len])?;
        // SAFETY: as in `max_pool`.
        unsafe {
            max_pool_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(g),
                self.array(places),
                self.array(&out),
                windows(w),
                len,
                [x[0].dtype, x[1].dtype].map(|d| self.types.stored(d)),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    /// The means of windows, or (`grad`) their adjoint.
    pub(super) fn avg_pool(&self, op: &AvgPool, x: View<'_>, outputs: &[Meta], grad: bool) -> Result<Option<Fused>> {
        let len = outputs[0].shape.elements();
        if !covered(x.dtype) || len == 0 {
            return Ok(None);
        }
        let source = self.dense(x)?;
        let source = self.memory_of(&source)?;
        let out = self.reserve(len, x.dtype)?;
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[source.elements, len])?;
        let (w, after) = (windows(&op.window), spatial(&op.after, op.window.rank));
        let (from, to, stored) = (self.array(source), self.array(&out), self.types.stored(x.dtype));
        // SAFETY: as in `max_pool`.
        unsafe {
            let (client, counted) = (self.client(), op.count_padding);
            if grad {
                avg_pool_grad_kernel::launch_unchecked::<R>(
                    client, cubes, threads, address, from, to, w, after, len, counted, stored,
                );
            } else {
                avg_pool_kernel::launch_unchecked::<R>(
                    client, cubes, threads, address, from, to, w, after, len, counted, stored,
                );
            }
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
