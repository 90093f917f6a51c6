//! The affine map of a layer, with its activation in the product's epilogue.

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::ops::{UnaryGrad, UnaryOp};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// f(x·Wᵀ + b): x `[rows, in]`, W `[out, in]`, b `[out]` (optional) → `[rows, out]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// f: an activation, or none. Of one whose gradient needs its input (gelu, silu) a fused kernel keeps the slope f′ there,
    /// `[rows, out]`: it costs little beside f, and the input need not be kept.
    pub activation: Option<UnaryOp>,
}

/// Whether backward needs an activation's slope, as its output does not tell it.
pub fn keeps_slope(f: UnaryOp) -> bool {
    !f.saves().has_outputs()
}

impl Composite for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let (shape, w) = (&x[0].shape, &x[1].shape);
        if w.rank() != 2 || shape.rank() != 2 || shape[1] != w[1] {
            return Err(Error::misuse(match (w.rank(), shape.last()) {
                (2, _) => format!("an input of shape [.., {}] would fit this weight [out, in]", w[1]),
                (_, Some(n)) => format!("a weight of shape [out, {n}] would fit"),
                _ => "needs an input of shape [.., in]".into(),
            }));
        }
        if let Some(b) = x.get(2).filter(|b| b.shape.dims() != [w[0]]) {
            return Err(Error::misuse(format!("a bias of shape [{}] would fit, not {}", w[0], b.shape)));
        }
        if x.iter().any(|m| m.dtype != x[0].dtype) {
            return Err(Error::misuse("input, weight and bias must have one dtype"));
        }
        Ok(one(x[0].dtype, shape.with(1, w[0])))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        if let Some(f) = self.activation {
            // A device may have a kernel for the product alone.
            let mut y = Tensor::try_compose(Linear { activation: None }, x)?;
            y[0] = y[0].try_unary(f)?;
            return Ok(y);
        }
        let y = x[0].try_matmul(&x[1].try_t()?)?;
        Ok(smallvec![x.get(2).map_or_else(|| Ok(y.clone()), |b| y.try_add(b))?])
    }
    fn saves(&self) -> Saves {
        let operands = Saves::NOTHING.input(0).input(1);
        match self.activation {
            None => operands,
            Some(f) if keeps_slope(f) => Saves::INPUTS, // for the definition, to which gradients of gradients go
            Some(_) => operands.output(),
        }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let slope = match self.activation.filter(|&f| keeps_slope(f)) {
            Some(_) if cx.graph() => return None, // the slope is a constant
            Some(_) => Some(cx.aux(0)?),
            None => None,
        };
        let wanted = [cx.needs(0), cx.needs(1), cx.inputs() == 3 && cx.needs(2)];
        let op = LinearGrad { activation: self.activation, wanted };
        let kept = match (self.activation, &slope) {
            (None, _) => cx.x_ref(1), // not read
            (Some(_), Some(slope)) => slope,
            (Some(_), None) => cx.y_ref(),
        };
        let all = [cx.grad_ref(), cx.x_ref(0), cx.x_ref(1), kept];
        let inputs = &all[..3 + usize::from(self.activation.is_some())];
        // With a graph by its ops, which know their gradients; a composite's would come from computing it again.
        let grads = if cx.graph() { or_raise(op.define(inputs)) } else { Tensor::compose(op, inputs) };
        let mut grads = grads.into_iter();
        let each = wanted.map(|wanted| if wanted { grads.next() } else { None });
        Some(Grads::from_buf_and_len(each, cx.inputs()))
    }
}

/// The gradients of [`Linear`] with respect to x, W and b, of those that are wanted: with g′ the gradient before the activation,
/// g′·W, g′ᵀ·x and Σ g′ over the rows. Inputs: g `[rows, out]`, x, W and, if there is an activation, its output, or its slope for one
/// that [keeps it](keeps_slope).
#[derive(Clone, Copy, Debug)]
pub struct LinearGrad {
    /// f, as in [`Linear`].
    pub activation: Option<UnaryOp>,
    /// Which are wanted: the outputs are these.
    pub wanted: [bool; 3],
}

