//! Normalization over batches and groups, attention and Einstein's summation, and the composites of their gradients.

use super::{Entry, Fill, Input, input, reals};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::functional::attention::{Attention, AttentionGrad, AttentionOptions};
use crate::functional::batch_norm::{BatchNormGrad, BatchNormRelu, BatchNormReluGrad};
use crate::functional::global_norm::GlobalNorm;
use crate::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use crate::functional::lstm::{LstmStep, LstmStepGrad};
use crate::functional::lstm_sequence::{LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use crate::functional::rms_norm::RmsNormGrad;
use crate::functional::running_average::RunningAverage;
use crate::rng::Key;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = batch_norm();
    entries.extend(batch_norm_relu());
    entries.push(running_average());
    entries.extend(group_norm());
    entries.extend(attention());
    entries.push(attention_grad());
    entries.extend(lstm());
    entries.push(global_norm());
    entries.extend(lstm_sequence());
    entries.extend(gru_sequence());
    entries.push(einsum());
    entries
}

fn composed<C: Composite>(op: C, x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(Tensor::try_compose(op, &x.iter().collect::<Vec<_>>())?.into_iter().collect())
}

fn batch_norm() -> Vec<Entry> {
    let train = |x: &[Tensor]| {
        let (y, mean, var) = x[0].try_batch_norm_train(x.get(1), x.get(2), 1e-3)?;
        Ok(vec![y, mean, var])
    };
    let positive = |shape: &[usize]| input(shape, Fill::Real(0.5, 2.0));
    vec![
        Entry::new(
            "batch_norm_train",
            "torch.nn.functional.batch_norm(training=True)",
            "Normalization by the batch's own statistics.",
        )
        .case(reals(&[&[4, 3], &[3], &[3]]), train)
        .case(reals(&[&[2, 3, 2, 2], &[3], &[3]]), train)
        .case(reals(&[&[3, 2, 4]]), train)
        .large(reals(&[&[40, 13, 9, 11], &[13], &[13]]), move |x| Ok(train(x)?.swap_remove(0))),
        Entry::new(
            "batch_norm",
            "torch.nn.functional.batch_norm(training=False)",
            "Normalization by given statistics.",
        )
        .one([reals(&[&[2, 3, 4], &[3]]), vec![positive(&[3])], reals(&[&[3], &[3]])].concat(), |x| {
            x[0].try_batch_norm(&x[1], &x[2], Some(&x[3]), Some(&x[4]), 1e-3)
        })
        .one([reals(&[&[2, 3], &[3]]), vec![positive(&[3])]].concat(), |x| {
            x[0].try_batch_norm(&x[1], &x[2], None, None, 1e-3)
        }),
        Entry::new("batch_norm_grad", "torch.native_batch_norm_backward", "The gradients of batch normalization.")
            .case(reals(&[&[2, 3, 4], &[2, 3, 4], &[3]]), |x| {
                // The kept statistics are functions of x, which the definition works out for itself.
                let mean = x[1].detach().try_mean_dims(&[0, 2], false)?;
                let rstd = (x[1].detach().try_var(&[0, 2], 0, false)? + 1e-3).try_rsqrt()?;
                composed(BatchNormGrad { eps: 1e-3 }, &[x[0].clone(), x[1].clone(), x[2].clone(), mean, rstd])
            }),
    ]
}

fn batch_norm_relu() -> Vec<Entry> {
    let train = |x: &[Tensor]| {
        let (y, mean, var) = x[0].try_batch_norm_relu_train(&x[1], &x[2], x.get(3), 1e-3)?;
        Ok(vec![y, mean, var])
    };
    fn grad(x: &[Tensor], residual: bool) -> Result<Vec<Tensor>> {
        // As of `batch_norm_grad`. Bias and residual tell where the gradient flows, and have none of their own.
        let (d, w) = (x[1].detach(), x[2].detach());
        let mean = d.try_mean_dims(&[0, 2], false)?;
        let rstd = (d.try_var(&[0, 2], 0, false)? + 1e-3).try_rsqrt()?;
        let bias = &w * 0.3;
        let mut all = [&x[..3], &[bias.clone(), mean, rstd]].concat();
        if residual {
            let forward = BatchNormRelu { eps: 1e-3, residual };
            all.push(composed(forward, &[d.clone(), w, bias, d * -0.4])?.swap_remove(0));
        }
        composed(BatchNormReluGrad { eps: 1e-3, residual }, &all)
    }
    let large = |residual: bool| {
        let shapes: [&[usize]; 4] = [&[40, 13, 9, 11], &[13], &[13], &[40, 13, 9, 11]];
        reals(&shapes[..if residual { 4 } else { 3 }])
    };
    let (x, vector): (&[usize], &[usize]) = (&[2, 3, 4], &[3]);
    vec![
        Entry::new("batch_norm_relu_train", "torch.nn.intrinsic.BNReLU2d", "max(batch_norm_train + residual, 0).")
            .case(reals(&[&[4, 3], &[3], &[3]]), train)
            .case(reals(&[&[2, 3, 5, 4], &[3], &[3], &[2, 3, 5, 4]]), train)
            .large(large(false), move |x| Ok(train(x)?.swap_remove(0)))
            .large(large(true), move |x| Ok(train(x)?.swap_remove(0))),
        Entry::new("batch_norm_relu_grad", "torch.nn.intrinsic.BNReLU2d", "The gradients of batch_norm_relu_train.")
            .case(reals(&[x, x, vector]), |x| grad(x, false))
            .case(reals(&[&[2, 3, 20], &[2, 3, 20], vector]), |x| grad(x, false))
            .case(reals(&[&[2, 3, 20], &[2, 3, 20], vector]), |x| grad(x, true)),
    ]
}

