//! Rotation of pairs of numbers by angles of their position (Su et al., "RoFormer", 2021).

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::tensor::Tensor;
use smallvec::smallvec;

/// (a, b) → (a·cos − b·sin, b·cos + a·sin) for each pair of the first 2·n numbers of x's rows; the others stay as they are.
///
/// Inputs: x `[.., length, width]`, cos and sin `[length, n]`. The gradient with respect to x is the rotation back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotary {
    /// Whether pair i is numbers 2·i and 2·i + 1, in place of i and i + n.
    pub interleaved: bool,
    /// Whether to turn back: sin counts with the other sign.
    pub back: bool,
    /// Whether cos and sin have gradients, too. Then backward goes by the definition, and keeps x.
    pub learnt: bool,
}

impl Composite for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [x, cos, sin] = x else { return Err(Error::misuse("needs x, cosines and sines")) };
        let (rank, table) = (x.shape.rank(), cos.shape);
        let fits = rank >= 2 && table.rank() == 2 && table[0] == x.shape[rank - 2] && 2 * table[1] <= x.shape[rank - 1];
        if !fits || sin != cos || cos.dtype != x.dtype || !x.dtype.is_float() {
            return Err(Error::misuse(format!(
                "cosines and sines {} [length, n] would fit x [.., length, 2·n or more], not {} {} and {} {} for x {}",
                x.dtype, cos.dtype, cos.shape, sin.dtype, sin.shape, x.shape
            )));
        }
        Ok(one(x.dtype, x.shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (x, cos, sin) = (x[0], x[1], x[2]);
        let (n, width) = (cos.dim(1), x.dim(-1));
        let turning = if width == 2 * n { x.clone() } else { x.try_narrow(-1, 0, 2 * n)? };
        let turned = if self.interleaved {
            let lead = &x.dims()[..x.rank() - 1];
            let pairs = turning.try_reshape([lead, &[n, 2]].concat())?.try_unbind(-1)?;
            let [a, b] = self.turn(&pairs[0], &pairs[1], cos, sin)?;
            Tensor::try_stack(&[&a, &b], -1)?.try_reshape(*turning.shape())?
        } else {
            let halves = turning.try_split_sizes(&[n, n], -1)?;
            let [a, b] = self.turn(&halves[0], &halves[1], cos, sin)?;
            Tensor::try_cat(&[&a, &b], -1)?
        };
        match width - 2 * n {
            0 => Ok(smallvec![turned]),
            rest => Ok(smallvec![Tensor::try_cat(&[&turned, &x.try_narrow(-1, 2 * n, rest)?], -1)?]),
        }
    }
    fn saves(&self) -> Saves {
        if self.learnt { Saves::INPUTS } else { Saves::NOTHING.input(1).input(2) }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        if self.learnt {
            return None;
        }
        let op = Rotary { back: !self.back, ..*self };
        let dx = Tensor::compose(op, &[&cx.grad(), &cx.x(1), &cx.x(2)]).pop();
        Some(smallvec![dx, None, None])
    }
}

impl Rotary {
    fn turn(&self, a: &Tensor, b: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<[Tensor; 2]> {
        let (to_a, to_b) = (b.try_mul(sin)?, a.try_mul(sin)?);
        let (a, b) = (a.try_mul(cos)?, b.try_mul(cos)?);
        Ok(match self.back {
            false => [a.try_sub(&to_a)?, b.try_add(&to_b)?],
            true => [a.try_add(&to_a)?, b.try_sub(&to_b)?],
        })
    }
}

impl Tensor {
    crate::fallible! {
        /// Pairs of the first 2·n numbers of each row of `[.., length, width]` turned by angles, given by their cosines and sines
        /// `[length, n]`: (a, b) → (a·cos − b·sin, b·cos + a·sin). Pair i is numbers i and i + n, or, interleaved, 2·i and 2·i + 1.
        /// ∂ = g turned back. In PyTorch: `torchtune.modules.RotaryPositionalEmbeddings`.
        pub fn rotary | try_rotary(&self, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Tensor {
            let learnt = cos.is_tracked() || sin.is_tracked();
            Tensor::try_compose1(Rotary { interleaved, back: false, learnt }, &[self, cos, sin])
        }
    }
}
