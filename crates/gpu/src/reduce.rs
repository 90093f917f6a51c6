//! Reductions, cumulative reductions and sorting. Which kernel runs, and how it cuts its work, depends on shapes alone.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use crate::types::U32;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use gradus_core::backend::Dims;
use gradus_core::ops::{ArgReduceOp, ReduceOp, ScanOp};
use gradus_core::{Buffer, DType, Layout, Result, Scalar, View};
use gradus_kernels::reduce::{CUBE, Combine, Shade, arg_cube_kernel, arg_unit_kernel, reduce_cube_kernel, reduce_unit_kernel};
use gradus_kernels::scan::{scan_kernel, scan_totals_kernel};
use gradus_kernels::sort::{merge_pass_kernel, write_order_kernel};

/// Up to this many elements, or from this many results on, one thread reduces each result alone.
const SHORT: usize = 256;
const MANY: usize = 4096;
/// The least that a cube takes when a long reduction is cut in chunks, and the most chunks.
const CHUNK: usize = 4096;
const CHUNKS: usize = 256;
/// The length of a scan's chunk.
const SCAN: usize = 256;

/// A strided operand of a launch: memory, its element type, and its steps over the kept and the reduced dimensions.
struct Source<'a> {
    memory: &'a GpuBuffer,
    stored: StorageType,
    kept: (Vec<usize>, Steps),
    reduced: (Vec<usize>, Steps),
}

