//! A matrix product, ready to run: which kernels compute it, how it is cut among the threads, and what is done to each part as soon as
//! it is there. Both are chosen by the shape alone, once, so a recorded product is run without choosing again.

use crate::activation::Activation;
use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::many_rows::{self, ManyRows, multiply_many};
use crate::math::Float;
use crate::matmul::{Matrix, Real, Side};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::tall::{Tall, multiply_tall};
use crate::threads::{for_chunks, in_pool};
use crate::{rows_by_rows, small_matmul};
use gemm_common::Parallelism;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::ops::UnaryOp;
use gradus_core::{Buffer, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// Products of so many multiplications are shared out by the kernels themselves, which then pack each operand once.
const SHARED_FROM: usize = 1 << 26;
/// Of these, so many numbers of the left operand are packed at once, over a sum of at most so many steps.
const PACKED: usize = 1 << 20;
const LONGEST_SUM: usize = 512;
/// Smaller products are cut at multiples of so many columns or rows, which whole registers hold.
const PART_COLUMNS: usize = 32;
const PART_ROWS: usize = 16;

/// A block of a product's rows and columns: a product of its own. The cuts depend on the sizes alone, so that the bits do not
/// depend on the threads.
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Part {
    fn whole(m: usize, n: usize) -> Part {
        Part { rows: 0..m, columns: 0..n }
    }
    /// A large product's rows, by as many as are packed at once. The kernels would pack all of `a` into memory that the system's
    /// allocator then keeps in each thread's heap: 50 MB of it for the gradient of a head of 50,000 classes.
    fn bands(m: usize, n: usize, k: usize) -> impl Iterator<Item = Part> {
        let most = (PACKED / k.min(LONGEST_SUM)).next_multiple_of(PART_ROWS);
        (0..m.div_ceil(most)).map(move |i| Part { rows: i * most..m.min((i + 1) * most), columns: 0..n })
    }
    /// How many parts a product is cut into: each takes 10 µs at least.
    fn count(m: usize, n: usize, k: usize) -> usize {
        let most = if n >= m { n / PART_COLUMNS } else { m / PART_ROWS };
        ((m * n * k) >> 20).clamp(1, 8).min(most).max(1)
    }
    /// Part `i` of `parts`, along the longer side.
    fn of(m: usize, n: usize, i: usize, parts: usize) -> Part {
        let cut = |len: usize, unit: usize| {
            let at = |i: usize| (len * i / parts).next_multiple_of(unit).min(len);
            at(i)..if i + 1 == parts { len } else { at(i + 1) }
        };
        if n >= m {
            Part { rows: 0..m, columns: cut(n, PART_COLUMNS) }
        } else {
            Part { rows: cut(m, PART_ROWS), columns: 0..n }
        }
    }
}

/// Rows and columns of a result, as a kernel finds them in memory.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    start: usize,
    rows: usize,
    columns: usize,
    /// How far apart the rows are.
    row: usize,
}

/// What is done to a part of a product: the bias of its columns (empty: none) added, then the activation, whose slope is written
/// besides if there is room for it.
pub(crate) type Epilogue<T> = fn(Out<T>, Option<Out<T>>, Block, &[T], Option<UnaryOp>);

/// y = f(y), where f gives its slope as well.
macro_rules! with_slope {
    ($f:ident, $y:ident, $slope:ident) => {
        match $slope {
            None => {
                for y in $y.iter_mut() {
                    *y = y.$f::<FMA>().0;
                }
            }
            Some(slope) => {
                for (y, slope) in $y.iter_mut().zip(slope) {
                    (*y, *slope) = y.$f::<FMA>();
                }
            }
        }
    };
}

