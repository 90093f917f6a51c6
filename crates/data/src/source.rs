//! The one trait through which data enters, and what can be made of a source: a subset, and samples changed on the way.

use crate::collate::Collate;
use gradus_core::{Device, Error, Key, Result};
use std::sync::Arc;

/// A set of samples. Implement `len` and `get` for your own data; the rest is provided.
///
/// ```
/// use gradus_core::{Key, Result};
/// use gradus_data::Source;
///
/// /// y = 2x, with noise that differs from epoch to epoch but is the same in every run.
/// struct Noisy;
/// impl Source for Noisy {
///     type Item = (f32, f32);
///     fn len(&self) -> usize {
///         100
///     }
///     fn get(&self, index: usize, key: &Key) -> Result<(f32, f32)> {
///         let noise = gradus_core::rng::uniform(key.block(0)[0]) - 0.5;
///         Ok((index as f32, 2.0 * index as f32 + noise))
///     }
/// }
/// assert_eq!(Noisy.get(3, &Key::new(7)).unwrap(), Noisy.get(3, &Key::new(7)).unwrap());
/// ```
pub trait Source: Send + Sync {
    /// A sample: [`Sample`](crate::Sample), numbers, arrays, or tuples of them.
    type Item: Collate;

    /// Number of samples.
    fn len(&self) -> usize;

    /// The sample at `index`, which is below [`len`](Source::len). Whatever is random about it (augmentation) is drawn from
    /// `key` alone, which stands for (seed, epoch, index).
    fn get(&self, index: usize, key: &Key) -> Result<Self::Item>;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples at these indices as one batch on `device`. `key` stands for (seed, epoch); each sample draws from its own
    /// fold of it. Sources whose samples lie side by side copy them straight into the batch.
    fn batch(&self, indices: &[usize], key: &Key, device: Device) -> Result<<Self::Item as Collate>::Batch> {
        let one = |&i: &usize| self.get(i, &key.fold_in(i as u64)).map_err(|e| e.context(format!("sample {i}")));
        Self::Item::collate(indices.iter().map(one).collect::<Result<_>>()?, device)
    }
}

macro_rules! source_behind {
    ($($pointer:ty),*) => {$(
        impl<S: Source + ?Sized> Source for $pointer {
            type Item = S::Item;
            fn len(&self) -> usize {
                (**self).len()
            }
            fn get(&self, index: usize, key: &Key) -> Result<S::Item> {
                (**self).get(index, key)
            }
            fn batch(&self, indices: &[usize], key: &Key, device: Device) -> Result<<S::Item as Collate>::Batch> {
                (**self).batch(indices, key, device)
            }
        }
    )*};
}
source_behind!(&S, Arc<S>, Box<S>);

/// Some samples of a source, in an order of their own.
#[derive(Clone, Debug)]
pub struct Subset<S> {
    source: S,
    indices: Vec<usize>,
}

impl<S: Source> Subset<S> {
    /// The samples of `source` at `indices`, of which any may come several times. An index that the source does not have is an
    /// error.
    pub fn new(source: S, indices: Vec<usize>) -> Result<Subset<S>> {
        let n = source.len();
        match indices.iter().find(|&&i| i >= n) {
            Some(i) => Err(Error::data(format!("a subset asks for sample {i} of a data set with {n} samples"))),
            None => Ok(Subset { source, indices }),
        }
    }

    /// Where its samples lie in the source.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The whole source.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn at(&self, index: usize) -> Result<usize> {
        let n = self.indices.len();
        self.indices
            .get(index)
            .copied()
            .ok_or_else(|| Error::data(format!("there is no sample {index} in a subset of {n}")))
    }
}

impl<S: Source> Source for Subset<S> {
    type Item = S::Item;
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn get(&self, index: usize, key: &Key) -> Result<S::Item> {
        self.source.get(self.at(index)?, key)
    }
    fn batch(&self, indices: &[usize], key: &Key, device: Device) -> Result<<S::Item as Collate>::Batch> {
        let there: Vec<usize> = indices.iter().map(|&i| self.at(i)).collect::<Result<_>>()?;
        self.source.batch(&there, key, device)
    }
}

/// A source whose samples pass a function: augmentation, normalization, another type.
#[derive(Clone, Debug)]
pub struct Map<S, F> {
    source: S,
    function: F,
}

impl<S: Source, F, T: Collate> Map<S, F>
where
    F: Fn(S::Item, &Key) -> Result<T> + Send + Sync,
{
    /// Each sample of `source` as `function` makes it; what is random in it is drawn from the key it is given.
    pub fn new(source: S, function: F) -> Map<S, F> {
        Map { source, function }
    }
}

impl<S: Source, F, T: Collate> Source for Map<S, F>
where
    F: Fn(S::Item, &Key) -> Result<T> + Send + Sync,
{
    type Item = T;
    fn len(&self) -> usize {
        self.source.len()
    }
    fn get(&self, index: usize, key: &Key) -> Result<T> {
        // A stream of its own, so that a source that draws and a function that draws do not draw the same numbers.
        (self.function)(self.source.get(index, key)?, &key.fold("map"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Squares;
    impl Source for Squares {
        type Item = i64;
        fn len(&self) -> usize {
            10
        }
        fn get(&self, index: usize, _: &Key) -> Result<i64> {
            Ok((index * index) as i64)
        }
    }

    #[test]
    fn subsets_and_maps_compose() {
        let subset = Subset::new(&Squares, vec![9, 2, 2]).unwrap();
        let mapped = Map::new(subset, |x, _| Ok(x + 1));
        let all: Vec<i64> = (0..mapped.len()).map(|i| mapped.get(i, &Key::new(0)).unwrap()).collect();
        assert_eq!(all, [82, 5, 5]);
    }

    #[test]
    fn a_subset_out_of_range_names_the_index() {
        let e = Subset::new(Squares, vec![1, 10]).unwrap_err().to_string();
        assert!(e.contains("sample 10") && e.contains("10 samples"), "{e}");
        assert!(Subset::new(Squares, vec![1]).unwrap().get(1, &Key::new(0)).is_err());
    }

    #[test]
    fn the_function_of_a_map_draws_another_stream_than_its_source() {
        struct Draws;
        impl Source for Draws {
            type Item = i64;
            fn len(&self) -> usize {
                1
            }
            fn get(&self, _: usize, key: &Key) -> Result<i64> {
                Ok(key.block(0)[0] as i64)
            }
        }
        let both = Map::new(Draws, |x, key: &Key| Ok((x, key.block(0)[0] as i64)));
        let (a, b) = both.get(0, &Key::new(3)).unwrap();
        assert_ne!(a, b);
        assert_eq!((a, b), both.get(0, &Key::new(3)).unwrap());
    }
}
