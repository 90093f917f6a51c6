//! Batch normalization (Ioffe & Szegedy, 2015), keeping its statistics for backward.

use super::residual::same_shape;
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::ops::{UnaryGrad, UnaryOp};
use crate::precision::Autocast;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// (x − mean)/√(var + eps)·w + b for each channel of `[batch, channels, places]`, with the mean and biased variance over batch
/// and places, which are outputs as well, `[channels]` each. Inputs: x, w, b, the last two `[channels]` and optional together.
/// A fused kernel keeps mean and rstd, `[channels]` each.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
}

/// The gradients of [`BatchNorm`]'s first output with respect to x, w and b. Inputs: g, x, w, and the mean and rstd that forward
/// kept, which the definition computes anew from x, so that it can be differentiated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNormGrad {
    /// Added to the variance.
    pub eps: f64,
}

/// max([`BatchNorm`] of x + residual, 0), and the statistics: what stands between two convolutions, in one pass. Inputs: x, w, b, and
/// the residual, like x, which may be absent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNormRelu {
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a residual.
    pub residual: bool,
}

/// The gradients of [`BatchNormRelu`]'s first output with respect to x, w, b and the residual. Inputs: g, x, w, b, the mean and rstd
/// that forward kept, and, if there is a residual, the output, which tells where the gradient flows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BatchNormReluGrad {
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a residual.
    pub residual: bool,
}

/// x·scale + shift for each channel of `[batch, channels, places]`; scale and shift `[channels]`: what a batch normalization
/// with known statistics comes down to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ChannelAffine;

/// The dimensions that statistics go over.
const OVER: [isize; 2] = [0, 2];

/// A number for each channel, to go with `[batch, channels, places]`.
pub(super) fn column(t: &Tensor) -> Result<Tensor> {
    t.try_reshape([t.elements(), 1])
}

/// (mean, biased variance, x − mean) of each channel.
fn statistics(x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let mean = x.try_mean_dims(&OVER, true)?;
    let centred = x.try_sub(&mean)?;
    let var = centred.try_square()?.try_mean_dims(&OVER, true)?;
    Ok((mean, var, centred))
}

/// Checks x and vectors over its channels; gives the vectors' shape.
pub(super) fn check(x: &[Meta]) -> Result<Shape> {
    let shape = x[0].shape;
    if shape.rank() != 3 || !x[0].dtype.is_float() {
        return Err(Error::misuse("needs a floating-point input [batch, channels, places]"));
    }
    for p in &x[1..] {
        if p.shape.dims() != [shape[1]] || p.dtype != x[0].dtype {
            return Err(Error::misuse(format!(
                "a vector of {} [{}] would fit the channels, not {} {}",
                x[0].dtype, shape[1], p.dtype, p.shape
            )));
        }
    }
    Shape::try_new(&[shape[1]])
}

impl Composite for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let channels = check(x)?;
        if x[0].shape[0].saturating_mul(x[0].shape[2]) < 2 && x[0].shape[1] > 0 {
            return Err(Error::misuse(format!(
                "statistics need more than one value for each channel; an input of {} has {}",
                x[0].shape,
                x[0].shape[0] * x[0].shape[2]
            )));
        }
        Ok(smallvec![x[0], Meta::new(x[0].dtype, channels), Meta::new(x[0].dtype, channels)])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (mean, var, centred) = statistics(x[0])?;
        let mut y = centred.try_mul(&(&var + self.eps).try_rsqrt()?)?;
        if let [_, w, b] = x {
            y = y.try_mul(&column(w)?)?.try_add(&column(b)?)?;
        }
        let channels = [x[0].dims()[1]];
        Ok(smallvec![y, mean.try_reshape(channels)?, var.try_reshape(channels)?])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (mean, rstd) = (cx.aux(0)?, cx.aux(1)?);
        let (g, x) = (cx.grad_or_zeros(0), cx.x(0));
        let affine = cx.inputs() > 1;
        let w = if affine { cx.x(1) } else { Tensor::ones([x.dims()[1]], x.place()) };
        let mut grads = Tensor::compose(BatchNormGrad { eps: self.eps }, &[&g, &x, &w, &mean, &rstd]);
        grads.truncate(cx.inputs());
        of_statistics(cx, &x, &mut grads[0]);
        Some(grads.into_iter().map(Some).collect())
    }
}

