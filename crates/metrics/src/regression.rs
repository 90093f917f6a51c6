//! Errors of predicted values: mean squared, mean absolute, their kin, and how much of the spread is explained.

use crate::mean::Mean;
use crate::metric::Metric;
use gradus_core::{Error, Result, Tensor};

/// Which score of a regression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Score {
    /// The mean of (y − ŷ)². scikit-learn: `mean_squared_error`.
    Mse,
    /// The root of [`Mse`](Score::Mse).
    Rmse,
    /// The mean of |y − ŷ|. scikit-learn: `mean_absolute_error`.
    Mae,
    /// 1 − Σ(y − ŷ)² / Σ(y − ȳ)²: 1 is perfect, 0 is no better than the mean. For constant y, 1 if every prediction is exact, else 0.
    /// NaN for fewer than two elements. scikit-learn: `r2_score`.
    R2,
    /// The largest |y − ŷ|. scikit-learn: `max_error`.
    MaxError,
    /// The median of |y − ŷ|; every error is kept for it. scikit-learn: `median_absolute_error`.
    MedianAe,
    /// The mean of |y − ŷ|/|y|, with |y| at least the machine epsilon. scikit-learn: `mean_absolute_percentage_error`.
    Mape,
    /// 1 − Var(y − ŷ)/Var(y): R² for predictions that may be off by a constant. For constant y as [`R2`](Score::R2). scikit-learn:
    /// `explained_variance_score`.
    ExplainedVariance,
}

/// A score of predicted values, over all elements of outputs and targets of equal shapes (several outputs for a sample count
/// as so many samples).
#[derive(Clone, Debug)]
pub struct Regression {
    score: Score,
    squared: Mean,
    absolute: Mean,
    relative: Mean,
    largest: f64,
    targets: Spread,
    errors: Spread,
    /// Every |y − ŷ|, where the median is asked for.
    kept: Vec<f64>,
}

/// Welford's running mean and sum of squared deviations.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    mean: f64,
    deviations: f64,
}

impl Spread {
    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let before = x - self.mean;
        self.mean += before / self.count;
        self.deviations += before * (x - self.mean);
    }
}

impl Regression {
    /// Nothing measured yet.
    pub fn new(score: Score) -> Regression {
        Regression {
            score,
            squared: Mean::default(),
            absolute: Mean::default(),
            relative: Mean::default(),
            largest: 0.0,
            targets: Spread::default(),
            errors: Spread::default(),
            kept: Vec::new(),
        }
    }

    /// Takes predictions and targets into account.
    pub fn add(&mut self, predictions: &[f64], targets: &[f64]) {
        for (&p, &t) in predictions.iter().zip(targets) {
            self.squared.add((t - p) * (t - p), 1.0);
            self.absolute.add((t - p).abs(), 1.0);
            self.relative.add((t - p).abs() / t.abs().max(f64::EPSILON), 1.0);
            // Not `max`, which would drop a NaN.
            self.largest = if (t - p).abs() <= self.largest { self.largest } else { (t - p).abs() };
            self.targets.add(t);
            self.errors.add(t - p);
            if self.score == Score::MedianAe {
                self.kept.push((t - p).abs());
            }
        }
    }

    /// One of the scores so far; NaN if nothing was measured. (The median only of a metric that was made for it.)
    pub fn score(&self, score: Score) -> f64 {
        // Of constant targets, nothing is explained unless nothing is left.
        let explained = |left: f64| match self.targets.deviations {
            0.0 => f64::from(left == 0.0),
            all => 1.0 - left / all,
        };
        match score {
            Score::Mse => self.squared.value(),
            Score::Rmse => self.squared.value().sqrt(),
            Score::Mae => self.absolute.value(),
            Score::R2 if self.targets.count < 2.0 => f64::NAN,
            Score::R2 => explained(self.squared.total()),
            Score::Mape => self.relative.value(),
            _ if self.targets.count == 0.0 => f64::NAN,
            Score::MaxError => self.largest,
            Score::MedianAe => median(&self.kept),
            Score::ExplainedVariance => explained(self.errors.deviations),
        }
    }
}

/// The middle value, or the mean of the two in the middle; NaN of none.
fn median(x: &[f64]) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    match x.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => x[n / 2],
        n => (x[n / 2 - 1] + x[n / 2]) / 2.0,
    }
}

impl Metric for Regression {
    fn name(&self) -> &str {
        match self.score {
            Score::Mse => "mse",
            Score::Rmse => "rmse",
            Score::Mae => "mae",
            Score::R2 => "r2",
            Score::MaxError => "max_error",
            Score::MedianAe => "median_ae",
            Score::Mape => "mape",
            Score::ExplainedVariance => "explained_variance",
        }
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        if outputs.shape() != targets.shape() {
            return Err(Error::data(format!(
                "{}: outputs and targets must have one shape; got {} and {}",
                self.name(),
                outputs.shape(),
                targets.shape()
            )));
        }
        self.add(&outputs.to_vec::<f64>()?, &targets.to_vec::<f64>()?);
        Ok(())
    }
    fn value(&self) -> f64 {
        self.score(self.score)
    }
    fn reset(&mut self) {
        *self = Regression::new(self.score);
    }
    fn larger_is_better(&self) -> bool {
        matches!(self.score, Score::R2 | Score::ExplainedVariance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are scikit-learn 1.9's.
    #[test]
    fn scores_are_those_of_scikit_learn() {
        let mut r = Regression::new(Score::Mse);
        let (targets, predictions) = ([3.0, -0.5, 2.0, 7.0, 100.0], [2.5, 0.0, 2.0, 8.0, 97.5]);
        r.add(&predictions[..2], &targets[..2]);
        r.add(&predictions[2..], &targets[2..]);
        assert!((r.score(Score::Mse) - 1.55).abs() < 1e-12);
        assert!((r.score(Score::Rmse) - 1.2449899597988732).abs() < 1e-12);
        assert!((r.score(Score::Mae) - 0.9).abs() < 1e-12);
        assert!((r.score(Score::R2) - 0.9989770057287679).abs() < 1e-12);
        let mut constant = Regression::new(Score::R2);
        constant.add(&[2.0, 2.0], &[2.0, 2.0]);
        assert_eq!(constant.value(), 1.0);
        constant.add(&[1.0], &[2.0]);
        assert_eq!(constant.value(), 0.0);
        assert!(Regression::new(Score::R2).value().is_nan());
    }
}
