//! Batch normalization (Ioffe & Szegedy, 2015) of dense `[batch, channels, places]`, keeping its statistics, and its gradients.
//!
//! Forward, for each channel over batch and places: y = (x − mean)·rstd·w + b with rstd = 1/√(var + eps), the biased variance
//! from centred elements. Backward, with x̂ = (x − mean)·rstd: dx = w·rstd·(g − mean(g) − x̂·mean(g·x̂)), dw = Σ g·x̂, db = Σ g.
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

/// One channel: its output, mean and biased variance, and its mean and rstd in `f32`. `w` and `b` are read only if `affine`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn batch_norm_kernel<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    out: &mut Array<T>,
    mean: &mut Array<T>,
    var: &mut Array<T>,
    kept_mean: &mut Array<f32>,
    kept_rstd: &mut Array<f32>,
    eps: f32,
    channels: usize,
    places: usize,
    count: usize,
    #[comptime] affine: bool,
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
            if comptime!(affine) {
                y = y * f32::cast_from(w[c]) + f32::cast_from(b[c]);
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

/// One channel of dx, dw and db.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn batch_norm_grad_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    w: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    dx: &mut Array<T>,
    dw: &mut Array<T>,
    db: &mut Array<T>,
    channels: usize,
    places: usize,
    count: usize,
    #[define(T)] _type: StorageType,
) {
    if CUBE_POS < channels {
        let c = CUBE_POS;
        let me = UNIT_POS as usize;
        let m = mean[c];
        let s = rstd[c];
        let n = f32::cast_from(count);
        let mut sum = f32::new(0.0);
        let mut along = f32::new(0.0);
        let mut i = me;
        while i < count {
            let at = element(i, c, channels, places);
            let d = f32::cast_from(g[at]);
            sum += d;
            along += d * ((f32::cast_from(x[at]) - m) * s);
            i += LANES;
        }
        let total = together(sum, LANES, Combine::Sum);
        let total_along = together(along, LANES, Combine::Sum);
        let scale = f32::cast_from(w[c]) * s;
        i = me;
        while i < count {
            let at = element(i, c, channels, places);
            let hat = (f32::cast_from(x[at]) - m) * s;
            dx[at] = T::cast_from((f32::cast_from(g[at]) - total / n - hat * (total_along / n)) * scale);
            i += LANES;
        }
        if me == 0 {
            dw[c] = T::cast_from(total_along);
            db[c] = T::cast_from(total);
        }
    }
}
