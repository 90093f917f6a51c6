//! Attention and transformers. PyTorch's masks of truth values say which keys may not be seen; Gradus's, which may.

use super::{Outcome, init};
use gradus_core::{DType, Error, Result, Tensor};
use gradus_nn::*;
use gradus_tests::golden_modules::{Arguments, Built, called};

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    Some(match name {
        "MultiheadAttention" => attention(a),
        "TransformerEncoderLayer" => encoder_layer(a),
        "TransformerDecoderLayer" => decoder_layer(a),
        "Transformer" => transformer(a),
        // Its constructor takes a module, which a file of goldens cannot hold: it is there without calls.
        "TransformerEncoder" => {
            options(a).and_then(|o| Ok(called(TransformerEncoder::try_new(o, 1, &mut init())?, |_, _, _| Ok(vec![]))))
        }
        _ => return None,
    })
}

/// A mask as Gradus has it.
fn seen(mask: Option<Tensor>) -> Result<Option<Tensor>> {
    mask.map(|m| if m.dtype() == DType::Bool { m.try_logical_not() } else { Ok(m) }).transpose()
}

/// `[batch·heads, queries, keys]` as `[batch, heads, queries, keys]`.
fn by_head(mask: Option<Tensor>, heads: usize) -> Result<Option<Tensor>> {
    mask.map(|m| match m.rank() {
        3 => m.try_reshape([m.dim(0) / heads, heads, m.dim(1), m.dim(2)]),
        _ => Ok(m),
    })
    .transpose()
}

fn mask(i: &Arguments<'_>, scores: &str, keys: &str, heads: usize) -> Result<AttentionMask> {
    let scores = by_head(seen(i.tensor(99, scores)?)?, heads)?;
    Ok(AttentionMask { scores, keys: seen(i.tensor(99, keys)?)?, causal: false })
}

/// Sequences as `[batch, length, width]`: PyTorch's default puts the batch second.
fn batched(x: &Tensor, batch_first: bool) -> Result<Tensor> {
    if batch_first || x.rank() < 3 { Ok(x.clone()) } else { x.try_transpose(0, 1) }
}

fn attention(a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let (width, heads) = (a.len(0, "embed_dim")?, a.len(1, "num_heads")?);
    let mut o = MultiheadOptions::new(width, heads).bias(a.flag(3, "bias", true)).dropout(a.number(2, "dropout", 0.0)?);
    o = o.key_value_widths(a.len_or(99, "kdim", width)?, a.len_or(99, "vdim", width)?);
    if a.flag(4, "add_bias_kv", false) {
        o = o.extra_key();
    }
    if a.flag(5, "add_zero_attn", false) {
        o = o.zero_key();
    }
    let batch_first = a.flag(99, "batch_first", false);
    Ok(called(MultiheadAttention::try_with(o, &mut init())?, move |l, i, cx| {
        let x = [i.x(0, "query")?, i.x(1, "key")?, i.x(2, "value")?];
        let [q, k, v] = [batched(&x[0], batch_first)?, batched(&x[1], batch_first)?, batched(&x[2], batch_first)?];
        let options = mask(i, "attn_mask", "key_padding_mask", heads)?.options()?;
        let (y, p) = l.attend_with_weights(&q, &k, &v, &options, cx);
        Ok(vec![batched(&y, batch_first)?, p.try_mean_dims(&[-3], false)?])
    }))
}

fn options(a: &Arguments<'_>) -> Result<TransformerOptions> {
    let o = TransformerOptions::new(a.len(0, "d_model")?, a.len(1, "nhead")?);
    shared_options(a, o.feed_forward(a.len_or(2, "dim_feedforward", 2048)?).dropout(a.number(3, "dropout", 0.1)?), 4)
}

fn shared_options(a: &Arguments<'_>, o: TransformerOptions, activation: usize) -> Result<TransformerOptions> {
    let o = match a.word(activation, "activation") {
        None | Some("relu") => o,
        Some("gelu") => o.activation(FeedForwardActivation::Gelu),
        Some(other) => return Err(Error::misuse(format!("no activation is called {other}"))),
    };
    Ok(o.eps(a.number(99, "layer_norm_eps", 1e-5)?)
        .norm_first(a.flag(99, "norm_first", false))
        .bias(a.flag(99, "bias", true)))
}

fn encoder_layer(a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let (o, batch_first) = (options(a)?, a.flag(99, "batch_first", false));
    Ok(called(TransformerEncoderLayer::try_new(o, &mut init())?, move |l, i, cx| {
        let x = batched(&i.x(0, "src")?, batch_first)?;
        let y = l.try_run(&x, &mask(i, "src_mask", "src_key_padding_mask", o.heads)?, cx)?;
        Ok(vec![batched(&y, batch_first)?])
    }))
}

fn decoder_layer(a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let (o, batch_first) = (options(a)?, a.flag(99, "batch_first", false));
    Ok(called(TransformerDecoderLayer::try_new(o, &mut init())?, move |l, i, cx| {
        let (x, memory) = (batched(&i.x(0, "tgt")?, batch_first)?, batched(&i.x(1, "memory")?, batch_first)?);
        let own = mask(i, "tgt_mask", "tgt_key_padding_mask", o.heads)?;
        let other = mask(i, "memory_mask", "memory_key_padding_mask", o.heads)?;
        Ok(vec![batched(&l.try_run(&x, &memory, &own, &other, cx)?, batch_first)?])
    }))
}

fn transformer(a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let o = TransformerOptions::new(a.len_or(0, "d_model", 512)?, a.len_or(1, "nhead", 8)?);
    let o = o.feed_forward(a.len_or(4, "dim_feedforward", 2048)?).dropout(a.number(5, "dropout", 0.1)?);
    let (o, batch_first) = (shared_options(a, o, 6)?, a.flag(99, "batch_first", false));
    let (encoders, decoders) = (a.len_or(2, "num_encoder_layers", 6)?, a.len_or(3, "num_decoder_layers", 6)?);
    Ok(called(Transformer::try_new(o, encoders, decoders, &mut init())?, move |l, i, cx| {
        let (source, target) = (batched(&i.x(0, "src")?, batch_first)?, batched(&i.x(1, "tgt")?, batch_first)?);
        let m = |scores: &str, keys: &str| mask(i, scores, keys, o.heads);
        let masks = [
            m("src_mask", "src_key_padding_mask")?,
            m("tgt_mask", "tgt_key_padding_mask")?,
            m("memory_mask", "memory_key_padding_mask")?,
        ];
        Ok(vec![batched(&l.run(&source, &target, [&masks[0], &masks[1], &masks[2]], cx), batch_first)?])
    }))
}
