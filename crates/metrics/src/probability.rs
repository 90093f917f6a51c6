//! How far predicted probabilities are from what happened: log loss and Brier score.

use crate::mean::Mean;
use crate::metric::Metric;
use gradus_core::{Error, Result, Tensor};

/// The mean of −ln p, with p the probability that was given to the right class, at least the machine epsilon of `f64`.
///
/// Takes probabilities (no logits): `[samples, classes]` with class indices `[samples]`, or of the positive class `[samples]` with
/// targets 0 or 1. scikit-learn: `log_loss`.
#[derive(Clone, Debug, Default)]
pub struct LogLoss(Mean);

impl LogLoss {
    /// Nothing measured yet.
    pub fn new() -> LogLoss {
        LogLoss::default()
    }
    /// Takes the probability of a sample's right class into account.
    pub fn add(&mut self, right: f64) {
        self.0.add(-right.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln(), 1.0);
    }
}

impl Metric for LogLoss {
    fn name(&self) -> &str {
        "log_loss"
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        for (p, right) in probabilities("log_loss", outputs, targets)? {
            self.add(if right { p } else { 1.0 - p });
        }
        Ok(())
    }
    fn value(&self) -> f64 {
        self.0.value()
    }
    fn reset(&mut self) {
        self.0.reset();
    }
    fn larger_is_better(&self) -> bool {
        false
    }
}

/// The mean of (p − y)², with p the probability of the positive class and y 1 where that was right, else 0.
///
/// Takes probabilities `[samples]` and targets 0 or 1. scikit-learn: `brier_score_loss`.
#[derive(Clone, Debug, Default)]
pub struct Brier(Mean);

impl Brier {
    /// Nothing measured yet.
    pub fn new() -> Brier {
        Brier::default()
    }
    /// Takes the probability of the positive class into account, and whether it was the right one.
    pub fn add(&mut self, probability: f64, positive: bool) {
        let apart = probability - f64::from(positive);
        self.0.add(apart * apart, 1.0);
    }
}

impl Metric for Brier {
    fn name(&self) -> &str {
        "brier"
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        if outputs.rank() > 1 && outputs.dims()[1] != 1 {
            return Err(Error::data(format!("brier: needs one probability for each sample; got {}", outputs.shape())));
        }
        for (p, positive) in probabilities("brier", outputs, targets)? {
            self.add(p, positive);
        }
        Ok(())
    }
    fn value(&self) -> f64 {
        self.0.value()
    }
    fn reset(&mut self) {
        self.0.reset();
    }
    fn larger_is_better(&self) -> bool {
        false
    }
}

/// For each sample a probability, and whether what it was given to is right: of several classes always the right one's.
fn probabilities(metric: &str, outputs: &Tensor, targets: &Tensor) -> Result<Vec<(f64, bool)>> {
    let says = |what: String| Error::data(format!("{metric}: {what}"));
    let (p, t) = (outputs.to_vec::<f64>()?, targets.to_vec::<f64>()?);
    if let Some(i) = p.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(says(format!("element {i} is {}, which is no probability", p[i])));
    }
    let classes = if outputs.rank() == 2 { outputs.dims()[1] } else { 1 };
    if p.len() != t.len() * classes {
        return Err(says(format!("got probabilities {} and targets {}", outputs.shape(), targets.shape())));
    }
    let most = if classes == 1 { 2 } else { classes };
    if let Some(i) = t.iter().position(|t| t.fract() != 0.0 || *t < 0.0 || *t >= most as f64) {
        return Err(says(format!("the target of sample {i} is {}; there are {most} classes", t[i])));
    }
    Ok(match classes {
        1 => p.into_iter().zip(t).map(|(p, t)| (p, t == 1.0)).collect(),
        _ => p.chunks_exact(classes).zip(t).map(|(row, t)| (row[t as usize], true)).collect(),
    })
}
