//! Attention itself by tensor cores: the output and ln Σ e^score.

use super::mma::{Pair, largest_of_rows, quad, sums_of_rows};
use super::{Cores, Place, cleared, column_of, pitch, products, row_of, stage, weighted, write};
use crate::attention::{Problem, UNSEEN, added, dropout, first_query, head, score};
use cubecl::prelude::*;

/// What [`super::super::attention_kernel()`] computes, of a cube's 16 queries for each plane.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn attention_cores_kernel<T: Numeric, M: Numeric, N: Size>(
    q: &Array<Vector<T, N>>,
    k: &Array<Vector<T, N>>,
    v: &Array<Vector<T, N>>,
    mask: &Array<M>,
    out: &mut Array<T>,
    lse: &mut Array<f32>,
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
    let mut of_queries = SharedMemory::<Pair<T>>::new_aligned(comptime!(rows * pitch(width)), 16usize);
    let mut of_keys = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(width)), 16usize);
    let mut of_values = SharedMemory::<Pair<T>>::new_aligned(comptime!(other * pitch(values)), 16usize);
    let mut scratch = SharedMemory::<f32>::new(comptime!(form.scratch()));
    let h = CUBE_POS_Y as usize;
    let (of_q, of_mask) = (head(&at_q, h), head(&at_mask, h));
    let (of_k, of_v) = (head(&at_k, h / p.sharing), head(&at_v, h / p.sharing));
    let i0 = CUBE_POS_X as usize * rows;

    stage::<T, N>(q, &of_q, i0, p.queries, p.width, &mut of_queries, rows, width, form);
    let mut y = cleared(comptime!(values / 2), form);
    let mut sums = cleared(2usize, form);
    let mut most = Array::<f32>::new(2usize);
    most[0] = f32::new(UNSEEN);
    most[1] = f32::new(UNSEEN);
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
        let mut largest = Array::<f32>::new(2usize);
        largest[0] = most[0];
        largest[1] = most[1];
        #[unroll(unroll)]
        for e in 0..comptime!(other / 2) {
            let (i, j) = (i0 + row_of(e), j0 + column_of(e));
            let more = added::<M>(mask, &of_mask, i, j, &p, comptime!(form.mask));
            s[e] = score(s[e], more, i, j, &p, comptime!(form.causal), comptime!(form.mask));
            largest[e / 2 % 2] = max(largest[e / 2 % 2], s[e]);
        }
        largest_of_rows(&mut largest, &mut scratch, form);
        let mut shrunk = Array::<f32>::new(2usize);
        #[unroll]
        for i in 0..2usize {
            shrunk[i] = (most[i] - largest[i]).exp();
            most[i] = largest[i];
            sums[i] *= shrunk[i];
        }
        #[unroll(unroll)]
        for e in 0..comptime!(values / 2) {
            y[e] *= shrunk[e / 2 % 2];
        }
        #[unroll(unroll)]
        for e in 0..comptime!(other / 2) {
            let mut x = select(s[e] == f32::new(UNSEEN), f32::new(0.0), (s[e] - most[e / 2 % 2]).exp());
            sums[e / 2 % 2] += x;
            if comptime!(form.dropout) {
                x *= dropout(h, i0 + row_of(e), j0 + column_of(e), &p);
            }
            s[e] = x;
        }
        weighted::<T>(&s, &of_values, &mut y, &mut scratch, values, form);
        j0 += other;
    }
    sums_of_rows(&mut sums, &mut scratch, form);
    let first = first_query(&p, h);
    let mut over = Array::<f32>::new(2usize);
    #[unroll]
    for i in 0..2usize {
        let none = sums[i] == f32::new(0.0);
        let sum = select(none, f32::new(1.0), sums[i]);
        over[i] = f32::new(1.0) / sum;
        let row = i0 + row_of(comptime!(2 * i));
        if row < p.queries && quad() == 0 {
            lse[first + row] = select(none, f32::new(f32::MAX), most[i] + sum.ln());
        }
    }
    write::<T>(&y, &over, out, first, i0, p.queries, p.values, values, form);
}
