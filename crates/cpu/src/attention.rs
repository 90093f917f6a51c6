//! Fused attention: the scores of a block of queries at a time, in a scratch that stays in the cache. Forward keeps ln Σ e^score of
//! each query; backward computes the scores again from it.
//!
//! A head is one piece of work, in backward a head of keys and values with all heads of queries that share it, whatever the number
//! of threads, so the sums over queries in backward have a fixed order.

mod products;

use crate::elementwise::{copy, finish};
use crate::lanes::{map_in_place, sums};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::matmul::Matrix;
use crate::memory::CpuStorage;
use crate::random::words;
use crate::simd::vectorized;
use crate::softmax::row_max;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::attention::{Attention, AttentionGrad};
use gradus_core::rng::uniform;
use gradus_core::{Buffer, DType, Layout, Meta, Result, Shape};
use products::{Real, Right, UNIT, multiply, rows_of, transposed};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Attention>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => forward::<f32>(c.op, c.x, f32::NEG_INFINITY).map(Some),
        DType::F64 if fits(c.x) => forward::<f64>(c.op, c.x, f64::NEG_INFINITY).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AttentionGrad>| match c.x[0].dtype {
        DType::F32 if fits(c.x) => backward::<f32>(&c.op.0, c.x, f32::NEG_INFINITY).map(Some),
        DType::F64 if fits(c.x) => backward::<f64>(&c.op.0, c.x, f64::NEG_INFINITY).map(Some),
        _ => Ok(None),
    });
}

/// Nothing empty, and nothing read backwards, which the `gemm` kernels do not do.
fn fits(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.elements() > 0 && v.layout.strides().iter().all(|&s| s >= 0))
}

/// Queries of causal attention whose scores are held at once, at most.
const CAUSAL_BLOCK: usize = 32;

/// An operand `[batch, heads, rows, columns]`, by its strides.
#[derive(Clone, Copy)]
struct Operand<T> {
    x: In<T>,
    offset: isize,
    strides: [isize; 4],
}

impl<T> Operand<T> {
    fn of(v: View<'_>) -> Result<Operand<T>> {
        let s = v.layout.strides();
        let strides = std::array::from_fn(|d| s.get(d).copied().unwrap_or(0));
        Ok(Operand { x: In::of(storage(v.buffer)?), offset: v.layout.offset() as isize, strides })
    }
    fn at(&self, i: [usize; 4]) -> isize {
        self.offset + (0..4).map(|d| i[d] as isize * self.strides[d]).sum::<isize>()
    }
    /// Head `[b, h]`'s matrix from row `row` on.
    fn matrix(&self, [b, h]: [usize; 2], row: usize) -> Matrix<T> {
        let ptr = self.x.slice().as_ptr().wrapping_offset(self.at([b, h, row, 0]));
        Matrix { ptr, row: self.strides[2], column: self.strides[3] }
    }
    /// Writes a row times a number.
    fn scaled(&self, [b, h]: [usize; 2], row: usize, by: T, to: &mut [T])
    where
        T: Float,
    {
        if self.strides[3] == 1 {
            let at = self.at([b, h, row, 0]) as usize;
            return scaled_row(&self.x.slice()[at..at + to.len()], by, to);
        }
        to.iter_mut().enumerate().for_each(|(i, to)| *to = *self.number([b, h, row, i]) * by);
    }
    fn number(&self, i: [usize; 4]) -> &T {
        &self.x.slice()[self.at(i) as usize]
    }
}

enum Mask<T> {
    None,
    /// Zero: not to be seen.
    Seen(Operand<u8>),
    Added(Operand<T>),
}

impl<T> Mask<T> {
    fn of(v: Option<&View<'_>>) -> Result<Mask<T>> {
        Ok(match v {
            None => Mask::None,
            Some(v) if v.dtype == DType::Bool => Mask::Seen(Operand::of(*v)?),
            Some(v) => Mask::Added(Operand::of(*v)?),
        })
    }
}

/// What forward and backward share: q, k, v and what is done to their scores.
struct Scores<T> {
    q: Operand<T>,
    k: Operand<T>,
    v: Operand<T>,
    mask: Mask<T>,
    op: Attention,
    /// batch, heads, queries, keys, width, values.
    lens: [usize; 6],
    /// Heads of queries that share a head of keys and values.
    sharing: usize,
    low: T,
}

