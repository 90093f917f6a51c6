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
//! order that shapes alone decide. Heads of queries that share a head of keys read it where it lies, and their gradients of keys and
//! values are one cube's sum, head after head (Ainslie et al., "GQA", 2023). The kernels here compute in plain `f32`; those of [`tensor_cores`]
//! multiply halves. CPU reference: the definition.

mod backward;
mod forward;
pub mod tensor_cores;

pub use backward::{attention_dkv_kernel, attention_dq_kernel};
pub use forward::attention_kernel;

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
    /// Heads of queries of a batch.
    pub heads: usize,
    /// Heads of queries that share a head of keys and values.
    pub sharing: usize,
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

/// Head `h` of this cube's batch, of an operand `[batch, heads, rows, columns]`.
#[cube]
fn head(at: &Place, h: usize) -> Head {
    Head {
        base: at.offset + isize::cast_from(CUBE_POS_Z) * at.strides[0] + isize::cast_from(h) * at.strides[1],
        row: at.strides[2],
        column: at.strides[3],
    }
}

/// Where query 0 of head `h` of this cube's batch stands among the queries of all.
#[cube]
fn first_query(p: &Problem, h: usize) -> usize {
    (CUBE_POS_Z as usize * p.heads + h) * p.queries
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
        for i in 0..comptime!(16 * t / form.side) {
            // The threads load a tile's rows of 16 columns of each operand; the columns of a row lie side by side.
            let e = me + i * comptime!(form.side * form.side);
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
        for i in 0..comptime!(16 * columns / form.side) {
            let e = me + i * comptime!(form.side * form.side);
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

/// Writes what the mask adds to each of this thread's scores to the thread's own places of the tile, if there is a mask. `turned`:
/// rows of the tile are keys.
#[cube]
fn masked<M: Numeric>(
    mask: &Array<M>,
    at: &Head,
    i0: usize,
    j0: usize,
    p: &Problem,
    tile: &mut SharedMemory<f32>,
    #[comptime] turned: bool,
    #[comptime] form: Form,
) {
    if comptime!(form.mask != Mask::None) {
        let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
        for e in 0..comptime!(form.t * form.t) {
            let row = ty + e / form.t * form.side;
            let column = tx + e % form.t * form.side;
            let (i, j) = if comptime!(turned) { (i0 + column, j0 + row) } else { (i0 + row, j0 + column) };
            tile[row * comptime!(form.pitch()) + column] = added::<M>(mask, at, i, j, p, comptime!(form.mask));
        }
    }
}

/// What the mask adds to the score of a query and a key: 0 without one, or where one of the two is not there.
#[cube]
fn added<M: Numeric>(mask: &Array<M>, at: &Head, i: usize, j: usize, p: &Problem, #[comptime] of: Mask) -> f32 {
    let mut v = f32::new(0.0);
    if comptime!(of != Mask::None) {
        let there = i < p.queries && j < p.keys;
        if there {
            let m = mask[usize::cast_from(at.base + isize::cast_from(i) * at.row + isize::cast_from(j) * at.column)];
            if comptime!(of == Mask::Seen) {
                v = select(m == M::from_int(0), f32::new(UNSEEN), f32::new(0.0));
            } else {
                v = f32::cast_from(m);
            }
        }
    }
    v
}

/// The score of a query and a key, from their product and what the mask adds; [`UNSEEN`] where the query may not see the key, or
/// one is not there.
#[cube]
fn score(
    product: f32,
    added: f32,
    i: usize,
    j: usize,
    p: &Problem,
    #[comptime] causal: bool,
    #[comptime] mask: Mask,
) -> f32 {
    let mut s = product * p.scale;
    let mut seen = i < p.queries && j < p.keys;
    if comptime!(causal) {
        seen = seen && j <= i;
    }
    if comptime!(mask == Mask::Seen) {
        seen = seen && added == f32::new(0.0);
    }
    if comptime!(mask == Mask::Added) {
        s += added;
    }
    select(seen, s, f32::new(UNSEEN))
}

/// Writes what the dropout multiplies each of this thread's probabilities with to its own places of the tile, if there is dropout.
#[cube]
fn dropped(
    h: usize,
    i0: usize,
    j0: usize,
    p: &Problem,
    tile: &mut SharedMemory<f32>,
    #[comptime] turned: bool,
    #[comptime] form: Form,
) {
    if comptime!(form.dropout) {
        let (tx, ty) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
        for e in 0..comptime!(form.t * form.t) {
            let row = ty + e / form.t * form.side;
            let column = tx + e % form.t * form.side;
            let (i, j) = if comptime!(turned) { (i0 + column, j0 + row) } else { (i0 + row, j0 + column) };
            tile[row * comptime!(form.pitch()) + column] = dropout(h, i, j, p);
        }
    }
}

/// What the dropout multiplies the probability of a query and a key with.
#[cube]
fn dropout(h: usize, i: usize, j: usize, p: &Problem) -> f32 {
    let at = (first_query(p, h) + i) * p.keys + j;
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
