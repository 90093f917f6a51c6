//! The gradients of attention by tensor cores: one kernel over tiles of queries, and one over tiles of keys.

use super::mma::{Pair, quad, sums_of_rows};
use super::{Cores, Place, cleared, column_of, pitch, products, row_of, stage, weighted, write};
use crate::attention::{Head, Problem, UNSEEN, added, dropout, first_query, head, number, score};
use cubecl::prelude::*;

/// What [`super::super::attention_dq_kernel()`] computes, of a cube's 16 queries for each plane.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_cores_dq_kernel<T: Numeric, M: Numeric, N: Size>(
    g: &Array<Vector<T, N>>,
    q: &Array<Vector<T, N>>,
    k: &Array<Vector<T, N>>,
    v: &Array<Vector<T, N>>,
    y: &Array<T>,
    lse: &Array<f32>,
    mask: &Array<M>,
    dq: &mut Array<T>,
    delta: &mut Array<f32>,
    at_g: Place,
    at_q: Place,
    at_k: Place,
    at_v: Place,
    at_y: Place,
    at_mask: Place,
    p: Problem,
    #[comptime] form: Cores,
    #[define(T, M)] _types: [StorageType; 2],
) {
    let (rows, other) = comptime!((form.rows(), form.other));
    let (width, values) = comptime!((form.width, form.values));
    let unroll = comptime!(!form.emulated);
    let mut of_queries = SharedMemory::<Pair<T>>::new_aligned(comptime!(rows * pitch(width)), 16usize);
    let mut of_grads = SharedMemory::<Pair<T>>::new_aligned(comptime!(rows * pitch(values)), 16usize);
    let mut of_keys = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(width)), 16usize);
    let mut of_values = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(values)), 16usize);
    let mut scratch = SharedMemory::<f32>::new(comptime!(form.scratch()));
    let h = CUBE_POS_Y as usize;
    let (of_g, of_q, of_y, of_mask) = (head(&at_g, h), head(&at_q, h), head(&at_y, h), head(&at_mask, h));
    let (of_k, of_v) = (head(&at_k, h / p.sharing), head(&at_v, h / p.sharing));
    let i0 = CUBE_POS_X as usize * rows;
    let first = first_query(&p, h);

    stage::<T, N>(q, &of_q, i0, p.queries, p.width, &mut of_queries, rows, width, form);
    stage::<T, N>(g, &of_g, i0, p.queries, p.values, &mut of_grads, rows, values, form);
    sync_cube();
    let mut deltas = deltas_of::<T>(&of_grads, y, &of_y, i0, &p, form);
    sums_of_rows(&mut deltas, &mut scratch, form);
    let mut logs = cleared(2usize, form);
    #[unroll]
    for i in 0..2usize {
        let row = i0 + row_of(comptime!(2 * i));
        if row < p.queries {
            logs[i] = lse[first + row];
            if quad() == 0 {
                delta[first + row] = deltas[i];
            }
        }
    }
    let mut d = cleared(comptime!(width / 2), form);
    let mut end = p.keys;
    if comptime!(form.causal) {
        end = min(end, i0 + rows);
    }
    let mut j0 = 0usize;
    while j0 < end {
        sync_cube(); // nobody reads the last tile any more
        stage::<T, N>(k, &of_k, j0, p.keys, p.width, &mut of_keys, other, width, form);
        stage::<T, N>(v, &of_v, j0, p.keys, p.values, &mut of_values, other, values, form);
        sync_cube();
        let mut s = products::<T>(&of_queries, &of_keys, &mut scratch, width, form);
        let of_p = products::<T>(&of_grads, &of_values, &mut scratch, values, form);
        #[unroll(unroll)]
        for e in 0..comptime!(other / 2) {
            let (i, j) = (i0 + row_of(e), j0 + column_of(e));
            let x = probability::<M>(s[e], logs[e / 2 % 2], mask, &of_mask, i, j, &p, form);
            let mut dx = of_p[e];
            if comptime!(form.dropout) {
                dx *= dropout(h, i, j, &p);
            }
            s[e] = x * (dx - deltas[e / 2 % 2]);
        }
        weighted::<T>(&s, &of_keys, &mut d, &mut scratch, width, form);
        j0 += other;
    }
    write::<T>(&d, &scales(&p), dq, first, i0, p.queries, p.width, width, form);
}

