//! Group normalization (Wu & He, 2018), keeping its statistics for backward; instance normalization has a group for each channel.

use super::batch_norm::{by_channel, check, column, with_affine};
use super::norm::{LayerNorm, standardized, through_standardized};
use super::residual::{self, same_shape};
use crate::autodiff::{Grads, Vjp};
use crate::composite::{Composite, first};
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::ops::{UnaryGrad, UnaryOp};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// (x − mean)/√(var + eps)·w + b of `[batch, channels, places]`, with the mean and biased variance over each of `groups` groups of
/// neighbouring channels of an element of the batch. Inputs: x, w, b, the last two `[channels]` and optional together.
/// A fused kernel keeps mean and rstd, `[batch·groups]` each.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupNorm {
    /// How many groups the channels fall into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// The gradients of [`GroupNorm`] with respect to x and, if there is a w, to w and b. Inputs: g, x, the mean and rstd that forward
/// kept, which the definition computes anew from x, so that it can be differentiated, and w, which may be absent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupNormGrad {
    /// How many groups the channels fall into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

/// max([`GroupNorm`] of x + residual, 0): what stands between two convolutions, in one pass. Inputs: x, w, b, and the residual, like x,
/// which may be absent. A fused kernel keeps what that of [`GroupNorm`] does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupNormRelu {
    /// How many groups the channels fall into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a residual.
    pub residual: bool,
}

/// The gradients of [`GroupNormRelu`] with respect to x, w, b and the residual, if there is one. Inputs: g, x, the mean and rstd that
/// forward kept, w, and the output, which tells where the gradient flows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupNormReluGrad {
    /// How many groups the channels fall into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether there is a residual.
    pub residual: bool,
}

/// Checks that the channels of `[batch, channels, places]` fall into groups; gives how many groups the whole batch has.
fn all_groups(x: &Meta, groups: usize) -> Result<usize> {
    let channels = x.shape[1];
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::misuse(format!("{channels} channels do not fall into {groups} groups")));
    }
    Ok(x.shape[0] * groups)
}

/// x with a row for each group.
fn by_group(x: &Tensor, groups: usize) -> Result<Tensor> {
    x.try_reshape([x.dims()[0] * groups, x.dims()[1] / groups * x.dims()[2]])
}

impl Composite for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(x)?;
        all_groups(&x[0], self.groups)?;
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let rows = by_group(x[0], self.groups)?;
        let mut y = Tensor::try_compose1(LayerNorm { eps: self.eps }, &[&rows])?.try_reshape(*x[0].shape())?;
        if let [_, w, b] = x {
            y = y.try_mul(&column(w)?)?.try_add(&column(b)?)?;
        }
        Ok(smallvec![y])
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let (mean, rstd) = (cx.aux(0)?, cx.aux(1)?);
        let mut inputs = vec![cx.grad(), cx.x(0), mean, rstd];
        if cx.inputs() > 1 {
            inputs.push(cx.x(1));
        }
        let op = GroupNormGrad { groups: self.groups, eps: self.eps };
        Some(Tensor::compose(op, &inputs.iter().collect::<Vec<_>>()).into_iter().map(Some).collect())
    }
}

impl Composite for GroupNormGrad {
    fn name(&self) -> &'static str {
        "group_norm_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [g, values, mean, rstd, w @ ..] = x else {
            return Err(Error::misuse("needs g, x, a mean and an rstd, and perhaps a weight"));
        };
        check(&[&[*values], w].concat())?;
        let all = all_groups(values, self.groups)?;
        if g != values {
            return Err(Error::misuse(format!(
                "a gradient of {} {} would fit, not {} {}",
                values.dtype, values.shape, g.dtype, g.shape
            )));
        }
        if mean != rstd || mean.shape.dims() != [all] {
            return Err(Error::misuse(format!(
                "a mean and an rstd of [{all}] each would fit, not {} and {}",
                mean.shape, rstd.shape
            )));
        }
        Ok(if w.is_empty() { smallvec![*values] } else { smallvec![*values, w[0], w[0]] })
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, shape) = (x[0], *x[1].shape());
        let (centred, rstd) = standardized(&by_group(x[1], self.groups)?, self.eps)?;
        let hat = centred.try_mul(&rstd)?;
        let Some(w) = x.get(4) else {
            let dx = through_standardized(&by_group(g, self.groups)?, &hat, &rstd)?;
            return Ok(smallvec![dx.try_reshape(shape)?]);
        };
        let dhat = by_group(&g.try_mul(&column(w)?)?, self.groups)?;
        let dx = through_standardized(&dhat, &hat, &rstd)?.try_reshape(shape)?;
        let dw = g.try_mul(&hat.try_reshape(shape)?)?.try_sum_dims(&[0, 2], false)?;
        Ok(smallvec![dx, dw, g.try_sum_dims(&[0, 2], false)?])
    }
}

