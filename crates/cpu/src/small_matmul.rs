//! Small products: what packing both operands and asking for memory would cost more than the product itself.
//!
//! The left operand is read where it lies, one number for all lanes; the right one by whole vectors along its rows. Where these do
//! not lie so (a transposed weight, rows that end inside a vector), it is first laid out on the stack. Each element is
//! one sum over k in order, so the bits depend on the sizes alone. Bias and ReLU are added while a sum is still in its register.

use crate::matmul::Matrix;
use crate::vector::{Real, Vector, by_level, lanes};
use std::mem::MaybeUninit;

/// Products of at most so many multiplications are small.
const MOST: usize = 1 << 17;
/// Numbers of a right operand that are laid out on the stack.
const ROOM: usize = 4096;

/// Whether [`multiply`] is for this product, `[m, k] × [k, n]` of matrices whose rows and columns are so far apart.
pub(crate) fn fits<T: Real>([m, k, n]: [usize; 3], a: [isize; 2], b: [isize; 2]) -> bool {
    // A few sums of rows by rows: `gemm` adds these up in lanes, which rounds less than one number after another.
    if a[1] == 1 && b[0] == 1 && m * n <= 256 {
        return false;
    }
    let width = n.next_multiple_of(lanes::<T>());
    let in_place = b[1] == 1 && n == width;
    // A row alone, or a single column, has nothing to keep in registers.
    m > 1 && n > 1 && m * n * k <= MOST && (in_place || k * width <= ROOM)
}

/// Where a product goes, and what is done to its rows on the way.
#[derive(Clone, Copy)]
pub(crate) struct To<T> {
    pub(crate) ptr: *mut T,
    /// How far apart the rows are.
    pub(crate) row: usize,
    /// A number for each column, which is added; null: none.
    pub(crate) bias: *const T,
    /// Whether what is below zero then becomes zero.
    pub(crate) relu: bool,
}

impl<T> To<T> {
    /// The product as it is, in rows so far apart.
    pub(crate) fn plain(ptr: *mut T, row: usize) -> To<T> {
        To { ptr, row, bias: std::ptr::null(), relu: false }
    }
}

by_level! {
    /// out = a·b for `out` `[m, n]`, a `[m, k]`, b `[k, n]`.
    ///
    /// # Safety
    /// The matrices' elements must lie in live memory, `out`'s `m × n` must be held alone, and the product must [fit](fits).
    pub(crate) unsafe fn multiply<T>(out: To<T>, size: [usize; 3], a: Matrix<T>, b: Matrix<T>) => product
}