vectorized! {
    /// y = x·factor where the word's uniform number is below the bound, else 0.
    fn drop_row<T: Float>(y: &mut [T], words: &[u32], bound: f32, factor: T) {
        for (y, &w) in y.iter_mut().zip(words) { *y = if uniform(w) < bound { *y * factor } else { T::ZERO }; }
    }
    /// y = x·by
    fn scaled_row<T: Float>(x: &[T], by: T, y: &mut [T]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = x * by; }
    }
    /// A row of scores as probabilities; gives Σ e^(score − max).
    fn softmax_row<T: Float>(p: &mut [T], max: T) -> T {
        let sum = map_in_place(p, |x| (x - max).exp::<FMA>());
        let by = T::ONE / sum;
        for p in p { *p = *p * by; }
        sum
    }
    /// Σ p·d / Σ p; 0 where all of p are 0. (The probabilities' sum is 1 but for rounding, which would stand before what all of d
    /// have in common.)
    fn weighted_mean<T: Float>(p: &[T], d: &[T]) -> T {
        let [s, total] = sums([p, d], |[p, d]| [p * d, p]);
        if total == T::ZERO { T::ZERO } else { s / total }
    }
    /// ds = p·(dp − inner)·scale
    fn score_grad<T: Float>(p: &[T], inner: T, scale: T, ds: &mut [T]) {
        for (d, &p) in ds.iter_mut().zip(p) { *d = p * (*d - inner) * scale; }
    }
}

impl<T: Real> Scores<T> {
    fn of(op: &Attention, x: &[View<'_>], mask: Option<&View<'_>>, low: T) -> Result<Scores<T>> {
        let (q, k, v) = (x[0].shape(), x[1].shape(), x[2].shape());
        let lens = [q[0], q[1], q[2], k[2], q[3], v[3]];
        let sharing = q[1] / k[1];
        let [q, k, v] = [Operand::of(x[0])?, Operand::of(x[1])?, Operand::of(x[2])?];
        Ok(Scores { q, k, v, mask: Mask::of(mask)?, op: op.clone(), lens, sharing, low })
    }

    /// The keys that a head of queries sees, as rows, and turned over; and the values.
    fn keys(&self, [b, h]: [usize; 2]) -> Right<T> {
        Right::of(self.k.matrix([b, h / self.sharing], 0), [self.lens[3], self.lens[4]])
    }
    fn keys_turned(&self, [b, h]: [usize; 2]) -> Right<T> {
        Right::of(transposed(self.k.matrix([b, h / self.sharing], 0)), [self.lens[4], self.lens[3]])
    }
    fn values(&self, [b, h]: [usize; 2]) -> Matrix<T> {
        self.v.matrix([b, h / self.sharing], 0)
    }
    /// How far apart the rows of scores are.
    fn pitch(&self) -> usize {
        self.lens[3].next_multiple_of(UNIT)
    }

    /// Queries whose scores are held at once: about 256 KiB of them. Fewer where a block's last query sees keys that its first must
    /// not see, whose scores are computed for nothing.
    fn block(&self) -> usize {
        let most = if self.op.causal { CAUSAL_BLOCK } else { 128 };
        (65_536 / self.lens[3]).clamp(8, most).min(self.lens[2])
    }
    /// How many keys the queries below `end` may see at all.
    fn seen(&self, end: usize) -> usize {
        if self.op.causal { self.lens[3].min(end) } else { self.lens[3] }
    }
    /// Nanoseconds for one head, about.
    fn work(&self) -> usize {
        let [_, _, queries, keys, width, values] = self.lens;
        queries * keys * (width + values) / 50 + queries * keys
    }

    /// The scores of queries `first..first + n` for the first `keys` keys, in rows a [pitch](Scores::pitch) apart, masked; those of
    /// later keys than a query may see are there, too, for nobody to read. `scaled` is room for the queries.
    fn compute(&self, head: [usize; 2], [first, n, keys]: [usize; 3], k: &Right<T>, scaled: &mut [T], s: &mut [T]) {
        let (width, pitch, scale) = (self.lens[4], self.pitch(), T::from_f64(self.op.scale));
        let [b, h] = head;
        for (i, to) in scaled.chunks_exact_mut(width).take(n).enumerate() {
            self.q.scaled(head, first + i, scale, to);
        }
        // SAFETY: core checked that the layouts lie inside their buffers; `s` holds n rows.
        unsafe { multiply(s.as_mut_ptr(), pitch, [n, width, keys], rows_of(scaled, width), k, false) };
        for (i, row) in s.chunks_exact_mut(pitch).take(n).enumerate() {
            let query = first + i;
            let row = &mut row[..self.seen(query + 1)];
            match &self.mask {
                Mask::None => {}
                Mask::Seen(m) => {
                    for (j, s) in row.iter_mut().enumerate() {
                        if *m.number([b, h, query, j]) == 0 {
                            *s = self.low;
                        }
                    }
                }
                Mask::Added(m) => row.iter_mut().enumerate().for_each(|(j, s)| *s = *s + *m.number([b, h, query, j])),
            }
        }
    }

    /// Drops and scales up probabilities (or their gradients) of queries `first..` for the first `keys` keys.
    fn drop(&self, head: [usize; 2], first: usize, keys: usize, p: &mut [T]) {
        let Some((rate, key)) = &self.op.dropout else { return };
        let keep = 1.0 - rate;
        // As dropout's own kernel: any bound between two multiples of 2⁻²⁴ decides alike.
        let bound = (keep * 16_777_216.0).ceil() as f32 / 16_777_216.0;
        let factor = T::from_f64(if keep > 0.0 { 1.0 / keep } else { 0.0 });
        let counter = [key.step.get(), key.stream as u32, (key.stream >> 32) as u32];
        let mut drawn = vec![0u32; (keys + 8).next_multiple_of(4)];
        for (i, row) in p.chunks_exact_mut(self.pitch()).enumerate() {
            let at = ((head[0] * self.lens[1] + head[1]) * self.lens[2] + first + i) * self.lens[3];
            words([key.seed as u32, (key.seed >> 32) as u32], counter, (at / 4) as u32, &mut drawn);
            drop_row(&mut row[..keys], &drawn[at % 4..], bound, factor);
        }
    }

    fn forward(&self, head: [usize; 2], [s, scaled]: [&mut [T]; 2], y: &mut [T], lse: &mut [T]) {
        let [_, _, queries, all_keys, _, values] = self.lens;
        let (block, pitch) = (self.block(), self.pitch());
        let (k, v) = (self.keys_turned(head), Right::of(self.values(head), [all_keys, values]));
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let keys = self.seen(first + n);
            let s = &mut s[..n * pitch];
            self.compute(head, [first, n, keys], &k, scaled, s);
            for (i, p) in s.chunks_exact_mut(pitch).enumerate() {
                let (p, unseen) = p[..keys].split_at_mut(self.seen(first + i + 1));
                unseen.fill(T::ZERO);
                let max = row_max(p, self.low);
                if max == self.low {
                    p.fill(T::ZERO); // sees no key
                    lse[first + i] = self.low;
                    continue;
                }
                lse[first + i] = max + softmax_row(p, max).ln();
            }
            self.drop(head, first, keys, s);
            let y = &mut y[first * values..][..n * values];
            // SAFETY: as above; `y` holds n·values numbers.
            unsafe { multiply(y.as_mut_ptr(), values, [n, keys, values], rows_of(s, pitch), &v, false) };
        }
    }

