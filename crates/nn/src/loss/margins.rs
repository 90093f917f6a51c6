//! Losses that are 0 beyond a margin.

use super::{Loss, Losses, PairLoss, Reduction, matching, misfit, options, weights};
use crate::{Module, State};
use gradus_core::{DType, Result, Tensor};

/// x where the target is 1, max(0, margin − x) where it is −1, for distances x. In PyTorch: `torch.nn.HingeEmbeddingLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{HingeEmbedding, Loss};
/// let device = gradus_cpu::device();
/// let (x, y) = (Tensor::from_vec(vec![0.5f32, 0.25], [2], device), Tensor::from_vec(vec![1f32, -1.0], [2], device));
/// assert_eq!(HingeEmbedding::new().forward(&x, &y).item::<f32>()?, 0.625);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct HingeEmbedding {
    /// How far apart unlike things are to be.
    pub margin: f64,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl Default for HingeEmbedding {
    fn default() -> HingeEmbedding {
        HingeEmbedding { margin: 1.0, reduction: Reduction::Mean }
    }
}

impl HingeEmbedding {
    /// Margin 1, the mean.
    pub fn new() -> HingeEmbedding {
        HingeEmbedding::default()
    }
    options! {
        /// With this margin.
        margin: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for HingeEmbedding {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let y = matching("hinge_embedding", x, target)?;
        let unlike = (self.margin - x).try_relu()?.try_masked_fill(&y.try_eq_scalar(1.0)?, 0.0)?;
        let like = x.try_masked_fill(&y.try_eq_scalar(-1.0)?, 0.0)?;
        Ok(unlike.try_add(&like)?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// max(0, margin − y·(a − b)): a is to rank above b where y is 1, below it where y is −1. Its three tensors are a, b and y.
/// In PyTorch: `torch.nn.MarginRankingLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{MarginRanking, PairLoss};
/// let device = gradus_cpu::device();
/// let (a, b) = (Tensor::ones([2], device), Tensor::zeros([2], device));
/// let y = Tensor::from_vec(vec![1f32, -1.0], [2], device);
/// assert_eq!(MarginRanking::new().forward(&a, &b, &y).item::<f32>()?, 0.5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct MarginRanking {
    /// By how much one is to rank above the other.
    pub margin: f64,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl MarginRanking {
    /// Margin 0, the mean.
    pub fn new() -> MarginRanking {
        MarginRanking::default()
    }
    options! {
        /// With this margin.
        margin: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl PairLoss for MarginRanking {
    fn try_losses(&self, a: &Tensor, b: &Tensor, y: &Tensor) -> Result<Losses> {
        let b = matching("margin_ranking", a, b)?;
        let y = matching("margin_ranking", a, y)?;
        Ok((self.margin - y.try_mul(&a.try_sub(&b)?)?).try_relu()?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// ln(1 + e^(−y·x)) for logits x and targets y of ±1. In PyTorch: `torch.nn.SoftMarginLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, SoftMargin};
/// let device = gradus_cpu::device();
/// let loss = SoftMargin::new().forward(&Tensor::zeros([3], device), &Tensor::ones([3], device));
/// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct SoftMargin {
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl SoftMargin {
    /// The mean.
    pub fn new() -> SoftMargin {
        SoftMargin::default()
    }
    options! {
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for SoftMargin {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let y = matching("soft_margin", x, target)?;
        Ok(y.try_mul(x)?.try_neg()?.try_softplus()?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Σ_{i≠t} max(0, margin − x_t + x_i)^p / classes, for scores x `[rows, classes]` and class indices t `[rows]` (or one row
/// without its dimension): the hinge loss of several classes. In PyTorch: `torch.nn.MultiMarginLoss`.
///
/// With class weights w, a row's loss is multiplied by w_t (before the mean, which is over the rows).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, MultiMargin};
/// let device = gradus_cpu::device();
/// let x = Tensor::from_vec(vec![0.1f32, 0.2, 0.4, 0.8], [1, 4], device);
/// let loss = MultiMargin::new().forward(&x, &Tensor::from_vec(vec![3i64], [1], device));
/// assert!((loss.item::<f32>()? - 0.325).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct MultiMargin {
    /// The power of each excess, 1 or 2.
    pub p: u32,
    /// By how much the target's score is to exceed the others.
    pub margin: f64,
    /// A weight for each class, `[classes]`.
    pub weight: Option<State>,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for MultiMargin {
    fn default() -> MultiMargin {
        MultiMargin { p: 1, margin: 1.0, weight: None, reduction: Reduction::Mean }
    }
}

impl MultiMargin {
    /// p 1, margin 1, without weights, the mean.
    pub fn new() -> MultiMargin {
        MultiMargin::default()
    }
    weights! {
        /// With a weight for each class, `[classes]`.
        weight
    }
    options! {
        /// With this power, 1 or 2.
        p: u32,
        /// With this margin.
        margin: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for MultiMargin {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let fits = matches!(x.rank(), 1 | 2)
            && x.dtype().is_float()
            && target.dtype().is_int()
            && x.dims()[..x.rank() - 1] == *target.dims();
        if !fits {
            return Err(misfit("multi_margin", "needs scores [rows, classes] and integer targets [rows]", [x, target]));
        }
        if !matches!(self.p, 1 | 2) {
            return Err(misfit("multi_margin", &format!("p is 1 or 2, not {}", self.p), [x, target]));
        }
        let class = target.try_to_dtype(DType::I64)?.try_unsqueeze(-1)?;
        let mut excess = (x.try_sub(&x.try_gather(-1, &class)?)? + self.margin).try_relu()?;
        if self.p == 2 {
            excess = excess.try_square()?;
        }
        let own = class.try_squeeze(-1)?.try_one_hot(x.dim(-1))?.try_ne_scalar(0i64)?;
        let mut each = excess.try_masked_fill(&own, 0.0)?.try_sum_dims(&[-1], false)? / x.dim(-1) as f64;
        if let Some(w) = &self.weight {
            let w = super::cross_entropy::class_weight("multi_margin", &w.value(), x, target)?;
            let picked = w.try_index_select(0, &class.try_reshape([class.elements()])?)?;
            each = each.try_mul(&picked.try_reshape(*each.shape())?)?;
        }
        Ok(each.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// Σ_{j in targets} Σ_{i not in targets} max(0, 1 − x_j + x_i) / classes, for scores x `[rows, classes]` and targets of the
/// same shape: class indices, ended by the first negative number (or one row without its dimension). In PyTorch:
/// `torch.nn.MultiLabelMarginLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, MultiLabelMargin};
/// let device = gradus_cpu::device();
/// let x = Tensor::from_vec(vec![0.1f32, 0.2, 0.4, 0.8], [1, 4], device);
/// let loss = MultiLabelMargin::new().forward(&x, &Tensor::from_vec(vec![3i64, 0, -1, 1], [1, 4], device));
/// assert!((loss.item::<f32>()? - 0.85).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct MultiLabelMargin {
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl MultiLabelMargin {
    /// The mean.
    pub fn new() -> MultiLabelMargin {
        MultiLabelMargin::default()
    }
    options! {
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for MultiLabelMargin {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let fits =
            matches!(x.rank(), 1 | 2) && x.dtype().is_float() && target.dtype().is_int() && x.shape() == target.shape();
        if !fits {
            let message = "needs scores [rows, classes] and integer targets of their shape";
            return Err(misfit("multi_label_margin", message, [x, target]));
        }
        let target = target.try_to_dtype(DType::I64)?;
        // Targets before the first negative one.
        let counts = target.try_ge_scalar(0i64)?.try_to_dtype(DType::I64)?.try_cumprod(-1)?.try_ne_scalar(0i64)?;
        let class = target.try_masked_fill(&counts.try_logical_not()?, 0i64)?;
        let counted = counts.try_to_dtype(x.dtype())?;
        let is_target = Tensor::try_zeros(*x.shape(), x.place())?.try_scatter_add(-1, &class, &counted)?;
        let others = is_target.try_eq_scalar(0.0)?.try_to_dtype(x.dtype())?.try_unsqueeze(-2)?;
        let scores = x.try_gather(-1, &class)?.try_unsqueeze(-1)?;
        // [.., targets, classes]
        let excess = (x.try_unsqueeze(-2)?.try_sub(&scores)? + 1.0).try_relu()?;
        let each = excess.try_mul(&counted.try_unsqueeze(-1)?)?.try_mul(&others)?.try_sum_dims(&[-1, -2], false)?;
        Ok((each / x.dim(-1) as f64).into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// The mean over classes of −y·ln σ(x) − (1−y)·ln σ(−x), for logits x `[.., classes]` and targets y of 0 and 1 of their
/// shape. In PyTorch: `torch.nn.MultiLabelSoftMarginLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Loss, MultiLabelSoftMargin};
/// let device = gradus_cpu::device();
/// let loss = MultiLabelSoftMargin::new().forward(&Tensor::zeros([2, 3], device), &Tensor::ones([2, 3], device));
/// assert!((loss.item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug, Default)]
pub struct MultiLabelSoftMargin {
    /// A weight for each class, `[classes]`.
    pub weight: Option<State>,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl MultiLabelSoftMargin {
    /// Without weights, the mean.
    pub fn new() -> MultiLabelSoftMargin {
        MultiLabelSoftMargin::default()
    }
    weights! {
        /// With a weight for each class, `[classes]`.
        weight
    }
    options! {
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for MultiLabelSoftMargin {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let y = matching("multi_label_soft_margin", x, target)?;
        if x.rank() == 0 {
            return Err(misfit("multi_label_soft_margin", "needs logits [.., classes]", [x, target]));
        }
        let hit = y.try_mul(&x.try_log_sigmoid()?)?;
        let other = (1.0 - &y).try_mul(&x.try_neg()?.try_log_sigmoid()?)?;
        let mut losses = hit.try_add(&other)?.try_neg()?;
        if let Some(w) = &self.weight {
            losses = losses.try_mul(&w.value())?;
        }
        Ok(losses.try_mean_dims(&[-1], false)?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
