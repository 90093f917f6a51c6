//! Products of rows by rows, x·Wᵀ as a linear layer of a small batch has them: a dot product along memory in both operands.
//!
//! Nothing is packed or turned over. Both operands are read as registers, twelve or sixteen sums of a register each are kept at a
//! time, and their lanes are added up at the end, all in one tree. Eight rows of x stay in the first cache, a part of W in the
//! second. The cuts depend on the sizes alone.

use crate::math::Float;
use crate::matmul::Matrix;
use crate::vector::{Real, Vector, by_level};
use std::ops::Range;

/// So many numbers of each row are summed up at a time: eight rows of `f32` fill 32 KiB.
const RUN: usize = 1024;
/// Rows of the right operand in a part.
const PART: usize = 32;
/// The left operand has at most so many rows: it is read anew for each part.
const MOST_ROWS: usize = 256;
/// Shorter rows are better packed: adding up the lanes would take a fifth of the time and more.
const SHORTEST: usize = 256;

/// Whether [`multiply`] is for this product, `[m, k] × [k, n]` of matrices whose rows and columns are so far apart.
pub(crate) fn fits([m, k, n]: [usize; 3], a: [isize; 2], b: [isize; 2]) -> bool {
    let rows = a[1] == 1 && b[0] == 1 && a[0] >= k as isize && b[1] >= k as isize;
    rows && (8..=MOST_ROWS).contains(&m) && k >= SHORTEST && n >= PART
}

/// How many parts there are, for the columns of the result; of an even number, two threads get as many each.
pub(crate) fn parts(n: usize) -> usize {
    n.div_ceil(PART).next_multiple_of(2)
}

/// The columns of a part: an even number of them, but for the last.
pub(crate) fn columns(n: usize, part: usize) -> Range<usize> {
    let at = |part: usize| (n * part / parts(n)).next_multiple_of(2).min(n);
    at(part)..at(part + 1)
}

/// out = a·b for `out` `[m, n]` with rows `pitch` apart, a `[m, k]`, b `[k, n]`.
///
/// # Safety
/// The matrices' elements must lie in live memory, `out`'s `m × n` must be held alone, and the product must [fit](fits) but for n,
/// which may be a part's.
pub(crate) unsafe fn multiply<T: Real>(out: *mut T, pitch: usize, size: [usize; 3], a: Matrix<T>, b: Matrix<T>) {
    // SAFETY: by the caller.
    unsafe { by_size(out, pitch, size, a, b) }
}

by_level! {
    unsafe fn by_size<T>(out: *mut T, pitch: usize, size: [usize; 3], a: Matrix<T>, b: Matrix<T>) => product
}

#[inline(always)]
unsafe fn product<V: Vector>(out: *mut V::T, pitch: usize, [m, k, n]: [usize; 3], a: Matrix<V::T>, b: Matrix<V::T>) {
    for first in (0..k).step_by(RUN) {
        let (run, add) = (RUN.min(k - first), first > 0);
        let mut row = 0;
        while row < m {
            // SAFETY: by the caller, here and below.
            unsafe {
                let x = a.ptr.offset(row as isize * a.row).add(first);
                let (w, y) = (b.ptr.add(first), out.add(row * pitch));
                let strides = [a.row as usize, b.column as usize, pitch];
                row += match m - row {
                    8.. if V::ROWS == 8 => rows::<V, 8>(y, strides, run, n, x, w, add),
                    4.. => rows::<V, 4>(y, strides, run, n, x, w, add),
                    2.. => rows::<V, 2>(y, strides, run, n, x, w, add),
                    _ => rows::<V, 1>(y, strides, run, n, x, w, add),
                };
            }
        }
    }
}

