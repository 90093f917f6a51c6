//! Softmax, its logarithm, and their gradients.

use super::{covered, lines};
use crate::Gpu;
use crate::launch::lengths;
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{Layout, Result, View};
use gradus_kernels::softmax::{softmax_grad_kernel, softmax_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn softmax(&self, x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
        let x = x[0];
        if !covered(x.dtype) || x.elements() == 0 {
            return Ok(None);
        }
        let (memory, out) = (self.memory_of(x.buffer)?, self.reserve(x.elements(), x.dtype)?);
        let dense = Layout::dense(*x.shape());
        let (rows, [from, to]) = lines([x.layout, &dense], dim);
        let width = x.shape()[dim];
        let count = x.elements() / width;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[memory.elements, out.elements])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `count` and `width`.
        unsafe {
            softmax_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(&out),
                lengths(&rows),
                from.place(),
                x.layout.strides()[dim],
                to.place(),
                dense.strides()[dim],
                count,
                width,
                log,
                lanes,
                self.types.stored(x.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    pub(super) fn softmax_grad(&self, x: &[View<'_>], dim: usize, log: bool) -> Result<Option<Fused>> {
        let (g, y) = (x[0], x[1]);
        if !covered(y.dtype) || y.elements() == 0 {
            return Ok(None);
        }
        let (mg, my, out) =
            (self.memory_of(g.buffer)?, self.memory_of(y.buffer)?, self.reserve(y.elements(), y.dtype)?);
        let dense = Layout::dense(*y.shape());
        let (rows, [from_g, from_y, to]) = lines([g.layout, y.layout, &dense], dim);
        let width = y.shape()[dim];
        let count = y.elements() / width;
        let (cubes, threads, lanes) = self.by_rows(count, width);
        let address = self.address(&[mg.elements, my.elements, out.elements])?;
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `count` and `width`.
        unsafe {
            softmax_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(mg),
                self.array(my),
                self.array(&out),
                lengths(&rows),
                from_g.place(),
                g.layout.strides()[dim],
                from_y.place(),
                y.layout.strides()[dim],
                to.place(),
                dense.strides()[dim],
                count,
                width,
                log,
                lanes,
                self.types.stored(y.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }
}
