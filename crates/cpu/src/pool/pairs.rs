//! The most common pool, by far: the largest of 2×2 numbers, two apart, without padding.
//!
//! Rows are first compared with each other and written side by side; pairs of neighbours then lie in whole registers, however
//! short the rows are. Going back, each window's gradient goes to one of four places, and all four are written at once.

use crate::math::Float;
use crate::simd::vectorized;
use gradus_core::functional::window::Window;
use std::hint::select_unpredictable;

/// Whether windows (their last dimension in the last place) are these.
pub(super) fn fits(w: &Window) -> bool {
    w.size == [1, 2, 2] && w.stride == [1, 2, 2] && w.before == [0; 3] && w.dilation == [1; 3] && inside(w)
}

fn inside(w: &Window) -> bool {
    w.output[0] == w.input[0] && (1..3).all(|d| 2 * w.output[d] <= w.input[d])
}

/// So many windows are chosen from at a time.
const BLOCK: usize = 16;

vectorized! {
    /// The larger of two rows, and 2 where it is the second's.
    fn larger_row<T: Float>(first: &[T], second: &[T], best: &mut [T], place: &mut [u8]) {
        for (((b, p), &x), &y) in best.iter_mut().zip(place).zip(first).zip(second) {
            let better = (y > x) | (y.is_nan() & !x.is_nan());
            *b = if better { y } else { x };
            *p = if better { 2 } else { 0 };
        }
    }
    /// The larger of each two neighbours, and its place in the window; of equal ones, the first place's.
    fn larger_neighbour<T: Float>(x: &[T], from: &[u8], best: &mut [T], place: &mut [u8]) {
        let blocks = best.len() / BLOCK;
        for i in 0..blocks {
            block::<T, BLOCK>(&x[2 * BLOCK * i..], &from[2 * BLOCK * i..], &mut best[BLOCK * i..], &mut place[BLOCK * i..]);
        }
        for i in blocks * BLOCK..best.len() {
            block::<T, 1>(&x[2 * i..], &from[2 * i..], &mut best[i..], &mut place[i..]);
        }
    }
    /// Each window's gradient at its place, and zeros at the other three: two rows.
    fn put_rows<T: Float>(g: &[T], place: &[u8], upper: &mut [T], lower: &mut [T]) {
        let blocks = g.len() / 4;
        for i in 0..blocks {
            put::<T, 4, 8>(&g[4 * i..], &place[4 * i..], &mut upper[8 * i..], &mut lower[8 * i..]);
        }
        for i in 4 * blocks..g.len() {
            put::<T, 1, 2>(&g[i..], &place[i..], &mut upper[2 * i..], &mut lower[2 * i..]);
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
fn block<T: Float, const N: usize>(x: &[T], from: &[u8], best: &mut [T], place: &mut [u8]) {
    let (x, from, best, place) = (&x[..2 * N], &from[..2 * N], &mut best[..N], &mut place[..N]);
    for i in 0..N {
        let (l, r, at_l, at_r) = (x[2 * i], x[2 * i + 1], from[2 * i], from[2 * i + 1] + 1);
        let (nan_l, nan_r) = (l.is_nan(), r.is_nan());
        let better = (r > l) | (nan_r & !nan_l) | (((r == l) | (nan_r & nan_l)) & (at_r < at_l));
        best[i] = if better { r } else { l };
        place[i] = if better { at_r } else { at_l };
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
fn put<T: Float, const N: usize, const M: usize>(g: &[T], place: &[u8], upper: &mut [T], lower: &mut [T]) {
    let (g, place, upper, lower) = (&g[..N], &place[..N], &mut upper[..M], &mut lower[..M]);
    // Places are as good as random: of plain conditions the compiler makes jumps, every other of which is taken wrongly.
    let mut four = [[T::ZERO; N]; 4];
    for (k, to) in four.iter_mut().enumerate() {
        for i in 0..N {
            to[i] = select_unpredictable(place[i] == k as u8, g[i], T::ZERO);
        }
    }
    for i in 0..N {
        (upper[2 * i], upper[2 * i + 1]) = (four[0][i], four[1][i]);
        (lower[2 * i], lower[2 * i + 1]) = (four[2][i], four[3][i]);
    }
}

/// The largest number of each window of a plane stack, and its place. `room` and `from` have a number for each of two rows.
pub(super) fn forward<T: Float>(
    w: &Window,
    x: &[T],
    room: &mut Vec<T>,
    from: &mut Vec<u8>,
    best: &mut [T],
    place: &mut [u8],
) {
    let (width, columns) = (w.input[2], 2 * w.output[2]);
    let len = w.output[1] * columns;
    room.resize(len, T::ZERO);
    from.resize(len, 0);
    for z in 0..w.input[0] {
        let x = &x[z * w.input[1] * width..];
        for (row, (best, place)) in room.chunks_exact_mut(columns).zip(from.chunks_exact_mut(columns)).enumerate() {
            let first = &x[2 * row * width..];
            larger_row(&first[..columns], &first[width..width + columns], best, place);
        }
        let windows = z * len / 2..(z + 1) * len / 2;
        larger_neighbour(room, from, &mut best[windows.clone()], &mut place[windows]);
    }
}

/// The gradient of a plane stack; what no window sees is left as it is.
pub(super) fn backward<T: Float>(w: &Window, g: &[T], place: &[u8], dx: &mut [T]) {
    let (width, count) = (w.input[2], w.output[2]);
    for (row, (g, place)) in g.chunks_exact(count).zip(place.chunks_exact(count)).enumerate() {
        let first = (row / w.output[1] * w.input[1] + row % w.output[1] * 2) * width;
        let (upper, lower) = dx[first..first + 2 * width].split_at_mut(width);
        put_rows(g, place, upper, lower);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_nans_go_to_the_first_place() {
        let nan = f32::NAN;
        let cases = [
            ([1.0, 2.0, 3.0, 4.0], 3),
            ([5.0, 5.0, 5.0, 5.0], 0),
            ([1.0, 5.0, 5.0, 2.0], 1),
            ([1.0, 2.0, 5.0, 5.0], 2),
            ([1.0, nan, nan, 9.0], 1),
            ([9.0, 1.0, nan, nan], 2),
            ([f32::NEG_INFINITY; 4], 0),
        ];
        // Windows side by side, so that whole blocks and single windows both come up.
        let windows = 3 * cases.len();
        let w = Window {
            rank: 2,
            input: [1, 2, 2 * windows],
            output: [1, 1, windows],
            size: [1, 2, 2],
            stride: [1, 2, 2],
            before: [0; 3],
            dilation: [1; 3],
        };
        assert!(fits(&w));
        let case = |i: usize| cases[i % cases.len()];
        let row = |y: usize| (0..2 * windows).map(move |x| case(x / 2).0[2 * y + x % 2]);
        let x: Vec<f32> = row(0).chain(row(1)).collect();
        let (mut best, mut place) = (vec![0.0; windows], vec![9; windows]);
        forward(&w, &x, &mut Vec::new(), &mut Vec::new(), &mut best, &mut place);
        for i in 0..windows {
            let (numbers, at) = case(i);
            assert_eq!(place[i], at, "window {numbers:?}");
            assert_eq!(best[i].to_bits(), numbers[at as usize].to_bits(), "window {numbers:?}");
        }
        let g: Vec<f32> = (1..=windows).map(|i| i as f32).collect();
        let mut dx = vec![-1.0; x.len()];
        backward(&w, &g, &place, &mut dx);
        for (i, &d) in dx.iter().enumerate() {
            let (y, x) = (i / (2 * windows), i % (2 * windows));
            let want = if case(x / 2).1 as usize == 2 * y + x % 2 { g[x / 2] } else { 0.0 };
            assert_eq!(d, want, "place {y}, {x}");
        }
    }
}
