//! Batch normalization (Ioffe & Szegedy, 2015) of dense `[batch, channels, places]`, keeping its statistics, and its gradients;
//! perhaps with a residual added, and negative results set to zero.
//!
//! Forward, for each channel over batch and places: y = (x − mean)·rstd·w + b with rstd = 1/√(var + eps), the biased variance
//! from centred elements. Backward, with x̂ = (x − mean)·rstd: dx = w·rstd·(g − mean(g) − x̂·mean(g·x̂)), dw = Σ g·x̂, db = Σ g.
//! After max(y + residual, 0), g is first set to zero where the result is not positive; what is left is the residual's gradient.
//! Without a residual, whether a result is positive is worked out again from x.
//!
//! A cube has a channel; its 256 threads take elements `t, t + 256, …` and meet in a tree, so the order of a sum depends on
//! shapes alone. Sums are in `f32`. CPU reference: the composites' definitions.

use crate::reduce::Combine;
use crate::rows::{LANES, together};
use cubecl::prelude::*;

/// Where element `i` of channel `c` lies.
#[cube]
fn element(i: usize, c: usize, channels: usize, places: usize) -> usize {
    (i / places * channels + c) * places + i % places
}

/// What stands around the normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Around {
    /// Whether there are a weight and a bias.
    pub affine: bool,
    /// Whether negative results are set to zero.
    pub relu: bool,
    /// Whether something is added before that.
    pub residual: bool,
}

/// One channel: its output, mean and biased variance, and its mean and rstd in `f32`. Of `w`, `b` and `residual` is read what
/// `around` says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn batch_norm_kernel<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    residual: &Array<T>,
    out: &mut Array<T>,
    mean: &mut Array<T>,
    var: &mut Array<T>,
    kept_mean: &mut Array<f32>,
    kept_rstd: &mut Array<f32>,
    eps: f32,
    channels: usize,
    places: usize,
    count: usize,
    #[comptime] around: Around,
    #[define(T)] _type: StorageType,
) {
    if CUBE_POS < channels {
        let c = CUBE_POS;
        let me = UNIT_POS as usize;
        let n = f32::cast_from(count);
        let mut sum = f32::new(0.0);
        let mut i = me;
        while i < count {
            sum += f32::cast_from(x[element(i, c, channels, places)]);
            i += LANES;
        }
        let m = together(sum, LANES, Combine::Sum) / n;
        let mut squares = f32::new(0.0);
        i = me;
        while i < count {
            let d = f32::cast_from(x[element(i, c, channels, places)]) - m;
            squares += d * d;
            i += LANES;
        }
        let v = together(squares, LANES, Combine::Sum) / n;
        let rstd = f32::new(1.0) / (v + eps).sqrt();
        i = me;
        while i < count {
            let at = element(i, c, channels, places);
            let mut y = (f32::cast_from(x[at]) - m) * rstd;
            if comptime!(around.affine) {
                y = y * f32::cast_from(w[c]) + f32::cast_from(b[c]);
            }
            if comptime!(around.residual) {
                y += f32::cast_from(residual[at]);
            }
            if comptime!(around.relu) {
                y = select(y <= f32::new(0.0), f32::new(0.0), y); // NaN stays NaN
            }
            out[at] = T::cast_from(y);
            i += LANES;
        }
        if me == 0 {
            mean[c] = T::cast_from(m);
            var[c] = T::cast_from(v);
            kept_mean[c] = m;
            kept_rstd[c] = rstd;
        }
    }
}

/// The gradient of what the normalization gave, at element `at`: where `around.relu`, 0 unless the result is positive.
#[cube]
fn arriving<T: Numeric>(
    g: &Array<T>,
    y: &Array<T>,
    at: usize,
    hat: f32,
    w: f32,
    b: f32,
    #[comptime] around: Around,
) -> f32 {
    let mut d = f32::cast_from(g[at]);
    if comptime!(around.relu) {
        let result = if comptime!(around.residual) { f32::cast_from(y[at]) } else { hat * w + b };
        d = select(result > f32::new(0.0), d, f32::new(0.0));
    }
    d
}

/// One channel of dx, dw and db, and of the residual's gradient, if there is one. `b` and the output `y` are read, and the last
/// is written, only if `around` says so.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn batch_norm_grad_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    y: &Array<T>,
    dx: &mut Array<T>,
    dw: &mut Array<T>,
    db: &mut Array<T>,
    of_residual: &mut Array<T>,
    channels: usize,
    places: usize,
    count: usize,
    #[comptime] around: Around,
    #[define(T)] _type: StorageType,
) {
    if CUBE_POS < channels {
        let c = CUBE_POS;
        let me = UNIT_POS as usize;
        let m = mean[c];
        let s = rstd[c];
        let weight = f32::cast_from(w[c]);
        let mut bias = f32::new(0.0);
        if comptime!(around.relu && !around.residual) {
            bias = f32::cast_from(b[c]);
        }
        let n = f32::cast_from(count);
        let mut sum = f32::new(0.0);
        let mut along = f32::new(0.0);
        let mut i = me;
        while i < count {
            let at = element(i, c, channels, places);
            let hat = (f32::cast_from(x[at]) - m) * s;
            let d = arriving::<T>(g, y, at, hat, weight, bias, around);
            sum += d;
            along += d * hat;
            i += LANES;
        }
        let total = together(sum, LANES, Combine::Sum);
        let total_along = together(along, LANES, Combine::Sum);
        let scale = weight * s;
        i = me;
        while i < count {
            let at = element(i, c, channels, places);
            let hat = (f32::cast_from(x[at]) - m) * s;
            let d = arriving::<T>(g, y, at, hat, weight, bias, around);
            dx[at] = T::cast_from((d - total / n - hat * (total_along / n)) * scale);
            if comptime!(around.residual) {
                of_residual[at] = T::cast_from(d);
            }
            i += LANES;
        }
        if me == 0 {
            dw[c] = T::cast_from(total_along);
            db[c] = T::cast_from(total);
        }
    }
}
