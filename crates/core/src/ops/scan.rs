//! Cumulative reductions along a dimension.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// What accumulates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScanOp {
    /// The sum so far.
    Sum,
    /// The product so far.
    Prod,
}

/// A cumulative reduction.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// What accumulates.
    pub op: ScanOp,
    /// Along which dimension.
    pub dim: usize,
}

impl Op for Scan {
    fn name(&self) -> &'static str {
        match self.op {
            ScanOp::Sum => "cumsum",
            ScanOp::Prod => "cumprod",
        }
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(if x[0].dtype.is_float() { x[0].dtype } else { DType::I64 }, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.scan(self.op, x[0], self.dim)?))
    }
    fn saves(&self) -> Saves {
        match self.op {
            ScanOp::Sum => Saves::NOTHING,
            ScanOp::Prod => Saves::BOTH,
        }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let dim = self.dim as isize;
        smallvec![Some(match self.op {
            ScanOp::Sum => cx.grad().flip(&[dim]).cumsum(dim).flip(&[dim]),
            ScanOp::Prod => cumprod_gradient(&cx.grad(), &cx.x(0), &cx.y(), dim),
        })]
    }
}

/// dx_k = (∏_{j<k} x_j) · S_k, where S_k = g_k + x_{k+1}·S_{k+1}: no division, so that zeros are right. The recurrence is
/// solved by doubling, in log₂ n steps of whole tensors (Hillis & Steele, 1986), which can be differentiated again.
fn cumprod_gradient(g: &Tensor, x: &Tensor, y: &Tensor, dim: isize) -> Tensor {
    let n = x.dim(dim);
    if n == 0 {
        return g.clone();
    }
    let d = dim as usize;
    let zeros = |len: usize| Tensor::zeros(x.shape().with(d, len), x.place());
    let later = |t: &Tensor, by: usize| Tensor::cat(&[&t.narrow(dim, by, n - by), &zeros(by)], dim);
    let (mut factor, mut sum, mut by) = (later(x, 1), g.clone(), 1);
    while by < n {
        sum = &sum + &factor * later(&sum, by);
        factor = &factor * later(&factor, by);
        by *= 2;
    }
    let ones = Tensor::ones(x.shape().with(d, 1), x.place());
    let before = Tensor::cat(&[&ones, &y.narrow(dim, 0, n - 1)], dim);
    before * sum
}

impl Tensor {
    crate::fallible! {
        /// The sums of the elements up to each place of `dim`; `i64` for integers. ∂: the gradients from each place on, summed
        pub fn cumsum | try_cumsum(&self, dim: isize) -> Tensor { self.try_scan(ScanOp::Sum, dim) }
        /// The products of the elements up to each place of `dim`; `i64` for integers. The gradient is right at zeros.
        pub fn cumprod | try_cumprod(&self, dim: isize) -> Tensor { self.try_scan(ScanOp::Prod, dim) }
        /// ln Σ e^x of the elements up to each place of `dim`, without overflow: by doubling, in log₂ n steps of whole tensors.
        /// In PyTorch: `torch.logcumsumexp`.
        pub fn logcumsumexp | try_logcumsumexp(&self, dim: isize) -> Tensor {
            if self.rank() == 0 {
                return Ok(self.clone());
            }
            let d = self.shape().dim(dim)?;
            let (n, dim) = (self.dims()[d], d as isize);
            let (mut y, mut by) = (self.clone(), 1);
            while by < n {
                let summed = y.try_narrow(dim, by, n - by)?.try_logaddexp(&y.try_narrow(dim, 0, n - by)?)?;
                y = Tensor::try_cat(&[&y.try_narrow(dim, 0, by)?, &summed], dim)?;
                by *= 2;
            }
            Ok(y)
        }
    }
    crate::fallible! {
        /// The largest of the elements up to each place of `dim`, and its place, the last of equals; NaN wins. ∂: g to that place.
        /// By doubling, in log₂ n steps. In PyTorch: `torch.cummax`.
        pub fn cummax | try_cummax(&self, dim: isize) -> (Tensor, Tensor) { extremes_so_far(self, dim, |now, before| now.try_ge(before)) }
        /// The smallest of the elements up to each place of `dim`, and its place, the last of equals; NaN wins. ∂: g to that place.
        /// By doubling, in log₂ n steps. In PyTorch: `torch.cummin`.
        pub fn cummin | try_cummin(&self, dim: isize) -> (Tensor, Tensor) { extremes_so_far(self, dim, |now, before| now.try_le(before)) }
    }
    #[track_caller]
    fn try_scan(&self, op: ScanOp, dim: isize) -> Result<Tensor> {
        if self.rank() == 0 {
            return Ok(self.clone()); // one element: the sum and the product so far are itself
        }
        let dim = self.shape().dim(dim)?;
        Tensor::try_apply1(Scan { op, dim }, &[self])
    }
}

/// The running extreme of `dim` and its place; `wins` says where a later element takes the place of an earlier one.
#[track_caller]
fn extremes_so_far(
    x: &Tensor,
    dim: isize,
    wins: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    if x.rank() == 0 {
        return Ok((x.clone(), Tensor::try_zeros((), x.device().with(DType::I64))?));
    }
    let d = x.shape().dim(dim)?;
    let (n, dim) = (x.dims()[d], d as isize);
    let mut along = vec![1; x.rank()];
    along[d] = n;
    let (mut y, mut by) = (x.detach(), 1);
    let mut at = Tensor::try_count(n, x.device())?.try_reshape(along)?.try_expand(*x.shape())?;
    while by < n {
        let part = |t: &Tensor, from: usize| t.try_narrow(dim, from, n - by);
        let (now, before) = (part(&y, by)?, part(&y, 0)?);
        let later = wins(&now, &before)?.try_logical_or(&now.try_is_nan()?)?;
        let joined = |t: &Tensor| {
            let rest = part(t, by)?.try_where(&later, &part(t, 0)?)?;
            Tensor::try_cat(&[&t.try_narrow(dim, 0, by)?, &rest], dim)
        };
        (y, at) = (joined(&y)?, joined(&at)?);
        by *= 2;
    }
    let at = at.try_contiguous()?;
    Ok((x.try_gather(dim, &at)?, at))
}
