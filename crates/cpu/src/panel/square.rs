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
