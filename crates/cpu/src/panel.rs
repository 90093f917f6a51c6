//! A small matrix product whose columns lie in lanes: the inner loop of the convolutions that hold channels side by side, and of
//! recurrent layers.
//!
//! out\[i, j\] = Σ_p a\[i, p\] · b\[p, j\], with a's numbers spread over a register and b's rows read as registers. Twelve rows of
//! two registers fill AVX-512's register file: 24 multiply-adds for 14 loads. Six rows of two fill AVX2's.

use crate::simd::prefetch;
use crate::vector::{Real, Vector, by_level, lanes};

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

/// The only run of a product whose operands lie in one piece.
pub(crate) const WHOLE: &[usize] = &[0];

/// out = start + a·b, for `columns` columns: whole registers.
///
/// # Safety
/// The operands must hold what they name, and `out` must be held alone; the instruction set by V.
#[inline(always)]
pub(crate) unsafe fn multiply<V: Vector>(p: &Panel<'_, V::T>, columns: usize) {
    debug_assert!(columns.is_multiple_of(V::LANES));
    let most = if V::ROWS == 8 { 12 } else { 6 };
    // Blocks of about the same height: a block of one row would wait for each of its sums.
    let height = p.rows.div_ceil(p.rows.div_ceil(most).max(1)).max(1);
    for column in (0..columns).step_by(2 * V::LANES) {
        for row in (0..p.rows).step_by(height) {
            // SAFETY: inside the operands.
            unsafe {
                let part = Panel {
                    a: p.a.add(row * p.a_row),
                    b: p.b.add(column),
                    start: if p.start.is_null() { p.start } else { p.start.add(row * p.start_row + column) },
                    out: p.out.add(row * p.out_row + column),
                    rows: height.min(p.rows - row),
                    ..*p
                };
                block::<V>(&part, columns - column);
            }
        }
    }
}

/// How many numbers a matrix `[run, columns]` takes when packed for [`multiply_packed`].
pub(crate) fn packed_len<T: Real>(run: usize, columns: usize) -> usize {
    run * columns.next_multiple_of(2 * lanes::<T>())
}

/// Packs a part of a matrix for [`multiply_packed`], two registers of columns: the part's rows one after another, with zeros beyond the
/// last column. `column` gives the matrix's columns.
pub(crate) fn pack_turned<'a, T: Real>(
    run: usize,
    columns: usize,
    part: usize,
    column: impl Fn(usize) -> &'a [T],
    out: &mut [T],
) {
    let wide = 2 * lanes::<T>();
    let first = part * wide;
    let count = wide.min(columns - first);
    if count < wide {
        out.fill(T::ZERO);
    }
    for from in (0..count).step_by(lanes::<T>()) {
        let mut some: [&[T]; 16] = [&[]; 16];
        let len = lanes::<T>().min(count - from);
        some.iter_mut().take(len).enumerate().for_each(|(i, to)| *to = &column(first + from + i)[..run]);
        // SAFETY: each of the `run` rows has room for a register from here on.
        unsafe { turn(&some[..len], out[from..].as_mut_ptr(), wide) }
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
/// So many numbers ahead of those that are packed are fetched.
const FETCHED: usize = 64;

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
                if left > FETCHED {
                    prefetch(std::slice::from_raw_parts(from.add(FETCHED), 1));
                }
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

by_level! {
    /// Writes up to a register's columns, of one length, as rows so far apart, each filled up with zeros to a register.
    ///
    /// # Safety
    /// There must be room for the rows.
    unsafe fn turn<T>(columns: &[&[T]], out: *mut T, apart: usize) => turn_over
}

#[inline(always)]
unsafe fn turn_over<V: Vector>(columns: &[&[V::T]], out: *mut V::T, apart: usize) {
    let run = columns[0].len();
    let whole = run - run % V::LANES;
    // SAFETY: by the caller.
    unsafe {
        for row in (0..whole).step_by(V::LANES) {
            let mut v = [V::zero(); 16];
            for (v, column) in v.iter_mut().zip(columns) {
                *v = V::load(column.as_ptr().add(row));
            }
            V::transpose(&mut v);
            for (i, v) in v.iter().enumerate().take(V::LANES) {
                v.store(out.add((row + i) * apart));
            }
        }
        for row in whole..run {
            V::zero().store(out.add(row * apart));
            for (i, column) in columns.iter().enumerate() {
                *out.add(row * apart + i) = column[row];
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
            _ if V::ROWS < 8 => tile::<V, 6, N>(p), // of the most rows there: see `multiply`
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
