//! Losses, which are modules without state here.

use super::{Outcome, no_word, one};
use gradus_core::{Error, Result, Tensor};
use gradus_nn::State;
use gradus_nn::loss::*;
use gradus_tests::golden::{Call, items};

fn reduction(c: &Call<'_>) -> Result<Reduction> {
    Ok(match c.word(9, "reduction") {
        None | Some("mean") => Reduction::Mean,
        Some("sum") => Reduction::Sum,
        Some("none") => Reduction::None,
        word => return no_word("reduction", word),
    })
}

fn pair(c: &Call<'_>, loss: Result<impl Loss>) -> Result<Tensor> {
    loss?.try_forward(&c.x(0)?, &c.x(1)?)
}

fn triple(c: &Call<'_>, loss: Result<impl PairLoss>) -> Result<Tensor> {
    loss?.try_forward(&c.x(0)?, &c.x(1)?, &c.x(2)?)
}

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    let name = name.strip_prefix("nn.functional.")?;
    one(plain(name, c).or_else(|| weighted(name, c)).or_else(|| of_three(name, c))?)
}

fn plain(name: &str, c: &Call<'_>) -> Option<Result<Tensor>> {
    let number = |name, default: f64| Ok::<_, Error>(c.number(9, name)?.unwrap_or(default));
    let r = || reduction(c);
    Some(match name {
        "mse_loss" => pair(c, r().map(|r| Mse::default().reduction(r))),
        "l1_loss" => pair(c, r().map(|r| L1::default().reduction(r))),
        "huber_loss" => pair(c, number("delta", 1.0).and_then(|d| Ok(Huber::new(d).reduction(r()?)))),
        "smooth_l1_loss" => pair(c, number("beta", 1.0).and_then(|b| Ok(SmoothL1::new(b).reduction(r()?)))),
        "soft_margin_loss" => pair(c, r().map(|r| SoftMargin::new().reduction(r))),
        "hinge_embedding_loss" => {
            pair(c, number("margin", 1.0).and_then(|m| Ok(HingeEmbedding::new().margin(m).reduction(r()?))))
        }
        "kl_div" if c.word(9, "reduction") == Some("batchmean") => {
            pair(c, Ok(KlDiv::new().log_target(c.flag(9, "log_target", false)).batch_mean()))
        }
        "kl_div" => pair(c, r().map(|r| KlDiv::new().log_target(c.flag(9, "log_target", false)).reduction(r))),
        "poisson_nll_loss" => {
            let loss = PoissonNll::new().log_input(c.flag(9, "log_input", true)).full(c.flag(9, "full", false));
            pair(c, number("eps", 1e-8).and_then(|e| Ok(loss.eps(e).reduction(r()?))))
        }
        _ => return None,
    })
}

fn weighted(name: &str, c: &Call<'_>) -> Option<Result<Tensor>> {
    let weight = |name| Ok::<_, Error>(c.tensor(9, name)?.map(State::new));
    let number = |name, default: f64| Ok::<_, Error>(c.number(9, name)?.unwrap_or(default));
    let ignore = || Ok::<_, Error>(c.int(9, "ignore_index")?.unwrap_or(-100) as i64);
    let run = || match name {
        "binary_cross_entropy" => pair(c, Ok(Bce { weight: weight("weight")?, reduction: reduction(c)? })),
        "binary_cross_entropy_with_logits" => {
            let (weight, positive_weight) = (weight("weight")?, weight("pos_weight")?);
            pair(c, Ok(BceWithLogits { weight, positive_weight, reduction: reduction(c)? }))
        }
        "nll_loss" => pair(c, Ok(Nll { weight: weight("weight")?, ignore: ignore()?, reduction: reduction(c)? })),
        "cross_entropy" => {
            let (smoothing, weight) = (number("label_smoothing", 0.0)?, weight("weight")?);
            pair(c, Ok(CrossEntropy { weight, smoothing, ignore: ignore()?, reduction: reduction(c)? }))
        }
        _ => {
            // PyTorch lets a number be a row of one class, and a vector of one index its row's target.
            let x = c.x(0)?;
            let x = if x.rank() == 0 { x.try_reshape([1])? } else { x };
            let target = c.x(1)?;
            let target = if x.rank() == 1 && target.dims() == [1] { target.try_reshape(())? } else { target };
            let p = c.len(9, "p")?.unwrap_or(1) as u32;
            let (margin, weight) = (number("margin", 1.0)?, weight("weight")?);
            MultiMargin { p, margin, weight, reduction: reduction(c)? }.try_forward(&x, &target)
        }
    };
    const NAMES: [&str; 5] =
        ["binary_cross_entropy", "binary_cross_entropy_with_logits", "nll_loss", "cross_entropy", "multi_margin_loss"];
    NAMES.contains(&name).then(run)
}

fn of_three(name: &str, c: &Call<'_>) -> Option<Result<Tensor>> {
    let number = |name, default: f64| Ok::<_, Error>(c.number(9, name)?.unwrap_or(default));
    let run = || match name {
        "gaussian_nll_loss" => {
            let (full, eps) = (c.flag(3, "full", false), number("eps", 1e-6)?);
            // PyTorch broadcasts the target.
            let (x, target) = (c.x(0)?, c.x(1)?);
            let loss = GaussianNll::new().full(full).eps(eps).reduction(reduction(c)?);
            loss.try_forward(&x, &target.try_expand(*x.shape())?, &c.x(2)?)
        }
        "cosine_embedding_loss" => {
            triple(c, Ok(CosineEmbedding::new().margin(number("margin", 0.0)?).reduction(reduction(c)?)))
        }
        "margin_ranking_loss" => {
            triple(c, Ok(MarginRanking::new().margin(number("margin", 0.0)?).reduction(reduction(c)?)))
        }
        "triplet_margin_loss" => {
            let loss = TripletMargin::new().margin(number("margin", 1.0)?).p(number("p", 2.0)?);
            triple(c, Ok(loss.swap(c.flag(9, "swap", false)).reduction(reduction(c)?)))
        }
        _ => ctc(c),
    };
    const NAMES: [&str; 5] =
        ["gaussian_nll_loss", "cosine_embedding_loss", "margin_ranking_loss", "triplet_margin_loss", "ctc_loss"];
    NAMES.contains(&name).then(run)
}

fn ctc(c: &Call<'_>) -> Result<Tensor> {
    // Numbers of steps and labels: a list or a tensor.
    let counts = |i: usize, name: &str| {
        let v = c.arg(i, name);
        let ints: Vec<i64> = match (c.tensor_in(v), items(v)) {
            (Some(t), _) => t.to_vec()?,
            (None, Some(list)) => list.iter().filter_map(|n| n.as_i64()).collect(),
            _ => Vec::new(),
        };
        ints.into_iter().map(|n| usize::try_from(n).map_err(|_| Error::misuse(format!("a length of {n}")))).collect()
    };
    let (steps, lens): (Result<Vec<usize>>, Result<Vec<usize>>) =
        (counts(2, "input_lengths"), counts(3, "target_lengths"));
    let loss = Ctc::new().blank(c.len(4, "blank")?.unwrap_or(0)).zero_infinity(c.flag(9, "zero_infinity", false));
    loss.reduction(reduction(c)?).try_forward(&c.x(0)?, &c.x(1)?, &steps?, &lens?)
}
