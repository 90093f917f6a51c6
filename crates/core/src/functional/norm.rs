//! Layer normalization (Ba, Kiros & Hinton, 2016), keeping its statistics for backward.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::precision::Autocast;
use crate::shape::{IntoShape, Shape};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// (x − mean)/√(var + eps)·w + b over the last dimension of `[rows, width]`; w and b `[width]` (w, or w and b, optional).
/// A fused kernel keeps mean and rstd, `[rows]` each.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

/// (x − mean, rstd) of each row, with the biased variance.
pub(super) fn standardized(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centred = x.try_sub(&x.try_mean_dims(&[-1], true)?)?;
    let var = centred.try_square()?.try_mean_dims(&[-1], true)?;
    Ok((centred, (var + eps).try_rsqrt()?))
}

/// The gradient of x, given that of x̂ = (x − mean)·rstd: rstd·(dx̂ − mean(dx̂) − x̂·mean(dx̂·x̂)) of each row.
pub(super) fn through_standardized(dhat: &Tensor, hat: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    let along = dhat.try_mul(hat)?.try_mean_dims(&[-1], true)?;
    dhat.try_sub(&dhat.try_mean_dims(&[-1], true)?)?.try_sub(&hat.try_mul(&along)?)?.try_mul(rstd)
}

impl Composite for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let shape = x[0].shape;
        if shape.rank() != 2 || !x[0].dtype.is_float() {
            return Err(Error::misuse("needs a floating-point input of shape [.., width]"));
        }
        for p in &x[1..] {
            if p.shape.dims() != [shape[1]] || p.dtype != x[0].dtype {
                return Err(Error::misuse(format!(
                    "a weight or bias of {} [{}] would fit, not {} {}",
                    x[0].dtype, shape[1], p.dtype, p.shape
                )));
            }
        }
        Ok(one(x[0].dtype, shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (centred, rstd) = standardized(x[0], self.eps)?;
        let mut y = centred.try_mul(&rstd)?;
        if let Some(w) = x.get(1) {
            y = y.try_mul(w)?;
        }
        if let Some(b) = x.get(2) {
            y = y.try_add(b)?;
        }
        Ok(smallvec![y])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (mean, rstd) = (cx.aux(0)?, cx.aux(1)?);
        let (g, x) = (cx.grad(), cx.x(0));
        let affine = cx.inputs() > 1;
        let w = if affine { cx.x(1) } else { Tensor::ones([cx.shape(0)[1]], g.place()) };
        let grads = Tensor::compose(LayerNormGrad { eps: self.eps }, &[&g, &x, &w, &mean, &rstd]);
        Some(grads.into_iter().take(cx.inputs()).map(Some).collect())
    }
}

/// The gradients of layer normalization with respect to x, w and b. Inputs: g, x, w, and the mean and rstd that forward
/// kept, which the definition computes anew from x, so that it can be differentiated.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormGrad {
    /// Added to the variance.
    pub eps: f64,
}

impl Composite for LayerNormGrad {
    fn name(&self) -> &'static str {
        "layer_norm_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let fits = |x: &[Meta]| {
            let (width, rows) = (x[2].shape.elements(), x[3].shape.elements());
            let vectors = x[2].shape.rank() == 1 && x[3].shape.rank() == 1 && x[4] == x[3];
            vectors
                && x[0] == x[1]
                && x[1].shape.dims() == [rows, width]
                && x[1].dtype.is_float()
                && x[2].dtype == x[1].dtype
        };
        if x.len() != 5 || !fits(x) {
            return Err(Error::misuse(
                "needs g and x [rows, width], a weight [width], and a mean and rstd [rows] each",
            ));
        }
        Ok(smallvec![x[1], x[2], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, w) = (x[0], x[2]);
        let (centred, rstd) = standardized(x[1], self.eps)?;
        let hat = centred.try_mul(&rstd)?;
        let dx = through_standardized(&g.try_mul(w)?, &hat, &rstd)?;
        let dw = g.try_mul(&hat)?.try_sum_dims(&[0], false)?;
        let db = g.try_sum_dims(&[0], false)?;
        Ok(smallvec![dx, dw, db])
    }
}

impl Tensor {
    crate::fallible! {
        /// (x − mean)/√(var + eps)·w + b over the trailing dimensions `normalized`, with the biased variance. ∂ by the fused
        /// backward. In PyTorch: `torch.nn.functional.layer_norm`.
        pub fn layer_norm | try_layer_norm<S: IntoShape>(&self, normalized: S, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            let normalized: Shape = normalized.into_shape()?;
            if !self.dims().ends_with(&normalized) {
                return Err(Error::misuse(format!("the trailing dimensions are not {normalized}")).in_op("layer_norm", [(self.dtype(), *self.shape())]));
            }
            let width = normalized.elements();
            let rows: usize = self.dims()[..self.rank() - normalized.rank()].iter().product();
            let flat = self.try_reshape([rows, width])?;
            let op = LayerNorm { eps };
            let vector = |t: &Tensor| t.try_reshape([width]);
            let y = match (weight, bias) {
                (None, None) => Tensor::try_compose1(op, &[&flat])?,
                (Some(w), None) => Tensor::try_compose1(op, &[&flat, &vector(w)?])?,
                (Some(w), Some(b)) => Tensor::try_compose1(op, &[&flat, &vector(w)?, &vector(b)?])?,
                (None, Some(b)) => Tensor::try_compose1(op, &[&flat])?.try_add(&vector(b)?)?,
            };
            y.try_reshape(*self.shape())
        }
    }
}
