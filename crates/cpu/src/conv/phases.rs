//! A transposed convolution as convolutions of stride 1: one for each remainder of the stride.
//!
//! Place `q` of x gets tap `k` of window `o` where `o·stride + k·dilation = q + before`. For the places with one remainder of
//! `q + before` by the stride, these are the taps whose distance has the same remainder, at
//! `o = ⌊(q + before)/stride⌋ − ⌊k·dilation/stride⌋`. What is read is y with `reach` zeros before it.

use super::unravel;
use gradus_core::functional::window::Window;

/// The places of x with one remainder, and the taps that they get.
pub(super) struct Phase {
    /// The taps' numbers, and how far behind a place's window they begin.
    pub(super) taps: Vec<usize>,
    pub(super) starts: Vec<[usize; 3]>,
    /// The first place, the strides before it, which are its window, and how many places there are.
    pub(super) at: [usize; 3],
    pub(super) first: [usize; 3],
    pub(super) count: [usize; 3],
}

/// All convolutions of a transposed one.
pub(super) struct Phases {
    /// Those that there are places and taps for.
    pub(super) all: Vec<Phase>,
    /// Zeros before y, and the lengths of what is read with them.
    pub(super) reach: [usize; 3],
    pub(super) padded: [usize; 3],
    /// Whether there are places of x without taps.
    pub(super) leaves_gaps: bool,
}

impl Phases {
    pub(super) fn new(w: &Window) -> Phases {
        let reach: [usize; 3] = std::array::from_fn(|d| (w.span(d) - 1) / w.stride[d]);
        let last: [usize; 3] = std::array::from_fn(|d| (w.input[d] - 1 + w.before[d]) / w.stride[d]);
        let padded = std::array::from_fn(|d| reach[d] + last[d] + 1);
        let remainders = (0..w.stride.iter().product()).map(|i| unravel(i, w.stride));
        let phases = remainders.map(|r| Phase::new(w, reach, r)).filter(|p| !p.count.contains(&0));
        let (all, gaps): (Vec<Phase>, Vec<Phase>) = phases.partition(|p| !p.taps.is_empty());
        Phases { all, reach, padded, leaves_gaps: !gaps.is_empty() }
    }
}

impl Phase {
    fn new(w: &Window, reach: [usize; 3], remainder: [usize; 3]) -> Phase {
        let distance = |k: usize| {
            let k = unravel(k, w.size);
            std::array::from_fn::<usize, 3, _>(|d| k[d] * w.dilation[d])
        };
        let has = |k: &usize| (0..3).all(|d| distance(*k)[d] % w.stride[d] == remainder[d]);
        let taps: Vec<usize> = (0..w.places()).filter(has).collect();
        let start = |&k: &usize| std::array::from_fn(|d| reach[d] - distance(k)[d] / w.stride[d]);
        let strides = |d: usize, place: usize| (place + w.before[d]).saturating_sub(remainder[d]).div_ceil(w.stride[d]);
        let first: [usize; 3] = std::array::from_fn(|d| strides(d, 0));
        let count = std::array::from_fn(|d| strides(d, w.input[d]).saturating_sub(first[d]));
        let at = std::array::from_fn(|d| first[d] * w.stride[d] + remainder[d] - w.before[d]);
        Phase { starts: taps.iter().map(start).collect(), taps, at, first, count }
    }
}
