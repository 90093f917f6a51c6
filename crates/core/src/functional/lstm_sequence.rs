//! A whole sequence of an LSTM's steps: what is left of a layer once the inputs' part of all gates is one product.
//!
//! One composite for all steps, so that a device can keep the state's weights packed from step to step, and the weights' gradient
//! is one product over all steps instead of one for each.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::functional::lstm::{LstmStep, LstmStepGrad};
use crate::op::{Meta, Metas, Tensors};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// [`LstmStep`] for each step t of a sequence, with the gates gates\[t\] + h·Wᵀ.
///
/// Inputs: gates `[steps, batch, 4·n]` (of the inputs, with biases), W `[4·n, n]`, h and c before the first step `[batch, n]` → h′ of
/// all steps `[steps, batch, n]`, c′ of the last `[batch, n]`. A fused kernel keeps, in the order of the steps taken, the
/// activations of i, f, g and o `[steps, batch, 4·n]`, and every c′ `[steps, batch, n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmSequence {
    /// Whether the last step of the sequence is taken first.
    pub reverse: bool,
}

/// The gradient of [`LstmSequence`] but for W's, which is a product of what this gives. Inputs: its four, the gradients of its
/// outputs, and what forward kept, which the definition computes anew → the gradients of gates, h and c.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmSequenceGrad {
    /// As of the [`LstmSequence`].
    pub reverse: bool,
}

/// Which step is taken as the `i`-th.
pub(super) fn order(steps: usize, reverse: bool) -> impl DoubleEndedIterator<Item = usize> {
    (0..steps).map(move |i| if reverse { steps - 1 - i } else { i })
}

/// Checks gates, W and the states of a cell with so many gates.
pub(super) fn check(x: &[Meta], gates: usize, states: &[Meta]) -> Result<()> {
    if x.iter().any(|m| m.dtype != x[0].dtype) || !x[0].dtype.is_float() {
        return Err(Error::misuse("gates, weights and states must have one floating-point dtype"));
    }
    let (g, w) = (x[0].shape, x[1].shape);
    if g.rank() != 3 || w.rank() != 2 || w[0] != w[1].saturating_mul(gates) || g[2] != w[0] {
        let message = format!("gates [steps, batch, {gates}·n] and a weight [{gates}·n, n] would fit, not {g} and {w}");
        return Err(Error::misuse(message));
    }
    match states.iter().find(|s| s.shape.dims() != [g[1], w[1]]) {
        Some(s) => Err(Error::misuse(format!("a state of shape [{}, {}] would fit, not {}", g[1], w[1], s.shape))),
        None => Ok(()),
    }
}

/// The gradient of a state's weights: Σ over steps of gatesᵀ·h, with h as it was before each step.
pub(super) fn weight_grad(gates: &Tensor, y: &Tensor, h: &Tensor, reverse: bool) -> Result<Tensor> {
    let (steps, wide, n) = (gates.dim(0), gates.dim(2), h.dim(1));
    if steps == 0 {
        return Tensor::try_zeros([wide, n], h.place());
    }
    let first = h.try_unsqueeze(0)?;
    let before = match reverse {
        false => Tensor::try_cat(&[&first, &y.try_narrow(0, 0, steps - 1)?], 0)?,
        true => Tensor::try_cat(&[&y.try_narrow(0, 1, steps - 1)?, &first], 0)?,
    };
    let rows = steps * h.dim(0);
    gates.try_reshape([rows, wide])?.try_t()?.try_matmul(&before.try_reshape([rows, n])?)
}

/// `[steps, ..]` from what was gathered in the order of the steps taken.
pub(super) fn stacked(mut taken: Vec<Tensor>, reverse: bool, like: &Tensor, wide: usize) -> Result<Tensor> {
    if taken.is_empty() {
        return Tensor::try_zeros([0, like.dim(0), wide], like.place());
    }
    if reverse {
        taken.reverse();
    }
    Tensor::try_stack(&taken.iter().collect::<Vec<_>>(), 0)
}

/// All steps, in the order taken: the gates of the inputs and of h, and the states before each step and after the last.
struct Steps {
    x_gates: Vec<Tensor>,
    h_gates: Vec<Tensor>,
    h: Vec<Tensor>,
    c: Vec<Tensor>,
}