#[inline(always)]
unsafe fn product<V: Vector>(out: To<V::T>, size: [usize; 3], a: Matrix<V::T>, b: Matrix<V::T>) {
    let [_, k, n] = size;
    if b.column == 1 && n.is_multiple_of(V::LANES) {
        // SAFETY: by the caller, here and below.
        return unsafe { whole::<V>(out, size, a, b.ptr, b.row) };
    }
    let mut room = [const { MaybeUninit::<V::T>::uninit() }; ROOM];
    let (laid, width) = (room.as_mut_ptr().cast::<V::T>(), n.next_multiple_of(V::LANES));
    // SAFETY: `fits` has seen that k rows of this width have room.
    unsafe {
        lay_out::<V>(laid, width, k, n, b);
        whole::<V>(out, size, a, laid, width as isize);
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
unsafe fn whole<V: Vector>(out: To<V::T>, [m, k, n]: [usize; 3], a: Matrix<V::T>, b: *const V::T, b_row: isize) {
    let mut column = 0;
    while column < n {
        let (left, from) = (n - column, b.wrapping_add(column));
        let mut row = 0;
        while row < m {
            let rows = if m - row >= V::ROWS { V::ROWS } else { (m - row).min(4) };
            let bias = if out.bias.is_null() { out.bias } else { out.bias.wrapping_add(column) };
            let y = To { ptr: out.ptr.wrapping_add(row * out.row + column), bias, ..out };
            let x = Matrix { ptr: a.ptr.wrapping_offset(row as isize * a.row), ..a };
            // SAFETY: by the caller.
            unsafe {
                match (rows, left > V::LANES) {
                    (8, true) => tile::<V, 8, 2>(y, left, k, x, from, b_row),
                    (8, false) => tile::<V, 8, 1>(y, left, k, x, from, b_row),
                    (4, true) => tile::<V, 4, 2>(y, left, k, x, from, b_row),
                    (4, false) => tile::<V, 4, 1>(y, left, k, x, from, b_row),
                    (3, true) => tile::<V, 3, 2>(y, left, k, x, from, b_row),
                    (3, false) => tile::<V, 3, 1>(y, left, k, x, from, b_row),
                    (2, true) => tile::<V, 2, 2>(y, left, k, x, from, b_row),
                    (2, false) => tile::<V, 2, 1>(y, left, k, x, from, b_row),
                    (_, true) => tile::<V, 1, 2>(y, left, k, x, from, b_row),
                    (_, false) => tile::<V, 1, 1>(y, left, k, x, from, b_row),
                }
            }
            row += rows;
        }
        column += if left > V::LANES { 2 * V::LANES } else { V::LANES };
    }
}

/// R rows of N vectors, of which `left` numbers are wanted.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn tile<V: Vector, const R: usize, const N: usize>(
    out: To<V::T>,
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
        let wanted = |v: usize| V::LANES.min(left - v * V::LANES);
        if !out.bias.is_null() {
            for v in 0..N {
                let bias = V::load_lanes(out.bias.add(v * V::LANES), 0, wanted(v));
                for r in 0..R {
                    sums[r][v] = sums[r][v].add(bias);
                }
            }
        }
        if out.relu {
            for r in 0..R {
                for v in 0..N {
                    sums[r][v] = sums[r][v].relu();
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = out.ptr.add(r * out.row + v * V::LANES);
                if wanted(v) == V::LANES { sum.store(to) } else { sum.store_lanes(to, 0, wanted(v)) }
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

    fn fits_here(size: [usize; 3], a: Matrix<f32>, b: Matrix<f32>) -> bool {
        fits::<f32>(size, [a.row, a.column], [b.row, b.column])
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
                assert!(flip == 2 && m * n <= 256 || fits_here([m, k, n], a, b), "{m} {k} {n}");
                let pitch = n + 3;
                let mut out = vec![-1.0f32; m * pitch];
                // SAFETY: the matrices are whole, and `out` has room for m rows.
                unsafe { multiply(To::plain(out.as_mut_ptr(), pitch), [m, k, n], a, b) };
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

    #[test]
    fn bias_and_relu_are_those_of_one_number_after_another() {
        for (m, k, n) in [(9, 4, 16), (12, 3, 40), (33, 5, 10)] {
            let (mut x, y, bias) = (numbers(m * k), numbers(k * n), numbers(n));
            x[0] = f32::NAN; // the first row's sums
            let a = Matrix { ptr: x.as_ptr(), row: k as isize, column: 1 };
            let b = Matrix { ptr: y.as_ptr(), row: n as isize, column: 1 };
            assert!(fits_here([m, k, n], a, b), "{m} {k} {n}");
            let (mut plain, mut done) = (vec![0.0f32; m * n], vec![0.0f32; m * n]);
            for (bias_at, relu) in [(std::ptr::null(), true), (bias.as_ptr(), false), (bias.as_ptr(), true)] {
                // SAFETY: the matrices are whole, and there is a bias for each column.
                unsafe {
                    multiply(To::plain(plain.as_mut_ptr(), n), [m, k, n], a, b);
                    multiply(To { bias: bias_at, relu, ..To::plain(done.as_mut_ptr(), n) }, [m, k, n], a, b);
                }
                for (i, (&sum, &done)) in plain.iter().zip(&done).enumerate() {
                    let want = if bias_at.is_null() { sum } else { sum + bias[i % n] };
                    let want = if relu && want < 0.0 { 0.0 } else { want };
                    assert!(
                        done.to_bits() == want.to_bits() || done.is_nan() && want.is_nan(),
                        "{i}: {done} for {want}"
                    );
                }
            }
        }
    }
}
