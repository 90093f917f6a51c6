//! Matrix products, by the kernels of the `gemm` crates (`f32` and `f64` alone: the whole of `gemm` takes twice as long to
//! build, for complex numbers that nobody here multiplies); batches and epilogues around them.
//!
//! Transposed operands are read by their strides, never copied. Small products have kernels of their own ([`crate::small_matmul`]), and so have
//! those of a few rows by rows ([`crate::rows_by_rows`]) and of tall matrices ([`crate::tall`]); a batch is shared out among the threads product by product. The work is cut by its shape alone, so the bits do not depend on the threads.

use crate::elementwise::{finish, refused};
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::tall::{Tall, multiply_tall};
use crate::threads::{for_chunks, in_pool};
use crate::{bf16_matmul, rows_by_rows, small_matmul};
use crate::{math::Float, vector};
use gemm_common::Parallelism;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::ops::UnaryOp;
use gradus_core::{Buffer, DType, Element, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// One side of a product: where each matrix of the batch begins, and its strides.
#[derive(Clone)]
pub(crate) struct Side<T> {
    x: In<T>,
    starts: SmallVec<[usize; 1]>,
    pub(crate) rows: isize,
    pub(crate) columns: isize,
}

impl<T> Side<T> {
    pub(crate) fn of(v: View<'_>) -> Result<Side<T>> {
        let (shape, rank) = (v.shape(), v.shape().rank());
        let strides = v.layout.strides();
        let starts = if rank == 2 {
            smallvec::smallvec![v.layout.offset()]
        } else {
            // The batch's places: the layout at row 0 and column 0.
            let lead = [rank - 2, rank - 1].into_iter().fold(*v.layout, |l, d| l.slice(d, 0, shape[d].min(1), 1));
            lead.offsets().collect()
        };
        Ok(Side { x: In::of(storage(v.buffer)?), starts, rows: strides[rank - 2], columns: strides[rank - 1] })
    }
    /// The first element of matrix `i`; to be called inside a launched kernel only.
    pub(crate) fn start(&self, i: usize) -> *const T {
        self.x.slice()[self.starts[i]..].as_ptr()
    }
}

/// A strided matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<T> {
    pub(crate) ptr: *const T,
    pub(crate) row: isize,
    pub(crate) column: isize,
}

/// A type that the `gemm` kernels multiply.
trait Real: Element + vector::Real {
    /// out = a·b for `out` `[m, n]` with rows `pitch` apart, a `[m, k]`, b `[k, n]`, none of them empty.
    ///
    /// # Safety
    /// The matrices' elements must lie in live memory, and `out`'s `m × n` must be held alone.
    unsafe fn multiply(
        out: *mut Self,
        pitch: usize,
        size: [usize; 3],
        a: Matrix<Self>,
        b: Matrix<Self>,
        threads: Parallelism,
    );
}

macro_rules! real {
    ($t:ty, $gemm:path) => {
        impl Real for $t {
            unsafe fn multiply(
                out: *mut $t,
                pitch: usize,
                [m, k, n]: [usize; 3],
                a: Matrix<$t>,
                b: Matrix<$t>,
                threads: Parallelism,
            ) {
                let (mut a, mut b) = (a, b);
                if b.row < 0 {
                    // The kernels walk their left operand forwards: both are then walked from their other end.
                    a = Matrix { ptr: a.ptr.wrapping_offset((k as isize - 1) * a.column), column: -a.column, ..a };
                    b = Matrix { ptr: b.ptr.wrapping_offset((k as isize - 1) * b.row), row: -b.row, ..b };
                }
                // The kernels write columns, so the transposed product is asked for: outᵀ = bᵀ·aᵀ.
                // SAFETY: by the caller.
                unsafe {
                    $gemm()(
                        n,
                        m,
                        k,
                        out,
                        pitch as isize,
                        1,
                        false,
                        b.ptr,
                        b.row,
                        b.column,
                        a.ptr,
                        a.row,
                        a.column,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        threads,
                    )
                }
            }
        }
    };
}
real!(f32, gemm_f32::gemm::f32::get_gemm_fn);
real!(f64, gemm_f64::gemm::f64::get_gemm_fn);

/// Products of so many multiplications are shared out by the kernels themselves, which then pack each operand once.
const SHARED_FROM: usize = 1 << 26;
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

/// The product as one of tall matrices, if it is one for that kernel.
fn tall<T: Real>([m, k, n]: [usize; 3], a: &Side<T>, b: &Side<T>, batch: usize) -> Option<Tall<T>> {
    let lie = a.rows == 1 && b.columns == 1 && a.columns > 0 && b.rows > 0;
    (lie && batch == 1 && Tall::<T>::fits(m, k, n)).then(|| Tall {
        m,
        k,
        n,
        a: a.x.slice()[a.starts[0]..].as_ptr(),
        a_row: a.columns as usize,
        b: b.x.slice()[b.starts[0]..].as_ptr(),
        b_row: b.rows as usize,
    })
}

