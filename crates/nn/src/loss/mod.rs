//! Losses: how far a prediction is from its target, as one number to be made small.
//!
//! | for | see |
//! |---|---|
//! | classes | [`CrossEntropy`], [`Nll`], [`LinearCrossEntropy`], [`MultiMargin`], [`Focal`] |
//! | truth values | [`Bce`], [`BceWithLogits`], [`SoftMargin`], [`BinaryFocal`], [`Dice`] |
//! | several labels at once | [`BceWithLogits`], [`MultiLabelMargin`], [`MultiLabelSoftMargin`] |
//! | numbers | [`Mse`], [`L1`], [`SmoothL1`], [`Huber`], [`PoissonNll`], [`GaussianNll`] |
//! | distributions | [`KlDiv`], [`CrossEntropy`] (class probabilities) |
//! | sequences without alignment | [`Ctc`] |
//! | embeddings and ranks | [`CosineEmbedding`], [`HingeEmbedding`], [`MarginRanking`], [`TripletMargin`], [`InfoNce`] |
//!
//! A loss is made of the losses of its elements ([`Losses`]): `try_losses` gives these, and a [`Reduction`] or a mask makes
//! them one number. Weights of classes are states of the loss, so a loss is a [`Module`](crate::Module) and moves with the
//! model that holds it.

mod binary;
mod contrastive;
mod cross_entropy;
mod ctc;
mod dice;
mod distances;
mod distributions;
mod focal;
mod linear_cross_entropy;
mod margins;
mod nll;
mod similarity;

pub use binary::{Bce, BceWithLogits};
pub use contrastive::InfoNce;
pub use cross_entropy::CrossEntropy;
pub use ctc::Ctc;
pub use dice::Dice;
pub use distances::{Huber, L1, Mse, SmoothL1};
pub use distributions::{GaussianNll, KlDiv, PoissonNll};
pub use focal::{BinaryFocal, Focal};
pub use gradus_core::functional::loss::Reduction;
pub use linear_cross_entropy::LinearCrossEntropy;
pub use margins::{HingeEmbedding, MarginRanking, MultiLabelMargin, MultiLabelSoftMargin, MultiMargin, SoftMargin};
pub use nll::Nll;
pub use similarity::{CosineEmbedding, TripletMargin};

use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// The losses of the elements, before they become one number.
#[derive(Clone, Debug)]
pub struct Losses {
    /// The loss of each element, row or pair.
    pub each: Tensor,
    /// What each counts for in the mean, where that is not 1: the weight of its class, 0 for an ignored row.
    pub share: Option<Tensor>,
}

impl From<Tensor> for Losses {
    fn from(each: Tensor) -> Losses {
        Losses { each, share: None }
    }
}

impl Losses {
    /// As one number, or as they are. The mean is Σ losses / Σ shares.
    pub fn reduced(self, reduction: Reduction) -> Result<Tensor> {
        match (reduction, self.share) {
            (Reduction::None, _) => Ok(self.each),
            (Reduction::Sum, _) => self.each.try_sum(),
            (Reduction::Mean, None) => self.each.try_mean(),
            (Reduction::Mean, Some(share)) => self.each.try_sum()?.try_div(&share.try_sum()?),
        }
    }

    /// These losses, each times its element of `mask`, which broadcasts to them: truth values (true: it counts) or weights.
    ///
    /// Where the mask is 0 the loss may be infinite or NaN: it counts as 0, and no gradient reaches it.
    pub fn masked(self, mask: &Tensor) -> Result<Losses> {
        let shape = *self.each.shape();
        let mask = mask.try_to_dtype(self.each.dtype())?;
        let mask = mask.try_expand(shape).map_err(|_| {
            Error::misuse(format!("a mask of shape {} does not broadcast to losses {shape}", mask.shape()))
        })?;
        let off = mask.try_eq_scalar(0.0)?;
        let each = self.each.try_masked_fill(&off, 0.0)?.try_mul(&mask)?;
        let share = match self.share {
            Some(share) => share.try_mul(&mask)?,
            None => mask,
        };
        Ok(Losses { each, share: Some(share) })
    }
}

