//! What encoder and decoder layers share: blocks with a residual around them, and the feed-forward block.

use super::options::TransformerOptions;
use crate::{Cx, Dropout, Init, Layer, LayerNorm, Linear, MultiheadAttention, MultiheadOptions};
use gradus_core::{Result, Tensor};

/// x + block(norm(x)), or norm(x + block(x)).
pub(super) fn residual(
    x: &Tensor,
    norm: &LayerNorm,
    norm_first: bool,
    cx: &Cx,
    block: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    Ok(match norm_first {
        true => x.try_add(&block(&norm.call(x, cx))?)?,
        false => norm.call(&x.try_add(&block(x)?)?, cx),
    })
}

/// dropout(linear2(dropout(activation(linear1(x))))).
pub(super) fn feed_forward(
    x: &Tensor,
    [linear1, linear2]: [&Linear; 2],
    [inner, outer]: [&Dropout; 2],
    options: &TransformerOptions,
    cx: &Cx,
) -> Result<Tensor> {
    let hidden = options.activation.of(&linear1.call(x, cx))?;
    Ok(outer.call(&linear2.call(&inner.call(&hidden, cx), cx), cx))
}

pub(super) fn attention(o: &TransformerOptions, init: &mut Init) -> Result<MultiheadAttention> {
    MultiheadAttention::try_with(MultiheadOptions::new(o.width, o.heads).bias(o.bias).dropout(o.dropout), init)
}

pub(super) fn norm(o: &TransformerOptions, init: &mut Init) -> Result<LayerNorm> {
    Ok(LayerNorm::try_new(o.width, init)?.eps(o.eps).bias(o.bias))
}

pub(super) fn linear(inputs: usize, outputs: usize, o: &TransformerOptions, init: &mut Init) -> Result<Linear> {
    Ok(Linear::try_new(inputs, outputs, init)?.bias(o.bias))
}
