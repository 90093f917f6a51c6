//! Which class was taken for which, and what follows from it: precision, recall and F1.
//!
//! Definitions as in scikit-learn's `precision_recall_fscore_support` with `labels=range(classes)` and `zero_division=0`: a
//! ratio with denominator 0 (a class never predicted, or never there) is 0.

use crate::metric::{Metric, Scored, best};
use gradus_core::{Error, Result, Tensor};
use std::fmt;

/// How the classes' scores become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Average {
    /// From the sums of all classes' counts; equal to the accuracy where each sample has one class.
    Micro,
    /// The plain mean over all classes, also those that never occur.
    #[default]
    Macro,
    /// The mean weighted by how often each class occurs.
    Weighted,
}

/// Precision, recall and F1 of a class, or of all.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scores {
    /// Of the samples taken for this class, the share that is: TP / (TP + FP).
    pub precision: f64,
    /// Of this class's samples, the share that was found: TP / (TP + FN).
    pub recall: f64,
    /// Their harmonic mean: 2·TP / (2·TP + FP + FN).
    pub f1: f64,
    /// Number of this class's samples.
    pub support: u64,
}

/// How often each class (row) was taken for each class (column). As a [`Metric`] its value is the macro F1, or another
/// average's.
///
/// ```
/// use gradus_metrics::{Average, ConfusionMatrix};
/// let mut matrix = ConfusionMatrix::new(2);
/// for (truth, prediction) in [(0, 0), (0, 0), (0, 1), (1, 1)] {
///     matrix.count(truth, prediction, 1)?;
/// }
/// assert_eq!(matrix.accuracy(), 0.75);
/// assert_eq!(matrix.class(1).recall, 1.0);
/// assert_eq!(matrix.average(Average::Macro).precision, 0.75);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>, // [true class, predicted class]
    average: Average,
}

impl ConfusionMatrix {
    /// All zeros, for classes 0 to `classes` − 1.
    pub fn new(classes: usize) -> ConfusionMatrix {
        ConfusionMatrix { classes, counts: vec![0; classes * classes], average: Average::Macro }
    }
    /// Which average's F1 is its value as a [`Metric`].
    pub fn averaged(mut self, average: Average) -> ConfusionMatrix {
        self.average = average;
        self
    }
    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
    /// How often `truth` was taken for `prediction`.
    pub fn get(&self, truth: usize, prediction: usize) -> u64 {
        self.counts[truth * self.classes + prediction]
    }
    /// Counts `times` samples of class `truth` that were taken for `prediction`; a class out of range is an error.
    pub fn count(&mut self, truth: usize, prediction: usize, times: u64) -> Result<()> {
        for (what, class) in [("true", truth), ("predicted", prediction)] {
            if class >= self.classes {
                return Err(Error::data(format!(
                    "confusion matrix: {what} class {class} with {} classes",
                    self.classes
                )));
            }
        }
        self.counts[truth * self.classes + prediction] += times;
        Ok(())
    }
    /// Number of samples counted.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }
    /// The share of samples on the diagonal; NaN if there are none.
    pub fn accuracy(&self) -> f64 {
        self.diagonal() as f64 / self.samples() as f64
    }
    /// Precision, recall and F1 of one class, which must be below [`classes`](Self::classes).
    pub fn class(&self, class: usize) -> Scores {
        let row: u64 = (0..self.classes).map(|p| self.get(class, p)).sum();
        let column: u64 = (0..self.classes).map(|t| self.get(t, class)).sum();
        scores(self.get(class, class), row, column)
    }
    /// Precision, recall and F1 of all classes together. The F1 of an average is the average of the classes' F1.
    pub fn average(&self, average: Average) -> Scores {
        let support = self.samples();
        if average == Average::Micro {
            return scores(self.diagonal(), support, support);
        }
        let (mut all, mut total) = (Scores { precision: 0.0, recall: 0.0, f1: 0.0, support }, 0.0);
        for class in 0..self.classes {
            let s = self.class(class);
            let weight = if average == Average::Macro { 1.0 } else { s.support as f64 };
            all.precision += weight * s.precision;
            all.recall += weight * s.recall;
            all.f1 += weight * s.f1;
            total += weight;
        }
        let mean = |sum: f64| if total > 0.0 { sum / total } else { 0.0 };
        Scores { precision: mean(all.precision), recall: mean(all.recall), f1: mean(all.f1), support }
    }
    /// A table of every class's scores and their averages, as scikit-learn's `classification_report` has it.
    pub fn report(&self) -> String {
        let mut text = format!("{:>12}  precision  recall      f1  support\n", "");
        let mut line = |name: String, s: Scores| {
            text += &format!("{name:>12}  {:>9.4}  {:>6.4}  {:>6.4}  {:>7}\n", s.precision, s.recall, s.f1, s.support);
        };
        (0..self.classes).for_each(|c| line(c.to_string(), self.class(c)));
        line("micro".into(), self.average(Average::Micro));
        line("macro".into(), self.average(Average::Macro));
        line("weighted".into(), self.average(Average::Weighted));
        text
    }
    fn diagonal(&self) -> u64 {
        (0..self.classes).map(|c| self.get(c, c)).sum()
    }
}

