//! Losses.

use super::{Outcome, init};
use gradus_core::{Error, Result};
use gradus_nn::loss::*;
use gradus_nn::{Linear, Module, State};
use gradus_tests::golden_modules::{Arguments, Built, called};

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    let made = pairs(name, a).transpose().or_else(|| triples(name, a).transpose());
    made.or_else(|| weighted(name, a).transpose())
}

type Made = Result<Option<Box<dyn Built>>>;

fn reduction(a: &Arguments<'_>) -> Result<Reduction> {
    Ok(match a.word(99, "reduction") {
        None | Some("mean") => Reduction::Mean,
        Some("sum" | "batchmean") => Reduction::Sum,
        Some("none") => Reduction::None,
        Some(other) => return Err(Error::misuse(format!("no reduction is called {other}"))),
    })
}

fn loss<L: Loss + Module + 'static>(l: L) -> Made {
    Ok(Some(called(l, |l, i, _| Ok(vec![l.try_forward(&i.x(0, "input")?, &i.x(1, "target")?)?]))))
}

fn triple<L: PairLoss + Module + 'static>(l: L) -> Made {
    Ok(Some(called(l, |l, i, _| {
        Ok(vec![l.try_forward(&i.x(0, "input1")?, &i.x(1, "input2")?, &i.x(2, "target")?)?])
    })))
}

/// Losses of a prediction and a target, without weights.
fn pairs(name: &str, a: &Arguments<'_>) -> Made {
    let (r, margin) = (reduction(a)?, |default| a.number(99, "margin", default));
    match name {
        "MSELoss" => loss(Mse::default().reduction(r)),
        "L1Loss" => loss(L1::default().reduction(r)),
        "HuberLoss" => loss(Huber::new(a.number(99, "delta", 1.0)?).reduction(r)),
        "SmoothL1Loss" => loss(SmoothL1::new(a.number(99, "beta", 1.0)?).reduction(r)),
        "KLDivLoss" => {
            let l = KlDiv::new().log_target(a.flag(99, "log_target", false)).reduction(r);
            loss(if a.word(99, "reduction") == Some("batchmean") { l.batch_mean() } else { l })
        }
        "PoissonNLLLoss" => loss(
            PoissonNll::new()
                .log_input(a.flag(0, "log_input", true))
                .full(a.flag(1, "full", false))
                .eps(a.number(99, "eps", 1e-8)?)
                .reduction(r),
        ),
        "HingeEmbeddingLoss" => loss(HingeEmbedding::new().margin(margin(1.0)?).reduction(r)),
        "SoftMarginLoss" => loss(SoftMargin::new().reduction(r)),
        "MultiLabelMarginLoss" => loss(MultiLabelMargin::new().reduction(r)),
        _ => Ok(None),
    }
}

/// Losses of three tensors, and the one of sequences.
fn triples(name: &str, a: &Arguments<'_>) -> Made {
    let (r, margin) = (reduction(a)?, |default| a.number(99, "margin", default));
    match name {
        "GaussianNLLLoss" => {
            let l = GaussianNll::new().full(a.flag(99, "full", false)).eps(a.number(99, "eps", 1e-6)?);
            triple(l.reduction(r))
        }
        "MarginRankingLoss" => triple(MarginRanking::new().margin(margin(0.0)?).reduction(r)),
        "CosineEmbeddingLoss" => triple(CosineEmbedding::new().margin(margin(0.0)?).reduction(r)),
        "TripletMarginLoss" => {
            let l = TripletMargin::new().margin(margin(1.0)?).p(a.number(99, "p", 2.0)?).reduction(r);
            triple(l.swap(a.flag(99, "swap", false)))
        }
        "CTCLoss" => {
            let l = Ctc::new().blank(a.len_or(0, "blank", 0)?).zero_infinity(a.flag(2, "zero_infinity", false));
            Ok(Some(called(l.reduction(r), |l, i, _| {
                let (steps, lens) = (i.counts(2, "input_lengths")?, i.counts(3, "target_lengths")?);
                Ok(vec![l.try_forward(&i.x(0, "log_probs")?, &i.x(1, "targets")?, &steps, &lens)?])
            })))
        }
        _ => Ok(None),
    }
}

/// Losses with weights.
fn weighted(name: &str, a: &Arguments<'_>) -> Made {
    let (r, weight) = (reduction(a)?, |i| Ok::<_, Error>(a.tensor(i, "weight")?.map(State::new)));
    match name {
        "BCELoss" => loss(Bce { weight: weight(0)?, reduction: r }),
        "BCEWithLogitsLoss" => {
            let positive_weight = a.tensor(99, "pos_weight")?.map(State::new);
            loss(BceWithLogits { weight: weight(0)?, positive_weight, reduction: r })
        }
        "CrossEntropyLoss" => loss(cross_entropy(a)?),
        "NLLLoss" => loss(Nll { weight: weight(0)?, ignore: a.int(99, "ignore_index", -100)?, reduction: r }),
        "MultiMarginLoss" => loss(MultiMargin {
            p: a.len_or(0, "p", 1)? as u32,
            margin: a.number(1, "margin", 1.0)?,
            weight: weight(2)?,
            reduction: r,
        }),
        "MultiLabelSoftMarginLoss" => loss(MultiLabelSoftMargin { weight: weight(0)?, reduction: r }),
        "LinearCrossEntropyLoss" => {
            let (inputs, classes) = (a.len(0, "in_features")?, a.len(1, "num_classes")?);
            let places: usize = a.lens(99, "out_features")?.unwrap_or_default().iter().product();
            let outputs = classes * places;
            let l = LinearCrossEntropy::try_new(inputs, outputs, &mut init())?.rows_at_once(3);
            let linear = Linear::try_new(inputs, outputs, &mut init())?.bias(a.flag(99, "bias", false));
            loss(l.linear(linear).loss(cross_entropy(a)?))
        }
        _ => Ok(None),
    }
}

fn cross_entropy(a: &Arguments<'_>) -> Result<CrossEntropy> {
    Ok(CrossEntropy {
        weight: a.tensor(99, "weight")?.map(State::new),
        smoothing: a.number(99, "label_smoothing", 0.0)?,
        ignore: a.int(99, "ignore_index", -100)?,
        reduction: reduction(a)?,
    })
}
