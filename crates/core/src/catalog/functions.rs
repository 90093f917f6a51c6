//! Products, softmax and its family, normalization, losses, triangles, checkpoints, and the composites of their gradients.

use super::{Entry, Fill, Input, input, reals};
use crate::autodiff::try_checkpoint;
use crate::composite::Composite;
use crate::error::Result;
use crate::functional::linear::LinearGrad;
use crate::functional::loss::{CrossEntropyOptions, Reduction};
use crate::functional::norm::LayerNormGrad;
use crate::functional::softmax::{LogSoftmaxGrad, SoftmaxGrad};
use crate::ops::UnaryOp;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = products();
    entries.extend(affine());
    entries.extend(softmax());
    entries.extend(normalization());
    entries.extend(losses());
    entries.extend(triangles());
    entries.extend(blocks());
    entries
}

fn products() -> Vec<Entry> {
    let matmul = |x: &[Tensor]| x[0].try_matmul(&x[1]);
    vec![
        Entry::new(
            "matmul",
            "torch.matmul",
            "The matrix product; leading dimensions broadcast, vectors are rows or columns.",
        )
        .one(reals(&[&[2, 3], &[3, 4]]), matmul)
        .one(reals(&[&[2, 2, 3], &[2, 3, 2]]), matmul)
        .one(reals(&[&[2, 2, 3], &[3, 2]]), matmul)
        .one(reals(&[&[2, 3], &[2, 3, 2]]), matmul)
        .one(reals(&[&[2, 1, 2, 3], &[2, 3, 2]]), matmul)
        .one(reals(&[&[3], &[3]]), matmul)
        .one(reals(&[&[3], &[3, 2]]), matmul)
        .one(reals(&[&[2, 3], &[3]]), matmul)
        .one(reals(&[&[2, 2, 3], &[3]]), matmul)
        .one(reals(&[&[3], &[2, 3, 2]]), matmul)
        .one(reals(&[&[2, 3]]), |x| x[0].try_matmul(&x[0].try_t()?))
        .one(reals(&[&[2, 0], &[0, 3]]), matmul)
        .large(reals(&[&[130, 97], &[97, 150]]), matmul)
        .large(reals(&[&[7, 40, 33], &[7, 33, 29]]), matmul),
        Entry::new("dot", "torch.dot", "The inner product of two vectors.")
            .one(reals(&[&[4], &[4]]), |x| x[0].try_dot(&x[1])),
        Entry::new("outer", "torch.outer", "Every product of an element of each vector.")
            .one(reals(&[&[3], &[2]]), |x| x[0].try_outer(&x[1])),
    ]
}

type Affine = fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>;

fn affine() -> Vec<Entry> {
    let rows: [(&'static str, &'static str, Affine); 4] = [
        ("linear", "x·Wᵀ + b.", |x, w, b| x.try_linear(w, b)),
        ("linear_relu", "max(x·Wᵀ + b, 0).", |x, w, b| x.try_linear_relu(w, b)),
        ("linear_tanh", "tanh(x·Wᵀ + b).", |x, w, b| x.try_linear_tanh(w, b)),
        ("linear_sigmoid", "sigmoid(x·Wᵀ + b).", |x, w, b| x.try_linear_sigmoid(w, b)),
    ];
    let grad = Entry::new("linear_grad", "torch.ops.aten.linear_backward", "The gradients of an affine map.")
        .case(reals(&[&[3, 2], &[3, 4], &[2, 4]]), composed(LinearGrad { activation: None, wanted: [true; 3] }))
        .case(
            reals(&[&[3, 2], &[3, 4], &[2, 4]]),
            composed(LinearGrad { activation: None, wanted: [true, true, false] }),
        )
        .case(reals(&[&[3, 2], &[3, 4], &[2, 4], &[3, 2]]), {
            composed(LinearGrad { activation: Some(UnaryOp::Tanh), wanted: [true, true, true] })
        })
        .case(reals(&[&[3, 2], &[3, 4], &[2, 4], &[3, 2]]), {
            composed(LinearGrad { activation: Some(UnaryOp::Gelu), wanted: [true, true, true] })
        });
    let then = [UnaryOp::Gelu, UnaryOp::GeluTanh, UnaryOp::Silu, UnaryOp::Relu, UnaryOp::Square].into_iter().fold(
        Entry::new("linear_then", "torch.nn.functional.linear", "f(x·Wᵀ + b)."),
        |entry, f| {
            let run = move |x: &[Tensor]| x[0].try_linear_then(&x[1], x.get(2), f);
            entry
                .one(reals(&[&[3, 4], &[2, 4], &[2]]), run)
                .one(reals(&[&[3, 4], &[2, 4]]), run)
                .large(reals(&[&[130, 97], &[150, 97], &[150]]), run)
        },
    );
    rows.into_iter()
        .map(|(name, doc, run)| {
            Entry::new(name, "torch.nn.functional.linear", doc)
                .one(reals(&[&[3, 4], &[2, 4], &[2]]), move |x| run(&x[0], &x[1], Some(&x[2])))
                .one(reals(&[&[3, 4], &[2, 4]]), move |x| run(&x[0], &x[1], None))
                .one(reals(&[&[2, 2, 4], &[3, 4], &[3]]), move |x| run(&x[0], &x[1], Some(&x[2])))
                .one(reals(&[&[4], &[3, 4], &[3]]), move |x| run(&x[0], &x[1], Some(&x[2])))
                .large(reals(&[&[130, 97], &[150, 97], &[150]]), move |x| run(&x[0], &x[1], Some(&x[2])))
        })
        .chain([then, grad])
        .collect()
}

