//! Small products: what packing both operands and asking for memory would cost more than the product itself.
//!
//! The left operand is read where it lies, one number for all lanes; the right one by whole vectors along its rows. Where these do
//! not lie so (a transposed weight, rows that end inside a vector), it is first laid out on the stack. Each element is
//! one sum over k in order, so the bits depend on the sizes alone.

use crate::matmul::Matrix;
use crate::vector::{Real, Vector, by_level, lanes};
use std::mem::MaybeUninit;

/// Products of at most so many multiplications are small.
const MOST: usize = 1 << 17;
/// Numbers of a right operand that are laid out on the stack.
const ROOM: usize = 4096;

/// Whether [`multiply`] is for this product, `[m, k] × [k, n]`.
pub(crate) fn fits<T: Real>([m, k, n]: [usize; 3], b: Matrix<T>) -> bool {
    let width = n.next_multiple_of(lanes::<T>());
    // A row alone, or a single column, has nothing to keep in registers.
    m > 1 && n > 1 && m * n * k <= MOST && (in_place(n, b) || k * width <= ROOM)
}

fn in_place<T: Real>(n: usize, b: Matrix<T>) -> bool {
    b.column == 1 && n.is_multiple_of(lanes::<T>())
}

/// out = a·b for `out` `[m, n]` with rows `pitch` apart, a `[m, k]`, b `[k, n]`.
///
/// # Safety
/// The matrices' elements must lie in live memory, `out`'s `m × n` must be held alone, and the product must [fit](fits).
pub(crate) unsafe fn multiply<T: Real>(out: *mut T, pitch: usize, size: [usize; 3], a: Matrix<T>, b: Matrix<T>) {
    // SAFETY: by the caller.
    unsafe { by_size(out, pitch, size, a, b) }
}

by_level! {
    unsafe fn by_size<T>(out: *mut T, pitch: usize, size: [usize; 3], a: Matrix<T>, b: Matrix<T>) => product
}

#[inline(always)]
unsafe fn product<V: Vector>(out: *mut V::T, pitch: usize, size: [usize; 3], a: Matrix<V::T>, b: Matrix<V::T>) {
    let [_, k, n] = size;
    if b.column == 1 && n.is_multiple_of(V::LANES) {
        // SAFETY: by the caller, here and below.
        return unsafe { whole::<V>(out, pitch, size, a, b.ptr, b.row) };
    }
    let mut room = [const { MaybeUninit::<V::T>::uninit() }; ROOM];
    let (laid, width) = (room.as_mut_ptr().cast::<V::T>(), n.next_multiple_of(V::LANES));
    // SAFETY: `fits` has seen that k rows of this width have room.
    unsafe {
        lay_out::<V>(laid, width, k, n, b);
        whole::<V>(out, pitch, size, a, laid, width as isize);
    }
}

/// Writes b's rows one after another, each filled up with zeros to `width`.
#[inline(always)]
unsafe fn lay_out<V: Vector>(to: *mut V::T, width: usize, k: usize, n: usize, b: Matrix<V::T>) {
    let at = |p: usize, j: usize| b.ptr.wrapping_offset(p as isize * b.row + j as isize * b.column);
    let blocks = if b.row == 1 { k / V::LANES } else { 0 };
    // SAFETY: places inside b, by the caller, and inside k rows of `width`.
    unsafe {
        for j in (0..width).step_by(V::LANES) {
            let columns = V::LANES.min(n - j);
            for block in 0..blocks {
                // Columns lie one after another: vectors of them are turned over.
                let mut v = [V::zero(); 16];
                for (i, v) in v[..columns].iter_mut().enumerate() {
                    *v = V::load(at(block * V::LANES, j + i));
                }
                V::transpose(&mut v);
                for (i, v) in v[..V::LANES].iter().enumerate() {
                    v.store(to.add((block * V::LANES + i) * width + j));
                }
            }
            for p in blocks * V::LANES..k {
                let row = to.add(p * width + j);
                V::zero().store(row);
                for i in 0..columns {
                    *row.add(i) = *at(p, j + i);
                }
            }
        }
    }
}