fn running_average() -> Entry {
    Entry::new("running_average", "torch.lerp", "An average that follows new numbers.")
        .case(reals(&[&[3, 2], &[3, 2]]), |x| composed(RunningAverage { momentum: 0.1 }, x))
}

fn group_norm() -> Vec<Entry> {
    vec![
        Entry::new("group_norm", "torch.nn.functional.group_norm", "Normalization of groups of channels.")
            .one(reals(&[&[2, 4, 3], &[4], &[4]]), |x| x[0].try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3))
            .one(reals(&[&[2, 6]]), |x| x[0].try_group_norm(3, None, None, 1e-3)),
        Entry::new(
            "instance_norm",
            "torch.nn.functional.instance_norm",
            "Normalization of each channel of each image.",
        )
        .one(reals(&[&[2, 3, 4], &[3], &[3]]), |x| x[0].try_instance_norm(Some(&x[1]), Some(&x[2]), 1e-3)),
        Entry::new("rms_norm", "torch.nn.functional.rms_norm", "x/√(mean(x²) + eps)·w over trailing dimensions.")
            .one(reals(&[&[3, 5], &[5]]), |x| x[0].try_rms_norm([5], Some(&x[1]), Some(1e-3)))
            .one(reals(&[&[2, 2, 3]]), |x| x[0].try_rms_norm([2, 3], None, None))
            .large(reals(&[&[301, 211], &[211]]), |x| x[0].try_rms_norm([211], Some(&x[1]), Some(1e-5))),
        Entry::new(
            "rms_norm_grad",
            "torch.ops.aten._fused_rms_norm_backward",
            "The gradients of root-mean-square normalization.",
        )
        .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
            let rstd = (x[1].detach().try_square()?.try_mean_dims(&[1], false)? + 1e-3).try_rsqrt()?;
            composed(RmsNormGrad { eps: 1e-3 }, &[x[0].clone(), x[1].clone(), x[2].clone(), rstd])
        }),
    ]
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

fn lstm() -> Vec<Entry> {
    let gates: &[&[usize]] = &[&[3, 8], &[3, 8], &[3, 2]];
    let large: &[&[usize]] = &[&[67, 4 * 61], &[67, 4 * 61], &[67, 61]];
    fn with_grads<'a>(shapes: &[&'a [usize]]) -> Vec<&'a [usize]> {
        [shapes, &shapes[2..], &shapes[2..]].concat()
    }
    vec![
        Entry::new(
            "lstm_step",
            "torch.ops.aten._thnn_fused_lstm_cell",
            "An LSTM's next h and c from its gates (i, f, g, o, of the input and of h) and c.",
        )
        .case(reals(gates), |x| composed(LstmStep, x))
        .case(reals(&[&[12], &[12], &[3]]), |x| composed(LstmStep, x))
        .large(reals(large), |x| composed(LstmStep, x).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "lstm_step_grad",
            "torch.ops.aten._thnn_fused_lstm_cell_backward",
            "The gradients of an LSTM's step with respect to its gates and c.",
        )
        .case(reals(&with_grads(gates)), |x| composed(LstmStepGrad, x))
        .large(reals(&with_grads(large)), |x| composed(LstmStepGrad, x).map(|mut y| y.swap_remove(0))),
    ]
}

fn global_norm() -> Entry {
    Entry::new("global_norm", "torch.nn.utils.get_total_norm", "The 2-norm of several tensors as if they were one.")
        .case(reals(&[&[3, 4], &[5], &[2, 1, 2]]), |x| composed(GlobalNorm, x))
        .case(reals(&[&[]]), |x| composed(GlobalNorm, x))
        .large(reals(&[&[190, 211], &[301]]), |x| composed(GlobalNorm, x).map(|mut y| y.swap_remove(0)))
}

