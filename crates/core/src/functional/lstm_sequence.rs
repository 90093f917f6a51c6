//! A whole sequence of an LSTM's steps: a layer in one direction.
//!
//! One composite for all steps, so that a device can keep the weights packed from step to step, and work out a step's gates,
//! the inputs' part and the state's, as one product that is never written down. The weights' gradients are one product over
//! all steps instead of one for each.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::functional::lstm::{LstmStep, LstmStepGrad};
use crate::op::{Meta, Metas, Tensors};
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// [`LstmStep`] for each step t of a sequence, with the gates x\[t\]·Vᵀ + b + h·Wᵀ.
///
/// Inputs: x `[steps, batch, inputs]`, V `[4·n, inputs]`, b `[4·n]`, W `[4·n, n]`, h and c before the first step `[batch, n]` → h′
/// of all steps `[steps, batch, n]`, c′ of the last `[batch, n]`. A fused kernel keeps, in the order of the steps taken, the
/// activations of i, f, g and o `[steps, batch, 4·n]`, and every c′ `[steps, batch, n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmSequence {
    /// Whether the last step of the sequence is taken first.
    pub reverse: bool,
}

/// The gradient of [`LstmSequence`]. Inputs: its six, the gradients of its outputs, all h′, and what forward kept → the gradients of V, b
/// and W, then, if it is wanted, that of x, then, if they are wanted, those of h and c.
///
/// One composite for all of them, so that a device need not write the gradients of all gates down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmSequenceGrad {
    /// As of the [`LstmSequence`].
    pub reverse: bool,
    /// Whether the gradient of x is wanted.
    pub inputs: bool,
    /// Whether those of h and c are.
    pub states: bool,
}

/// The gradients of the gates in a [`LstmSequence`], and of its first states. Inputs: its six, the gradients of its outputs, and what
/// forward kept, which the definition computes anew → the gradients of the gates `[steps, batch, 4·n]`, and of h and c.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmGateGrad {
    /// As of the [`LstmSequence`].
    pub reverse: bool,
}

/// The gradients of [`LstmSequence`]'s V, b and W: Σ over steps and batch of gatesᵀ·x, of gates, and of gatesᵀ·h, with h as it was
/// before each step. Inputs: the gates' gradient, x, all h′, and h before the first step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LstmWeightGrad {
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

/// Checks the inputs of an LSTM's sequence, and more states; gives the meta of all gates.
fn check_lstm(x: &[Meta], states: &[Meta]) -> Result<Meta> {
    let (inputs, v, b) = (x[0].shape, x[1].shape, x[2].shape);
    if inputs.rank() != 3 || v.rank() != 2 || v[1] != inputs[2] || b.dims() != [v[0]] {
        let fits = "inputs [steps, batch, inputs], a weight [4·n, inputs] and a bias [4·n] would fit";
        return Err(Error::misuse(format!("{fits}, not {inputs}, {v} and {b}")));
    }
    if x[..3].iter().any(|m| m.dtype != x[3].dtype) {
        return Err(Error::misuse("inputs, weights and states must have one floating-point dtype"));
    }
    let gates = Meta::new(x[0].dtype, inputs.with(2, v[0]));
    check(&[&[gates, x[3]], states].concat(), 4, states)?;
    Ok(gates)
}

/// Checks the inputs of a sequence, the gradients of its outputs and what forward kept; gives the meta of all gates.
fn check_grad(x: &[Meta]) -> Result<Meta> {
    let [_, _, _, w, h, c, gy, gc, activations, cells] = x else {
        return Err(Error::misuse(
            "needs the six inputs, two gradients, and the activations and cells that forward kept",
        ));
    };
    let gates = check_lstm(x, &[*h, *c, *gc])?;
    if x.iter().any(|m| m.dtype != gates.dtype) {
        return Err(Error::misuse("inputs, gradients and what forward kept must have one floating-point dtype"));
    }
    let states = gates.shape.with(2, w.shape[1]);
    if let Some(m) = [gy, cells].into_iter().find(|m| m.shape != states) {
        return Err(Error::misuse(format!("all states, and their gradient, have shape {states}, not {}", m.shape)));
    }
    if activations.shape != gates.shape {
        return Err(Error::misuse(format!("the activations have the gates' shape, not {}", activations.shape)));
    }
    Ok(gates)
}

/// h as it was before each step, `[steps, batch, n]`.
fn states_before(y: &Tensor, h: &Tensor, reverse: bool) -> Result<Tensor> {
    let (steps, first) = (y.dim(0), h.try_unsqueeze(0)?);
    match (steps, reverse) {
        (0, _) => Ok(y.clone()),
        (_, false) => Tensor::try_cat(&[&first, &y.try_narrow(0, 0, steps - 1)?], 0),
        (_, true) => Tensor::try_cat(&[&y.try_narrow(0, 1, steps - 1)?, &first], 0),
    }
}

/// Σ over steps and batch of aᵀ·b.
fn correlation(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let rows = a.dim(0) * a.dim(1);
    a.try_reshape([rows, a.dim(2)])?.try_t()?.try_matmul(&b.try_reshape([rows, b.dim(2)])?)
}

