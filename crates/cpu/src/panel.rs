//! A small matrix product whose columns lie in lanes: the inner loop of the convolutions that hold channels side by side, and of
//! recurrent layers.
//!
//! out\[i, j\] = Σ_p a\[i, p\] · b\[p, j\], with a's numbers spread over a register and b's rows read as registers. Twelve rows of
//! two registers fill AVX-512's register file: 24 multiply-adds for 14 loads. Six rows of two fill AVX2's.

mod square;

use crate::vector::{Real, Vector, by_level, lanes};
use square::{by_square, into_square, is_by_square, is_into_square};

/// The operands of a product; lengths and distances in numbers.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a, T> {
    /// Rows of a and out.
    pub(crate) rows: usize,
    /// What is summed over lies in runs of so many numbers of a row, and b's rows one after another ...
    pub(crate) run: usize,
    /// ... and a's runs begin here.
    pub(crate) runs: &'a [usize],
    pub(crate) a: *const T,
    /// How far apart a's rows and columns are.
    pub(crate) a_row: usize,
    pub(crate) a_column: usize,
    pub(crate) b: *const T,
    pub(crate) b_row: usize,
    /// What the sums begin with; null: zeros.
    pub(crate) start: *const T,
    pub(crate) start_row: usize,
    pub(crate) out: *mut T,
    pub(crate) out_row: usize,
}

/// The most rows of a block of [`multiply`], where registers hold more: of nine rows on the compiler keeps some sums in memory,
/// depending on what stands around, and a block takes up to half as long again.
const MOST_ROWS: usize = 8;

/// The only run of a product whose operands lie in one piece.
pub(crate) const WHOLE: &[usize] = &[0];

/// out = start + a·b, for `columns` columns: whole registers.
///
/// # Safety
/// The operands must hold what they name, and `out` must be held alone; the instruction set by V.
#[inline(always)]
pub(crate) unsafe fn multiply<V: Vector>(p: &Panel<'_, V::T>, columns: usize) {
    debug_assert!(columns.is_multiple_of(V::LANES));
    // SAFETY: by the caller.
    unsafe {
        if is_by_square::<V>(p, columns) {
            return by_square::<V>(p);
        }
        if is_into_square::<V>(p, columns) {
            return into_square::<V>(p);
        }
    }
    // Blocks whose heights differ by one row at most: a block of one or two rows would wait for each of its sums.
    let blocks = p.rows.div_ceil(V::HEIGHT.min(MOST_ROWS));
    let (height, higher) = (p.rows / blocks.max(1), p.rows % blocks.max(1));
    for column in (0..columns).step_by(2 * V::LANES) {
        let mut row = 0;
        for i in 0..blocks {
            let rows = height + usize::from(i < higher);
            // SAFETY: inside the operands.
            unsafe {
                let part = Panel {
                    a: p.a.add(row * p.a_row),
                    b: p.b.add(column),
                    start: if p.start.is_null() { p.start } else { p.start.add(row * p.start_row + column) },
                    out: p.out.add(row * p.out_row + column),
                    rows,
                    ..*p
                };
                block::<V>(&part, columns - column);
            }
            row += rows;
        }
    }
}

/// How many numbers a matrix `[run, columns]` takes when packed for [`multiply_packed`].
pub(crate) fn packed_len<T: Real>(run: usize, columns: usize) -> usize {
    run * columns.next_multiple_of(2 * lanes::<T>())
}

by_level! {
    /// Packs columns, so far apart, of a matrix for [`multiply_packed`]: `[run, columns]` numbers, two registers of columns at most, as rows
    /// one after another, with zeros beyond the last column.
    ///
    /// # Safety
    /// The columns must lie in live memory, and there must be room for a part.
    pub(crate) unsafe fn pack_turned<T>(from: *const T, apart: usize, size: [usize; 2], out: *mut T) => pack_turned_of
}

