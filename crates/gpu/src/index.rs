//! Picking by index, and scattering, which is deterministic.
//!
//! Negative indices count from the end. One out of range is noted by the kernel, and the note becomes an error wherever the
//! host waits (see [`crate::fault`]). A scatter first resolves its indices, in one pass, so that its own looks at each are short.

use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use gradus_core::op::Op;
use gradus_core::ops::{self, Index, ScatterOp};
use gradus_core::{Buffer, DType, Layout, Result, Shape, View};
use gradus_kernels::gather::{Scatter, gather_kernel, resolve_index_kernel, scatter_kernel};
use gradus_kernels::reduce::Combine;

/// From this many sources along the dimension on, their indices are sorted first.
const SORTED: usize = 32;

/// A scatter's geometry: the part of the base that the index reaches, and the steps of each operand over it.
struct Reach {
    shape: Vec<usize>,
    base: Steps,
    out: Steps,
    along: Steps,
    index: Steps,
    line: Steps,
    src: Steps,
    /// The rows of indices to be sorted.
    rows: Vec<usize>,
    row_steps: Steps,
    index_step: isize,
    src_step: isize,
    count: usize,
}

impl<R: GpuRuntime> Gpu<R> {
    pub(crate) fn picked(&self, x: View<'_>, index: View<'_>, how: Index) -> Result<Buffer> {
        let (memory, indices) = (self.memory_of(x.buffer)?, self.memory_of(index.buffer)?);
        let dim = how.dim();
        let shape = how.shape(x.shape(), index.shape())?;
        let len = shape.elements();
        let out = self.reserve(len, x.dtype)?;
        if len == 0 {
            return self.done(out);
        }
        if x.shape()[dim] == 0 {
            self.resolved(index, 0, ops::Gather(how).name())?; // every index is out of range
            return self.done(out);
        }
        let (mut from, mut at) = (Steps::of(x.layout), Steps::of(index.layout));
        match how {
            Index::Along(_) => from = from.with(dim, 0),
            Index::Slices(_) => {
                // The index's dimensions stand in place of `dim`; each operand stands still over the other's.
                let inner = index.shape().rank();
                from.strides.splice(dim..=dim, vec![0; inner]);
                let mut strides = vec![0; shape.rank()];
                strides[dim..dim + inner].copy_from_slice(&at.strides);
                at.strides = strides;
            }
        }
        let (shape, [from, at]) = folded(&shape, [&from, &at]);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, indices.elements, len])?;
        let types = [self.types.stored(x.dtype), self.types.stored(DType::I64)];
        let limit = x.shape()[dim];
        let site = self.site(ops::Gather(how).name(), limit, false);
        // SAFETY: the views lie inside their buffers (the caller's contract), an index out of range is not followed (there is
        // a first place: an empty dimension came apart above), and the kernel stops at `len`.
        unsafe {
            gather_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(indices),
                self.array(&out),
                self.fault(),
                lengths(&shape),
                from.place(),
                at.place(),
                x.layout.strides()[dim],
                limit,
                site,
                len,
                types,
            );
        }
        self.launched();
        self.done(out)
    }

    pub(crate) fn scattered(
        &self,
        op: ScatterOp,
        base: View<'_>,
        index: View<'_>,
        src: View<'_>,
        how: Index,
    ) -> Result<Buffer> {
        if src.elements() == 0 {
            return self.convert(base, base.dtype);
        }
        let places = self.resolved(index, base.shape()[how.dim()], ops::Scatter { op, how }.name())?;
        let mut shape = Layout::dense(*index.shape());
        // A multi-dimensional index of slices is one line of indices: the sources' dimensions must chain, too.
        let (flat_src, held);
        let src = match how {
            Index::Slices(dim) if index.shape().rank() != 1 => {
                held = self.dense(src)?;
                let inner = index.shape().rank();
                shape = Layout::dense(Shape::try_new(&[index.elements()])?);
                let lengths = [&src.shape()[..dim], &[index.elements()], &src.shape()[dim + inner..]].concat();
                flat_src = Layout::dense(Shape::try_new(&lengths)?);
                View { buffer: &held, layout: &flat_src, ..src }
            }
            _ => src,
        };
        let index = View { buffer: &places, layout: &shape, ..index };
        let reach = reach(base, index, src, how);
        let out = if reach.shape == base.shape().dims() {
            self.reserve(base.elements(), base.dtype)?
        } else {
            // The part beyond the index's reach stays as it is.
            self.converted(base, base.dtype)?
        };
        let how = match op {
            ScatterOp::Add => Scatter::Onto(Combine::Sum),
            ScatterOp::Set => Scatter::Replace,
        };
        self.scatter_reach(base, index, src, &out, &reach, how)?;
        self.done(out)
    }

    fn scatter_reach(
        &self,
        base: View<'_>,
        index: View<'_>,
        src: View<'_>,
        out: &GpuBuffer,
        r: &Reach,
        how: Scatter,
    ) -> Result<()> {
        let len: usize = r.shape.iter().product();
        if len == 0 {
            return Ok(());
        }
        let (target, indices, sources) =
            (self.memory_of(base.buffer)?, self.memory_of(index.buffer)?, self.memory_of(src.buffer)?);
        let i64_ = self.types.stored(DType::I64);
        let order = if r.count >= SORTED {
            self.order(indices, &r.rows, &r.row_steps, r.index_step, r.count, false, [i64_, i64_])?
        } else {
            None
        };
        let (shape, [at_base, at_out, along, at_index, line, at_src]) =
            folded(&r.shape, [&r.base, &r.out, &r.along, &r.index, &r.line, &r.src]);
        let (cubes, threads) = self.grid(len);
        let orders = order.as_ref().map_or(0, |o| o.elements);
        let address = self.address(&[target.elements, indices.elements, sources.elements, orders])?;
        let types = [self.types.stored(base.dtype), self.types.computed(base.dtype), i64_];
        // SAFETY: the views lie inside their buffers (the caller's contract), the kernel stops at `len` and `count`, and
        // follows only indices equal to a place of the base. Without an order none is read.
        unsafe {
            scatter_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(target),
                self.array(indices),
                self.array(order.as_ref().unwrap_or(indices)),
                self.array(sources),
                self.array(out),
                lengths(&shape),
                at_base.place(),
                at_out.place(),
                along.place(),
                at_index.place(),
                line.place(),
                at_src.place(),
                r.index_step,
                r.src_step,
                r.count,
                len,
                how,
                order.is_some(),
                types,
            );
        }
        self.launched();
        Ok(())
    }

    /// The places among `limit` that the indices name, dense, −1 for one that is out of range in `op`.
    fn resolved(&self, index: View<'_>, limit: usize, op: &'static str) -> Result<Buffer> {
        let (memory, len) = (self.memory_of(index.buffer)?, index.elements());
        let out = self.reserve(len, DType::I64)?;
        let (shape, [at]) = folded(index.shape(), [&Steps::of(index.layout)]);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory.elements, limit])?;
        // SAFETY: the view lies inside its buffer (the caller's contract), and the kernel stops at `len`.
        unsafe {
            resolve_index_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory),
                self.array(&out),
                self.fault(),
                lengths(&shape),
                at.place(),
                limit,
                self.site(op, limit, false),
                len,
                self.types.stored(DType::I64),
            );
        }
        self.launched();
        self.done(out)
    }
}

