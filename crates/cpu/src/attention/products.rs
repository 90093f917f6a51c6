//! The products of attention's blocks, which are small and many: by [panels](crate::panel), which pack nothing but what has to be turned
//! over, and that once for all blocks; else by the kernels of `gemm`.

use crate::lanes::LANES;
use crate::matmul::{Matrix, Real};
use crate::panel::{Panel, WHOLE, multiply_packed, multiply_plain, pack_turned, packed_len};
use crate::simd::{Level, level};
use crate::vector::lanes;
use gemm_common::Parallelism;

/// Rows of results are so many numbers apart, or a multiple: whole registers of any instruction set.
pub(super) const UNIT: usize = LANES;

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
            let len = packed_len::<T>(k, n);
            let mut packed: Vec<T> = Vec::with_capacity(len);
            for first in (0..n).step_by(wide) {
                // SAFETY: by the caller; there is room for all columns, up to a whole part.
                unsafe {
                    let from = matrix.ptr.add(first * matrix.column as usize);
                    let to = packed.as_mut_ptr().add(first * k);
                    pack_turned(from, matrix.column as usize, [k, wide.min(n - first)], to);
                }
            }
            // SAFETY: all of it has been written.
            unsafe { packed.set_len(len) };
            Kind::Packed(k, packed)
        } else {
            Kind::Any
        };
        Right { matrix, kind }
    }
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct To<T> {
    pub(super) out: *mut T,
    /// How far apart the rows are.
    pub(super) pitch: usize,
    /// Whether it is added to what is there.
    pub(super) add: bool,
    /// Whether numbers behind a row's last, up to a multiple of [`UNIT`], may be written, too.
    pub(super) spare: bool,
}

impl<T> To<T> {
    /// Rows of scratch, a multiple of [`UNIT`] apart.
    pub(super) fn scratch(rows: &mut [T], pitch: usize) -> To<T> {
        To { out: rows.as_mut_ptr(), pitch, add: false, spare: true }
    }
    /// Rows of a result.
    pub(super) fn rows(out: *mut T, pitch: usize) -> To<T> {
        To { out, pitch, add: false, spare: false }
    }
    /// Rows of a result, from row `row` on.
    pub(super) fn from(self, row: usize) -> To<T> {
        To { out: self.out.wrapping_add(row * self.pitch), ..self }
    }
    /// Added to what is there.
    pub(super) fn added(self) -> To<T> {
        To { add: true, ..self }
    }
}

/// to = a·b (+ what is there) for a `[m, k]`, b `[k, n]`.
///
/// # Safety
/// The matrices' elements must lie in live memory, and the rows that are written must be held alone.
pub(super) unsafe fn multiply<T: Real>(to: To<T>, size: [usize; 3], a: Matrix<T>, b: &Right<T>) {
    let ([rows, run, n], To { out, pitch, add, spare }) = (size, to);
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
            Kind::Packed(k, packed) if *k == run && (spare || n.is_multiple_of(lanes::<T>())) => {
                panel.b = packed.as_ptr();
                multiply_packed(&panel, n);
            }
            _ => T::multiply(out, pitch, size, a, b.matrix, add, Parallelism::None),
        }
    }
}
