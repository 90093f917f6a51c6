//! Whole sequences of LSTM and GRU steps, forward and backward.
//!
//! The sequences of a batch do not depend on each other: a block of them goes through all steps on one thread, so that work is
//! handed out once for the whole. The weights are packed once, and a step's gates stay in the first cache until the
//! activations have used them: an LSTM's, of its inputs and its state, are one product of what stands side by side.

mod rows;
mod weights;

use crate::elementwise::{copy, finish};
use crate::launch::{In, Out, launch, storage};
use crate::matmul::matmul;
use crate::memory::CpuStorage;
use crate::panel::{Panel, TOGETHER, WHOLE, multiply_packed, pack_rows, pack_turned, packed_len};
use crate::simd::prefetch;
use crate::threads::for_chunks;
use crate::vector::lanes;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use gradus_core::functional::lstm_sequence::{LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use gradus_core::{Buffer, DType, Layout, Meta, Result, Shape};
use rows::{gru_backward, gru_forward, lstm_backward, lstm_forward};
use smallvec::smallvec;
use std::ops::Range;
use std::sync::Arc;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LstmSequence>| with_sizes(c.x, c.x[3], c.op.reverse, |s| lstm(s, c.x, c.records)));
    table.register(|c: FusedCall<'_, LstmSequenceGrad>| with_sizes(c.x, c.x[3], c.op.reverse, |s| lstm_grad(s, c.x)));
    table.register(|c: FusedCall<'_, LstmWeightGrad>| weights::lstm(c.x, c.op.reverse));
    table.register(|c: FusedCall<'_, GruSequence>| with_sizes(c.x, c.x[1], c.op.reverse, |s| gru(s, c.x, c.records)));
    table.register(|c: FusedCall<'_, GruSequenceGrad>| with_sizes(c.x, c.x[1], c.op.reverse, |s| gru_grad(s, c.x)));
}

#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    n: usize,
    /// Numbers of all gates.
    wide: usize,
    reverse: bool,
}

/// Runs `f` if the case is one for these kernels: of inputs `[steps, batch, ..]`, and the state's weights `[gates·n, n]`.
fn with_sizes(
    x: &[View<'_>],
    w: View<'_>,
    reverse: bool,
    f: impl FnOnce(Sizes) -> Result<Fused>,
) -> Result<Option<Fused>> {
    let (shape, w) = (x[0].shape(), w.shape());
    let s = Sizes { steps: shape[0], batch: shape[1], n: w[1], wide: w[0], reverse };
    // One block's steps of some size are better shared out one by one: by definition.
    let alone = s.batch <= s.block() && s.batch * s.wide * s.n > 1 << 19;
    if x[0].dtype != DType::F32 || s.steps * s.batch * s.n == 0 || alone {
        return Ok(None);
    }
    f(s).map(Some)
}

impl Sizes {
    /// How many sequences go through the steps together: enough to keep the registers busy, and blocks for several threads.
    fn block(&self) -> usize {
        self.batch.div_ceil(4).clamp(4, 24)
    }
    /// The step taken as the `i`-th.
    fn step(&self, i: usize) -> usize {
        if self.reverse { self.steps - 1 - i } else { i }
    }
    fn for_blocks(&self, f: impl Fn(Range<usize>) + Send + Sync) {
        let block = self.block();
        let work = self.steps * self.batch * self.wide * (self.n + 64) / 50;
        for_chunks(self.batch.div_ceil(block), work, |i| f(i * block..self.batch.min((i + 1) * block)));
    }
    fn storage(&self, steps: usize, width: usize) -> Result<Arc<CpuStorage>> {
        CpuStorage::new(steps * self.batch * width * size_of::<f32>())
    }
    fn meta(&self, width: usize) -> Result<Meta> {
        Ok(Meta::new(DType::F32, Shape::try_new(&[self.steps, self.batch, width])?))
    }
    /// Packs W, `[gates·n, n]`, as the product with W needs it.
    fn pack(&self, w: &Rows, out: &Out<f32>) {
        let part = 2 * lanes::<f32>();
        for_chunks(self.wide.div_ceil(TOGETHER), self.wide * self.n, |i| {
            let rows = i * TOGETHER..self.wide.min((i + 1) * TOGETHER);
            let (from, apart) = w.from(rows.start);
            // SAFETY: `w` has so many rows, and `out` room for all parts; each piece's rows of them are its own.
            unsafe { pack_rows(from, apart, [rows.len(), self.n], out.ptr().add(rows.start * part), part * self.wide) }
        });
    }
    /// Packs weights, `[gates·n, ..]` each, as the product of what they are for, side by side, with their transposes needs it.
    fn pack_turned(&self, all: &[&Rows], out: &Out<f32>) {
        let (part, run) = (2 * lanes::<f32>(), all.iter().map(|w| w.width).sum::<usize>());
        for_chunks(self.wide.div_ceil(part), run * self.wide, |i| {
            let mut at = i * part * run;
            for w in all {
                let ((from, apart), count) = (w.from(i * part), part.min(self.wide - i * part));
                // SAFETY: `w` has so many rows, and `out` room for all parts; each is one piece's own.
                unsafe { pack_turned(from, apart, [w.width, count], out.ptr().add(at)) }
                at += part * w.width;
            }
        });
    }
}

/// An operand `[steps, batch, width]` (or `[batch, width]`, or `[width]`) whose rows are in one piece.
struct Rows {
    x: In<f32>,
    at: usize,
    steps: usize,
    sequences: usize,
    width: usize,
}

impl Rows {
    fn of(v: &View<'_>, made: &Option<Buffer>) -> Result<Rows> {
        let (shape, rank) = (v.shape(), v.shape().rank());
        let width = shape[rank - 1];
        let stride = |d: usize| match (made, d) {
            (None, _) => v.layout.strides()[d] as usize,
            (Some(_), 0) if rank == 3 => shape[1] * width,
            _ => width,
        };
        let (steps, sequences) = match rank {
            1 => (0, 0),
            2 => (0, stride(0)),
            _ => (stride(0), stride(1)),
        };
        let at = if made.is_some() { 0 } else { v.layout.offset() };
        Ok(Rows { x: In::of(storage(made.as_ref().unwrap_or(v.buffer))?), at, steps, sequences, width })
    }
    #[inline(always)]
    fn row(&self, step: usize, sequence: usize) -> &[f32] {
        &self.x.slice()[self.at + step * self.steps + sequence * self.sequences..][..self.width]
    }
    /// Has a step's rows fetched while a product is worked out: they lie pages apart from the last step's.
    fn fetch(&self, step: usize, block: &Range<usize>) {
        block.clone().for_each(|r| prefetch(self.row(step, r)));
    }
    /// The rows from one on, of which a product reads some.
    fn from(&self, sequence: usize) -> (*const f32, usize) {
        (self.row(0, sequence).as_ptr(), self.sequences)
    }
}

/// The inputs of a call; those whose rows are not in one piece are copied.
struct Inputs(Vec<Option<Buffer>>);

impl Inputs {
    fn of(x: &[View<'_>]) -> Result<Inputs> {
        let whole = |v: &View<'_>| {
            let strides = v.layout.strides();
            strides.iter().all(|&s| s >= 0) && (strides[strides.len() - 1] == 1 || v.layout.is_dense())
        };
        Ok(Inputs(x.iter().map(|v| if whole(v) { Ok(None) } else { copy(*v).map(Some) }).collect::<Result<_>>()?))
    }
    fn rows(&self, x: &[View<'_>]) -> Result<Vec<Rows>> {
        x.iter().zip(&self.0).map(|(v, made)| Rows::of(v, made)).collect()
    }
    fn reads<'a>(&'a self, x: &'a [View<'_>]) -> Result<Vec<&'a CpuStorage>> {
        x.iter().zip(&self.0).map(|(v, made)| storage(made.as_ref().unwrap_or(v.buffer))).collect()
    }
}

/// What a product's rows begin with: the first of them, and how far apart they are.
type Start = (*const f32, usize);
const ZEROS: Start = (std::ptr::null(), 0);

/// out = start + a·b for `rows` rows of a, of which `at` gives the first and their distance; `out`'s rows and those of `start` are
/// whole registers long.
fn product(rows: usize, a: (*const f32, usize), run: usize, b: &[f32], columns: usize, out: &mut [f32], start: Start) {
    let pitch = pitch(columns);
    debug_assert!(out.len() >= rows * pitch && b.len() >= packed_len::<f32>(run, columns));
    let p = Panel {
        rows,
        run,
        runs: WHOLE,
        a: a.0,
        a_row: a.1,
        a_column: 1,
        b: b.as_ptr(),
        b_row: 0,
        start: start.0,
        start_row: start.1,
        out: out.as_mut_ptr(),
        out_row: pitch,
    };
    // SAFETY: the callers give `rows` rows of `run` numbers, and of whole registers to begin with; b and out were checked above.
    unsafe { multiply_packed::<f32>(&p, columns) }
}

/// How far apart the rows of a product are: whole registers.
fn pitch(columns: usize) -> usize {
    columns.next_multiple_of(lanes::<f32>())
}

/// So many numbers of packed weights stay in the second cache while a block goes through the steps.
const NEAR: usize = 1 << 17;

fn lstm(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide, s.batch);
    // Without a backward, two steps' numbers are kept, in turn.
    let kept = if records { s.steps } else { 2 };
    let (ty, tc) = (s.storage(s.steps, n)?, s.storage(1, n)?);
    let (ta, tk) = (s.storage(kept, wide)?, s.storage(kept, n)?);
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let gates = input_gates(&s, x)?;
    let width = if gates.is_some() { 0 } else { inputs[0].width };
    let (room, rest) = (CpuStorage::new(packed_len::<f32>(width + n, wide) * 4)?, CpuStorage::new(pitch(wide) * 4)?);
    let [y, c, activations, cells, packed, bias] = [&ty, &tc, &ta, &tk, &room, &rest].map(|s| Out::<f32>::of(s));
    let mut reads = made.reads(x)?;
    reads.extend(gates.as_ref().map(storage).transpose()?);
    let gates = gates.as_ref().map(|g| storage(g).map(In::<f32>::of)).transpose()?;
    launch(&reads, &[&ty, &tc, &ta, &tk, &room, &rest], move || {
        match gates {
            Some(_) => s.pack_turned(&[&inputs[3]], &packed),
            None => s.pack_turned(&[&inputs[1], &inputs[3]], &packed),
        }
        bias.slice().fill(0.0);
        bias.part(0, wide).copy_from_slice(inputs[2].row(0, 0));
        s.for_blocks(|block| {
            let mut sums = vec![0.0; block.len() * pitch(wide)];
            let mut seen = vec![0.0; block.len() * (width + n)]; // x and h side by side
            for i in 0..s.steps {
                let (t, last) = (s.step(i), s.step(i.saturating_sub(1)));
                for (r, seen) in block.clone().zip(seen.chunks_exact_mut(width + n)) {
                    seen[..width].copy_from_slice(&inputs[0].row(t, r)[..width]);
                    let h = if i == 0 { inputs[4].row(0, r) } else { &*y.part((last * batch + r) * n, n) };
                    seen[width..].copy_from_slice(h);
                }
                let start = match &gates {
                    Some(gates) => (gates.slice()[(t * batch + block.start) * wide..].as_ptr(), wide),
                    None => (bias.whole().as_ptr(), 0),
                };
                if let Some(gates) = &gates {
                    prefetch(&gates.slice()[(t * batch + block.start) * wide..][..block.len() * wide]);
                }
                prefetch(activations.part((i % kept * batch + block.start) * wide, block.len() * wide));
                let a = (seen.as_ptr(), width + n);
                product(block.len(), a, width + n, packed.whole(), wide, &mut sums, start);
                for (r, sums) in block.clone().zip(sums.chunks_exact(pitch(wide))) {
                    let at = i % kept * batch + r;
                    let c = match i {
                        0 => inputs[5].row(0, r),
                        _ => &*cells.part(((i - 1) % kept * batch + r) * n, n),
                    };
                    let kept = [activations.part(at * wide, wide), cells.part(at * n, n)];
                    lstm_forward([sums, c], kept, y.part((t * batch + r) * n, n));
                }
            }
        });
        c.slice().copy_from_slice(cells.part((s.steps - 1) % kept * batch * n, batch * n));
    });
    let fused = Fused { outputs: smallvec![finish(ty)?, finish(tc)?], ..Fused::default() };
    if !records {
        return Ok(fused);
    }
    Ok(fused.keep(s.meta(wide)?, finish(ta)?).keep(s.meta(n)?, finish(tk)?))
}

