//! Stable sorting, as orders of indices.

use crate::Gpu;
use crate::launch::{Steps, lengths};
use crate::memory::GpuBuffer;
use crate::reduce::part;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use gradus_core::{Buffer, DType, Layout, Result, View};
use gradus_kernels::sort::{merge_pass_kernel, write_order_kernel};

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn sorted(&self, x: View<'_>, dim: usize, descending: bool) -> Result<Buffer> {
        let out = self.reserve(x.elements(), DType::I64)?;
        if x.elements() == 0 {
            return self.done(out);
        }
        let keys = self.memory_of(x.buffer)?;
        let (rows, from) = part(x.layout, |d| d != dim, x.layout.offset() as isize);
        let len = x.shape()[dim];
        let types = [self.types.stored(x.dtype), self.types.computed(x.dtype)];
        let order = self.order(keys, &rows, &from, x.layout.strides()[dim], len, descending, types)?;
        let dense = Layout::dense(*x.shape());
        let (rows, to) = part(&dense, |d| d != dim, 0);
        let (cubes, threads) = self.grid(x.elements());
        let address = self.address(&[x.elements()])?;
        // SAFETY: the kernel stops at the number of elements, each of which has one place in `out`.
        unsafe {
            write_order_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(order.as_ref().unwrap_or(&out)),
                self.array(&out),
                lengths(&rows),
                to.place(),
                dense.strides()[dim],
                len,
                x.elements(),
                order.is_none(),
                self.types.stored(DType::I64),
            );
        }
        self.launched();
        self.done(out)
    }

    /// The stable order of each row of keys, dense; `None` for rows of one, whose order is 0.
    pub(crate) fn order(
        &self,
        keys: &GpuBuffer,
        rows: &[usize],
        place: &Steps,
        step: isize,
        len: usize,
        descending: bool,
        types: [StorageType; 2],
    ) -> Result<Option<GpuBuffer>> {
        let threads = rows.iter().product::<usize>() * len;
        let address = self.address(&[keys.elements, threads])?;
        let (mut order, mut width) = (None::<GpuBuffer>, 1);
        while width < len {
            let next = self.reserve_bytes(threads, threads * 4)?;
            let (cubes, dim) = self.grid(threads);
            let before = order.as_ref().map_or_else(|| self.array(keys), |o| self.array(o));
            // SAFETY: the rows lie inside the keys' buffer, and the kernel stops at `threads`. The first pass reads no order.
            unsafe {
                merge_pass_kernel::launch_unchecked::<R>(
                    self.client(),
                    cubes,
                    dim,
                    address,
                    self.array(keys),
                    before,
                    self.array(&next),
                    lengths(rows),
                    place.place(),
                    step,
                    len,
                    width,
                    threads,
                    order.is_none(),
                    descending,
                    types,
                );
            }
            self.launched();
            order = Some(next);
            width *= 2;
        }
        Ok(order)
    }
}
