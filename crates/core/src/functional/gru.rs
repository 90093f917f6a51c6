//! One step of a GRU's state from its gates, and its gradient: what follows the two matrix products of a step.
//!
//! (K. Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014; r stands before the state's part of n, as in
//! cuDNN.)

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Tensors, one};
use crate::ops::BinaryOp;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// With three parts each of x = x_gates and s = h_gates: r, z = σ(x + s), n = tanh(xₙ + r·sₙ), h′ = n + z·(h − n).
///
/// Inputs: x_gates and h_gates `[.., 3·n]`, h `[.., n]` → h′ `[.., n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GruStep;

/// The gradient of [`GruStep`]. Inputs: its three, and the gradient of h′ → those of x_gates, h_gates and h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GruStepGrad;

/// Checks the gates and the state; gives the metas of gates and state.
fn check(x: &[Meta]) -> Result<(Meta, Meta)> {
    if x.iter().any(|m| m.dtype != x[0].dtype) || !x[0].dtype.is_float() {
        return Err(Error::misuse("gates and states must have one floating-point dtype"));
    }
    let h = x[2].shape;
    let Some(&n) = h.last() else { return Err(Error::misuse("a state needs a dimension")) };
    let gates = h.with(h.rank() - 1, n.saturating_mul(3));
    if x[0].shape != gates || x[1].shape != gates {
        let message = format!("for a state of shape {h}, gates of shape {gates} would fit, not {}", x[0].shape);
        return Err(Error::misuse(format!("{message} and {}", x[1].shape)));
    }
    if let Some(m) = x[3..].iter().find(|m| m.shape != h) {
        return Err(Error::misuse(format!("the gradient of a state {h} has its shape, not {}", m.shape)));
    }
    Ok((x[0], x[2]))
}

/// r, z and n, and the state's part of n.
fn activations(x_gates: &Tensor, h_gates: &Tensor, n: usize) -> Result<[Tensor; 4]> {
    let (x, s) = (x_gates.try_split_sizes(&[2 * n, n], -1)?, h_gates.try_split_sizes(&[2 * n, n], -1)?);
    let r_z = x[0].try_add(&s[0])?.try_sigmoid()?.try_split_sizes(&[n, n], -1)?;
    let new = x[1].try_add(&r_z[0].try_mul(&s[1])?)?.try_tanh()?;
    Ok([r_z[0].clone(), r_z[1].clone(), new, s[1].clone()])
}

/// The gradients of x_gates, h_gates and h (but for what h_gates give it), of those activations, h and g.
fn gradients([r, z, n, s]: &[Tensor; 4], h: &Tensor, g: &Tensor) -> Result<[Tensor; 3]> {
    let one_minus = |t: Tensor| t.try_neg()?.try_binary_scalar(BinaryOp::Add, 1.0);
    let of_sigmoid = |y: &Tensor| y.try_sub(&y.try_square()?);
    let dn = g.try_mul(&one_minus(z.clone())?)?.try_mul(&one_minus(n.try_square()?)?)?;
    let dz = g.try_mul(&h.try_sub(n)?)?.try_mul(&of_sigmoid(z)?)?;
    let dr = dn.try_mul(s)?.try_mul(&of_sigmoid(r)?)?;
    let of_h = Tensor::try_cat(&[&dr, &dz, &dn.try_mul(r)?], -1)?;
    Ok([Tensor::try_cat(&[&dr, &dz, &dn], -1)?, of_h, g.try_mul(z)?])
}

impl Composite for GruStep {
    fn name(&self) -> &'static str {
        "gru_step"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (_, state) = check(x)?;
        Ok(one(state.dtype, state.shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let [_, z, n, _] = activations(x[0], x[1], x[2].dim(-1))?;
        Ok(smallvec![n.try_add(&z.try_mul(&x[2].try_sub(&n)?)?)?])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let grads = Tensor::compose(GruStepGrad, &[&cx.x(0), &cx.x(1), &cx.x(2), &cx.grad()]);
        Some(grads.into_iter().map(Some).collect())
    }
}

impl Composite for GruStepGrad {
    fn name(&self) -> &'static str {
        "gru_step_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (gates, state) = check(x)?;
        Ok(smallvec![gates, gates, state])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        Ok(gradients(&activations(x[0], x[1], x[2].dim(-1))?, x[2], x[3])?.into_iter().collect())
    }
}
