//! Whole sequences of LSTM and GRU steps, forward and backward.
//!
//! The sequences of a batch do not depend on each other: a block of them goes through all steps on one thread, so that work is
//! handed out once for the whole. The weights are packed once, and a step's gates stay in the first cache until the
//! activations have used them: an LSTM's, of its inputs and its state, are one product of what stands side by side.

mod gradients;
mod gru;
mod lstm;
mod rows;
mod weights;

use crate::elementwise::copy;
use crate::launch::{In, Out, storage};
use crate::memory::CpuStorage;
use crate::panel::{Panel, TOGETHER, WHOLE, multiply_packed, pack_rows, pack_turned, packed_len};
use crate::simd::prefetch;
use crate::threads::for_chunks;
use crate::vector::lanes;
use gradus_core::backend::View;
use gradus_core::composite::{FusedCall, KernelTable};
use gradus_core::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use gradus_core::functional::lstm_sequence::{LstmGateGrad, LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use gradus_core::{Buffer, DType, Meta, Result, Shape};
use std::ops::Range;
use std::sync::Arc;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LstmSequence>| {
        sizes(c.x, c.x[3], c.op.reverse).map(|s| lstm::forward(s, c.x, c.records)).transpose()
    });
    table.register(|c: FusedCall<'_, LstmSequenceGrad>| {
        let s = sizes(c.x, c.x[3], c.op.reverse).filter(|s| gradients::fits(s, c.x));
        s.map(|s| gradients::lstm(s, c.x, c.op)).transpose()
    });
    table.register(|c: FusedCall<'_, LstmGateGrad>| {
        sizes(c.x, c.x[3], c.op.reverse).map(|s| lstm::gate_grad(s, c.x)).transpose()
    });
    table.register(|c: FusedCall<'_, LstmWeightGrad>| weights::lstm(c.x, c.op.reverse));
    table.register(|c: FusedCall<'_, GruSequence>| {
        sizes(c.x, c.x[1], c.op.reverse).map(|s| gru::forward(s, c.x, c.records)).transpose()
    });
    table.register(|c: FusedCall<'_, GruSequenceGrad>| {
        sizes(c.x, c.x[1], c.op.reverse).map(|s| gru::backward(s, c.x)).transpose()
    });
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

/// The sizes of a case that is one for these kernels: of inputs `[steps, batch, ..]`, and the state's weights `[gates·n, n]`.
fn sizes(x: &[View<'_>], w: View<'_>, reverse: bool) -> Option<Sizes> {
    let (shape, w) = (x[0].shape(), w.shape());
    let s = Sizes { steps: shape[0], batch: shape[1], n: w[1], wide: w[0], reverse };
    // One block's steps of some size are better shared out one by one: by definition.
    let alone = s.batch <= s.block() && s.batch * s.wide * s.n > 1 << 19;
    (x[0].dtype == DType::F32 && s.steps * s.batch * s.n > 0 && !alone).then_some(s)
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
    fn blocks(&self) -> usize {
        self.batch.div_ceil(self.block())
    }
    /// The sequences of block `i`.
    fn sequences(&self, i: usize) -> Range<usize> {
        i * self.block()..self.batch.min((i + 1) * self.block())
    }
    /// How long a pass over all steps takes one thread, in nanoseconds.
    fn work(&self) -> usize {
        self.steps * self.batch * self.wide * (self.n + 64) / 50
    }
    fn for_blocks(&self, f: impl Fn(Range<usize>) + Send + Sync) {
        for_chunks(self.blocks(), self.work(), |i| f(self.sequences(i)));
    }
    fn storage(&self, steps: usize, width: usize) -> Result<Arc<CpuStorage>> {
        CpuStorage::new(steps * self.batch * width * size_of::<f32>())
    }
    fn meta(&self, width: usize) -> Result<Meta> {
        Ok(Meta::new(DType::F32, Shape::try_new(&[self.steps, self.batch, width])?))
    }
    /// Packs weights, `[gates·n, ..]`, as the product with them needs it.
    fn pack(&self, w: &Rows, out: &Out<f32>) {
        let part = 2 * lanes::<f32>();
        for_chunks(self.wide.div_ceil(TOGETHER), self.wide * w.width, |i| {
            let rows = i * TOGETHER..self.wide.min((i + 1) * TOGETHER);
            let (from, apart) = w.from(rows.start);
            // SAFETY: `w` has so many rows, and `out` room for all parts; each piece's rows of them are its own.
            unsafe { pack_rows(from, apart, [rows.len(), w.width], out.ptr().add(rows.start * part), part * self.wide) }
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