/// A loss of a prediction and a target.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{CrossEntropy, Loss};
/// let device = gradus_cpu::device();
/// let logits = Tensor::zeros([2, 10], device).requires_grad();
/// let loss = CrossEntropy::new().smoothing(0.1).forward(&logits, &Tensor::from_vec(vec![3i64, 7], [2], device));
/// assert!((loss.item::<f32>()? - 10f32.ln()).abs() < 1e-6);
/// loss.backward();
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub trait Loss {
    /// The losses of the elements, with misuse returned as an error.
    fn try_losses(&self, prediction: &Tensor, target: &Tensor) -> Result<Losses>;
    /// How they become one number.
    fn reduction(&self) -> Reduction;

    /// The loss of `prediction`, with misuse returned as an error.
    fn try_forward(&self, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.try_losses(prediction, target)?.reduced(self.reduction())
    }
    /// The loss of `prediction`. Panics at the caller's line if shapes or dtypes do not fit.
    #[track_caller]
    fn forward(&self, prediction: &Tensor, target: &Tensor) -> Tensor {
        or_raise(self.try_forward(prediction, target))
    }
    /// The loss of those elements that `mask` (which broadcasts to them) lets count: truth values or weights; the mean is
    /// weighted by it. Misuse is returned as an error.
    ///
    /// ```
    /// use gradus_core::Tensor;
    /// use gradus_nn::loss::{Loss, Mse};
    /// let device = gradus_cpu::device();
    /// let (y, t) = (Tensor::from_vec(vec![1f32, 9.0], [2], device), Tensor::zeros([2], device));
    /// let mask = Tensor::from_vec(vec![true, false], [2], device);
    /// assert_eq!(Mse::default().try_forward_masked(&y, &t, &mask)?.item::<f32>()?, 1.0);
    /// # Ok::<(), gradus_core::Error>(())
    /// ```
    fn try_forward_masked(&self, prediction: &Tensor, target: &Tensor, mask: &Tensor) -> Result<Tensor> {
        self.try_losses(prediction, target)?.masked(mask)?.reduced(self.reduction())
    }
    /// As [`try_forward_masked`](Loss::try_forward_masked). Panics at the caller's line if shapes or dtypes do not fit.
    #[track_caller]
    fn forward_masked(&self, prediction: &Tensor, target: &Tensor, mask: &Tensor) -> Tensor {
        or_raise(self.try_forward_masked(prediction, target, mask))
    }
}

/// A loss of three tensors: two predictions and a target, or an anchor and two others. Each says what its three are.
pub trait PairLoss {
    /// The losses of the elements, with misuse returned as an error.
    fn try_losses(&self, a: &Tensor, b: &Tensor, target: &Tensor) -> Result<Losses>;
    /// How they become one number.
    fn reduction(&self) -> Reduction;

    /// The loss, with misuse returned as an error.
    fn try_forward(&self, a: &Tensor, b: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.try_losses(a, b, target)?.reduced(self.reduction())
    }
    /// The loss. Panics at the caller's line if shapes or dtypes do not fit.
    #[track_caller]
    fn forward(&self, a: &Tensor, b: &Tensor, target: &Tensor) -> Tensor {
        or_raise(self.try_forward(a, b, target))
    }
    /// The loss of those elements that `mask` lets count; see [`Loss::try_forward_masked`].
    fn try_forward_masked(&self, a: &Tensor, b: &Tensor, target: &Tensor, mask: &Tensor) -> Result<Tensor> {
        self.try_losses(a, b, target)?.masked(mask)?.reduced(self.reduction())
    }
}

/// Options as builder methods, each with its doc comment.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $ty:ty),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: $ty) -> Self {
            self.$name = $name;
            self
        }
    )*};
}
use options;

/// Weights that are states of a loss, as builder methods.
macro_rules! weights {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $name: gradus_core::Tensor) -> Self {
            self.$name = Some(crate::State::new($name));
            self
        }
    )*};
}
use weights;

fn positive(loss: &str, what: &str, x: f64) -> Result<f64> {
    if x > 0.0 && x.is_finite() {
        return Ok(x);
    }
    Err(Error::misuse(format!("{loss}: {what} must be a number above 0; got {x}")))
}

/// The target in the prediction's dtype, if it has its shape.
fn matching(loss: &'static str, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if !prediction.dtype().is_float() || prediction.shape() != target.shape() {
        // Broadcasting here is nearly always a mistake: [n, 1] against [n] would compare all with all.
        return Err(misfit(loss, "needs a floating-point prediction and a target of its shape", [prediction, target]));
    }
    target.try_to_dtype(prediction.dtype())
}

fn misfit<const N: usize>(loss: &'static str, message: &str, inputs: [&Tensor; N]) -> Error {
    Error::misuse(message).in_op(loss, inputs.map(|t| (t.dtype(), *t.shape())))
}