vectorized! {
    /// [`Epilogue`] of `f32`.
    pub(crate) fn finish_block(y: Out<f32>, slope: Option<Out<f32>>, block: Block, bias: &[f32], f: Option<UnaryOp>) {
        for r in 0..block.rows {
            let at = block.start + r * block.row;
            let (y, slope) = (y.part(at, block.columns), slope.as_ref().map(|s| s.part(at, block.columns)));
            if !bias.is_empty() {
                for (y, &b) in y.iter_mut().zip(bias) { *y += b; }
            }
            match f {
                Some(UnaryOp::Relu) => for y in y.iter_mut() { *y = if *y < 0.0 { 0.0 } else { *y }; },
                Some(UnaryOp::Tanh) => for y in y.iter_mut() { *y = Float::tanh::<FMA>(*y); },
                Some(UnaryOp::Sigmoid) => for y in y.iter_mut() { *y = Float::sigmoid::<FMA>(*y); },
                Some(UnaryOp::Gelu) => with_slope!(gelu, y, slope),
                Some(UnaryOp::GeluTanh) => with_slope!(gelu_tanh, y, slope),
                Some(UnaryOp::Silu) => with_slope!(silu, y, slope),
                _ => {}
            }
        }
    }
}

/// Which kernels compute a product: by its shape, and by how its operands lie.
#[derive(Clone, Copy)]
enum Way {
    /// There is nothing to multiply.
    Empty,
    RowsByRows,
    Tall,
    /// The right operand is packed once for all threads.
    ManyRows,
    /// Several threads, which share what one has packed.
    Shared,
    /// So many parts of each matrix, each for one thread.
    Parts(usize),
}

impl Way {
    fn of<T: Real>(size: [usize; 3], a: &Side<T>, b: &Side<T>, batch: usize) -> Way {
        let [m, k, n] = size;
        let lie_tall = batch == 1 && a.rows == 1 && b.columns == 1 && a.columns > 0 && b.rows > 0;
        if batch * m * k * n == 0 {
            Way::Empty
        } else if batch == 1 && rows_by_rows::fits(size, [a.rows, a.columns], [b.rows, b.columns]) {
            Way::RowsByRows
        } else if lie_tall && Tall::<T>::is_best(size, b.rows as usize) {
            Way::Tall
        } else if batch == 1 && many_rows::fits(size, [a.rows, a.columns], [b.rows, b.columns]) {
            Way::ManyRows
        } else if lie_tall && Tall::<T>::fits(size, b.rows as usize) {
            Way::Tall
        } else if batch == 1 && m * n * k >= SHARED_FROM {
            Way::Shared
        } else {
            Way::Parts(Part::count(m, n, k))
        }
    }
}

/// A product with all that it needs, ready to run: out `[batch, m, n]` = f(a·b + bias).
struct Product<T> {
    way: Way,
    size: [usize; 3],
    batch: usize,
    a: Side<T>,
    b: Side<T>,
    out: Out<T>,
    /// Where the activation's slope goes, if it is wanted.
    slope: Option<Out<T>>,
    /// Where the right operand is packed, if it is for all threads.
    room: Option<Out<T>>,
    /// With the place of its first number.
    bias: Option<(In<T>, usize)>,
    activation: Option<UnaryOp>,
    epilogue: Option<Epilogue<T>>,
}

impl<T: Real> Product<T> {
    fn run(&self) {
        let [m, k, n] = self.size;
        // About 100 GFLOP/s a core: 50 multiply-adds a nanosecond.
        let work = self.batch * m * n * k / 50;
        match self.way {
            Way::Empty => {
                self.out.slice().fill(<T as Float>::ZERO);
                (0..self.batch).for_each(|i| self.finish(i, &Part::whole(m, n)));
            }
            Way::RowsByRows => for_chunks(rows_by_rows::parts(n), work, |i| self.rows_by_rows(i)),
            Way::Tall => self.tall(work),
            Way::ManyRows => self.many_rows(work),
            Way::Shared => {
                let shared = |n| if n > 1 { Parallelism::Rayon(n) } else { Parallelism::None };
                in_pool(|threads| {
                    for part in Part::bands(m, n, k) {
                        // SAFETY: the result is held alone by who launched this.
                        unsafe { self.packed(0, &part, shared(threads)) }
                    }
                });
                let rows = (16 * 1024 / n).max(1);
                for_chunks(m.div_ceil(rows), m * n / 4, |c| {
                    self.finish(0, &Part { rows: c * rows..m.min((c + 1) * rows), columns: 0..n });
                });
            }
            Way::Parts(parts) => for_chunks(self.batch * parts, work, |c| {
                self.part(c / parts, Part::of(m, n, c % parts, parts));
            }),
        }
    }

