//! Attention by tensor cores: products of `f16` or `bf16` with sums in `f32` (Dao, "FlashAttention-2", 2023).
//!
//! A cube has a tile of rows (queries; in the gradients of keys and values: keys), 16 of them for each of its planes, and walks
//! over tiles of the other side, which lie in shared memory. Scores, probabilities and results stay in the lanes' registers: as
//! the sums of a product of 16 × 8 lie in the lanes just as the left factor of the next product must, the probabilities go
//! from one product into the next without passing through memory, rounded to the operands' type. A row is four lanes', which
//! exchange its maximum and its sum. Everything else (scores, masks, dropout, which tiles are skipped, what is kept) is the plain
//! kernels', and so are the orders: each number has one writer, and every sum an order that shapes alone decide.
//!
//! What a device must have for it stands in one file, `mma.rs`: a product of 16 × 16 × 8 and an exchange between lanes. Both can be
//! emulated through shared memory by any device, in any type, so that tests run the rest of the kernels line by line.

mod backward;
mod forward;
mod mma;

pub use backward::{attention_cores_dkv_kernel, attention_cores_dq_kernel};
pub use forward::attention_cores_kernel;

use super::{Head, Mask};
use crate::strided::Place;
use cubecl::prelude::*;
use mma::{Pair, multiply, pair, quad, rank};

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cores {
    /// Planes of a cube, of 32 lanes each; each has 16 rows.
    pub planes: usize,
    /// Rows of a tile of the other side: a multiple of 16.
    pub other: usize,
    /// Columns of queries and keys: a multiple of 16.
    pub width: usize,
    /// Columns of values: a multiple of 16.
    pub values: usize,
    /// Operands are read so many numbers at a time: 1, or as many as divide what their rows, strides and offsets are.
    pub lanes: usize,
    /// Whether query i sees keys 0 to i alone.
    pub causal: bool,
    /// The mask.
    pub mask: Mask,
    /// Whether probabilities are dropped.
    pub dropout: bool,
    /// Whether threads do what tensor cores would: for tests.
    pub emulated: bool,
}

impl Cores {
    /// Rows of a cube.
    pub fn rows(self) -> usize {
        16 * self.planes
    }
    /// Bytes of shared memory of the forward kernel, of operands of so many bytes.
    pub fn shared(self, size: usize) -> usize {
        let held = self.rows() * pitch(self.width) + self.other * (pitch(self.width) + pitch(self.values));
        2 * size * held + 4 * self.scratch()
    }
    /// Bytes of shared memory of the kernels of gradients.
    pub fn shared_backward(self, size: usize) -> usize {
        2 * size * (self.rows() + self.other) * (pitch(self.width) + pitch(self.values)) + 4 * self.scratch()
    }
    fn scratch(self) -> usize {
        if self.emulated { self.planes * mma::SCRATCH } else { 1 }
    }
}

/// A row of a tile in shared memory, in pairs of numbers. Four times an odd number, so that what the lanes of a plane read at a
/// time lies in 32 different banks: rows `rank` and words `quad` in [`products`], rows `2·quad` and words `rank` in [`weighted`].
fn pitch(columns: usize) -> usize {
    columns / 2 + 4
}

/// Copies rows `x0..` of an operand to a tile of `high` rows and `wide` columns, with zeros beyond its `rows` and `columns`.
#[cube]
fn stage<T: Numeric, N: Size>(
    x: &Array<Vector<T, N>>,
    at: &Head,
    x0: usize,
    rows: usize,
    columns: usize,
    tile: &mut SharedMemory<Pair<T>>,
    #[comptime] high: usize,
    #[comptime] wide: usize,
    #[comptime] form: Cores,
) {
    let lanes = comptime!(form.lanes);
    let step = comptime!(lanes.max(2));
    let threads = comptime!(32 * form.planes);
    for i in 0..comptime!((high * wide / step).div_ceil(threads)) {
        let e = UNIT_POS as usize + i * threads;
        let (r, c) = (e / comptime!(wide / step), e % comptime!(wide / step) * step);
        let to = r * comptime!(pitch(wide)) + c / 2;
        let from = at.base + isize::cast_from(x0 + r) * at.row + isize::cast_from(c) * at.column;
        if r < high {
            let there = x0 + r < rows;
            if comptime!(lanes == 1) {
                let (mut left, mut right) = (T::from_int(0), T::from_int(0));
                if there && c < columns {
                    left = x[usize::cast_from(from)][0];
                }
                if there && c + 1 < columns {
                    right = x[usize::cast_from(from + at.column)][0];
                }
                tile[to] = pair::<T>(left, right);
            } else {
                let mut numbers = Vector::<T, N>::new(T::from_int(0));
                if there && c < columns {
                    numbers = x[usize::cast_from(from) / lanes];
                }
                #[unroll]
                for n in 0..comptime!(lanes / 2) {
                    tile[to + n] = pair::<T>(numbers[comptime!(2 * n)], numbers[comptime!(2 * n + 1)]);
                }
            }
        }
    }
}

