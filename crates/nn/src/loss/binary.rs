//! Cross-entropy of truth values.

use super::{Loss, Losses, Reduction, matching, options, weights};
use crate::{Module, State};
use gradus_core::{Result, Tensor};

/// The binary cross-entropy of probabilities p and targets t in [0, 1], of one shape: −t·ln p − (1−t)·ln(1−p), each
/// logarithm at least −100. In PyTorch: `torch.nn.BCELoss`. Prefer [`BceWithLogits`], which is exact where p is near 0 or 1.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Bce, Loss};
/// let device = gradus_cpu::device();
/// let loss = Bce::new().forward(&Tensor::full([3], 0.5, device), &Tensor::ones([3], device));
/// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug, Default)]
pub struct Bce {
    /// A factor of each element's loss; broadcasts.
    pub weight: Option<State>,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl Bce {
    /// Without weights, the mean.
    pub fn new() -> Bce {
        Bce::default()
    }
    weights! {
        /// With a factor of each element's loss, which broadcasts.
        weight
    }
    options! {
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for Bce {
    fn try_losses(&self, p: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("bce", p, target)?;
        let hit = t.try_mul(&p.try_log()?.try_clamp(Some(-100.0), None)?)?;
        let other = (1.0 - p).try_log()?.try_clamp(Some(-100.0), None)?;
        let losses = hit.try_add(&(1.0 - &t).try_mul(&other)?)?.try_neg()?;
        weighted(losses, self.weight.as_ref())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// The binary cross-entropy of logits x and targets t in [0, 1], of one shape: −t·ln σ(x) − (1−t)·ln(1−σ(x)), without overflow.
/// In PyTorch: `torch.nn.BCEWithLogitsLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{BceWithLogits, Loss};
/// let device = gradus_cpu::device();
/// let loss = BceWithLogits::new().forward(&Tensor::zeros([3], device), &Tensor::ones([3], device));
/// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug, Default)]
pub struct BceWithLogits {
    /// A factor of each element's loss; broadcasts.
    pub weight: Option<State>,
    /// A factor of the positive term, for classes out of balance; broadcasts.
    #[module(rename = "pos_weight")]
    pub positive_weight: Option<State>,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl BceWithLogits {
    /// Without weights, the mean.
    pub fn new() -> BceWithLogits {
        BceWithLogits::default()
    }
    weights! {
        /// With a factor of each element's loss, which broadcasts.
        weight,
        /// With a factor of the positive term, which broadcasts. In PyTorch: `pos_weight`.
        positive_weight
    }
    options! {
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for BceWithLogits {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("bce_with_logits", x, target)?;
        // (1 − t)·x + (1 + (w − 1)·t)·softplus(−x)
        let mut positive = x.try_neg()?.try_softplus()?;
        if let Some(w) = &self.positive_weight {
            positive = positive.try_mul(&((w.value() - 1.0).try_mul(&t)? + 1.0))?;
        }
        let losses = (1.0 - &t).try_mul(x)?.try_add(&positive)?;
        weighted(losses, self.weight.as_ref())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Losses times a weight that broadcasts to them.
fn weighted(losses: Tensor, weight: Option<&State>) -> Result<Losses> {
    Ok(match weight {
        Some(w) => losses.try_mul(&w.value())?.into(),
        None => losses.into(),
    })
}
