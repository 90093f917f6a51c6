//! The trait of metrics, and how outputs and targets are read back and checked, once for all of them.

use gradus_core::{DType, Error, Result, Tensor};

/// Something measured over many batches.
pub trait Metric: Send {
    /// Its name, as histories and checkpoints have it: `accuracy`.
    fn name(&self) -> &str;
    /// Takes a batch into account: the model's outputs and what they should be. Waits for the device.
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()>;
    /// The value over all batches since the last [`reset`](Metric::reset); NaN if there were none.
    fn value(&self) -> f64;
    /// Forgets all batches.
    fn reset(&mut self);
    /// Whether a larger value is a better one.
    fn larger_is_better(&self) -> bool {
        true
    }
}

/// A batch of class scores and the right classes, on the host.
pub(crate) struct Scored {
    scores: Vec<f32>,
    pub classes: usize,
    pub targets: Vec<i64>,
}

impl Scored {
    /// Reads scores `[samples, classes]` and targets `[samples]`. Errors name what does not fit: shapes, a dtype, a label out of
    /// range, a score that is NaN.
    pub fn read(metric: &str, outputs: &Tensor, targets: &Tensor) -> Result<Scored> {
        let says = |what: String| Error::data(format!("{metric}: {what}"));
        if outputs.rank() != 2 || targets.rank() != 1 || outputs.dims()[0] != targets.dims()[0] {
            return Err(says(format!(
                "needs scores [samples, classes] and as many class indices [samples]; got {} and {}",
                outputs.shape(),
                targets.shape()
            )));
        }
        if !targets.dtype().is_int() && targets.dtype() != DType::Bool {
            return Err(says(format!("class indices are integers; got {}", targets.dtype())));
        }
        let (classes, scores, targets) = (outputs.dims()[1], outputs.to_vec::<f32>()?, targets.to_vec::<i64>()?);
        if let Some((i, label)) = targets.iter().enumerate().find(|(_, t)| **t < 0 || **t as u64 >= classes as u64) {
            return Err(says(format!("sample {i} has the label {label}, but there are scores for {classes} classes")));
        }
        if let Some(i) = scores.iter().position(|s| s.is_nan()) {
            return Err(says(format!("the score of class {} for sample {} is NaN", i % classes, i / classes)));
        }
        Ok(Scored { scores, classes, targets })
    }

    /// Scores and target of each sample.
    pub fn samples(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.scores.chunks_exact(self.classes.max(1)).zip(self.targets.iter().map(|&t| t as usize))
    }
}

/// How many classes come before `class` in the order of falling scores; among equal scores the lower index comes first, as
/// `argmax` has it.
pub(crate) fn rank_of(class: usize, scores: &[f32]) -> usize {
    let own = scores[class];
    scores.iter().enumerate().filter(|&(i, &s)| s > own || (s == own && i < class)).count()
}

/// The class with the largest score, the first of equals.
pub(crate) fn best(scores: &[f32]) -> usize {
    let mut best = 0;
    for (i, &s) in scores.iter().enumerate() {
        if s > scores[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let scores = [1.0, 3.0, 3.0, -1.0];
        assert_eq!(best(&scores), 1);
        assert_eq!([0, 1, 2, 3].map(|c| rank_of(c, &scores)), [2, 0, 1, 3]);
        assert_eq!(best(&[f32::NEG_INFINITY; 3]), 0);
    }
}
