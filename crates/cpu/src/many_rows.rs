//! Products of many rows by a matrix, as linear layers have them: forward, and for the gradients of their input and weight.
//!
//! The matrix is packed once, by all threads together; then each takes cells of the result for itself. The left operand is read
//! where it lies or, if its columns are what lies in one piece, copied a cell's part at a time, in panels of a block's height. A run
//! of the sum is as long as keeps two registers' columns of the matrix in the first cache, beside the rows that go by; a cell's rows
//! of a run stay in the second.

use crate::launch::Out;
use crate::math::Float;
use crate::matmul::Matrix;
use crate::panel::{Panel, TOGETHER, WHOLE, block, pack_rows, pack_turned, packed_len};
use crate::simd::{Level, level, prefetch};
use crate::vector::{Real, Vector, by_level, height, lanes};
use std::ops::Range;

/// So many steps of the sum at most are a run.
const RUN: usize = 256;
/// A cell's rows and columns, at most.
const ROWS: usize = 96;
const COLUMNS: usize = 256;
/// So many columns ahead are fetched while one is copied: they lie pages apart.
const AHEAD: usize = 4;
/// Fewer rows do not repay the packing.
const FEWEST: usize = 48;
/// Smaller products have kernels of their own, which pack less.
const SMALL: usize = 1 << 17;
/// A larger matrix is packed in parts, by the kernels of `gemm`: so many numbers of it would be a lot of memory.
const MOST: usize = 1 << 22;

/// Whether a product `[m, k] × [k, n]` of matrices whose rows and columns are so far apart is one for these kernels.
/// (Without AVX they were not measured.)
pub(crate) fn fits([m, k, n]: [usize; 3], a: [isize; 2], b: [isize; 2]) -> bool {
    let in_pieces = |[row, column]: [isize; 2]| column == 1 && row >= 0 || row == 1 && column >= 0;
    in_pieces(a)
        && in_pieces(b)
        && level() >= Level::Avx2
        && m >= FEWEST
        && k >= 16
        && n >= 16
        && k * n <= MOST
        && m * k * n > SMALL
}

/// out `[m, n]` = a·b + bias.
#[derive(Clone, Copy)]
pub(crate) struct ManyRows<'a, T> {
    pub(crate) size: [usize; 3],
    pub(crate) a: Matrix<T>,
    pub(crate) b: Matrix<T>,
    /// What a row's sums begin with, if not with zeros.
    pub(crate) bias: Option<&'a [T]>,
    /// Room for b, [`room`](ManyRows::room) numbers of it.
    pub(crate) packed: Out<T>,
    pub(crate) out: *mut T,
}

// SAFETY: pointers to what a kernel reads and writes, which `launch` keeps alive.
unsafe impl<T: Sync> Sync for ManyRows<'_, T> {}

impl<T: Real> ManyRows<'_, T> {
    /// How many numbers b takes when packed.
    pub(crate) fn room(k: usize, n: usize) -> usize {
        packed_len::<T>(k, n)
    }
    fn run(&self, i: usize) -> Range<usize> {
        let (k, runs) = (self.size[1], self.runs());
        k * i / runs..k * (i + 1) / runs
    }
    fn runs(&self) -> usize {
        self.size[1].div_ceil(RUN)
    }
    /// How many pieces b is packed in.
    pub(crate) fn pieces(&self) -> usize {
        let [_, k, n] = self.size;
        if self.b.column == 1 {
            self.runs() * k.min(RUN).div_ceil(TOGETHER)
        } else {
            self.runs() * n.div_ceil(2 * lanes::<T>())
        }
    }
    /// Packs piece `i`: some rows of a run or, where b's columns are what lies in one piece, two registers of them.
    pub(crate) fn pack(&self, i: usize) {
        let ([_, _, n], wide, b) = (self.size, 2 * lanes::<T>(), self.b);
        let pieces = self.pieces() / self.runs();
        let (run, i) = (self.run(i / pieces), i % pieces);
        let to = run.start * n.next_multiple_of(wide);
        // SAFETY: core checked that the layouts lie inside their buffers; pieces do not overlap.
        let at = |row: usize, column: usize| unsafe { b.ptr.offset(row as isize * b.row + column as isize * b.column) };
        if b.column == 1 {
            let rows = (i * TOGETHER).min(run.len())..((i + 1) * TOGETHER).min(run.len());
            let size = [rows.len(), n];
            // SAFETY: as above.
            unsafe {
                let to = self.packed.ptr().add(to + rows.start * wide);
                pack_rows(at(run.start + rows.start, 0), b.row as usize, size, to, wide * run.len());
            }
        } else {
            let (first, count) = (i * wide, wide.min(n - i * wide));
            // SAFETY: as above.
            unsafe {
                let to = self.packed.ptr().add(to + first * run.len());
                pack_turned(at(run.start, first), b.column as usize, [run.len(), count], to);
            }
        }
    }
    /// Into how many cells the result is cut, of rows and of columns.
    fn cuts(&self) -> [usize; 2] {
        [self.size[0].div_ceil(ROWS).next_multiple_of(2), self.size[2].div_ceil(COLUMNS)]
    }
    /// How many cells there are.
    pub(crate) fn cells(&self) -> usize {
        self.cuts().iter().product()
    }
    /// The rows and columns of a cell.
    pub(crate) fn cell(&self, i: usize) -> [Range<usize>; 2] {
        let cut = |len: usize, unit: usize, i: usize, parts: usize| {
            // The nearest multiple, so that two threads have almost as much to do: who is done early and finds nothing falls asleep.
            let at = |i: usize| if i == parts { len } else { ((len * i / parts + unit / 2) / unit * unit).min(len) };
            at(i)..at(i + 1)
        };
        let ([m, _, n], [rows, columns]) = (self.size, self.cuts());
        [cut(m, height::<T>(), i % rows, rows), cut(n, 2 * lanes::<T>(), i / rows, columns)]
    }
}

