//! A whole sequence of a GRU's steps, as [`lstm_sequence`](super::lstm_sequence) of an LSTM's.
//!
//! (K. Cho et al., "Learning phrase representations using RNN encoder–decoder", 2014; r stands before W's part of n, as in cuDNN.)

use super::lstm_sequence::{check, order, stacked, weight_grad};
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Saves, Tensors};
use crate::ops::BinaryOp;
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

/// r, z and n of a step, sₙ, and the next h.
fn step(gates: &Tensor, w: &Tensor, b: &Tensor, h: &Tensor) -> Result<[Tensor; 5]> {
    let n = h.dim(-1);
    let split = |t: &Tensor| t.try_split_sizes(&[2 * n, n], -1);
    let (x, s) = (split(gates)?, split(&h.try_linear(w, Some(b))?)?);
    let r_z = x[0].try_add(&s[0])?.try_sigmoid()?.try_split(n, -1)?;
    let new = x[1].try_add(&r_z[0].try_mul(&s[1])?)?.try_tanh()?;
    let next = new.try_add(&r_z[1].try_mul(&h.try_sub(&new)?)?)?;
    Ok([r_z[0].clone(), r_z[1].clone(), new, s[1].clone(), next])
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
            [.., h] = step(&gates[t], x[1], x[3], &h)?;
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
        let (mut before, mut steps) = (vec![x[2].clone()], Vec::new());
        for &t in &order {
            let s = step(&gates[t], x[1], x[3], &before[before.len() - 1])?;
            before.push(s[4].clone());
            steps.push(s);
        }
        let one_minus = |t: Tensor| t.try_neg()?.try_binary_scalar(BinaryOp::Add, 1.0);
        let of_sigmoid = |y: &Tensor| y.try_sub(&y.try_square()?);
        let mut dh = Tensor::try_zeros(*x[2].shape(), x[2].place())?;
        let (mut dxs, mut dss) = (Vec::new(), Vec::new());
        for (i, &t) in order.iter().enumerate().rev() {
            let ([r, z, n, sn, _], g) = (&steps[i], gy[t].try_add(&dh)?);
            let dn = g.try_mul(&one_minus(z.clone())?)?.try_mul(&one_minus(n.try_square()?)?)?;
            let dz = g.try_mul(&before[i].try_sub(n)?)?.try_mul(&of_sigmoid(z)?)?;
            let dr = dn.try_mul(sn)?.try_mul(&of_sigmoid(r)?)?;
            let ds = Tensor::try_cat(&[&dr, &dz, &dn.try_mul(r)?], -1)?;
            dh = g.try_mul(z)?.try_add(&ds.try_matmul(x[1])?)?;
            dxs.push(Tensor::try_cat(&[&dr, &dz, &dn], -1)?);
            dss.push(ds);
        }
        let gathered = |mut all: Vec<Tensor>| {
            all.reverse(); // in the order of the steps taken
            stacked(all, self.reverse, x[2], x[0].dim(2))
        };
        Ok(smallvec![gathered(dxs)?, gathered(dss)?, dh])
    }
}