/// x·Vᵀ + b of all steps, where it is better a product of its own: of many inputs, whose weights would not stay near through the steps.
fn input_gates(s: &Sizes, x: &[View<'_>]) -> Result<Option<Buffer>> {
    let inputs = x[0].shape()[2];
    if (inputs + s.n) * s.wide <= NEAR || pitch(s.wide) != s.wide {
        return Ok(None);
    }
    let rows = Shape::try_new(&[s.steps * s.batch, inputs])?;
    let (dense, turned) = (Layout::dense(rows), x[1].layout.permute(&[1, 0]));
    let copied;
    let flat = x[0].layout.reshape(&rows);
    let all = match &flat {
        Some(layout) => View { layout, ..x[0] },
        None => {
            copied = copy(x[0])?;
            View { buffer: &copied, layout: &dense, ..x[0] }
        }
    };
    let bias = (copy(x[2])?, Layout::dense(*x[2].shape()));
    let spec = MatmulSpec { bias: Some(View { buffer: &bias.0, layout: &bias.1, ..x[2] }), activation: None };
    matmul(all, View { layout: &turned, ..x[1] }, &spec).map(Some)
}

fn lstm_grad(s: Sizes, x: &[View<'_>]) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide, s.batch);
    let (tg, th, tc) = (s.storage(s.steps, wide)?, s.storage(1, n)?, s.storage(1, n)?);
    let room = CpuStorage::new(packed_len::<f32>(wide, n) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [gates, dh, dc, packed] = [&tg, &th, &tc, &room].map(|s| Out::<f32>::of(s));
    launch(&made.reads(x)?, &[&tg, &th, &tc, &room], move || {
        let [_, _, _, w, _, c_first, gy, gc, activations, cells] = &inputs[..] else { return };
        s.pack(w, &packed);
        s.for_blocks(|block| {
            let mut dhs = vec![0.0; block.len() * pitch(n)];
            block.clone().for_each(|r| dc.part(r * n, n).copy_from_slice(gc.row(0, r)));
            for i in (0..s.steps).rev() {
                let t = s.step(i);
                for (r, dh) in block.clone().zip(dhs.chunks_exact(pitch(n))) {
                    let before = if i == 0 { c_first.row(0, r) } else { cells.row(i - 1, r) };
                    let seen = [activations.row(i, r), before, cells.row(i, r), gy.row(t, r), dh];
                    lstm_backward(seen, dc.part(r * n, n), gates.part((t * batch + r) * wide, wide));
                }
                if i > 0 {
                    activations.fetch(i - 1, &block);
                    gy.fetch(s.step(i - 1), &block);
                    prefetch(gates.part((s.step(i - 1) * batch + block.start) * wide, block.len() * wide));
                }
                if i > 1 {
                    cells.fetch(i - 2, &block);
                }
                let gates = gates.part((t * batch + block.start) * wide, block.len() * wide);
                product(block.len(), (gates.as_ptr(), wide), wide, packed.whole(), n, &mut dhs, ZEROS);
            }
            for (r, h) in block.clone().zip(dhs.chunks_exact(pitch(n))) {
                dh.part(r * n, n).copy_from_slice(&h[..n]);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tg)?, finish(th)?, finish(tc)?], ..Fused::default() })
}

fn gru(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide, s.batch);
    let kept = if records { s.steps } else { 1 };
    let (ty, ta) = (s.storage(s.steps, n)?, s.storage(kept, 4 * n)?);
    let room = CpuStorage::new(packed_len::<f32>(n, wide) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [y, activations, packed] = [&ty, &ta, &room].map(|s| Out::<f32>::of(s));
    launch(&made.reads(x)?, &[&ty, &ta, &room], move || {
        s.pack_turned(&[&inputs[1]], &packed);
        s.for_blocks(|block| {
            let mut h_gates = vec![0.0; block.len() * pitch(wide)];
            for i in 0..s.steps {
                let (t, last) = (s.step(i), s.step(i.saturating_sub(1)));
                let before = match i {
                    0 => inputs[2].from(block.start),
                    _ => (y.part((last * batch + block.start) * n, block.len() * n).as_ptr(), n),
                };
                inputs[0].fetch(t, &block);
                product(block.len(), before, n, packed.whole(), wide, &mut h_gates, ZEROS);
                for (r, h_gates) in block.clone().zip(h_gates.chunks_exact(pitch(wide))) {
                    let h = if i == 0 { inputs[2].row(0, r) } else { &*y.part((last * batch + r) * n, n) };
                    let seen = [inputs[0].row(t, r), h_gates, inputs[3].row(0, 0), h];
                    let kept = activations.part((i % kept * batch + r) * 4 * n, 4 * n);
                    gru_forward(seen, kept, y.part((t * batch + r) * n, n));
                }
            }
        });
    });
    let fused = Fused::one(finish(ty)?);
    if records { Ok(fused.keep(s.meta(4 * n)?, finish(ta)?)) } else { Ok(fused) }
}

fn gru_grad(s: Sizes, x: &[View<'_>]) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide, s.batch);
    let (tx, ts, th) = (s.storage(s.steps, wide)?, s.storage(s.steps, wide)?, s.storage(1, n)?);
    let room = CpuStorage::new(packed_len::<f32>(wide, n) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [dx, ds, dh, packed] = [&tx, &ts, &th, &room].map(|s| Out::<f32>::of(s));
    launch(&made.reads(x)?, &[&tx, &ts, &th, &room], move || {
        s.pack(&inputs[1], &packed);
        let [_, _, h_first, _, y, gy, activations] = &inputs[..] else { return };
        s.for_blocks(|block| {
            let mut dhs = vec![0.0; block.len() * pitch(n)];
            for i in (0..s.steps).rev() {
                let t = s.step(i);
                for (r, dh) in block.clone().zip(dhs.chunks_exact_mut(pitch(n))) {
                    let before = if i == 0 { h_first.row(0, r) } else { y.row(s.step(i - 1), r) };
                    let at = (t * batch + r) * wide;
                    let grads = [dx.part(at, wide), ds.part(at, wide)];
                    gru_backward([activations.row(i, r), before, gy.row(t, r)], dh, grads);
                }
                if i > 0 {
                    activations.fetch(i - 1, &block);
                    gy.fetch(s.step(i - 1), &block);
                }
                let ds = ds.part((t * batch + block.start) * wide, block.len() * wide);
                let start = (dhs.as_ptr(), pitch(n));
                product(block.len(), (ds.as_ptr(), wide), wide, packed.whole(), n, &mut dhs, start);
            }
            for (r, h) in block.clone().zip(dhs.chunks_exact(pitch(n))) {
                dh.part(r * n, n).copy_from_slice(&h[..n]);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tx)?, finish(ts)?, finish(th)?], ..Fused::default() })
}
