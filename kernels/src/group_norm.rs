//! Group normalization (Wu & He, 2018) of dense `[batch, channels, places]`, keeping its statistics, and its gradients.
//!
//! A group, some neighbouring channels of an element of the batch, is a row. Forward: y = (x − mean)·rstd·w + b with
//! rstd = 1/√(var + eps), the biased variance from centred elements, w and b by channel. Backward, with x̂ = (x − mean)·rstd and
//! d = g·w: dx = rstd·(d − mean(d) − x̂·mean(d·x̂)); dw = Σ g·x̂ and db = Σ g of each channel over batch and places.
//! After max(y + residual, 0), g is first set to zero where the result is not positive; what is left is the residual's gradient.
//!
//! Who works on a row, or on a channel's sums, and in which order they are added, shapes decide (see [`crate::rows`]). Sums are in
//! `f32`. CPU reference: the composites' definitions.

use crate::batch_norm::Around;
use crate::layer_norm::statistics;
use crate::reduce::Combine;
use crate::rows::{lane, row, together};
use cubecl::prelude::*;

/// Where a thread's element lies in parts of `places` each: channels of a group, or elements of the batch. It goes from element to element
/// without dividing, which takes longer than all else.
#[derive(CubeType)]
struct Walk {
    part: usize,
    place: usize,
}

#[cube]
impl Walk {
    /// At element `i`.
    fn begin(i: usize, places: usize) -> Walk {
        Walk { part: i / places, place: i % places }
    }

    /// On by `step`, where the thread's next element would be if it began at 0.
    fn advance(&mut self, step: &Walk, places: usize) {
        self.part += step.part;
        self.place += step.place;
        if self.place >= places {
            self.place -= places;
            self.part += 1;
        }
    }
}

/// The gradient of what the normalization gave, at element `at`: with a ReLU, 0 unless the result `y` is positive.
#[cube]
fn arriving<T: Numeric>(g: &Array<T>, y: &Array<T>, at: usize, #[comptime] relu: bool) -> f32 {
    let d = f32::cast_from(g[at]);
    if comptime!(relu) { select(f32::cast_from(y[at]) <= f32::new(0.0), f32::new(0.0), d) } else { d }
}

/// One group: the output, and its mean and rstd. Of `w`, `b` and `residual` is read what `around` says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn group_norm_kernel<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    residual: &Array<T>,
    out: &mut Array<T>,
    mean: &mut Array<f32>,
    rstd: &mut Array<f32>,
    eps: f32,
    count: usize,
    groups: usize,
    channels: usize,
    places: usize,
    #[comptime] around: Around,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let width = channels * places;
        let base = r * width;
        let (m, s) = statistics::<T>(x, base, width, eps, lanes);
        let from = r % groups * channels;
        let mut at = Walk::begin(first, places);
        let step = Walk::begin(lanes.runtime(), places);
        let mut i = first;
        while i < width {
            let mut y = (f32::cast_from(x[base + i]) - m) * s;
            if comptime!(around.affine) {
                y = y * f32::cast_from(w[from + at.part]) + f32::cast_from(b[from + at.part]);
                at.advance(&step, places);
            }
            if comptime!(around.residual) {
                y += f32::cast_from(residual[base + i]);
            }
            if comptime!(around.relu) {
                y = select(y <= f32::new(0.0), f32::new(0.0), y); // NaN stays NaN
            }
            out[base + i] = T::cast_from(y);
            i += lanes;
        }
        if first == 0 {
            mean[r] = m;
            rstd[r] = s;
        }
    }
}

/// One group of dx, and of the residual's gradient, if there is one. Of `w` and the output `y` is read what `around` says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn group_norm_dx_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    w: &Array<T>,
    y: &Array<T>,
    out: &mut Array<T>,
    of_residual: &mut Array<T>,
    count: usize,
    groups: usize,
    channels: usize,
    places: usize,
    #[comptime] around: Around,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let width = channels * places;
        let base = r * width;
        let m = mean[r];
        let s = rstd[r];
        let n = f32::cast_from(width);
        let from = r % groups * channels;
        let step = Walk::begin(lanes.runtime(), places);
        let mut at = Walk::begin(first, places);
        let mut sum = f32::new(0.0);
        let mut along = f32::new(0.0);
        let mut i = first;
        while i < width {
            let mut d = arriving::<T>(g, y, base + i, around.relu);
            if comptime!(around.affine) {
                d *= f32::cast_from(w[from + at.part]);
                at.advance(&step, places);
            }
            sum += d;
            along += d * ((f32::cast_from(x[base + i]) - m) * s);
            i += lanes;
        }
        let m1 = together(sum, lanes, Combine::Sum) / n;
        let m2 = together(along, lanes, Combine::Sum) / n;
        let mut again = Walk::begin(first, places);
        i = first;
        while i < width {
            let mut d = arriving::<T>(g, y, base + i, around.relu);
            if comptime!(around.residual) {
                of_residual[base + i] = T::cast_from(d);
            }
            if comptime!(around.affine) {
                d *= f32::cast_from(w[from + again.part]);
                again.advance(&step, places);
            }
            let hat = (f32::cast_from(x[base + i]) - m) * s;
            out[base + i] = T::cast_from((d - m1 - hat * m2) * s);
            i += lanes;
        }
    }
}

/// One channel of dw and db, whose elements are those of its places in each element of the batch: `count` in all.
/// The output `y` is read only if there was a ReLU.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn group_norm_dw_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    y: &Array<T>,
    dw: &mut Array<T>,
    db: &mut Array<T>,
    count: usize,
    groups: usize,
    channels: usize,
    places: usize,
    #[comptime] relu: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let c = row(lanes);
    let all = groups * channels;
    if c < all {
        let first = lane(lanes);
        let mut sum_w = f32::new(0.0);
        let mut sum_b = f32::new(0.0);
        let group = c / channels;
        let step = Walk::begin(lanes.runtime(), places);
        let mut at = Walk::begin(first, places);
        let mut i = first;
        while i < count {
            let element = (at.part * all + c) * places + at.place;
            let r = at.part * groups + group;
            let d = arriving::<T>(g, y, element, relu);
            sum_w += d * ((f32::cast_from(x[element]) - mean[r]) * rstd[r]);
            sum_b += d;
            at.advance(&step, places);
            i += lanes;
        }
        let of_w = together(sum_w, lanes, Combine::Sum);
        let of_b = together(sum_b, lanes, Combine::Sum);
        if first == 0 {
            dw[c] = T::cast_from(of_w);
            db[c] = T::cast_from(of_b);
        }
    }
}
