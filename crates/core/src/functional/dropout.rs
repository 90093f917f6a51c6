//! Dropout: elements are zeroed at random, the rest scaled up (Srivastava et al., JMLR 2014).
//!
//! The mask is a pure function of its key, so backward draws it again instead of keeping it.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::rng::{Distribution, Key};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x·m/(1 − p), where each element of m is 1 with probability 1 − p.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// The probability of an element to be zeroed.
    pub p: f64,
    /// Names the mask.
    pub key: Key,
}

impl Composite for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if !(0.0..=1.0).contains(&self.p) {
            return Err(Error::misuse(format!("the probability must lie between 0 and 1; got {}", self.p)));
        }
        if !x[0].dtype.is_float() {
            return Err(Error::misuse(format!("needs a floating-point tensor, not {}", x[0].dtype)));
        }
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let keep = 1.0 - self.p;
        let mask = Tensor::try_random(Distribution::Bernoulli(keep), *x[0].shape(), x[0].place(), &self.key)?;
        let scale = if keep > 0.0 { 1.0 / keep } else { 0.0 };
        Ok(smallvec![x[0].try_mul(&mask.try_binary_scalar(crate::ops::BinaryOp::Mul, scale)?)?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        // Linear in x: the gradient passes through the same mask.
        Some(smallvec![Tensor::compose(self.clone(), &[&cx.grad()]).pop()])
    }
}

impl Tensor {
    crate::fallible! {
        /// Each element zeroed with probability `p`, the rest divided by 1 − p; the mask is a pure function of `key`. ∂ = g under
        /// the same mask. In PyTorch: `torch.nn.functional.dropout`.
        pub fn dropout | try_dropout<K: Into<Key>>(&self, p: f64, key: K) -> Tensor {
            Tensor::try_compose1(Dropout { p, key: key.into() }, &[self])
        }
    }
}