    fn rows_by_rows(&self, i: usize) {
        let [m, k, n] = self.size;
        let columns = rows_by_rows::columns(n, i);
        let part = Part { rows: 0..m, columns };
        let (x, y) = self.operands(0, &part);
        // SAFETY: core checked that the layouts lie inside their buffers; a part's columns are its own.
        unsafe { rows_by_rows::multiply(self.place(0, &part), n, [m, k, part.columns.len()], x, y) }
        self.finish(0, &part);
    }

    fn tall(&self, work: usize) {
        let [m, k, n] = self.size;
        let (x, y) = self.operands(0, &Part::whole(m, n));
        let p = Tall { m, k, n, a: x.ptr, a_row: x.column as usize, b: y.ptr, b_row: y.row as usize };
        for_chunks(p.parts(), work, |i| {
            let part = Part { rows: p.rows(i), columns: 0..n };
            // SAFETY: as above; a part's rows are its own.
            unsafe { multiply_tall(&p, (part.rows.start, part.rows.end), self.place(0, &part)) }
            self.finish(0, &part);
        });
    }

    fn many_rows(&self, work: usize) {
        let [m, k, n] = self.size;
        let Some(packed) = self.room else { return };
        let (a, b) = self.operands(0, &Part::whole(m, n));
        let bias = self.bias_of(&Part::whole(m, n));
        let p = ManyRows { size: self.size, a, b, bias, packed, out: self.out.ptr() };
        for_chunks(p.pieces(), k * n / 2, |i| p.pack(i));
        for_chunks(p.cells(), work, |i| {
            let [rows, columns] = p.cell(i);
            // SAFETY: core checked that the layouts lie inside their buffers; a cell is its own.
            unsafe { multiply_many(&p, [rows.clone(), columns.clone()]) }
            self.activate(0, &Part { rows, columns }, &[]);
        });
    }

    /// Part of matrix `i`, by one thread.
    fn part(&self, i: usize, part: Part) {
        let size = [part.rows.len(), self.size[1], part.columns.len()];
        let (x, y) = self.operands(i, &part);
        if !small_matmul::fits::<T>(size, [x.row, x.column], [y.row, y.column]) {
            // SAFETY: parts of matrices are disjoint.
            unsafe { self.packed(i, &part, Parallelism::None) }
            return self.finish(i, &part);
        }
        let mut to = small_matmul::To::plain(self.place(i, &part), self.size[2]);
        // Small products do this besides, in their registers.
        let finishes = matches!(self.activation, None | Some(UnaryOp::Relu));
        if finishes {
            to.bias = self.bias_of(&part).map_or(std::ptr::null(), <[T]>::as_ptr);
            to.relu = self.activation.is_some();
        }
        // SAFETY: as above.
        unsafe { small_matmul::multiply(to, size, x, y) }
        if !finishes {
            self.finish(i, &part);
        }
    }

    /// By the kernels of `gemm`, which pack both operands.
    ///
    /// # Safety
    /// Nobody else may write this part of the result.
    unsafe fn packed(&self, i: usize, part: &Part, threads: Parallelism) {
        let (x, y) = self.operands(i, part);
        let size = [part.rows.len(), self.size[1], part.columns.len()];
        // SAFETY: core checked that the layouts lie inside their buffers; the rest by the caller.
        unsafe { T::multiply(self.place(i, part), self.size[2], size, x, y, false, threads) }
    }

