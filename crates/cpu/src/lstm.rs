//! An LSTM's step from its gates, forward and backward, in one pass over a row. Backward works the activations out again: they
//! cost less than writing them down and reading them back.

use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::lstm::{LstmStep, LstmStepGrad};
use gradus_core::{DType, Result};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, LstmStep>| run(c.x, false));
    table.register(|c: FusedCall<'_, LstmStepGrad>| run(c.x, true));
}

vectorized! {
    /// h′ and c′ of one row.
    fn forward_row(x: [&[f32]; 3], h: &mut [f32], c_next: &mut [f32]) {
        let [gx, gh, c] = x;
        let n = c.len();
        let gate = |k: usize| (&gx[k * n..][..n], &gh[k * n..][..n]);
        let ((xi, hi), (xf, hf), (xg, hg), (xo, ho)) = (gate(0), gate(1), gate(2), gate(3));
        let (h, c_next) = (&mut h[..n], &mut c_next[..n]);
        for j in 0..n {
            let (i, f) = (Float::sigmoid::<FMA>(xi[j] + hi[j]), Float::sigmoid::<FMA>(xf[j] + hf[j]));
            c_next[j] = f * c[j] + i * Float::tanh::<FMA>(xg[j] + hg[j]);
        }
        for j in 0..n {
            h[j] = Float::sigmoid::<FMA>(xo[j] + ho[j]) * Float::tanh::<FMA>(c_next[j]);
        }
    }
    /// The gradients of one row's gates, and of c.
    fn backward_row(x: [&[f32]; 5], gates: &mut [f32], dc: &mut [f32]) {
        let [gx, gh, c, g_h, g_c] = x;
        let n = c.len();
        let gate = |k: usize| (&gx[k * n..][..n], &gh[k * n..][..n]);
        let ((xi, hi), (xf, hf), (xg, hg), (xo, ho)) = (gate(0), gate(1), gate(2), gate(3));
        let (di, rest) = gates.split_at_mut(n);
        let (df, rest) = rest.split_at_mut(n);
        let (dg, d_o) = rest.split_at_mut(n);
        let (d_o, dc, g_h, g_c) = (&mut d_o[..n], &mut dc[..n], &g_h[..n], &g_c[..n]);
        // Two loops: one would need more registers than there are.
        for j in 0..n {
            di[j] = Float::sigmoid::<FMA>(xi[j] + hi[j]);
            df[j] = Float::sigmoid::<FMA>(xf[j] + hf[j]);
            dg[j] = Float::tanh::<FMA>(xg[j] + hg[j]);
        }
        for j in 0..n {
            let (i, f, g, o) = (di[j], df[j], dg[j], Float::sigmoid::<FMA>(xo[j] + ho[j]));
            let t = Float::tanh::<FMA>(f * c[j] + i * g);
            let d = g_c[j] + g_h[j] * o * (1.0 - t * t);
            di[j] = d * g * (i - i * i);
            df[j] = d * c[j] * (f - f * f);
            dg[j] = d * i * (1.0 - g * g);
            d_o[j] = g_h[j] * t * (o - o * o);
            dc[j] = d * f;
        }
    }
}

/// Either pass: h′ and c′, or the gradients of the gates and c.
fn run(x: &[View<'_>], backward: bool) -> Result<Option<Fused>> {
    let c = x[2];
    if c.dtype != DType::F32 || x.iter().any(|v| !v.layout.is_dense()) || c.elements() == 0 {
        return Ok(None);
    }
    let n = c.shape()[c.shape().rank() - 1];
    let (rows, wide) = (c.elements() / n, if backward { 4 * n } else { n });
    let (first, second) = (CpuStorage::new(rows * wide * 4)?, CpuStorage::new(rows * n * 4)?);
    let (a, b) = (Out::<f32>::of(&first), Out::<f32>::of(&second));
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    let inputs: Vec<(In<f32>, usize)> = reads.iter().zip(x).map(|(s, v)| (In::of(s), v.layout.offset())).collect();
    let per = (1024 / n).max(1);
    launch(&reads, &[&first, &second], move || {
        for_chunks(rows.div_ceil(per), rows * n * if backward { 5 } else { 4 }, |chunk| {
            for r in chunk * per..rows.min((chunk + 1) * per) {
                let row = |i: usize, len: usize| &inputs[i].0.slice()[inputs[i].1 + r * len..][..len];
                let (gx, gh, c) = (row(0, 4 * n), row(1, 4 * n), row(2, n));
                match backward {
                    true => backward_row([gx, gh, c, row(3, n), row(4, n)], a.part(r * wide, wide), b.part(r * n, n)),
                    false => forward_row([gx, gh, c], a.part(r * n, n), b.part(r * n, n)),
                }
            }
        });
    });
    Ok(Some(Fused { outputs: smallvec![finish(first)?, finish(second)?], ..Fused::default() }))
}
