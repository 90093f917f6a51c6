//! An LSTM's steps forward, and the gradients of its gates.

use super::rows::{lstm_backward, lstm_forward};
use super::{Inputs, Sizes, ZEROS, pitch, product};
use crate::elementwise::{copy, finish};
use crate::launch::{In, Out, launch, storage};
use crate::matmul::matmul;
use crate::memory::CpuStorage;
use crate::panel::packed_len;
use crate::simd::prefetch;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::composite::Fused;
use gradus_core::{Buffer, Layout, Result, Shape};
use smallvec::smallvec;

/// So many numbers of packed weights stay in the second cache while a block goes through the steps.
const NEAR: usize = 1 << 17;

pub(super) fn forward(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
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

/// The gradients of the gates of all steps, and of the first h and c.
pub(super) fn gate_grad(s: Sizes, x: &[View<'_>]) -> Result<Fused> {
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
