//! The products of attention's blocks, which are small and many: by [panels](crate::panel), which pack nothing but what has to be turned
//! over, and that once for all blocks; else by the kernels of `gemm`.

use crate::matmul::Matrix;
use crate::panel::{Panel, WHOLE, multiply_packed, multiply_plain, pack_turned, packed_len};
use crate::simd::{Level, level};
use crate::vector::{self, lanes};
use gemm_common::Parallelism;
use gradus_core::Element;

/// Rows of results are so many numbers apart, or a multiple: whole registers of any instruction set.
pub(super) const UNIT: usize = 16;

/// A float that the `gemm` kernels multiply, and add to what is there.
pub(super) trait Real: Element + vector::Real {
    /// out = a·b (+ out, if `add`) for `out` `[m, n]` whose rows are `pitch` apart, a `[m, k]`, b `[k, n]`.
    ///
    /// # Safety
    /// The matrices' elements must lie in live memory, and `out`'s `m × n` must be held alone.
    unsafe fn gemm(out: *mut Self, pitch: usize, size: [usize; 3], a: Matrix<Self>, b: Matrix<Self>, add: bool);
}

macro_rules! real {
    ($t:ty, $gemm:path) => {
        impl Real for $t {
            unsafe fn gemm(out: *mut $t, pitch: usize, [m, k, n]: [usize; 3], a: Matrix<$t>, b: Matrix<$t>, add: bool) {
                let keep = if add { 1.0 } else { 0.0 };
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
                        keep,
                        1.0,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    )
                }
            }
        }
    };
}
real!(f32, gemm_f32::gemm::f32::get_gemm_fn);
real!(f64, gemm_f64::gemm::f64::get_gemm_fn);

pub(super) fn transposed<T>(m: Matrix<T>) -> Matrix<T> {
    Matrix { ptr: m.ptr, row: m.column, column: m.row }
}

/// A row-major matrix.
pub(super) fn rows_of<T>(x: &[T], width: usize) -> Matrix<T> {
    Matrix { ptr: x.as_ptr(), row: width as isize, column: 1 }
}

/// The right operand of products, as they read it.
pub(super) struct Right<T> {
    matrix: Matrix<T>,
    kind: Kind<T>,
}

enum Kind<T> {
    /// For `gemm`.
    Any,
    /// Its rows lie in one piece each.
    Rows,
    /// Its columns do, of so many numbers: as [`pack_turned`] leaves them.
    Packed(usize, Vec<T>),
}

impl<T: Real> Right<T> {
    /// Of a matrix `[k, n]`, all of whose elements lie in live memory. Products may sum over its first rows alone, or give its first
    /// columns alone.
    pub(super) fn of(matrix: Matrix<T>, [k, n]: [usize; 2]) -> Right<T> {
        let kind = if level() < Level::Avx2 {
            Kind::Any
        } else if matrix.column == 1 && n.is_multiple_of(lanes::<T>()) {
            Kind::Rows
        } else if matrix.row == 1 && matrix.column > 0 {
            let wide = 2 * lanes::<T>();
            let mut packed = vec![T::ZERO; packed_len::<T>(k, n)];
            // SAFETY: by the caller.
            let column =
                |j: usize| unsafe { std::slice::from_raw_parts(matrix.ptr.offset(j as isize * matrix.column), k) };
            packed.chunks_exact_mut(wide * k).enumerate().for_each(|(i, part)| pack_turned(k, n, i, column, part));
            Kind::Packed(k, packed)
        } else {
            Kind::Any
        };
        Right { matrix, kind }
    }
}

/// out = a·b (+ out, if `add`) for `out` `[m, n]` whose rows are `pitch` apart, a `[m, k]`, b `[k, n]`. If the pitch is a multiple of
/// [`UNIT`], numbers behind a row's last, up to such a multiple, may be written, too.
///
/// # Safety
/// The matrices' elements must lie in live memory, and `out`'s rows must be held alone.
pub(super) unsafe fn multiply<T: Real>(
    out: *mut T,
    pitch: usize,
    size: [usize; 3],
    a: Matrix<T>,
    b: &Right<T>,
    add: bool,
) {
    let [rows, run, n] = size;
    let mut panel = Panel {
        rows,
        run,
        runs: WHOLE,
        a: a.ptr,
        a_row: a.row as usize,
        a_column: a.column as usize,
        b: b.matrix.ptr,
        b_row: b.matrix.row as usize,
        start: if add { out } else { std::ptr::null() },
        start_row: pitch,
        out,
        out_row: pitch,
    };
    // SAFETY: by the caller; the left operand's strides are not negative, as `fits` has seen.
    unsafe {
        match &b.kind {
            Kind::Rows => multiply_plain(&panel, n),
            Kind::Packed(k, packed) if *k == run && pitch.is_multiple_of(UNIT) => {
                panel.b = packed.as_ptr();
                multiply_packed(&panel, n);
            }
            _ => T::gemm(out, pitch, size, a, b.matrix, add),
        }
    }
}