/// What is done to a row of a product: the bias (empty: none) added, then the activation.
type Epilogue<T> = fn(&mut [T], &[T], Option<UnaryOp>);

fn product<T: Real>(a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>, epilogue: Option<Epilogue<T>>) -> Result<Buffer> {
    let (ra, rb) = (a.shape().rank(), b.shape().rank());
    let (m, k, n) = (a.shape()[ra - 2], a.shape()[ra - 1], b.shape()[rb - 1]);
    let (sa, sb) = (Side::<T>::of(a)?, Side::<T>::of(b)?);
    let batch: usize = a.shape()[..ra - 2].iter().product();
    let to = CpuStorage::new(batch * m * n * size_of::<T>())?;
    let out = Out::<T>::of(&to);
    let mut reads: SmallVec<[&CpuStorage; 3]> = smallvec::smallvec![storage(a.buffer)?, storage(b.buffer)?];
    let (bias, activation) = (spec.bias.map(|v| (v.buffer, v.layout.offset())), spec.activation);
    let bias = match bias {
        Some((buffer, offset)) => {
            reads.push(storage(buffer)?);
            Some((In::<T>::of(storage(buffer)?), offset))
        }
        None => None,
    };
    let rows_by_rows = batch == 1 && rows_by_rows::fits([m, k, n], [sa.rows, sa.columns], [sb.rows, sb.columns]);
    launch(&reads, &[&to], move || {
        if m == 0 || n == 0 || batch == 0 {
            return;
        }
        if k == 0 {
            out.slice().fill(<T as Float>::ZERO);
        } else {
            let one_product = |i: usize, part: Part, threads: Parallelism| {
                let (pa, pb) = (sa.start(i), sb.start(i));
                let (row, column) = (part.rows.start, part.columns.start);
                let x = Matrix { ptr: pa.wrapping_offset(row as isize * sa.rows), row: sa.rows, column: sa.columns };
                let y =
                    Matrix { ptr: pb.wrapping_offset(column as isize * sb.columns), row: sb.rows, column: sb.columns };
                let size = [part.rows.len(), k, part.columns.len()];
                // SAFETY: core checked that the layouts lie inside their buffers; parts and products are disjoint.
                unsafe {
                    let to = out.ptr().add(i * m * n + row * n + column);
                    if small_matmul::fits(size, x, y) {
                        small_matmul::multiply(to, n, size, x, y);
                    } else {
                        T::multiply(to, n, size, x, y, threads);
                    }
                }
            };
            if rows_by_rows {
                let whole = |s: &Side<T>| Matrix { ptr: s.start(0), row: s.rows, column: s.columns };
                for_chunks(rows_by_rows::parts(n), m * n * k / 50, |i| {
                    let (columns, y) = (rows_by_rows::columns(n, i), whole(&sb));
                    let y = Matrix { ptr: y.ptr.wrapping_offset(columns.start as isize * y.column), ..y };
                    // SAFETY: as above; a part's columns are its own.
                    unsafe {
                        let to = out.ptr().add(columns.start);
                        rows_by_rows::multiply(to, n, [m, k, columns.len()], whole(&sa), y);
                    }
                });
            } else if let Some(p) = tall([m, k, n], &sa, &sb, batch) {
                for_chunks(p.parts(), m * n * k / 50, |i| {
                    let rows = p.rows(i);
                    // SAFETY: as above; a part's rows are its own.
                    unsafe { multiply_tall(&p, (rows.start, rows.end), out.ptr().add(rows.start * n)) }
                });
            } else if batch == 1 && m * n * k >= SHARED_FROM {
                let shared = |n| if n > 1 { Parallelism::Rayon(n) } else { Parallelism::None };
                in_pool(|threads| one_product(0, Part::whole(m, n), shared(threads)));
            } else {
                let parts = Part::count(m, n, k);
                // About 100 GFLOP/s a core: 50 multiply-adds a nanosecond.
                for_chunks(batch * parts, batch * m * n * k / 50, |c| {
                    one_product(c / parts, Part::of(m, n, c % parts, parts), Parallelism::None);
                });
            }
        }
        if let Some(epilogue) = epilogue {
            let empty: &[T] = &[];
            let bias = bias.as_ref().map_or(empty, |(b, at)| &b.slice()[*at..*at + n]);
            if !bias.is_empty() || activation.is_some() {
                let rows = (16 * 1024 / n).max(1);
                let total = batch * m;
                for_chunks(total.div_ceil(rows), total * n / 4, |c| {
                    for r in c * rows..total.min((c + 1) * rows) {
                        epilogue(out.part(r * n, n), bias, activation);
                    }
                });
            }
        }
    });
    finish(to)
}

