//! Fused attention: the scores of a block of queries at a time, in a scratch that stays in the cache. Forward keeps ln Σ e^score of
//! each query; backward computes the scores again from it.
//!
//! A head is one piece of work, in backward a head of keys and values with all heads of queries that share it, whatever the number
//! of threads, so the sums over queries in backward have a fixed order.

use crate::elementwise::{copy, finish};
use crate::lanes::sums;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::matmul::Matrix;
use crate::memory::CpuStorage;
use crate::random::words;
use crate::simd::vectorized;
use crate::softmax::{row_exp, row_max};
use crate::threads::for_chunks;
use gemm_common::Parallelism;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::attention::{Attention, AttentionGrad};
use gradus_core::rng::uniform;
use gradus_core::{Buffer, DType, Element, Layout, Meta, Result, Shape};
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
const CAUSAL_BLOCK: usize = 64;

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
    fn number(&self, i: [usize; 4]) -> &T {
        &self.x.slice()[self.at(i) as usize]
    }
}

/// A float that the `gemm` kernels multiply, and add to what is there.
trait Real: Float + Element {
    /// out = scale·a·b (+ out, if `add`) for row-major `out` `[m, n]`, a `[m, k]`, b `[k, n]`.
    ///
    /// # Safety
    /// The matrices' elements must lie in live memory, and `out`'s `m × n` must be held alone.
    unsafe fn multiply(out: *mut Self, size: [usize; 3], a: Matrix<Self>, b: Matrix<Self>, add: bool, scale: Self);
}

macro_rules! real {
    ($t:ty, $gemm:path) => {
        impl Real for $t {
            unsafe fn multiply(
                out: *mut $t,
                [m, k, n]: [usize; 3],
                a: Matrix<$t>,
                b: Matrix<$t>,
                add: bool,
                scale: $t,
            ) {
                let (out_row, keep) = (n as isize, if add { 1.0 } else { 0.0 });
                // The kernels write columns, so the transposed product is asked for: outᵀ = bᵀ·aᵀ.
                // SAFETY: by the caller.
                unsafe {
                    $gemm()(
                        n,
                        m,
                        k,
                        out,
                        out_row,
                        1,
                        add,
                        b.ptr,
                        b.row,
                        b.column,
                        a.ptr,
                        a.row,
                        a.column,
                        keep,
                        scale,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    )
                }
            }
        }
    };
}
real!(f32, gemm_f32::gemm::f32::get_gemm_fn);
real!(f64, gemm_f64::gemm::f64::get_gemm_fn);

fn transposed<T>(m: Matrix<T>) -> Matrix<T> {
    Matrix { ptr: m.ptr, row: m.column, column: m.row }
}