by_level! {
    /// Writes a cell of the result; all of b must be packed.
    ///
    /// # Safety
    /// The operands must hold what they name, and the cell of `out` must be held alone.
    pub(crate) unsafe fn multiply_many<T>(p: &ManyRows<'_, T>, cell: [Range<usize>; 2]) => multiply_cell
}

#[inline(always)]
unsafe fn multiply_cell<V: Vector<T: Real>>(p: &ManyRows<'_, V::T>, [rows, columns]: [Range<usize>; 2]) {
    let (n, wide) = (p.size[2], 2 * V::LANES);
    // The last columns fill no register: these are summed up elsewhere, so that nothing is written behind a row's end.
    let rest = columns.len() % V::LANES;
    let whole = columns.len() - rest;
    let mut last = Vec::with_capacity(if rest > 0 { rows.len() * V::LANES } else { 0 });
    let bias = p.bias.map(|bias| &bias[columns.clone()]);
    let mut last_bias = [V::T::ZERO; 16];
    bias.iter().for_each(|bias| last_bias[..rest].copy_from_slice(&bias[whole..]));
    let turned = p.a.column != 1;
    let height = V::HEIGHT;
    // A panel's columns are copied by whole registers, so the last one's rest goes beyond it.
    let apart = height * p.size[1].min(RUN) + height.next_multiple_of(V::LANES) - height;
    let mut panels = Vec::with_capacity(if turned { rows.len().div_ceil(height) * apart } else { 0 });
    for i in 0..p.runs() {
        let run = p.run(i);
        // SAFETY: by the caller.
        unsafe {
            let a = p.a.ptr.offset(rows.start as isize * p.a.row + run.start as isize * p.a.column);
            if turned {
                copy_columns::<V>(a, p.a.column as usize, [run.len(), rows.len()], panels.as_mut_ptr(), apart);
            }
            let (a, a_row, a_column, next) = match turned {
                true => (panels.as_ptr(), 1, height, apart),
                false => (a, p.a.row as usize, 1, height * p.a.row as usize),
            };
            let b = p.packed.whole().as_ptr().add(run.start * n.next_multiple_of(wide) + columns.start * run.len());
            let out = p.out.add(rows.start * n + columns.start);
            let panel = Panel {
                rows: rows.len(),
                run: run.len(),
                runs: WHOLE,
                a,
                a_row,
                a_column,
                b,
                b_row: wide,
                start: if i == 0 { bias.map_or(std::ptr::null(), <[V::T]>::as_ptr) } else { out },
                start_row: if i == 0 { 0 } else { n },
                out,
                out_row: n,
            };
            multiply_blocks::<V>(&panel, whole, next);
            if rest > 0 {
                let to: *mut V::T = last.as_mut_ptr();
                let (start, start_row) = if i == 0 { (last_bias.as_ptr(), 0) } else { (to.cast_const(), V::LANES) };
                let b = b.add(whole / wide * wide * run.len() + whole % wide);
                let panel = Panel { b, start, start_row, out: to, out_row: V::LANES, ..panel };
                multiply_blocks::<V>(&panel, V::LANES, next);
            }
        }
    }
    for (i, row) in rows.enumerate() {
        let to = p.out.wrapping_add(row * n + columns.start + whole);
        // SAFETY: the cell's last columns, if any; `last` has been written.
        unsafe { std::ptr::copy_nonoverlapping(last.as_ptr().wrapping_add(i * V::LANES), to, rest) }
    }
}

/// out = start + a·b for so many columns, block by block; a's blocks begin so far apart.
#[inline(always)]
unsafe fn multiply_blocks<V: Vector>(p: &Panel<'_, V::T>, columns: usize, next: usize) {
    for column in (0..columns).step_by(2 * V::LANES) {
        let wide = (2 * V::LANES).min(columns - column);
        for row in (0..p.rows).step_by(V::HEIGHT) {
            // SAFETY: by the caller.
            unsafe {
                let part = Panel {
                    rows: V::HEIGHT.min(p.rows - row),
                    a: p.a.add(row / V::HEIGHT * next),
                    b: p.b.add(column * p.run),
                    start: if p.start.is_null() { p.start } else { p.start.add(row * p.start_row + column) },
                    out: p.out.add(row * p.out_row + column),
                    ..*p
                };
                if p.start != p.out {
                    // So that they are there when they are written, for the first time, at the end.
                    for i in 0..part.rows {
                        prefetch(std::slice::from_raw_parts(part.out.add(i * p.out_row), wide));
                    }
                }
                block::<V>(&part, wide);
            }
        }
    }
}

/// Copies `count` columns of `len` numbers, so far apart, to panels of a block's height; the panels begin `next` apart.
#[inline(always)]
unsafe fn copy_columns<V: Vector>(
    from: *const V::T,
    apart: usize,
    [count, len]: [usize; 2],
    to: *mut V::T,
    next: usize,
) {
    let height = V::HEIGHT;
    for column in 0..count {
        // SAFETY: by the caller, here and below. What is written beyond a panel's column is its next one, to be written after it.
        unsafe {
            let from = from.add(column * apart);
            if column + AHEAD < count {
                prefetch(std::slice::from_raw_parts(from.add(AHEAD * apart), len));
            }
            for (panel, at) in (0..len).step_by(height).enumerate() {
                let (from, to, left) = (from.add(at), to.add(panel * next + column * height), len - at);
                for i in (0..height).step_by(V::LANES) {
                    if i + V::LANES <= left {
                        V::load(from.add(i)).store(to.add(i));
                    } else if i < left {
                        V::load_lanes(from.add(i), 0, left - i).store(to.add(i));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::CpuStorage;

    /// Small whole numbers, so that sums are exact in any order.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn cells_hold_each_number_once_and_are_the_sums_that_they_stand_for() {
        for size @ [m, k, n] in
            [[48, 16, 16], [64, 300, 65], [97, 128, 24], [210, 257, 300], [50, 20, 600], [61, 520, 33]]
        {
            let (x, y) = (numbers(m * k), numbers(k * n));
            let bias = numbers(n);
            for flip in 0..8 {
                let bias = (flip & 4 != 0).then_some(&bias[..]);
                // Each operand as it is, or read as the transpose of what lies there.
                let a = match flip & 1 {
                    0 => Matrix { ptr: x.as_ptr(), row: k as isize, column: 1 },
                    _ => Matrix { ptr: x.as_ptr(), row: 1, column: m as isize },
                };
                let b = match flip & 2 {
                    0 => Matrix { ptr: y.as_ptr(), row: n as isize, column: 1 },
                    _ => Matrix { ptr: y.as_ptr(), row: 1, column: k as isize },
                };
                let room = CpuStorage::new(ManyRows::<f32>::room(k, n) * 4).unwrap();
                let mut out = vec![f32::NAN; m * n];
                let p = ManyRows { size, a, b, bias, packed: Out::of(&room), out: out.as_mut_ptr() };
                (0..p.pieces()).for_each(|i| p.pack(i));
                let mut seen = vec![0; m * n];
                for i in 0..p.cells() {
                    let [rows, columns] = p.cell(i);
                    rows.clone().for_each(|r| columns.clone().for_each(|c| seen[r * n + c] += 1));
                    // SAFETY: the matrices are whole, and `out` has room.
                    unsafe { multiply_many(&p, [rows, columns]) }
                }
                assert!(seen.iter().all(|&times| times == 1), "{size:?}");
                let at = |v: &[f32], s: Matrix<f32>, i: usize, j: usize| v[i * s.row as usize + j * s.column as usize];
                for i in 0..m {
                    for j in 0..n {
                        let want: f32 = (0..k).map(|p| at(&x, a, i, p) * at(&y, b, p, j)).sum();
                        assert_eq!(
                            out[i * n + j],
                            want + bias.map_or(0.0, |bias| bias[j]),
                            "{size:?}, form {flip}, element {i} {j}"
                        );
                    }
                }
            }
        }
    }
}
