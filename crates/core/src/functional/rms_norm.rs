//! Root-mean-square normalization (Zhang & Sennrich, 2019), keeping its statistic for backward.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::precision::Autocast;
use crate::shape::{IntoShape, Shape};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x/√(mean(x²) + eps)·w over the last dimension of `[rows, width]`; w `[width]`, optional. A fused kernel keeps
/// rstd = 1/√(mean(x²) + eps), `[rows]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

/// The gradients of [`RmsNorm`] with respect to x and w. Inputs: g, x, w, and the rstd that forward kept, which the definition
/// computes anew from x, so that it can be differentiated.
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
                && x[2..].iter().all(|m| m.dtype == x[1].dtype)
        };
        if x.len() != 4 || !fits(x) {
            return Err(Error::misuse("needs g and x [rows, width], a weight [width], and an rstd [rows]"));
        }
        Ok(smallvec![x[1], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let rstd = rstd(x[1], self.eps)?;
        let hat = x[1].try_mul(&rstd)?;
        let dhat = x[0].try_mul(x[2])?;
        // dx = rstd·(dhat − hat·mean(dhat·hat))
        let along = dhat.try_mul(&hat)?.try_mean_dims(&[-1], true)?;
        let dx = dhat.try_sub(&hat.try_mul(&along)?)?.try_mul(&rstd)?;
        Ok(smallvec![dx, x[0].try_mul(&hat)?.try_sum_dims(&[0], false)?])
    }
}

impl Tensor {
    crate::fallible! {
        /// x/√(mean(x²) + eps)·w over the trailing dimensions `normalized`; without an `eps`, the dtype's machine epsilon. ∂ by the
        /// fused backward. In PyTorch: `torch.nn.functional.rms_norm`.
        pub fn rms_norm | try_rms_norm<S: IntoShape>(&self, normalized: S, weight: Option<&Tensor>, eps: Option<f64>) -> Tensor {
            let normalized: Shape = normalized.into_shape()?;
            if !self.dims().ends_with(&normalized) {
                return Err(Error::misuse(format!("the trailing dimensions are not {normalized}")).in_op("rms_norm", [(self.dtype(), *self.shape())]));
            }
            let eps = eps.unwrap_or(match self.dtype() {
                DType::F64 => f64::EPSILON,
                // As PyTorch: halves are normalized in f32, with its epsilon.
                _ => f32::EPSILON as f64,
            });
            let width = normalized.elements();
            let rows: usize = self.dims()[..self.rank() - normalized.rank()].iter().product();
            let flat = self.try_reshape([rows, width])?;
            let y = match weight {
                None => Tensor::try_compose1(RmsNorm { eps }, &[&flat])?,
                Some(w) => Tensor::try_compose1(RmsNorm { eps }, &[&flat, &w.try_reshape([width])?])?,
            };
            y.try_reshape(*self.shape())
        }
    }
}
