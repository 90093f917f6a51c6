//! Scaled dot-product attention and its gradients, without the matrix of all scores (Dao et al., "FlashAttention", 2022).
//!
//! Forward, of a query with scores s_j = scale·q·k_j (+ mask): y = Σ_j e^(s_j−m)·v_j / z with m the largest score and
//! z = Σ e^(s_j−m), both carried from a tile of keys to the next (Milakov & Gimelshein, "Online normalizer calculation for
//! softmax", 2018); ln Σ e^s is kept. Backward computes p_j = e^(s_j−lse) again; with δ = Σ g·y: ds_j = p_j·(g·v_j − δ)·scale,
//! dq = Σ_j ds_j·k_j, dk_j = Σ_i ds_ij·q_i, dv_j = Σ_i p_ij·g_i. Dropout multiplies p where it meets v, and g·v.
//!
//! A cube of `side × side` threads has a tile of `side·t` queries (in the gradients of keys and values: keys) and walks over
//! tiles of the other side, of which causal attention skips those that nobody sees. Operands pass through shared memory 16 columns
//! (or rows) at a time, as in [`crate::matmul`]; each output is one thread's, so there are no atomics, and every sum has an
//! order that shapes alone decide. Arithmetic is plain `f32`; tensor cores are not used. CPU reference: the definition.

use crate::random::philox;
use crate::strided::Place;
use cubecl::prelude::*;

/// What may stand between a query and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Nothing.
    None,
    /// Zero: it is not seen.
    Seen,
    /// A number added to the score.
    Added,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Rows (and columns) of threads of a cube: 4, 8 or 16.
    pub side: usize,
    /// A thread has `t` queries and as many keys of a tile.
    pub t: usize,
    /// A thread's columns of queries and keys.
    pub width: usize,
    /// A thread's columns of values.
    pub values: usize,
    /// Whether query i sees keys 0 to i alone.
    pub causal: bool,
    /// The mask.
    pub mask: Mask,
    /// Whether probabilities are dropped.
    pub dropout: bool,
}

impl Form {
    /// Queries, or keys, of a tile.
    pub fn tile(self) -> usize {
        self.side * self.t
    }
    /// A row of a tile in shared memory: one more than the tile, so that rows begin in different banks.
    fn pitch(self) -> usize {
        self.tile() + 1
    }
    fn weights(self) -> usize {
        self.tile() * self.pitch()
    }
    fn stage(self) -> usize {
        (32 * self.pitch()).max(16 * self.side * self.width.max(self.values))
    }
    /// Bytes of shared memory.
    pub fn shared(self) -> usize {
        4 * (self.weights() + self.stage())
    }
}

/// Stands for the score of a key that is not seen.
const UNSEEN: f32 = f32::MIN;

/// Lengths, and how scores are made.
#[derive(CubeType, CubeLaunch)]
pub struct Problem {
    /// Heads of a batch.
    pub heads: usize,
    /// Queries of a head.
    pub queries: usize,
    /// Keys of a head.
    pub keys: usize,
    /// Columns of queries and keys.
    pub width: usize,
    /// Columns of values.
    pub values: usize,
    /// What a score is multiplied with.
    pub scale: f32,
    /// The name of the dropout's mask (see [`crate::random`]).
    pub key_lo: u32,
    /// Its upper half.
    pub key_hi: u32,
    /// The step.
    pub step: u32,
    /// The stream.
    pub stream_lo: u32,
    /// Its upper half.
    pub stream_hi: u32,
    /// See [`crate::dropout`].
    pub threshold: u32,
    /// What is kept is multiplied with this.
    pub kept: f32,
}

/// One head of an operand.
#[derive(CubeType)]
struct Head {
    base: isize,
    row: isize,
    column: isize,
}

/// The head of this cube, of an operand `[batch, heads, rows, columns]`.
#[cube]
fn head(at: &Place) -> Head {
    Head {
        base: at.offset + isize::cast_from(CUBE_POS_Z) * at.strides[0] + isize::cast_from(CUBE_POS_Y) * at.strides[1],
        row: at.strides[2],
        column: at.strides[3],
    }
}

/// The head of this cube in dense memory.
#[cube]
fn dense_head(p: &Problem, rows: usize) -> usize {
    (CUBE_POS_Z as usize * p.heads + CUBE_POS_Y as usize) * rows
}

/// A number of an operand, or 0 outside of it.
#[cube]
fn number<T: Numeric>(x: &Array<T>, at: &Head, row: usize, rows: usize, column: usize, columns: usize) -> f32 {
    let mut v = f32::new(0.0);
    if row < rows && column < columns {
        v = f32::cast_from(
            x[usize::cast_from(at.base + isize::cast_from(row) * at.row + isize::cast_from(column) * at.column)],
        );
    }
    v
}

/// `n` zeros.
#[cube]
fn zeros(#[comptime] n: usize) -> Array<f32> {
    let mut x = Array::<f32>::new(n);
    #[unroll]
    for i in 0..n {
        x[i] = f32::new(0.0);
    }
    x
}