/// The length of the last dimension.
fn width(x: &Tensor) -> Result<usize> {
    x.dims().last().copied().ok_or_else(|| Error::misuse("a state has a width"))
}

fn lstm_sequence() -> Vec<Entry> {
    // Steps, batch, inputs and width.
    fn inputs([t, b, i, n]: [usize; 4]) -> Vec<Input> {
        reals(&[&[t, b, i], &[4 * n, i], &[4 * n], &[4 * n, n], &[b, n], &[b, n]])
    }
    fn with_grads(sizes: [usize; 4]) -> Vec<Input> {
        let [t, b, _, n] = sizes;
        [inputs(sizes), reals(&[&[t, b, n], &[b, n]])].concat()
    }
    /// What forward keeps is a function of the inputs, which the definition works out for itself.
    fn grad(x: &[Tensor], reverse: bool) -> Result<Vec<Tensor>> {
        let [gates, w, mut h, mut c] = [
            x[0].detach().try_linear(&x[1].detach(), Some(&x[2].detach()))?,
            x[3].detach().try_t()?,
            x[4].detach(),
            x[5].detach(),
        ];
        let (gates, n) = (gates.try_unbind(0)?, width(&x[4])? as isize);
        let (mut activations, mut cells) = (Vec::new(), Vec::new());
        for i in 0..gates.len() {
            let s = gates[if reverse { gates.len() - 1 - i } else { i }].try_add(&h.try_matmul(&w)?)?;
            let part = |from: isize, to: isize| s.try_narrow(1, (from * n) as usize, ((to - from) * n) as usize);
            let (sigmoid, tanh, out) =
                (part(0, 2)?.try_sigmoid()?, part(2, 3)?.try_tanh()?, part(3, 4)?.try_sigmoid()?);
            let mut next = Tensor::try_compose(LstmStep, &[&s, &Tensor::try_zeros(*s.shape(), s.place())?, &c])?;
            c = next.swap_remove(1);
            h = next.swap_remove(0);
            activations.push(Tensor::try_cat(&[&sigmoid, &tanh, &out], 1)?);
            cells.push(c.clone());
        }
        let stacked = |all: Vec<Tensor>| Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0);
        composed(LstmSequenceGrad { reverse }, &[x.to_vec(), vec![stacked(activations)?, stacked(cells)?]].concat())
    }
    /// The three gradients as one vector, which depends on every input.
    fn all_weights(x: &[Tensor], reverse: bool) -> Result<Tensor> {
        let all = composed(LstmWeightGrad { reverse }, x)?;
        let flat = all.iter().map(|t| t.try_reshape([t.elements()])).collect::<Result<Vec<_>>>()?;
        Tensor::try_cat(&flat.iter().collect::<Vec<_>>(), 0)
    }
    let gradients = |[t, b, i, n]: [usize; 4]| reals(&[&[t, b, 4 * n], &[t, b, i], &[t, b, n], &[b, n]]);
    vec![
        Entry::new("lstm_sequence", "torch.ops.aten.lstm", "All steps of an LSTM: h of all steps, and the last c.")
            .case(inputs([3, 2, 3, 2]), |x| composed(LstmSequence { reverse: false }, x))
            .case(inputs([2, 1, 1, 3]), |x| composed(LstmSequence { reverse: true }, x))
            .large(inputs([5, 67, 3, 37]), |x| {
                composed(LstmSequence { reverse: true }, x).map(|mut y| y.swap_remove(0))
            })
            .large(inputs([4, 33, 40, 32]), |x| {
                composed(LstmSequence { reverse: false }, x).map(|mut y| y.swap_remove(1))
            })
            .large(inputs([2, 9, 1100, 32]), |x| {
                composed(LstmSequence { reverse: false }, x).map(|mut y| y.swap_remove(0))
            }),
        Entry::new(
            "lstm_sequence_grad",
            "torch.ops.aten._thnn_fused_lstm_cell_backward",
            "The gradients of all steps of an LSTM with respect to its gates, and the first h and c.",
        )
        .case(with_grads([2, 2, 1, 2]), |x| grad(x, false))
        .case(with_grads([2, 1, 2, 2]), |x| grad(x, true))
        .large(with_grads([3, 67, 2, 37]), |x| grad(x, false).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "lstm_weight_grad",
            "torch.ops.aten.lstm_backward",
            "The gradients of an LSTM's weights from those of all steps' gates.",
        )
        .case(gradients([3, 2, 3, 2]), |x| composed(LstmWeightGrad { reverse: false }, x))
        .case(gradients([2, 1, 1, 2]), |x| composed(LstmWeightGrad { reverse: true }, x))
        .large(gradients([5, 67, 3, 37]), |x| all_weights(x, true))
        .large(gradients([4, 33, 40, 32]), |x| all_weights(x, false))
        .large(gradients([6, 50, 5, 16]), |x| all_weights(x, true)),
    ]
}

