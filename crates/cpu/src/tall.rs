//! Products aᵀ·b of two tall matrices, summed over their many rows: the gradients of weights.
//!
//! The numbers of a's row are spread over registers, b's row is read as registers. The rows come in blocks that stay in the first
//! cache, and a thread's part of the result in the second; of the operands, no more is copied than such a block of a part.

use crate::math::Float;
use crate::panel::{Panel, WHOLE, multiply};
use crate::simd::prefetch;
use crate::vector::{Real, Vector, by_level, lanes};
use std::ops::Range;

/// So many rows are summed up at a time.
const BLOCK: usize = 64;
/// Fewer rows than this are better packed ...
const FEWEST: usize = 256;
/// ... unless they are a block or two that stay in the second cache: then each part of the result is written once.
const SHORT: usize = 2 * BLOCK;
/// So many numbers of b stay there beside a part of the result.
const STAYS: usize = 1 << 16;
/// Bytes of a cache's line.
const LINE: usize = 64;
/// Lines so many bytes apart share a few places of the first cache.
const PAGE: usize = 4096;
/// A part of the result has about so many rows: a few blocks of the panels' height.
const PART: usize = 48;

/// out `[m, n]` = aᵀ·b for a `[k, m]` and b `[k, n]`, whose rows are so far apart.
#[derive(Clone, Copy)]
pub(crate) struct Tall<T> {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) a: *const T,
    pub(crate) a_row: usize,
    pub(crate) b: *const T,
    pub(crate) b_row: usize,
}

// SAFETY: pointers to what a kernel reads, which `launch` keeps alive.
unsafe impl<T: Sync> Sync for Tall<T> {}

impl<T: Real> Tall<T> {
    /// Whether a product of these sizes is one for this kernel.
    pub(crate) fn fits([m, k, n]: [usize; 3], b_row: usize) -> bool {
        let long = k >= FEWEST && k >= 2 * n && n <= 512;
        long && Self::in_registers(m, n) || Self::is_best([m, k, n], b_row)
    }
    /// Whether no other kernel is as good: if b, a block or two of rows, stays in the second cache and is read where it lies.
    pub(crate) fn is_best([m, k, n]: [usize; 3], b_row: usize) -> bool {
        let short = (16..=SHORT).contains(&k) && k * n <= STAYS && k * n * m > 1 << 20;
        // Rows a page apart share their places in the first cache: what of a line is not used at once is fetched again.
        let stays = lanes::<T>() * size_of::<T>() >= LINE || !(b_row * size_of::<T>()).is_multiple_of(PAGE);
        short && stays && Self::in_registers(m, n)
    }
    fn in_registers(m: usize, n: usize) -> bool {
        n.is_multiple_of(lanes::<T>()) && m >= PART
    }
    /// How many parts there are; of an even number, two threads get as many each.
    pub(crate) fn parts(&self) -> usize {
        self.m.div_ceil(PART).next_multiple_of(2)
    }
    /// The rows of a part.
    pub(crate) fn rows(&self, part: usize) -> Range<usize> {
        self.m * part / self.parts()..self.m * (part + 1) / self.parts()
    }
}

by_level! {
    /// Writes rows `rows.0` to `rows.1` of the result.
    ///
    /// # Safety
    /// The operands must hold what they name, and `out`, these rows, must be held alone.
    pub(crate) unsafe fn multiply_tall<T>(p: &Tall<T>, rows: (usize, usize), out: *mut T) => multiply_tall_of
}

#[inline(always)]
unsafe fn multiply_tall_of<V: Vector>(p: &Tall<V::T>, rows: (usize, usize), out: *mut V::T) {
    let count = rows.1 - rows.0;
    // The part's numbers of a block side by side: far apart they would drive each other from the first cache.
    let pitch = count.next_multiple_of(V::LANES);
    let mut block = vec![V::T::ZERO; BLOCK * pitch];
    for first in (0..p.k).step_by(BLOCK) {
        let run = BLOCK.min(p.k - first);
        // SAFETY: by the caller.
        unsafe {
            let row = |i: usize| std::slice::from_raw_parts(p.a.add(i * p.a_row + rows.0), count);
            for (i, to) in block.chunks_exact_mut(pitch).enumerate().take(run) {
                // By registers: to call a copy for so few numbers takes longer.
                for at in (0..count).step_by(V::LANES) {
                    let from = row(first + i).as_ptr().add(at);
                    let some = if at + V::LANES <= count { V::load(from) } else { V::load_lanes(from, 0, count - at) };
                    some.store(to.as_mut_ptr().add(at));
                }
            }
            // The next block's lie pages apart: they come while this one is multiplied.
            (first + run..p.k.min(first + run + BLOCK)).for_each(|i| prefetch(row(i)));
            let panel = Panel {
                rows: count,
                run,
                runs: WHOLE,
                a: block.as_ptr(),
                a_row: 1,
                a_column: pitch,
                b: p.b.add(first * p.b_row),
                b_row: p.b_row,
                start: if first == 0 { std::ptr::null() } else { out },
                start_row: p.n,
                out,
                out_row: p.n,
            };
            multiply::<V>(&panel, p.n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_each_row_once_and_sums_are_right() {
        for (m, k, n) in [
            (48, 256, 16),
            (67, 300, 32),
            (512, 259, 128),
            (193, 1000, 48),
            (128, 64, 784),
            (128, 64, 1024),
            (300, 100, 48),
        ] {
            if !Tall::<f32>::fits([m, k, n], n) {
                continue; // of these lanes
            }
            let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 64.0;
            let (a, b): (Vec<f32>, Vec<f32>) = ((0..k * m).map(number).collect(), (0..k * n).map(number).collect());
            let mut out = vec![f32::NAN; m * n];
            let p = Tall { m, k, n, a: a.as_ptr(), a_row: m, b: b.as_ptr(), b_row: n };
            let mut next = 0;
            for part in 0..p.parts() {
                let rows = p.rows(part);
                assert_eq!(rows.start, next, "{m} rows");
                next = rows.end;
                // SAFETY: the matrices are as large as they say.
                unsafe { multiply_tall(&p, (rows.start, rows.end), out[rows.start * n..].as_mut_ptr()) }
            }
            assert_eq!(next, m);
            for i in 0..m {
                for j in 0..n {
                    let want: f64 = (0..k).map(|r| f64::from(a[r * m + i]) * f64::from(b[r * n + j])).sum();
                    assert!((f64::from(out[i * n + j]) - want).abs() < 1e-3, "{m}x{k}x{n} at {i}, {j}");
                }
            }
        }
    }
}
