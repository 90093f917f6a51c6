//! Reductions. Which kernel runs, and how it cuts its work, depends on shapes and the table of [`crate::strategies`] alone.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use crate::types::U32;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use gradus_core::backend::Dims;
use gradus_core::ops::{ArgReduceOp, ReduceOp};
use gradus_core::{Buffer, DType, Layout, Result, Scalar, View};
use gradus_kernels::reduce::{
    CUBE, Combine, Shade, arg_cube_kernel, arg_unit_kernel, reduce_cube_kernel, reduce_unit_kernel,
};

/// The most chunks that a long reduction is cut in.
const CHUNKS: usize = 256;

/// A strided operand of a launch: memory, its element type, and its steps over the kept and the reduced dimensions.
struct Source<'a> {
    memory: &'a GpuBuffer,
    stored: StorageType,
    kept: (Vec<usize>, Steps),
    reduced: (Vec<usize>, Steps),
}

/// A shape and steps restricted to the dimensions that `keep` names.
pub(crate) fn part(layout: &Layout, keep: impl Fn(usize) -> bool, offset: isize) -> (Vec<usize>, Steps) {
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
        let exact = combine == Combine::Sum && to.is_float();
        let divisor = || match shade {
            Shade::Mean => InputScalar::new(count as f64, accumulator),
            _ => InputScalar::new(1u32, accumulator),
        };
        let (out, table) = (self.reserve(outputs, to)?, self.strategies());
        let stored = self.types.stored(to);
        if count <= table.reduce_short || outputs >= table.reduce_many {
            self.reduce_by_units(
                &source,
                &out,
                outputs,
                count,
                divisor(),
                combine,
                shade,
                exact,
                [source.stored, accumulator, stored],
            )?;
            return self.done(out);
        }
        let chunk = table.reduce_chunk.max(count.div_ceil(CHUNKS));
        let chunks = count.div_ceil(chunk);
        if chunks == 1 {
            self.reduce_by_cubes(
                &source,
                &out,
                outputs,
                count,
                [1, chunk],
                divisor(),
                combine,
                shade,
                exact,
                [source.stored, accumulator, stored],
            )?;
            return self.done(out);
        }
        // Each chunk of each result first, then the chunks.
        let numbers = if exact { 2 * chunks } else { chunks };
        let parts = self.reserve_bytes(outputs * numbers, outputs * numbers * accumulator.size())?;
        let first = if shade == Shade::Truth { Shade::Truth } else { Shade::Plain };
        self.reduce_by_cubes(
            &source,
            &parts,
            outputs,
            count,
            [chunks, chunk],
            divisor(),
            combine,
            first,
            exact,
            [source.stored, accumulator, accumulator],
        )?;
        let rows = Source {
            memory: &parts,
            stored: accumulator,
            kept: (vec![outputs], Steps { strides: vec![numbers as isize], offset: 0 }),
            reduced: (vec![numbers], Steps { strides: vec![1], offset: 0 }),
        };
        let last = if shade == Shade::Mean { Shade::Mean } else { Shade::Plain };
        self.reduce_by_units(
            &rows,
            &out,
            outputs,
            numbers,
            divisor(),
            combine,
            last,
            exact,
            [accumulator, accumulator, stored],
        )?;
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
        exact: bool,
        types: [StorageType; 3],
    ) -> Result<()> {
        let (cubes, dim) = self.grid(outputs);
        let address = self.address(&[x.memory.elements, outputs])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `outputs` and `count`.
        unsafe {
            reduce_unit_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                dim,
                address,
                self.array(x.memory),
                self.array(out),
                lengths(&x.kept.0),
                x.kept.1.place(),
                lengths(&x.reduced.0),
                x.reduced.1.place(),
                outputs,
                count,
                divisor,
                InputScalar::new(1u32, types[1]),
                op,
                shade,
                exact,
                types,
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
        exact: bool,
        types: [StorageType; 3],
    ) -> Result<()> {
        let address = self.address(&[x.memory.elements, outputs * chunks])?;
        // SAFETY: as in `reduce_by_units`; each cube writes the one place of its chunk.
        unsafe {
            reduce_cube_kernel::launch_unchecked::<R>(
                self.client(),
                self.cubes(outputs * chunks),
                CubeDim::new_1d(CUBE),
                address,
                self.array(x.memory),
                self.array(out),
                lengths(&x.kept.0),
                x.kept.1.place(),
                lengths(&x.reduced.0),
                x.reduced.1.place(),
                outputs,
                count,
                chunks,
                chunk,
                divisor,
                InputScalar::new(1u32, types[1]),
                op,
                shade,
                exact,
                types,
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
        let (largest, table) = (op == ArgReduceOp::Max, self.strategies());
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernels stop at `outputs` and `count`.
        unsafe {
            if count <= table.reduce_short || outputs >= table.reduce_many {
                let (cubes, threads) = self.grid(outputs);
                arg_unit_kernel::launch_unchecked::<R>(
                    self.client(),
                    cubes,
                    threads,
                    address,
                    self.array(memory),
                    self.array(&out),
                    lengths(&shape),
                    steps.place(),
                    step,
                    outputs,
                    count,
                    largest,
                    types,
                );
            } else {
                arg_cube_kernel::launch_unchecked::<R>(
                    self.client(),
                    self.cubes(outputs),
                    CubeDim::new_1d(CUBE),
                    address,
                    self.array(memory),
                    self.array(&out),
                    lengths(&shape),
                    steps.place(),
                    step,
                    outputs,
                    count,
                    largest,
                    types,
                );
            }
        }
        self.launched();
        self.done(out)
    }
}
