//! How well scores put the right samples first: the areas under the ROC and the precision-recall curves.
//!
//! Both need all scores at once, so every score is kept until [`reset`](Metric::reset): 16 bytes a sample and class.

use crate::confusion::Average;
use crate::metric::Metric;
use gradus_core::{Error, Result, Tensor};

/// The area under the ROC curve of two classes: the chance that a positive sample has a higher score than a negative one, with half
/// a point for equals. NaN unless both classes occur. scikit-learn: `roc_auc_score`.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let count = positive.iter().filter(|p| **p).count() as f64;
    let rest = positive.len() as f64 - count;
    // The sum of the positives' ranks (from 1), each of equals with the mean of their ranks.
    let (mut sum, mut at) = (0.0, 0);
    while at < order.len() {
        let run = order[at..].iter().take_while(|&&i| scores[i] == scores[order[at]]).count();
        let mean = at as f64 + (run as f64 + 1.0) / 2.0;
        sum += mean * order[at..at + run].iter().filter(|&&i| positive[i]).count() as f64;
        at += run;
    }
    (sum - count * (count + 1.0) / 2.0) / (count * rest)
}

/// The area under the precision-recall curve as a sum: Σ (Rₙ − Rₙ₋₁)·Pₙ over the distinct scores, from the highest. 0 without a
/// positive sample. scikit-learn: `average_precision_score`.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let all = positive.iter().filter(|p| **p).count() as f64;
    let (mut sum, mut hits, mut at) = (0.0, 0.0, 0);
    while at < order.len() {
        let run = order[at..].iter().take_while(|&&i| scores[i] == scores[order[at]]).count();
        let new = order[at..at + run].iter().filter(|&&i| positive[i]).count() as f64;
        (hits, at) = (hits + new, at + run);
        sum += new * hits / at as f64;
    }
    if all > 0.0 { sum / all } else { 0.0 }
}

/// How the areas of several classes become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// Each class against all others.
    OneVsRest,
    /// Each class against each other one, both ways (Hand & Till, 2001).
    OneVsOne,
}

/// The area under the ROC curve of several classes, from scores `[samples][classes]`, as the mean over classes or pairs: plain
/// ([`Average::Macro`]) or weighted by how often a class (a pair) occurs. NaN unless every class occurs. scikit-learn:
/// `roc_auc_score(.., multi_class=.., average=..)`.
pub fn roc_auc_of_classes(scores: &[Vec<f64>], truth: &[usize], pairing: Pairing, average: Average) -> f64 {
    let classes = scores.first().map_or(0, Vec::len);
    let n = truth.len() as f64;
    let column = |c: usize, rows: &[usize]| -> Vec<f64> { rows.iter().map(|&i| scores[i][c]).collect() };
    let is = |c: usize, rows: &[usize]| -> Vec<bool> { rows.iter().map(|&i| truth[i] == c).collect() };
    let weight = |share: f64| if average == Average::Weighted { share } else { 1.0 };
    let (mut sum, mut total) = (0.0, 0.0);
    let mut add = |area: f64, weight: f64| (sum, total) = (sum + area * weight, total + weight);
    let all: Vec<usize> = (0..truth.len()).collect();
    for a in 0..classes {
        if pairing == Pairing::OneVsRest {
            let positive = is(a, &all);
            let share = positive.iter().filter(|p| **p).count() as f64 / n;
            add(roc_auc(&column(a, &all), &positive), weight(share));
            continue;
        }
        for b in a + 1..classes {
            let rows: Vec<usize> = all.iter().copied().filter(|&i| truth[i] == a || truth[i] == b).collect();
            let forth = roc_auc(&column(a, &rows), &is(a, &rows));
            let back = roc_auc(&column(b, &rows), &is(b, &rows));
            add((forth + back) / 2.0, weight(rows.len() as f64 / n));
        }
    }
    sum / total
}

/// Scores and whether each sample is positive, gathered over batches.
#[derive(Clone, Debug, Default)]
struct Gathered {
    scores: Vec<f64>,
    positive: Vec<bool>,
}

impl Gathered {
    fn take(&mut self, metric: &str, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let says = |what: String| Err(Error::data(format!("{metric}: {what}")));
        if outputs.elements() != targets.elements() {
            let (a, b) = (outputs.shape(), targets.shape());
            return says(format!("needs a score and a target for each sample; got {a} and {b}"));
        }
        let (scores, targets) = (outputs.to_vec::<f64>()?, targets.to_vec::<f64>()?);
        if let Some(i) = scores.iter().position(|s| s.is_nan()) {
            return says(format!("the score of sample {i} is NaN"));
        }
        if let Some(i) = targets.iter().position(|t| *t != 0.0 && *t != 1.0) {
            return says(format!("the target of sample {i} is {}; it must be 0 or 1", targets[i]));
        }
        self.scores.extend(scores);
        self.positive.extend(targets.into_iter().map(|t| t == 1.0));
        Ok(())
    }
}

macro_rules! ranking {
    ($(#[$doc:meta])* $t:ident, $name:literal, $function:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $t(Gathered);

        impl $t {
            /// Nothing measured yet.
            pub fn new() -> $t {
                $t::default()
            }
        }

        impl Metric for $t {
            fn name(&self) -> &str {
                $name
            }
            fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
                self.0.take($name, outputs, targets)
            }
            fn value(&self) -> f64 {
                if self.0.scores.is_empty() { f64::NAN } else { $function(&self.0.scores, &self.0.positive) }
            }
            fn reset(&mut self) {
                self.0 = Gathered::default();
            }
        }
    };
}

ranking! {
    /// The area under the ROC curve of two classes: see [`roc_auc`]. Takes a score for each sample (a logit or a probability of the
    /// positive class) and targets that are 0 or 1.
    RocAuc, "roc_auc", roc_auc
}
ranking! {
    /// The area under the precision-recall curve: see [`average_precision`]. Takes what [`RocAuc`] takes.
    AveragePrecision, "average_precision", average_precision
}
