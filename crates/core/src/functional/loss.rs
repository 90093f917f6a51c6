//! Softmax cross-entropy with class indices, in one pass over the logits.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::precision::Autocast;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// How a loss's elements become one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reduction {
    /// Their mean (weighted by class where the loss has class weights, and over rows that are not ignored).
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// They stay as they are.
    None,
}

/// The cross-entropy of rows of logits. Inputs: logits `[rows, classes]`, targets `[rows]` (`i64`), class weights `[classes]`
/// (optional). With log-probabilities p and smoothing s, a row's loss is −(1−s)·w_t·p_t − s/C·Σ_c w_c·p_c, and 0 if its target
/// is `ignore`; the mean divides their sum by Σ w_t of the rows that count. A fused kernel keeps ln Σ e^x of each row, and that
/// divisor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrossEntropy {
    /// The share of the target's probability that is spread over all classes (Szegedy et al., 2016).
    pub smoothing: f64,
    /// The target of rows that do not count.
    pub ignore: i64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

/// Targets with ignored rows pointed at class 0, the rows that count as 0/1, and the weight of each row's target.
fn rows(op: &CrossEntropy, logits: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let ignored = target.try_eq_scalar(op.ignore)?;
    let class = target.try_masked_fill(&ignored, 0i64)?;
    let counted = ignored.try_logical_not()?.try_to_dtype(logits.dtype())?;
    let row_weight = match weight {
        Some(w) => counted.try_mul(&w.try_index_select(0, &class)?)?,
        None => counted,
    };
    Ok((class, row_weight))
}

impl CrossEntropy {
    /// The share of each class in a row's loss: (1−s)·w_t at the target, s/C·w_c besides, 0 in ignored rows.
    fn shares(&self, logits: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        let classes = logits.dims()[1];
        let (class, row_weight) = rows(self, logits, target, weight)?;
        let hot = class.try_one_hot(classes)?.try_to_dtype(logits.dtype())?;
        let mut shares = hot.try_mul(&row_weight.try_unsqueeze(1)?)? * (1.0 - self.smoothing);
        if self.smoothing > 0.0 {
            let counted = target.try_ne_scalar(self.ignore)?.try_to_dtype(logits.dtype())?.try_unsqueeze(1)?;
            let even = match weight {
                Some(w) => counted.try_mul(w)?,
                None => counted,
            };
            shares = shares.try_add(&(even * (self.smoothing / classes as f64)))?;
        }
        Ok(shares)
    }

    /// Σ w_t of the rows that count: what the mean divides by.
    fn divisor(&self, logits: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        rows(self, logits, target, weight)?.1.try_sum()
    }
}

impl Composite for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (logits, target) = (&x[0], &x[1]);
        if logits.shape.rank() != 2 || !logits.dtype.is_float() {
            return Err(Error::misuse("needs floating-point logits of shape [rows, classes]"));
        }
        if target.shape.dims() != [logits.shape[0]] || target.dtype != DType::I64 {
            return Err(Error::misuse(format!(
                "targets of i64 [{}] would fit, not {} {}",
                logits.shape[0], target.dtype, target.shape
            )));
        }
        if let Some(w) = x.get(2).filter(|w| w.shape.dims() != [logits.shape[1]] || w.dtype != logits.dtype) {
            return Err(Error::misuse(format!(
                "class weights of {} [{}] would fit, not {} {}",
                logits.dtype, logits.shape[1], w.dtype, w.shape
            )));
        }
        if !(0.0..=1.0).contains(&self.smoothing) {
            return Err(Error::misuse(format!("label smoothing lies between 0 and 1; got {}", self.smoothing)));
        }
        Ok(one(logits.dtype, if self.reduction == Reduction::None { target.shape } else { Shape::SCALAR }))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let log_p = x[0].try_log_softmax(1)?;
        let shares = self.shares(x[0], x[1], x.get(2).copied())?;
        // A class without a share counts as 0 even where its probability is 0.
        let terms = log_p.try_mul(&shares)?.try_masked_fill(&shares.try_eq_scalar(0.0)?, 0.0)?;
        let losses = terms.try_sum_dims(&[1], false)?.try_neg()?;
        Ok(smallvec![match self.reduction {
            Reduction::None => losses,
            Reduction::Sum => losses.try_sum()?,
            Reduction::Mean => losses.try_sum()?.try_div(&self.divisor(x[0], x[1], x.get(2).copied())?)?,
        }])
    }
    fn saves(&self) -> Saves {
        Saves::INPUTS
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (lse, divisor) = (cx.aux(0)?, cx.aux(1)?);
        let (g, logits, target) = (cx.grad_ref(), cx.x_ref(0), cx.x_ref(1));
        let op = CrossEntropyGrad(*self);
        let weight = (cx.inputs() == 3).then(|| cx.x_ref(2));
        if weight.is_some() && cx.needs(2) {
            return None; // weights that are learnt: by the definition
        }
        let dx = match weight {
            Some(w) => Tensor::compose(op, &[g, logits, target, &lse, &divisor, w]).pop(),
            None => Tensor::compose(op, &[g, logits, target, &lse, &divisor]).pop(),
        };
        let mut grads: Grads = smallvec![dx, None];
        grads.extend(weight.map(|_| None));
        Some(grads)
    }
}