/// Adds what the gradients of the statistics (outputs 1 and 2) give x: ∂mean/∂x = 1/n, ∂var/∂x = 2·(x − mean)/n.
fn of_statistics(cx: &Vjp<'_>, x: &Tensor, dx: &mut Tensor) {
    let n = (x.dims()[0] * x.dims()[2]) as f64;
    let vector = |i: usize| cx.grad_of(i).map(|g| g.reshape([g.elements(), 1]) / n);
    if let Some(gm) = vector(1) {
        *dx = &*dx + gm;
    }
    if let Some(gv) = vector(2) {
        *dx = &*dx + (x - x.mean_dims(&OVER, true)) * (gv * 2.0);
    }
}

impl Composite for BatchNormRelu {
    fn name(&self) -> &'static str {
        "batch_norm_relu"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if let Some(r) = x.get(3).filter(|r| **r != x[0]) {
            return Err(Error::misuse(format!("a residual {} {} would fit, not {}", x[0].dtype, x[0].shape, r.shape)));
        }
        BatchNorm { eps: self.eps }.infer(&x[..3])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let mut out = Tensor::try_compose(BatchNorm { eps: self.eps }, &x[..3])?;
        if let Some(residual) = x.get(3) {
            out[0] = out[0].try_add(residual)?;
        }
        out[0] = out[0].try_relu()?;
        Ok(out)
    }
    fn saves(&self) -> Saves {
        let saves = Saves::NOTHING.input(0).input(1).input(2);
        if self.residual { saves.output() } else { saves }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let op = BatchNormReluGrad { eps: self.eps, residual: self.residual };
        let (g, x, kept) = (cx.grad_or_zeros(0), cx.x(0), [cx.aux(0)?, cx.aux(1)?]);
        let mut inputs: Vec<Tensor> = [g, x.clone(), cx.x(1), cx.x(2)].into_iter().chain(kept).collect();
        if self.residual {
            inputs.push(cx.y_of(0));
        }
        let mut grads = Tensor::compose(op, &inputs.iter().collect::<Vec<_>>());
        of_statistics(cx, &x, &mut grads[0]);
        Some(grads.into_iter().map(Some).collect())
    }
}

impl Composite for BatchNormReluGrad {
    fn name(&self) -> &'static str {
        "batch_norm_relu_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(&x[1..6])?;
        if let Some(m) = x[..1].iter().chain(x.get(6)).find(|m| **m != x[1]) {
            return Err(Error::misuse(format!(
                "a gradient of {} {} would fit, not {}",
                x[1].dtype, x[1].shape, m.shape
            )));
        }
        let metas = smallvec![x[1], x[2], x[2], x[1]];
        Ok(if self.residual { metas } else { metas.into_iter().take(3).collect() })
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        // Where the output is positive does not change in the neighbourhood of the inputs: nothing is to be differentiated there.
        let y = match x.get(6) {
            Some(y) => y.detach(),
            None => Tensor::try_compose(BatchNorm { eps: self.eps }, &[x[1], x[2], x[3]])?.swap_remove(0).detach(),
        };
        let g = Tensor::try_compose1(UnaryGrad(UnaryOp::Relu), &[x[0], &y])?;
        let mut grads = Tensor::try_compose(BatchNormGrad { eps: self.eps }, &[&g, x[1], x[2], x[4], x[5]])?;
        if self.residual {
            grads.push(g);
        }
        Ok(grads)
    }
}

impl Composite for BatchNormGrad {
    fn name(&self) -> &'static str {
        "batch_norm_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(&x[1..])?;
        if x[0] != x[1] {
            return Err(Error::misuse(format!("a gradient of {} {} would fit", x[1].dtype, x[1].shape)));
        }
        Ok(smallvec![x[1], x[2], x[2]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, w) = (x[0], x[2]);
        let (_, var, centred) = statistics(x[1])?;
        let rstd = (var + self.eps).try_rsqrt()?;
        let hat = centred.try_mul(&rstd)?;
        // dx = w·rstd·(g − mean(g) − hat·mean(g·hat))
        let along = g.try_mul(&hat)?;
        let inner =
            g.try_sub(&g.try_mean_dims(&OVER, true)?)?.try_sub(&hat.try_mul(&along.try_mean_dims(&OVER, true)?)?)?;
        let dx = inner.try_mul(&rstd.try_mul(&column(w)?)?)?;
        Ok(smallvec![dx, along.try_sum_dims(&OVER, false)?, g.try_sum_dims(&OVER, false)?])
    }
}

