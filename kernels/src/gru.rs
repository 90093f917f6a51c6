//! One step of a GRU's state from its gates, and its gradient (Cho et al., 2014; r stands before the state's part of n, as in cuDNN).
//!
//! With three parts each of x = x_gates and s = h_gates: r, z = σ(x + s), n = tanh(xₙ + r·sₙ), h′ = n + z·(h − n). Backward works the
//! activations out again: dn = g·(1 − z)·(1 − n²), dz = g·(h − n)·z·(1 − z), dr = dn·sₙ·r·(1 − r); x_gates get (dr, dz, dn), h_gates
//! (dr, dz, dn·r), h gets g·z. A thread has one number of the state. CPU reference: the composites' definitions.

use crate::elementary as e;
use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use cubecl::prelude::*;

/// A row of numbers that lies anywhere: how rows lie, and the step from a number to the next.
#[derive(CubeType, CubeLaunch)]
pub struct Lines {
    /// Where each row begins.
    pub rows: Place,
    /// The step from a number of a row to the next.
    pub step: isize,
}

/// r, z and n, and the state's part of n.
#[derive(CubeType)]
struct Cell {
    r: f32,
    z: f32,
    n: f32,
    s: f32,
}

/// Number `j` of row `r`.
#[cube]
fn number<T: Numeric>(x: &Array<T>, rows: &Sequence<usize>, at: &Lines, r: usize, j: usize) -> f32 {
    f32::cast_from(x[usize::cast_from(locate(r, rows, &at.rows) + isize::cast_from(j) * at.step)])
}

/// The activations of number `j` of row `r` of a state of `n`.
#[cube]
fn cell<T: Numeric>(
    x: &Array<T>,
    s: &Array<T>,
    rows: &Sequence<usize>,
    at_x: &Lines,
    at_s: &Lines,
    r: usize,
    j: usize,
    n: usize,
) -> Cell {
    let reset = number::<T>(x, rows, at_x, r, j) + number::<T>(s, rows, at_s, r, j);
    let update = number::<T>(x, rows, at_x, r, n + j) + number::<T>(s, rows, at_s, r, n + j);
    let (reset, update) =
        (float_unary::<f32>(reset, FloatUnary::Sigmoid), float_unary::<f32>(update, FloatUnary::Sigmoid));
    let of_state = number::<T>(s, rows, at_s, r, 2 * n + j);
    let new = e::tanh::<f32>(number::<T>(x, rows, at_x, r, 2 * n + j) + reset * of_state);
    Cell { r: reset, z: update, n: new, s: of_state }
}

/// h′ `[rows, n]` of gates `[rows, 3·n]` and h.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn gru_step_kernel<T: Numeric>(
    x: &Array<T>,
    s: &Array<T>,
    h: &Array<T>,
    out: &mut Array<T>,
    rows: Sequence<usize>,
    at_x: Lines,
    at_s: Lines,
    at_h: Lines,
    n: usize,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let (r, j) = (ABSOLUTE_POS / n, ABSOLUTE_POS % n);
        let a = cell::<T>(x, s, &rows, &at_x, &at_s, r, j, n);
        out[ABSOLUTE_POS] = T::cast_from(a.n + a.z * (number::<T>(h, &rows, &at_h, r, j) - a.n));
    }
}

/// The gradients of x_gates and h_gates `[rows, 3·n]` and of h `[rows, n]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn gru_step_grad_kernel<T: Numeric>(
    x: &Array<T>,
    s: &Array<T>,
    h: &Array<T>,
    g: &Array<T>,
    dx: &mut Array<T>,
    ds: &mut Array<T>,
    dh: &mut Array<T>,
    rows: Sequence<usize>,
    at_x: Lines,
    at_s: Lines,
    at_h: Lines,
    at_g: Lines,
    n: usize,
    len: usize,
    #[define(T)] _type: StorageType,
) {
    if ABSOLUTE_POS < len {
        let one = f32::new(1.0);
        let (r, j) = (ABSOLUTE_POS / n, ABSOLUTE_POS % n);
        let a = cell::<T>(x, s, &rows, &at_x, &at_s, r, j, n);
        let d = number::<T>(g, &rows, &at_g, r, j);
        let of_n = d * (one - a.z) * (one - a.n * a.n);
        let of_z = T::cast_from(d * (number::<T>(h, &rows, &at_h, r, j) - a.n) * a.z * (one - a.z));
        let of_r = T::cast_from(of_n * a.s * a.r * (one - a.r));
        let base = r * 3 * n + j;
        dx[base] = of_r;
        ds[base] = of_r;
        dx[base + n] = of_z;
        ds[base + n] = of_z;
        dx[base + 2 * n] = T::cast_from(of_n);
        ds[base + 2 * n] = T::cast_from(of_n * a.r);
        dh[ABSOLUTE_POS] = T::cast_from(d * a.z);
    }
}