/// A row-major matrix.
fn rows_of<T>(x: &[T], width: usize) -> Matrix<T> {
    Matrix { ptr: x.as_ptr(), row: width as isize, column: 1 }
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
    fn scale_row<T: Float>(y: &mut [T], by: T) {
        for y in y { *y = *y * by; }
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

/// A row of scores as probabilities; gives Σ e^(score − max).
fn softmax_row<T: Real>(p: &mut [T], max: T) -> T {
    let (mut row, mut sum) = ([T::ZERO; 512], T::ZERO);
    for part in p.chunks_mut(row.len()) {
        let to = &mut row[..part.len()];
        sum = sum + row_exp(part, max, to);
        part.copy_from_slice(to);
    }
    scale_row(p, T::ONE / sum);
    sum
}

impl<T: Real> Scores<T> {
    fn of(op: &Attention, x: &[View<'_>], mask: Option<&View<'_>>, low: T) -> Result<Scores<T>> {
        let (q, k, v) = (x[0].shape(), x[1].shape(), x[2].shape());
        let lens = [q[0], q[1], q[2], k[2], q[3], v[3]];
        let sharing = q[1] / k[1];
        let [q, k, v] = [Operand::of(x[0])?, Operand::of(x[1])?, Operand::of(x[2])?];
        Ok(Scores { q, k, v, mask: Mask::of(mask)?, op: op.clone(), lens, sharing, low })
    }

    /// The keys, or the values, that a head of queries sees.
    fn shared(&self, x: &Operand<T>, [b, h]: [usize; 2]) -> Matrix<T> {
        x.matrix([b, h / self.sharing], 0)
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

    /// The scores of queries `first..first + n` for the first `keys` keys, `[n, keys]`, masked; those of later keys than a query may
    /// see are there, too, for nobody to read.
    fn compute(&self, head: [usize; 2], first: usize, n: usize, keys: usize, s: &mut [T]) {
        let (q, k) = (self.q.matrix(head, first), transposed(self.shared(&self.k, head)));
        let scale = T::from_f64(self.op.scale);
        // SAFETY: core checked that the layouts lie inside their buffers; `s` holds n·keys numbers.
        unsafe { T::multiply(s.as_mut_ptr(), [n, self.lens[4], keys], q, k, false, scale) };
        let [b, h] = head;
        for (i, row) in s.chunks_exact_mut(keys).take(n).enumerate() {
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

    /// Drops and scales up probabilities (or their gradients) of queries `first..`, `[n, keys]`.
    fn drop(&self, head: [usize; 2], first: usize, keys: usize, p: &mut [T]) {
        let Some((rate, key)) = &self.op.dropout else { return };
        let keep = 1.0 - rate;
        // As dropout's own kernel: any bound between two multiples of 2⁻²⁴ decides alike.
        let bound = (keep * 16_777_216.0).ceil() as f32 / 16_777_216.0;
        let factor = T::from_f64(if keep > 0.0 { 1.0 / keep } else { 0.0 });
        let counter = [key.step.get(), key.stream as u32, (key.stream >> 32) as u32];
        let mut drawn = vec![0u32; (keys + 8).next_multiple_of(4)];
        for (i, row) in p.chunks_exact_mut(keys).enumerate() {
            let at = ((head[0] * self.lens[1] + head[1]) * self.lens[2] + first + i) * self.lens[3];
            words([key.seed as u32, (key.seed >> 32) as u32], counter, (at / 4) as u32, &mut drawn);
            drop_row(row, &drawn[at % 4..], bound, factor);
        }
    }

    fn forward(&self, head: [usize; 2], s: &mut [T], y: &mut [T], lse: &mut [T]) {
        let [_, _, queries, _, _, values] = self.lens;
        let block = self.block();
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let keys = self.seen(first + n);
            let s = &mut s[..n * keys];
            self.compute(head, first, n, keys, s);
            for (i, p) in s.chunks_exact_mut(keys).enumerate() {
                let (p, unseen) = p.split_at_mut(self.seen(first + i + 1));
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
            unsafe {
                T::multiply(
                    y.as_mut_ptr(),
                    [n, keys, values],
                    rows_of(s, keys),
                    self.shared(&self.v, head),
                    false,
                    T::ONE,
                )
            };
        }
    }

    /// Adds to dk and dv, writes dq, of one head; `p` and `ds` are scratch.
    fn backward(&self, head: [usize; 2], g: &[T], lse: &[T], [p, ds]: [&mut [T]; 2], [dq, dk, dv]: [&mut [T]; 3]) {
        let [_, _, queries, _, width, values] = self.lens;
        let block = self.block();
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let keys = self.seen(first + n);
            let (p, ds) = (&mut p[..n * keys], &mut ds[..n * keys]);
            let g_rows = &g[first * values..][..n * values];
            self.compute(head, first, n, keys, p);
            for (i, p) in p.chunks_exact_mut(keys).enumerate() {
                let (p, unseen) = p.split_at_mut(self.seen(first + i + 1));
                unseen.fill(T::ZERO);
                if lse[first + i] == self.low {
                    p.fill(T::ZERO);
                    continue;
                }
                // Normalized anew: a large ln Σ e^score has no digits left for small differences.
                softmax_row(p, row_max(p, self.low));
            }
            let v = transposed(self.shared(&self.v, head));
            // SAFETY: as above; all operands hold what their lengths say.
            unsafe { T::multiply(ds.as_mut_ptr(), [n, values, keys], rows_of(g_rows, values), v, false, T::ONE) };
            self.drop(head, first, keys, ds);
            for (i, (p, ds)) in p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
                let (ds, unseen) = ds.split_at_mut(self.seen(first + i + 1));
                unseen.fill(T::ZERO);
                let p = &p[..ds.len()];
                // Σ p·dp = Σ g·y, dropout or not; the first is exactly dp where a query sees one key, whose score has no gradient.
                score_grad(p, weighted_mean(p, ds), T::from_f64(self.op.scale), ds);
            }
            let q = self.q.matrix(head, first);
            // SAFETY: as above.
            unsafe {
                T::multiply(
                    dq[first * width..].as_mut_ptr(),
                    [n, keys, width],
                    rows_of(ds, keys),
                    self.shared(&self.k, head),
                    false,
                    T::ONE,
                );
                T::multiply(dk.as_mut_ptr(), [keys, n, width], transposed(rows_of(ds, keys)), q, true, T::ONE);
            }
            self.drop(head, first, keys, p);
            // SAFETY: as above.
            unsafe {
                T::multiply(
                    dv.as_mut_ptr(),
                    [keys, n, values],
                    transposed(rows_of(p, keys)),
                    rows_of(g_rows, values),
                    true,
                    T::ONE,
                );
            }
        }
    }
}

fn forward<T: Real>(op: &Attention, x: &[View<'_>], low: T) -> Result<Fused> {
    let scores = Scores::of(op, &x[..3], x.get(3), low)?;
    let [batch, heads, queries, keys, _, values] = scores.lens;
    let kept = Meta::new(x[0].dtype, Shape::try_new(&[batch, heads, queries])?);
    let (ty, tl) = (
        CpuStorage::new(batch * heads * queries * values * size_of::<T>())?,
        CpuStorage::new(batch * heads * queries * size_of::<T>())?,
    );
    let (y, lse) = (Out::<T>::of(&ty), Out::<T>::of(&tl));
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    launch(&reads, &[&ty, &tl], move || {
        for_chunks(batch * heads, scores.work() * batch * heads, |i| {
            let mut s = vec![T::ZERO; scores.block() * keys];
            let (y, lse) = (y.part(i * queries * values, queries * values), lse.part(i * queries, queries));
            scores.forward([i / heads, i % heads], &mut s, y, lse);
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
            let n = scores.block() * keys;
            let mut scratch = vec![T::ZERO; 2 * n];
            let (p, ds) = scratch.split_at_mut(n);
            let [dk, dv] = [1, 2].map(|k| outs[k].part(shared * lens[k], lens[k]));
            dk.fill(T::ZERO);
            dv.fill(T::ZERO);
            for i in shared * scores.sharing..(shared + 1) * scores.sharing {
                let g = &g.0.slice()[g.1 + i * queries * values..];
                let lse = &lse.0.slice()[lse.1 + i * queries..];
                let dq = outs[0].part(i * lens[0], lens[0]);
                scores.backward([i / heads, i % heads], g, lse, [&mut *p, &mut *ds], [dq, &mut *dk, &mut *dv]);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tq)?, finish(tk)?, finish(tv)?], ..Fused::default() })
}
