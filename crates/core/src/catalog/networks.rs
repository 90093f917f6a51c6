//! Normalization over batches and groups, and the composites of its gradients; Einstein's summation.

use super::{Entry, Fill, input, reals};
use crate::composite::Composite;
use crate::error::{Error, Result};
use crate::functional::batch_norm::{BatchNormGrad, BatchNormRelu, BatchNormReluGrad};
use crate::functional::global_norm::GlobalNorm;
use crate::functional::group_norm::{GroupNormGrad, GroupNormReluGrad};
use crate::functional::newton_schulz::NewtonSchulzSum;
use crate::functional::rms_norm::RmsNormGrad;
use crate::functional::running_average::RunningAverage;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = batch_norm();
    entries.extend(batch_norm_relu());
    entries.push(newton_schulz());
    entries.push(running_average());
    entries.extend(group_norm());
    entries.push(global_norm());
    entries.push(all_finite());
    entries.push(einsum());
    entries
}

pub(super) fn composed<C: Composite>(op: C, x: &[Tensor]) -> Result<Vec<Tensor>> {
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

fn newton_schulz() -> Entry {
    Entry::new("newton_schulz_sum", "torch.addmm", "A sum of Muon's iteration.").case(reals(&[&[3, 2], &[3, 2]]), |x| {
        composed(NewtonSchulzSum { own: 3.4445, other: -4.775, halves: false }, x)
    })
}

fn running_average() -> Entry {
    Entry::new("running_average", "torch.lerp", "An average that follows new numbers.")
        .case(reals(&[&[3, 2], &[3, 2]]), |x| composed(RunningAverage { momentum: 0.1 }, x))
}

fn group_norm() -> Vec<Entry> {
    vec![
        Entry::new("group_norm", "torch.nn.functional.group_norm", "Normalization of groups of channels.")
            .one(reals(&[&[2, 4, 3], &[4], &[4]]), |x| x[0].try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3))
            .one(reals(&[&[2, 6]]), |x| x[0].try_group_norm(3, None, None, 1e-3))
            .one(reals(&[&[3, 4], &[4], &[4]]), |x| x[0].try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3))
            .one(reals(&[&[1, 4, 3, 7], &[4], &[4]]), |x| x[0].try_group_norm(1, Some(&x[1]), Some(&x[2]), 1e-3))
            .one(reals(&[&[2, 2, 19], &[2], &[2]]), |x| x[0].try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3))
            .one(reals(&[&[2, 4, 17], &[4]]), |x| x[0].try_group_norm(2, Some(&x[1]), None, 1e-3))
            .one(reals(&[&[2, 4, 3], &[4]]), |x| x[0].try_group_norm(2, None, Some(&x[1]), 1e-3))
            .one(reals(&[&[2, 2, 17]]), |x| x[0].try_group_norm(1, None, None, 1e-3))
            .large(reals(&[&[40, 12, 9, 11], &[12], &[12]]), |x| x[0].try_group_norm(3, Some(&x[1]), Some(&x[2]), 1e-5))
            .large(reals(&[&[130, 42, 3, 3], &[42], &[42]]), |x| x[0].try_group_norm(7, Some(&x[1]), Some(&x[2]), 1e-5))
            .large(reals(&[&[3, 2, 90, 111]]), |x| x[0].try_group_norm(1, None, None, 1e-5)),
        Entry::new("group_norm_grad", "torch.native_group_norm_backward", "The gradients of group normalization.")
            .case(reals(&[&[2, 4, 3], &[2, 4, 3], &[4]]), |x| group_norm_grad(&x[0], &x[1], Some(&x[2])))
            .case(reals(&[&[2, 2, 17], &[2, 2, 17], &[2]]), |x| group_norm_grad(&x[0], &x[1], Some(&x[2])))
            .case(reals(&[&[2, 4, 3], &[2, 4, 3]]), |x| group_norm_grad(&x[0], &x[1], None)),
        Entry::new("group_norm_relu", "torch.nn.functional.group_norm", "max(group_norm + residual, 0).")
            .one(reals(&[&[2, 4, 3], &[4], &[4]]), group_norm_relu)
            .one(reals(&[&[2, 4, 3, 6], &[4], &[4], &[2, 4, 3, 6]]), group_norm_relu)
            .one(reals(&[&[1, 2, 19], &[2], &[2]]), group_norm_relu)
            .large(reals(&[&[40, 12, 9, 11], &[12], &[12], &[40, 12, 9, 11]]), group_norm_relu)
            .large(reals(&[&[40, 12, 9, 11], &[12], &[12]]), group_norm_relu),
        Entry::new("group_norm_relu_grad", "torch.native_group_norm_backward", "The gradients of group_norm_relu.")
            .case(reals(&[&[2, 4, 3], &[2, 4, 3], &[4]]), |x| group_norm_relu_grad(x, true))
            .case(reals(&[&[2, 2, 17], &[2, 2, 17], &[2]]), |x| group_norm_relu_grad(x, true))
            .case(reals(&[&[2, 2, 17], &[2, 2, 17], &[2]]), |x| group_norm_relu_grad(x, false)),
        Entry::new(
            "instance_norm",
            "torch.nn.functional.instance_norm",
            "Normalization of each channel of each image.",
        )
        .one(reals(&[&[2, 3, 4], &[3], &[3]]), |x| x[0].try_instance_norm(Some(&x[1]), Some(&x[2]), 1e-3))
        .one(reals(&[&[2, 3, 17]]), |x| x[0].try_instance_norm(None, None, 1e-3)),
        Entry::new("rms_norm", "torch.nn.functional.rms_norm", "x/√(mean(x²) + eps)·w over trailing dimensions.")
            .one(reals(&[&[3, 5], &[5]]), |x| x[0].try_rms_norm([5], Some(&x[1]), Some(1e-3)))
            .one(reals(&[&[2, 2, 3]]), |x| x[0].try_rms_norm([2, 3], None, None))
            .large(reals(&[&[301, 211], &[211]]), |x| x[0].try_rms_norm([211], Some(&x[1]), Some(1e-5))),
        Entry::new("add_rms_norm", "torch.nn.functional.rms_norm", "(rms_norm(x + residual), x + residual).")
            .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
                let (y, sum) = x[0].try_add_rms_norm(&x[1], [5], Some(&x[2]), Some(1e-3))?;
                Ok(vec![y, sum])
            })
            .one(reals(&[&[2, 2, 3], &[2, 2, 3]]), |x| Ok(x[0].try_add_rms_norm(&x[1], [2, 3], None, None)?.0))
            .one(reals(&[&[3, 5], &[3, 5]]), |x| Ok(x[0].try_add_rms_norm(&x[1], [5], None, Some(1e-3))?.1))
            .large(reals(&[&[301, 211], &[301, 211], &[211]]), |x| {
                let (y, sum) = x[0].try_add_rms_norm(&x[1], [211], Some(&x[2]), Some(1e-5))?;
                y.try_mul(&sum)
            }),
        Entry::new(
            "rms_norm_grad",
            "torch.ops.aten._fused_rms_norm_backward",
            "The gradients of root-mean-square normalization.",
        )
        .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
            let rstd = (x[1].detach().try_square()?.try_mean_dims(&[1], false)? + 1e-3).try_rsqrt()?;
            composed(RmsNormGrad { eps: 1e-3 }, &[x[0].clone(), x[1].clone(), x[2].clone(), rstd])
        })
        .case(reals(&[&[3, 5], &[3, 5], &[5], &[3, 5]]), |x| {
            let rstd = (x[1].detach().try_square()?.try_mean_dims(&[1], false)? + 1e-3).try_rsqrt()?;
            composed(RmsNormGrad { eps: 1e-3 }, &[&x[..3], &[rstd], &x[3..]].concat())
        }),
    ]
}