/// A shape and steps restricted to the dimensions that `keep` names.
fn part(layout: &Layout, keep: impl Fn(usize) -> bool, offset: isize) -> (Vec<usize>, Steps) {
    let dims = || (0..layout.shape().rank()).filter(|&d| keep(d));
    let shape: Vec<usize> = dims().map(|d| layout.shape()[d]).collect();
    let steps = Steps { strides: dims().map(|d| layout.strides()[d]).collect(), offset };
    let (shape, [steps]) = folded(&shape, [&steps]);
    (shape, steps)
}

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn reduced(&self, op: ReduceOp, x: View<'_>, dims: Dims) -> Result<Buffer> {
        let to = op.dtype(x.dtype);
        let outputs = dims.dropped(x.shape()).elements();
        let count = dims.count(x.shape());
        if count == 0 || outputs == 0 {
            let nothing = match op {
                ReduceOp::Mean => Scalar::Float(f64::NAN),
                ReduceOp::Prod | ReduceOp::All => Scalar::Int(1),
                _ => Scalar::Int(0),
            };
            return self.filled(outputs, to, &nothing);
        }
        let (combine, shade) = match op {
            ReduceOp::Sum => (Combine::Sum, Shade::Plain),
            ReduceOp::Mean => (Combine::Sum, Shade::Mean),
            ReduceOp::Prod => (Combine::Prod, Shade::Plain),
            ReduceOp::Max => (Combine::Max, Shade::Plain),
            ReduceOp::Min => (Combine::Min, Shade::Plain),
            ReduceOp::Any => (Combine::Max, Shade::Truth),
            ReduceOp::All => (Combine::Min, Shade::Truth),
        };
        // Sums accumulate in the result's type, `any` and `all` in 0 and 1.
        let accumulator = if shade == Shade::Truth { U32 } else { self.types.computed(to) };
        let source = Source {
            memory: self.memory_of(x.buffer)?,
            stored: self.types.stored(x.dtype),
            kept: part(x.layout, |d| !dims.has(d), x.layout.offset() as isize),
            reduced: part(x.layout, |d| dims.has(d), 0),
        };
        let divisor = || match shade {
            Shade::Mean => InputScalar::new(count as f64, accumulator),
            _ => InputScalar::new(1u32, accumulator),
        };
        let out = self.reserve(outputs, to)?;
        let stored = self.types.stored(to);
        if count <= SHORT || outputs >= MANY {
            self.reduce_by_units(&source, &out, outputs, count, divisor(), combine, shade, [source.stored, accumulator, stored])?;
            return self.done(out);
        }
        let chunk = CHUNK.max(count.div_ceil(CHUNKS));
        let chunks = count.div_ceil(chunk);
        if chunks == 1 {
            self.reduce_by_cubes(&source, &out, outputs, count, [1, chunk], divisor(), combine, shade, [source.stored, accumulator, stored])?;
            return self.done(out);
        }
        // Each chunk of each result first, then the chunks.
        let parts = self.reserve_bytes(outputs * chunks, outputs * chunks * accumulator.size())?;
        let first = if shade == Shade::Truth { Shade::Truth } else { Shade::Plain };
        self.reduce_by_cubes(&source, &parts, outputs, count, [chunks, chunk], divisor(), combine, first, [source.stored, accumulator, accumulator])?;
        let rows = Source {
            memory: &parts,
            stored: accumulator,
            kept: (vec![outputs], Steps { strides: vec![chunks as isize], offset: 0 }),
            reduced: (vec![chunks], Steps { strides: vec![1], offset: 0 }),
        };
        let last = if shade == Shade::Mean { Shade::Mean } else { Shade::Plain };
        self.reduce_by_units(&rows, &out, outputs, chunks, divisor(), combine, last, [accumulator, accumulator, stored])?;
        self.done(out)
    }

    fn reduce_by_units(
        &self,
        x: &Source<'_>,
        out: &GpuBuffer,
        outputs: usize,
        count: usize,
        divisor: InputScalar,
        op: Combine,
        shade: Shade,
        types: [StorageType; 3],
    ) -> Result<()> {
        let (cubes, dim) = self.grid(outputs);
        let address = self.address(&[x.memory.elements, outputs])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `outputs` and `count`.
        unsafe {
            reduce_unit_kernel::launch_unchecked::<R>(
                &self.client, cubes, dim, address, self.array(x.memory), self.array(out), lengths(&x.kept.0), x.kept.1.place(),
                lengths(&x.reduced.0), x.reduced.1.place(), outputs, count, divisor, op, shade, types,
            );
        }
        self.launched();
        Ok(())
    }

    fn reduce_by_cubes(
        &self,
        x: &Source<'_>,
        out: &GpuBuffer,
        outputs: usize,
        count: usize,
        [chunks, chunk]: [usize; 2],
        divisor: InputScalar,
        op: Combine,
        shade: Shade,
        types: [StorageType; 3],
    ) -> Result<()> {
        let address = self.address(&[x.memory.elements, outputs * chunks])?;
        // SAFETY: as in `reduce_by_units`; each cube writes the one place of its chunk.
        unsafe {
            reduce_cube_kernel::launch_unchecked::<R>(
                &self.client, self.cubes(outputs * chunks), CubeDim::new_1d(CUBE), address, self.array(x.memory), self.array(out),
                lengths(&x.kept.0), x.kept.1.place(), lengths(&x.reduced.0), x.reduced.1.place(), outputs, count, chunks, chunk,
                divisor, op, shade, types,
            );
        }
        self.launched();
        Ok(())
    }

    pub(crate) fn arg_reduced(&self, op: ArgReduceOp, x: View<'_>, dim: usize) -> Result<Buffer> {
        let memory = self.memory_of(x.buffer)?;
        let (outputs, count) = (x.shape().without(dim).elements(), x.shape()[dim]);
        let out = self.reserve(outputs, DType::I64)?;
        if outputs == 0 {
            return self.done(out);
        }
        let (shape, steps) = part(x.layout, |d| d != dim, x.layout.offset() as isize);
        let step = x.layout.strides()[dim];
        let types = [self.types.stored(x.dtype), self.types.computed(x.dtype), self.types.stored(DType::I64)];
        let address = self.address(&[memory.elements, outputs])?;
        let largest = op == ArgReduceOp::Max;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernels stop at `outputs` and `count`.
        unsafe {
            if count <= SHORT || outputs >= MANY {
                let (cubes, threads) = self.grid(outputs);
                arg_unit_kernel::launch_unchecked::<R>(
                    &self.client, cubes, threads, address, self.array(memory), self.array(&out), lengths(&shape), steps.place(), step, outputs,
                    count, largest, types,
                );
            } else {
                arg_cube_kernel::launch_unchecked::<R>(
                    &self.client, self.cubes(outputs), CubeDim::new_1d(CUBE), address, self.array(memory), self.array(&out), lengths(&shape),
                    steps.place(), step, outputs, count, largest, types,
                );
            }
        }
        self.launched();
        self.done(out)
    }

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
        let without = |l: &Layout, offset| Steps { strides: (0..l.shape().rank()).filter(|&d| d != dim).map(|d| l.strides()[d]).collect(), offset };
        let (rows, [from, target]) = folded(&rest, [&without(x.layout, x.layout.offset() as isize), &without(&dense, 0)]);
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
    fn scan_lines(&self, x: &GpuBuffer, out: &GpuBuffer, lines: &Lines, op: Combine, types: [StorageType; 3]) -> Result<()> {
        let rows: usize = lines.rows.iter().product();
        let chunk = if lines.len <= 2 * SCAN { lines.len } else { SCAN };
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
                    &self.client, cubes, dim, address, self.array(x), self.array(&sums), lengths(&lines.rows), lines.from.place(), lines.step,
                    lines.len, chunks, chunk, threads, op, [types[0], types[1]],
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
                &self.client, cubes, dim, address, self.array(x), self.array(totals.as_ref().unwrap_or(x)), self.array(out),
                lengths(&lines.rows), lines.from.place(), lines.step, lines.to.place(), lines.out_step, lines.len, chunks, chunk, threads, op,
                types,
            );
        }
        self.launched();
        Ok(())
    }

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
                &self.client, cubes, threads, address, self.array(order.as_ref().unwrap_or(&out)), self.array(&out), lengths(&rows), to.place(),
                dense.strides()[dim], len, x.elements(), order.is_none(), self.types.stored(DType::I64),
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
            let before = order.as_ref().map_or_else(|| self.raw(&keys.handle, keys.elements), |o| self.array(o));
            // SAFETY: the rows lie inside the keys' buffer, and the kernel stops at `threads`. The first pass reads no order.
            unsafe {
                merge_pass_kernel::launch_unchecked::<R>(
                    &self.client, cubes, dim, address, self.array(keys), before, self.array(&next), lengths(rows), place.place(), step, len,
                    width, threads, order.is_none(), descending, types,
                );
            }
            self.launched();
            order = Some(next);
            width *= 2;
        }
        Ok(order)
    }
}

/// The lines of a scan: where they lie in the input and in the output.
struct Lines {
    rows: Vec<usize>,
    len: usize,
    from: Steps,
    step: isize,
    to: Steps,
    out_step: isize,
}
