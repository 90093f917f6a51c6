//! Metrics of tensors: scores as models give them, in batches of any size.

use gradus_core::{DType, Device, Result, Tensor};
use gradus_metrics::{
    Accuracy, AveragePrecision, Brier, ConfusionMatrix, LogLoss, Metric, Regression, RocAuc, Score, TopK,
};

fn cpu() -> Device {
    gradus_cpu::device()
}

/// Scores of 12 samples for 4 classes, and what scikit-learn 1.9 says of them: `accuracy_score`, `top_k_accuracy_score(k=2)`,
/// `f1_score(average="macro")`.
const SCORES: [f32; 48] = [
    2.04, -2.56, 0.42, -0.57, -0.45, -0.22, -2.02, -0.23, -0.87, 3.32, 0.23, -0.35, -0.28, -0.67, -1.06, -0.39, 0.48,
    -0.24, 0.96, -0.20, 0.02, 1.55, 0.55, -0.51, -0.18, 0.54, 1.94, -0.27, -0.24, 1.00, -0.89, -0.29, 0.88, 0.58, 0.09,
    0.67, -2.83, 1.02, -0.96, -1.67, 0.28, 0.70, -0.44, -1.08, 0.03, -0.05, 1.41, 0.75,
];
const TARGETS: [i64; 12] = [0, 1, 1, 0, 2, 0, 0, 2, 3, 1, 2, 3];
const ACCURACY: f64 = 0.5;
const TOP2: f64 = 0.6666666666666666;
const F1_MACRO: f64 = 0.39285714285714285;

fn batches(size: usize) -> impl Iterator<Item = (Tensor, Tensor)> {
    SCORES
        .chunks(size * 4)
        .zip(TARGETS.chunks(size))
        .map(|(s, t)| (Tensor::from_vec(s.to_vec(), [t.len(), 4], cpu()), Tensor::from_slice(t, cpu())))
}

fn measure(mut metric: impl Metric, size: usize) -> f64 {
    batches(size).for_each(|(s, t)| metric.update(&s, &t).unwrap());
    let value = metric.value();
    metric.reset();
    assert!(metric.value().is_nan());
    value
}

#[test]
fn values_are_those_of_scikit_learn_for_every_batch_size() {
    for size in [1, 3, 5, 12, 100] {
        assert_eq!(measure(Accuracy::new(), size), ACCURACY);
        assert_eq!(measure(TopK::new(1).unwrap(), size), ACCURACY);
        assert_eq!(measure(TopK::new(2).unwrap(), size), TOP2);
        assert_eq!(measure(TopK::new(4).unwrap(), size), 1.0);
        assert!((measure(ConfusionMatrix::new(4), size) - F1_MACRO).abs() < 1e-12);
    }
}

#[test]
fn other_dtypes_and_views_are_read_as_they_are() {
    let (s, t) = batches(100).next().unwrap();
    let mut m = Accuracy::new();
    m.update(&s.to_dtype(DType::F64).t().contiguous().t(), &t.to_dtype(DType::I32)).unwrap();
    assert_eq!(m.value(), ACCURACY);
}

#[test]
fn equal_scores_count_for_the_first_class() {
    let tie = Tensor::from_vec(vec![1f32, 1.0, 0.0], [1, 3], cpu());
    let hit = |class: i64, k| {
        let mut m = TopK::new(k).unwrap();
        m.update(&tie, &Tensor::from_slice(&[class], cpu())).unwrap();
        m.value()
    };
    assert_eq!((hit(0, 1), hit(1, 1), hit(1, 2), hit(2, 2)), (1.0, 0.0, 1.0, 0.0));
}

#[test]
fn bad_batches_are_named_with_their_values() {
    let scores = Tensor::from_vec(vec![0f32, 1.0, f32::NAN, 0.0], [2, 2], cpu());
    let finite = Tensor::zeros([2, 2], cpu());
    let label = |l: &[i64]| Tensor::from_slice(l, cpu());
    let says = |r: Result<()>, part: &str| {
        let e = r.expect_err("must be refused").to_string();
        assert!(e.contains(part), "{e}");
    };
    says(Accuracy::new().update(&scores, &label(&[0, 1])), "class 0 for sample 1 is NaN");
    says(Accuracy::new().update(&finite, &label(&[0, 2])), "sample 1 has the label 2");
    says(Accuracy::new().update(&finite, &label(&[-1, 0])), "label -1");
    says(Accuracy::new().update(&finite, &label(&[0])), "[2, 2] and [1]");
    says(Accuracy::new().update(&finite, &Tensor::zeros([2], cpu())), "f32");
    says(ConfusionMatrix::new(3).update(&finite, &label(&[0, 1])), "3 classes");
    says(Regression::new(Score::Mse).update(&finite, &Tensor::zeros([2], cpu())), "[2, 2] and [2]");
    assert!(TopK::new(0).unwrap_err().to_string().contains("got 0"));
}

#[test]
fn areas_and_probabilities_are_measured_over_batches_and_bad_ones_are_named() -> Result<()> {
    let device = gradus_cpu::device();
    let (scores, targets) = ([0.1f32, 0.4, 0.35, 0.8, 0.4, 0.9], [0i64, 0, 1, 1, 1, 0]);
    let all: [Box<dyn Metric>; 4] =
        [Box::new(RocAuc::new()), Box::new(AveragePrecision::new()), Box::new(Brier::new()), Box::new(LogLoss::new())];
    for mut m in all {
        assert!(m.value().is_nan());
        m.update(&Tensor::from_slice(&scores, device), &Tensor::from_slice(&targets, device))?;
        let whole = m.value();
        m.reset();
        for at in [0..1, 1..4, 4..6] {
            m.update(&Tensor::from_slice(&scores[at.clone()], device), &Tensor::from_slice(&targets[at], device))?;
        }
        assert_eq!(m.value(), whole, "{}", m.name());
        let e = m.update(&Tensor::from_slice(&scores, device), &Tensor::from_slice(&[2i64; 6], device)).unwrap_err();
        assert!(e.to_string().contains("sample 0 is 2"), "{e}");
        let e = m.update(&Tensor::from_slice(&[f32::NAN], device), &Tensor::from_slice(&[1i64], device)).unwrap_err();
        assert!(e.to_string().contains("NaN"), "{e}");
        assert!(m.update(&Tensor::from_slice(&scores, device), &Tensor::from_slice(&[1i64], device)).is_err());
    }
    let pairs = Tensor::from_vec(vec![0.2f32, 0.8, 0.5, 0.5], [2, 2], device);
    let mut loss = LogLoss::new();
    loss.update(&pairs, &Tensor::from_slice(&[1i64, 0], device))?;
    assert!((loss.value() + (0.8f64.ln() + 0.5f64.ln()) / 2.0).abs() < 1e-7);
    assert!(Brier::new().update(&pairs, &Tensor::from_slice(&[1i64, 0], device)).is_err());
    Ok(())
}
