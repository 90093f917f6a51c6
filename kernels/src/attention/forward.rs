//! Attention itself: the output and ln Σ e^score.

use super::{Form, Problem, UNSEEN, dropped, first_query, head, masked, products, row_sum, score, weighted, zeros};
use crate::strided::Place;
use cubecl::prelude::*;

/// A tile of queries: the output, and ln Σ e^score, which for a query that sees no key is the largest number, so that all its
/// probabilities come out as 0.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_kernel<T: Numeric, M: Numeric>(
    q: &Array<T>,
    k: &Array<T>,
    v: &Array<T>,
    mask: &Array<M>,
    out: &mut Array<T>,
    lse: &mut Array<f32>,
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
    let columns = comptime!(form.values);
    let mut stage = SharedMemory::<f32>::new(comptime!(form.stage()));
    let mut weights = SharedMemory::<f32>::new(comptime!(form.weights())); // [query][key]
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let h = CUBE_POS_Y as usize;
    let (of_q, of_mask) = (head(&at_q, h), head(&at_mask, h));
    let (of_k, of_v) = (head(&at_k, h / p.sharing), head(&at_v, h / p.sharing));
    let i0 = CUBE_POS_X as usize * tile;

    let mut y = zeros(comptime!(t * columns));
    let mut sums = zeros(t);
    let mut most = zeros(t);
    #[unroll]
    for i in 0..t {
        most[i] = f32::new(UNSEEN);
    }
    let mut end = p.keys;
    if comptime!(form.causal) {
        end = min(end, i0 + tile);
    }
    let mut j0 = 0usize;
    while j0 < end {
        let mut s = products::<T>(q, &of_q, i0, p.queries, k, &of_k, j0, p.keys, p.width, &mut stage, form);
        masked::<M>(mask, &of_mask, i0, j0, &p, &mut weights, false, form);
        #[unroll]
        for i in 0..t {
            let mut largest = f32::new(UNSEEN);
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let (row, column) = (ty + comptime!(form.side * i), tx + comptime!(form.side * j));
                s[at] = score(
                    s[at],
                    weights[row * pitch + column],
                    i0 + row,
                    j0 + column,
                    &p,
                    comptime!(form.causal),
                    comptime!(form.mask),
                );
                largest = max(largest, s[at]);
            }
            weights[(ty + comptime!(form.side * i)) * pitch + tx] = largest;
        }
        sync_cube();
        #[unroll]
        for i in 0..t {
            let mut largest = most[i];
            for x in 0..comptime!(form.side) {
                largest = max(largest, weights[(ty + comptime!(form.side * i)) * pitch + x]);
            }
            let shrunk = (most[i] - largest).exp();
            most[i] = largest;
            sums[i] *= shrunk;
            #[unroll]
            for c in 0..columns {
                y[comptime!(i * columns + c)] *= shrunk;
            }
        }
        sync_cube();
        dropped(h, i0, j0, &p, &mut weights, false, form);
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let mut e = select(s[at] == f32::new(UNSEEN), f32::new(0.0), (s[at] - most[i]).exp());
                sums[i] += e;
                if comptime!(form.dropout) {
                    e *= weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)];
                }
                weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)] = e;
            }
        }
        sync_cube();
        weighted::<T>(&weights, v, &of_v, j0, p.keys, p.values, &mut stage, &mut y, columns, form);
        j0 += tile;
    }
    #[unroll]
    for i in 0..t {
        weights[(ty + comptime!(form.side * i)) * pitch + tx] = sums[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..t {
        let row = i0 + ty + comptime!(form.side * i);
        let sum = row_sum(&weights, ty + comptime!(form.side * i), form);
        let none = sum == f32::new(0.0);
        let over = select(none, f32::new(1.0), sum);
        if row < p.queries {
            let at = first_query(&p, h) + row;
            if tx == 0 {
                lse[at] = select(none, f32::new(f32::MAX), most[i] + over.ln());
            }
            #[unroll]
            for c in 0..columns {
                let column = tx + comptime!(form.side * c);
                if column < p.values {
                    out[at * p.values + column] = T::cast_from(y[comptime!(i * columns + c)] / over);
                }
            }
        }
    }
}
