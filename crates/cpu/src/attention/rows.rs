//! What is done to the scores of a block of queries, a row each: probabilities forward, gradients backward.
//!
//! Rows are taken in whole blocks of lanes: with a loop for the rest of a row of thirty keys, the rest would be half the work. And each step is
//! done for all rows before the next: one row's maximum, sum and quotient would keep the processor waiting for each other.

use crate::lanes::{LANES, folded, sums, total};
use crate::math::Float;
use crate::simd::{block_by_block, vectorized};
use gradus_core::rng::uniform;

/// Queries whose scores are held at once, at most.
pub(super) const BLOCK: usize = 128;

/// How a block's rows lie, and how many keys each of its queries sees.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// How far apart the rows are: whole blocks of lanes.
    pub(super) pitch: usize,
    /// The first query sees so many keys, ...
    pub(super) first: usize,
    /// ... each other so many more than the one before, ...
    pub(super) step: usize,
    /// ... but no more than these.
    pub(super) keys: usize,
}

impl Rows {
    /// How many keys query `i` of the block sees.
    #[inline(always)]
    pub(super) fn seen(self, i: usize) -> usize {
        self.keys.min(self.first + i * self.step)
    }
    /// The part of its row that they are in, and how many of the last lanes.
    #[inline(always)]
    fn blocks(self, i: usize) -> (usize, usize) {
        let seen = self.seen(i);
        (seen.div_ceil(LANES), seen - seen.saturating_sub(1) / LANES * LANES)
    }
}

/// Puts `other` into a block's lanes from `from` on.
#[inline(always)]
fn put_behind<T: Float>(block: &mut [T; LANES], from: usize, other: T) {
    let (before, from) = (*block, from as i32); // a copy, so that all lanes are chosen at once; signed, as registers are compared
    *block = std::array::from_fn(|i| if (i as i32) < from { before[i] } else { other });
}

/// The part of row `i` that its query sees, in blocks, with `other` behind its last number; the blocks behind it become zeros.
#[inline(always)]
fn seen_blocks<T: Float>(row: &mut [T], rows: Rows, i: usize, other: T) -> &mut [[T; LANES]] {
    let (blocks, lanes) = rows.blocks(i);
    let (row, unseen) = row.as_chunks_mut::<LANES>().0.split_at_mut(blocks);
    let all = rows.keys.div_ceil(LANES);
    unseen[..all - blocks].as_flattened_mut().fill(T::ZERO);
    if let Some(last) = row.last_mut() {
        put_behind(last, lanes, other);
    }
    row
}

vectorized! {
    /// Scores as probabilities, with zeros for the keys that a query does not see; `lse` (empty: nobody wants it) becomes ln Σ e^score, `low`
    /// where it sees none.
    pub(super) fn softmax<T: Float>(s: &mut [T], rows: Rows, low: T, lse: &mut [T]) {
        let (mut most, mut sum) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        for (i, (row, most)) in s.chunks_exact_mut(rows.pitch).zip(&mut most).enumerate() {
            let row = seen_blocks(row, rows, i, low);
            let mut max = [low; LANES];
            for block in &*row {
                block_by_block();
                for i in 0..LANES { max[i] = if block[i] > max[i] { block[i] } else { max[i] }; }
            }
            let max = folded(max, |a, b| if b > a { b } else { a });
            // What sees no key has lows alone: e^(low − 0) is 0. NaN, which is not larger than anything, comes back in the sum.
            *most = if max == low { T::ZERO } else { max };
        }
        for (i, ((row, &most), sum)) in s.chunks_exact_mut(rows.pitch).zip(&most).zip(&mut sum).enumerate() {
            let mut lanes = [T::ZERO; LANES];
            for block in &mut row.as_chunks_mut::<LANES>().0[..rows.blocks(i).0] {
                block_by_block();
                for i in 0..LANES {
                    block[i] = (block[i] - most).exp_share::<FMA>();
                    lanes[i] = lanes[i] + block[i];
                }
            }
            *sum = total(lanes);
        }
        for ((lse, &most), &sum) in lse.iter_mut().zip(&most).zip(&sum) {
            *lse = if sum == T::ZERO { low } else { most + sum.ln() };
        }
        for sum in &mut sum { *sum = if *sum == T::ZERO { T::ZERO } else { T::ONE / *sum }; }
        for (i, (row, &by)) in s.chunks_exact_mut(rows.pitch).zip(&sum).enumerate() {
            for p in row.as_chunks_mut::<LANES>().0[..rows.blocks(i).0].as_flattened_mut() { *p = *p * by; }
        }
    }
    /// ds = p·(dp − Σ p·dp / Σ p)·scale, in the place of dp; the mean is 0 where all of p are 0. (The probabilities' sum is 1 but for rounding, which
    /// would stand before what all of dp have in common.) Zeros for the keys that a query does not see.
    pub(super) fn score_grads<T: Float>(p: &[T], rows: Rows, scale: T, ds: &mut [T]) {
        let mut mean = [T::ZERO; BLOCK];
        for (i, ((p, ds), mean)) in p.chunks_exact(rows.pitch).zip(ds.chunks_exact_mut(rows.pitch)).zip(&mut mean).enumerate() {
            let ds = seen_blocks(ds, rows, i, T::ZERO);
            // Two sums, one after the other: of both at once the compiler makes one of pairs, at half the speed.
            let (ds, p) = (ds.as_flattened(), &p[..ds.len() * LANES]);
            let ([products], [sum]) = (sums([p, ds], |[p, d]| [p * d]), sums([p], |[p]| [p]));
            *mean = if sum == T::ZERO { T::ZERO } else { products / sum };
        }
        for (i, ((p, ds), &mean)) in p.chunks_exact(rows.pitch).zip(ds.chunks_exact_mut(rows.pitch)).zip(&mean).enumerate() {
            let (blocks, lanes) = rows.blocks(i);
            let ds = &mut ds.as_chunks_mut::<LANES>().0[..blocks];
            for (d, &p) in ds.as_flattened_mut().iter_mut().zip(p) { *d = p * (*d - mean) * scale; }
            if let Some(last) = ds.last_mut() { put_behind(last, lanes, T::ZERO); } // 0 · infinity
        }
    }
    /// Scores of keys that are not to be seen become `low`.
    pub(super) fn hide_row<T: Float>(s: &mut [T], seen: &[u8], low: T) {
        for (s, &seen) in s.iter_mut().zip(seen) { *s = if seen == 0 { low } else { *s }; }
    }
    /// s += x
    pub(super) fn add_row<T: Float>(s: &mut [T], x: &[T]) {
        for (s, &x) in s.iter_mut().zip(x) { *s = *s + x; }
    }
    /// y = x·factor where the word's uniform number is below the bound, else 0.
    pub(super) fn drop_row<T: Float>(y: &mut [T], words: &[u32], bound: f32, factor: T) {
        for (y, &w) in y.iter_mut().zip(words) { *y = if uniform(w) < bound { *y * factor } else { T::ZERO }; }
    }
    /// y = x·by
    pub(super) fn scaled_row<T: Float>(x: &[T], by: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = x * by; }
    }
}