/// `out[i, j] = Σ_d a[a0 + ty + side·i, d] · b[b0 + tx + side·j, d]`.
#[cube]
fn products<T: Numeric>(
    a: &Array<T>,
    at_a: &Head,
    a0: usize,
    rows_a: usize,
    b: &Array<T>,
    at_b: &Head,
    b0: usize,
    rows_b: usize,
    width: usize,
    stage: &mut SharedMemory<f32>,
    #[comptime] form: Form,
) -> Array<f32> {
    let t = comptime!(form.t);
    let pitch = comptime!(form.pitch());
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let me = ty * comptime!(form.side) + tx;
    let mut out = zeros(comptime!(t * t));
    let mut d0 = 0usize;
    while d0 < width {
        #[unroll]
        for i in 0..comptime!(16 * t / form.side) {
            // The threads load a tile's rows of 16 columns of each operand; the columns of a row lie side by side.
            let e = me + comptime!(form.side * form.side * i);
            let d = e % 16;
            let r = e / 16;
            stage[d * pitch + r] = number::<T>(a, at_a, a0 + r, rows_a, d0 + d, width);
            stage[comptime!(16 * pitch) + d * pitch + r] = number::<T>(b, at_b, b0 + r, rows_b, d0 + d, width);
        }
        sync_cube();
        for d in 0..16usize {
            let mut vb = Array::<f32>::new(t);
            #[unroll]
            for j in 0..t {
                vb[j] = stage[d * pitch + tx + comptime!(16 * pitch + form.side * j)];
            }
            #[unroll]
            for i in 0..t {
                let va = stage[d * pitch + ty + comptime!(form.side * i)];
                #[unroll]
                for j in 0..t {
                    out[comptime!(i * t + j)] += va * vb[j];
                }
            }
        }
        sync_cube();
        d0 += 16;
    }
    out
}

/// `out[i, c] += Σ_j weights[ty + side·i, j] · x[x0 + j, tx + side·c]`, where weights beyond the last row are 0.
#[cube]
fn weighted<T: Numeric>(
    weights: &SharedMemory<f32>,
    x: &Array<T>,
    at: &Head,
    x0: usize,
    rows: usize,
    width: usize,
    stage: &mut SharedMemory<f32>,
    out: &mut Array<f32>,
    #[comptime] columns: usize,
    #[comptime] form: Form,
) {
    let t = comptime!(form.t);
    let pitch = comptime!(form.pitch());
    let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let me = ty * comptime!(form.side) + tx;
    let count = min(comptime!(form.tile()), rows - x0);
    let mut j0 = 0usize;
    while j0 < count {
        #[unroll]
        for i in 0..comptime!(16 * columns / form.side) {
            let e = me + comptime!(form.side * form.side * i);
            let c = e % comptime!(form.side * columns);
            let j = e / comptime!(form.side * columns);
            stage[e] = number::<T>(x, at, x0 + j0 + j, rows, c, width);
        }
        sync_cube();
        for j in 0..min(16usize, count - j0) {
            let mut vb = Array::<f32>::new(columns);
            #[unroll]
            for c in 0..columns {
                vb[c] = stage[j * comptime!(form.side * columns) + tx + comptime!(form.side * c)];
            }
            #[unroll]
            for i in 0..t {
                let w = weights[(ty + comptime!(form.side * i)) * pitch + j0 + j];
                #[unroll]
                for c in 0..columns {
                    out[comptime!(i * columns + c)] += w * vb[c];
                }
            }
        }
        sync_cube();
        j0 += 16;
    }
}

/// The score of a query and a key, from their product; [`UNSEEN`] where the query may not see the key, or one is not there.
#[cube]
fn score<M: Numeric>(
    product: f32,
    i: usize,
    j: usize,
    mask: &Array<M>,
    at: &Head,
    p: &Problem,
    #[comptime] form: Form,
) -> f32 {
    let mut s = f32::new(UNSEEN);
    let mut seen = i < p.queries && j < p.keys;
    if comptime!(form.causal) {
        seen = seen && j <= i;
    }
    if seen {
        s = product * p.scale;
        if comptime!(form.mask != Mask::None) {
            let m = mask[usize::cast_from(at.base + isize::cast_from(i) * at.row + isize::cast_from(j) * at.column)];
            if comptime!(form.mask == Mask::Seen) {
                s = select(m == M::from_int(0), f32::new(UNSEEN), s);
            } else {
                s += f32::cast_from(m);
            }
        }
    }
    s
}

/// What the dropout multiplies the probability of a query and a key with.
#[cube]
fn dropout(i: usize, j: usize, p: &Problem) -> f32 {
    let at = (dense_head(p, p.queries) + i) * p.keys + j;
    let words = philox(u32::cast_from(at / 4), p.step, p.stream_lo, p.stream_hi, p.key_lo, p.key_hi);
    let nth = at % 4;
    let word = select(nth < 2, select(nth == 0, words[0], words[1]), select(nth == 2, words[2], words[3]));
    select((word >> 8u32) < p.threshold, p.kept, f32::new(0.0))
}

