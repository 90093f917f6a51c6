//! All gradients of an LSTM in one pass back over the steps, where those of its weights stay in the second cache.
//!
//! A block's gates need not be written down then: those of some steps, beside what they had seen (the state before, the inputs, and a 1
//! for the bias), are added up to the weights' gradients as one product, and their room is used again.

use super::rows::lstm_backward;
use super::weights::{lay_out, take_apart};
use super::{Inputs, Rows, Sizes, ZEROS, pitch, product};
use crate::elementwise::finish;
use crate::launch::{Out, launch};
use crate::memory::CpuStorage;
use crate::panel::{Panel, WHOLE, multiply_plain, packed_len};
use crate::room::with_parts;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use crate::vector::lanes;
use gradus_core::Result;
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::functional::lstm_sequence::LstmSequenceGrad;
use smallvec::smallvec;
use std::ops::Range;

/// So many numbers of gradients stay in the second cache, beside W and some steps' gates.
const NEAR: usize = 1 << 17;
/// About so many rows, of sequences and steps, are summed up at a time ...
const ROWS: usize = 64;
/// ... for so many gates, whose numbers then stay in the first cache.
const BAND: usize = 64;
/// Each sum over several blocks of sequences takes memory; there are at most so many.
const SUMS: usize = 16;

/// The numbers of what a step has seen: h, x and 1, in whole registers.
fn width(s: &Sizes, x: &[View<'_>]) -> usize {
    (s.n + x[0].shape()[2] + 1).next_multiple_of(lanes::<f32>())
}

/// Whether the gradients of the weights stay near.
pub(super) fn fits(s: &Sizes, x: &[View<'_>]) -> bool {
    s.wide * width(s, x) <= NEAR && x[0].shape()[2] > 0
}

vectorized! {
    fn add(sums: &mut [f32], more: &[f32]) {
        for (sum, &x) in sums.iter_mut().zip(more) {
            *sum += x;
        }
    }
}

/// The gradients that [`LstmSequenceGrad`] names.
pub(super) fn lstm(s: Sizes, x: &[View<'_>], op: &LstmSequenceGrad) -> Result<Fused> {
    let (n, wide, inputs, width) = (s.n, s.wide, x[0].shape()[2], width(&s, x));
    let made = |numbers: usize| CpuStorage::new(numbers * size_of::<f32>());
    let if_wanted = |wanted: bool, numbers: usize| made(if wanted { numbers } else { 0 });
    let (tv, tb, tw) = (made(wide * inputs)?, made(wide)?, made(wide * n)?);
    let (tx, packed_v) =
        (if_wanted(op.inputs, s.steps * s.batch * inputs)?, if_wanted(op.inputs, packed_len::<f32>(wide, inputs))?);
    let (th, tc) = (if_wanted(op.states, s.batch * n)?, if_wanted(op.states, s.batch * n)?);
    let parts = s.blocks().min(SUMS);
    let (packed_w, sums) = (made(packed_len::<f32>(wide, n))?, made(parts * wide * width)?);
    let copies = Inputs::of(x)?;
    let (rows, op) = (copies.rows(x)?, *op);
    let writes = [&tv, &tb, &tw, &tx, &th, &tc, &packed_v, &packed_w, &sums].map(|s| &**s);
    let [dv, db, dw, dx, dh, dc, v, w, all] = writes.map(Out::<f32>::of);
    launch(&copies.reads(x)?, &writes, move || {
        s.pack(&rows[3], &w);
        if op.inputs {
            s.pack(&rows[1], &v);
        }
        let pass = Pass { s, op, rows: &rows, inputs, width, w: w.whole(), v: v.whole(), dx, dh, dc };
        for_chunks(parts, 2 * s.work(), |i| {
            let mut sums = Sums { of: all.part(i * wide * width, wide * width), begun: false };
            for block in s.blocks() * i / parts..s.blocks() * (i + 1) / parts {
                with_parts(pass.room(), |room| pass.back(s.sequences(block), room, &mut sums));
            }
        });
        for_chunks(wide.div_ceil(BAND), parts * wide * width / 8, |band| {
            for o in (band * BAND..wide).take(BAND) {
                let row = all.part(o * width, width);
                (1..parts).for_each(|i| add(row, all.part((i * wide + o) * width, width)));
                take_apart(row, o, [&dv, &db, &dw], [inputs, n]);
            }
        });
    });
    let mut outputs = smallvec![finish(tv)?, finish(tb)?, finish(tw)?];
    if op.inputs {
        outputs.push(finish(tx)?);
    }
    if op.states {
        outputs.extend([finish(th)?, finish(tc)?]);
    }
    Ok(Fused { outputs, ..Fused::default() })
}

/// A part of the sums over all sequences and steps: `[gates, width]`.
struct Sums<'a> {
    of: &'a mut [f32],
    begun: bool,
}

struct Pass<'a> {
    s: Sizes,
    op: LstmSequenceGrad,
    /// The operands, in the operation's order.
    rows: &'a [Rows],
    inputs: usize,
    /// Of what a step has seen.
    width: usize,
    /// W and V, packed; the latter if the gradient of the inputs is wanted.
    w: &'a [f32],
    v: &'a [f32],
    dx: Out<f32>,
    dh: Out<f32>,
    dc: Out<f32>,
}

impl Pass<'_> {
    /// How far apart the gates of two rows are: not by a page's part, whose numbers would drive each other from the first cache.
    fn apart(&self) -> usize {
        pitch(self.s.wide) + lanes::<f32>()
    }
    /// After so many steps a block's gates are summed up.
    fn together(&self) -> usize {
        (ROWS / self.s.block()).max(1)
    }
    /// Room for the gates' gradients and what these steps have seen, and for the gradients of a block's h, c and x.
    fn room(&self) -> [usize; 5] {
        let (block, n) = (self.s.block(), self.s.n);
        let rows = self.together() * block;
        let dx = if self.op.inputs { block * pitch(self.inputs) } else { 0 };
        [rows * self.apart(), rows * self.width, block * pitch(n), block * n, dx]
    }

    /// Takes a block of sequences back through all steps.
    fn back(&self, block: Range<usize>, [gates, seen, dhs, dcs, dxs]: [&mut [f32]; 5], sums: &mut Sums<'_>) {
        let [x, _, _, _, h_first, c_first, gy, gc, y, activations, cells] = self.rows else { return };
        let (s, n, wide, count, apart) = (&self.s, self.s.n, self.s.wide, block.len(), self.apart());
        dhs.fill(0.0);
        block.clone().zip(dcs.chunks_exact_mut(n)).for_each(|(r, dc)| dc.copy_from_slice(gc.row(0, r)));
        let mut rows = 0;
        for i in (0..s.steps).rev() {
            let t = s.step(i);
            let (gates_here, seen_here) = (&mut gates[rows * apart..], &mut seen[rows * self.width..]);
            for (k, r) in block.clone().enumerate() {
                let (h, c) = match i {
                    0 => (h_first.row(0, r), c_first.row(0, r)),
                    _ => (y.row(s.step(i - 1), r), cells.row(i - 1, r)),
                };
                lay_out(&mut seen_here[k * self.width..][..self.width], h, x.row(t, r));
                let known = [activations.row(i, r), c, cells.row(i, r), gy.row(t, r), &dhs[k * pitch(n)..]];
                lstm_backward(known, &mut dcs[k * n..][..n], &mut gates_here[k * apart..]);
            }
            if i > 0 {
                activations.fetch(i - 1, &block);
                gy.fetch(s.step(i - 1), &block);
                x.fetch(s.step(i - 1), &block);
            }
            if i > 1 {
                cells.fetch(i - 2, &block);
                y.fetch(s.step(i - 2), &block);
            }
            let a = (gates_here.as_ptr(), apart);
            if i > 0 || self.op.states {
                product(count, a, wide, self.w, n, dhs, ZEROS);
            }
            if self.op.inputs {
                product(count, a, wide, self.v, self.inputs, dxs, ZEROS);
                for (r, dx) in block.clone().zip(dxs.chunks_exact(pitch(self.inputs))) {
                    let to = self.dx.part((t * s.batch + r) * self.inputs, self.inputs);
                    to.copy_from_slice(&dx[..self.inputs]);
                }
            }
            rows += count;
            if rows == self.together() * count || i == 0 {
                self.sum_up(rows, gates, seen, sums);
                rows = 0;
            }
        }
        if self.op.states {
            for (k, r) in block.enumerate() {
                self.dh.part(r * n, n).copy_from_slice(&dhs[k * pitch(n)..][..n]);
                self.dc.part(r * n, n).copy_from_slice(&dcs[k * n..][..n]);
            }
        }
    }

    /// Adds gatesᵀ·seen of so many rows.
    fn sum_up(&self, rows: usize, gates: &[f32], seen: &[f32], sums: &mut Sums<'_>) {
        debug_assert!(gates.len() >= rows * self.apart() && seen.len() >= rows * self.width);
        for (band, to) in sums.of.chunks_mut(BAND * self.width).enumerate() {
            let panel = Panel {
                rows: to.len() / self.width,
                run: rows,
                runs: WHOLE,
                a: gates[band * BAND..].as_ptr(),
                a_row: 1,
                a_column: self.apart(),
                b: seen.as_ptr(),
                b_row: self.width,
                start: if sums.begun { to.as_ptr() } else { std::ptr::null() },
                start_row: self.width,
                out: to.as_mut_ptr(),
                out_row: self.width,
            };
            // SAFETY: so many rows of gates and of what was seen are there, in whole registers; the sums are held alone.
            unsafe { multiply_plain::<f32>(&panel, self.width) }
        }
        sums.begun = true;
    }
}
