//! Negative log-likelihoods of distributions, and the divergence of two.

use super::{Loss, Losses, PairLoss, Reduction, matching, misfit, options};
use crate::Module;
use gradus_core::{Result, Tensor};
use std::f64::consts::PI;

/// The Kullback–Leibler divergence of log-probabilities x from probabilities t, by element: t·(ln t − x), 0 where t is 0.
/// In PyTorch: `torch.nn.KLDivLoss`.
///
/// The mean is over all elements, as in PyTorch; the divergence itself is [`batch_mean`](Self::batch_mean).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{KlDiv, Loss};
/// let device = gradus_cpu::device();
/// let t = Tensor::from_vec(vec![0.25f32, 0.75], [1, 2], device);
/// let loss = KlDiv::new().batch_mean().forward(&t.log(), &t);
/// assert!(loss.item::<f32>()?.abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct KlDiv {
    /// Whether the target is log-probabilities too.
    pub log_target: bool,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
    /// Whether their sum is divided by the number of rows, in place of `reduction`.
    by_rows: bool,
}

impl KlDiv {
    /// Of probabilities, the mean of the elements.
    pub fn new() -> KlDiv {
        KlDiv::default()
    }
    options! {
        /// Whether the target is log-probabilities too.
        log_target: bool,
        /// With this reduction.
        reduction: Reduction
    }
    /// The sum divided by the number of rows: the mean divergence of a batch. In PyTorch: `reduction='batchmean'`.
    pub fn batch_mean(mut self) -> KlDiv {
        self.by_rows = true;
        self
    }
}

impl Loss for KlDiv {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("kl_div", x, target)?;
        Ok(match self.log_target {
            true => t.try_exp()?.try_mul(&t.try_sub(x)?)?,
            false => t.try_xlogy(&t)?.try_sub(&t.try_mul(x)?)?,
        }
        .into())
    }
    fn reduction(&self) -> Reduction {
        if self.by_rows { Reduction::Sum } else { self.reduction }
    }
    fn try_forward(&self, x: &Tensor, target: &Tensor) -> Result<Tensor> {
        let loss = self.try_losses(x, target)?.reduced(self.reduction())?;
        let rows = x.dims().first().copied().unwrap_or(1);
        if self.by_rows { Ok(loss / rows as f64) } else { Ok(loss) }
    }
}

/// The negative log-likelihood of counts t under Poisson distributions: eˣ − t·x for logarithms x of the rates, or
/// x − t·ln(x + eps) for rates x. In PyTorch: `torch.nn.PoissonNLLLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, PoissonNll};
/// let device = gradus_cpu::device();
/// let loss = PoissonNll::new().forward(&Tensor::zeros([3], device), &Tensor::ones([3], device));
/// assert_eq!(loss.item::<f32>()?, 1.0);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct PoissonNll {
    /// Whether the predictions are logarithms of the rates.
    pub log_input: bool,
    /// Whether ln t! is added for t > 1, by Stirling's formula: t·ln t − t + ½·ln(2πt).
    pub full: bool,
    /// Keeps the logarithm of a rate from −∞.
    pub eps: f64,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl Default for PoissonNll {
    fn default() -> PoissonNll {
        PoissonNll { log_input: true, full: false, eps: 1e-8, reduction: Reduction::Mean }
    }
}

impl PoissonNll {
    /// Of logarithms of rates, without ln t!, the mean.
    pub fn new() -> PoissonNll {
        PoissonNll::default()
    }
    options! {
        /// Whether the predictions are logarithms of the rates.
        log_input: bool,
        /// Whether ln t! is added, by Stirling's formula.
        full: bool,
        /// With this number added to a rate before its logarithm.
        eps: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for PoissonNll {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("poisson_nll", x, target)?;
        let mut losses = match self.log_input {
            true => x.try_exp()?.try_sub(&t.try_mul(x)?)?,
            false => x.try_sub(&t.try_mul(&(x + self.eps).try_log()?)?)?,
        };
        if self.full {
            // Small counts are set to 1 first: ln 0 would give 0·∞ in the gradient.
            let small = t.try_le_scalar(1.0)?;
            let t = t.try_masked_fill(&small, 1.0)?;
            let stirling = t.try_mul(&t.try_log()?)?.try_sub(&t)?.try_add(&((&t * (2.0 * PI)).try_log()? * 0.5))?;
            losses = losses.try_add(&stirling.try_masked_fill(&small, 0.0)?)?;
        }
        Ok(losses.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// The negative log-likelihood of targets t under normal distributions of mean m and variance v:
/// ½·(ln max(v, eps) + (m − t)²/max(v, eps)). In PyTorch: `torch.nn.GaussianNLLLoss`.
///
/// Its three tensors are, in PyTorch's order, mean, target and variance. The variance has the mean's shape, or one that
/// broadcasts to it, or lacks its last dimension. A negative variance counts as eps.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{GaussianNll, PairLoss};
/// let device = gradus_cpu::device();
/// let (m, t, v) = (Tensor::zeros([3], device), Tensor::ones([3], device), Tensor::ones([3], device));
/// assert_eq!(GaussianNll::new().forward(&m, &t, &v).item::<f32>()?, 0.5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct GaussianNll {
    /// Whether ½·ln 2π is added.
    pub full: bool,
    /// The least variance; the gradient passes as if there were none.
    pub eps: f64,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl Default for GaussianNll {
    fn default() -> GaussianNll {
        GaussianNll { full: false, eps: 1e-6, reduction: Reduction::Mean }
    }
}

impl GaussianNll {
    /// Without ½·ln 2π, eps 1e-6, the mean.
    pub fn new() -> GaussianNll {
        GaussianNll::default()
    }
    options! {
        /// Whether ½·ln 2π is added.
        full: bool,
        /// With this least variance.
        eps: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl PairLoss for GaussianNll {
    fn try_losses(&self, mean: &Tensor, target: &Tensor, variance: &Tensor) -> Result<Losses> {
        let t = matching("gaussian_nll", mean, target)?;
        let v = match mean.dims() {
            [rows @ .., n] if variance.dims() == rows && *n != 1 => variance.try_unsqueeze(-1)?,
            _ => variance.clone(),
        };
        let v = v.try_expand(*mean.shape()).map_err(|_| {
            let message = "needs a variance of the mean's shape, or one that broadcasts to it";
            misfit("gaussian_nll", message, [mean, target, variance])
        })?;
        let lift = (self.eps - v.detach()).try_relu()?;
        let v = v.try_add(&lift)?;
        let square = mean.try_sub(&t)?.try_square()?;
        let mut losses = v.try_log()?.try_add(&square.try_div(&v)?)? * 0.5;
        if self.full {
            losses = losses + 0.5 * (2.0 * PI).ln();
        }
        Ok(losses.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