/// `out[row, n] = Σ_d a[row, d] · b[n, d]` of this plane's 16 rows of `a` and all rows of `b`; for eight rows of `b` four numbers a lane,
/// whose places [`row_of`] and [`column_of`] tell.
#[cube]
fn products<T: Numeric>(
    a: &SharedMemory<Pair<T>>,
    b: &SharedMemory<Pair<T>>,
    scratch: &mut SharedMemory<f32>,
    #[comptime] wide: usize,
    #[comptime] form: Cores,
) -> Array<f32> {
    let pitch = comptime!(pitch(wide));
    let mut out = cleared(comptime!(form.other / 2), form);
    let mut left = Array::<Pair<T>>::new(4usize);
    let mut right = Array::<Pair<T>>::new(2usize);
    let of_a = (16 * UNIT_POS_Y as usize + rank()) * pitch + quad();
    let of_b = rank() * pitch + quad();
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for d in 0..comptime!(wide / 16) {
        left[0] = a[of_a + 8 * d];
        left[1] = a[of_a + comptime!(8 * pitch) + 8 * d];
        left[2] = a[of_a + 8 * d + 4];
        left[3] = a[of_a + comptime!(8 * pitch) + 8 * d + 4];
        #[unroll(unroll)]
        for n in 0..comptime!(form.other / 8) {
            right[0] = b[of_b + n * comptime!(8 * pitch) + 8 * d];
            right[1] = b[of_b + n * comptime!(8 * pitch) + 8 * d + 4];
            multiply::<T>(&left, &right, &mut out, 4 * n, scratch, form);
        }
    }
    out
}

/// `out[row, c] += Σ_n weights[row, n] · x[n, c]` with weights as [`products`] left them. The lanes that a product of 16 × 8 has for
/// its columns 0 to 7 take the even ones of sixteen, then the odd ones: so a lane reads pairs that lie side by side, and its
/// eight results of sixteen columns are four neighbours ([`of_result`]) of two rows.
#[cube]
fn weighted<T: Numeric>(
    weights: &Array<f32>,
    x: &SharedMemory<Pair<T>>,
    out: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    #[comptime] wide: usize,
    #[comptime] form: Cores,
) {
    let pitch = comptime!(pitch(wide));
    let mut left = Array::<Pair<T>>::new(4usize);
    let mut right = Array::<Pair<T>>::new(2usize);
    let of_x = 2 * quad() * pitch + rank();
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for n in 0..comptime!(form.other / 16) {
        #[unroll(unroll)]
        for i in 0..4usize {
            left[i] = pair::<T>(T::cast_from(weights[8 * n + 2 * i]), T::cast_from(weights[8 * n + 2 * i + 1]));
        }
        #[unroll(unroll)]
        for c in 0..comptime!(wide / 16) {
            let at = of_x + n * comptime!(16 * pitch) + 8 * c;
            let (upper, lower) = (x[at], x[at + pitch]);
            let (upper_8, lower_8) = (x[at + comptime!(8 * pitch)], x[at + comptime!(9 * pitch)]);
            #[unroll(unroll)]
            for odd in 0..2usize {
                right[0] = pair::<T>(select(odd == 0, upper[0], upper[1]), select(odd == 0, lower[0], lower[1]));
                right[1] =
                    pair::<T>(select(odd == 0, upper_8[0], upper_8[1]), select(odd == 0, lower_8[0], lower_8[1]));
                multiply::<T>(&left, &right, out, 8 * c + 4 * odd, scratch, form);
            }
        }
    }
}

/// The row of this lane's number `e` of [`products`] or [`weighted`], among the cube's.
#[cube]
fn row_of(e: usize) -> usize {
    16 * UNIT_POS_Y as usize + rank() + e / 2 % 2 * 8
}

/// The row of `b` of this lane's number `e` of [`products`].
#[cube]
fn column_of(e: usize) -> usize {
    e / 4 * 8 + 2 * quad() + e % 2
}

/// The column of this lane's number `e` of [`weighted`].
#[cube]
fn of_result(e: usize) -> usize {
    e / 8 * 16 + 4 * quad() + e % 2 * 2 + e / 4 % 2
}

/// `n` zeros.
#[cube]
fn cleared(#[comptime] n: usize, #[comptime] form: Cores) -> Array<f32> {
    let mut x = Array::<f32>::new(n);
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for i in 0..n {
        x[i] = f32::new(0.0);
    }
    x
}

/// Writes the rows of a result that are there, times `factor[0]` for this lane's first row of 16 and `factor[1]` for its second.
#[cube]
fn write<T: Numeric>(
    x: &Array<f32>,
    factor: &Array<f32>,
    out: &mut Array<T>,
    first: usize,
    x0: usize,
    rows: usize,
    columns: usize,
    #[comptime] wide: usize,
    #[comptime] form: Cores,
) {
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for e in 0..comptime!(wide / 2) {
        let (row, column) = (x0 + row_of(e), of_result(e));
        if row < rows && column < columns {
            out[(first + row) * columns + column] = T::cast_from(x[e] * factor[e / 2 % 2]);
        }
    }
}
