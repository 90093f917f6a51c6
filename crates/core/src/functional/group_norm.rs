//! Group normalization (Wu & He, 2018) and instance normalization: layer normalization of parts of the channels.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

impl Tensor {
    crate::fallible! {
        /// (x − mean)/√(var + eps)·w + b of `[batch, channels, ..]`, with the mean and biased variance over each of `groups` groups
        /// of channels; w and b `[channels]`. ∂ by layer normalization's backward. In PyTorch: `torch.nn.functional.group_norm`.
        pub fn group_norm | try_group_norm(&self, groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Tensor {
            let e = |m: String| Error::misuse(m).in_op("group_norm", [(self.dtype(), *self.shape())]);
            if self.rank() < 2 {
                return Err(e("needs an input [batch, channels, ..]".into()));
            }
            let (n, c) = (self.dims()[0], self.dims()[1]);
            if groups == 0 || !c.is_multiple_of(groups) {
                return Err(e(format!("{c} channels do not fall into {groups} groups")));
            }
            let width = c / groups * self.dims()[2..].iter().product::<usize>();
            let y = self.try_reshape([n * groups, width])?.try_layer_norm([width], None, None, eps)?.try_reshape(*self.shape())?;
            by_channel(y, weight, bias, "group_norm")
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

/// y·w + b, w and b a number for each channel (dimension 1).
fn by_channel(mut y: Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, op: &'static str) -> Result<Tensor> {
    let mut shape = vec![1; y.rank()];
    shape[1] = y.dims()[1];
    let vector = |t: &Tensor| {
        if t.dims() != [shape[1]] {
            return Err(Error::misuse(format!("a weight or bias of [{}] would fit, not {}", shape[1], t.shape()))
                .in_op(op, [(y.dtype(), *y.shape())]));
        }
        t.try_reshape(&shape[1..])
    };
    let (w, b) = (weight.map(vector).transpose()?, bias.map(vector).transpose()?);
    if let Some(w) = w {
        y = y.try_mul(&w)?;
    }
    if let Some(b) = b {
        y = y.try_add(&b)?;
    }
    Ok(y)
}
