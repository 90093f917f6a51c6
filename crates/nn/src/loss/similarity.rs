//! Losses of embeddings by how near they are.

use super::{Losses, PairLoss, Reduction, misfit, options, positive};
use crate::Module;
use gradus_core::{Result, Tensor};

/// 1 − cos(a, b) where y is 1, max(0, cos(a, b) − margin) where it is −1, for vectors a and b `[rows, width]` and y `[rows]`
/// (or `[width]` and one number). Its three tensors are a, b and y. In PyTorch: `torch.nn.CosineEmbeddingLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{CosineEmbedding, PairLoss};
/// let device = gradus_cpu::device();
/// let a = Tensor::from_vec(vec![1f32, 0.0, 1.0, 0.0], [2, 2], device);
/// let y = Tensor::from_vec(vec![1f32, -1.0], [2], device);
/// assert!((CosineEmbedding::new().forward(&a, &a, &y).item::<f32>()? - 0.5).abs() < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct CosineEmbedding {
    /// The cosine up to which unlike things cost nothing.
    pub margin: f64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl CosineEmbedding {
    /// Margin 0, the mean.
    pub fn new() -> CosineEmbedding {
        CosineEmbedding::default()
    }
    options! {
        /// With this margin.
        margin: f64,
        /// With this reduction.
        reduction: Reduction
    }
}

impl PairLoss for CosineEmbedding {
    fn try_losses(&self, a: &Tensor, b: &Tensor, y: &Tensor) -> Result<Losses> {
        let fits = matches!(a.rank(), 1 | 2)
            && a.shape() == b.shape()
            && a.dims()[..a.rank() - 1] == *y.dims()
            && a.dtype().is_float();
        if !fits {
            return Err(misfit("cosine_embedding", "needs vectors [rows, width] twice and targets [rows]", [a, b, y]));
        }
        const EPS: f64 = 1e-12; // as PyTorch has it
        let dot = |a: &Tensor, b: &Tensor| a.try_mul(b)?.try_sum_dims(&[-1], false);
        let norms = (dot(a, a)? + EPS).try_mul(&(dot(b, b)? + EPS))?.try_sqrt()?;
        let cosine = dot(a, b)?.try_div(&norms)?;
        let like = (1.0 - &cosine).try_masked_fill(&y.try_ne_scalar(1.0)?, 0.0)?;
        let unlike = (&cosine - self.margin).try_relu()?.try_masked_fill(&y.try_ne_scalar(-1.0)?, 0.0)?;
        Ok(like.try_add(&unlike)?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}

/// max(0, d(a, p) − d(a, n) + margin) for anchors a, positives p and negatives n `[.., width]`, where d(x, y) = ‖x − y + eps‖_p
/// (Balntas et al., 2016). Its three tensors are a, p and n. In PyTorch: `torch.nn.TripletMarginLoss`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{PairLoss, TripletMargin};
/// let device = gradus_cpu::device();
/// let (a, n) = (Tensor::zeros([2, 3], device), Tensor::full([2, 3], 10.0, device));
/// assert_eq!(TripletMargin::new().forward(&a, &a, &n).item::<f32>()?, 0.0);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct TripletMargin {
    /// How much nearer the positive is to be.
    pub margin: f64,
    /// The norm's p.
    pub p: f64,
    /// Added to the difference.
    pub eps: f64,
    /// Whether the negative's distance is the lesser of those to anchor and positive.
    pub swap: bool,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for TripletMargin {
    fn default() -> TripletMargin {
        TripletMargin { margin: 1.0, p: 2.0, eps: 1e-6, swap: false, reduction: Reduction::Mean }
    }
}

impl TripletMargin {
    /// Margin 1, the Euclidean distance, no swap, the mean.
    pub fn new() -> TripletMargin {
        TripletMargin::default()
    }
    options! {
        /// With this margin.
        margin: f64,
        /// With this norm's p.
        p: f64,
        /// With this number added to the differences.
        eps: f64,
        /// Whether the negative's distance is the lesser of those to anchor and positive.
        swap: bool,
        /// With this reduction.
        reduction: Reduction
    }
}

impl PairLoss for TripletMargin {
    fn try_losses(&self, anchor: &Tensor, near: &Tensor, far: &Tensor) -> Result<Losses> {
        if anchor.rank() == 0 || anchor.shape() != near.shape() || anchor.shape() != far.shape() {
            return Err(misfit("triplet_margin", "needs three tensors of one shape [.., width]", [anchor, near, far]));
        }
        positive("triplet_margin", "the margin", self.margin)?;
        let distance = |a: &Tensor, b: &Tensor| (a.try_sub(b)? + self.eps).try_norm(self.p, &[-1], false);
        let mut to_far = distance(anchor, far)?;
        if self.swap {
            to_far = to_far.try_minimum(&distance(near, far)?)?;
        }
        Ok((distance(anchor, near)?.try_sub(&to_far)? + self.margin).try_relu()?.into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