/// A composite that is met as another's gradient, as a function of its own.
fn composed<C: Composite + Copy>(op: C) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static {
    move |x| Ok(Tensor::try_compose(op, &x.iter().collect::<Vec<_>>())?.into_iter().collect())
}

fn softmax() -> Vec<Entry> {
    vec![
        Entry::new("softmax", "torch.softmax", "e^xᵢ / Σ e^xⱼ along a dimension.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_softmax(1))
            .one(reals(&[&[4, 2, 2]]), |x| x[0].try_softmax(0))
            .one(reals(&[&[]]), |x| x[0].try_softmax(0))
            .large(reals(&[&[130, 601]]), |x| x[0].try_softmax(1))
            .large(reals(&[&[130, 601]]), |x| x[0].try_softmax(0)),
        Entry::new("log_softmax", "torch.log_softmax", "The logarithm of softmax.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_log_softmax(-1))
            .one(reals(&[&[4, 2, 2]]), |x| x[0].try_log_softmax(0))
            .large(reals(&[&[130, 601]]), |x| x[0].try_log_softmax(1)),
        Entry::new("softmin", "torch.nn.functional.softmin", "Softmax of −x.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_softmin(1)),
        Entry::new("softmax_grad", "torch._softmax_backward_data", "The gradient of softmax: y·(g − Σ g·y).")
            .case(reals(&[&[2, 5], &[2, 5]]), composed(SoftmaxGrad { dim: 1 }))
            .case(reals(&[&[3, 2, 2], &[3, 2, 2]]), composed(SoftmaxGrad { dim: 0 })),
        Entry::new("log_softmax_grad", "torch._log_softmax_backward_data", "The gradient of log-softmax: g − e^y·Σ g.")
            .case(reals(&[&[2, 5], &[2, 5]]), composed(LogSoftmaxGrad { dim: 1 }))
            .case(reals(&[&[3, 2, 2], &[3, 2, 2]]), composed(LogSoftmaxGrad { dim: 0 })),
    ]
}

fn normalization() -> Vec<Entry> {
    let norm = |x: &[Tensor]| x[0].try_layer_norm([x[0].dim(-1)], x.get(1), x.get(2), 1e-5);
    vec![
        Entry::new(
            "layer_norm",
            "torch.nn.functional.layer_norm",
            "(x − mean)/√(var + eps)·w + b over trailing dimensions.",
        )
        .one(reals(&[&[3, 5], &[5], &[5]]), |x| x[0].try_layer_norm([5], Some(&x[1]), Some(&x[2]), 1e-5))
        .one(reals(&[&[3, 5], &[5]]), |x| x[0].try_layer_norm([5], Some(&x[1]), None, 1e-5))
        .one(reals(&[&[3, 5], &[5]]), |x| x[0].try_layer_norm([5], None, Some(&x[1]), 1e-5))
        .one(reals(&[&[3, 5]]), |x| x[0].try_layer_norm([5], None, None, 0.1))
        .one(reals(&[&[2, 2, 3], &[2, 3], &[2, 3]]), |x| x[0].try_layer_norm([2, 3], Some(&x[1]), Some(&x[2]), 1e-3))
        .large(reals(&[&[301, 211], &[211], &[211]]), norm),
        Entry::new("add_layer_norm", "torch.nn.functional.layer_norm", "(layer_norm(x + residual), x + residual).")
            .case(reals(&[&[3, 5], &[3, 5], &[5], &[5]]), |x| {
                pair(x[0].try_add_layer_norm(&x[1], [5], Some(&x[2]), Some(&x[3]), 1e-5)?)
            })
            .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
                pair(x[0].try_add_layer_norm(&x[1], [5], Some(&x[2]), None, 1e-5)?)
            })
            .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
                pair(x[0].try_add_layer_norm(&x[1], [5], None, Some(&x[2]), 1e-5)?)
            })
            // Only one of the two is used further: the other's gradient does not arrive.
            .one(reals(&[&[2, 2, 3], &[2, 2, 3]]), |x| Ok(x[0].try_add_layer_norm(&x[1], [2, 3], None, None, 1e-3)?.0))
            .one(reals(&[&[3, 5], &[3, 5]]), |x| Ok(x[0].try_add_layer_norm(&x[1], [5], None, None, 1e-3)?.1))
            .large(reals(&[&[301, 211], &[301, 211], &[211], &[211]]), |x| {
                let (y, sum) = x[0].try_add_layer_norm(&x[1], [211], x.get(2), x.get(3), 1e-5)?;
                y.try_mul(&sum)
            }),
        Entry::new("layer_norm_grad", "torch.native_layer_norm_backward", "The gradients of layer normalization.")
            .case(reals(&[&[3, 5], &[3, 5], &[5]]), |x| {
                // The kept statistics are functions of x, which the definition works out for itself.
                let mean = x[1].detach().try_mean_dims(&[1], false)?;
                let rstd = (x[1].detach().try_var(&[1], 0, false)? + 1e-5).try_rsqrt()?;
                composed(LayerNormGrad { eps: 1e-5 })(&[x[0].clone(), x[1].clone(), x[2].clone(), mean, rstd])
            })
            .case(reals(&[&[3, 5], &[3, 5], &[5], &[3, 5]]), |x| {
                let mean = x[1].detach().try_mean_dims(&[1], false)?;
                let rstd = (x[1].detach().try_var(&[1], 0, false)? + 1e-5).try_rsqrt()?;
                let all = [&x[..3], &[mean, rstd], &x[3..]].concat();
                composed(LayerNormGrad { eps: 1e-5 })(&all)
            }),
    ]
}

