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

/// Adds a block's terms to the lanes. One term after the other: lane by lane, the compiler puts the terms of a lane into one register and turns
/// the whole block for it, which takes up to eight times as long.
#[inline(always)]
fn add_to<T: Float, const M: usize>(lanes: &mut [[T; LANES]; M], terms: [[T; LANES]; M]) {
    for (lanes, terms) in lanes.iter_mut().zip(terms) {
        for (lane, term) in lanes.iter_mut().zip(terms) {
            *lane = *lane + term;
        }
    }
}

/// A row's whole blocks; as many as in the first row, so that its length alone is asked for.
#[inline(always)]
fn whole_blocks<T: Float, const N: usize>(x: [&[T]; N]) -> [&[[T; LANES]]; N] {
    let whole = x[0].len() / LANES;
    x.map(|x| &x.as_chunks().0[..whole])
}

/// What is left of rows behind their last whole block, as blocks filled up with zeros.
#[inline(always)]
fn filled_up<T: Float, const N: usize>(x: [&[T]; N]) -> [[T; LANES]; N] {
    let (n, mut blocks) = (x[0].len(), [[T::ZERO; LANES]; N]);
    for (block, x) in blocks.iter_mut().zip(x) {
        block[..n % LANES].copy_from_slice(&x[n - n % LANES..n]);
    }
    blocks
}

/// Σ term(x\[0\]\[i\], x\[1\]\[i\], ..) of rows of one length, for each of M terms.
#[inline(always)]
pub(crate) fn sums<T: Float, const N: usize, const M: usize>(x: [&[T]; N], term: impl Fn([T; N]) -> [T; M]) -> [T; M] {
    let mut lanes = [[T::ZERO; LANES]; M];
    let (blocks, rest) = (whole_blocks(x), x[0].len() % LANES);
    for b in 0..blocks[0].len() {
        add_to(&mut lanes, terms(blocks.map(|x| &x[b]), &term));
    }
    if rest > 0 {
        add_to(&mut lanes, first(rest, terms(filled_up(x).each_ref(), &term)));
    }
    lanes.map(total)
}

/// The terms of a block.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
fn terms<T: Float, const N: usize, const M: usize>(
    x: [&[T; LANES]; N],
    term: &impl Fn([T; N]) -> [T; M],
) -> [[T; LANES]; M] {
    let mut terms = [[T::ZERO; LANES]; M];
    for i in 0..LANES {
        let t = term(x.map(|x| x[i]));
        for m in 0..M {
            terms[m][i] = t[m];
        }
    }
    terms
}

/// The first `n` lanes' terms; zeros, which leave a sum as it is, in the others. They are written, not chosen: of sixteen conditions the compiler
/// makes jumps, and takes the sums apart for them, in the loop over whole blocks too.
#[inline(always)]
fn first<T: Float, const M: usize>(n: usize, mut terms: [[T; LANES]; M]) -> [[T; LANES]; M] {
    for terms in &mut terms {
        terms[n..].fill(T::ZERO);
    }
    terms
}

/// [`sums`] of an f that gives the terms and a number, which is written to `out`.
#[inline(always)]
pub(crate) fn sums_and_map<T: Float, const N: usize, const M: usize>(
    x: [&[T]; N],
    out: &mut [T],
    f: impl Fn([T; N]) -> ([T; M], T),
) -> [T; M] {
    let mut lanes = [[T::ZERO; LANES]; M];
    let (to, end) = out[..x[0].len()].as_chunks_mut::<LANES>();
    let (blocks, rest) = (whole_blocks(x), x[0].len() % LANES);
    for (b, to) in to.iter_mut().enumerate() {
        add_to(&mut lanes, terms_and_map(blocks.map(|x| &x[b]), to, &f));
    }
    if rest > 0 {
        let mut to = [T::ZERO; LANES];
        add_to(&mut lanes, first(rest, terms_and_map(filled_up(x).each_ref(), &mut to, &f)));
        end.copy_from_slice(&to[..rest]);
    }
    lanes.map(total)
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
fn terms_and_map<T: Float, const N: usize, const M: usize>(
    x: [&[T; LANES]; N],
    to: &mut [T; LANES],
    f: &impl Fn([T; N]) -> ([T; M], T),
) -> [[T; LANES]; M] {
    let mut terms = [[T::ZERO; LANES]; M];
    for i in 0..LANES {
        let (t, y) = f(x.map(|x| x[i]));
        to[i] = y;
        for m in 0..M {
            terms[m][i] = t[m];
        }
    }
    terms
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
        let [mut block] = filled_up([tail]);
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

    #[test]
    fn what_fills_up_a_row_counts_for_nothing() {
        for n in 0..70 {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            // Of the zeros behind the row the terms would be NaN and one.
            let terms = |[x]: [f32; 1]| [x / x, (x - 1.0) * (x - 1.0)];
            let mut y = vec![-1.0; n];
            let of_map = sums_and_map([&x], &mut y, |x| (terms(x), x[0] + 1.0));
            assert_eq!(sums([&x], terms), of_map, "{n} numbers");
            assert_eq!(of_map[0], n as f32);
            assert_eq!(of_map[1], (0..n).map(|i| (i * i) as f32).sum::<f32>(), "{n} numbers");
            assert!(y.iter().zip(&x).all(|(y, x)| *y == x + 1.0), "{y:?}");
        }
    }
}