    /// Adds to dk and dv, writes dq, of one head; `p`, `ds` and `scaled` are scratch.
    fn backward(
        &self,
        head: [usize; 2],
        g: &[T],
        lse: &[T],
        [p, ds, scaled]: [&mut [T]; 3],
        [dq, dk, dv]: [&mut [T]; 3],
    ) {
        let [_, _, queries, all_keys, width, values] = self.lens;
        let (block, pitch) = (self.block(), self.pitch());
        let (k, k_turned) = (self.keys(head), self.keys_turned(head));
        let v_turned = Right::of(transposed(self.values(head)), [values, all_keys]);
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let keys = self.seen(first + n);
            let (p, ds) = (&mut p[..n * pitch], &mut ds[..n * pitch]);
            let g_rows = rows_of(&g[first * values..][..n * values], values);
            self.compute(head, [first, n, keys], &k_turned, scaled, p);
            for (i, p) in p.chunks_exact_mut(pitch).enumerate() {
                let (p, unseen) = p[..keys].split_at_mut(self.seen(first + i + 1));
                unseen.fill(T::ZERO);
                if lse[first + i] == self.low {
                    p.fill(T::ZERO);
                    continue;
                }
                // Normalized anew: a large ln Σ e^score has no digits left for small differences.
                softmax_row(p, row_max(p, self.low));
            }
            // SAFETY: as above; all operands hold what their lengths say.
            unsafe { multiply(ds.as_mut_ptr(), pitch, [n, values, keys], g_rows, &v_turned, false) };
            self.drop(head, first, keys, ds);
            for (i, (p, ds)) in p.chunks_exact(pitch).zip(ds.chunks_exact_mut(pitch)).enumerate() {
                let (ds, unseen) = ds[..keys].split_at_mut(self.seen(first + i + 1));
                unseen.fill(T::ZERO);
                let p = &p[..ds.len()];
                // Σ p·dp = Σ g·y, dropout or not; the first is exactly dp where a query sees one key, whose score has no gradient.
                score_grad(p, weighted_mean(p, ds), T::from_f64(self.op.scale), ds);
            }
            let q = Right::of(self.q.matrix(head, first), [n, width]);
            let dq = dq[first * width..].as_mut_ptr();
            // SAFETY: as above.
            unsafe {
                multiply(dq, width, [n, keys, width], rows_of(ds, pitch), &k, false);
                multiply(dk.as_mut_ptr(), width, [keys, n, width], transposed(rows_of(ds, pitch)), &q, true);
            }
            self.drop(head, first, keys, p);
            let g_rows = Right::of(g_rows, [n, values]);
            // SAFETY: as above.
            unsafe {
                multiply(dv.as_mut_ptr(), values, [keys, n, values], transposed(rows_of(p, pitch)), &g_rows, true);
            }
        }
    }
}

