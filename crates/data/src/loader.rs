//! The loader: batches of a source, in an order that is a pure function of (seed, epoch).
//!
//! Batch k of an epoch can be asked for without drawing those before it, which is how a run resumes in the middle of an
//! epoch with exactly the batches that were to come.

use crate::collate::Collate;
use crate::source::Source;
use gradus_core::tensor::permutation;
use gradus_core::{Device, Error, Key, Result};
use std::ops::Range;

/// The order of `n` samples in an epoch: shuffled by (seed, epoch), or ascending without a seed.
pub fn order(n: usize, seed: Option<u64>, epoch: usize) -> Vec<usize> {
    match seed {
        Some(seed) => permutation(n, &Key::new(seed).fold("shuffle").fold_in(epoch as u64)),
        None => (0..n).collect(),
    }
}

/// Batches of a source on a device.
///
/// ```
/// # fn show(device: gradus_core::Device) -> Result<(), gradus_core::Error> {
/// use gradus_data::{Loader, digits};
/// let loader = Loader::new(digits()?, device).batch_size(64).shuffle(42);
/// for batch in loader.epoch(0)? {
///     let batch = batch?;
///     assert_eq!(&batch.input.dims()[1..], [1, 8, 8]);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Loader<S> {
    source: S,
    device: Device,
    batch_size: usize,
    shuffle: Option<u64>,
    augment: u64,
    drop_last: bool,
}

impl<S: Source> Loader<S> {
    /// The source's batches on `device`: 32 samples each, not shuffled, the last batch as it comes.
    pub fn new(source: S, device: Device) -> Loader<S> {
        Loader { source, device, batch_size: 32, shuffle: None, augment: 0, drop_last: false }
    }
    /// Samples in a batch. Zero is refused when an epoch begins.
    pub fn batch_size(mut self, samples: usize) -> Loader<S> {
        self.batch_size = samples;
        self
    }
    /// A new order for each epoch, a pure function of (seed, epoch). Sources draw what is random about their samples from the
    /// same seed.
    pub fn shuffle(mut self, seed: u64) -> Loader<S> {
        self.shuffle = Some(seed);
        self.augment = seed;
        self
    }
    /// The seed from which sources draw what is random about their samples, where it is not [`shuffle`](Self::shuffle)'s.
    pub fn augment_seed(mut self, seed: u64) -> Loader<S> {
        self.augment = seed;
        self
    }
    /// Leaves out the last batch of an epoch if it is not full. An error at the first epoch if then none is left.
    pub fn drop_last(mut self, yes: bool) -> Loader<S> {
        self.drop_last = yes;
        self
    }

    /// The source.
    pub fn source(&self) -> &S {
        &self.source
    }
    /// Where the batches are.
    pub fn device(&self) -> Device {
        self.device
    }
    /// The seed of the shuffling, if there is any.
    pub fn seed(&self) -> Option<u64> {
        self.shuffle
    }
    /// What two loaders must have in common to give the same batches, in words; kept in checkpoints.
    pub fn describe(&self) -> String {
        let shuffle = self.shuffle.map_or("in order".to_string(), |seed| format!("shuffled by seed {seed}"));
        let last = if self.drop_last { ", last partial batch dropped" } else { "" };
        format!(
            "{} samples in batches of {}, {shuffle}, augmented by seed {}{last}",
            self.source.len(),
            self.batch_size,
            self.augment
        )
    }

    /// Samples in one epoch (without those of a last batch that is left out).
    pub fn samples(&self) -> usize {
        let n = self.source.len();
        if self.drop_last { n - n % self.batch_size.max(1) } else { n }
    }
    /// Batches in one epoch.
    pub fn batches(&self) -> usize {
        self.samples().div_ceil(self.batch_size.max(1))
    }
    /// Samples in batch `index` of an epoch; 0 beyond the last.
    pub fn samples_in(&self, index: usize) -> usize {
        self.range(index).len()
    }
    /// Where batch `index` lies in the epoch's order.
    fn range(&self, index: usize) -> Range<usize> {
        let (n, start) = (self.samples(), index.saturating_mul(self.batch_size));
        start.min(n)..start.saturating_add(self.batch_size).min(n)
    }

    /// Whether batches can be had: an empty source and batches of size 0 are errors.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::misuse("the batch size is 0; a batch needs at least one sample"));
        }
        if self.source.is_empty() {
            return Err(Error::data("the data set is empty: it has no samples to make batches of"));
        }
        if self.batches() == 0 {
            return Err(Error::data(format!(
                "{} samples do not fill one batch of {}, and partial batches are left out (drop_last)",
                self.source.len(),
                self.batch_size
            )));
        }
        Ok(())
    }

    /// The batches of an epoch. Errors as [`check`](Self::check) does; each batch is a `Result` of its own.
    pub fn epoch(&self, epoch: usize) -> Result<Epoch<'_, S>> {
        self.epoch_from(epoch, 0)
    }
    /// The batches of an epoch from batch `first` on; those before are not drawn.
    pub fn epoch_from(&self, epoch: usize, first: usize) -> Result<Epoch<'_, S>> {
        self.check()?;
        let key = Key::new(self.augment).fold("sample").fold_in(epoch as u64);
        Ok(Epoch { loader: self, order: order(self.source.len(), self.shuffle, epoch), key, next: first })
    }
}

/// The batches of one epoch. See [`Loader::epoch`].
#[derive(Debug)]
pub struct Epoch<'a, S> {
    loader: &'a Loader<S>,
    order: Vec<usize>,
    key: Key,
    next: usize,
}

impl<S: Source> Epoch<'_, S> {
    /// The index of the batch that comes next, from 0.
    pub fn batch_index(&self) -> usize {
        self.next
    }
    /// The samples of the batch that comes next, as indices into the source.
    pub fn upcoming(&self) -> &[usize] {
        &self.order[self.loader.range(self.next)]
    }
    /// The next batch, on this device in place of the loader's.
    pub fn next_on(&mut self, device: Device) -> Option<Result<<S::Item as Collate>::Batch>> {
        if self.upcoming().is_empty() {
            return None;
        }
        let batch = self.loader.source.batch(self.upcoming(), &self.key, device);
        self.next += 1;
        Some(batch)
    }
}

impl<S: Source> Iterator for Epoch<'_, S> {
    type Item = Result<<S::Item as Collate>::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_on(self.loader.device)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.loader.batches().saturating_sub(self.next);
        (left, Some(left))
    }
    /// Batches that are skipped are not drawn.
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.next = self.next.saturating_add(n);
        self.next()
    }
}

impl<S: Source> ExactSizeIterator for Epoch<'_, S> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn orders_are_permutations_named_by_seed_and_epoch() {
        let a = order(1000, Some(3), 0);
        assert_eq!(a.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(a, order(1000, Some(3), 0));
        assert_ne!(a, order(1000, Some(3), 1));
        assert_ne!(a, order(1000, Some(4), 0));
        assert_eq!(order(4, None, 9), [0, 1, 2, 3]);
    }
}
