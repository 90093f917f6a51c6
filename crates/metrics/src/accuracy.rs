//! The share of samples whose class was found, at first guess or among the k best.

use crate::metric::{Metric, Scored, rank_of};
use gradus_core::{Error, Result, Tensor};

/// The share of samples whose largest score is the right class's (the first of equal scores counts). Takes scores
/// `[samples, classes]` of any floating-point dtype (logits or probabilities) and class indices `[samples]`.
///
/// scikit-learn: `accuracy_score`.
#[derive(Clone, Debug, Default)]
pub struct Accuracy {
    right: u64,
    samples: u64,
}

impl Accuracy {
    /// Nothing counted yet.
    pub fn new() -> Accuracy {
        Accuracy::default()
    }
    /// How many were right, of how many.
    pub fn counts(&self) -> (u64, u64) {
        (self.right, self.samples)
    }
}

impl Metric for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let batch = Scored::read("accuracy", outputs, targets)?;
        self.right += batch.samples().filter(|(scores, target)| rank_of(*target, scores) == 0).count() as u64;
        self.samples += batch.targets.len() as u64;
        Ok(())
    }
    fn value(&self) -> f64 {
        self.right as f64 / self.samples as f64
    }
    fn reset(&mut self) {
        *self = Accuracy::default();
    }
}

/// The share of samples whose right class is among the k largest scores; among equal scores the lower class index comes
/// first. Takes what [`Accuracy`] takes.
///
/// scikit-learn: `top_k_accuracy_score` (which puts the higher index first among equal scores).
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    name: String,
    right: u64,
    samples: u64,
}

impl TopK {
    /// Among the `k` best; 0 is an error.
    pub fn new(k: usize) -> Result<TopK> {
        if k == 0 {
            return Err(Error::misuse("top-k accuracy needs k of at least 1; got 0"));
        }
        Ok(TopK { k, name: format!("top{k}_accuracy"), right: 0, samples: 0 })
    }
}

impl Metric for TopK {
    fn name(&self) -> &str {
        &self.name
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let batch = Scored::read(&self.name, outputs, targets)?;
        self.right += batch.samples().filter(|(scores, target)| rank_of(*target, scores) < self.k).count() as u64;
        self.samples += batch.targets.len() as u64;
        Ok(())
    }
    fn value(&self) -> f64 {
        self.right as f64 / self.samples as f64
    }
    fn reset(&mut self) {
        (self.right, self.samples) = (0, 0);
    }
}
