//! Cross-entropy of logits with classes or class probabilities.

use super::{Loss, Losses, Reduction, misfit, options, weights};
use crate::{Module, State};
use gradus_core::functional::loss::CrossEntropyOptions;
use gradus_core::{DType, Error, Result, Tensor};

/// The cross-entropy of logits `[rows, classes, ..]` and class indices `[rows, ..]` or class probabilities
/// `[rows, classes, ..]`: −Σ_c t_c·ln softmax(logits)_c. (Also for one row without its dimension: `[classes]`.)
/// In PyTorch: `torch.nn.CrossEntropyLoss`.
///
/// With class weights w, smoothing s and C classes, a row's loss is −(1−s)·w_t·p_t − s/C·Σ_c w_c·p_c for log-probabilities p.
/// The mean is over the weights of the targets where these are indices, and over the rows where they are probabilities. A
/// target that is no class is an error, but for the ignored one (−100).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{CrossEntropy, Loss};
/// let device = gradus_cpu::device();
/// let logits = Tensor::zeros([2, 4], device);
/// let by_index = CrossEntropy::new().forward(&logits, &Tensor::from_vec(vec![1i64, 3], [2], device));
/// let even = CrossEntropy::new().forward(&logits, &Tensor::full([2, 4], 0.25, device));
/// assert!((by_index - even).item::<f32>()?.abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct CrossEntropy {
    /// A weight for each class, `[classes]`.
    pub weight: Option<State>,
    /// The share of each target's probability that is spread over all classes.
    pub smoothing: f64,
    /// The target of rows that do not count (class indices only).
    pub ignore: i64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { weight: None, smoothing: 0.0, ignore: -100, reduction: Reduction::Mean }
    }
}

impl CrossEntropy {
    /// Without weights or smoothing, ignoring −100, the mean.
    pub fn new() -> CrossEntropy {
        CrossEntropy::default()
    }
    weights! {
        /// With a weight for each class, `[classes]`.
        weight
    }
    options! {
        /// With the share `smoothing` of each target's probability spread over all classes (Szegedy et al., 2016).
        smoothing: f64,
        /// Not counting rows with this target.
        ignore: i64,
        /// With this reduction.
        reduction: Reduction
    }

    /// The options of the fused operation, with this reduction.
    pub(super) fn options(&self, reduction: Reduction) -> CrossEntropyOptions {
        CrossEntropyOptions {
            weight: self.weight.as_ref().map(State::value),
            smoothing: self.smoothing,
            ignore: self.ignore,
            reduction,
        }
    }

    /// What each row counts for in the mean, where its target is a class.
    pub(super) fn share(&self, target: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
        if target.dtype().is_float() {
            return Ok(None);
        }
        let ignored = target.try_eq_scalar(self.ignore)?;
        let share = ignored.try_logical_not()?.try_to_dtype(dtype)?;
        let Some(w) = &self.weight else { return Ok(Some(share)) };
        let class = target.try_masked_fill(&ignored, 0i64)?;
        let picked = w.value().try_index_select(0, &class.try_reshape([class.elements()])?)?;
        share.try_mul(&picked.try_reshape(*class.shape())?).map(Some)
    }

    /// −Σ_c t'_c·w_c·p_c for class probabilities t, of which t' has the share s spread evenly.
    fn of_probabilities(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        let dim = isize::from(logits.rank() > 1);
        let classes = logits.dim(dim);
        if !(0.0..=1.0).contains(&self.smoothing) {
            return Err(Error::misuse(format!("label smoothing lies between 0 and 1; got {}", self.smoothing)));
        }
        let mut t = target.try_to_dtype(logits.dtype())?;
        if self.smoothing > 0.0 {
            t = t * (1.0 - self.smoothing) + self.smoothing / classes as f64;
        }
        let mut p = logits.try_log_softmax(dim)?;
        if let Some(w) = &self.weight {
            let w = class_weight("cross_entropy", &w.value(), logits, target)?;
            let mut shape = vec![1; logits.rank()];
            shape[dim as usize] = classes;
            p = p.try_mul(&w.try_reshape(shape)?)?;
        }
        p.try_mul(&t)?.try_sum_dims(&[dim], false)?.try_neg()
    }
}

/// Class weights, if there are as many as classes.
pub(super) fn class_weight(loss: &'static str, w: &Tensor, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let classes = logits.dim(isize::from(logits.rank() > 1));
    if w.dims() != [classes] {
        let message = format!("class weights of shape [{classes}] would fit, not {}", w.shape());
        return Err(misfit(loss, &message, [logits, target]));
    }
    w.try_to_dtype(logits.dtype())
}

/// Whether targets are class probabilities.
fn are_probabilities(logits: &Tensor, target: &Tensor) -> bool {
    target.dtype().is_float() && logits.shape() == target.shape() && logits.rank() > 0
}

impl Loss for CrossEntropy {
    fn try_losses(&self, logits: &Tensor, target: &Tensor) -> Result<Losses> {
        if are_probabilities(logits, target) {
            return Ok(self.of_probabilities(logits, target)?.into());
        }
        let each = logits.try_cross_entropy_with(target, &self.options(Reduction::None))?;
        let share = self.share(target, each.dtype())?;
        Ok(Losses { each, share })
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
    /// In one pass over the logits, where the backend has it.
    fn try_forward(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        if !are_probabilities(logits, target) {
            return logits.try_cross_entropy_with(target, &self.options(self.reduction));
        }
        let each = self.of_probabilities(logits, target)?;
        let rows = each.elements();
        match self.reduction {
            Reduction::Mean => Ok(each.try_sum()? / rows as f64),
            other => Losses::from(each).reduced(other),
        }
    }
}
