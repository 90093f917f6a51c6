//! Whole sequences of LSTM and GRU steps, forward and backward.
//!
//! The sequences of a batch do not depend on each other: a block of them goes through all steps on one thread, so that work is
//! handed out once for the whole. The state's weights are packed once, and a step's gates stay in the first cache until the
//! activations have used them.

mod rows;

use crate::elementwise::{copy, finish};
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::panel::{Panel, WHOLE, multiply_packed, pack, packed_len};
use crate::simd::prefetch;
use crate::threads::for_chunks;
use crate::vector::lanes;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use gradus_core::functional::lstm_sequence::{LstmSequence, LstmSequenceGrad};
use gradus_core::{Buffer, DType, Meta, Result, Shape};
use rows::{gru_backward, gru_forward, lstm_backward, lstm_forward};
use smallvec::smallvec;
use std::ops::Range;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LstmSequence>| with_sizes(c.x, 4, c.op.reverse, |s| lstm(s, c.x, c.records)));
    table.register(|c: FusedCall<'_, LstmSequenceGrad>| with_sizes(c.x, 4, c.op.reverse, |s| lstm_grad(s, c.x)));
    table.register(|c: FusedCall<'_, GruSequence>| with_sizes(c.x, 3, c.op.reverse, |s| gru(s, c.x, c.records)));
    table.register(|c: FusedCall<'_, GruSequenceGrad>| with_sizes(c.x, 3, c.op.reverse, |s| gru_grad(s, c.x)));
}

#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    n: usize,
    gates: usize,
    reverse: bool,
}

/// Runs `f` if the case is one for these kernels.
fn with_sizes(
    x: &[View<'_>],
    gates: usize,
    reverse: bool,
    f: impl FnOnce(Sizes) -> Result<Fused>,
) -> Result<Option<Fused>> {
    let shape = x[0].shape();
    let s = Sizes { steps: shape[0], batch: shape[1], n: shape[2] / gates, gates, reverse };
    // One block's steps of some size are better shared out one by one: by definition.
    let alone = s.batch <= s.block() && s.batch * s.wide() * s.n > 1 << 19;
    if x[0].dtype != DType::F32 || x[0].elements() == 0 || alone {
        return Ok(None);
    }
    f(s).map(Some)
}

impl Sizes {
    /// Numbers of all gates.
    fn wide(&self) -> usize {
        self.gates * self.n
    }
    /// How many sequences go through the steps together: enough to keep the registers busy, and blocks for several threads.
    fn block(&self) -> usize {
        self.batch.div_ceil(8).clamp(4, 24)
    }
    /// The step taken as the `i`-th.
    fn step(&self, i: usize) -> usize {
        if self.reverse { self.steps - 1 - i } else { i }
    }
    fn for_blocks(&self, f: impl Fn(Range<usize>) + Send + Sync) {
        let block = self.block();
        let work = self.steps * self.batch * self.wide() * (self.n + 64) / 50;
        for_chunks(self.batch.div_ceil(block), work, |i| f(i * block..self.batch.min((i + 1) * block)));
    }
    fn storage(&self, steps: usize, width: usize) -> Result<CpuStorage> {
        CpuStorage::new(steps * self.batch * width * size_of::<f32>())
    }
    fn meta(&self, width: usize) -> Result<Meta> {
        Ok(Meta::new(DType::F32, Shape::try_new(&[self.steps, self.batch, width])?))
    }
    /// Packs W, `[gates·n, n]`, as h·Wᵀ (`forward`) or the product with W needs it.
    fn pack(&self, w: &Rows, forward: bool, out: &Out<f32>) {
        let (run, columns) = if forward { (self.n, self.wide()) } else { (self.wide(), self.n) };
        let part = 2 * lanes::<f32>() * run;
        for_chunks(columns.div_ceil(2 * lanes::<f32>()), run * columns, |i| {
            pack(run, columns, i, forward, |line| w.row(0, line), out.part(i * part, part));
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

/// out = start + a·b for `rows` rows of a, of which `at` gives the first and their distance; `out`'s rows (and `start`'s, if it is to
/// begin with what `out` holds) are whole registers long.
fn product(rows: usize, a: (*const f32, usize), run: usize, b: &[f32], columns: usize, out: &mut [f32], adds: bool) {
    let pitch = pitch(columns);
    debug_assert!(out.len() >= rows * pitch && b.len() >= packed_len::<f32>(run, columns));
    let out = out.as_mut_ptr();
    let start = if adds { out.cast_const() } else { std::ptr::null() };
    let p = Panel {
        rows,
        run,
        runs: WHOLE,
        a: a.0,
        a_row: a.1,
        a_column: 1,
        b: b.as_ptr(),
        b_row: 0,
        start,
        start_row: pitch,
        out,
        out_row: pitch,
    };
    // SAFETY: the callers give `rows` rows of `run` numbers; b and out were checked above.
    unsafe { multiply_packed::<f32>(&p, columns) }
}

/// How far apart the rows of a product are: whole registers.
fn pitch(columns: usize) -> usize {
    columns.next_multiple_of(lanes::<f32>())
}

fn lstm(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide(), s.batch);
    // Without a backward, two steps' numbers are kept, in turn.
    let kept = if records { s.steps } else { 2 };
    let (ty, tc) = (s.storage(s.steps, n)?, s.storage(1, n)?);
    let (ta, tk) = (s.storage(kept, wide)?, s.storage(kept, n)?);
    let room = CpuStorage::new(packed_len::<f32>(n, wide) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [y, c, activations, cells, packed] = [&ty, &tc, &ta, &tk, &room].map(Out::<f32>::of);
    launch(&made.reads(x)?, &[&ty, &tc, &ta, &tk, &room], move || {
        s.pack(&inputs[1], true, &packed);
        s.for_blocks(|block| {
            let mut h_gates = vec![0.0; block.len() * pitch(wide)];
            for i in 0..s.steps {
                let before = match i {
                    0 => inputs[2].from(block.start),
                    _ => (y.part((s.step(i - 1) * batch + block.start) * n, block.len() * n).as_ptr(), n),
                };
                inputs[0].fetch(s.step(i), &block);
                product(block.len(), before, n, packed.whole(), wide, &mut h_gates, false);
                for (r, h_gates) in block.clone().zip(h_gates.chunks_exact(pitch(wide))) {
                    let at = i % kept * batch + r;
                    let c = match i {
                        0 => inputs[3].row(0, r),
                        _ => &*cells.part(((i - 1) % kept * batch + r) * n, n),
                    };
                    let t = s.step(i);
                    let h = y.part((t * batch + r) * n, n);
                    let kept = [activations.part(at * wide, wide), cells.part(at * n, n)];
                    lstm_forward([inputs[0].row(t, r), h_gates, c], kept, h);
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

fn lstm_grad(s: Sizes, x: &[View<'_>]) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide(), s.batch);
    let (tg, th, tc) = (s.storage(s.steps, wide)?, s.storage(1, n)?, s.storage(1, n)?);
    let room = CpuStorage::new(packed_len::<f32>(wide, n) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [gates, dh, dc, packed] = [&tg, &th, &tc, &room].map(Out::<f32>::of);
    launch(&made.reads(x)?, &[&tg, &th, &tc, &room], move || {
        s.pack(&inputs[1], false, &packed);
        let [_, _, _, c_first, gy, gc, activations, cells] = &inputs[..] else { return };
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
                    cells.fetch(i - 1, &block);
                    gy.fetch(s.step(i - 1), &block);
                }
                let gates = gates.part((t * batch + block.start) * wide, block.len() * wide);
                product(block.len(), (gates.as_ptr(), wide), wide, packed.whole(), n, &mut dhs, false);
            }
            for (r, h) in block.clone().zip(dhs.chunks_exact(pitch(n))) {
                dh.part(r * n, n).copy_from_slice(&h[..n]);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tg)?, finish(th)?, finish(tc)?], ..Fused::default() })
}

fn gru(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
    let (n, wide, batch) = (s.n, s.wide(), s.batch);
    let kept = if records { s.steps } else { 1 };
    let (ty, ta) = (s.storage(s.steps, n)?, s.storage(kept, 4 * n)?);
    let room = CpuStorage::new(packed_len::<f32>(n, wide) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [y, activations, packed] = [&ty, &ta, &room].map(Out::<f32>::of);
    launch(&made.reads(x)?, &[&ty, &ta, &room], move || {
        s.pack(&inputs[1], true, &packed);
        s.for_blocks(|block| {
            let mut h_gates = vec![0.0; block.len() * pitch(wide)];
            for i in 0..s.steps {
                let (t, last) = (s.step(i), s.step(i.saturating_sub(1)));
                let before = match i {
                    0 => inputs[2].from(block.start),
                    _ => (y.part((last * batch + block.start) * n, block.len() * n).as_ptr(), n),
                };
                inputs[0].fetch(t, &block);
                product(block.len(), before, n, packed.whole(), wide, &mut h_gates, false);
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
    let (n, wide, batch) = (s.n, s.wide(), s.batch);
    let (tx, ts, th) = (s.storage(s.steps, wide)?, s.storage(s.steps, wide)?, s.storage(1, n)?);
    let room = CpuStorage::new(packed_len::<f32>(wide, n) * 4)?;
    let made = Inputs::of(x)?;
    let inputs = made.rows(x)?;
    let [dx, ds, dh, packed] = [&tx, &ts, &th, &room].map(Out::<f32>::of);
    launch(&made.reads(x)?, &[&tx, &ts, &th, &room], move || {
        s.pack(&inputs[1], false, &packed);
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
                product(block.len(), (ds.as_ptr(), wide), wide, packed.whole(), n, &mut dhs, true);
            }
            for (r, h) in block.clone().zip(dhs.chunks_exact(pitch(n))) {
                dh.part(r * n, n).copy_from_slice(&h[..n]);
            }
        });
    });
    Ok(Fused { outputs: smallvec![finish(tx)?, finish(ts)?, finish(th)?], ..Fused::default() })
}
