//! Rotation of pairs of numbers by angles of their position, in one pass over rows that lie anywhere.

use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_chunks;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::rotary::Rotary;
use gradus_core::{DType, Layout, Result, View};

vectorized! {
    /// Pair i is numbers i and i + n.
    fn turn_halves(x: &[f32], cos: &[f32], sin: &[f32], sign: f32, y: &mut [f32]) {
        let n = cos.len();
        let ((a, b), (ya, yb)) = (x.split_at(n), y.split_at_mut(n));
        let (a, b, sin, ya, yb) = (&a[..n], &b[..n], &sin[..n], &mut ya[..n], &mut yb[..n]);
        for i in 0..n {
            let s = sin[i] * sign;
            ya[i] = a[i] * cos[i] - b[i] * s;
            yb[i] = b[i] * cos[i] + a[i] * s;
        }
    }
    /// Pair i is numbers 2·i and 2·i + 1.
    fn turn_pairs(x: &[f32], cos: &[f32], sin: &[f32], sign: f32, y: &mut [f32]) {
        for (((y, x), &c), &s) in y.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(cos).zip(sin) {
            let s = s * sign;
            (y[0], y[1]) = (x[0] * c - x[1] * s, x[1] * c + x[0] * s);
        }
    }
}

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Rotary>| run(*c.op, c.x));
}

/// Where row `r` of a view begins.
fn row_start(layout: &Layout, mut r: usize) -> usize {
    let (shape, strides) = (layout.shape(), layout.strides());
    let mut at = layout.offset() as isize;
    for d in (0..shape.rank() - 1).rev() {
        at += (r % shape[d]) as isize * strides[d];
        r /= shape[d];
    }
    at as usize
}

fn run(op: Rotary, x: &[View<'_>]) -> Result<Option<Fused>> {
    let [x, cos, sin] = x else { return Ok(None) };
    let rank = x.shape().rank();
    let (length, width, n) = (x.shape()[rank - 2], x.shape()[rank - 1], cos.shape()[1]);
    let tables = cos.layout.is_dense() && sin.layout.is_dense();
    if x.dtype != DType::F32 || x.elements() == 0 || n == 0 || x.layout.strides()[rank - 1] != 1 || !tables {
        return Ok(None);
    }
    let (rows, to) = (x.elements() / width, CpuStorage::new(x.elements() * 4)?);
    let reads = [storage(x.buffer)?, storage(cos.buffer)?, storage(sin.buffer)?];
    let (from, y, layout) = (In::<f32>::of(reads[0]), Out::<f32>::of(&to), *x.layout);
    let tables = [1, 2].map(|i| In::<f32>::of(reads[i]));
    let starts = [cos.layout.offset(), sin.layout.offset()];
    let (sign, per) = (if op.back { -1.0 } else { 1.0 }, (4096 / width).max(1));
    launch(&reads, &[&to], move || {
        for_chunks(rows.div_ceil(per), rows * width / 2, |chunk| {
            for r in chunk * per..rows.min((chunk + 1) * per) {
                let (x, y) = (&from.slice()[row_start(&layout, r)..][..width], y.part(r * width, width));
                let [cos, sin] = [0, 1].map(|i| &tables[i].slice()[starts[i] + r % length * n..][..n]);
                let turn = if op.interleaved { turn_pairs } else { turn_halves };
                turn(&x[..2 * n], cos, sin, sign, &mut y[..2 * n]);
                y[2 * n..].copy_from_slice(&x[2 * n..]);
            }
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}
