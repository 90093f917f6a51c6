//! Cumulative reductions along a dimension.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::StorageType;
use gradus_core::ops::ScanOp;
use gradus_core::{Buffer, DType, Layout, Result, View};
use gradus_kernels::reduce::Combine;
use gradus_kernels::scan::{scan_kernel, scan_totals_kernel};

/// The length of a chunk.
const CHUNK: usize = 256;

/// The lines of a scan: where they lie in the input and in the output.
struct Lines {
    rows: Vec<usize>,
    len: usize,
    from: Steps,
    step: isize,
    to: Steps,
    out_step: isize,
}

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn scanned(&self, op: ScanOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        let to = if x.dtype.is_float() { x.dtype } else { DType::I64 };
        let out = self.reserve(x.elements(), to)?;
        if x.elements() == 0 {
            return self.done(out);
        }
        let combine = match op {
            ScanOp::Sum => Combine::Sum,
            ScanOp::Prod => Combine::Prod,
        };
        let dense = Layout::dense(*x.shape());
        let rest: Vec<usize> = x.shape().without(dim).to_vec();
        let without = |l: &Layout, offset| Steps {
            strides: (0..l.shape().rank()).filter(|&d| d != dim).map(|d| l.strides()[d]).collect(),
            offset,
        };
        let (rows, [from, target]) =
            folded(&rest, [&without(x.layout, x.layout.offset() as isize), &without(&dense, 0)]);
        let lines = Lines {
            rows,
            len: x.shape()[dim],
            from,
            step: x.layout.strides()[dim],
            to: target,
            out_step: dense.strides()[dim],
        };
        let types = [self.types.stored(x.dtype), self.types.computed(to), self.types.stored(to)];
        self.scan_lines(self.memory_of(x.buffer)?, &out, &lines, combine, types)?;
        self.done(out)
    }

    /// Scans each line: the totals of its chunks, their own scan, then each chunk from the total before it.
    fn scan_lines(
        &self,
        x: &GpuBuffer,
        out: &GpuBuffer,
        lines: &Lines,
        op: Combine,
        types: [StorageType; 3],
    ) -> Result<()> {
        let rows: usize = lines.rows.iter().product();
        let chunk = if lines.len <= 2 * CHUNK { lines.len } else { CHUNK };
        let chunks = lines.len.div_ceil(chunk);
        let threads = rows * chunks;
        let address = self.address(&[x.elements, out.elements, threads])?;
        let totals = if chunks == 1 {
            None
        } else {
            let sums = self.reserve_bytes(threads, threads * types[1].size())?;
            let (cubes, dim) = self.grid(threads);
            // SAFETY: the lines lie inside their buffers, and the kernel stops at `threads` and `len`.
            unsafe {
                scan_totals_kernel::launch_unchecked::<R>(
                    self.client(),
                    cubes,
                    dim,
                    address,
                    self.array(x),
                    self.array(&sums),
                    lengths(&lines.rows),
                    lines.from.place(),
                    lines.step,
                    lines.len,
                    chunks,
                    chunk,
                    threads,
                    op,
                    [types[0], types[1]],
                );
            }
            self.launched();
            let scanned = self.reserve_bytes(threads, threads * types[1].size())?;
            let row = || Steps { strides: vec![chunks as isize], offset: 0 };
            let dense = Lines { rows: vec![rows], len: chunks, from: row(), step: 1, to: row(), out_step: 1 };
            self.scan_lines(&sums, &scanned, &dense, op, [types[1]; 3])?;
            Some(scanned)
        };
        let (cubes, dim) = self.grid(threads);
        // SAFETY: as above; each thread writes the places of its chunk. Without chunks the totals are not read.
        unsafe {
            scan_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                dim,
                address,
                self.array(x),
                self.array(totals.as_ref().unwrap_or(x)),
                self.array(out),
                lengths(&lines.rows),
                lines.from.place(),
                lines.step,
                lines.to.place(),
                lines.out_step,
                lines.len,
                chunks,
                chunk,
                threads,
                op,
                types,
            );
        }
        self.launched();
        Ok(())
    }
}
