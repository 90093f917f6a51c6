//! Pooling over windows, and its gradients: each result is one thread's, in a fixed order, without atomics.
//!
//! | kernel | formula |
//! |---|---|
//! | maximum | y\[o\] = max_k x\[o·stride − before + k·dilation\], the first of equals, NaN first of all; padding is never chosen |
//! | its gradient | dx\[i\] = Σ g\[o\] over the windows o whose maximum was at i |
//! | mean | y\[o\] = Σ_k x\[…\] / places(o) |
//! | its gradient | dx\[i\] = Σ g\[o\] / places(o) over the windows o that see i |
//!
//! Images and channels are one dimension; all operands are dense. Sums are in `f32`. CPU reference: the composites'
//! definitions (`gradus_core::functional::pool`).

use crate::window::{Windows, coordinates, seen, seer, volume};
use cubecl::prelude::*;

/// One window: its maximum, the maximum's place in the window, and, if asked for, in the input.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn max_pool_kernel<T: Numeric, P: Numeric, I: Numeric>(
    x: &Array<T>,
    out: &mut Array<T>,
    places: &mut Array<P>,
    indices: &mut Array<I>,
    w: Windows,
    len: usize,
    #[comptime] with_indices: bool,
    #[define(T, P, I)] _types: [StorageType; 3],
) {
    if ABSOLUTE_POS < len {
        let windows = volume(&w.output);
        let base = ABSOLUTE_POS / windows * volume(&w.input);
        let o = coordinates(ABSOLUTE_POS % windows, &w.output);
        let mut best = f32::new(0.0);
        let mut best_place = 0usize.runtime();
        let mut best_at = 0usize.runtime();
        let mut found = false.runtime();
        let count = volume(&w.size);
        for k in 0..count {
            let spot = seen(&o, &coordinates(k, &w.size), &w);
            if spot.inside {
                let v = f32::cast_from(x[base + spot.at]);
                if !found || v > best || (!(v == v) && best == best) {
                    best = v;
                    best_place = k;
                    best_at = spot.at;
                    found = true;
                }
            }
        }
        out[ABSOLUTE_POS] = T::cast_from(best);
        places[ABSOLUTE_POS] = P::cast_from(best_place);
        if comptime!(with_indices) {
            indices[ABSOLUTE_POS] = I::cast_from(best_at);
        }
    }
}

/// One place of the input: the sum of the gradients of the windows whose maximum it was.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn max_pool_grad_kernel<T: Numeric, P: Numeric>(
    g: &Array<T>,
    places: &Array<P>,
    out: &mut Array<T>,
    w: Windows,
    len: usize,
    #[define(T, P)] _types: [StorageType; 2],
) {
    if ABSOLUTE_POS < len {
        let inputs = volume(&w.input);
        let base = ABSOLUTE_POS / inputs * volume(&w.output);
        let i = coordinates(ABSOLUTE_POS % inputs, &w.input);
        let mut sum = f32::new(0.0);
        let count = volume(&w.size);
        for k in 0..count {
            let spot = seer(&i, &coordinates(k, &w.size), &w);
            if spot.inside {
                let at = base + spot.at;
                if usize::cast_from(places[at]) == k {
                    sum += f32::cast_from(g[at]);
                }
            }
        }
        out[ABSOLUTE_POS] = T::cast_from(sum);
    }
}

/// One over the places that count in window `o`, given by its coordinates.
#[cube]
fn share(o: &Sequence<usize>, w: &Windows, after: &Sequence<usize>, #[comptime] count_padding: bool) -> f32 {
    let rank = comptime!(w.input.len());
    let mut places = 1usize.runtime();
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        let mut start = o[i] * w.stride[d];
        let mut end = min(start + w.size[d], w.before[d] + w.input[d] + after[d]);
        if comptime!(!count_padding) {
            start = max(start, w.before[d]);
            end = min(end, w.before[d] + w.input[d]);
        }
        places *= select(end > start, end - start, 1usize);
    }
    f32::new(1.0) / f32::cast_from(places)
}

/// One window's mean. `after` is the padding at the end, which counts as places if `count_padding`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn avg_pool_kernel<T: Numeric>(
    x: &Array<T>,
    out: &mut Array<T>,
    w: Windows,
    after: Sequence<usize>,
    len: usize,
    #[comptime] count_padding: bool,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let windows = volume(&w.output);
        let base = ABSOLUTE_POS / windows * volume(&w.input);
        let o = coordinates(ABSOLUTE_POS % windows, &w.output);
        let mut sum = f32::new(0.0);
        let count = volume(&w.size);
        for k in 0..count {
            let spot = seen(&o, &coordinates(k, &w.size), &w);
            if spot.inside {
                sum += f32::cast_from(x[base + spot.at]);
            }
        }
        out[ABSOLUTE_POS] = T::cast_from(sum * share(&o, &w, &after, count_padding));
    }
}

/// One place of the input: its shares of the gradients of the windows that see it.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn avg_pool_grad_kernel<T: Numeric>(
    g: &Array<T>,
    out: &mut Array<T>,
    w: Windows,
    after: Sequence<usize>,
    len: usize,
    #[comptime] count_padding: bool,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let inputs = volume(&w.input);
        let base = ABSOLUTE_POS / inputs * volume(&w.output);
        let i = coordinates(ABSOLUTE_POS % inputs, &w.input);
        let mut sum = f32::new(0.0);
        let count = volume(&w.size);
        for k in 0..count {
            let spot = seer(&i, &coordinates(k, &w.size), &w);
            if spot.inside {
                let o = coordinates(spot.at, &w.output);
                sum += f32::cast_from(g[base + spot.at]) * share(&o, &w, &after, count_padding);
            }
        }
        out[ABSOLUTE_POS] = T::cast_from(sum);
    }
}