fn forward<T: Real>(op: &Attention, x: &[View<'_>], low: T) -> Result<Fused> {
    let scores = Scores::of(op, &x[..3], x.get(3), low)?;
    let [batch, heads, queries, _, width, values] = scores.lens;
    let kept = Meta::new(x[0].dtype, Shape::try_new(&[batch, heads, queries])?);
    let (ty, tl) = (
        CpuStorage::new(batch * heads * queries * values * size_of::<T>())?,
        CpuStorage::new(batch * heads * queries * size_of::<T>())?,
    );
    let (y, lse) = (Out::<T>::of(&ty), Out::<T>::of(&tl));
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    launch(&reads, &[&ty, &tl], move || {
        for_chunks(batch * heads, scores.work() * batch * heads, |i| {
            let mut scratch = vec![T::ZERO; scores.block() * (scores.pitch() + width)];
            let (s, scaled) = scratch.split_at_mut(scores.block() * scores.pitch());
            let (y, lse) = (y.part(i * queries * values, queries * values), lse.part(i * queries, queries));
            scores.forward([i / heads, i % heads], [s, scaled], y, lse);
        });
    });
    Ok(Fused::one(finish(ty)?).keep(kept, finish(tl)?))
}

/// A dense view of the same elements; a copy is kept in `made`.
fn dense<'a>(x: View<'a>, layout: &'a mut Layout, made: &'a mut Option<Buffer>) -> Result<View<'a>> {
    if x.layout.is_dense() {
        return Ok(x);
    }
    *layout = Layout::dense(*x.shape());
    Ok(View { buffer: made.insert(copy(x)?), layout, dtype: x.dtype })
}

fn backward<T: Real>(op: &Attention, x: &[View<'_>], low: T) -> Result<Fused> {
    let scores = Scores::of(op, &x[1..4], x.get(6), low)?;
    let [batch, heads, queries, keys, width, values] = scores.lens;
    let (mut layout, mut made) = (*x[0].layout, None);
    let g = dense(x[0], &mut layout, &mut made)?;
    let mut reads = x[1..].iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    reads.push(storage(g.buffer)?);
    // What was kept came dense from forward.
    let [g, lse] = [g, x[5]].map(|v| storage(v.buffer).map(|s| (In::<T>::of(s), v.layout.offset())));
    let (g, lse) = (g?, lse?);
    let lens = [queries * width, keys * width, keys * values];
    let made = |i: usize, heads: usize| CpuStorage::new(batch * heads * lens[i] * size_of::<T>());
    let shared = heads / scores.sharing;
    let (tq, tk, tv) = (made(0, heads)?, made(1, shared)?, made(2, shared)?);
    let outs = [Out::<T>::of(&tq), Out::<T>::of(&tk), Out::<T>::of(&tv)];
    launch(&reads, &[&tq, &tk, &tv], move || {
        for_chunks(batch * heads / scores.sharing, scores.work() * 5 / 2 * batch * heads, |shared| {
            let n = scores.block() * scores.pitch();
            let mut scratch = vec![T::ZERO; 2 * n + scores.block() * width];
            let (p, rest) = scratch.split_at_mut(n);
            let (ds, scaled) = rest.split_at_mut(n);
            let [dk, dv] = [1, 2].map(|k| outs[k].part(shared * lens[k], lens[k]));
            dk.fill(T::ZERO);
            dv.fill(T::ZERO);
            for i in shared * scores.sharing..(shared + 1) * scores.sharing {
                let g = &g.0.slice()[g.1 + i * queries * values..];
                let lse = &lse.0.slice()[lse.1 + i * queries..];
                let dq = outs[0].part(i * lens[0], lens[0]);
                scores.backward(
                    [i / heads, i % heads],
                    g,
                    lse,
                    [&mut *p, &mut *ds, &mut *scaled],
                    [dq, &mut *dk, &mut *dv],
                );
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tq)?, finish(tk)?, finish(tv)?], ..Fused::default() })
}
