//! One step of an LSTM's state from its gates, and its gradient: what follows the two matrix products of a step.
//!
//! (S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", 1997; the forget gate: F. Gers et al., 2000.)

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors};
use crate::ops::BinaryOp;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// With i, f, g, o = x_gates + h_gates: c′ = σ(f)·c + σ(i)·tanh(g), h′ = σ(o)·tanh(c′).
///
/// Inputs: x_gates and h_gates `[.., 4·n]`, c `[.., n]` → h′ and c′ `[.., n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmStep;

/// The gradient of [`LstmStep`]. Inputs: its three, and the gradients of h′ and c′ → those of the gates (of both alike) and of c.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmStepGrad;

/// Checks the gates and the state; gives the metas of gates and state.
fn check(x: &[Meta]) -> Result<(Meta, Meta)> {
    if x.iter().any(|m| m.dtype != x[0].dtype) || !x[0].dtype.is_float() {
        return Err(Error::misuse("gates and states must have one floating-point dtype"));
    }
    let c = x[2].shape;
    let Some(&n) = c.last() else { return Err(Error::misuse("a state needs a dimension")) };
    let gates = c.with(c.rank() - 1, n.saturating_mul(4));
    if x[0].shape != gates || x[1].shape != gates {
        let message = format!("for a state of shape {c}, gates of shape {gates} would fit, not {}", x[0].shape);
        return Err(Error::misuse(format!("{message} and {}", x[1].shape)));
    }
    if let Some(m) = x[3..].iter().find(|m| m.shape != c) {
        return Err(Error::misuse(format!("the gradient of a state {c} has its shape, not {}", m.shape)));
    }
    Ok((x[0], x[2]))
}

/// The activations of i, f, g and o.
fn activations(x: &[&Tensor]) -> Result<[Tensor; 4]> {
    let n = x[2].dim(-1);
    let parts = x[0].try_add(x[1])?.try_split_sizes(&[2 * n, n, n], -1)?;
    let i_f = parts[0].try_sigmoid()?.try_split_sizes(&[n, n], -1)?;
    Ok([i_f[0].clone(), i_f[1].clone(), parts[1].try_tanh()?, parts[2].try_sigmoid()?])
}

impl Composite for LstmStep {
    fn name(&self) -> &'static str {
        "lstm_step"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (_, state) = check(x)?;
        Ok(smallvec![state, state])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let [i, f, g, o] = activations(x)?;
        let c = f.try_mul(x[2])?.try_add(&i.try_mul(&g)?)?;
        Ok(smallvec![o.try_mul(&c.try_tanh()?)?, c])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let inputs = [cx.x(0), cx.x(1), cx.x(2), cx.grad_or_zeros(0), cx.grad_or_zeros(1)];
        let mut grads = Tensor::compose(LstmStepGrad, &inputs.each_ref());
        let dc = grads.pop();
        let gates = grads.pop();
        Some(smallvec![gates.clone(), gates, dc])
    }
}

impl Composite for LstmStepGrad {
    fn name(&self) -> &'static str {
        "lstm_step_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (gates, state) = check(x)?;
        Ok(smallvec![gates, state])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let [i, f, g, o] = activations(x)?;
        let (c, gh, gc) = (x[2], x[3], x[4]);
        let t = f.try_mul(c)?.try_add(&i.try_mul(&g)?)?.try_tanh()?;
        let of_tanh = |y: &Tensor| y.try_square()?.try_neg()?.try_binary_scalar(BinaryOp::Add, 1.0); // 1 − y²
        let of_sigmoid = |y: &Tensor| y.try_sub(&y.try_square()?); // y·(1 − y)
        let dc = gc.try_add(&gh.try_mul(&o)?.try_mul(&of_tanh(&t)?)?)?;
        let gates = [
            dc.try_mul(&g)?.try_mul(&of_sigmoid(&i)?)?,
            dc.try_mul(c)?.try_mul(&of_sigmoid(&f)?)?,
            dc.try_mul(&i)?.try_mul(&of_tanh(&g)?)?,
            gh.try_mul(&t)?.try_mul(&of_sigmoid(&o)?)?,
        ];
        Ok(smallvec![Tensor::try_cat(&gates.each_ref(), -1)?, dc.try_mul(&f)?])
    }
}
