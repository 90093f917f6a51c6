//! Layer normalization (Ba, Kiros & Hinton, 2016) of dense rows, keeping its statistics, and its gradients.
//!
//! Forward: y = (x − mean)·rstd·w + b with rstd = 1/√(var + eps), the biased variance from centred elements. Backward, with
//! x̂ = (x − mean)·rstd and d = g·w: dx = rstd·(d − mean(d) − x̂·mean(d·x̂)); dw = Σ g·x̂ and db = Σ g over the rows, each
//! column one thread's sum in blocks of 64 rows. With a residual, x is the sum of two, which is written as well; what flows to the
//! sum from elsewhere is added to dx. CPU reference: the composites' definitions.

use crate::reduce::Combine;
use crate::rows::{lane, row, together};
use cubecl::prelude::*;

/// The mean and rstd of the row of `width` elements from `base` on, for each of its threads.
#[cube]
pub fn statistics<T: Numeric>(
    x: &Array<T>,
    base: usize,
    width: usize,
    eps: f32,
    #[comptime] lanes: usize,
) -> (f32, f32) {
    let first = lane(lanes);
    let n = f32::cast_from(width);
    let mut sum = f32::new(0.0);
    let mut i = first;
    while i < width {
        sum += f32::cast_from(x[base + i]);
        i += lanes;
    }
    let m = together(sum, lanes, Combine::Sum) / n;
    let mut squares = f32::new(0.0);
    i = first;
    while i < width {
        let d = f32::cast_from(x[base + i]) - m;
        squares += d * d;
        i += lanes;
    }
    let s = f32::new(1.0) / (together(squares, lanes, Combine::Sum) / n + eps).sqrt();
    (m, s)
}

/// Writes a row's x + residual. Each thread writes the elements that it reads afterwards, so that none waits for another.
#[cube]
pub fn add_row<T: Numeric>(
    x: &Array<T>,
    residual: &Array<T>,
    sum: &mut Array<T>,
    x_base: usize,
    residual_base: usize,
    base: usize,
    width: usize,
    #[comptime] lanes: usize,
) {
    let mut i = lane(lanes);
    while i < width {
        sum[base + i] = T::cast_from(f32::cast_from(x[x_base + i]) + f32::cast_from(residual[residual_base + i]));
        i += lanes;
    }
}

/// One row: the output, and its mean and rstd. `w` and `b` are read only if there are `parameters` of them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn layer_norm_kernel<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    out: &mut Array<T>,
    mean: &mut Array<f32>,
    rstd: &mut Array<f32>,
    x_offset: usize,
    w_offset: usize,
    b_offset: usize,
    eps: f32,
    count: usize,
    width: usize,
    #[comptime] parameters: u32,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let base = x_offset + r * width;
        normalize_row::<T>(x, w, b, out, mean, rstd, r, base, w_offset, b_offset, eps, width, parameters, lanes);
    }
}

/// One row of x + residual: the sum, the output, and its mean and rstd.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn add_layer_norm_kernel<T: Numeric>(
    x: &Array<T>,
    residual: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    out: &mut Array<T>,
    sum: &mut Array<T>,
    mean: &mut Array<f32>,
    rstd: &mut Array<f32>,
    x_offset: usize,
    residual_offset: usize,
    w_offset: usize,
    b_offset: usize,
    eps: f32,
    count: usize,
    width: usize,
    #[comptime] parameters: u32,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let base = r * width;
        add_row::<T>(x, residual, sum, x_offset + base, residual_offset + base, base, width, lanes);
        normalize_row::<T>(sum, w, b, out, mean, rstd, r, base, w_offset, b_offset, eps, width, parameters, lanes);
    }
}

/// Row `r` of the output, from the elements of x from `base` on, and its mean and rstd.
#[cube]
fn normalize_row<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    b: &Array<T>,
    out: &mut Array<T>,
    mean: &mut Array<f32>,
    rstd: &mut Array<f32>,
    r: usize,
    base: usize,
    w_offset: usize,
    b_offset: usize,
    eps: f32,
    width: usize,
    #[comptime] parameters: u32,
    #[comptime] lanes: usize,
) {
    let first = lane(lanes);
    let (m, s) = statistics::<T>(x, base, width, eps, lanes);
    let mut i = first;
    while i < width {
        let mut y = (f32::cast_from(x[base + i]) - m) * s;
        if comptime!(parameters > 0) {
            y *= f32::cast_from(w[w_offset + i]);
        }
        if comptime!(parameters > 1) {
            y += f32::cast_from(b[b_offset + i]);
        }
        out[r * width + i] = T::cast_from(y);
        i += lanes;
    }
    if first == 0 {
        mean[r] = m;
        rstd[r] = s;
    }
}

/// One row of dx. What is in `more`, too, flows to x; it is read only if `is_joined`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn layer_norm_dx_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    w: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    more: &Array<T>,
    out: &mut Array<T>,
    g_offset: usize,
    x_offset: usize,
    w_offset: usize,
    more_offset: usize,
    count: usize,
    width: usize,
    #[comptime] is_joined: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let first = lane(lanes);
        let m = mean[r];
        let s = rstd[r];
        let n = f32::cast_from(width);
        let mut sum = f32::new(0.0);
        let mut along = f32::new(0.0);
        let mut i = first;
        while i < width {
            let d = f32::cast_from(g[g_offset + r * width + i]) * f32::cast_from(w[w_offset + i]);
            sum += d;
            along += d * ((f32::cast_from(x[x_offset + r * width + i]) - m) * s);
            i += lanes;
        }
        let m1 = together(sum, lanes, Combine::Sum) / n;
        let m2 = together(along, lanes, Combine::Sum) / n;
        i = first;
        while i < width {
            let d = f32::cast_from(g[g_offset + r * width + i]) * f32::cast_from(w[w_offset + i]);
            let hat = (f32::cast_from(x[x_offset + r * width + i]) - m) * s;
            let mut dx = (d - m1 - hat * m2) * s;
            if comptime!(is_joined) {
                dx += f32::cast_from(more[more_offset + r * width + i]);
            }
            out[r * width + i] = T::cast_from(dx);
            i += lanes;
        }
    }
}

/// One column of dw and db.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn layer_norm_dw_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    mean: &Array<f32>,
    rstd: &Array<f32>,
    dw: &mut Array<T>,
    db: &mut Array<T>,
    g_offset: usize,
    x_offset: usize,
    count: usize,
    width: usize,
    #[define(T)] _type: StorageType,
) {
    let c = ABSOLUTE_POS;
    if c < width {
        let mut sum_w = f32::new(0.0);
        let mut sum_b = f32::new(0.0);
        let mut block = 0usize;
        while block < count {
            let end = min(block + 64, count);
            let mut part_w = f32::new(0.0);
            let mut part_b = f32::new(0.0);
            let mut r = block;
            while r < end {
                let d = f32::cast_from(g[g_offset + r * width + c]);
                part_w += d * ((f32::cast_from(x[x_offset + r * width + c]) - mean[r]) * rstd[r]);
                part_b += d;
                r += 1;
            }
            sum_w += part_w;
            sum_b += part_b;
            block += 64;
        }
        dw[c] = T::cast_from(sum_w);
        db[c] = T::cast_from(sum_b);
    }
}