fn steps(x: &[&Tensor], reverse: bool) -> Result<Steps> {
    let gates = x[0].try_unbind(0)?;
    let mut s = Steps { x_gates: Vec::new(), h_gates: Vec::new(), h: vec![x[2].clone()], c: vec![x[3].clone()] };
    for (i, t) in order(gates.len(), reverse).enumerate() {
        let h_gates = s.h[i].try_linear(x[1], None)?;
        let mut next = Tensor::try_compose(LstmStep, &[&gates[t], &h_gates, &s.c[i]])?;
        s.c.extend(next.pop());
        s.h.extend(next.pop());
        s.h_gates.push(h_gates);
        s.x_gates.push(gates[t].clone());
    }
    Ok(s)
}

impl Composite for LstmSequence {
    fn name(&self) -> &'static str {
        "lstm_sequence"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(x, 4, &x[2..])?;
        let n = x[1].shape[1];
        Ok(smallvec![Meta::new(x[0].dtype, x[0].shape.with(2, n)), x[3]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let mut s = steps(x, self.reverse)?;
        let c = s.c.swap_remove(s.c.len() - 1);
        Ok(smallvec![stacked(s.h.split_off(1), self.reverse, x[2], x[2].dim(1))?, c])
    }
    fn saves(&self) -> crate::op::Saves {
        crate::op::Saves::BOTH
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (activations, cells, h) = (cx.aux(0)?, cx.aux(1)?, cx.x(2));
        let op = LstmSequenceGrad { reverse: self.reverse };
        let (gy, gc) = (cx.grad_or_zeros(0), cx.grad_or_zeros(1));
        let mut grads = Tensor::compose(op, &[&cx.x(0), &cx.x(1), &h, &cx.x(3), &gy, &gc, &activations, &cells]);
        let (dc, dh) = (grads.pop(), grads.pop());
        let gates = grads.pop()?;
        let product = || crate::error::or_raise(weight_grad(&gates, &cx.y_of(0), &h, self.reverse));
        let dw = cx.needs(1).then(product);
        Some(smallvec![Some(gates), dw, dh, dc])
    }
}

impl Composite for LstmSequenceGrad {
    fn name(&self) -> &'static str {
        "lstm_sequence_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [_, _, h, c, gy, gc, activations, cells] = x else {
            return Err(Error::misuse(
                "needs the four inputs, two gradients, and the activations and cells that forward kept",
            ));
        };
        check(x, 4, &[*h, *c, *gc])?;
        let states = x[0].shape.with(2, x[1].shape[1]);
        if let Some(m) = [gy, cells].into_iter().find(|m| m.shape != states) {
            return Err(Error::misuse(format!("all states, and their gradient, have shape {states}, not {}", m.shape)));
        }
        if activations.shape != x[0].shape {
            return Err(Error::misuse(format!("the activations have the gates' shape, not {}", activations.shape)));
        }
        Ok(smallvec![x[0], x[2], x[3]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (s, gy) = (steps(&x[..4], self.reverse)?, x[4].try_unbind(0)?);
        let (mut dh, mut dc): (Option<Tensor>, Tensor) = (None, x[5].clone());
        let mut gates = Vec::new();
        for (i, t) in order(gy.len(), self.reverse).enumerate().collect::<Vec<_>>().into_iter().rev() {
            let gh = match &dh {
                Some(dh) => gy[t].try_add(dh)?,
                None => gy[t].clone(),
            };
            let mut grads = Tensor::try_compose(LstmStepGrad, &[&s.x_gates[i], &s.h_gates[i], &s.c[i], &gh, &dc])?;
            (dc, gates) = match (grads.pop(), grads.pop()) {
                (Some(dc), Some(g)) => (dc, [gates, vec![g]].concat()),
                _ => return Err(Error::misuse("the gradient of an LSTM's step is that of gates and c")),
            };
            dh = Some(gates[gates.len() - 1].try_matmul(x[1])?);
        }
        gates.reverse(); // in the order of the steps taken
        let dh = dh.map_or_else(|| Tensor::try_zeros(*x[2].shape(), x[2].place()), Ok)?;
        Ok(smallvec![stacked(gates, self.reverse, x[2], x[0].dim(2))?, dh, dc])
    }
}
