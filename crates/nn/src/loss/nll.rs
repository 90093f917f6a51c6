//! Negative log-likelihood of classes.

use super::cross_entropy::class_weight;
use super::{Loss, Losses, Reduction, misfit, options, weights};
use crate::{Module, State};
use gradus_core::{DType, Result, Tensor};

/// −p at the target, for log-probabilities p `[rows, classes, ..]` and class indices `[rows, ..]` (also for one row without
/// its dimension: `[classes]`). In PyTorch: `torch.nn.NLLLoss`.
///
/// With class weights w, a row's loss is −w_t·p_t, and the mean is over the weights of the targets.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, Nll};
/// let device = gradus_cpu::device();
/// let p = Tensor::from_vec(vec![-0.5f32, -1.0, -2.0, -0.1], [2, 2], device);
/// let loss = Nll::new().forward(&p, &Tensor::from_vec(vec![0i64, 1], [2], device));
/// assert!((loss.item::<f32>()? - 0.3).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct Nll {
    /// A weight for each class, `[classes]`.
    pub weight: Option<State>,
    /// The target of rows that do not count.
    pub ignore: i64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for Nll {
    fn default() -> Nll {
        Nll { weight: None, ignore: -100, reduction: Reduction::Mean }
    }
}

impl Nll {
    /// Without weights, ignoring −100, the mean.
    pub fn new() -> Nll {
        Nll::default()
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

impl Loss for Nll {
    fn try_losses(&self, log_p: &Tensor, target: &Tensor) -> Result<Losses> {
        let dim = usize::from(log_p.rank() > 1);
        let fits = log_p.rank() >= 1
            && *target.shape() == log_p.shape().without(dim)
            && log_p.dtype().is_float()
            && target.dtype().is_int();
        if !fits {
            let message = "needs log-probabilities [rows, classes, ..] and integer targets [rows, ..]";
            return Err(misfit("nll", message, [log_p, target]));
        }
        let target = target.try_to_dtype(DType::I64)?;
        let ignored = target.try_eq_scalar(self.ignore)?;
        let class = target.try_masked_fill(&ignored, 0i64)?;
        let mut share = ignored.try_logical_not()?.try_to_dtype(log_p.dtype())?;
        if let Some(w) = &self.weight {
            let w = class_weight("nll", &w.value(), log_p, &target)?;
            let picked = w.try_index_select(0, &class.try_reshape([class.elements()])?)?;
            share = share.try_mul(&picked.try_reshape(*class.shape())?)?;
        }
        let picked = log_p.try_gather(dim as isize, &class.try_unsqueeze(dim as isize)?)?.try_squeeze(dim as isize)?;
        // −∞ in a row that does not count must not become NaN.
        let each = picked.try_masked_fill(&ignored, 0.0)?.try_mul(&share)?.try_neg()?;
        Ok(Losses { each, share: Some(share) })
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