impl Composite for LinearGrad {
    fn name(&self) -> &'static str {
        "linear_grad"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let fits = |x: &[Meta]| {
            let (g, w) = (&x[0].shape, &x[2].shape);
            let matrices = x.iter().all(|m| m.shape.rank() == 2 && m.dtype == x[0].dtype);
            let sizes = || g[0] == x[1].shape[0] && g[1] == w[0] && x[1].shape[1] == w[1];
            matrices && sizes() && x.get(3).is_none_or(|y| y == &x[0])
        };
        if x.len() != 3 + usize::from(self.activation.is_some()) || !fits(x) {
            return Err(Error::misuse(
                "needs g [rows, out], x [rows, in], a weight [out, in] and, for an activation, its output or slope",
            ));
        }
        let bias = Meta::new(x[0].dtype, x[0].shape.without(0));
        let mut metas = Metas::with_capacity(3);
        for (meta, wanted) in [x[1], x[2], bias].into_iter().zip(self.wanted) {
            if wanted {
                metas.push(meta);
            }
        }
        Ok(metas)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let g = match self.activation {
            Some(f) if keeps_slope(f) => x[0].try_mul(x[3])?,
            Some(f) => Tensor::try_compose1(UnaryGrad(f), &[x[0], x[3]])?,
            None => x[0].clone(),
        };
        let mut grads = Tensors::new();
        if self.wanted[0] {
            grads.push(g.try_matmul(x[2])?);
        }
        if self.wanted[1] {
            grads.push(g.try_t()?.try_matmul(x[1])?);
        }
        if self.wanted[2] {
            grads.push(g.try_sum_dims(&[0], false)?);
        }
        Ok(grads)
    }
}

impl Tensor {
    crate::fallible! {
        /// x·Wᵀ + b for x `[.., in]`, W `[out, in]`, b `[out]`; a W `[in]` is one row, and gives `[..]`. ∂ = (g·W, gᵀ·x, Σ g). In PyTorch: `torch.nn.functional.linear`.
        pub fn linear | try_linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
            affine(self, weight, bias, None)
        }
        /// max(x·Wᵀ + b, 0), in one pass where the device can.
        pub fn linear_relu | try_linear_relu(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
            affine(self, weight, bias, Some(UnaryOp::Relu))
        }
        /// tanh(x·Wᵀ + b), in one pass where the device can.
        pub fn linear_tanh | try_linear_tanh(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
            affine(self, weight, bias, Some(UnaryOp::Tanh))
        }
        /// sigmoid(x·Wᵀ + b), in one pass where the device can.
        pub fn linear_sigmoid | try_linear_sigmoid(&self, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
            affine(self, weight, bias, Some(UnaryOp::Sigmoid))
        }
        /// f(x·Wᵀ + b), in one pass where the device can (relu, tanh, sigmoid, gelu in both its forms, silu).
        pub fn linear_then | try_linear_then(&self, weight: &Tensor, bias: Option<&Tensor>, f: UnaryOp) -> Tensor {
            affine(self, weight, bias, Some(f))
        }
    }
}

#[track_caller]
fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Option<UnaryOp>) -> Result<Tensor> {
    let run = |x: &Tensor| match bias {
        Some(b) => Tensor::try_compose1(Linear { activation }, &[x, weight, b]),
        None => Tensor::try_compose1(Linear { activation }, &[x, weight]),
    };
    let fits = |n: usize| x.shape().last() == Some(&n) && bias.is_none_or(|b| b.elements() == 1);
    if weight.rank() == 1 && fits(weight.elements()) {
        // One row of weights: the output has no dimension for it.
        let bias = bias.map(|b| b.try_reshape([1])).transpose()?;
        return affine(x, &weight.try_unsqueeze(0)?, bias.as_ref(), activation)?.try_squeeze(-1);
    }
    let rank = x.rank();
    if rank == 2 || rank == 0 || weight.rank() != 2 || x.dims()[rank - 1] != weight.dims()[1] {
        return run(x); // which says what does not fit, if so
    }
    let (n, out) = (x.dims()[rank - 1], weight.dims()[0]);
    let rows = x.dims()[..rank - 1].iter().product::<usize>();
    run(&x.try_reshape([rows, n])?)?.try_reshape(x.shape().with(rank - 1, out))
}