fn pair((y, sum): (Tensor, Tensor)) -> Result<Vec<Tensor>> {
    Ok(vec![y, sum])
}

fn logits(rows: usize, classes: usize) -> Vec<Input> {
    vec![input(&[rows, classes], Fill::Real(-2.0, 2.0)), input(&[rows], Fill::Int(0, classes as i64))]
}

fn losses() -> Vec<Entry> {
    let plain = |x: &[Tensor]| x[0].try_cross_entropy(&x[1]);
    let mut with =
        Entry::new("cross_entropy_with", "torch.nn.functional.cross_entropy", "Cross-entropy with its options.");
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for smoothing in [0.0, 0.2] {
            let options = CrossEntropyOptions { ignore: 1, smoothing, reduction, ..Default::default() };
            let weighted = options.clone();
            with = with.one(logits(5, 4), move |x| x[0].try_cross_entropy_with(&x[1], &options)).one(
                [logits(5, 4), vec![input(&[4], Fill::Real(0.2, 2.0))]].concat(),
                move |x| {
                    x[0].try_cross_entropy_with(
                        &x[1],
                        &CrossEntropyOptions { weight: Some(x[2].clone()), ..weighted.clone() },
                    )
                },
            );
        }
    }
    vec![
        Entry::new(
            "cross_entropy",
            "torch.nn.functional.cross_entropy",
            "The mean cross-entropy of logits and class indices.",
        )
        .one(logits(4, 5), plain)
        .one(vec![input(&[2, 3, 2], Fill::Real(-2.0, 2.0)), input(&[2, 2], Fill::Int(0, 3))], plain)
        .one(vec![input(&[5], Fill::Real(-2.0, 2.0)), input(&[], Fill::Int(0, 5))], plain)
        .large(logits(601, 131), plain),
        with,
    ]
}

fn triangles() -> Vec<Entry> {
    vec![
        Entry::new("tril", "torch.tril", "The lower triangle.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_tril(0))
            .one(reals(&[&[2, 3, 3]]), |x| x[0].try_tril(-1)),
        Entry::new("triu", "torch.triu", "The upper triangle.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_triu(0))
            .one(reals(&[&[2, 3, 3]]), |x| x[0].try_triu(1)),
        Entry::new("trace", "torch.trace", "The sum of the main diagonal.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_trace()),
    ]
}

fn blocks() -> Vec<Entry> {
    let entry = Entry::new(
        "checkpoint",
        "torch.utils.checkpoint.checkpoint",
        "A block that keeps its inputs alone, and is run again.",
    );
    vec![
        entry
            .one(reals(&[&[2, 3], &[3, 2]]), |x| {
                let w = x[1].clone(); // flows in from outside, as a parameter does
                try_checkpoint(move |x| x[0].try_tanh()?.try_matmul(&w)?.try_sin(), &[&x[0]])
            })
            .one(reals(&[&[2, 3]]), |x| try_checkpoint(|x| x[0].try_mul(&x[1])?.try_exp(), &[&x[0], &x[0]])),
    ]
}