/// The gradient of [`CrossEntropy`] with respect to the logits: g·(softmax·Σ shares − shares), over the divisor for the mean.
/// Inputs: g, logits, targets, the ln Σ e^x and the divisor that forward kept (which the definition computes anew), class
/// weights (optional).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrossEntropyGrad(pub CrossEntropy);

impl Composite for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "cross_entropy_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(x[1].dtype, x[1].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let weight = x.get(5).copied();
        let shares = self.0.shares(x[1], x[2], weight)?;
        let total = shares.try_sum_dims(&[1], true)?;
        let dx = x[1].try_softmax(1)?.try_mul(&total)?.try_sub(&shares)?;
        let g = match self.0.reduction {
            Reduction::None => x[0].try_unsqueeze(1)?,
            Reduction::Sum => x[0].clone(),
            Reduction::Mean => x[0].try_div(&self.0.divisor(x[1], x[2], weight)?)?,
        };
        Ok(smallvec![dx.try_mul(&g)?])
    }
}

/// The options of [`Tensor::cross_entropy_with`], as PyTorch's.
#[derive(Clone, Debug)]
pub struct CrossEntropyOptions {
    /// A weight for each class, `[classes]`.
    pub weight: Option<Tensor>,
    /// The target of rows that do not count.
    pub ignore: i64,
    /// The share of the target's probability that is spread over all classes.
    pub smoothing: f64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        CrossEntropyOptions { weight: None, ignore: -100, smoothing: 0.0, reduction: Reduction::Mean }
    }
}

impl Tensor {
    crate::fallible! {
        /// The mean cross-entropy of logits `[rows, classes]` (or `[rows, classes, ..]`) and class indices `[rows]` (`[rows, ..]`).
        /// ∂ = (softmax − one-hot)/rows. In PyTorch: `torch.nn.functional.cross_entropy`.
        ///
        /// A target out of range is an error, unless it is −100, which is ignored.
        pub fn cross_entropy | try_cross_entropy(&self, target: &Tensor) -> Tensor {
            self.try_cross_entropy_with(target, &CrossEntropyOptions::default())
        }
        /// The cross-entropy with class weights, smoothing, ignored rows, and a reduction.
        pub fn cross_entropy_with | try_cross_entropy_with(&self, target: &Tensor, options: &CrossEntropyOptions) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("cross_entropy", [(self.dtype(), *self.shape()), (target.dtype(), *target.shape())]);
            if !target.dtype().is_int() {
                return Err(e(format!("class indices must be integers, not {}", target.dtype())));
            }
            let (wide, rows);
            let target = if target.dtype() == DType::I64 {
                target
            } else {
                wide = target.try_to_dtype(DType::I64)?;
                &wide
            };
            let (logits, flat) = match self.rank() {
                0 => return Err(e("needs logits of shape [rows, classes, ..]".into())),
                2 => (self, target),
                r => {
                    let logits = if r == 1 { self.try_unsqueeze(0)? } else { self.try_movedim(1, -1)?.try_flatten(0, -2)? };
                    rows = (logits, target.try_reshape([target.elements()])?);
                    (&rows.0, &rows.1)
                }
            };
            let op = CrossEntropy { smoothing: options.smoothing, ignore: options.ignore, reduction: options.reduction };
            let loss = match &options.weight {
                Some(w) => Tensor::try_compose1(op, &[logits, flat, w])?,
                None => Tensor::try_compose1(op, &[logits, flat])?,
            };
            if options.reduction == Reduction::None { loss.try_reshape(*target.shape()) } else { Ok(loss) }
        }
    }
}
