//! Fused attention: the scores of a block of queries at a time, in a scratch that stays in the cache. Forward keeps ln Σ e^score of
//! each query, for whoever wants it; backward computes the scores again, and their sums.
//!
//! A head is one piece of work, in backward a head of keys and values with all heads of queries that share it, whatever the number
//! of threads, so the sums over queries in backward have a fixed order.

mod products;
mod rows;

use crate::elementwise::{copy, finish};
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::matmul::Matrix;
use crate::matmul::Real;
use crate::memory::CpuStorage;
use crate::random::words;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::attention::{Attention, AttentionGrad};
use gradus_core::{DType, Layout, Meta, Result, Shape};
use products::{Right, To, UNIT, multiply, rows_of, transposed};
use rows::{BLOCK, Rows, add_row, drop_row, hide_row, scaled_row, score_grads, softmax};
use smallvec::smallvec;
use std::sync::Arc;

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
    /// The first `len` numbers of a row: where they lie or, if that is not side by side, copied to `room`.
    fn row<'a>(&'a self, [b, h]: [usize; 2], row: usize, len: usize, room: &'a mut Vec<T>) -> &'a [T]
    where
        T: Copy,
    {
        let (all, at, step) = (self.x.slice(), self.at([b, h, row, 0]), self.strides[3]);
        if step == 1 {
            return &all[at as usize..][..len];
        }
        room.clear();
        room.extend((0..len as isize).map(|i| all[(at + i * step) as usize]));
        room
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
        let most = if self.op.causal { CAUSAL_BLOCK } else { BLOCK };
        (65_536 / self.lens[3]).clamp(8, most).min(self.lens[2])
    }
    /// The rows of scores of queries `first..first + n`, for all keys that any of them may see.
    fn rows(&self, first: usize, n: usize) -> Rows {
        let (pitch, keys) = (self.pitch(), self.lens[3]);
        match self.op.causal {
            true => Rows { pitch, first: first + 1, step: 1, keys: keys.min(first + n) },
            false => Rows { pitch, first: keys, step: 0, keys },
        }
    }
    /// Nanoseconds for one head, about.
    fn work(&self) -> usize {
        let [_, _, queries, keys, width, values] = self.lens;
        queries * keys * (width + values) / 50 + queries * keys
    }

    /// The scores of queries `first..first + n`, masked; those of later keys than a query may see are there, too, for nobody to read.
    /// `scaled` is room for the queries.
    fn compute(
        &self,
        head: [usize; 2],
        [first, n]: [usize; 2],
        rows: Rows,
        k: &Right<T>,
        scaled: &mut [T],
        s: &mut [T],
    ) {
        let (width, pitch, scale) = (self.lens[4], rows.pitch, T::from_f64(self.op.scale));
        let (mut room, mut seen_room) = (Vec::new(), Vec::new());
        for (i, to) in scaled.chunks_exact_mut(width).take(n).enumerate() {
            scaled_row(self.q.row(head, first + i, width, &mut room), scale, to);
        }
        // SAFETY: core checked that the layouts lie inside their buffers; `s` holds n rows.
        unsafe { multiply(To::scratch(s, pitch), [n, width, rows.keys], rows_of(scaled, width), k) };
        for (i, row) in s.chunks_exact_mut(pitch).take(n).enumerate() {
            let seen = rows.seen(i);
            match &self.mask {
                Mask::None => {}
                Mask::Seen(m) => hide_row(&mut row[..seen], m.row(head, first + i, seen, &mut seen_room), self.low),
                Mask::Added(m) => add_row(&mut row[..seen], m.row(head, first + i, seen, &mut room)),
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

    /// Writes a head's rows of y.
    fn forward(&self, head: [usize; 2], [s, scaled]: [&mut [T]; 2], y: To<T>, lse: &mut [T]) {
        let [_, _, queries, all_keys, _, values] = self.lens;
        let (block, pitch) = (self.block(), self.pitch());
        let (k, v) = (self.keys_turned(head), Right::of(self.values(head), [all_keys, values]));
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let rows = self.rows(first, n);
            let s = &mut s[..n * pitch];
            self.compute(head, [first, n], rows, &k, scaled, s);
            softmax(s, rows, self.low, &mut lse[first..first + n]);
            self.drop(head, first, rows.keys, s);
            // SAFETY: as above; the head's rows of y are its own.
            unsafe { multiply(y.from(first), [n, rows.keys, values], rows_of(s, pitch), &v) };
        }
    }

    /// Adds to dk and dv, writes dq, of one head; `p`, `ds` and `scaled` are scratch.
    fn backward(&self, head: [usize; 2], g: &Operand<T>, [p, ds, scaled]: [&mut [T]; 3], [dq, dk, dv]: [To<T>; 3]) {
        let [_, _, queries, all_keys, width, values] = self.lens;
        let (block, pitch) = (self.block(), self.pitch());
        let (k, k_turned) = (self.keys(head), self.keys_turned(head));
        let v_turned = Right::of(transposed(self.values(head)), [values, all_keys]);
        for first in (0..queries).step_by(block) {
            let n = block.min(queries - first);
            let rows = self.rows(first, n);
            let keys = rows.keys;
            let (p, ds) = (&mut p[..n * pitch], &mut ds[..n * pitch]);
            let g = g.matrix(head, first);
            self.compute(head, [first, n], rows, &k_turned, scaled, p);
            // Normalized anew: a large ln Σ e^score has no digits left for small differences.
            softmax(p, rows, self.low, &mut []);
            // SAFETY: as above; all operands hold what their lengths say.
            unsafe { multiply(To::scratch(ds, pitch), [n, values, keys], g, &v_turned) };
            self.drop(head, first, keys, ds);
            // Σ p·dp = Σ g·y, dropout or not; the first is exactly dp where a query sees one key, whose score has no gradient.
            score_grads(p, rows, T::from_f64(self.op.scale), ds);
            let q = Right::of(self.q.matrix(head, first), [n, width]);
            // SAFETY: as above.
            unsafe {
                multiply(dq.from(first), [n, keys, width], rows_of(ds, pitch), &k);
                multiply(dk.added(), [keys, n, width], transposed(rows_of(ds, pitch)), &q);
            }
            self.drop(head, first, keys, p);
            let g = Right::of(g, [n, values]);
            // SAFETY: as above.
            unsafe { multiply(dv.added(), [keys, n, values], transposed(rows_of(p, pitch)), &g) };
        }
    }
}

/// Results lie as a layer's projections do, `[batch, rows, heads, columns]`: putting the heads side by side again copies nothing.
const ORDER: &[usize] = &[0, 2, 1, 3];

/// A result `[batch, heads, rows, columns]` in that order.
#[derive(Clone, Copy)]
struct Heads<T> {
    out: Out<T>,
    heads: usize,
    rows: usize,
    columns: usize,
}

impl<T: Float> Heads<T> {
    fn new(batch: usize, heads: usize, rows: usize, columns: usize) -> Result<(Arc<CpuStorage>, Heads<T>)> {
        let storage = CpuStorage::new(batch * heads * rows * columns * size_of::<T>())?;
        let out = Out::of(&storage);
        Ok((storage, Heads { out, heads, rows, columns }))
    }
    fn pitch(&self) -> usize {
        self.heads * self.columns
    }
    /// Where a head's first row is.
    fn start(&self, [b, h]: [usize; 2]) -> usize {
        b * self.rows * self.pitch() + h * self.columns
    }
    fn head(&self, head: [usize; 2]) -> To<T> {
        To::rows(self.out.ptr().wrapping_add(self.start(head)), self.pitch())
    }
    /// Zeros for a head, which the caller holds alone.
    fn clear(&self, head: [usize; 2]) {
        let start = self.start(head);
        (0..self.rows).for_each(|r| self.out.part(start + r * self.pitch(), self.columns).fill(T::ZERO));
    }
}

fn forward<T: Real>(op: &Attention, x: &[View<'_>], low: T) -> Result<Fused> {
    let scores = Scores::of(op, &x[..3], x.get(3), low)?;
    let [batch, heads, queries, _, width, values] = scores.lens;
    let kept = Meta::new(x[0].dtype, Shape::try_new(&[batch, heads, queries])?);
    let (ty, y) = Heads::new(batch, heads, queries, values)?;
    let tl = CpuStorage::new(batch * heads * queries * size_of::<T>())?;
    let lse = Out::<T>::of(&tl);
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    launch(&reads, &[&ty, &tl], move || {
        for_chunks(batch * heads, scores.work() * batch * heads, |i| {
            let (head, scores_len) = ([i / heads, i % heads], scores.block() * scores.pitch());
            let mut scratch = vec![T::ZERO; scores_len + scores.block() * width];
            let (s, scaled) = scratch.split_at_mut(scores_len);
            scores.forward(head, [s, scaled], y.head(head), lse.part(i * queries, queries));
        });
    });
    Ok(Fused::one(finish(ty)?).keep(kept, finish(tl)?).in_order(ORDER))
}

fn backward<T: Real>(op: &Attention, x: &[View<'_>], low: T) -> Result<Fused> {
    let scores = Scores::of(op, &x[1..4], x.get(6), low)?;
    let [batch, heads, queries, keys, width, values] = scores.lens;
    // A gradient whose rows do not lie in one piece each (one that is the same everywhere) is copied.
    let in_pieces = x[0].layout.strides()[3] == 1;
    let (layout, copied) = (Layout::dense(*x[0].shape()), if in_pieces { None } else { Some(copy(x[0])?) });
    let g = copied.as_ref().map_or(x[0], |buffer| View { buffer, layout: &layout, ..x[0] });
    let mut reads = x[1..].iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    reads.push(storage(g.buffer)?);
    let g = Operand::<T>::of(g)?;
    let shared = heads / scores.sharing;
    let (tq, dq) = Heads::new(batch, heads, queries, width)?;
    let (tk, dk) = Heads::new(batch, shared, keys, width)?;
    let (tv, dv) = Heads::new(batch, shared, keys, values)?;
    launch(&reads, &[&tq, &tk, &tv], move || {
        for_chunks(batch * shared, scores.work() * 5 / 2 * batch * heads, |i| {
            let n = scores.block() * scores.pitch();
            let mut scratch = vec![T::ZERO; 2 * n + scores.block() * width];
            let (p, rest) = scratch.split_at_mut(n);
            let (ds, scaled) = rest.split_at_mut(n);
            let [b, h] = [i / shared, i % shared];
            [dk, dv].iter().for_each(|d| d.clear([b, h]));
            for query_head in h * scores.sharing..(h + 1) * scores.sharing {
                let head = [b, query_head];
                let grads = [dq.head(head), dk.head([b, h]), dv.head([b, h])];
                scores.backward(head, &g, [&mut *p, &mut *ds, &mut *scaled], grads);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tq)?, finish(tk)?, finish(tv)?], ..Fused::default() }.in_order(ORDER))
}

#[cfg(test)]
mod tests {
    use gradus_core::functional::attention::AttentionOptions;
    use gradus_core::{Backward, Tensor, grad};

    /// It gave zeros: NaN is not larger than the least score, so the query seemed to see no key.
    #[test]
    fn a_query_of_nan_gives_nan_and_no_other_does() {
        let numbers = |seed: usize| (0..4 * 6).map(move |i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect();
        let on = |x: Vec<f32>| Tensor::from_vec(x, [1, 1, 4, 6], crate::device()).requires_grad();
        let mut with_nan: Vec<f32> = numbers(0);
        with_nan[2 * 6..3 * 6].fill(f32::NAN);
        let (k, v) = (on(numbers(1)), on(numbers(2)));
        for options in [AttentionOptions::default(), AttentionOptions::causal()] {
            let [x, q] = [numbers(0), with_nan.clone()].map(on);
            let [whole, y] = [&x, &q].map(|q| q.attention(&k, &v, &options));
            let rows = |y: &Tensor| y.to_vec::<f32>().expect("it was computed");
            for (i, (want, y)) in rows(&whole).chunks(6).zip(rows(&y).chunks(6)).enumerate() {
                assert!(if i == 2 { y.iter().all(|y| y.is_nan()) } else { y == want }, "row {i}: {y:?}");
            }
            let dq = rows(&grad(&[&y.sum()], &[&q], Backward::default())[0]);
            assert!(dq[2 * 6..3 * 6].iter().all(|d| d.is_nan()), "{dq:?}");
            assert!(dq[..2 * 6].iter().all(|d| d.is_finite()), "{dq:?}");
        }
    }
}
