//! Softmax cross-entropy with class indices, and its gradient.
//!
//! Forward: loss = ln Σ e^x − x_target, and 0 where the target is the ignored one; ln Σ e^x is kept. Backward:
//! dx = (e^(x − lse) − (1 if i = target))·g, over the number of rows that count for the mean, and 0 in ignored rows. A
//! target that is no class is noted (see [`crate::fault`]). CPU reference: the composites' definitions.

use crate::fault::note;
use crate::reduce::Combine;
use crate::rows::{lane, row, together};
use crate::strided::Place;
use cubecl::prelude::*;

/// One row: its loss, its ln Σ e^x, and whether it counts (1, or 0 if its target is the ignored one).
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn cross_entropy_kernel<T: Numeric, I: Numeric>(
    x: &Array<T>,
    targets: &Array<I>,
    losses: &mut Array<f32>,
    lse: &mut Array<f32>,
    counted: &mut Array<f32>,
    fault: &mut Array<u32>,
    at_x: Place,
    at_target: Place,
    ignore: InputScalar,
    count: usize,
    classes: usize,
    site: u32,
    #[comptime] lanes: usize,
    #[define(T, I)] _types: [StorageType; 2],
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let base = at_x.offset + isize::cast_from(r) * at_x.strides[0];
        let step = at_x.strides[1];
        let mut max = f32::cast_from(x[usize::cast_from(base)]);
        let mut i = first;
        while i < classes {
            let v = f32::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]);
            max = select(v > max || !(v == v), v, max);
            i += lanes;
        }
        max = together(max, lanes, Combine::Max);
        let mut sum = f32::new(0.0);
        i = first;
        while i < classes {
            sum += (f32::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]) - max).exp();
            i += lanes;
        }
        let total = max + together(sum, lanes, Combine::Sum).ln();
        if first == 0 {
            lse[r] = total;
            let t = targets[usize::cast_from(at_target.offset + isize::cast_from(r) * at_target.strides[0])];
            let ignored = t == ignore.get::<I>();
            let inside = t >= I::from_int(0) && usize::cast_from(t) < classes;
            if !ignored && !inside {
                note::<I>(t, fault, site);
            }
            let safe = select(inside, usize::cast_from(t), 0usize);
            let picked = f32::cast_from(x[usize::cast_from(base + isize::cast_from(safe) * step)]);
            losses[r] = select(ignored, f32::new(0.0), total - picked);
            counted[r] = select(ignored, f32::new(0.0), f32::new(1.0));
        }
    }
}

/// One element of the gradient; g is one number for all rows unless its step says otherwise, and over `divisor` for the `mean`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn cross_entropy_grad_kernel<T: Numeric, I: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    targets: &Array<I>,
    lse: &Array<f32>,
    divisor: &Array<f32>,
    out: &mut Array<T>,
    at_g: Place,
    at_x: Place,
    at_target: Place,
    ignore: InputScalar,
    classes: usize,
    len: usize,
    #[comptime] mean: bool,
    #[define(T, I)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let r = ABSOLUTE_POS / classes;
        let c = ABSOLUTE_POS % classes;
        let t = targets[usize::cast_from(at_target.offset + isize::cast_from(r) * at_target.strides[0])];
        let at = at_x.offset + isize::cast_from(r) * at_x.strides[0] + isize::cast_from(c) * at_x.strides[1];
        let p = (f32::cast_from(x[usize::cast_from(at)]) - lse[r]).exp();
        let hot = select(t >= I::from_int(0) && usize::cast_from(t) == c, f32::new(1.0), f32::new(0.0));
        let mut dy = f32::cast_from(g[usize::cast_from(at_g.offset + isize::cast_from(r) * at_g.strides[0])]);
        if comptime!(mean) {
            dy /= divisor[0];
        }
        out[ABSOLUTE_POS] = T::cast_from(select(t == ignore.get::<I>(), f32::new(0.0), (p - hot) * dy));
    }
}
