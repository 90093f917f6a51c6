//! The gradients of attention: one kernel over tiles of queries, and one over tiles of keys, so that each number has one writer.

use super::{
    Form, Problem, UNSEEN, dropped, first_query, head, masked, number, products, row_sum, score, weighted, zeros,
};
use crate::strided::Place;
use cubecl::prelude::*;

/// A tile of queries: dq, and δ = Σ g·y.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_dq_kernel<T: Numeric, M: Numeric>(
    g: &Array<T>,
    q: &Array<T>,
    k: &Array<T>,
    v: &Array<T>,
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
    #[comptime] form: Form,
    #[define(T, M)] _types: [StorageType; 2],
) {
    let t = comptime!(form.t);
    let tile = comptime!(form.tile());
    let pitch = comptime!(form.pitch());
    let columns = comptime!(form.width);
    let mut stage = SharedMemory::<f32>::new(comptime!(form.stage()));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.weights())); // [query][key]
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let h = CUBE_POS_Y as usize;
    let (of_g, of_q, of_y, of_mask) = (head(&at_g, h), head(&at_q, h), head(&at_y, h), head(&at_mask, h));
    let (of_k, of_v) = (head(&at_k, h / p.sharing), head(&at_v, h / p.sharing));
    let i0 = CUBE_POS_X as usize * tile;
    let first = first_query(&p, h);

    #[unroll]
    for i in 0..t {
        let row = i0 + ty + comptime!(form.side * i);
        let mut along = f32::new(0.0);
        #[unroll]
        for c in 0..comptime!(form.values) {
            let column = tx + comptime!(form.side * c);
            along += number::<T>(g, &of_g, row, p.queries, column, p.values)
                * number::<T>(y, &of_y, row, p.queries, column, p.values);
        }
        weights[(ty + comptime!(form.side * i)) * pitch + tx] = along;
    }
    sync_cube();
    let mut deltas = zeros(t);
    let mut logs = zeros(t);
    #[unroll]
    for i in 0..t {
        let row = i0 + ty + comptime!(form.side * i);
        deltas[i] = row_sum(&weights, ty + comptime!(form.side * i), form);
        if row < p.queries {
            logs[i] = lse[first + row];
            if tx == 0 {
                delta[first + row] = deltas[i];
            }
        }
    }
    sync_cube();
    let mut d = zeros(comptime!(t * columns));
    let mut end = p.keys;
    if comptime!(form.causal) {
        end = min(end, i0 + tile);
    }
    let mut j0 = 0usize;
    while j0 < end {
        let mut s = products::<T>(q, &of_q, i0, p.queries, k, &of_k, j0, p.keys, p.width, &mut stage, form);
        let dp = products::<T>(g, &of_g, i0, p.queries, v, &of_v, j0, p.keys, p.values, &mut stage, form);
        masked::<M>(mask, &of_mask, i0, j0, &p, &mut weights, false, form);
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let (row, column) = (ty + comptime!(form.side * i), tx + comptime!(form.side * j));
                let z = score(
                    s[at],
                    weights[row * pitch + column],
                    i0 + row,
                    j0 + column,
                    &p,
                    comptime!(form.causal),
                    comptime!(form.mask),
                );
                s[at] = select(z == f32::new(UNSEEN), f32::new(0.0), (z - logs[i]).exp());
            }
        }
        dropped(h, i0, j0, &p, &mut weights, false, form);
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let place = (ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j);
                let mut of_p = dp[at];
                if comptime!(form.dropout) {
                    of_p *= weights[place];
                }
                weights[place] = s[at] * (of_p - deltas[i]) * p.scale;
            }
        }
        sync_cube();
        weighted::<T>(&weights, k, &of_k, j0, p.keys, p.width, &mut stage, &mut d, columns, form);
        j0 += tile;
    }
    #[unroll]
    for i in 0..t {
        #[unroll]
        for c in 0..columns {
            let (row, column) = (i0 + ty + comptime!(form.side * i), tx + comptime!(form.side * c));
            if row < p.queries && column < p.width {
                dq[(first + row) * p.width + column] = T::cast_from(d[comptime!(i * columns + c)]);
            }
        }
    }
}

