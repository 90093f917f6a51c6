//! Single numbers of a confusion matrix beside its accuracy: balanced accuracy, Matthews' correlation, Cohen's kappa, F-beta.
//!
//! Definitions as in scikit-learn, with `labels=range(classes)` and `zero_division=0`.

use crate::confusion::{Average, ConfusionMatrix};

impl ConfusionMatrix {
    /// The share of wrong answers: 1 − accuracy. scikit-learn: `zero_one_loss`, and `hamming_loss` of single labels.
    pub fn error_rate(&self) -> f64 {
        1.0 - self.accuracy()
    }

    /// The mean recall of the classes that occur; NaN if there are no samples. scikit-learn: `balanced_accuracy_score`.
    pub fn balanced_accuracy(&self) -> f64 {
        let there = (0..self.classes()).map(|c| self.class(c)).filter(|s| s.support > 0);
        let (sum, n) = there.fold((0.0, 0.0), |(sum, n), s| (sum + s.recall, n + 1.0));
        sum / n
    }

    /// Matthews' correlation of truth and prediction: (c·s − Σ pₖtₖ) / √((s² − Σ pₖ²)(s² − Σ tₖ²)) with c right ones of s, and pₖ and
    /// tₖ how often class k was predicted and there. 0 where the denominator is. scikit-learn: `matthews_corrcoef`.
    pub fn matthews(&self) -> f64 {
        let (there, predicted) = self.margins();
        let samples = self.samples() as f64;
        let right: f64 = (0..self.classes()).map(|c| self.get(c, c) as f64).sum();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let above = right * samples - dot(&there, &predicted);
        let below = (samples * samples - dot(&predicted, &predicted)) * (samples * samples - dot(&there, &there));
        if below > 0.0 { above / below.sqrt() } else { 0.0 }
    }

    /// Cohen's kappa: (pₒ − pₑ)/(1 − pₑ), the agreement beyond chance. NaN where chance alone agrees always. scikit-learn:
    /// `cohen_kappa_score`.
    pub fn kappa(&self) -> f64 {
        let (there, predicted) = self.margins();
        let samples = self.samples() as f64;
        let (mut seen, mut expected) = (0.0, 0.0);
        for (t, there) in there.iter().enumerate() {
            for (p, predicted) in predicted.iter().enumerate().filter(|(p, _)| *p != t) {
                seen += self.get(t, p) as f64;
                expected += there * predicted / samples;
            }
        }
        1.0 - seen / expected
    }

    /// F-beta of one class: (1 + β²)·TP / ((1 + β²)·TP + β²·FN + FP); β times as much weight on recall as on precision.
    pub fn class_fbeta(&self, class: usize, beta: f64) -> f64 {
        let (hits, there, predicted) = self.counts_of(class);
        fbeta(hits, there, predicted, beta)
    }
    /// F-beta of all classes together: see [`class_fbeta`](Self::class_fbeta). scikit-learn: `fbeta_score`.
    pub fn fbeta(&self, beta: f64, average: Average) -> f64 {
        self.averaged_over(average, |hits, there, predicted| fbeta(hits, there, predicted, beta))
    }
    /// The Jaccard index of one class: TP / (TP + FP + FN).
    pub fn class_jaccard(&self, class: usize) -> f64 {
        let (hits, there, predicted) = self.counts_of(class);
        jaccard(hits, there, predicted)
    }
    /// The Jaccard index of all classes together: see [`class_jaccard`](Self::class_jaccard). scikit-learn: `jaccard_score`.
    pub fn jaccard(&self, average: Average) -> f64 {
        self.averaged_over(average, jaccard)
    }

    /// How often each class was there, and how often it was predicted.
    fn margins(&self) -> (Vec<f64>, Vec<f64>) {
        let counts = (0..self.classes()).map(|c| self.counts_of(c));
        counts.map(|(_, there, predicted)| (there as f64, predicted as f64)).unzip()
    }
    /// Of a class: how often it was found, there, and predicted.
    fn counts_of(&self, class: usize) -> (u64, u64, u64) {
        let there = (0..self.classes()).map(|p| self.get(class, p)).sum();
        let predicted = (0..self.classes()).map(|t| self.get(t, class)).sum();
        (self.get(class, class), there, predicted)
    }
    fn averaged_over(&self, average: Average, score: impl Fn(u64, u64, u64) -> f64) -> f64 {
        let counts = (0..self.classes()).map(|c| self.counts_of(c));
        if average == Average::Micro {
            let (hits, there, predicted) = counts.fold((0, 0, 0), |a, c| (a.0 + c.0, a.1 + c.1, a.2 + c.2));
            return score(hits, there, predicted);
        }
        let weighted = counts.map(|(hits, there, predicted)| {
            let weight = if average == Average::Macro { 1.0 } else { there as f64 };
            (weight * score(hits, there, predicted), weight)
        });
        let (sum, total) = weighted.fold((0.0, 0.0), |a, s| (a.0 + s.0, a.1 + s.1));
        if total > 0.0 { sum / total } else { 0.0 }
    }
}

/// a / b, and 0 where b is.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn fbeta(hits: u64, there: u64, predicted: u64, beta: f64) -> f64 {
    let square = beta * beta;
    ratio((1.0 + square) * hits as f64, square * there as f64 + predicted as f64)
}

fn jaccard(hits: u64, there: u64, predicted: u64) -> f64 {
    ratio(hits as f64, (there + predicted - hits) as f64)
}
