//! What transformers are made of: attention, rotation by position, gates; and the composites of their gradients.

use super::networks::composed;
use super::{Entry, Fill, Input, input, reals};
use crate::error::Result;
use crate::functional::attention::{Attention, AttentionGrad, AttentionOptions};
use crate::functional::swiglu::SwiGluGrad;
use crate::rng::Key;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = attention();
    entries.push(attention_grad());
    entries.extend(swiglu());
    entries.push(rotary());
    entries
}

/// Queries, keys and values with these lengths.
fn heads(batch: usize, heads: usize, queries: usize, keys: usize, width: usize, values: usize) -> Vec<Input> {
    reals(&[&[batch, heads, queries, width], &[batch, heads, keys, width], &[batch, heads, keys, values]])
}

fn attend(x: &[Tensor], options: &AttentionOptions) -> Result<Tensor> {
    x[0].try_attention(&x[1], &x[2], options)
}

fn attention() -> Vec<Entry> {
    let entry =
        Entry::new("attention", "torch.nn.functional.scaled_dot_product_attention", "softmax(q·kᵀ·scale + mask)·v.");
    let masked = move |x: &[Tensor]| attend(x, &AttentionOptions::default().mask(&x[3]));
    let mask = |shape: &[usize], fill: Fill| vec![input(shape, fill)];
    let dropped =
        move |x: &[Tensor]| attend(x, &AttentionOptions::causal().dropout(0.3, Key::new(5).fold("attention")));
    vec![
        entry
            .one(heads(2, 2, 3, 4, 2, 3), |x| attend(x, &AttentionOptions::default()))
            .one(heads(1, 2, 4, 4, 3, 2), |x| attend(x, &AttentionOptions::causal().scale(0.7)))
            .one(heads(1, 2, 3, 5, 2, 2), |x| attend(x, &AttentionOptions::causal()))
            .one(reals(&[&[3, 2], &[4, 2], &[4, 2]]), |x| attend(x, &AttentionOptions::default()))
            .one(reals(&[&[2, 3, 2, 2], &[1, 3, 4, 2], &[3, 4, 2]]), |x| attend(x, &AttentionOptions::default()))
            .one([heads(2, 2, 3, 4, 2, 2), mask(&[3, 4], Fill::Bool)].concat(), masked)
            .one([heads(2, 2, 3, 4, 2, 2), mask(&[2, 1, 1, 4], Fill::Real(-2.0, 2.0))].concat(), masked)
            .one(reals(&[&[1, 4, 3, 2], &[1, 2, 3, 2], &[1, 2, 3, 2]]), |x| {
                attend(x, &AttentionOptions::default().grouped())
            })
            .one(heads(1, 2, 3, 3, 2, 2), dropped)
            .large(heads(3, 5, 70, 70, 16, 16), dropped)
            .large(heads(2, 3, 33, 130, 24, 8), |x| attend(x, &AttentionOptions::default())),
    ]
}

fn attention_grad() -> Entry {
    let plain = Attention { scale: 0.6, causal: true, dropout: None };
    let dropping = Attention { dropout: Some((0.3, Key::new(5))), ..plain.clone() };
    let entry = Entry::new(
        "attention_grad",
        "torch.ops.aten._scaled_dot_product_flash_attention_backward",
        "The gradients of attention with respect to queries, keys and values.",
    );
    [plain, dropping].into_iter().fold(entry, |entry, op| {
        let inputs = [reals(&[&[1, 2, 4, 2]]), heads(1, 2, 4, 4, 3, 2)].concat();
        entry.case(inputs, move |x| {
            // What forward keeps is a function of the inputs, which the definition works out for itself.
            let d: Vec<Tensor> = x.iter().map(Tensor::detach).collect();
            let y = Tensor::try_compose1(op.clone(), &[&d[1], &d[2], &d[3]])?;
            let seen = Tensor::try_ones([4, 4], x[0].place())?.try_tril(0)?.try_eq_scalar(0.0)?;
            let scores = (d[1].try_matmul(&d[2].try_t()?)? * op.scale).try_masked_fill(&seen, f64::NEG_INFINITY)?;
            let kept = scores.try_logsumexp(&[-1], false)?;
            composed(AttentionGrad(op.clone()), &[x[0].clone(), x[1].clone(), x[2].clone(), x[3].clone(), y, kept])
        })
    })
}

fn swiglu() -> Vec<Entry> {
    let (small, large): (&[usize], &[usize]) = (&[2, 3], &[301, 211]);
    vec![
        Entry::new("swiglu", "torch.nn.functional.silu(gate) * up", "silu(gate)·up.")
            .one(reals(&[small, small]), |x| x[0].try_swiglu(&x[1]))
            .large(reals(&[large, large]), |x| x[0].try_swiglu(&x[1])),
        Entry::new("swiglu_grad", "torch.ops.aten.silu_backward", "The gradients of swiglu.")
            .case(reals(&[small, small, small]), |x| composed(SwiGluGrad, x))
            .large(reals(&[large, large, large]), |x| composed(SwiGluGrad, x).map(|mut y| y.swap_remove(0))),
    ]
}

fn rotary() -> Entry {
    let doc = "Pairs of numbers turned by angles of their position.";
    Entry::new("rotary", "torchtune.modules.RotaryPositionalEmbeddings", doc)
        .one(reals(&[&[2, 3, 4], &[3, 2], &[3, 2]]), |x| x[0].try_rotary(&x[1], &x[2], false))
        .one(reals(&[&[3, 6], &[3, 2], &[3, 2]]), |x| x[0].try_rotary(&x[1], &x[2], true))
        .one(reals(&[&[2, 3, 5]]), |x| {
            // Angles that are not learnt.
            let angles = Tensor::try_arange(0, 6, 1, x[0].place())?.try_reshape([3, 2])?;
            x[0].try_rotary(&angles.try_cos()?, &angles.try_sin()?, true)
        })
        .large(reals(&[&[5, 60, 48], &[60, 20], &[60, 20]]), |x| x[0].try_rotary(&x[1], &x[2], false))
}
