//! Focal losses (Lin et al., "Focal loss for dense object detection", 2017): cross-entropy that counts easy examples less.

use super::cross_entropy::class_weight;
use super::{Loss, Losses, Nll, Reduction, matching, misfit, options, weights};
use crate::{Module, State};
use gradus_core::{DType, Error, Result, Tensor};

/// −w_t·(1 − p_t)^gamma·ln p_t for logits `[rows, classes, ..]` and class indices `[rows, ..]`, where p is their softmax and t
/// the target. The mean is over the rows that count.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Focal, Loss};
/// let device = gradus_cpu::device();
/// let loss = Focal::new(2.0).forward(&Tensor::zeros([1, 2], device), &Tensor::from_vec(vec![0i64], [1], device));
/// assert!((loss.item::<f32>()? - 0.25 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct Focal {
    /// How much less easy examples count; 0 is the cross-entropy.
    pub gamma: f64,
    /// A weight for each class, `[classes]`: the paper's alpha.
    pub weight: Option<State>,
    /// The target of rows that do not count.
    pub ignore: i64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Focal {
    /// With this gamma (the paper uses 2), without weights, ignoring −100, the mean.
    pub fn new(gamma: f64) -> Focal {
        Focal { gamma, weight: None, ignore: -100, reduction: Reduction::Mean }
    }
    weights! {
        /// With a weight for each class, `[classes]`.
        weight
    }
    options! {
        /// Not counting rows with this target.
        ignore: i64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for Focal {
    fn try_losses(&self, logits: &Tensor, target: &Tensor) -> Result<Losses> {
        if logits.rank() == 0 {
            return Err(misfit("focal", "needs logits [rows, classes, ..]", [logits, target]));
        }
        let dim = isize::from(logits.rank() > 1);
        let nll = Nll::new().ignore(self.ignore).try_losses(&logits.try_log_softmax(dim)?, target)?;
        let mut each = eased(&nll.each, self.gamma)?;
        if let Some(w) = &self.weight {
            let w = class_weight("focal", &w.value(), logits, target)?;
            let target = target.try_to_dtype(DType::I64)?;
            let class = target.try_masked_fill(&target.try_eq_scalar(self.ignore)?, 0i64)?;
            let picked = w.try_index_select(0, &class.try_reshape([class.elements()])?)?;
            each = each.try_mul(&picked.try_reshape(*each.shape())?)?;
        }
        Ok(Losses { each, share: nll.share })
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// (1 − p)^gamma·l for l = −ln p.
fn eased(losses: &Tensor, gamma: f64) -> Result<Tensor> {
    if !(gamma >= 0.0 && gamma.is_finite()) {
        return Err(Error::misuse(format!("focal: gamma must be a number of at least 0; got {gamma}")));
    }
    if gamma == 0.0 {
        return Ok(losses.clone());
    }
    losses.try_neg()?.try_expm1()?.try_neg()?.try_powf(gamma)?.try_mul(losses)
}

/// −α_t·(1 − p_t)^gamma·ln p_t for logits x and targets t in {0, 1} of one shape, where p_t is σ(x) for 1 and 1 − σ(x) for 0, and
/// α_t likewise alpha or 1 − alpha. In torchvision: `sigmoid_focal_loss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{BinaryFocal, Loss};
/// let device = gradus_cpu::device();
/// let loss = BinaryFocal::new(2.0).alpha(None).forward(&Tensor::zeros([3], device), &Tensor::ones([3], device));
/// assert!((loss.item::<f32>()? - 0.25 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct BinaryFocal {
    /// How much less easy examples count.
    pub gamma: f64,
    /// The weight of positive examples, if any; negative ones have 1 − alpha.
    pub alpha: Option<f64>,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl BinaryFocal {
    /// With this gamma (the paper uses 2), alpha 1/4, the mean.
    pub fn new(gamma: f64) -> BinaryFocal {
        BinaryFocal { gamma, alpha: Some(0.25), reduction: Reduction::Mean }
    }
    options! {
        /// With this weight of positive examples.
        alpha: Option<f64>,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for BinaryFocal {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("binary_focal", x, target)?;
        let cross_entropy = (1.0 - &t).try_mul(x)?.try_add(&x.try_neg()?.try_softplus()?)?;
        let p = x.try_sigmoid()?;
        // 1 − p_t = p + t − 2·p·t, also for targets between 0 and 1.
        let hard = p.try_add(&t)?.try_sub(&(p.try_mul(&t)? * 2.0))?;
        let mut each = match self.gamma {
            0.0 => cross_entropy,
            gamma => hard.try_powf(gamma)?.try_mul(&cross_entropy)?,
        };
        if let Some(alpha) = self.alpha {
            each = each.try_mul(&(&t * (2.0 * alpha - 1.0) + (1.0 - alpha)))?;
        }
        Ok(each.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
