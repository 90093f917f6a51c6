//! Splits into parts: random, or stratified so that each part has each class in the same share.
//!
//! The sizes are exact and documented, so that "20 %" names a number: n samples and fractions f₁…f_k give ⌊n·f_i⌋ samples
//! each, and the samples that remain go, one each, to the parts with the largest remainders n·f_i − ⌊n·f_i⌋, the earlier
//! part first among equals (the method of largest remainders). A stratified split does this class by class. Who goes
//! where is a pure function of the seed.

use gradus_core::tensor::permutation;
use gradus_core::{Error, Key, Result};
use std::collections::BTreeMap;

/// The indices 0..n, divided at random into parts of these fractions; ascending within each part.
///
/// ```
/// let parts = gradus_data::split(10, &[0.75, 0.25], 0)?; // 7.5 and 2.5: the earlier of equal remainders gets the last one
/// assert_eq!((parts[0].len(), parts[1].len()), (8, 2));
/// # Ok::<(), gradus_core::Error>(())
/// ```
///
/// Errors: fractions that are not positive or do not sum to 1, and a part that would stay empty.
pub fn split(n: usize, fractions: &[f64], seed: u64) -> Result<Vec<Vec<usize>>> {
    check(fractions)?;
    let mut parts = vec![Vec::new(); fractions.len()];
    deal(&(0..n).collect::<Vec<_>>(), fractions, &Key::new(seed).fold("split"), &mut parts);
    finish(parts, n)
}

/// The indices of `labels`, divided at random into parts of these fractions class by class; ascending within each part.
///
/// A part has, of a class with m samples, m·f rounded down or up, so the parts' shares of each class differ by less than one
/// sample from the exact ones.
///
/// Errors: fractions that are not positive or do not sum to 1, and a part that would stay empty.
pub fn stratified_split(labels: &[i64], fractions: &[f64], seed: u64) -> Result<Vec<Vec<usize>>> {
    check(fractions)?;
    let mut classes: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (i, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(i);
    }
    let mut parts = vec![Vec::new(); fractions.len()];
    let key = Key::new(seed).fold("stratified split");
    for (&label, members) in &classes {
        deal(members, fractions, &key.fold_in(label as u64), &mut parts);
    }
    finish(parts, labels.len())
}

/// Gives each part its share of `members`, drawn at random.
fn deal(members: &[usize], fractions: &[f64], key: &Key, parts: &mut [Vec<usize>]) {
    let order = permutation(members.len(), key);
    let mut next = order.iter().map(|&i| members[i]);
    for (part, size) in parts.iter_mut().zip(sizes(members.len(), fractions)) {
        part.extend(next.by_ref().take(size));
    }
}

/// The sizes of the parts of `n` samples, by largest remainders.
fn sizes(n: usize, fractions: &[f64]) -> Vec<usize> {
    // 30 · 0.1 is a little more than 3 in binary: shares within 1e-9 of a whole number are that number.
    let exact = |f: f64| {
        let share = n as f64 * f;
        if (share - share.round()).abs() < 1e-9 * (1.0 + share) { share.round() } else { share }
    };
    let mut sizes: Vec<usize> = fractions.iter().map(|&f| exact(f).floor() as usize).collect();
    let remainder = |i: usize| exact(fractions[i]).fract();
    let mut by_remainder: Vec<usize> = (0..fractions.len()).collect();
    by_remainder.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a))); // stable: the earlier of equals stays first
    let left = n.saturating_sub(sizes.iter().sum());
    by_remainder.iter().cycle().take(left).for_each(|&i| sizes[i] += 1);
    sizes
}

fn check(fractions: &[f64]) -> Result<()> {
    if let Some(f) = fractions.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
        return Err(Error::misuse(format!("the fractions of a split must be positive; got {f} among {fractions:?}")));
    }
    let sum: f64 = fractions.iter().sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(Error::misuse(format!("the fractions of a split must sum to 1; {fractions:?} sum to {sum}")));
    }
    Ok(())
}

fn finish(mut parts: Vec<Vec<usize>>, n: usize) -> Result<Vec<Vec<usize>>> {
    if let Some(i) = parts.iter().position(Vec::is_empty) {
        return Err(Error::data(format!(
            "part {i} of the split would be empty: {n} samples are too few for {} parts",
            parts.len()
        )));
    }
    parts.iter_mut().for_each(|p| p.sort_unstable());
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every index of 0..n in exactly one part.
    fn assert_partition(parts: &[Vec<usize>], n: usize) {
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn sizes_follow_the_largest_remainders() {
        assert_eq!(sizes(1797, &[0.7, 0.1, 0.2]), [1258, 180, 359]); // 1257.9, 179.7, 359.4
        assert_eq!(sizes(30, &[0.1, 0.9]), [3, 27]);
        assert_eq!(sizes(10, &[0.25, 0.25, 0.5]), [3, 2, 5]);
        assert_eq!(sizes(1, &[0.5, 0.5]), [1, 0]);
        assert_eq!(sizes(7, &[1.0]), [7]);
    }

    #[test]
    fn a_split_is_a_partition_named_by_its_seed() {
        let (a, b) = (split(1000, &[0.8, 0.2], 1).unwrap(), split(1000, &[0.8, 0.2], 1).unwrap());
        assert_eq!(a, b);
        assert_ne!(a, split(1000, &[0.8, 0.2], 2).unwrap());
        assert_partition(&a, 1000);
        assert_eq!((a[0].len(), a[1].len()), (800, 200));
        assert_ne!(a[1], (800..1000).collect::<Vec<_>>());
    }

    #[test]
    fn stratified_parts_have_each_class_in_its_share() {
        // 37 zeros, 111 ones, 5 twos
        let labels: Vec<i64> = (0..153)
            .map(|i| {
                if i % 4 == 0 && i < 148 {
                    0
                } else if i < 148 {
                    1
                } else {
                    2
                }
            })
            .collect();
        let parts = stratified_split(&labels, &[0.6, 0.2, 0.2], 5).unwrap();
        assert_partition(&parts, 153);
        for (class, all) in [(0, 37.0), (1, 111.0), (2, 5.0)] {
            for (part, f) in parts.iter().zip([0.6, 0.2, 0.2]) {
                let count = part.iter().filter(|&&i| labels[i] == class).count() as f64;
                assert!((count - all * f).abs() < 1.0, "class {class}: {count} of {all}, asked for {f}");
            }
        }
        assert_eq!(parts, stratified_split(&labels, &[0.6, 0.2, 0.2], 5).unwrap());
    }

    #[test]
    fn bad_splits_are_refused_with_their_values() {
        let says = |r: Result<Vec<Vec<usize>>>, part: &str| {
            let e = r.expect_err("must be refused").to_string();
            assert!(e.contains(part), "{e}");
        };
        says(split(10, &[0.5, 0.4], 0), "sum to 0.9");
        says(split(10, &[1.5, -0.5], 0), "-0.5");
        says(split(10, &[f64::NAN, 1.0], 0), "NaN");
        says(split(0, &[0.5, 0.5], 0), "part 0");
        says(split(1, &[0.5, 0.5], 0), "part 1");
        says(split(1, &[], 0), "sum to");
    }
}