/// In two groups. The kept statistics are functions of x, which the definition works out for itself.
fn group_norm_grad(g: &Tensor, x: &Tensor, w: Option<&Tensor>) -> Result<Vec<Tensor>> {
    let [mean, rstd] = statistics_of_groups(x)?;
    let inputs: Vec<Tensor> = [g, x, &mean, &rstd].into_iter().chain(w).cloned().collect();
    composed(GroupNormGrad { groups: 2, eps: 1e-3 }, &inputs)
}

/// The mean and rstd of two groups.
fn statistics_of_groups(x: &Tensor) -> Result<[Tensor; 2]> {
    let rows = match *x.dims() {
        [batch, channels, places] => x.detach().try_reshape([batch * 2, channels / 2 * places])?,
        _ => return Err(Error::misuse("is called with [batch, channels, places]")),
    };
    Ok([rows.try_mean_dims(&[1], false)?, (rows.try_var(&[1], 0, false)? + 1e-3).try_rsqrt()?])
}

/// In two groups.
fn group_norm_relu(x: &[Tensor]) -> Result<Tensor> {
    x[0].try_group_norm_relu(2, &x[1], &x[2], x.get(3), 1e-3)
}

/// Of g, x and w. The output tells where the gradient flows, and has no gradient of its own.
fn group_norm_relu_grad(x: &[Tensor], residual: bool) -> Result<Vec<Tensor>> {
    let [mean, rstd] = statistics_of_groups(&x[1])?;
    let y = group_norm_relu(&[x[1].detach(), x[2].detach(), &x[2].detach() * 0.3, x[1].detach() * -0.4])?;
    let inputs = [x[0].clone(), x[1].clone(), mean, rstd, x[2].clone(), y];
    composed(GroupNormReluGrad { groups: 2, eps: 1e-3, residual }, &inputs)
}

fn global_norm() -> Entry {
    Entry::new("global_norm", "torch.nn.utils.get_total_norm", "The 2-norm of several tensors as if they were one.")
        .one(reals(&[&[3, 4], &[5], &[2, 1, 2]]), |x| Tensor::try_global_norm(&x.iter().collect::<Vec<_>>()))
        .one(reals(&[&[]]), |x| Tensor::try_global_norm(&[&x[0]]))
        .case(reals(&[&[3, 4], &[1], &[5]]), |x| composed(GlobalNorm { factor: 0.3 }, x))
        .large(reals(&[&[190, 211], &[301]]), |x| Tensor::try_global_norm(&x.iter().collect::<Vec<_>>()))
}

fn all_finite() -> Entry {
    let none = Fill::Real(-2.0, 2.0);
    Entry::new("all_finite", "torch.amp.GradScaler.unscale_", "Whether all numbers of several tensors are finite.")
        .one(reals(&[&[3, 4], &[5], &[2, 1, 2]]), |x| Tensor::try_all_finite(&x.iter().collect::<Vec<_>>()))
        .one(vec![input(&[3, 4], none), input(&[5], Fill::Zeros(-1.0, 1.0))], |x| {
            Tensor::try_all_finite(&[&x[0], &x[1].try_reciprocal()?])
        })
        .large(reals(&[&[190, 211], &[301]]), |x| Tensor::try_all_finite(&x.iter().collect::<Vec<_>>()))
        .without_gradient()
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
