//! One step of an LSTM's state from its gates, and its gradient (Hochreiter & Schmidhuber, 1997; Gers et al., 2000).
//!
//! With i, f, g, o = x_gates + h_gates: c′ = σ(f)·c + σ(i)·tanh(g), h′ = σ(o)·tanh(c′). Backward works the activations out again;
//! with t = tanh(c′): dc′ = gc + gh·o·(1 − t²), then di = dc′·g·i·(1 − i), df = dc′·c·f·(1 − f), dg = dc′·i·(1 − g²),
//! do = gh·t·o·(1 − o), dc = dc′·f. A thread has one number of the state. CPU reference: the composites' definitions.

use crate::elementary as e;
use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use cubecl::prelude::*;

/// The activations i, f, g, o and tanh(c′), and c′, of one number of the state.
#[derive(CubeType)]
struct Cell {
    i: f32,
    f: f32,
    g: f32,
    o: f32,
    next: f32,
    t: f32,
}

/// A gate's argument: gate `k`'s number `j` of row `r`.
#[cube]
fn gate<T: Numeric>(
    x: &Array<T>,
    h: &Array<T>,
    rows: &Sequence<usize>,
    at_x: &Place,
    at_h: &Place,
    step_x: isize,
    step_h: isize,
    r: usize,
    j: usize,
) -> f32 {
    let x_at = locate(r, rows, at_x) + isize::cast_from(j) * step_x;
    let h_at = locate(r, rows, at_h) + isize::cast_from(j) * step_h;
    f32::cast_from(x[usize::cast_from(x_at)]) + f32::cast_from(h[usize::cast_from(h_at)])
}

#[cube]
fn cell(i: f32, f: f32, g: f32, o: f32, c: f32) -> Cell {
    let (i, f) = (float_unary::<f32>(i, FloatUnary::Sigmoid), float_unary::<f32>(f, FloatUnary::Sigmoid));
    let (g, o) = (e::tanh::<f32>(g), float_unary::<f32>(o, FloatUnary::Sigmoid));
    let next = f * c + i * g;
    Cell { i, f, g, o, next, t: e::tanh::<f32>(next) }
}

/// h′ and c′ `[rows, n]` of gates `[rows, 4·n]` and c.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn lstm_step_kernel<T: Numeric>(
    x: &Array<T>,
    h: &Array<T>,
    c: &Array<T>,
    h_next: &mut Array<T>,
    c_next: &mut Array<T>,
    rows: Sequence<usize>,
    at_x: Place,
    at_h: Place,
    at_c: Place,
    step_x: isize,
    step_h: isize,
    step_c: isize,
    n: usize,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let r = ABSOLUTE_POS / n;
        let j = ABSOLUTE_POS % n;
        let i = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, j);
        let f = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, n + j);
        let g = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, 2 * n + j);
        let o = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, 3 * n + j);
        let before = f32::cast_from(c[usize::cast_from(locate(r, &rows, &at_c) + isize::cast_from(j) * step_c)]);
        let a = cell(i, f, g, o, before);
        h_next[ABSOLUTE_POS] = T::cast_from(a.o * a.t);
        c_next[ABSOLUTE_POS] = T::cast_from(a.next);
    }
}

/// The gradients of the gates `[rows, 4·n]` and of c `[rows, n]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn lstm_step_grad_kernel<T: Numeric>(
    x: &Array<T>,
    h: &Array<T>,
    c: &Array<T>,
    gh: &Array<T>,
    gc: &Array<T>,
    gates: &mut Array<T>,
    dc: &mut Array<T>,
    rows: Sequence<usize>,
    at_x: Place,
    at_h: Place,
    at_c: Place,
    at_gh: Place,
    at_gc: Place,
    step_x: isize,
    step_h: isize,
    step_c: isize,
    step_gh: isize,
    step_gc: isize,
    n: usize,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let one = f32::new(1.0);
        let r = ABSOLUTE_POS / n;
        let j = ABSOLUTE_POS % n;
        let i = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, j);
        let f = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, n + j);
        let g = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, 2 * n + j);
        let o = gate::<T>(x, h, &rows, &at_x, &at_h, step_x, step_h, r, 3 * n + j);
        let before = f32::cast_from(c[usize::cast_from(locate(r, &rows, &at_c) + isize::cast_from(j) * step_c)]);
        let of_h = f32::cast_from(gh[usize::cast_from(locate(r, &rows, &at_gh) + isize::cast_from(j) * step_gh)]);
        let of_c = f32::cast_from(gc[usize::cast_from(locate(r, &rows, &at_gc) + isize::cast_from(j) * step_gc)]);
        let a = cell(i, f, g, o, before);
        let d = of_c + of_h * a.o * (one - a.t * a.t);
        let base = r * 4 * n + j;
        gates[base] = T::cast_from(d * a.g * a.i * (one - a.i));
        gates[base + n] = T::cast_from(d * before * a.f * (one - a.f));
        gates[base + 2 * n] = T::cast_from(d * a.i * (one - a.g * a.g));
        gates[base + 3 * n] = T::cast_from(of_h * a.t * a.o * (one - a.o));
        dc[ABSOLUTE_POS] = T::cast_from(d * a.f);
    }
}
