//! Metrics: scikit-learn's values of the same labels, scores and predictions.

use super::{Tally, distance, files, finish, json, number, numbers};
use gradus_core::Tensor;
use gradus_metrics::*;
use gradus_tests::report::say;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Both sides compute in `f64`.
const ALLOWED: f64 = 1e-11;

fn labels(r: &Value, name: &str) -> Vec<usize> {
    numbers(&r[name]).into_iter().map(|x| x as usize).collect()
}

/// The confusion matrix over the labels that occur, which is what scikit-learn takes for the classes.
fn confusion(truth: &[usize], predicted: &[usize]) -> Result<ConfusionMatrix, String> {
    let there: BTreeSet<usize> = truth.iter().chain(predicted).copied().collect();
    let place = |label: usize| there.range(..label).count();
    let mut matrix = ConfusionMatrix::new(there.len());
    for (&t, &p) in truth.iter().zip(predicted) {
        matrix.count(place(t), place(p), 1).map_err(|e| e.to_string())?;
    }
    Ok(matrix)
}

/// Values of class predictions.
fn of_classes(name: &str, r: &Value) -> Option<Result<Vec<f64>, String>> {
    let m = match confusion(&labels(r, "y_true"), &labels(r, "y_pred")) {
        Ok(m) => m,
        Err(e) => return Some(Err(e)),
    };
    let each = |f: &dyn Fn(usize) -> f64| (0..m.classes()).map(f).collect();
    let average = match r["kwargs"]["average"].as_str() {
        Some("micro") => Some(Average::Micro),
        Some("macro") => Some(Average::Macro),
        Some("weighted") => Some(Average::Weighted),
        _ => None,
    };
    Some(Ok(match (name, average) {
        ("accuracy_score", _) => vec![m.accuracy()],
        ("balanced_accuracy_score", _) => vec![m.balanced_accuracy()],
        ("matthews_corrcoef", _) => vec![m.matthews()],
        ("cohen_kappa_score", _) => vec![m.kappa()],
        ("hamming_loss" | "zero_one_loss", _) => vec![m.error_rate()],
        ("confusion_matrix", _) => {
            let all = (0..m.classes()).flat_map(|t| (0..m.classes()).map(move |p| (t, p)));
            all.map(|(t, p)| m.get(t, p) as f64).collect()
        }
        ("precision_score", Some(a)) => vec![m.average(a).precision],
        ("precision_score", None) => each(&|c| m.class(c).precision),
        ("recall_score", Some(a)) => vec![m.average(a).recall],
        ("recall_score", None) => each(&|c| m.class(c).recall),
        ("f1_score", Some(a)) => vec![m.average(a).f1],
        ("f1_score", None) => each(&|c| m.class(c).f1),
        ("jaccard_score", Some(a)) => vec![m.jaccard(a)],
        ("jaccard_score", None) => each(&|c| m.class_jaccard(c)),
        ("fbeta_score", Some(a)) => vec![m.fbeta(r["kwargs"]["beta"].as_f64()?, a)],
        _ => return None,
    }))
}

/// Values of scores of two classes.
fn of_scores(name: &str, r: &Value) -> Option<Result<Vec<f64>, String>> {
    let (scores, truth) = (numbers(&r["y_score"]), labels(r, "y_true"));
    let positive: Vec<bool> = truth.iter().map(|t| *t == 1).collect();
    Some(Ok(vec![match name {
        "roc_auc_score" => roc_auc(&scores, &positive),
        "average_precision_score" => average_precision(&scores, &positive),
        "brier_score_loss" => {
            let mut m = Brier::new();
            scores.iter().zip(&positive).for_each(|(&s, &p)| m.add(s, p));
            m.value()
        }
        "log_loss" => {
            let mut m = LogLoss::new();
            scores.iter().zip(&positive).for_each(|(&s, &p)| m.add(if p { s } else { 1.0 - s }));
            m.value()
        }
        _ => return None,
    }]))
}

/// Values of probabilities of several classes.
fn of_probabilities(name: &str, r: &Value) -> Option<Result<Vec<f64>, String>> {
    let rows: Vec<Vec<f64>> = r["y_prob"].as_array()?.iter().map(numbers).collect();
    let truth = labels(r, "y_true");
    let as_tensors = |m: &mut dyn Metric| {
        let device = gradus_cpu::device();
        let shape = [rows.len(), rows[0].len()];
        let p = Tensor::try_from_vec(rows.concat(), shape, device).map_err(|e| e.to_string())?;
        let t: Vec<i64> = truth.iter().map(|t| *t as i64).collect();
        m.update(&p, &Tensor::from_slice(&t, device)).map_err(|e| e.to_string())?;
        Ok(vec![m.value()])
    };
    Some(match name {
        "log_loss" => as_tensors(&mut LogLoss::new()),
        "top_k_accuracy_score" => match TopK::new(r["kwargs"]["k"].as_u64()? as usize) {
            Ok(mut m) => as_tensors(&mut m),
            Err(e) => Err(e.to_string()),
        },
        "roc_auc_score" => {
            let pairing = if r["kwargs"]["multi_class"] == "ovo" { Pairing::OneVsOne } else { Pairing::OneVsRest };
            let average = if r["kwargs"]["average"] == "weighted" { Average::Weighted } else { Average::Macro };
            Ok(vec![roc_auc_of_classes(&rows, &truth, pairing, average)])
        }
        _ => return None,
    })
}

/// Values of predicted numbers.
fn of_numbers(name: &str, r: &Value) -> Option<Result<Vec<f64>, String>> {
    let score = match name {
        "mean_squared_error" => Score::Mse,
        "root_mean_squared_error" => Score::Rmse,
        "mean_absolute_error" => Score::Mae,
        "median_absolute_error" => Score::MedianAe,
        "max_error" => Score::MaxError,
        "r2_score" => Score::R2,
        "explained_variance_score" => Score::ExplainedVariance,
        "mean_absolute_percentage_error" => Score::Mape,
        _ => return None,
    };
    let mut m = Regression::new(score);
    m.add(&numbers(&r["y_pred"]), &numbers(&r["y_true"]));
    Some(Ok(vec![m.value()]))
}

fn wanted(v: &Value) -> Vec<f64> {
    match v.as_array() {
        Some(rows) => rows.iter().flat_map(wanted).collect(),
        None => number(v).into_iter().collect(),
    }
}

#[test]
fn metrics_are_scikit_learns() {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for file in files("metrics") {
        for r in json(&file)["records"].as_array().into_iter().flatten() {
            let name = r["metric"].as_str().unwrap_or_default();
            let what = || format!("{name} {} {}", r["case"], r["kwargs"]);
            if let Some(why) = r["error"].as_str() {
                say(&format!("{}: scikit-learn refuses it ({why}); Gradus needs no list of labels", what()));
                continue;
            }
            let mapped = if r.get("y_prob").is_some() {
                of_probabilities(name, r)
            } else if r.get("y_score").is_some() {
                of_scores(name, r)
            } else {
                of_numbers(name, r).or_else(|| of_classes(name, r))
            };
            let apart =
                mapped.unwrap_or_else(|| Err("is not mapped".into())).map(|have| distance(&have, &wanted(&r["value"])));
            tallies.entry(name.to_owned()).or_default().add(what, apart, ALLOWED);
        }
    }
    tallies.iter().for_each(|(name, tally)| tally.say(name));
    finish("metrics", tallies.into_values().collect());
}
