//! Padding: by a constant, by reflection, by the border, or around.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View, WriteMode};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::ops::BinaryOp;
use crate::scalar::Scalar;
use crate::shape::{MAX_RANK, Shape};
use crate::tensor::Tensor;
use smallvec::{SmallVec, smallvec};

/// What is put around a tensor.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum PadMode {
    /// One number.
    Constant(f64),
    /// The tensor mirrored at its border, which is not repeated.
    Reflect,
    /// The border's element.
    Replicate,
    /// The tensor from its other end.
    Circular,
}

/// A constant around a tensor.
#[derive(Clone, Debug)]
pub struct Pad {
    /// For each dimension, how many before and after.
    pub amounts: SmallVec<[(usize, usize); MAX_RANK]>,
    /// The constant.
    pub value: Scalar,
}

impl Pad {
    fn shape(&self, x: &Shape) -> Result<Shape> {
        let mut shape = *x;
        for (d, &(before, after)) in self.amounts.iter().enumerate() {
            let len = x[d].checked_add(before).and_then(|n| n.checked_add(after));
            shape[d] = len.ok_or_else(|| {
                Error::misuse(format!(
                    "dimension {d} padded by {before} and {after} is longer than an address can count"
                ))
            })?;
        }
        Ok(shape)
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        Ok(one(x[0].dtype, self.shape(&x[0].shape)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let mut inner = Layout::dense(self.shape(x[0].shape())?);
        let mut out = on.fill(inner.elements(), x[0].dtype, &self.value)?;
        for (d, &(before, _)) in self.amounts.iter().enumerate() {
            inner = inner.slice(d, before, x[0].shape()[d], 1);
        }
        on.write(&mut out, &inner, x[0], WriteMode::Store)?;
        Ok(new(out))
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let mut g = cx.grad();
        for (d, &(before, _)) in self.amounts.iter().enumerate() {
            g = g.narrow(d as isize, before, cx.shape(0)[d]);
        }
        smallvec![Some(g)]
    }
}

impl Tensor {
    crate::fallible! {
        /// Padded: `amounts[i]` says how many places go before and after dimension `i`, counted from the last `amounts.len()`
        /// dimensions in their order (unlike PyTorch's flat list, which counts from the end). Negative amounts cut. ∂: g's inner
        /// part, plus what was mirrored or repeated. In PyTorch: `torch.nn.functional.pad`.
        pub fn pad | try_pad(&self, amounts: &[(isize, isize)], mode: PadMode) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("pad", [(self.dtype(), *self.shape())]);
            if amounts.len() > self.rank() {
                return Err(e(format!("{} dimensions are to be padded, but there are {}", amounts.len(), self.rank())));
            }
            let lead = self.rank() - amounts.len();
            let mut x = self.clone();
            for (i, &(before, after)) in amounts.iter().enumerate() {
                let (d, n) = (lead + i, self.dims()[lead + i]);
                let cut = before.min(0).unsigned_abs().saturating_add(after.min(0).unsigned_abs());
                if cut > n {
                    return Err(e(format!("cutting {before} and {after} leaves nothing of dimension {d} of length {n}")));
                }
                x = x.try_narrow(d as isize, before.min(0).unsigned_abs(), n - cut)?;
            }
            let grow: SmallVec<[(usize, usize); MAX_RANK]> =
                amounts.iter().map(|&(b, a)| (b.max(0) as usize, a.max(0) as usize)).collect();
            if let PadMode::Constant(value) = mode {
                let amounts = std::iter::repeat_n((0, 0), lead).chain(grow).collect();
                return Tensor::try_apply1(Pad { amounts, value: value.into() }, &[&x]);
            }
            for (i, &(before, after)) in grow.iter().enumerate().filter(|(_, a)| **a != (0, 0)) {
                let d = lead + i;
                let index = sources(mode, &x, d, before, after).map_err(|why| e(format!("dimension {d}: {why}")))?;
                x = x.try_index_select(d as isize, &index)?;
            }
            Ok(x)
        }
    }
}

/// For each place of padded dimension `d` of `x`, the place it is taken from. (By kernels, so that a recorded step may pad.)
fn sources(mode: PadMode, x: &Tensor, d: usize, before: usize, after: usize) -> Result<Tensor> {
    let n = x.dims()[d];
    let most = match mode {
        PadMode::Reflect => n.saturating_sub(1),
        PadMode::Circular => n,
        _ if n == 0 => 0,
        _ => usize::MAX,
    };
    if before > most || after > most {
        return Err(Error::misuse(format!(
            "{mode:?} padding of {before} and {after} needs more than the {n} elements there are"
        )));
    }
    let Some(len) = before.checked_add(n).and_then(|l| l.checked_add(after)) else {
        return Err(Error::misuse(format!("padded by {before} and {after} it is longer than an address can count")));
    };
    let (at, last) = (Tensor::try_count(len, x.device())? - before as i64, n as i64 - 1);
    match mode {
        PadMode::Reflect => Ok(last - (last - at.try_abs()?).try_abs()?),
        PadMode::Circular => at.try_binary_scalar(BinaryOp::Remainder, n as i64),
        _ => at.try_binary_scalar(BinaryOp::Maximum, 0i64)?.try_binary_scalar(BinaryOp::Minimum, last),
    }
}
