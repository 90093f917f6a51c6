//! Distances and similarities of vectors, as functions of the p-norm.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The larger of `x` and a number, with the gradient of `x` wherever it is not less (as PyTorch's `clamp_min`).
fn at_least(x: &Tensor, least: f64) -> Result<Tensor> {
    x.try_masked_fill(&x.try_lt_scalar(least)?, least)
}

/// a − b in floating point, so that unsigned integers do not wrap.
fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let float = |x: &Tensor| if x.dtype().is_float() { Ok(x.clone()) } else { x.try_to_dtype(DType::F32) };
    float(a)?.try_sub(&float(b)?)
}

impl Tensor {
    crate::fallible! {
        /// ⟨a, b⟩ / (max(‖a‖, eps)·max(‖b‖, eps)) of the vectors along `dim`; the shapes broadcast. In PyTorch:
        /// `torch.nn.functional.cosine_similarity`. As there, the gradient of a norm flows even where `eps` stands in its place.
        pub fn cosine_similarity | try_cosine_similarity(&self, other: &Tensor, dim: isize, eps: f64) -> Tensor {
            let shape = crate::ops::broadcast(self.shape(), other.shape())
                .map_err(|e| e.in_op("cosine_similarity", [(self.dtype(), *self.shape()), (other.dtype(), *other.shape())]))?;
            let dim = if shape.rank() == 0 { None } else { Some(shape.dim(dim)? as isize) };
            let dims: Vec<isize> = dim.into_iter().collect();
            let unit = |x: &Tensor| {
                let x = x.try_expand(shape)?;
                let norm = x.try_norm(2.0, &dims, true)?;
                let lift = at_least(&norm.detach(), eps)?.try_sub(&norm.detach())?;
                x.try_div(&norm.try_add(&lift)?)
            };
            unit(self)?.try_mul(&unit(other)?)?.try_sum_dims(&dims, false)
        }
        /// ‖a − b + eps‖ₚ of the vectors of the last dimension; the shapes broadcast. In PyTorch:
        /// `torch.nn.functional.pairwise_distance`.
        pub fn pairwise_distance | try_pairwise_distance(&self, other: &Tensor, p: f64, eps: f64, keep: bool) -> Tensor {
            (difference(self, other)? + eps).try_norm(p, &[-1], keep)
        }
        /// x / max(‖x‖ₚ, eps) of the vectors along `dim`. In PyTorch: `torch.nn.functional.normalize`.
        pub fn normalize | try_normalize(&self, p: f64, dim: isize, eps: f64) -> Tensor {
            let dims: &[isize] = if self.rank() == 0 { &[] } else { &[dim] };
            self.try_div(&at_least(&self.try_norm(p, dims, true)?, eps)?)
        }
        /// ‖a − b‖ₚ over all elements; the shapes broadcast. In PyTorch: `torch.dist`.
        pub fn dist | try_dist(&self, other: &Tensor, p: f64) -> Tensor {
            difference(self, other)?.try_norm(p, &[], false)
        }
        /// ‖aᵢ − bⱼ‖ₚ of every row of each: `[.., n, d]` and `[.., m, d]` give `[.., n, m]`; the leading dimensions broadcast.
        /// The differences, n·m·d numbers, are held at once. In PyTorch: `torch.cdist`.
        pub fn cdist | try_cdist(&self, other: &Tensor, p: f64) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("cdist", [(self.dtype(), *self.shape()), (other.dtype(), *other.shape())]);
            if self.rank() < 2 || other.rank() < 2 || self.dim(-1) != other.dim(-1) {
                return Err(e("needs rows of one length: [.., n, d] and [.., m, d]".into()));
            }
            if p.is_nan() || p < 0.0 {
                return Err(e(format!("the norm's order must not be negative; got {p}")));
            }
            difference(&self.try_unsqueeze(-2)?, &other.try_unsqueeze(-3)?)?.try_norm(p, &[-1], false)
        }
    }
}
