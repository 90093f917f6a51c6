//! What functions with a residual share: its checks, and norms of a sum with one, which give the sum, too.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// Checks that a residual is like x.
pub(super) fn check(x: &Meta, residual: &Meta) -> Result<()> {
    if residual != x {
        return Err(Error::misuse(format!(
            "a residual of {} {} would fit, not {} {}",
            x.dtype, x.shape, residual.dtype, residual.shape
        )));
    }
    Ok(())
}

/// An error unless a residual has x's shape; as rows or channels, others might seem to fit.
pub(super) fn same_shape(x: &Tensor, residual: &Tensor, op: &'static str) -> Result<()> {
    if residual.shape() != x.shape() {
        let e = Error::misuse(format!("a residual of {} would fit", x.shape()));
        return Err(e.in_op(op, [(x.dtype(), *x.shape()), (residual.dtype(), *residual.shape())]));
    }
    Ok(())
}

/// The outputs of a norm of x + residual: like x both. Inputs: x, the residual, and the norm's parameters.
pub(super) fn infer(norm: &impl Composite, x: &[Meta]) -> Result<Metas> {
    let [values, residual, parameters @ ..] = x else {
        return Err(Error::misuse("needs x and a residual"));
    };
    check(values, residual)?;
    norm.infer(&[&[*values], parameters].concat())?;
    Ok(smallvec![*values, *values])
}

/// The norm of the sum, and the sum.
pub(super) fn define(norm: impl Composite, x: &[&Tensor]) -> Result<Tensors> {
    let sum = x[0].try_add(x[1])?;
    let mut out = Tensor::try_compose(norm, &[&[&sum], &x[2..]].concat())?;
    out.push(sum);
    Ok(out)
}

/// Backward reads the sum, and a weight.
pub(super) const SAVES: Saves = Saves::NOTHING.input(2).output();

/// By the norm's backward, of g, the sum, a weight, what forward `kept`, and what else flows to the sum.
pub(super) fn vjp<const N: usize>(backward: impl Composite, cx: &Vjp<'_>, kept: [Tensor; N]) -> Option<Grads> {
    let (sum, more) = (cx.y_of(1), cx.grad_of(1));
    let Some(g) = cx.grad_of(0) else {
        // Only the sum was used.
        return Some((0..cx.inputs()).map(|i| more.clone().filter(|_| i < 2)).collect());
    };
    let w = if cx.inputs() > 2 { cx.x(2) } else { Tensor::ones([sum.dims()[1]], sum.place()) };
    let own = [g, sum, w];
    let inputs: Vec<&Tensor> = own.iter().chain(&kept).chain(&more).collect();
    let mut grads = Tensor::compose(backward, &inputs);
    grads.insert(0, grads[0].clone()); // to x and to the residual flows the same
    Some(grads.into_iter().take(cx.inputs()).map(Some).collect())
}
