//! Variance, norms, and the triangles of matrices.

use crate::backend::Dims;
use crate::error::{Error, Result};
use crate::scalar::Scalar;
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// The variance over the named dimensions (all, if none is named), divided by n − correction (1: unbiased). In PyTorch: `torch.var`.
        pub fn var | try_var<C: Into<Scalar>>(&self, dims: &[isize], correction: C, keep: bool) -> Tensor {
            let set = if dims.is_empty() { Dims::all(self.rank()) } else { Dims::of(dims, self.shape())? };
            let n = set.count(self.shape());
            let centred = self.try_sub(&self.try_reduce(crate::ops::ReduceOp::Mean, set, true)?)?;
            let sum = centred.try_square()?.try_reduce(crate::ops::ReduceOp::Sum, set, keep)?;
            // As PyTorch: no less than nothing is divided by, and what is left over is NaN or infinite.
            Ok(sum / (n as f64 - correction.into().to_f64()).max(0.0))
        }
        /// The standard deviation: the root of [`var`](Self::var). In PyTorch: `torch.std`.
        pub fn std | try_std<C: Into<Scalar>>(&self, dims: &[isize], correction: C, keep: bool) -> Tensor {
            self.try_var(dims, correction, keep)?.try_sqrt()
        }
        /// The p-norm (Σ |x|ᵖ)^(1/p) over the named dimensions (all, if none is named); p may be 0 (how many are not zero) or
        /// infinite. Its gradient is 0 where the norm is 0. In PyTorch: `torch.linalg.vector_norm`.
        pub fn norm | try_norm(&self, p: f64, dims: &[isize], keep: bool) -> Tensor {
            use crate::ops::ReduceOp::{Max, Min, Sum};
            let set = if dims.is_empty() { Dims::all(self.rank()) } else { Dims::of(dims, self.shape())? };
            if p == 0.0 {
                return self.try_ne_scalar(0.0)?.try_to_dtype(self.dtype())?.try_reduce(Sum, set, keep);
            }
            let a = self.try_abs()?;
            if set.count(self.shape()) == 1 {
                return a.try_reshape(if keep { set.kept(self.shape()) } else { set.dropped(self.shape()) });
            }
            if p == f64::INFINITY {
                return a.try_reduce(Max, set, keep);
            }
            if p == f64::NEG_INFINITY {
                return a.try_reduce(Min, set, keep);
            }
            if p == 1.0 {
                return a.try_reduce(Sum, set, keep);
            }
            let powers = if p == 2.0 { self.try_square()? } else { a.try_powf(p)? };
            let sum = powers.try_reduce(Sum, set, keep)?;
            // The root's slope at 0 is infinite; PyTorch takes the gradient there as 0.
            let zero = sum.detach().try_eq_scalar(0.0)?;
            let safe = sum.try_masked_fill(&zero, 1.0)?;
            let root = if p == 2.0 { safe.try_sqrt()? } else { safe.try_powf(1.0 / p)? };
            root.try_masked_fill(&zero, if p > 0.0 { 0.0 } else { f64::INFINITY })
        }
        /// The lower triangle of the last two dimensions: 0 above the `k`-th diagonal. In PyTorch: `torch.tril`.
        pub fn tril | try_tril(&self, k: i64) -> Tensor {
            self.try_masked_fill(&above(self, k)?, 0i64)
        }
        /// The upper triangle of the last two dimensions: 0 below the `k`-th diagonal. In PyTorch: `torch.triu`.
        pub fn triu | try_triu(&self, k: i64) -> Tensor {
            self.try_masked_fill(&above(self, k.saturating_sub(1))?.try_logical_not()?, 0i64)
        }
        /// The sum of the main diagonal of a matrix. In PyTorch: `torch.trace`.
        pub fn trace | try_trace(&self) -> Tensor {
            self.try_diagonal(0, 0, 1)?.try_sum()
        }
    }
}

/// Where column − row > k, in the last two dimensions.
fn above(x: &Tensor, k: i64) -> Result<Tensor> {
    if x.rank() < 2 {
        return Err(Error::misuse("needs a matrix or a stack of them").in_op("triangle", [(x.dtype(), *x.shape())]));
    }
    let (rows, columns) = (x.dim(-2), x.dim(-1));
    // Beyond the matrix every k means the same.
    let k = k.clamp(-(rows as i64) - 1, columns as i64);
    let row = Tensor::try_count(rows, x.device())?.try_unsqueeze(1)? + k;
    Tensor::try_count(columns, x.device())?.try_gt(&row)
}