/// R rows of the result, two columns at a time (three of four rows: twelve sums hide the time that a multiply-add takes, eight just
/// so); gives R.
#[inline(always)]
unsafe fn rows<V: Vector, const R: usize>(
    y: *mut V::T,
    strides: [usize; 3],
    run: usize,
    n: usize,
    x: *const V::T,
    w: *const V::T,
    add: bool,
) -> usize {
    let mut column = 0;
    while column < n {
        // SAFETY: by the caller.
        unsafe {
            let (y, w) = (y.add(column), w.add(column * strides[1]));
            column += match n - column {
                3.. if R == 4 => tile::<V, R, 3>(y, strides, run, x, w, add),
                2.. => tile::<V, R, 2>(y, strides, run, x, w, add),
                _ => tile::<V, R, 1>(y, strides, run, x, w, add),
            };
        }
    }
    R
}

/// R × C sums over `run` numbers; gives C.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn tile<V: Vector, const R: usize, const C: usize>(
    y: *mut V::T,
    [x_row, w_row, pitch]: [usize; 3],
    run: usize,
    x: *const V::T,
    w: *const V::T,
    add: bool,
) -> usize {
    // SAFETY: by the caller; lanes beyond the run are zeros.
    unsafe {
        let mut acc = [V::zero(); 16];
        let whole = run - run % V::LANES;
        for p in (0..whole).step_by(V::LANES) {
            let mut right = [V::zero(); C];
            for j in 0..C {
                right[j] = V::load(w.add(j * w_row + p));
            }
            for i in 0..R {
                let left = V::load(x.add(i * x_row + p));
                for j in 0..C {
                    acc[i * C + j] = acc[i * C + j].fma(left, right[j]);
                }
            }
        }
        if whole < run {
            let mut right = [V::zero(); C];
            for j in 0..C {
                right[j] = V::load_lanes(w.add(j * w_row + whole), 0, run - whole);
            }
            for i in 0..R {
                let left = V::load_lanes(x.add(i * x_row + whole), 0, run - whole);
                for j in 0..C {
                    acc[i * C + j] = acc[i * C + j].fma(left, right[j]);
                }
            }
        }
        let mut sums = [V::T::ZERO; 16];
        V::sums(&acc, R * C, &mut sums);
        for i in 0..R {
            for j in 0..C {
                let y = y.add(i * pitch + j);
                *y = if add { *y + sums[i * C + j] } else { sums[i * C + j] };
            }
        }
    }
    C
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_each_column_once() {
        for n in [32, 33, 50, 64, 127, 128, 1000] {
            let mut next = 0;
            for part in 0..parts(n) {
                let columns = columns(n, part);
                assert_eq!(columns.start, next, "{n} columns");
                next = columns.end;
            }
            assert_eq!(next, n);
        }
    }

    #[test]
    fn products_of_rows_are_the_sums_that_they_stand_for() {
        for (m, k, n) in [(8, 256, 32), (9, 257, 33), (64, 784, 128), (23, 1025, 40), (31, 2100, 35)] {
            // Small whole numbers, so that sums are exact in any order; rows farther apart than they are long.
            let number = |i: usize| ((i * 7919 + 13) % 17) as f32 - 8.0;
            let (x_row, w_row, pitch) = (k + 3, k + 5, n + 3);
            let x: Vec<f32> = (0..m * x_row).map(number).collect();
            let w: Vec<f32> = (0..n * w_row).map(number).collect();
            let mut out = vec![f32::NAN; m * pitch];
            let a = Matrix { ptr: x.as_ptr(), row: x_row as isize, column: 1 };
            assert!(fits([m, k, n], [x_row as isize, 1], [1, w_row as isize]));
            for part in 0..parts(n) {
                let columns = columns(n, part);
                let b =
                    Matrix { ptr: w[(columns.start * w_row).min(w.len())..].as_ptr(), row: 1, column: w_row as isize };
                // SAFETY: the matrices are whole, and `out` has room for m rows.
                unsafe { multiply(out[columns.start..].as_mut_ptr(), pitch, [m, k, columns.len()], a, b) };
            }
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k).map(|p| x[i * x_row + p] * w[j * w_row + p]).sum();
                    assert_eq!(out[i * pitch + j], want, "[{m}, {k}] × [{k}, {n}], element {i} {j}");
                }
                assert!(i + 1 == m || out[i * pitch + n..(i + 1) * pitch].iter().all(|y| y.is_nan()), "beyond row {i}");
            }
        }
    }
}