/// A tile of keys: dk and dv, over all heads of queries that see them, of the δ that [`attention_dq_kernel()`] wrote.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_dkv_kernel<T: Numeric, M: Numeric>(
    g: &Array<T>,
    q: &Array<T>,
    k: &Array<T>,
    v: &Array<T>,
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
    #[comptime] form: Form,
    #[define(T, M)] _types: [StorageType; 2],
) {
    let t = comptime!(form.t);
    let tile = comptime!(form.tile());
    let pitch = comptime!(form.pitch());
    let mut stage = SharedMemory::<f32>::new(comptime!(form.stage()));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.weights())); // [key][query]
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let shared = CUBE_POS_Y as usize;
    let (of_k, of_v) = (head(&at_k, shared), head(&at_v, shared));
    let j0 = CUBE_POS_X as usize * tile;

    let mut d_k = zeros(comptime!(t * form.width));
    let mut d_v = zeros(comptime!(t * form.values));
    let mut h = shared * p.sharing;
    while h < (shared + 1) * p.sharing {
        let (of_g, of_q, of_mask) = (head(&at_g, h), head(&at_q, h), head(&at_mask, h));
        let first = first_query(&p, h);
        let mut i0 = 0usize;
        if comptime!(form.causal) {
            i0 = j0; // earlier queries do not see these keys
        }
        while i0 < p.queries {
            let mut s = products::<T>(k, &of_k, j0, p.keys, q, &of_q, i0, p.queries, p.width, &mut stage, form);
            let dp = products::<T>(v, &of_v, j0, p.keys, g, &of_g, i0, p.queries, p.values, &mut stage, form);
            masked::<M>(mask, &of_mask, i0, j0, &p, &mut weights, true, form);
            #[unroll]
            for j in 0..t {
                let column = tx + comptime!(form.side * j);
                let mut log = f32::new(0.0);
                if i0 + column < p.queries {
                    log = lse[first + i0 + column];
                }
                #[unroll]
                for i in 0..t {
                    let at = comptime!(i * t + j);
                    let row = ty + comptime!(form.side * i);
                    let z = score(
                        s[at],
                        weights[row * pitch + column],
                        i0 + column,
                        j0 + row,
                        &p,
                        comptime!(form.causal),
                        comptime!(form.mask),
                    );
                    s[at] = select(z == f32::new(UNSEEN), f32::new(0.0), (z - log).exp());
                }
            }
            dropped(h, i0, j0, &p, &mut weights, true, form);
            #[unroll]
            for j in 0..t {
                let column = tx + comptime!(form.side * j);
                let mut along = f32::new(0.0);
                if i0 + column < p.queries {
                    along = delta[first + i0 + column];
                }
                #[unroll]
                for i in 0..t {
                    let at = comptime!(i * t + j);
                    let place = (ty + comptime!(form.side * i)) * pitch + column;
                    let (mut of_p, mut kept) = (dp[at], s[at]);
                    if comptime!(form.dropout) {
                        of_p *= weights[place];
                        kept *= weights[place];
                    }
                    s[at] = s[at] * (of_p - along) * p.scale;
                    weights[place] = kept;
                }
            }
            sync_cube();
            weighted::<T>(
                &weights,
                g,
                &of_g,
                i0,
                p.queries,
                p.values,
                &mut stage,
                &mut d_v,
                comptime!(form.values),
                form,
            );
            #[unroll]
            for i in 0..t {
                #[unroll]
                for j in 0..t {
                    weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)] =
                        s[comptime!(i * t + j)];
                }
            }
            sync_cube();
            weighted::<T>(
                &weights,
                q,
                &of_q,
                i0,
                p.queries,
                p.width,
                &mut stage,
                &mut d_k,
                comptime!(form.width),
                form,
            );
            i0 += tile;
        }
        h += 1;
    }
    let first_key = (CUBE_POS_Z as usize * (p.heads / p.sharing) + shared) * p.keys;
    #[unroll]
    for i in 0..t {
        let row = j0 + ty + comptime!(form.side * i);
        if row < p.keys {
            #[unroll]
            for c in 0..comptime!(form.width) {
                let column = tx + comptime!(form.side * c);
                if column < p.width {
                    dk[(first_key + row) * p.width + column] = T::cast_from(d_k[comptime!(i * form.width + c)]);
                }
            }
            #[unroll]
            for c in 0..comptime!(form.values) {
                let column = tx + comptime!(form.side * c);
                if column < p.values {
                    dv[(first_key + row) * p.values + column] = T::cast_from(d_v[comptime!(i * form.values + c)]);
                }
            }
        }
    }
}
