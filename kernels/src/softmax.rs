//! Softmax and its logarithm along a dimension, and their gradients.
//!
//! With m the row's maximum and z = Σ e^(x−m): softmax is e^(x−m)/z, its logarithm x − m − ln z. Of the output y and its
//! gradient g: dx = y·(g − Σ g·y) for softmax, g − e^y·Σ g for the logarithm. CPU reference: the composites' definitions.
//! Sums are in `f32`, in an order that depends on the row's length alone.

use crate::reduce::Combine;
use crate::rows::{lane, row, together};
use crate::strided::{Place, locate};
use cubecl::prelude::*;

/// `out[row, i] = softmax(x[row])[i]`, or its logarithm.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn softmax_kernel<T: Numeric>(
    x: &Array<T>,
    out: &mut Array<T>,
    rows: Sequence<usize>,
    from: Place,
    step: isize,
    to: Place,
    out_step: isize,
    count: usize,
    width: usize,
    #[comptime] log: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let base = locate(r, &rows, &from);
        let target = locate(r, &rows, &to);
        let mut max = f32::cast_from(x[usize::cast_from(base)]);
        let mut i = first;
        while i < width {
            let v = f32::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]);
            max = select(v > max || !(v == v), v, max);
            i += lanes;
        }
        max = together(max, lanes, Combine::Max);
        let mut sum = f32::new(0.0);
        i = first;
        while i < width {
            sum += (f32::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]) - max).exp();
            i += lanes;
        }
        sum = together(sum, lanes, Combine::Sum);
        let shift = max + sum.ln();
        i = first;
        while i < width {
            let v = f32::cast_from(x[usize::cast_from(base + isize::cast_from(i) * step)]);
            let y = if comptime!(log) { v - shift } else { (v - max).exp() / sum };
            out[usize::cast_from(target + isize::cast_from(i) * out_step)] = T::cast_from(y);
            i += lanes;
        }
    }
}

/// `out[row, i]`: the gradient of softmax (or its logarithm), of the output's gradient `g` and the output `y`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn softmax_grad_kernel<T: Numeric>(
    g: &Array<T>,
    y: &Array<T>,
    out: &mut Array<T>,
    rows: Sequence<usize>,
    from_g: Place,
    step_g: isize,
    from_y: Place,
    step_y: isize,
    to: Place,
    out_step: isize,
    count: usize,
    width: usize,
    #[comptime] log: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let base_g = locate(r, &rows, &from_g);
        let base_y = locate(r, &rows, &from_y);
        let target = locate(r, &rows, &to);
        let mut sum = f32::new(0.0);
        let mut i = first;
        while i < width {
            let dy = f32::cast_from(g[usize::cast_from(base_g + isize::cast_from(i) * step_g)]);
            if comptime!(log) {
                sum += dy;
            } else {
                sum += dy * f32::cast_from(y[usize::cast_from(base_y + isize::cast_from(i) * step_y)]);
            }
            i += lanes;
        }
        sum = together(sum, lanes, Combine::Sum);
        i = first;
        while i < width {
            let dy = f32::cast_from(g[usize::cast_from(base_g + isize::cast_from(i) * step_g)]);
            let v = f32::cast_from(y[usize::cast_from(base_y + isize::cast_from(i) * step_y)]);
            let dx = if comptime!(log) { dy - v.exp() * sum } else { v * (dy - sum) };
            out[usize::cast_from(target + isize::cast_from(i) * out_step)] = T::cast_from(dx);
            i += lanes;
        }
    }
}