    /// The rows of a and the columns of b that a part of matrix `i` takes.
    fn operands(&self, i: usize, part: &Part) -> (Matrix<T>, Matrix<T>) {
        let (a, b) = (&self.a, &self.b);
        let x = a.start(i).wrapping_offset(part.rows.start as isize * a.rows);
        let y = b.start(i).wrapping_offset(part.columns.start as isize * b.columns);
        (Matrix { ptr: x, row: a.rows, column: a.columns }, Matrix { ptr: y, row: b.rows, column: b.columns })
    }

    /// Where a part's first number is in the result.
    fn at(&self, i: usize, part: &Part) -> usize {
        let [m, _, n] = self.size;
        (i * m + part.rows.start) * n + part.columns.start
    }
    fn place(&self, i: usize, part: &Part) -> *mut T {
        self.out.ptr().wrapping_add(self.at(i, part))
    }
    fn bias_of(&self, part: &Part) -> Option<&[T]> {
        let (bias, at) = self.bias.as_ref()?;
        Some(&bias.slice()[at + part.columns.start..at + part.columns.end])
    }

    /// Adds the bias to a part, and applies the activation: by the thread that has it in its cache.
    fn finish(&self, i: usize, part: &Part) {
        self.activate(i, part, self.bias_of(part).unwrap_or_default());
    }
    /// The same with another bias (empty: none).
    fn activate(&self, i: usize, part: &Part, bias: &[T]) {
        let Some(epilogue) = self.epilogue.filter(|_| !bias.is_empty() || self.activation.is_some()) else { return };
        let (rows, columns, row) = (part.rows.len(), part.columns.len(), self.size[2]);
        let block = Block { start: self.at(i, part), rows, columns, row };
        epilogue(self.out, self.slope, block, bias, self.activation);
    }
}

/// f(a·b + bias), with what `spec` asks for, and f's slope where there is room for it; an epilogue is needed for anything but the
/// product itself.
pub(crate) fn product<T: Real>(
    a: View<'_>,
    b: View<'_>,
    spec: &MatmulSpec<'_>,
    epilogue: Option<Epilogue<T>>,
    slope: Option<&CpuStorage>,
) -> Result<Buffer> {
    let (ra, rb) = (a.shape().rank(), b.shape().rank());
    let size = [a.shape()[ra - 2], a.shape()[ra - 1], b.shape()[rb - 1]];
    let (sa, sb) = (Side::<T>::of(a)?, Side::<T>::of(b)?);
    let batch: usize = a.shape()[..ra - 2].iter().product();
    let to = CpuStorage::new(batch * size[0] * size[2] * size_of::<T>())?;
    let mut reads: SmallVec<[&CpuStorage; 3]> = smallvec::smallvec![storage(a.buffer)?, storage(b.buffer)?];
    let bias = match spec.bias {
        Some(v) => {
            reads.push(storage(v.buffer)?);
            Some((In::of(storage(v.buffer)?), v.layout.offset()))
        }
        None => None,
    };
    let (way, out, activation) = (Way::of(size, &sa, &sb, batch), Out::of(&to), spec.activation);
    let room = match way {
        Way::ManyRows => Some(CpuStorage::new(ManyRows::<T>::room(size[1], size[2]) * size_of::<T>())?),
        _ => None,
    };
    let mut writes = [&*to; 3];
    let used = [room.as_deref(), slope];
    let count = 1 + used.iter().flatten().zip(&mut writes[1..]).map(|(&from, to)| *to = from).count();
    let (room, slope) = (room.as_deref().map(Out::of), slope.map(Out::of));
    let product = Product { way, size, batch, a: sa, b: sb, out, slope, room, bias, activation, epilogue };
    launch(&reads, &writes[..count], move || product.run());
    finish(to)
}
