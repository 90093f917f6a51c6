//! Root-mean-square normalization (Zhang & Sennrich, 2019), keeping its statistic for backward.

use super::norm::by_row;
use super::residual;
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::precision::Autocast;
use crate::shape::IntoShape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x/√(mean(x²) + eps)·w over the last dimension of `[rows, width]`; w `[width]`, optional. A fused kernel keeps
/// rstd = 1/√(mean(x²) + eps), `[rows]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

/// [`RmsNorm`] of x + residual, and x + residual itself, which the next residual goes around. Inputs: x, a residual like x, and w as
/// there. A fused kernel keeps rstd, `[rows]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AddRmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

/// The gradients of [`RmsNorm`] with respect to x and w. Inputs: g, x, w, the rstd that forward kept, which the definition computes
/// anew from x, so that it can be differentiated, and what else flows to x, which may be absent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RmsNormGrad {
    /// Added to the mean square.
    pub eps: f64,
}

fn rstd(x: &Tensor, eps: f64) -> Result<Tensor> {
    (x.try_square()?.try_mean_dims(&[-1], true)? + eps).try_rsqrt()
}

impl Composite for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let shape = x[0].shape;
        if shape.rank() != 2 || !x[0].dtype.is_float() {
            return Err(Error::misuse("needs a floating-point input of shape [.., width]"));
        }
        if let Some(w) = x.get(1).filter(|w| w.shape.dims() != [shape[1]] || w.dtype != x[0].dtype) {
            return Err(Error::misuse(format!(
                "a weight of {} [{}] would fit, not {} {}",
                x[0].dtype, shape[1], w.dtype, w.shape
            )));
        }
        Ok(one(x[0].dtype, shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let y = x[0].try_mul(&rstd(x[0], self.eps)?)?;
        Ok(smallvec![x.get(1).map_or_else(|| Ok(y.clone()), |w| y.try_mul(w))?])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let rstd = cx.aux(0)?;
        let (g, x) = (cx.grad(), cx.x(0));
        let w = if cx.inputs() > 1 { cx.x(1) } else { Tensor::ones([cx.shape(0)[1]], g.place()) };
        let grads = Tensor::compose(RmsNormGrad { eps: self.eps }, &[&g, &x, &w, &rstd]);
        Some(grads.into_iter().take(cx.inputs()).map(Some).collect())
    }
}

impl Composite for AddRmsNorm {
    fn name(&self) -> &'static str {
        "add_rms_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        residual::infer(&RmsNorm { eps: self.eps }, x)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        residual::define(RmsNorm { eps: self.eps }, x)
    }
    fn saves(&self) -> Saves {
        residual::SAVES
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        residual::vjp(RmsNormGrad { eps: self.eps }, cx, [cx.aux(0)?])
    }
}

impl Composite for RmsNormGrad {
    fn name(&self) -> &'static str {
        "rms_norm_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let fits = |x: &[Meta]| {
            let (width, rows) = (x[2].shape.elements(), x[3].shape.elements());
            let vectors = x[2].shape.rank() == 1 && x[3].shape.rank() == 1;
            vectors
                && x[0] == x[1]
                && x[1].shape.dims() == [rows, width]
                && x[1].dtype.is_float()
                && x[2].dtype == x[1].dtype
                && x[3].dtype.is_float() // of halves it is kept in f32
                && x[4..].iter().all(|more| *more == x[1])
        };
        if !(4..=5).contains(&x.len()) || !fits(x) {
            return Err(Error::misuse(
                "needs g and x [rows, width], a weight [width], an rstd [rows], and perhaps a gradient like x",
            ));
        }
        Ok(smallvec![x[1], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let rstd = rstd(x[1], self.eps)?;
        let hat = x[1].try_mul(&rstd)?;
        let dhat = x[0].try_mul(x[2])?;
        // dx = rstd·(dhat − hat·mean(dhat·hat))
        let along = dhat.try_mul(&hat)?.try_mean_dims(&[-1], true)?;
        let mut dx = dhat.try_sub(&hat.try_mul(&along)?)?.try_mul(&rstd)?;
        if let Some(more) = x.get(4) {
            dx = dx.try_add(more)?;
        }
        Ok(smallvec![dx, x[0].try_mul(&hat)?.try_sum_dims(&[0], false)?])
    }
}

/// As in PyTorch: the dtype's machine epsilon; halves are normalized in f32, with its epsilon.
fn epsilon(given: Option<f64>, dtype: DType) -> f64 {
    given.unwrap_or(if dtype == DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 })
}

impl Tensor {
    crate::fallible! {
        /// x/√(mean(x²) + eps)·w over the trailing dimensions `normalized`; without an `eps`, the dtype's machine epsilon. ∂ by the
        /// fused backward. In PyTorch: `torch.nn.functional.rms_norm`.
        pub fn rms_norm | try_rms_norm<S: IntoShape>(&self, normalized: S, weight: Option<&Tensor>, eps: Option<f64>) -> Tensor {
            let flat = by_row(self, normalized, "rms_norm")?;
            let (op, width) = (RmsNorm { eps: epsilon(eps, self.dtype()) }, flat.dims()[1]);
            let y = match weight {
                None => Tensor::try_compose1(op, &[&flat])?,
                Some(w) => Tensor::try_compose1(op, &[&flat, &w.try_reshape([width])?])?,
            };
            y.try_reshape(*self.shape())
        }
        /// (rms_norm(x + residual), x + residual), in one pass where the device can: the sum is what the next residual goes around. ∂ by
        /// the fused backward, which takes both gradients in one pass as well. The residual has x's shape.
        pub fn add_rms_norm | try_add_rms_norm<S: IntoShape>(&self, residual: &Tensor, normalized: S, weight: Option<&Tensor>, eps: Option<f64>) -> (Tensor, Tensor) {
            let flat = by_row(self, normalized, "add_rms_norm")?;
            let (op, width) = (AddRmsNorm { eps: epsilon(eps, self.dtype()) }, flat.dims()[1]);
            super::residual::same_shape(self, residual, "add_rms_norm")?;
            let residual = residual.try_reshape(*flat.shape())?;
            let out = match weight {
                None => Tensor::try_compose(op, &[&flat, &residual])?,
                Some(w) => Tensor::try_compose(op, &[&flat, &residual, &w.try_reshape([width])?])?,
            };
            Ok((out[0].try_reshape(*self.shape())?, out[1].try_reshape(*self.shape())?))
        }
    }
}
