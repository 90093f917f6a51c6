//! Matrix products, by the kernels of the `gemm` crates (`f32` and `f64` alone: the whole of `gemm` takes twice as long to
//! build, for complex numbers that nobody here multiplies), and by their own where those are faster ([`crate::product`]): small ones
//! ([`crate::small_matmul`]), those of a few rows by rows ([`crate::rows_by_rows`]), of many rows by a matrix ([`crate::many_rows`]) and of tall
//! matrices ([`crate::tall`]).
//!
//! Transposed operands are read by their strides, never copied. The work is cut by its shape alone, so the bits do not depend on
//! the threads.

use crate::elementwise::{finish, refused};
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::product::{finish_block, product};
use crate::threads::for_chunks;
use crate::{bf16_matmul, vector};
use gemm_common::Parallelism;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::ops::UnaryOp;
use gradus_core::{Buffer, DType, Element, Result};
use smallvec::SmallVec;

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
pub(crate) trait Real: Element + vector::Real {
    /// out = a·b (+ out, if `add`) for `out` `[m, n]` with rows `pitch` apart, a `[m, k]`, b `[k, n]`, none of them empty.
    ///
    /// # Safety
    /// The matrices' elements must lie in live memory, and `out`'s `m × n` must be held alone.
    unsafe fn multiply(
        out: *mut Self,
        pitch: usize,
        size: [usize; 3],
        a: Matrix<Self>,
        b: Matrix<Self>,
        add: bool,
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
                add: bool,
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
                        add,
                        b.ptr,
                        b.row,
                        b.column,
                        a.ptr,
                        a.row,
                        a.column,
                        if add { 1.0 } else { 0.0 },
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

/// Whether [`matmul`] can do this epilogue.
pub(crate) fn can_finish(dtype: DType, activation: Option<UnaryOp>) -> bool {
    use UnaryOp::{Gelu, GeluTanh, Relu, Sigmoid, Silu, Tanh};
    dtype == DType::F32 && matches!(activation, None | Some(Relu | Tanh | Sigmoid | Gelu | GeluTanh | Silu))
}

pub(crate) fn matmul(a: View<'_>, b: View<'_>, spec: &MatmulSpec<'_>) -> Result<Buffer> {
    if (spec.bias.is_some() || spec.activation.is_some()) && !can_finish(a.dtype, spec.activation) {
        return Err(refused("this matmul epilogue", a.dtype));
    }
    match a.dtype {
        DType::F32 => product::<f32>(a, b, spec, Some(finish_block), None),
        DType::F64 => product::<f64>(a, b, spec, None, None),
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
