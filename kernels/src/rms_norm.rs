//! Root-mean-square normalization (Zhang & Sennrich, 2019) of dense rows, keeping its statistic, and its gradients.
//!
//! Forward: y = x·r·w with r = 1/√(mean(x²) + eps). Backward, with x̂ = x·r and d = g·w: dx = r·(d − x̂·mean(d·x̂)); dw = Σ g·x̂ over
//! the rows, each column one thread's sum in blocks of 64 rows. With a residual, x is the sum of two, which is written as well; what
//! flows to the sum from elsewhere is added to dx. CPU reference: the composites' definitions.

use crate::layer_norm::add_row;
use crate::reduce::Combine;
use crate::rows::{lane, row, together};
use cubecl::prelude::*;

/// One row: the output, and its r. `w` is read only if `weighted`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn rms_norm_kernel<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    out: &mut Array<T>,
    rstd: &mut Array<f32>,
    x_offset: usize,
    w_offset: usize,
    eps: f32,
    count: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        normalize_row::<T>(x, w, out, rstd, r, x_offset + r * width, w_offset, eps, width, weighted, lanes);
    }
}

/// One row of x + residual: the sum, the output, and its r.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn add_rms_norm_kernel<T: Numeric>(
    x: &Array<T>,
    residual: &Array<T>,
    w: &Array<T>,
    out: &mut Array<T>,
    sum: &mut Array<T>,
    rstd: &mut Array<f32>,
    x_offset: usize,
    residual_offset: usize,
    w_offset: usize,
    eps: f32,
    count: usize,
    width: usize,
    #[comptime] weighted: bool,
    #[comptime] lanes: usize,
    #[define(T)] _type: StorageType,
) {
    let r = row(lanes);
    if r < count {
        let base = r * width;
        add_row::<T>(x, residual, sum, x_offset + base, residual_offset + base, base, width, lanes);
        normalize_row::<T>(sum, w, out, rstd, r, base, w_offset, eps, width, weighted, lanes);
    }
}

/// Row `i_row` of the output, from the elements of x from `base` on, and its r.
#[cube]
fn normalize_row<T: Numeric>(
    x: &Array<T>,
    w: &Array<T>,
    out: &mut Array<T>,
    rstd: &mut Array<f32>,
    i_row: usize,
    base: usize,
    w_offset: usize,
    eps: f32,
    width: usize,
    #[comptime] weighted: bool,
    #[comptime] lanes: usize,
) {
    let first = lane(lanes);
    let mut squares = f32::new(0.0);
    let mut i = first;
    while i < width {
        let v = f32::cast_from(x[base + i]);
        squares += v * v;
        i += lanes;
    }
    let mean = together(squares, lanes, Combine::Sum) / f32::cast_from(width);
    let r = f32::new(1.0) / (mean + eps).sqrt();
    i = first;
    while i < width {
        let mut y = f32::cast_from(x[base + i]) * r;
        if comptime!(weighted) {
            y *= f32::cast_from(w[w_offset + i]);
        }
        out[i_row * width + i] = T::cast_from(y);
        i += lanes;
    }
    if first == 0 {
        rstd[i_row] = r;
    }
}

/// One row of dx. What is in `more`, too, flows to x; it is read only if `is_joined`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn rms_norm_dx_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    w: &Array<T>,
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
    let i_row = row(lanes);
    if i_row < count {
        let first = lane(lanes);
        let r = rstd[i_row];
        let (from_g, from_x) = (g_offset + i_row * width, x_offset + i_row * width);
        let mut sum = f32::new(0.0);
        let mut i = first;
        while i < width {
            let d = f32::cast_from(g[from_g + i]) * f32::cast_from(w[w_offset + i]);
            sum += d * (f32::cast_from(x[from_x + i]) * r);
            i += lanes;
        }
        let along = together(sum, lanes, Combine::Sum) / f32::cast_from(width);
        i = first;
        while i < width {
            let d = f32::cast_from(g[from_g + i]) * f32::cast_from(w[w_offset + i]);
            let mut dx = (d - f32::cast_from(x[from_x + i]) * r * along) * r;
            if comptime!(is_joined) {
                dx += f32::cast_from(more[more_offset + i_row * width + i]);
            }
            out[i_row * width + i] = T::cast_from(dx);
            i += lanes;
        }
    }
}

/// One column of dw.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn rms_norm_dw_kernel<T: Numeric>(
    g: &Array<T>,
    x: &Array<T>,
    rstd: &Array<f32>,
    dw: &mut Array<T>,
    g_offset: usize,
    x_offset: usize,
    count: usize,
    width: usize,
    #[define(T)] _type: StorageType,
) {
    let c = ABSOLUTE_POS;
    if c < width {
        let mut sum = f32::new(0.0);
        let mut block = 0usize;
        while block < count {
            let end = min(block + 64, count);
            let mut part = f32::new(0.0);
            let mut r = block;
            while r < end {
                part += f32::cast_from(g[g_offset + r * width + c])
                    * (f32::cast_from(x[x_offset + r * width + c]) * rstd[r]);
                r += 1;
            }
            sum += part;
            block += 64;
        }
        dw[c] = T::cast_from(sum);
    }
}