/// A row's sum of what its threads found, in their order.
#[cube]
fn row_sum(shared: &SharedMemory<f32>, row: usize, #[comptime] form: Form) -> f32 {
    let mut sum = f32::new(0.0);
    for x in 0..comptime!(form.side) {
        sum += shared[row * comptime!(form.pitch()) + x];
    }
    sum
}

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
    let (of_q, of_k, of_v, of_mask) = (head(&at_q), head(&at_k), head(&at_v), head(&at_mask));
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
        #[unroll]
        for i in 0..t {
            let mut largest = f32::new(UNSEEN);
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                s[at] = score::<M>(
                    s[at],
                    i0 + ty + comptime!(form.side * i),
                    j0 + tx + comptime!(form.side * j),
                    mask,
                    &of_mask,
                    &p,
                    form,
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
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let mut e = select(s[at] == f32::new(UNSEEN), f32::new(0.0), (s[at] - most[i]).exp());
                sums[i] += e;
                if comptime!(form.dropout) {
                    e *= dropout(i0 + ty + comptime!(form.side * i), j0 + tx + comptime!(form.side * j), &p);
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
            let at = dense_head(&p, p.queries) + row;
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
    let (of_g, of_q, of_k) = (head(&at_g), head(&at_q), head(&at_k));
    let (of_v, of_y, of_mask) = (head(&at_v), head(&at_y), head(&at_mask));
    let i0 = CUBE_POS_X as usize * tile;
    let first = dense_head(&p, p.queries);

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
        let s = products::<T>(q, &of_q, i0, p.queries, k, &of_k, j0, p.keys, p.width, &mut stage, form);
        let dp = products::<T>(g, &of_g, i0, p.queries, v, &of_v, j0, p.keys, p.values, &mut stage, form);
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                let at = comptime!(i * t + j);
                let (row, column) = (i0 + ty + comptime!(form.side * i), j0 + tx + comptime!(form.side * j));
                let s = score::<M>(s[at], row, column, mask, &of_mask, &p, form);
                let e = select(s == f32::new(UNSEEN), f32::new(0.0), (s - logs[i]).exp());
                let mut of_p = dp[at];
                if comptime!(form.dropout) {
                    of_p *= dropout(row, column, &p);
                }
                weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)] =
                    e * (of_p - deltas[i]) * p.scale;
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

/// A tile of keys: dk and dv, of the δ that [`attention_dq_kernel()`] wrote.
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
    let (of_g, of_q, of_k) = (head(&at_g), head(&at_q), head(&at_k));
    let (of_v, of_mask) = (head(&at_v), head(&at_mask));
    let j0 = CUBE_POS_X as usize * tile;
    let first = dense_head(&p, p.queries);

    let mut d_k = zeros(comptime!(t * form.width));
    let mut d_v = zeros(comptime!(t * form.values));
    let mut i0 = 0usize;
    if comptime!(form.causal) {
        i0 = j0; // earlier queries do not see these keys
    }
    while i0 < p.queries {
        let mut s = products::<T>(k, &of_k, j0, p.keys, q, &of_q, i0, p.queries, p.width, &mut stage, form);
        let dp = products::<T>(v, &of_v, j0, p.keys, g, &of_g, i0, p.queries, p.values, &mut stage, form);
        #[unroll]
        for j in 0..t {
            let row = i0 + tx + comptime!(form.side * j);
            let mut log = f32::new(0.0);
            let mut along = f32::new(0.0);
            if row < p.queries {
                log = lse[first + row];
                along = delta[first + row];
            }
            #[unroll]
            for i in 0..t {
                let at = comptime!(i * t + j);
                let column = j0 + ty + comptime!(form.side * i);
                let z = score::<M>(s[at], row, column, mask, &of_mask, &p, form);
                let e = select(z == f32::new(UNSEEN), f32::new(0.0), (z - log).exp());
                let mut of_p = dp[at];
                let mut kept = e;
                if comptime!(form.dropout) {
                    let factor = dropout(row, column, &p);
                    of_p *= factor;
                    kept *= factor;
                }
                s[at] = e * (of_p - along) * p.scale;
                weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)] = kept;
            }
        }
        sync_cube();
        weighted::<T>(&weights, g, &of_g, i0, p.queries, p.values, &mut stage, &mut d_v, comptime!(form.values), form);
        #[unroll]
        for i in 0..t {
            #[unroll]
            for j in 0..t {
                weights[(ty + comptime!(form.side * i)) * pitch + tx + comptime!(form.side * j)] =
                    s[comptime!(i * t + j)];
            }
        }
        sync_cube();
        weighted::<T>(&weights, q, &of_q, i0, p.queries, p.width, &mut stage, &mut d_k, comptime!(form.width), form);
        i0 += tile;
    }
    let first_key = dense_head(&p, p.keys);
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