vectorized! {
    fn finish_row(y: &mut [f32], bias: &[f32], f: Option<UnaryOp>) {
        use crate::math::Float;
        if !bias.is_empty() {
            for (y, &b) in y.iter_mut().zip(bias) { *y += b; }
        }
        match f {
            Some(UnaryOp::Relu) => for y in y.iter_mut() { *y = if *y < 0.0 { 0.0 } else { *y }; },
            Some(UnaryOp::Tanh) => for y in y.iter_mut() { *y = Float::tanh(*y); },
            Some(UnaryOp::Sigmoid) => for y in y.iter_mut() { *y = Float::sigmoid(*y); },
            _ => {}
        }
    }
}

/// Whether [`matmul`] can do this epilogue.
pub(crate) fn can_finish(dtype: DType, activation: Option<UnaryOp>) -> bool {
    dtype == DType::F32 && matches!(activation, None | Some(UnaryOp::Relu | UnaryOp::Tanh | UnaryOp::Sigmoid))
}

pub(crate) fn matmul(a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
    if (spec.bias.is_some() || spec.activation.is_some()) && !can_finish(a.dtype, spec.activation) {
        return Err(refused("this matmul epilogue", a.dtype));
    }
    match a.dtype {
        DType::F32 => product::<f32>(a, b, spec, Some(finish_row)),
        DType::F64 => product::<f64>(a, b, spec, None),
        DType::F16 | DType::Bf16 => halves(a, b, spec),
        DType::I64 => integers::<i64>(a, b),
        DType::I32 => integers::<i32>(a, b),
        DType::U32 => integers::<u32>(a, b),
        DType::U8 => integers::<u8>(a, b),
        DType::Bool => Err(refused("matmul", a.dtype)),
    }
}

/// Halves are multiplied in `f32` and rounded once: by the processor's own instruction, or widened before.
fn halves(a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
    use crate::elementwise::cast;
    let mut shape = *a.shape();
    let (rows, last) = (shape.rank() - 2, shape.rank() - 1);
    let (m, k, n) = (shape[rows], shape[last], b.shape()[last]);
    fn view<'a>(buffer: &'a Buffer, layout: &'a gradus_core::Layout) -> View<'a> {
        View { buffer, layout, dtype: DType::F32 }
    }
    let y = if a.dtype == DType::Bf16 && bf16_matmul::fits(m, k, n) {
        bf16_matmul::product(a, b)?
    } else {
        let (wa, wb) = (cast(a, DType::F32)?, cast(b, DType::F32)?);
        let (la, lb) = (gradus_core::Layout::dense(*a.shape()), gradus_core::Layout::dense(*b.shape()));
        matmul(view(&wa, &la), view(&wb, &lb), spec)?
    };
    shape[last] = n;
    let ly = gradus_core::Layout::dense(shape);
    cast(view(&y, &ly), a.dtype)
}

/// Integer products: exact, wrapping, row by row.
fn integers<T: Element>(a: View<'_>, b: View<'_>) -> Result<Buffer> {
    let (ra, rb) = (a.shape().rank(), b.shape().rank());
    let (m, k, n) = (a.shape()[ra - 2], a.shape()[ra - 1], b.shape()[rb - 1]);
    let (sa, sb) = (Side::<T>::of(a)?, Side::<T>::of(b)?);
    let batch: usize = a.shape()[..ra - 2].iter().product();
    let to = CpuStorage::new(batch * m * n * size_of::<T>())?;
    let out = Out::<T>::of(&to);
    launch(&[storage(a.buffer)?, storage(b.buffer)?], &[&to], move || {
        for_chunks(batch * m, batch * m * n * k, |r| {
            let (i, row) = (r / m, r % m);
            let mut acc = vec![0i64; n];
            for p in 0..k {
                let x = sa.x.slice()
                    [(sa.starts[i] as isize + row as isize * sa.rows + p as isize * sa.columns) as usize]
                    .to_i64();
                for (j, acc) in acc.iter_mut().enumerate() {
                    let y = sb.x.slice()
                        [(sb.starts[i] as isize + p as isize * sb.rows + j as isize * sb.columns) as usize]
                        .to_i64();
                    *acc = acc.wrapping_add(x.wrapping_mul(y));
                }
            }
            out.part(r * n, n).iter_mut().zip(acc).for_each(|(o, a)| *o = T::from_i64(a));
        });
    });
    finish(to)
}
