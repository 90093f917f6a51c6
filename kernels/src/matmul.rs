//! Matrix product of strided operands: `out[b, i, j] = f(Σ_k a[b, i, k] · b[b, k, j] + bias[j])`.
//!
//! A cube of 16 × 16 threads computes a tile of `16·T × 16·T` outputs, `T × T` for each thread, over steps of 16 in k that
//! pass through shared memory (the tiling of Volkov and Demmel, "Benchmarking GPUs to tune dense linear algebra", SC 2008).
//! Each output is one thread's sum in ascending k, whatever the tile, so that the bits do not depend on it. Operands are
//! read where they lie: a transposition or a flip costs nothing but the order of the loads. CPU reference: three loops.

use crate::strided::{Place, locate};
use crate::unary::{FloatUnary, float_unary};
use cubecl::prelude::*;

/// Rows (or columns) of threads of a cube, and the step in k.
pub const SIDE: u32 = 16;

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
    #[comptime] t: usize,
    #[comptime] with_bias: bool,
    #[comptime] activation: Option<FloatUnary>,
    #[define(In, A, F, Out)] _types: [StorageType; 4],
) {
    let tile = comptime!(16 * t);
    let mut tile_a = SharedMemory::<A>::new(comptime!(16 * 16 * t)); // [k 16][row 16·T]
    let mut tile_b = SharedMemory::<A>::new(comptime!(16 * 16 * t)); // [k 16][column 16·T]
    let tx = UNIT_POS_X as usize;
    let ty = UNIT_POS_Y as usize;
    let me = ty * 16 + tx;
    let batch = first_batch + CUBE_POS_Z as usize;
    let row0 = CUBE_POS_Y as usize * tile;
    let col0 = CUBE_POS_X as usize * tile;
    let base_a = locate(batch, &batches, &at_a.batch);
    let base_b = locate(batch, &batches, &at_b.batch);

    let mut sums = Array::<A>::new(comptime!(t * t));
    #[unroll]
    for i in 0..comptime!(t * t) {
        sums[i] = A::from_int(0);
    }
    let mut k0 = 0usize;
    while k0 < k {
        #[unroll]
        for i in 0..t {
            // 256 threads load 16 × 16·T elements of each operand, T each; those of a row of `b` lie side by side.
            let e = me + comptime!(i * 256);
            let c = e % tile;
            let kk = e / tile;
            let inside_k = k0 + kk < k;
            let mut va = A::from_int(0);
            if inside_k && row0 + c < m {
                va = A::cast_from(
                    a[usize::cast_from(
                        base_a + isize::cast_from(row0 + c) * at_a.row + isize::cast_from(k0 + kk) * at_a.column,
                    )],
                );
            }
            tile_a[e] = va;
            let mut vb = A::from_int(0);
            if inside_k && col0 + c < n {
                vb = A::cast_from(
                    b[usize::cast_from(
                        base_b + isize::cast_from(k0 + kk) * at_b.row + isize::cast_from(col0 + c) * at_b.column,
                    )],
                );
            }
            tile_b[e] = vb;
        }
        sync_cube();
        let depth = min(16usize, k - k0);
        for kk in 0..depth {
            #[unroll]
            for i in 0..t {
                let va = tile_a[kk * tile + ty + comptime!(16 * i)];
                #[unroll]
                for j in 0..t {
                    sums[comptime!(i * t + j)] += va * tile_b[kk * tile + tx + comptime!(16 * j)];
                }
            }
        }
        sync_cube();
        k0 += 16;
    }
    #[unroll]
    for i in 0..t {
        #[unroll]
        for j in 0..t {
            let row = row0 + ty + comptime!(16 * i);
            let col = col0 + tx + comptime!(16 * j);
            if row < m && col < n {
                let mut v = sums[comptime!(i * t + j)];
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
