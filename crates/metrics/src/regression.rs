//! Errors of predicted values: mean squared, mean absolute, and R².

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
    /// scikit-learn: `r2_score`.
    R2,
}

/// A score of predicted values, over all elements of outputs and targets of equal shapes (several outputs for a sample count
/// as so many samples).
#[derive(Clone, Debug)]
pub struct Regression {
    score: Score,
    squared: Mean,
    absolute: Mean,
    // Welford's running mean and sum of squared deviations of the targets.
    count: f64,
    mean: f64,
    deviations: f64,
}

impl Regression {
    /// Nothing measured yet.
    pub fn new(score: Score) -> Regression {
        Regression {
            score,
            squared: Mean::default(),
            absolute: Mean::default(),
            count: 0.0,
            mean: 0.0,
            deviations: 0.0,
        }
    }

    /// Takes predictions and targets into account.
    pub fn add(&mut self, predictions: &[f64], targets: &[f64]) {
        for (&p, &t) in predictions.iter().zip(targets) {
            self.squared.add((t - p) * (t - p), 1.0);
            self.absolute.add((t - p).abs(), 1.0);
            self.count += 1.0;
            let before = t - self.mean;
            self.mean += before / self.count;
            self.deviations += before * (t - self.mean);
        }
    }

    /// One of the scores so far; NaN if nothing was measured.
    pub fn score(&self, score: Score) -> f64 {
        match score {
            Score::Mse => self.squared.value(),
            Score::Rmse => self.squared.value().sqrt(),
            Score::Mae => self.absolute.value(),
            Score::R2 if self.count == 0.0 => f64::NAN,
            Score::R2 if self.deviations == 0.0 => f64::from(self.squared.total() == 0.0),
            Score::R2 => 1.0 - self.squared.total() / self.deviations,
        }
    }
}

impl Metric for Regression {
    fn name(&self) -> &str {
        match self.score {
            Score::Mse => "mse",
            Score::Rmse => "rmse",
            Score::Mae => "mae",
            Score::R2 => "r2",
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
        self.score == Score::R2
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
