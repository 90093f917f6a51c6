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

/// The rows of the first operand, or the columns of the second.
#[derive(CubeType)]
struct Lines {
    /// Where the matrix begins.
    base: isize,
    /// The tile's first line, and how many lines the matrix has.
    first: usize,
    count: usize,
    /// The step from a line to the next, and from a number of a line to the next.
    across: isize,
    along: isize,
}

#[cube]
impl Lines {
    /// Loads numbers `k0` to `k0 + 16` of the lines into a tile, `[k 4][line][k 4]`; each thread loads fours of a line. Beyond the
    /// last line and beyond `k` there are zeros.
    fn load<In: Numeric, A: Numeric>(
        &self,
        x: &Array<In>,
        tile: &mut SharedMemory<Four<A>>,
        k0: usize,
        k: usize,
        #[comptime] side: usize,
        #[comptime] lines: usize,
    ) {
        let threads = comptime!(side * side);
        let me = UNIT_POS_Y as usize * side + UNIT_POS_X as usize;
        for i in 0..comptime!((4 * lines).div_ceil(threads)) {
            let e = me + i * threads;
            // There are threads too many for a narrow tile.
            if e < comptime!(4 * lines) {
                let line = self.first + e % lines;
                let mut four = Four::<A>::empty();
                #[unroll]
                for l in 0..4 {
                    let kk = k0 + e / lines * 4 + l;
                    let mut v = A::from_int(0);
                    if kk < k && line < self.count {
                        let at = self.base + isize::cast_from(line) * self.across + isize::cast_from(kk) * self.along;
                        v = A::cast_from(x[usize::cast_from(at)]);
                    }
                    four[l] = v;
                }
                tile[e] = four;
            }
        }
    }
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
    let high = comptime!(side * cut.rows);
    let wide = comptime!(side * cut.columns);
    let mut tile_a = SharedMemory::<Four<A>>::new(comptime!(4 * high)); // [k 4][row][k 4]
    let mut tile_b = SharedMemory::<Four<A>>::new(comptime!(4 * wide)); // [k 4][column][k 4]
    let tx = UNIT_POS_X as usize;
    let ty = UNIT_POS_Y as usize;
    let batch = first_batch + CUBE_POS_Z as usize;
    let row0 = CUBE_POS_Y as usize * high;
    let col0 = CUBE_POS_X as usize * wide;
    let rows = Lines {
        base: locate(batch, &batches, &at_a.batch),
        first: row0,
        count: m,
        across: at_a.row,
        along: at_a.column,
    };
    let columns = Lines {
        base: locate(batch, &batches, &at_b.batch),
        first: col0,
        count: n,
        across: at_b.column,
        along: at_b.row,
    };

    let mut sums = Array::<A>::new(comptime!(cut.rows * cut.columns));
    #[unroll]
    for i in 0..comptime!(cut.rows * cut.columns) {
        sums[i] = A::from_int(0);
    }
    let mut k0 = 0usize;
    while k0 < k {
        rows.load::<In, A>(a, &mut tile_a, k0, k, side, high);
        columns.load::<In, A>(b, &mut tile_b, k0, k, side, wide);
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