/// The geometry of a scatter. The index is one line (`Slices`), or has the base's rank (`Along`).
fn reach(base: View<'_>, index: View<'_>, src: View<'_>, how: Index) -> Reach {
    let (dim, rank) = (how.dim(), base.shape().rank());
    let mut shape = base.shape().to_vec();
    let still = || Steps { strides: vec![0; rank], offset: 0 };
    let along = still().with(dim, 1);
    let sources = Steps::of(src.layout);
    let (base_steps, out_steps) = (Steps::of(base.layout), Steps::dense(base.shape()));
    match how {
        Index::Slices(_) => {
            let step = index.layout.strides()[0];
            let at = Steps { strides: vec![0; rank], offset: index.layout.offset() as isize };
            let src_step = src.layout.strides()[dim];
            Reach {
                shape,
                base: base_steps,
                out: out_steps,
                along,
                line: still(),
                src: sources.with(dim, 0),
                rows: vec![1],
                row_steps: Steps { strides: vec![0], offset: at.offset },
                index: at,
                index_step: step,
                src_step,
                count: index.elements(),
            }
        }
        Index::Along(_) => {
            for d in (0..rank).filter(|&d| d != dim) {
                shape[d] = index.shape()[d];
            }
            let count = index.shape()[dim];
            let others: Vec<usize> = (0..rank).filter(|&d| d != dim).map(|d| index.shape()[d]).collect();
            let rows = Steps::dense(&others);
            // Row `r` of the order begins at r · count.
            let mut line: Vec<isize> = rows.strides.iter().map(|s| s * count as isize).collect();
            line.insert(dim, 0);
            let row_steps = Steps {
                strides: (0..rank).filter(|&d| d != dim).map(|d| index.layout.strides()[d]).collect(),
                offset: index.layout.offset() as isize,
            };
            let (rows, [row_steps]) = folded(&others, [&row_steps]);
            Reach {
                shape,
                base: base_steps,
                out: out_steps,
                along,
                index: Steps::of(index.layout).with(dim, 0),
                line: Steps { strides: line, offset: 0 },
                src: sources.with(dim, 0),
                rows,
                row_steps,
                index_step: index.layout.strides()[dim],
                src_step: src.layout.strides()[dim],
                count,
            }
        }
    }
}
