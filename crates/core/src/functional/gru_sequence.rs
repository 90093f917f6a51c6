//! A whole sequence of a GRU's steps, as [`lstm_sequence`](super::lstm_sequence) of an LSTM's.
//!
//! (K. Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014; r stands before W's part of n, as in cuDNN.)

use super::gru::{GruStep, GruStepGrad};
use super::lstm_sequence::{check, order, stacked, weight_grad};
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Saves, Tensors};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// For each step t, with x = gates\[t\] and s = h·Wᵀ + b, of three parts each: r, z = σ(x + s), n = tanh(xₙ + r·sₙ),
/// h ← (1 − z)·n + z·h.
///
/// Inputs: gates `[steps, batch, 3·n]` (of the inputs, with their bias), W `[3·n, n]`, h before the first step `[batch, n]`,
/// b `[3·n]` → h of all steps `[steps, batch, n]`. A fused kernel keeps, in the order of the steps taken, r, z, n and sₙ, together
/// `[steps, batch, 4·n]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GruSequence {
    /// Whether the last step of the sequence is taken first.
    pub reverse: bool,
}

/// The gradient of [`GruSequence`] but for W's and b's, which are sums of what this gives. Inputs: its four and its output, the
/// output's gradient, and what forward kept, which the definition computes anew → the gradients of x and s (both
/// `[steps, batch, 3·n]`), and of h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GruSequenceGrad {
    /// As of the [`GruSequence`].
    pub reverse: bool,
}

fn check_bias(x: &[Meta]) -> Result<()> {
    check(x, 3, &x[2..3])?;
    if x[3].shape.dims() != [x[1].shape[0]] {
        return Err(Error::misuse(format!("a bias of shape [{}] would fit, not {}", x[1].shape[0], x[3].shape)));
    }
    Ok(())
}

impl Composite for GruSequence {
    fn name(&self) -> &'static str {
        "gru_sequence"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check_bias(x)?;
        Ok(smallvec![Meta::new(x[0].dtype, x[0].shape.with(2, x[1].shape[1]))])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (gates, mut h, mut taken) = (x[0].try_unbind(0)?, x[2].clone(), Vec::new());
        for t in order(gates.len(), self.reverse) {
            h = Tensor::try_compose1(GruStep, &[&gates[t], &h.try_linear(x[1], Some(x[3]))?, &h])?;
            taken.push(h.clone());
        }
        Ok(smallvec![stacked(taken, self.reverse, x[2], x[2].dim(1))?])
    }
    fn saves(&self) -> Saves {
        Saves::BOTH
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (kept, h, y) = (cx.aux(0)?, cx.x(2), cx.y());
        let op = GruSequenceGrad { reverse: self.reverse };
        let mut grads = Tensor::compose(op, &[&cx.x(0), &cx.x(1), &h, &cx.x(3), &y, &cx.grad(), &kept]);
        let dh = grads.pop();
        let ds = grads.pop()?;
        let dw = cx.needs(1).then(|| or_raise(weight_grad(&ds, &y, &h, self.reverse)));
        let db = cx.needs(3).then(|| ds.sum_dims(&[0, 1], false));
        Some(smallvec![grads.pop(), dw, dh, db])
    }
}

impl Composite for GruSequenceGrad {
    fn name(&self) -> &'static str {
        "gru_sequence_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [gates, w, _, _, _, _, kept] = x else {
            return Err(Error::misuse("needs the four inputs, the output and its gradient, and what forward kept"));
        };
        check_bias(x)?;
        let states = gates.shape.with(2, w.shape[1]);
        if kept.shape != gates.shape.with(2, w.shape[1].saturating_mul(4)) {
            return Err(Error::misuse(format!("what forward kept is four numbers for each state, not {}", kept.shape)));
        }
        match x[4..6].iter().find(|m| m.shape != states) {
            Some(m) => {
                Err(Error::misuse(format!("all states, and their gradient, have shape {states}, not {}", m.shape)))
            }
            None => Ok(smallvec![x[0], x[0], x[2]]),
        }
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (gates, gy) = (x[0].try_unbind(0)?, x[5].try_unbind(0)?);
        let order: Vec<usize> = order(gates.len(), self.reverse).collect();
        let (mut before, mut of_state) = (vec![x[2].clone()], Vec::new());
        for &t in &order {
            let h = &before[before.len() - 1];
            let s = h.try_linear(x[1], Some(x[3]))?;
            let next = Tensor::try_compose1(GruStep, &[&gates[t], &s, h])?;
            before.push(next);
            of_state.push(s);
        }
        let mut dh = Tensor::try_zeros(*x[2].shape(), x[2].place())?;
        let (mut dxs, mut dss) = (Vec::new(), Vec::new());
        for (i, &t) in order.iter().enumerate().rev() {
            let g = gy[t].try_add(&dh)?;
            let mut grads = Tensor::try_compose(GruStepGrad, &[&gates[t], &of_state[i], &before[i], &g])?;
            let (Some(of_h), Some(ds), Some(dx)) = (grads.pop(), grads.pop(), grads.pop()) else {
                return Err(Error::misuse("the gradient of a GRU's step is that of two gates and h"));
            };
            dh = of_h.try_add(&ds.try_matmul(x[1])?)?;
            dxs.push(dx);
            dss.push(ds);
        }
        let gathered = |mut all: Vec<Tensor>| {
            all.reverse(); // in the order of the steps taken
            stacked(all, self.reverse, x[2], x[0].dim(2))
        };
        Ok(smallvec![gathered(dxs)?, gathered(dss)?, dh])
    }
}
