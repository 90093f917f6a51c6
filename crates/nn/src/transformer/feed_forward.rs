//! What encoder and decoder layers share: blocks with a residual around them, and the feed-forward block.

use super::options::TransformerOptions;
use crate::{Cx, Dropout, Init, Layer, LayerNorm, Linear, MultiheadAttention, MultiheadOptions};
use gradus_core::{Result, Tensor};

/// A normalization and the block that it belongs to.
pub(super) type Normed<'a> = (&'a LayerNorm, &'a dyn Fn(&Tensor) -> Result<Tensor>);

/// For each block, x ← x + block(norm(x)) or, with the norms last, x ← norm(x + block(x)): a sum and the norm behind it in one pass.
pub(super) fn residuals(x: &Tensor, norm_first: bool, cx: &Cx, blocks: &[Normed<'_>]) -> Result<Tensor> {
    let mut x = x.clone();
    if !norm_first {
        for (norm, block) in blocks {
            x = norm.try_call_add(&block(&x)?, &x, cx)?.0;
        }
        return Ok(x);
    }
    let mut branch: Option<Tensor> = None;
    for (norm, block) in blocks {
        let normed = match &branch {
            None => norm.call(&x, cx),
            Some(branch) => {
                let (normed, sum) = norm.try_call_add(branch, &x, cx)?;
                x = sum;
                normed
            }
        };
        branch = Some(block(&normed)?);
    }
    branch.map_or(Ok(x.clone()), |branch| x.try_add(&branch))
}

/// dropout(linear2(dropout(activation(linear1(x))))).
pub(super) fn feed_forward(
    x: &Tensor,
    [linear1, linear2]: [&Linear; 2],
    [inner, outer]: [&Dropout; 2],
    options: &TransformerOptions,
    cx: &Cx,
) -> Result<Tensor> {
    let hidden = linear1.try_call_then(options.activation.op(), x, cx)?;
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
