//! Mixing of the samples of a batch: mixup and CutMix.
//!
//! Both draw on the host, by a key, so that a resumed run mixes as an uninterrupted one would have. Targets become shares of the
//! classes, `[samples, classes]`, which cross-entropy takes.

use crate::collate::Batch;
use gradus_core::ops::BinaryOp;
use gradus_core::rng::uniform;
use gradus_core::tensor::permutation;
use gradus_core::{DType, Error, Key, Result, Tensor};

/// Each sample becomes λ of itself and 1 − λ of another: x ← λ·x + (1 − λ)·x', and the targets likewise, with λ drawn for the
/// batch from Beta(α, α).
///
/// Targets are class indices `[samples]`, which become `f32` shares of `classes` classes, or shares already. Source: Zhang et al.,
/// *mixup: beyond empirical risk minimization* (2018).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_data::{Batch, mixup};
/// let device = gradus_cpu::device();
/// let batch = Batch { input: Tensor::ones([4, 2], device), target: Tensor::from_slice(&[0i64, 1, 2, 1], device) };
/// let mixed = mixup(&batch, 3, 0.4, 7)?;
/// assert_eq!(mixed.target.dims(), [4, 3]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn mixup(batch: &Batch, classes: usize, alpha: f64, key: impl Into<Key>) -> Result<Batch> {
    let key = key.into().fold("mixup");
    let (share, order) = draw("mixup", batch, alpha, &key)?;
    let input = mixed(&batch.input, &batch.input.try_index_select(0, &order)?, share)?;
    Ok(Batch { input, target: shared(&batch.target, classes, &order, share)? })
}

/// A rectangle of each image is taken from another, and the targets are shared by area: a rectangle of 1 − λ of the area, of the
/// image's proportions and around a random place, where λ is drawn for the batch from Beta(α, α). What of it lies outside the image
/// is cut off, and counts for nothing.
///
/// Inputs are `[samples, channels, height, width]`; targets as for [`mixup`]. Source: Yun et al., *CutMix: regularization strategy
/// to train strong classifiers with localizable features* (2019).
pub fn cutmix(batch: &Batch, classes: usize, alpha: f64, key: impl Into<Key>) -> Result<Batch> {
    let key = key.into().fold("cutmix");
    let (share, order) = draw("cutmix", batch, alpha, &key)?;
    let &[_, _, height, width] = batch.input.dims() else {
        let shape = batch.input.shape();
        return Err(Error::misuse(format!("cutmix: needs inputs [samples, channels, height, width]; got {shape}")));
    };
    let words = key.fold("place").block(0);
    let side = (1.0 - share).sqrt();
    let span = |word: u32, len: usize| {
        let (centre, half) = (f64::from(uniform(word)) * len as f64, side * len as f64 / 2.0);
        let clip = |x: f64| x.round().clamp(0.0, len as f64) as usize;
        clip(centre - half)..clip(centre + half)
    };
    let (rows, columns) = (span(words[0], height), span(words[1], width));
    let inside = (0..height * width).map(|at| rows.contains(&(at / width)) && columns.contains(&(at % width)));
    let inside = Tensor::try_from_vec(inside.collect::<Vec<bool>>(), [height, width], batch.input.device())?;
    let input = batch.input.try_index_select(0, &order)?.try_where(&inside, &batch.input)?;
    let kept = 1.0 - (rows.len() * columns.len()) as f64 / (height * width).max(1) as f64;
    Ok(Batch { input, target: shared(&batch.target, classes, &order, kept)? })
}

/// λ, and the samples that the batch's are mixed with.
fn draw(what: &str, batch: &Batch, alpha: f64, key: &Key) -> Result<(f64, Tensor)> {
    if !(alpha.is_finite() && alpha > 0.0) {
        return Err(Error::misuse(format!("{what}: alpha must be finite and above 0; got {alpha}")));
    }
    if batch.target.dims().first() != batch.input.dims().first() || batch.input.rank() == 0 {
        let (x, t) = (batch.input.shape(), batch.target.shape());
        return Err(Error::misuse(format!("{what}: needs a target for each sample; got inputs {x} and targets {t}")));
    }
    let order: Vec<i64> = permutation(batch.len(), &key.fold("order")).into_iter().map(|i| i as i64).collect();
    let n = order.len();
    Ok((beta(alpha, &key.fold("share")), Tensor::try_from_vec(order, [n], batch.input.device())?))
}

/// share·x + (1 − share)·other.
fn mixed(x: &Tensor, other: &Tensor, share: f64) -> Result<Tensor> {
    let part = |x: &Tensor, s: f64| x.try_binary_scalar(BinaryOp::Mul, s);
    part(x, share)?.try_add(&part(other, 1.0 - share)?)
}

/// The targets as shares of the classes, mixed.
fn shared(target: &Tensor, classes: usize, order: &Tensor, share: f64) -> Result<Tensor> {
    let shares = match (target.rank(), target.dtype().is_float()) {
        (1, false) => target.try_one_hot(classes)?.try_to_dtype(DType::F32)?,
        (2, true) if target.dims()[1] == classes => target.clone(),
        _ => {
            return Err(Error::misuse(format!(
                "targets must be class indices [samples], or shares [samples, {classes}]; got {} {}",
                target.dtype(),
                target.shape()
            )));
        }
    };
    mixed(&shares, &shares.try_index_select(0, order)?, share)
}

/// A number drawn from Beta(α, α): X/(X + Y) of two gamma variates.
fn beta(alpha: f64, key: &Key) -> f64 {
    let (x, y) = (log_gamma_variate(alpha, &key.fold("x")), log_gamma_variate(alpha, &key.fold("y")));
    // Of logarithms, since for a small α both variates may be smaller than any number.
    1.0 / (1.0 + (y - x).exp())
}

/// The logarithm of a gamma variate of this shape, by rejection (Marsaglia & Tsang, *A simple method for generating gamma
/// variables*, 2000), boosted below 1.
fn log_gamma_variate(shape: f64, key: &Key) -> f64 {
    let word = |w: u32| (f64::from(w) + 0.5) / 4_294_967_296.0; // never 0
    let boost = if shape < 1.0 { word(key.fold("boost").block(0)[0]).ln() / shape } else { 0.0 };
    let d = shape + if shape < 1.0 { 1.0 } else { 0.0 } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    for block in 0.. {
        let w = key.block(block);
        let normal = (-2.0 * word(w[0]).ln()).sqrt() * (std::f64::consts::TAU * word(w[1])).cos();
        let v = (1.0 + c * normal).powi(3);
        if v > 0.0 && word(w[2]).ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return (d * v).ln() + boost;
        }
    }
    boost // not reached: a draw is taken with probability above 0.95
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_moments_of_a_beta() {
        for alpha in [0.2, 1.0, 4.0] {
            let x: Vec<f64> = (0..20_000).map(|i| beta(alpha, &Key::new(9).fold_in(i))).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let want = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.012 && (variance / want - 1.0).abs() < 0.04, "{alpha}: {mean}, {variance}");
            assert!(x.iter().all(|x| (0.0..=1.0).contains(x)));
        }
        assert!(beta(1e-6, &Key::new(1)).is_finite());
    }
}