/// The gradient of a state's weights: Σ over steps of gatesᵀ·h, with h as it was before each step.
pub(super) fn weight_grad(gates: &Tensor, y: &Tensor, h: &Tensor, reverse: bool) -> Result<Tensor> {
    correlation(gates, &states_before(y, h, reverse)?)
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
    let gates = x[0].try_linear(x[1], Some(x[2]))?.try_unbind(0)?;
    let mut s = Steps { x_gates: Vec::new(), h_gates: Vec::new(), h: vec![x[4].clone()], c: vec![x[5].clone()] };
    for (i, t) in order(gates.len(), reverse).enumerate() {
        let h_gates = s.h[i].try_linear(x[3], None)?;
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
        let gates = check_lstm(x, &x[4..])?;
        Ok(smallvec![Meta::new(gates.dtype, gates.shape.with(2, x[3].shape[1])), x[5]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let mut s = steps(x, self.reverse)?;
        let c = s.c.swap_remove(s.c.len() - 1);
        Ok(smallvec![stacked(s.h.split_off(1), self.reverse, x[4], x[4].dim(1))?, c])
    }
    fn saves(&self) -> crate::op::Saves {
        crate::op::Saves::BOTH
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (activations, cells, reverse) = (cx.aux(0)?, cx.aux(1)?, self.reverse);
        let x: [Tensor; 6] = std::array::from_fn(|i| cx.x(i));
        let g = [cx.grad_or_zeros(0), cx.grad_or_zeros(1), activations, cells];
        if !(1..4).any(|i| cx.needs(i)) {
            let mut all = Tensor::compose(LstmGateGrad { reverse }, &x.iter().chain(&g).collect::<Vec<_>>());
            let (dc, dh, gates) = (all.pop(), all.pop(), all.pop()?);
            return Some(smallvec![cx.needs(0).then(|| gates.matmul(&x[1])), None, None, None, dh, dc]);
        }
        let op = LstmSequenceGrad { reverse, inputs: cx.needs(0), states: cx.needs(4) || cx.needs(5) };
        let ([gy, gc, activations, cells], y) = (&g, cx.y_of(0));
        let all = Tensor::compose(op, &x.iter().chain([gy, gc, &y, activations, cells]).collect::<Vec<_>>());
        let mut all = all.into_iter();
        let [dv, db, dw] = std::array::from_fn(|_| all.next());
        let dx = if op.inputs { all.next() } else { None };
        Some(smallvec![dx, dv, db, dw, all.next(), all.next()])
    }
}

impl Composite for LstmSequenceGrad {
    fn name(&self) -> &'static str {
        "lstm_sequence_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [inputs, v, b, w, h, c, gy, _, y, activations, cells] = x else {
            return Err(Error::misuse(
                "needs the six inputs, two gradients, all states, and the activations and cells that forward kept",
            ));
        };
        check_grad(&[&x[..8], &[*activations, *cells]].concat())?;
        if y != gy {
            return Err(Error::misuse(format!(
                "all states have the shape and dtype of their gradient, {} {}, not {} {}",
                gy.dtype, gy.shape, y.dtype, y.shape
            )));
        }
        let mut all: Metas = smallvec![*v, *b, *w];
        all.extend(self.inputs.then_some(*inputs));
        all.extend([*h, *c].into_iter().filter(|_| self.states));
        Ok(all)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let [inputs, v, _, _, h, .., y, _, _] = x else { return Err(Error::misuse("needs eleven tensors")) };
        let (reverse, kept) = (self.reverse, [&x[..8], &x[9..]].concat());
        let mut states = Tensor::try_compose(LstmGateGrad { reverse }, &kept)?.into_iter();
        let Some(gates) = states.next() else { return Err(Error::misuse("the gates have gradients")) };
        let mut all = Tensor::try_compose(LstmWeightGrad { reverse }, &[&gates, inputs, y, h])?;
        if self.inputs {
            all.push(gates.try_matmul(v)?);
        }
        all.extend(states.filter(|_| self.states));
        Ok(all.into_iter().collect())
    }
}

impl Composite for LstmGateGrad {
    fn name(&self) -> &'static str {
        "lstm_gate_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let gates = check_grad(x)?;
        Ok(smallvec![gates, x[4], x[5]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (s, gy) = (steps(&x[..6], self.reverse)?, x[6].try_unbind(0)?);
        let (mut dh, mut dc): (Option<Tensor>, Tensor) = (None, x[7].clone());
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
            dh = Some(gates[gates.len() - 1].try_matmul(x[3])?);
        }
        gates.reverse(); // in the order of the steps taken
        let dh = dh.map_or_else(|| Tensor::try_zeros(*x[4].shape(), x[4].place()), Ok)?;
        Ok(smallvec![stacked(gates, self.reverse, x[4], x[3].dim(0))?, dh, dc])
    }
}

impl Composite for LstmWeightGrad {
    fn name(&self) -> &'static str {
        "lstm_weight_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [gates, inputs, y, h] = x else {
            return Err(Error::misuse("needs the gradient of the gates, the inputs, all states and the first"));
        };
        if x.iter().any(|m| m.dtype != gates.dtype) || !gates.dtype.is_float() {
            return Err(Error::misuse("gradients, inputs and states must have one floating-point dtype"));
        }
        let (g, rank) = (gates.shape, [gates.shape.rank(), inputs.shape.rank(), y.shape.rank(), h.shape.rank()]);
        if rank != [3, 3, 3, 2]
            || inputs.shape.with(2, g[2]) != g
            || y.shape.with(2, g[2]) != g
            || y.shape.dims()[1..] != *h.shape.dims()
        {
            let fits = "gradients, inputs and states of the same steps and batch would fit, and a state [batch, n] before them";
            return Err(Error::misuse(format!("{fits}, not {g}, {}, {} and {}", inputs.shape, y.shape, h.shape)));
        }
        let like = |dims: &[usize]| Ok(Meta::new(gates.dtype, Shape::try_new(dims)?));
        Ok(smallvec![like(&[g[2], inputs.shape[2]])?, like(&[g[2]])?, like(&[g[2], h.shape[1]])?])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let bias = x[0].try_sum_dims(&[0, 1], false)?;
        Ok(smallvec![correlation(x[0], x[1])?, bias, weight_grad(x[0], x[2], x[3], self.reverse)?])
    }
}
