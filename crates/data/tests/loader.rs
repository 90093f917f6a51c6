//! Batches on a device: their content, order and errors.

use gradus_core::{Device, Key, Result};
use gradus_data::{Batch, InMemory, Loader, Map, Sample, Source, Subset, TensorData, digits};

fn cpu() -> Device {
    gradus_cpu::device()
}

/// Samples whose input is [i, i + 0.5] and whose label is i.
fn numbered(n: usize) -> InMemory {
    let inputs: Vec<f32> = (0..n).flat_map(|i| [i as f32, i as f32 + 0.5]).collect();
    InMemory::labelled(&inputs, &[2], &(0..n as i64).collect::<Vec<_>>()).unwrap()
}

fn labels(batches: impl Iterator<Item = Result<Batch>>) -> Vec<Vec<i64>> {
    batches.map(|b| b.unwrap().target.to_vec::<i64>().unwrap()).collect()
}

#[test]
fn each_sample_comes_once_an_epoch_with_its_own_label() {
    let loader = Loader::new(numbered(10), cpu()).batch_size(4).shuffle(1);
    let mut seen = Vec::new();
    for batch in loader.epoch(0).unwrap() {
        let batch = batch.unwrap();
        let (x, y) = (batch.input.to_vec::<f32>().unwrap(), batch.target.to_vec::<i64>().unwrap());
        assert_eq!(batch.input.dims(), [batch.len(), 2]);
        x.chunks(2).zip(&y).for_each(|(x, &y)| assert_eq!(x, [y as f32, y as f32 + 0.5]));
        seen.extend(y);
    }
    assert_ne!(seen, (0..10).collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

#[test]
fn an_epoch_entered_in_the_middle_gives_the_batches_that_were_to_come() {
    let loader = Loader::new(numbered(103), cpu()).batch_size(8).shuffle(5);
    for epoch in [0, 1, 7] {
        let whole = labels(loader.epoch(epoch).unwrap());
        assert_eq!(whole.len(), loader.batches());
        for first in [0, 1, 6, 12, 13, 50] {
            assert_eq!(labels(loader.epoch_from(epoch, first).unwrap()), whole[first.min(13)..]);
        }
        assert_eq!(labels(loader.epoch(epoch).unwrap().skip(3)), whole[3..]);
        assert_eq!(loader.epoch(epoch).unwrap().nth(4).unwrap().unwrap().target.to_vec::<i64>().unwrap(), whole[4]);
    }
}

#[test]
fn the_last_partial_batch_is_kept_or_dropped() {
    let loader = Loader::new(numbered(10), cpu()).batch_size(4);
    let sizes = |l: &Loader<InMemory>| l.epoch(0).unwrap().map(|b| b.unwrap().len()).collect::<Vec<_>>();
    assert_eq!(sizes(&loader), [4, 4, 2]);
    assert_eq!((loader.batches(), loader.samples(), loader.samples_in(2), loader.samples_in(3)), (3, 10, 2, 0));
    let full = loader.drop_last(true);
    assert_eq!(sizes(&full), [4, 4]);
    assert_eq!((full.batches(), full.samples(), full.epoch(0).unwrap().len()), (2, 8, 2));
}

#[test]
fn augmentation_is_a_function_of_seed_epoch_and_sample_alone() {
    let noisy = |batch_size, shuffle, epoch| {
        let source = Map::new(numbered(20), |s: Sample, key: &Key| Ok((s.target.i64_at(0), key.block(0)[0])));
        let loader = Loader::new(source, cpu()).batch_size(batch_size).augment_seed(9);
        let loader = if shuffle { loader.shuffle(9) } else { loader };
        let mut all: Vec<(i64, u32)> = Vec::new();
        for batch in loader.epoch(epoch).unwrap() {
            let (label, noise) = batch.unwrap();
            all.extend(label.to_vec::<i64>().unwrap().into_iter().zip(noise.to_vec::<u32>().unwrap()));
        }
        all.sort_unstable();
        all
    };
    assert_eq!(noisy(3, false, 2), noisy(7, true, 2));
    let (a, b) = (noisy(3, false, 2), noisy(3, false, 3));
    assert!(a.iter().zip(&b).all(|(a, b)| a.1 != b.1), "another epoch must draw anew");
}

#[test]
fn the_fast_path_gives_what_collating_gives() {
    struct Slow(InMemory);
    impl Source for Slow {
        type Item = Sample;
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize, key: &Key) -> Result<Sample> {
            self.0.get(index, key)
        }
    }
    let set = digits().unwrap();
    let indices = vec![1796, 0, 3, 3, 900];
    let fast = Subset::new(&set, indices.clone()).unwrap().batch(&[0, 1, 2, 3, 4], &Key::new(0), cpu()).unwrap();
    let slow = Slow(set.clone()).batch(&indices, &Key::new(0), cpu()).unwrap();
    assert_eq!(fast.input.to_data().unwrap(), slow.input.to_data().unwrap());
    assert_eq!(fast.target.to_data().unwrap(), slow.target.to_data().unwrap());
    assert_eq!(fast.input.dims(), [5, 1, 8, 8]);
}

#[test]
fn what_cannot_be_loaded_is_named() {
    let says = |loader: Loader<InMemory>, part: &str| {
        let e = loader.epoch(0).expect_err("must be refused").to_string();
        assert!(e.contains(part), "{e}");
    };
    says(Loader::new(numbered(3), cpu()).batch_size(0), "batch size is 0");
    says(Loader::new(numbered(0), cpu()), "empty");
    says(Loader::new(numbered(3), cpu()).batch_size(4).drop_last(true), "3 samples do not fill one batch of 4");
}

#[test]
fn ragged_samples_are_named_by_their_place_and_shape() {
    struct Ragged;
    impl Source for Ragged {
        type Item = TensorData;
        fn len(&self) -> usize {
            3
        }
        fn get(&self, index: usize, _: &Key) -> Result<TensorData> {
            let n = if index == 2 { 5 } else { 4 };
            TensorData::try_new(&vec![0f32; n], &[n])
        }
    }
    let e = Loader::new(Ragged, cpu()).epoch(0).unwrap().next().unwrap().unwrap_err().to_string();
    assert!(e.contains("number 0 is f32 [4]") && e.contains("number 2 is f32 [5]"), "{e}");
    let rows = Map::new(Ragged, |x: TensorData, _: &Key| Ok(vec![1i64; x.shape[0]]));
    let e = Loader::new(rows, cpu()).epoch(0).unwrap().next().unwrap().unwrap_err().to_string();
    assert!(e.contains("number 0 has 4 values, number 2 has 5"), "{e}");
}

#[test]
fn an_error_of_a_sample_names_the_sample() {
    let broken = Map::new(numbered(9), |s: Sample, _: &Key| match s.target.i64_at(0) {
        6 => Err(gradus_core::Error::data("the file is gone")),
        label => Ok(label),
    });
    let errors: Vec<String> = Loader::new(broken, cpu())
        .batch_size(3)
        .epoch(0)
        .unwrap()
        .filter_map(|b| b.err())
        .map(|e| e.to_string())
        .collect();
    assert_eq!(errors, ["sample 6: the file is gone"]);
}
