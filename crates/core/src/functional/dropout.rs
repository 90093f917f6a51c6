//! Dropout: elements are zeroed at random, the rest scaled up (Srivastava et al., JMLR 2014).
//!
//! The mask is a pure function of its key, so backward can draw it again. A fused kernel may keep it, a bit for each element, where
//! reading takes less time than drawing.

use super::residual::check;
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::rng::{Distribution, Key};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// x·m/(1 − p) + residual, where each element of m is 1 with probability 1 − p. The residual, like x, may be absent. A fused kernel may keep m: of element i of a block of
/// [`MASK_BLOCK`], whether it stays is bit i / [`MASK_LANES`] of word i % [`MASK_LANES`] of the block's words.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// The probability of an element to be zeroed.
    pub p: f64,
    /// Names the mask.
    pub key: Key,
}

/// The gradient of [`Dropout`]. Inputs: g, and the mask that forward kept, which the definition draws anew.
#[derive(Clone, Debug)]
pub struct DropoutGrad(pub Dropout);

/// The elements whose bits lie together.
pub const MASK_BLOCK: usize = 32 * MASK_LANES;
/// The words of a block: so many elements side by side have their bits at one place of words side by side, as vectors want them.
pub const MASK_LANES: usize = 16;

/// How many words hold the mask of `n` elements.
pub fn mask_words(n: usize) -> usize {
    n.div_ceil(MASK_BLOCK) * MASK_LANES
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
        if let Some(residual) = x.get(1) {
            check(&x[0], residual)?;
        }
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let keep = 1.0 - self.p;
        let mask = Tensor::try_random(Distribution::Bernoulli(keep), *x[0].shape(), x[0].place(), &self.key)?;
        let scale = if keep > 0.0 { 1.0 / keep } else { 0.0 };
        let y = x[0].try_mul(&mask.try_binary_scalar(crate::ops::BinaryOp::Mul, scale)?)?;
        Ok(smallvec![x.get(1).map_or(Ok(y.clone()), |residual| y.try_add(residual))?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        // Linear in x: the gradient passes through the same mask. That of the residual is what arrives.
        let dx = match cx.aux(0) {
            Some(mask) => Tensor::compose(DropoutGrad(self.clone()), &[&cx.grad(), &mask]).pop(),
            None => Tensor::compose(self.clone(), &[&cx.grad()]).pop(),
        };
        Some([dx, Some(cx.grad())].into_iter().take(cx.inputs()).collect())
    }
}

impl Composite for DropoutGrad {
    fn name(&self) -> &'static str {
        "dropout_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [g, mask] = x else {
            return Err(Error::misuse("needs a gradient and a mask"));
        };
        let words = mask_words(g.shape.elements());
        if mask.dtype != DType::U32 || mask.shape.dims() != [words] {
            return Err(Error::misuse(format!("a mask of u32 [{words}] would fit, not {} {}", mask.dtype, mask.shape)));
        }
        self.0.infer(&[*g])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        self.0.define(&[x[0]])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(1)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(smallvec![Tensor::compose(self.clone(), &[&cx.grad(), &cx.x(1)]).pop(), None])
    }
}

impl Tensor {
    crate::fallible! {
        /// Each element zeroed with probability `p`, the rest divided by 1 − p; the mask is a pure function of `key`. ∂ = g under
        /// the same mask. In PyTorch: `torch.nn.functional.dropout`.
        pub fn dropout | try_dropout<K: Into<Key>>(&self, p: f64, key: K) -> Tensor {
            Tensor::try_compose1(Dropout { p, key: key.into() }, &[self])
        }
        /// dropout(x) + residual, in one pass where the device can; the mask is that of [`dropout`](Self::dropout). ∂x as there, ∂residual
        /// = g. The residual has x's shape.
        pub fn dropout_add | try_dropout_add<K: Into<Key>>(&self, residual: &Tensor, p: f64, key: K) -> Tensor {
            Tensor::try_compose1(Dropout { p, key: key.into() }, &[self, residual])
        }
    }
}
