//! A GRU's steps forward and backward.

use super::rows::{gru_backward, gru_forward};
use super::{Inputs, Sizes, ZEROS, pitch, product};
use crate::elementwise::finish;
use crate::launch::{Out, launch};
use crate::memory::CpuStorage;
use crate::panel::packed_len;
use gradus_core::Result;
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use smallvec::smallvec;

pub(super) fn forward(s: Sizes, x: &[View<'_>], records: bool) -> Result<Fused> {
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

pub(super) fn backward(s: Sizes, x: &[View<'_>]) -> Result<Fused> {
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
