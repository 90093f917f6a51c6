//! The gradients of an LSTM's weights: one product over all steps, which reads the gates' gradient once.
//!
//! The state before a step, its inputs and a 1 (for the bias) are laid side by side, a row for each sequence and step.

use super::{Inputs, Rows};
use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::matmul::matmul;
use crate::memory::CpuStorage;
use crate::threads::for_chunks;
use crate::vector::lanes;
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::composite::Fused;
use gradus_core::{DType, Layout, Result, Shape};
use smallvec::smallvec;

/// Longer rows are better packed: by definition.
const LONGEST: usize = 512;

/// The gradients of V, b and W from those of the gates, x, all h and the first.
pub(super) fn lstm(x: &[View<'_>], reverse: bool) -> Result<Option<Fused>> {
    let (gates, inputs, n) = (x[0].shape(), x[1].shape()[2], x[3].shape()[1]);
    let (steps, batch, wide) = (gates[0], gates[1], gates[2]);
    let width = (n + inputs + 1).next_multiple_of(lanes::<f32>());
    let flat = x[0].layout.reshape(&Shape::try_new(&[steps * batch, wide])?);
    let Some(flat) = flat.filter(|_| x[0].dtype == DType::F32 && steps * batch * wide > 0 && width <= LONGEST) else {
        return Ok(None);
    };
    let made = |numbers: usize| CpuStorage::new(numbers * size_of::<f32>());
    let beside = made(steps * batch * width)?;
    let copies = Inputs::of(&x[1..])?;
    let (rows, seen) = (copies.rows(&x[1..])?, Out::<f32>::of(&beside));
    launch(&copies.reads(&x[1..])?, &[&beside], move || {
        let [x, y, h] = &rows[..] else { return };
        for_chunks(steps, steps * batch * width / 8, |t| {
            for (r, row) in seen.part(t * batch * width, batch * width).chunks_exact_mut(width).enumerate() {
                lay_out(row, before(y, h, t, steps, reverse, r), x.row(t, r));
            }
        });
    });
    let seen = finish(beside)?;

    let turned = flat.permute(&[1, 0]);
    let side_by_side = Layout::dense(Shape::try_new(&[steps * batch, width])?);
    let gates = View { layout: &turned, ..x[0] };
    let sums = matmul(gates, View { buffer: &seen, layout: &side_by_side, dtype: DType::F32 }, &MatmulSpec::default())?;

    let (tv, tb, tw) = (made(wide * inputs)?, made(wide)?, made(wide * n)?);
    let [dv, db, dw] = [&tv, &tb, &tw].map(|s| Out::<f32>::of(s));
    let all = In::<f32>::of(storage(&sums)?);
    launch(&[storage(&sums)?], &[&tv, &tb, &tw], move || {
        const ROWS: usize = 64;
        for_chunks(wide.div_ceil(ROWS), wide * width / 8, |i| {
            for (o, sums) in all.slice().chunks_exact(width).enumerate().take(wide).skip(i * ROWS).take(ROWS) {
                take_apart(sums, o, [&dv, &db, &dw], [inputs, n]);
            }
        });
    });
    Ok(Some(Fused { outputs: smallvec![finish(tv)?, finish(tb)?, finish(tw)?], ..Fused::default() }))
}

/// h of sequence `r` before step `t`.
fn before<'a>(y: &'a Rows, h: &'a Rows, t: usize, steps: usize, reverse: bool, r: usize) -> &'a [f32] {
    match (reverse, t) {
        (false, 0) => h.row(0, r),
        (false, _) => y.row(t - 1, r),
        (true, _) if t + 1 == steps => h.row(0, r),
        (true, _) => y.row(t + 1, r),
    }
}

/// h, x, 1, and zeros.
pub(super) fn lay_out(row: &mut [f32], h: &[f32], x: &[f32]) {
    let (to_h, rest) = row.split_at_mut(h.len());
    let (to_x, rest) = rest.split_at_mut(x.len());
    to_h.copy_from_slice(h);
    to_x.copy_from_slice(x);
    rest.fill(0.0);
    rest[0] = 1.0;
}

/// Row `o` of the gradients of V, b and W from sums over h, x and 1.
pub(super) fn take_apart(sums: &[f32], o: usize, [dv, db, dw]: [&Out<f32>; 3], [inputs, n]: [usize; 2]) {
    dw.part(o * n, n).copy_from_slice(&sums[..n]);
    dv.part(o * inputs, inputs).copy_from_slice(&sums[n..n + inputs]);
    db.part(o, 1)[0] = sums[n + inputs];
}