#[inline(always)]
unsafe fn pack_turned_of<V: Vector>(from: *const V::T, apart: usize, [run, columns]: [usize; 2], out: *mut V::T) {
    for first in [0, V::LANES] {
        let (from, out) = (from.wrapping_add(first * apart), out.wrapping_add(first));
        // SAFETY: by the caller.
        unsafe {
            match columns.saturating_sub(first) {
                // A number that is known, so that the columns stay in registers.
                left if left >= V::LANES => turn::<V>(from, apart, [run, V::LANES], out, 2 * V::LANES),
                left => turn::<V>(from, apart, [run, left], out, 2 * V::LANES),
            }
        }
    }
}

by_level! {
    /// Packs some rows, so far apart, of a matrix for [`multiply_packed`]: `[rows, columns]` numbers go to all parts, which begin `next`
    /// apart, with zeros beyond the last column.
    ///
    /// # Safety
    /// The rows must lie in live memory, and there must be room for them in each part.
    pub(crate) unsafe fn pack_rows<T>(from: *const T, apart: usize, size: [usize; 2], out: *mut T, next: usize) => pack_rows_of
}

/// So many rows are well packed at a time: they are read side by side.
pub(crate) const TOGETHER: usize = 16;

#[inline(always)]
unsafe fn pack_rows_of<V: Vector>(
    from: *const V::T,
    apart: usize,
    [rows, columns]: [usize; 2],
    out: *mut V::T,
    next: usize,
) {
    for (part, first) in (0..columns).step_by(2 * V::LANES).enumerate() {
        let left = columns - first;
        for row in 0..rows {
            // SAFETY: by the caller.
            unsafe {
                let (from, to) = (from.add(row * apart + first), out.add(part * next + row * 2 * V::LANES));
                for i in [0, V::LANES] {
                    let some = if i + V::LANES <= left {
                        V::load(from.add(i))
                    } else {
                        V::load_lanes(from.wrapping_add(i), 0, left.saturating_sub(i))
                    };
                    some.store(to.add(i));
                }
            }
        }
    }
}

/// Writes up to a register's columns, so far apart, as rows, each filled up with zeros to a register.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn turn<V: Vector>(
    from: *const V::T,
    apart: usize,
    [run, columns]: [usize; 2],
    out: *mut V::T,
    out_apart: usize,
) {
    let whole = run - run % V::LANES;
    // SAFETY: by the caller.
    unsafe {
        for row in (0..whole).step_by(V::LANES) {
            let mut v = [V::zero(); 16];
            for i in 0..columns {
                v[i] = V::load(from.add(i * apart + row));
            }
            V::transpose(&mut v);
            for i in 0..V::LANES {
                v[i].store(out.add((row + i) * out_apart));
            }
        }
        for row in whole..run {
            V::zero().store(out.add(row * out_apart));
            for i in 0..columns {
                *out.add(row * out_apart + i) = *from.add(i * apart + row);
            }
        }
    }
}

by_level! {
    /// [`multiply`] with this processor's registers.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn multiply_plain<T>(p: &Panel<'_, T>, columns: usize) => multiply
}