impl Composite for GroupNormRelu {
    fn name(&self) -> &'static str {
        "group_norm_relu"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Full
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if x.len() != if self.residual { 4 } else { 3 } {
            return Err(Error::misuse("needs x, a weight and a bias, and a residual if there is to be one"));
        }
        if let Some(residual) = x.get(3) {
            residual::check(&x[0], residual)?;
        }
        GroupNorm { groups: self.groups, eps: self.eps }.infer(&x[..3])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let mut y = Tensor::try_compose1(GroupNorm { groups: self.groups, eps: self.eps }, &[x[0], x[1], x[2]])?;
        if let Some(residual) = x.get(3) {
            y = y.try_add(residual)?;
        }
        Ok(smallvec![y.try_relu()?])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(0).input(1).output()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let op = GroupNormReluGrad { groups: self.groups, eps: self.eps, residual: self.residual };
        let grads = Tensor::compose(op, &[&cx.grad(), &cx.x(0), &cx.aux(0)?, &cx.aux(1)?, &cx.x(1), &cx.y()]);
        Some(grads.into_iter().map(Some).collect())
    }
}

impl Composite for GroupNormReluGrad {
    fn name(&self) -> &'static str {
        "group_norm_relu_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let [g, values, mean, rstd, w, y] = x else {
            return Err(Error::misuse("needs g, x, a mean and an rstd, a weight and the output"));
        };
        if y != values {
            return Err(Error::misuse(format!(
                "an output of {} {} would fit, not {} {}",
                values.dtype, values.shape, y.dtype, y.shape
            )));
        }
        let plain = GroupNormGrad { groups: self.groups, eps: self.eps };
        let mut metas = plain.infer(&[*g, *values, *mean, *rstd, *w])?;
        if self.residual {
            metas.push(*values);
        }
        Ok(metas)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        // Where the output is positive does not change in the neighbourhood of the inputs: nothing is to be differentiated there.
        let g = Tensor::try_compose1(UnaryGrad(UnaryOp::Relu), &[x[0], &x[5].detach()])?;
        let plain = GroupNormGrad { groups: self.groups, eps: self.eps };
        let mut grads = Tensor::try_compose(plain, &[&g, x[1], x[2], x[3], x[4]])?;
        if self.residual {
            grads.push(g);
        }
        Ok(grads)
    }
}

impl Tensor {
    crate::fallible! {
        /// (x − mean)/√(var + eps)·w + b of `[batch, channels, ..]`, with the mean and biased variance over each of `groups` groups
        /// of channels; w and b `[channels]`. ∂ by the fused backward. In PyTorch: `torch.nn.functional.group_norm`.
        pub fn group_norm | try_group_norm(&self, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            let y = with_affine(GroupNorm { groups, eps }, &by_channel(self, "group_norm")?, weight, bias);
            first("group_norm", y)?.try_reshape(*self.shape())
        }
        /// max(group_norm(x) + residual, 0), in one pass where the device can; without a residual, max(group_norm(x), 0). The residual has
        /// x's shape. ∂ by the fused backward.
        pub fn group_norm_relu | try_group_norm_relu(&self, groups: usize, weight: &Tensor, bias: &Tensor, residual: Option<&Tensor>, eps: f64) -> Tensor {
            let x = by_channel(self, "group_norm_relu")?;
            let op = GroupNormRelu { groups, eps, residual: residual.is_some() };
            let y = match residual {
                None => Tensor::try_compose1(op, &[&x, weight, bias])?,
                Some(r) => {
                    same_shape(self, r, "group_norm_relu")?;
                    Tensor::try_compose1(op, &[&x, weight, bias, &r.try_reshape(*x.shape())?])?
                }
            };
            y.try_reshape(*self.shape())
        }
        /// As [`group_norm`](Self::group_norm) with a group for each channel. In PyTorch: `torch.nn.functional.instance_norm`.
        pub fn instance_norm | try_instance_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            let channels = self.dims().get(1).copied().unwrap_or(1);
            if self.rank() > 2 && self.dims()[2..].iter().product::<usize>() == 1 {
                return Err(Error::misuse("statistics need more than one place for each channel").in_op("instance_norm", [(self.dtype(), *self.shape())]));
            }
            self.try_group_norm(channels.max(1), weight, bias, eps)
        }
    }
}
