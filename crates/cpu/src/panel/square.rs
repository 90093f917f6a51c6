//! Products with a square matrix of one AVX-512 register: the sixteen channels that Winograd's convolutions of small nets have.
//!
//! Columns of one register leave a tile with a load of b for each twelve multiply-adds, and its addresses cost as much again. Here b
//! stays in registers ([`by_square`]), or all of a square's sums do ([`into_square`]). The sums have the order of the other products.

use super::Panel;
use crate::vector::Vector;

/// Rows and columns of the square.
const SIDE: usize = 16;

/// Whether the registers hold a square and a block of sums beside it.
fn has_room<V: Vector>(p: &Panel<'_, V::T>, columns: usize) -> bool {
    V::HEIGHT == 12 && V::LANES == SIDE && columns == SIDE && p.runs.len() == 1
}

/// Whether b is a square.
#[inline(always)]
pub(super) fn is_by_square<V: Vector>(p: &Panel<'_, V::T>, columns: usize) -> bool {
    has_room::<V>(p, columns) && p.run == SIDE && p.a_column == 1
}

/// Whether the result is a square, of an a whose columns lie one after another.
#[inline(always)]
pub(super) fn is_into_square<V: Vector>(p: &Panel<'_, V::T>, columns: usize) -> bool {
    has_room::<V>(p, columns) && p.rows == SIDE && p.a_row == 1
}

/// out = start + a·b, of a square b, which is read once.
///
/// # Safety
/// As [`multiply`](super::multiply), where [`is_by_square`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(super) unsafe fn by_square<V: Vector>(p: &Panel<'_, V::T>) {
    // SAFETY: by the caller.
    unsafe {
        let mut b = [V::zero(); SIDE];
        for k in 0..SIDE {
            b[k] = V::load(p.b.add(k * p.b_row));
        }
        let mut row = 0;
        while row < p.rows {
            row += match p.rows - row {
                12.. => some_rows::<V, 12>(p, &b, row),
                8.. => some_rows::<V, 8>(p, &b, row),
                2.. => some_rows::<V, 2>(p, &b, row),
                _ => some_rows::<V, 1>(p, &b, row),
            }
        }
    }
}

/// R rows of the result; gives R.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn some_rows<V: Vector, const R: usize>(p: &Panel<'_, V::T>, b: &[V; SIDE], row: usize) -> usize {
    // SAFETY: by the caller.
    unsafe {
        let a = p.a.add(p.runs[0] + row * p.a_row);
        let mut acc = [V::zero(); R];
        if !p.start.is_null() {
            for i in 0..R {
                acc[i] = V::load(p.start.add((row + i) * p.start_row));
            }
        }
        // Written out: a loop over b would leave it in memory.
        macro_rules! columns {
            ($($k:literal)*) => {$(
                for i in 0..R {
                    acc[i] = acc[i].fma(V::splat(a.add(i * p.a_row + $k)), b[$k]);
                }
            )*};
        }
        columns!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for i in 0..R {
            acc[i].store(p.out.add((row + i) * p.out_row));
        }
    }
    R
}

/// out = start + a·b, of a square result.
///
/// # Safety
/// As [`multiply`](super::multiply), where [`is_into_square`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(super) unsafe fn into_square<V: Vector>(p: &Panel<'_, V::T>) {
    // SAFETY: by the caller.
    unsafe {
        let mut acc = [V::zero(); SIDE];
        if !p.start.is_null() {
            for i in 0..SIDE {
                acc[i] = V::load(p.start.add(i * p.start_row));
            }
        }
        let (mut a, mut b) = (p.a.add(p.runs[0]), p.b);
        for _ in 0..p.run {
            let row = V::load(b);
            for i in 0..SIDE {
                acc[i] = acc[i].fma(V::splat(a.add(i)), row);
            }
            a = a.wrapping_add(p.a_column);
            b = b.wrapping_add(p.b_row);
        }
        for i in 0..SIDE {
            acc[i].store(p.out.add(i * p.out_row));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::panel::{Panel, WHOLE, multiply_plain};

    /// The product by its definition, begun with `start` or not.
    fn product(rows: usize, run: usize, starts: bool) -> Vec<f32> {
        let sum = |i, j| (0..run).map(|k| a(i, k) * b(k, j)).sum::<f32>() + if starts { start(i, j) } else { 0.0 };
        (0..rows * 16).map(|at| sum(at / 16, at % 16)).collect()
    }
    fn a(i: usize, k: usize) -> f32 {
        (i * 3 + k * 7) as f32 % 5.0 - 2.0
    }
    fn b(k: usize, j: usize) -> f32 {
        (k * 5 + j * 3) as f32 % 7.0 - 3.0
    }
    fn start(i: usize, j: usize) -> f32 {
        (i + j) as f32
    }

    /// Small whole numbers, so that every order of additions gives the same sums.
    #[test]
    fn products_by_squares_and_into_squares_are_products() {
        let by_square = (0..40).map(|rows| (rows, 16, false)); // blocks of 12, 8, 2 rows and one
        let into_square = (0..40).map(|run| (16, run, true));
        for (rows, run, turned) in by_square.chain(into_square) {
            let (a_row, a_column) = if turned { (1, rows) } else { (run, 1) };
            let place = |at: usize| if turned { a(at % rows, at / rows) } else { a(at / run, at % run) };
            let left: Vec<f32> = (0..rows * run).map(place).collect();
            let right: Vec<f32> = (0..run * 16).map(|at| b(at / 16, at % 16)).collect();
            let begun: Vec<f32> = (0..rows * 16).map(|at| start(at / 16, at % 16)).collect();
            for starts in [false, true] {
                let mut out = vec![f32::NAN; rows * 16];
                let panel = Panel {
                    rows,
                    run,
                    runs: WHOLE,
                    a: left.as_ptr(),
                    a_row,
                    a_column,
                    b: right.as_ptr(),
                    b_row: 16,
                    start: if starts { begun.as_ptr() } else { std::ptr::null() },
                    start_row: 16,
                    out: out.as_mut_ptr(),
                    out_row: 16,
                };
                // SAFETY: all operands hold what the panel names.
                unsafe { multiply_plain::<f32>(&panel, 16) };
                assert_eq!(out, product(rows, run, starts), "{rows} rows, sums of {run}, begun {starts}");
            }
        }
    }
}
