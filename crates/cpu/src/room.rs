//! Room of a thread's own, which stays with it from kernel to kernel: what it holds stays near, and nothing clears it.

use crate::vector::Real;
use std::cell::RefCell;

thread_local! {
    static ROOM: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with room for `n` numbers of any value.
pub(crate) fn with_room<T: Real>(n: usize, f: impl FnOnce(&mut [T])) {
    ROOM.with_borrow_mut(|room| {
        let words = (n * size_of::<T>()).div_ceil(size_of::<f64>());
        if room.len() < words {
            room.resize(words, 0.0);
        }
        // SAFETY: `T` is f32 or f64: no larger, no stricter in alignment, and any bits are a value.
        f(unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), n) })
    });
}

/// Runs `f` with room in parts, each on a cache line of its own.
pub(crate) fn with_parts<T: Real, const N: usize>(lens: [usize; N], f: impl FnOnce([&mut [T]; N])) {
    let line = 64 / size_of::<T>();
    let sizes = lens.map(|n| n.next_multiple_of(line) + line); // a line apart: parts of 4 KiB's multiples would collide
    with_room(sizes.iter().sum::<usize>() + line, |room: &mut [T]| {
        let start = room.as_ptr().align_offset(64);
        let mut rest = &mut room[start..];
        f(std::array::from_fn(|i| {
            let (part, more) = std::mem::take(&mut rest).split_at_mut(sizes[i]);
            rest = more;
            &mut part[..lens[i]]
        }))
    });
}
