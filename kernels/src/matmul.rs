//! Matrix product of strided operands: `out[b, i, j] = f(Σ_k a[b, i, k] · b[b, k, j] + bias[j])`.
//!
//! A cube of `side × side` threads computes a tile of `side·rows × side·columns` outputs, `rows × columns` for each thread, over
//! steps of 16 in k that pass through shared memory (the tiling of Volkov and Demmel, "Benchmarking GPUs to tune dense linear
//! algebra", SC 2008).
//! Each output is one thread's sum in ascending k, whatever the tile, so that the bits do not depend on it. Operands are
//! read where they lie: a transposition or a flip costs nothing but the order of the loads. CPU reference: three loops.

use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use cubecl::prelude::*;

/// Four steps of a sum, side by side: a tile is read and written so, as a load takes its time however wide it is.
pub type Four<N> = Vector<N, Const<4>>;

/// How a product is cut: a cube has `side × side` threads, and each of them `rows × columns` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows (and columns) of threads of a cube: 4, 8 or 16.
    pub side: usize,
    /// Rows of outputs of a thread.
    pub rows: usize,
    /// Columns of outputs of a thread.
    pub columns: usize,
}

/// One operand: how its batches lie, and its two strides.
#[derive(CubeType, CubeLaunch)]
pub struct Matrix {
    /// Where each batch's matrix begins.
    pub batch: Place,
    /// The step from a row to the next.
    pub row: isize,
    /// The step from a column to the next.
    pub column: isize,
}

/// The product. `cube_z` counts batches; `bias` is read only if `with_bias`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn matmul_kernel<In: Numeric, A: Numeric, F: Float, Out: Numeric>(
    a: &Array<In>,
    b: &Array<In>,
    bias: &Array<In>,
    out: &mut Array<Out>,
    batches: Sequence<usize>,
    at_a: Matrix,
    at_b: Matrix,
    bias_offset: isize,
    bias_step: isize,
    m: usize,
    n: usize,
    k: usize,
    first_batch: usize,
    #[comptime] cut: Tile,
    #[comptime] with_bias: bool,
    #[comptime] activation: Option<FloatUnary>,
    #[define(In, A, F, Out)] _types: [StorageType; 4],
) {
    let side = comptime!(cut.side);
    let threads = comptime!(side * side);
    let high = comptime!(side * cut.rows);
    let wide = comptime!(side * cut.columns);
    let mut tile_a = SharedMemory::<Four<A>>::new(comptime!(4 * high)); // [k 4][row][k 4]
    let mut tile_b = SharedMemory::<Four<A>>::new(comptime!(4 * wide)); // [k 4][column][k 4]
    let tx = UNIT_POS_X as usize;
    let ty = UNIT_POS_Y as usize;
    let me = ty * side + tx;
    let batch = first_batch + CUBE_POS_Z as usize;
    let row0 = CUBE_POS_Y as usize * high;
    let col0 = CUBE_POS_X as usize * wide;
    let base_a = locate(batch, &batches, &at_a.batch);
    let base_b = locate(batch, &batches, &at_b.batch);

    let mut sums = Array::<A>::new(comptime!(cut.rows * cut.columns));
    #[unroll]
    for i in 0..comptime!(cut.rows * cut.columns) {
        sums[i] = A::from_int(0);
    }
    let mut k0 = 0usize;
    while k0 < k {
        // The threads load 16 columns of `a` and 16 rows of `b`, four of one row or column each.
        for i in 0..comptime!((4 * cut.rows).div_ceil(side)) {
            let e = me + i * threads;
            let row = row0 + e % high;
            let mut four = Four::<A>::empty();
            #[unroll]
            for l in 0..4 {
                let kk = k0 + e / high * 4 + l;
                let mut va = A::from_int(0);
                if kk < k && row < m {
                    va = A::cast_from(
                        a[usize::cast_from(
                            base_a + isize::cast_from(row) * at_a.row + isize::cast_from(kk) * at_a.column,
                        )],
                    );
                }
                four[l] = va;
            }
            if e < comptime!(4 * high) {
                tile_a[e] = four;
            }
        }
        for i in 0..comptime!((4 * cut.columns).div_ceil(side)) {
            let e = me + i * threads;
            let col = col0 + e % wide;
            let mut four = Four::<A>::empty();
            #[unroll]
            for l in 0..4 {
                let kk = k0 + e / wide * 4 + l;
                let mut vb = A::from_int(0);
                if kk < k && col < n {
                    vb = A::cast_from(
                        b[usize::cast_from(
                            base_b + isize::cast_from(kk) * at_b.row + isize::cast_from(col) * at_b.column,
                        )],
                    );
                }
                four[l] = vb;
            }
            if e < comptime!(4 * wide) {
                tile_b[e] = four;
            }
        }
        sync_cube();
        // Beyond k both factors are 0, and adding 0·0 changes no sum.
        let fours = (min(16usize, k - k0) + 3) / 4;
        for kk in 0..fours {
            let mut vb = Array::<Four<A>>::new(comptime!(cut.columns));
            #[unroll]
            for j in 0..comptime!(cut.columns) {
                vb[j] = tile_b[kk * wide + tx + comptime!(side * j)];
            }
            #[unroll]
            for i in 0..comptime!(cut.rows) {
                let va = tile_a[kk * high + ty + comptime!(side * i)];
                #[unroll]
                for j in 0..comptime!(cut.columns) {
                    let column = vb[j];
                    #[unroll]
                    for l in 0..4 {
                        sums[comptime!(i * cut.columns + j)] += va[l] * column[l];
                    }
                }
            }
        }
        sync_cube();
        k0 += 16;
    }
    #[unroll]
    for i in 0..comptime!(cut.rows) {
        #[unroll]
        for j in 0..comptime!(cut.columns) {
            let row = row0 + ty + comptime!(side * i);
            let col = col0 + tx + comptime!(side * j);
            if row < m && col < n {
                let mut v = sums[comptime!(i * cut.columns + j)];
                if comptime!(with_bias) {
                    v += A::cast_from(bias[usize::cast_from(bias_offset + isize::cast_from(col) * bias_step)]);
                }
                let at = (batch * m + row) * n + col;
                if comptime!(activation.is_some()) {
                    out[at] = Out::cast_from(float_unary::<F>(F::cast_from(v), comptime!(activation.unwrap())));
                } else {
                    out[at] = Out::cast_from(v);
                }
            }
        }
    }
}
