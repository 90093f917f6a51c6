//! Sums of a row in lanes: a fixed order that fills registers.
//!
//! A sum in the order of the numbers waits for each addition. Here every sixteenth number goes to the same sum, and the sums are
//! added in halves: the same order on every machine, for any number of threads. Whole blocks are arrays of a known length,
//! since a loop over what `chunks` gives is not vectorized.

use crate::math::Float;

/// How many sums run side by side.
pub(crate) const LANES: usize = 16;

/// The sum of the lanes: the halves are added until one number is left.
#[inline(always)]
pub(crate) fn total<T: Float>(mut lanes: [T; LANES]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    lanes[0]
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

#[cfg(test)]
mod tests {
    use super::*;

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