/// What [`super::super::attention_dkv_kernel()`] computes, of a cube's 16 keys for each plane.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_cores_dkv_kernel<T: Numeric, M: Numeric, N: Size>(
    g: &Array<Vector<T, N>>,
    q: &Array<Vector<T, N>>,
    k: &Array<Vector<T, N>>,
    v: &Array<Vector<T, N>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    mask: &Array<M>,
    dk: &mut Array<T>,
    dv: &mut Array<T>,
    at_g: Place,
    at_q: Place,
    at_k: Place,
    at_v: Place,
    at_mask: Place,
    p: Problem,
    #[comptime] form: Cores,
    #[define(T, M)] _types: [StorageType; 2],
) {
    let (rows, other) = comptime!((form.rows(), form.other));
    let (width, values) = comptime!((form.width, form.values));
    let unroll = comptime!(!form.emulated);
    let mut of_keys = SharedMemory::<Pair<T>>::new_aligned(comptime!(rows * pitch(width)), 16usize);
    let mut of_values = SharedMemory::<Pair<T>>::new_aligned(comptime!(rows * pitch(values)), 16usize);
    let mut of_queries = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(width)), 16usize);
    let mut of_grads = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(values)), 16usize);
    let mut scratch = SharedMemory::<f32>::new(comptime!(form.scratch()));
    let shared = CUBE_POS_Y as usize;
    let (of_k, of_v) = (head(&at_k, shared), head(&at_v, shared));
    let j0 = CUBE_POS_X as usize * rows;

    stage::<T, N>(k, &of_k, j0, p.keys, p.width, &mut of_keys, rows, width, form);
    stage::<T, N>(v, &of_v, j0, p.keys, p.values, &mut of_values, rows, values, form);
    let mut d_k = cleared(comptime!(width / 2), form);
    let mut d_v = cleared(comptime!(values / 2), form);
    let mut h = shared * p.sharing;
    while h < (shared + 1) * p.sharing {
        let (of_g, of_q, of_mask) = (head(&at_g, h), head(&at_q, h), head(&at_mask, h));
        let first = first_query(&p, h);
        let mut i0 = 0usize;
        if comptime!(form.causal) {
            i0 = j0; // earlier queries do not see these keys
        }
        while i0 < p.queries {
            sync_cube(); // nobody reads the last tile any more
            stage::<T, N>(q, &of_q, i0, p.queries, p.width, &mut of_queries, other, width, form);
            stage::<T, N>(g, &of_g, i0, p.queries, p.values, &mut of_grads, other, values, form);
            sync_cube();
            let mut s = products::<T>(&of_keys, &of_queries, &mut scratch, width, form);
            let mut of_p = products::<T>(&of_values, &of_grads, &mut scratch, values, form);
            #[unroll(unroll)]
            for e in 0..comptime!(other / 2) {
                let (i, j) = (i0 + column_of(e), j0 + row_of(e));
                let (mut log, mut along) = (f32::new(0.0), f32::new(0.0));
                if i < p.queries {
                    log = lse[first + i];
                    along = delta[first + i];
                }
                let x = probability::<M>(s[e], log, mask, &of_mask, i, j, &p, form);
                let (mut dx, mut kept) = (of_p[e], x);
                if comptime!(form.dropout) {
                    let factor = dropout(h, i, j, &p);
                    dx *= factor;
                    kept *= factor;
                }
                s[e] = kept;
                of_p[e] = x * (dx - along);
            }
            weighted::<T>(&s, &of_grads, &mut d_v, &mut scratch, values, form);
            weighted::<T>(&of_p, &of_queries, &mut d_k, &mut scratch, width, form);
            i0 += other;
        }
        h += 1;
    }
    let first = (CUBE_POS_Z as usize * (p.heads / p.sharing) + shared) * p.keys;
    let mut one = Array::<f32>::new(2usize);
    one[0] = f32::new(1.0);
    one[1] = f32::new(1.0);
    write::<T>(&d_k, &scales(&p), dk, first, j0, p.keys, p.width, width, form);
    write::<T>(&d_v, &one, dv, first, j0, p.keys, p.values, values, form);
}

/// The probability of a key for a query, from the product of the two and the query's ln Σ e^score.
#[cube]
fn probability<M: Numeric>(
    product: f32,
    log: f32,
    mask: &Array<M>,
    of_mask: &Head,
    i: usize,
    j: usize,
    p: &Problem,
    #[comptime] form: Cores,
) -> f32 {
    let more = added::<M>(mask, of_mask, i, j, p, comptime!(form.mask));
    let z = score(product, more, i, j, p, comptime!(form.causal), comptime!(form.mask));
    select(z == f32::new(UNSEEN), f32::new(0.0), (z - log).exp())
}

/// This lane's part of δ = Σ g·y, for its two rows.
#[cube]
fn deltas_of<T: Numeric>(
    of_grads: &SharedMemory<Pair<T>>,
    y: &Array<T>,
    of_y: &Head,
    i0: usize,
    p: &Problem,
    #[comptime] form: Cores,
) -> Array<f32> {
    let mut along = cleared(2usize, form);
    #[unroll]
    for i in 0..2usize {
        let row = row_of(comptime!(2 * i));
        for c in 0..comptime!(form.values / 8) {
            let g = of_grads[row * comptime!(pitch(form.values)) + quad() + 4 * c];
            #[unroll]
            for n in 0..2usize {
                let column = 2 * (quad() + 4 * c) + n;
                along[i] += f32::cast_from(g[n]) * number::<T>(y, of_y, i0 + row, p.queries, column, p.values);
            }
        }
    }
    along
}

/// ds is kept without the scale, which in halves could make it too small to be told from zero.
#[cube]
fn scales(p: &Problem) -> Array<f32> {
    let mut both = Array::<f32>::new(2usize);
    both[0] = p.scale;
    both[1] = p.scale;
    both
}
