//! Sums of a row in lanes: a fixed order that fills registers.
//!
//! A sum in the order of the numbers waits for each addition. Here every sixteenth number goes to the same sum, and the sums are
//! added in halves: the same order on every machine, for any number of threads. Whole blocks are arrays of a known length,
//! since a loop over what `chunks` gives is not vectorized.

use crate::math::Float;

/// How many sums run side by side.
pub(crate) const LANES: usize = 16;

/// The lanes made one: the halves are combined until one number is left. Each half has a length of its own in the types, so that it
/// stays in registers.
#[inline(always)]
pub(crate) fn folded<T: Float>(lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let eight: [T; 8] = std::array::from_fn(|i| f(lanes[i], lanes[i + 8]));
    let four: [T; 4] = std::array::from_fn(|i| f(eight[i], eight[i + 4]));
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// The sum of the lanes.
#[inline(always)]
pub(crate) fn total<T: Float>(lanes: [T; LANES]) -> T {
    folded(lanes, |a, b| a + b)
}

/// Σ term(x\[0\]\[i\], x\[1\]\[i\], ..) of rows of one length, for each of M terms.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(crate) fn sums<T: Float, const N: usize, const M: usize>(x: [&[T]; N], term: impl Fn([T; N]) -> [T; M]) -> [T; M] {
    let mut lanes = [[T::ZERO; LANES]; M];
    let blocks = x.map(|x| x.as_chunks::<LANES>());
    let whole = blocks[0].0.len();
    for b in 0..whole {
        let block: [&[T; LANES]; N] = std::array::from_fn(|k| &blocks[k].0[b]);
        for i in 0..LANES {
            let t = term(std::array::from_fn(|k| block[k][i]));
            for m in 0..M {
                lanes[m][i] = lanes[m][i] + t[m];
            }
        }
    }
    for i in 0..blocks[0].1.len() {
        let t = term(std::array::from_fn(|k| blocks[k].1[i]));
        for m in 0..M {
            lanes[m][i] = lanes[m][i] + t[m];
        }
    }
    lanes.map(total)
}

/// The same, of an f that gives the terms and a number, which is written to `out`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(crate) fn sums_and_map<T: Float, const N: usize, const M: usize>(
    x: [&[T]; N],
    out: &mut [T],
    f: impl Fn([T; N]) -> ([T; M], T),
) -> [T; M] {
    let mut lanes = [[T::ZERO; LANES]; M];
    let blocks = x.map(|x| x.as_chunks::<LANES>());
    let (to, rest) = out[..x[0].len()].as_chunks_mut::<LANES>();
    for (b, to) in to.iter_mut().enumerate() {
        let block: [&[T; LANES]; N] = std::array::from_fn(|k| &blocks[k].0[b]);
        for i in 0..LANES {
            let (t, y) = f(std::array::from_fn(|k| block[k][i]));
            to[i] = y;
            for m in 0..M {
                lanes[m][i] = lanes[m][i] + t[m];
            }
        }
    }
    for (i, to) in rest.iter_mut().enumerate() {
        let (t, y) = f(std::array::from_fn(|k| blocks[k].1[i]));
        *to = y;
        for m in 0..M {
            lanes[m][i] = lanes[m][i] + t[m];
        }
    }
    lanes.map(total)
}

/// y = f(x); gives Σ y as [`sums`] would. The numbers beyond the last whole block are a block of their own, filled up with zeros: a loop over
/// the rest would take them one by one, which for a row of ten classes is all of it.
#[inline(always)]
pub(crate) fn map<T: Float>(x: &[T], y: &mut [T], f: impl Fn(T) -> T) -> T {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let (to, rest) = y[..x.len()].as_chunks_mut::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for (x, y) in blocks.iter().zip(to) {
        for i in 0..LANES {
            y[i] = f(x[i]);
            lanes[i] = lanes[i] + y[i];
        }
    }
    if !tail.is_empty() {
        let mut block = [T::ZERO; LANES];
        block[..tail.len()].copy_from_slice(tail);
        for i in 0..LANES {
            block[i] = f(block[i]);
            lanes[i] = lanes[i] + if i < tail.len() { block[i] } else { T::ZERO };
        }
        rest.copy_from_slice(&block[..tail.len()]);
    }
    total(lanes)
}

/// A whole register's numbers from the slice's beginning on, to be read at once: in place if it has so many, else from `spare`, which
/// they are copied to. A row shorter than a register is best read so, with the next row's numbers behind its own.
#[inline(always)]
pub(crate) fn whole<'a, T: Float>(x: &'a [T], spare: &'a mut [T; LANES]) -> &'a [T; LANES] {
    match x.first_chunk() {
        Some(whole) => whole,
        None => {
            spare[..x.len()].copy_from_slice(x);
            spare
        }
    }
}

/// Writes the first `n` numbers; where there is room for all of them, all at once, so that what lies behind is to be written afterwards.
#[inline(always)]
pub(crate) fn put<T: Float>(y: [T; LANES], n: usize, to: &mut [T]) {
    match to.first_chunk_mut() {
        Some(whole) => *whole = y,
        None => {
            let last = y; // a copy, so that the other stays in its register
            to[..n].copy_from_slice(&last[..n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_rows_are_read_and_written() {
        for (n, rows) in [(1, 3), (3, 5), (7, 9), (10, 4), (16, 2)] {
            let x: Vec<f32> = (0..n * rows).map(|i| i as f32).collect();
            let mut y = vec![-1.0; n * rows];
            for r in 0..rows {
                let mut spare = [0.0; LANES];
                put(*whole(&x[r * n..], &mut spare), n, &mut y[r * n..]);
            }
            assert_eq!(x, y, "{rows} rows of {n}");
        }
    }

    #[test]
    fn every_number_is_mapped() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let mut y = vec![-1.0; n];
            let sum = map(&x, &mut y, |v| v + 1.0);
            assert!(y.iter().enumerate().all(|(i, &v)| v == i as f32 + 1.0), "{y:?}");
            assert_eq!(sum, (n * (n + 1) / 2) as f32);
        }
    }

    #[test]
    fn every_number_counts_once() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let [sum, squares] = sums([&x, &x], |[a, b]| [a, a * b]);
            let n = n as f32;
            assert_eq!(sum, n * (n - 1.0) / 2.0, "Σ i below {n}");
            assert_eq!(squares, (n - 1.0) * n * (2.0 * n - 1.0) / 6.0, "Σ i² below {n}");
        }
    }
}