/// Scores from true positives, the samples of the class (TP + FN), and those taken for it (TP + FP).
fn scores(hits: u64, there: u64, predicted: u64) -> Scores {
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    Scores {
        precision: ratio(hits, predicted),
        recall: ratio(hits, there),
        f1: ratio(2 * hits, there + predicted),
        support: there,
    }
}

impl Metric for ConfusionMatrix {
    fn name(&self) -> &str {
        match self.average {
            Average::Micro => "f1_micro",
            Average::Macro => "f1_macro",
            Average::Weighted => "f1_weighted",
        }
    }
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let batch = Scored::read("confusion matrix", outputs, targets)?;
        if batch.classes != self.classes {
            return Err(Error::data(format!(
                "confusion matrix: made for {} classes, but the outputs have scores for {}",
                self.classes, batch.classes
            )));
        }
        batch.samples().try_for_each(|(scores, target)| self.count(target, best(scores), 1))
    }
    fn value(&self) -> f64 {
        if self.samples() == 0 { f64::NAN } else { self.average(self.average).f1 }
    }
    fn reset(&mut self) {
        self.counts.fill(0);
    }
}

impl fmt::Display for ConfusionMatrix {
    /// A table: a row for each true class, a column for each prediction. Zeros off the diagonal are dots, so that mistakes
    /// stand out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.counts.iter().max().map_or(1, |n| n.to_string().len());
        let width = longest.max(self.classes.saturating_sub(1).to_string().len()).max(3) + 1;
        write!(f, "true \\ predicted")?;
        (0..self.classes).try_for_each(|p| write!(f, "{p:>width$}"))?;
        writeln!(f, "   recall")?;
        for truth in 0..self.classes {
            write!(f, "{truth:>16}")?;
            for prediction in 0..self.classes {
                match self.get(truth, prediction) {
                    0 if truth != prediction => write!(f, "{:>width$}", "·")?,
                    n => write!(f, "{n:>width$}")?,
                }
            }
            writeln!(f, "  {:>7.4}", self.class(truth).recall)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are scikit-learn 1.9's for these labels: `precision_recall_fscore_support(t, p, labels=range(5),
    /// zero_division=0)`, for each class and each average.
    #[test]
    fn scores_are_those_of_scikit_learn() {
        let truth = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 1, 2, 1, 0, 2, 2, 1];
        let predicted = [0, 1, 0, 1, 1, 2, 1, 2, 0, 2, 1, 1, 0, 1, 2, 1, 4, 2, 1, 1];
        let mut m = ConfusionMatrix::new(5);
        truth.iter().zip(predicted).for_each(|(&t, p)| m.count(t, p, 1).unwrap());
        let close = |s: Scores, precision: f64, recall: f64, f1: f64, support: u64| {
            let (a, b) = ([s.precision, s.recall, s.f1], [precision, recall, f1]);
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12) && s.support == support, "{s:?}");
        };
        close(m.class(0), 0.75, 0.6, 0.6666666666666666, 5);
        close(m.class(1), 0.6, 0.8571428571428571, 0.7058823529411765, 7);
        close(m.class(2), 0.8, 0.6666666666666666, 0.7272727272727273, 6);
        close(m.class(3), 0.0, 0.0, 0.0, 2);
        close(m.class(4), 0.0, 0.0, 0.0, 0);
        close(m.average(Average::Micro), 0.65, 0.65, 0.65, 20);
        close(m.average(Average::Macro), 0.43000000000000005, 0.4247619047619048, 0.41996434937611404, 20);
        close(m.average(Average::Weighted), 0.6375, 0.65, 0.6319073083778965, 20);
        assert_eq!(m.accuracy(), 0.65);
        assert_eq!(m.report().lines().count(), 9);
    }

    #[test]
    fn the_table_shows_rows_of_true_classes() {
        let mut m = ConfusionMatrix::new(2);
        m.count(0, 0, 35).unwrap();
        m.count(0, 1, 2).unwrap();
        m.count(1, 1, 11).unwrap();
        assert_eq!(
            m.to_string(),
            "true \\ predicted   0   1   recall\n               0  35   2   0.9459\n               1   ·  11   1.0000\n"
        );
    }

    #[test]
    fn classes_out_of_range_are_named() {
        let e = ConfusionMatrix::new(3).count(1, 3, 1).unwrap_err().to_string();
        assert!(e.contains("predicted class 3 with 3 classes"), "{e}");
    }
}