fn gru_sequence() -> Vec<Entry> {
    fn inputs(t: usize, b: usize, n: usize) -> Vec<Input> {
        reals(&[&[t, b, 3 * n], &[3 * n, n], &[b, n], &[3 * n]])
    }
    /// As an LSTM's; the states after the steps are among the inputs too.
    fn grad(x: &[Tensor], reverse: bool) -> Result<Vec<Tensor>> {
        let (gates, mut h, n) = (x[0].detach().try_unbind(0)?, x[2].detach(), width(&x[2])?);
        let (w, b) = (x[1].detach(), x[3].detach());
        let (mut kept, mut states) = (Vec::new(), Vec::new());
        for i in 0..gates.len() {
            let gx = &gates[if reverse { gates.len() - 1 - i } else { i }];
            let gh = h.try_linear(&w, Some(&b))?;
            let r_z = gx.try_narrow(1, 0, 2 * n)?.try_add(&gh.try_narrow(1, 0, 2 * n)?)?.try_sigmoid()?;
            let part = gh.try_narrow(1, 2 * n, n)?;
            let (r, z) = (r_z.try_narrow(1, 0, n)?, r_z.try_narrow(1, n, n)?);
            let new = gx.try_narrow(1, 2 * n, n)?.try_add(&r.try_mul(&part)?)?.try_tanh()?;
            h = new.try_add(&z.try_mul(&h.try_sub(&new)?)?)?;
            kept.push(Tensor::try_cat(&[&r_z, &new, &part], 1)?);
            states.push(h.clone());
        }
        if reverse {
            states.reverse();
        }
        let stacked = |all: Vec<Tensor>| Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0);
        let mut all = x[..4].to_vec();
        all.extend([stacked(states)?, x[4].clone(), stacked(kept)?]);
        composed(GruSequenceGrad { reverse }, &all)
    }
    let with_grad = |t, b, n| [inputs(t, b, n), reals(&[&[t, b, n]])].concat();
    vec![
        Entry::new("gru_sequence", "torch.ops.aten.gru", "All steps of a GRU from the gates of its inputs.")
            .case(inputs(3, 2, 2), |x| composed(GruSequence { reverse: false }, x))
            .case(inputs(2, 1, 3), |x| composed(GruSequence { reverse: true }, x))
            .large(inputs(5, 67, 37), |x| composed(GruSequence { reverse: true }, x).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "gru_sequence_grad",
            "torch.ops.aten._thnn_fused_gru_cell_backward",
            "The gradients of all steps of a GRU with respect to the gates of its inputs and of h, and the first h.",
        )
        .case(with_grad(2, 2, 2), |x| grad(x, false))
        .case(with_grad(2, 1, 2), |x| grad(x, true))
        .large(with_grad(3, 67, 37), |x| grad(x, false).map(|mut y| y.swap_remove(1))),
    ]
}

fn einsum() -> Entry {
    let rows: [(&'static str, &'static [&'static [usize]]); 15] = [
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("ij,jk", &[&[2, 3], &[3, 4]]),
        ("bij,bkj->bik", &[&[2, 2, 3], &[2, 4, 3]]),
        ("ii", &[&[3, 3]]),
        ("ii->i", &[&[3, 3]]),
        ("iji->j", &[&[2, 3, 2]]),
        ("ij->ji", &[&[2, 3]]),
        ("i,j->ij", &[&[2], &[3]]),
        ("i,i->", &[&[4], &[4]]),
        ("...ij,...jk->...ik", &[&[2, 2, 3], &[1, 3, 2]]),
        ("b...,b...->...", &[&[2, 3, 2], &[2, 3, 2]]),
        ("bhqd,bhkd->bhqk", &[&[2, 2, 3, 2], &[2, 2, 2, 2]]),
        ("ij,jk,kl->il", &[&[2, 3], &[3, 2], &[2, 2]]),
        ("ab,cb->ca", &[&[2, 3], &[4, 1]]),
        ("i,ij,j", &[&[2], &[2, 3], &[3]]),
    ];
    rows.into_iter().fold(
        Entry::new("einsum", "torch.einsum", "Products of named dimensions, summed over those that the result lacks."),
        |entry, (spec, shapes)| {
            entry.one(reals(shapes), move |x| Tensor::try_einsum(spec, &x.iter().collect::<Vec<_>>()))
        },
    )
}
