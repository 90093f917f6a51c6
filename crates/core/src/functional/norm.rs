//! Layer normalization (Ba, Kiros & Hinton, 2016), keeping its statistics for backward.

use super::residual;
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
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

/// [`LayerNorm`] of x + residual, and x + residual itself, which the next residual goes around: what stands before a block of a
/// transformer, in one pass. Inputs: x, a residual like x, w and b as there. A fused kernel keeps mean and rstd, `[rows]` each.
#[derive(Clone, Copy, Debug)]
pub struct AddLayerNorm {
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

impl Composite for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add_layer_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        residual::infer(&LayerNorm { eps: self.eps }, x)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        residual::define(LayerNorm { eps: self.eps }, x)
    }
    fn saves(&self) -> Saves {
        residual::SAVES
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        residual::vjp(LayerNormGrad { eps: self.eps }, cx, [cx.aux(0)?, cx.aux(1)?])
    }
}

/// The gradients of layer normalization with respect to x, w and b. Inputs: g, x, w, the mean and rstd that forward kept, which
/// the definition computes anew from x, so that it can be differentiated, and what else flows to x, which may be absent.
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
                && x[5..].iter().all(|more| *more == x[1])
        };
        if !(5..=6).contains(&x.len()) || !fits(x) {
            return Err(Error::misuse(
                "needs g and x [rows, width], a weight [width], a mean and rstd [rows] each, and perhaps a gradient like x",
            ));
        }
        Ok(smallvec![x[1], x[2], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, w) = (x[0], x[2]);
        let (centred, rstd) = standardized(x[1], self.eps)?;
        let hat = centred.try_mul(&rstd)?;
        let mut dx = through_standardized(&g.try_mul(w)?, &hat, &rstd)?;
        if let Some(more) = x.get(5) {
            dx = dx.try_add(more)?;
        }
        let dw = g.try_mul(&hat)?.try_sum_dims(&[0], false)?;
        let db = g.try_sum_dims(&[0], false)?;
        Ok(smallvec![dx, dw, db])
    }
}

/// x as `[rows, width]`, where the rows have the trailing dimensions `normalized`.
pub(super) fn by_row(x: &Tensor, normalized: impl IntoShape, op: &'static str) -> Result<Tensor> {
    let normalized: Shape = normalized.into_shape()?;
    if !x.dims().ends_with(&normalized) {
        let e = Error::misuse(format!("the trailing dimensions are not {normalized}"));
        return Err(e.in_op(op, [(x.dtype(), *x.shape())]));
    }
    let rows: usize = x.dims()[..x.rank() - normalized.rank()].iter().product();
    x.try_reshape([rows, normalized.elements()])
}

impl Tensor {
    crate::fallible! {
        /// (x − mean)/√(var + eps)·w + b over the trailing dimensions `normalized`, with the biased variance. ∂ by the fused
        /// backward. In PyTorch: `torch.nn.functional.layer_norm`.
        pub fn layer_norm | try_layer_norm<S: IntoShape>(&self, normalized: S, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            let flat = by_row(self, normalized, "layer_norm")?;
            let (op, width) = (LayerNorm { eps }, flat.dims()[1]);
            let vector = |t: &Tensor| t.try_reshape([width]);
            let y = match (weight, bias) {
                (None, None) => Tensor::try_compose1(op, &[&flat])?,
                (Some(w), None) => Tensor::try_compose1(op, &[&flat, &vector(w)?])?,
                (Some(w), Some(b)) => Tensor::try_compose1(op, &[&flat, &vector(w)?, &vector(b)?])?,
                (None, Some(b)) => Tensor::try_compose1(op, &[&flat])?.try_add(&vector(b)?)?,
            };
            y.try_reshape(*self.shape())
        }
        /// (layer_norm(x + residual), x + residual), in one pass where the device can: the sum is what the next residual goes around. ∂ by
        /// the fused backward, which takes both gradients in one pass as well. The residual has x's shape.
        pub fn add_layer_norm | try_add_layer_norm<S: IntoShape>(&self, residual: &Tensor, normalized: S, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> (Tensor, Tensor) {
            let flat = by_row(self, normalized, "add_layer_norm")?;
            let (op, width) = (AddLayerNorm { eps }, flat.dims()[1]);
            super::residual::same_shape(self, residual, "add_layer_norm")?;
            let residual = residual.try_reshape(*flat.shape())?;
            let vector = |t: &Tensor| t.try_reshape([width]);
            let mut out = match (weight, bias) {
                (Some(w), None) => Tensor::try_compose(op, &[&flat, &residual, &vector(w)?])?,
                (Some(w), Some(b)) => Tensor::try_compose(op, &[&flat, &residual, &vector(w)?, &vector(b)?])?,
                (None, _) => Tensor::try_compose(op, &[&flat, &residual])?,
            };
            if let (None, Some(b)) = (weight, bias) {
                out[0] = out[0].try_add(&vector(b)?)?;
            }
            Ok((out[0].try_reshape(*self.shape())?, out[1].try_reshape(*self.shape())?))
        }
    }
}