by_level! {
    /// out = start + a·b of b as [`pack_rows`] and [`pack_turned`] leave it, for so many columns up to a multiple of a register.
    ///
    /// # Safety
    /// The operands must hold what they name, and `out` must be held alone.
    pub(crate) unsafe fn multiply_packed<T>(p: &Panel<'_, T>, columns: usize) => multiply_parts
}

/// [`multiply_packed`], to be called where the instruction set is enabled.
///
/// # Safety
/// As there; the instruction set by V.
#[inline(always)]
pub(crate) unsafe fn multiply_parts<V: Vector>(p: &Panel<'_, V::T>, columns: usize) {
    let (wide, columns) = (2 * V::LANES, columns.next_multiple_of(V::LANES));
    for first in (0..columns).step_by(wide) {
        // SAFETY: by the caller.
        unsafe {
            let start = if p.start.is_null() { p.start } else { p.start.add(first) };
            let part = Panel { b: p.b.add(first * p.run), b_row: wide, start, out: p.out.add(first), ..*p };
            multiply::<V>(&part, wide.min(columns - first));
        }
    }
}

/// out = start + a·b for as many rows as registers hold, and the first two registers of columns, or one if that is all.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
pub(crate) unsafe fn block<V: Vector>(p: &Panel<'_, V::T>, columns: usize) {
    // SAFETY: by the caller.
    unsafe { if columns >= 2 * V::LANES { rows::<V, 2>(p) } else { rows::<V, 1>(p) } }
}

#[inline(always)]
unsafe fn rows<V: Vector, const N: usize>(p: &Panel<'_, V::T>) {
    // SAFETY: by the caller.
    unsafe {
        match p.rows {
            1 => tile::<V, 1, N>(p),
            2 => tile::<V, 2, N>(p),
            3 => tile::<V, 3, N>(p),
            4 => tile::<V, 4, N>(p),
            5 => tile::<V, 5, N>(p),
            _ if V::HEIGHT == 6 => tile::<V, 6, N>(p),
            6 => tile::<V, 6, N>(p),
            7 => tile::<V, 7, N>(p),
            8 => tile::<V, 8, N>(p),
            9 => tile::<V, 9, N>(p),
            10 => tile::<V, 10, N>(p),
            11 => tile::<V, 11, N>(p),
            _ => tile::<V, 12, N>(p),
        }
    }
}

/// acc += a column of a, whose rows are so far apart, times a row of b.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn column_by_row<V: Vector, const R: usize, const N: usize>(
    acc: &mut [[V; N]; R],
    a: *const V::T,
    a_row: usize,
    b: *const V::T,
) {
    // A base for every three rows: the addresses then fit the processor's registers.
    let bases = [a, a.wrapping_add(3 * a_row), a.wrapping_add(6 * a_row), a.wrapping_add(9 * a_row)];
    // SAFETY: by the caller.
    unsafe {
        let mut bs = [V::zero(); N];
        for j in 0..N {
            bs[j] = V::load(b.add(j * V::LANES));
        }
        for i in 0..R {
            let x = V::splat(bases[i / 3].add(i % 3 * a_row));
            for j in 0..N {
                acc[i][j] = acc[i][j].fma(x, bs[j]);
            }
        }
    }
}

/// So many columns of a go by without a new address.
const STRIDE: usize = 4;

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
unsafe fn tile<V: Vector, const R: usize, const N: usize>(p: &Panel<'_, V::T>) {
    // SAFETY: by the caller.
    unsafe {
        let mut acc = [[V::zero(); N]; R];
        if !p.start.is_null() {
            for i in 0..R {
                for j in 0..N {
                    acc[i][j] = V::load(p.start.add(i * p.start_row + j * V::LANES));
                }
            }
        }
        let mut b = p.b;
        for &run in p.runs {
            let mut a = p.a.add(run);
            let mut left = p.run;
            // Where a's rows or columns lie side by side, an address serves for several.
            if p.a_row == 1 {
                while left > 0 {
                    column_by_row::<V, R, N>(&mut acc, a, 1, b);
                    a = a.wrapping_add(p.a_column);
                    b = b.add(p.b_row);
                    left -= 1;
                }
            } else if p.a_column == 1 {
                while left >= STRIDE {
                    for column in 0..STRIDE {
                        column_by_row::<V, R, N>(&mut acc, a.add(column), p.a_row, b);
                        b = b.add(p.b_row);
                    }
                    a = a.add(STRIDE);
                    left -= STRIDE;
                }
            }
            for _ in 0..left {
                column_by_row::<V, R, N>(&mut acc, a, p.a_row, b);
                a = a.wrapping_add(p.a_column);
                b = b.add(p.b_row);
            }
        }
        for i in 0..R {
            for j in 0..N {
                acc[i][j].store(p.out.add(i * p.out_row + j * V::LANES));
            }
        }
    }
}