/// The product with a right operand of whole vectors: rows in groups that registers hold, two vectors of columns at a time.
#[inline(always)]
unsafe fn whole<V: Vector>(
    out: *mut V::T,
    pitch: usize,
    [m, k, n]: [usize; 3],
    a: Matrix<V::T>,
    b: *const V::T,
    b_row: isize,
) {
    let mut column = 0;
    while column < n {
        let (left, from) = (n - column, b.wrapping_add(column));
        let mut row = 0;
        while row < m {
            let rows = if m - row >= V::ROWS { V::ROWS } else { (m - row).min(4) };
            let y = out.wrapping_add(row * pitch + column);
            let x = Matrix { ptr: a.ptr.wrapping_offset(row as isize * a.row), ..a };
            // SAFETY: by the caller.
            unsafe {
                match (rows, left > V::LANES) {
                    (8, true) => tile::<V, 8, 2>(y, pitch, left, k, x, from, b_row),
                    (8, false) => tile::<V, 8, 1>(y, pitch, left, k, x, from, b_row),
                    (4, true) => tile::<V, 4, 2>(y, pitch, left, k, x, from, b_row),
                    (4, false) => tile::<V, 4, 1>(y, pitch, left, k, x, from, b_row),
                    (3, true) => tile::<V, 3, 2>(y, pitch, left, k, x, from, b_row),
                    (3, false) => tile::<V, 3, 1>(y, pitch, left, k, x, from, b_row),
                    (2, true) => tile::<V, 2, 2>(y, pitch, left, k, x, from, b_row),
                    (2, false) => tile::<V, 2, 1>(y, pitch, left, k, x, from, b_row),
                    (_, true) => tile::<V, 1, 2>(y, pitch, left, k, x, from, b_row),
                    (_, false) => tile::<V, 1, 1>(y, pitch, left, k, x, from, b_row),
                }
            }
            row += rows;
        }
        column += if left > V::LANES { 2 * V::LANES } else { V::LANES };
    }
}

/// R rows of N vectors, of which `left` numbers are wanted.
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const N: usize>(
    out: *mut V::T,
    pitch: usize,
    left: usize,
    k: usize,
    a: Matrix<V::T>,
    b: *const V::T,
    b_row: isize,
) {
    // SAFETY: by the caller; the last vector's lanes beyond `left` are zeros of the layout, and are not written.
    unsafe {
        let mut sums = [[V::zero(); N]; R];
        for p in 0..k as isize {
            let right: [V; N] = std::array::from_fn(|v| V::load(b.offset(p * b_row).add(v * V::LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = V::splat(a.ptr.wrapping_offset(r as isize * a.row + p * a.column));
                for (sum, &y) in sums.iter_mut().zip(&right) {
                    *sum = sum.fma(x, y);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = out.add(r * pitch + v * V::LANES);
                if left >= (v + 1) * V::LANES { sum.store(to) } else { sum.store_lanes(to, 0, left - v * V::LANES) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that products are exact in any order.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn small_products_are_the_sums_that_they_stand_for() {
        for (m, k, n) in
            [(2, 1, 2), (2, 3, 5), (3, 16, 16), (7, 17, 33), (9, 32, 10), (32, 64, 32), (19, 5, 48), (13, 40, 31)]
        {
            let (x, y) = (numbers(m * k), numbers(k * n));
            for flip in 0..4 {
                // Each operand as it is, or read as the transpose of what lies there.
                let a = match flip & 1 {
                    0 => Matrix { ptr: x.as_ptr(), row: k as isize, column: 1 },
                    _ => Matrix { ptr: x.as_ptr(), row: 1, column: m as isize },
                };
                let b = match flip & 2 {
                    0 => Matrix { ptr: y.as_ptr(), row: n as isize, column: 1 },
                    _ => Matrix { ptr: y.as_ptr(), row: 1, column: k as isize },
                };
                assert!(fits([m, k, n], b), "{m} {k} {n}");
                let pitch = n + 3;
                let mut out = vec![-1.0f32; m * pitch];
                // SAFETY: the matrices are whole, and `out` has room for m rows.
                unsafe { multiply(out.as_mut_ptr(), pitch, [m, k, n], a, b) };
                let at = |v: &[f32], s: Matrix<f32>, i: usize, j: usize| v[i * s.row as usize + j * s.column as usize];
                for i in 0..m {
                    for j in 0..pitch {
                        let sum = (0..k).map(|p| at(&x, a, i, p) * if j < n { at(&y, b, p, j) } else { 0.0 }).sum();
                        let want: f32 = if j < n { sum } else { -1.0 };
                        assert_eq!(out[i * pitch + j], want, "[{m}, {k}] × [{k}, {n}], form {flip}, element {i} {j}");
                    }
                }
            }
        }
    }
}