impl Composite for ChannelAffine {
    fn name(&self) -> &'static str {
        "channel_affine"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(x)?;
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        Ok(smallvec![x[0].try_mul(&column(x[1])?)?.try_add(&column(x[2])?)?])
    }
}

/// x as `[batch, channels, places]`, for the function `op`.
pub(super) fn by_channel(x: &Tensor, op: &'static str) -> Result<Tensor> {
    if x.rank() < 2 {
        return Err(Error::misuse("needs an input [batch, channels, ..]").in_op(op, [(x.dtype(), *x.shape())]));
    }
    x.try_reshape([x.dims()[0], x.dims()[1], x.dims()[2..].iter().product()])
}

/// Runs a composite of x, w and b, where w and b are optional together: one that is missing becomes ones or zeros.
pub(super) fn with_affine<C: Composite>(
    op: C,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensors> {
    let channels = [x.dims()[1]];
    match (weight, bias) {
        (None, None) => Tensor::try_compose(op, &[x]),
        (Some(w), Some(b)) => Tensor::try_compose(op, &[x, w, b]),
        (Some(w), None) => Tensor::try_compose(op, &[x, w, &Tensor::try_zeros(channels, x.place())?]),
        (None, Some(b)) => Tensor::try_compose(op, &[x, &Tensor::try_ones(channels, x.place())?, b]),
    }
}

impl Tensor {
    crate::fallible! {
        /// (x − mean)/√(var + eps)·w + b for each channel (dimension 1), with the batch's own mean and biased variance, which are
        /// returned as well, `[channels]` each. ∂ by the fused backward. In PyTorch:
        /// `torch.nn.functional.batch_norm(training=True)`.
        ///
        /// A layer keeps running statistics from them: the unbiased variance is n/(n − 1) times the biased one, n the number of
        /// elements of a channel.
        pub fn batch_norm_train | try_batch_norm_train(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
            let mut out = with_affine(BatchNorm { eps }, &by_channel(self, "batch_norm")?, weight, bias)?;
            match (out.pop(), out.pop(), out.pop()) {
                (Some(var), Some(mean), Some(y)) => Ok((y.try_reshape(*self.shape())?, mean, var)),
                _ => Err(Error::misuse("batch_norm gave fewer than three outputs")),
            }
        }
        /// max(batch_norm_train(x) + residual, 0), in one pass where the device can, and the batch's mean and biased variance; without
        /// a residual, max(batch_norm_train(x), 0). ∂ by the fused backward.
        pub fn batch_norm_relu_train | try_batch_norm_relu_train(&self, weight: &Tensor, bias: &Tensor, residual: Option<&Tensor>, eps: f64) -> (Tensor, Tensor, Tensor) {
            let x = by_channel(self, "batch_norm")?;
            let op = BatchNormRelu { eps, residual: residual.is_some() };
            let mut out = match residual {
                None => Tensor::try_compose(op, &[&x, weight, bias])?,
                Some(r) => {
                    same_shape(self, r, "batch_norm_relu")?;
                    Tensor::try_compose(op, &[&x, weight, bias, &r.try_reshape(*x.shape())?])?
                }
            };
            match (out.pop(), out.pop(), out.pop()) {
                (Some(var), Some(mean), Some(y)) => Ok((y.try_reshape(*self.shape())?, mean, var)),
                _ => Err(Error::misuse("batch_norm gave fewer than three outputs")),
            }
        }
        /// (x − mean)/√(var + eps)·w + b for each channel (dimension 1), with given statistics, `[channels]` each. Of nothing
        /// it is nothing, whatever the shape. In PyTorch:
        /// `torch.nn.functional.batch_norm(training=False)`.
        pub fn batch_norm | try_batch_norm(&self, mean: &Tensor, var: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            if self.elements() == 0 {
                return Ok(self.clone());
            }
            let x = by_channel(self, "batch_norm")?;
            let rstd = var.try_binary_scalar(crate::ops::BinaryOp::Add, eps)?.try_rsqrt()?;
            let scale = weight.map_or(Ok(rstd.clone()), |w| rstd.try_mul(w))?;
            let back = mean.try_mul(&scale)?;
            let shift = bias.map_or_else(|| back.try_neg(), |b| b.try_sub(&back))?;
            Tensor::try_compose1(ChannelAffine, &[&x, &scale, &shift])?.try_reshape(*self.shape())
        }
    }
}
