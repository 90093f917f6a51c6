//! Convolution, pooling and resizing, and the composites of their gradients.

use super::{Entry, Fill, Input, input, reals, spreads};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::Result;
use crate::functional::conv::{Conv, ConvWeightGrad};
use crate::functional::convolution::ConvOptions;
use crate::functional::interpolate::{InterpolateMode, InterpolateOptions};
use crate::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use crate::functional::pooling::PoolOptions;
use crate::functional::window::Window;
use crate::ops::UnaryOp;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = convolutions();
    entries.extend(with_activations());
    entries.extend(transposed());
    entries.extend(gradients());
    entries.extend(pools());
    entries.extend(adaptive());
    entries.extend(resizing());
    entries
}

fn convolutions() -> Vec<Entry> {
    let doc = "The convolution with a weight and a bias.";
    let plain = |x: &[Tensor]| x[0].try_conv2d(&x[1], x.get(2), &ConvOptions::default());
    vec![
        Entry::new("conv1d", "torch.nn.functional.conv1d", doc)
            .one(reals(&[&[2, 3, 6], &[4, 3, 3], &[4]]), |x| {
                x[0].try_conv1d(&x[1], Some(&x[2]), &ConvOptions::default())
            })
            .one(reals(&[&[2, 4, 7], &[2, 2, 2]]), |x| {
                x[0].try_conv1d(&x[1], None, &ConvOptions::default().stride(2).padding(1).dilation(2).groups(2))
            })
            .one(reals(&[&[2, 5], &[3, 2, 4], &[3]]), |x| {
                x[0].try_conv1d(&x[1], Some(&x[2]), &ConvOptions::default().same())
            }),
        Entry::new("conv2d", "torch.nn.functional.conv2d", doc)
            .one(reals(&[&[2, 2, 4, 5], &[3, 2, 2, 3], &[3]]), plain)
            .one(reals(&[&[1, 2, 4, 4], &[2, 2, 3, 3]]), |x| {
                x[0].try_conv2d(&x[1], None, &ConvOptions::default().stride([2, 1]).padding([1, 2]).dilation([1, 2]))
            })
            .one(reals(&[&[2, 4, 3, 3], &[4, 1, 2, 2], &[4]]), |x| {
                x[0].try_conv2d(&x[1], Some(&x[2]), &ConvOptions::default().padding(1).groups(4))
            })
            .one(reals(&[&[2, 3, 2, 3], &[2, 3, 1, 1], &[2]]), plain)
            .large(reals(&[&[9, 5, 23, 19], &[37, 5, 3, 3], &[37]]), plain)
            .large(reals(&[&[70, 16, 12, 12], &[16, 16, 3, 3]]), |x| {
                x[0].try_conv2d(&x[1], None, &ConvOptions::default().padding(1).stride(2))
            }),
        Entry::new("conv3d", "torch.nn.functional.conv3d", doc)
            .one(reals(&[&[1, 2, 3, 3, 2], &[2, 2, 2, 2, 1], &[2]]), |x| {
                x[0].try_conv3d(&x[1], Some(&x[2]), &ConvOptions::default())
            })
            .one(reals(&[&[1, 2, 3, 3, 3], &[2, 1, 2, 2, 2]]), |x| {
                x[0].try_conv3d(&x[1], None, &ConvOptions::default().stride([1, 2, 2]).padding([0, 1, 1]).groups(2))
            }),
    ]
}

/// Convolutions with an activation behind, by every path of a device's kernels.
fn with_activations() -> Vec<Entry> {
    let fs = [UnaryOp::Relu, UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Gelu];
    let (doc, plain) = ("f(y) of the convolution.", ConvOptions::default());
    let mut conv1d = Entry::new("conv1d_then", "torch.nn.functional.conv1d", doc);
    let mut conv2d = Entry::new("conv2d_then", "torch.nn.functional.conv2d", doc);
    let mut conv3d = Entry::new("conv3d_then", "torch.nn.functional.conv3d", doc);
    let doc = "f(y) of the transposed convolution.";
    let mut transposed1d = Entry::new("conv_transpose1d_then", "torch.nn.functional.conv_transpose1d", doc);
    let mut transposed2d = Entry::new("conv_transpose2d_then", "torch.nn.functional.conv_transpose2d", doc);
    let mut transposed3d = Entry::new("conv_transpose3d_then", "torch.nn.functional.conv_transpose3d", doc);
    for f in fs {
        conv1d = conv1d
            .one(reals(&[&[2, 3, 6], &[4, 3, 3], &[4]]), move |x| x[0].try_conv1d_then(&x[1], Some(&x[2]), &plain, f));
        let run = move |x: &[Tensor]| x[0].try_conv2d_then(&x[1], x.get(2), &plain, f);
        conv2d = conv2d
            .one(reals(&[&[2, 2, 4, 3], &[3, 2, 2, 3], &[3]]), run)
            .one(reals(&[&[2, 2, 3], &[2, 2, 1, 2]]), run)
            .one(reals(&[&[2, 3, 3, 3], &[3, 1, 2, 2], &[3]]), move |x| {
                x[0].try_conv2d_then(&x[1], Some(&x[2]), &plain.padding(1).groups(3), f)
            })
            .large(reals(&[&[9, 5, 23, 19], &[37, 5, 3, 3], &[37]]), run)
            .large(reals(&[&[9, 16, 12, 12], &[24, 16, 3, 3], &[24]]), run);
        conv3d = conv3d.one(reals(&[&[1, 2, 2, 3, 2], &[2, 2, 2, 2, 1], &[2]]), move |x| {
            x[0].try_conv3d_then(&x[1], Some(&x[2]), &plain, f)
        });
        transposed1d = transposed1d.one(reals(&[&[2, 3, 4], &[3, 2, 3], &[2]]), move |x| {
            x[0].try_conv_transpose1d_then(&x[1], Some(&x[2]), &plain, f)
        });
        transposed2d = transposed2d.one(reals(&[&[1, 2, 3, 2], &[2, 2, 1, 2], &[2]]), move |x| {
            x[0].try_conv_transpose2d_then(&x[1], Some(&x[2]), &plain.stride(2), f)
        });
        transposed3d = transposed3d.one(reals(&[&[1, 2, 2, 2, 1], &[2, 1, 2, 1, 2], &[1]]), move |x| {
            x[0].try_conv_transpose3d_then(&x[1], Some(&x[2]), &plain, f)
        });
    }
    vec![conv1d, conv2d, conv3d, transposed1d, transposed2d, transposed3d]
}

fn transposed() -> Vec<Entry> {
    let doc = "The transposed convolution: the adjoint of the convolution.";
    vec![
        Entry::new("conv_transpose1d", "torch.nn.functional.conv_transpose1d", doc)
            .one(reals(&[&[2, 3, 4], &[3, 2, 3], &[2]]), |x| {
                x[0].try_conv_transpose1d(&x[1], Some(&x[2]), &ConvOptions::default())
            })
            .one(reals(&[&[1, 4, 3], &[4, 1, 3]]), |x| {
                x[0].try_conv_transpose1d(
                    &x[1],
                    None,
                    &ConvOptions::default().stride(3).padding(1).output_padding(2).groups(2),
                )
            }),
        Entry::new("conv_transpose2d", "torch.nn.functional.conv_transpose2d", doc)
            .one(reals(&[&[1, 2, 3, 2], &[2, 2, 2, 3], &[2]]), |x| {
                x[0].try_conv_transpose2d(
                    &x[1],
                    Some(&x[2]),
                    &ConvOptions::default().stride(2).padding([0, 1]).output_padding([1, 0]),
                )
            })
            .one(reals(&[&[2, 3, 3], &[2, 1, 2, 2]]), |x| {
                x[0].try_conv_transpose2d(&x[1], None, &ConvOptions::default().dilation(2))
            })
            .large(reals(&[&[9, 37, 11, 9], &[37, 5, 3, 3], &[5]]), |x| {
                x[0].try_conv_transpose2d(
                    &x[1],
                    Some(&x[2]),
                    &ConvOptions::default().stride(2).padding(1).output_padding(1),
                )
            }),
        Entry::new("conv_transpose3d", "torch.nn.functional.conv_transpose3d", doc)
            .one(reals(&[&[1, 2, 2, 2, 2], &[2, 1, 2, 1, 2], &[1]]), |x| {
                x[0].try_conv_transpose3d(&x[1], Some(&x[2]), &ConvOptions::default().stride([2, 1, 1]))
            }),
    ]
}

/// Windows of 2×2 on 5×4 places, 2 and 1 apart, with padding before.
const WINDOW: Window = Window {
    rank: 2,
    input: [5, 4, 1],
    output: [3, 4, 1],
    size: [2, 2, 1],
    stride: [2, 1, 1],
    before: [0, 1, 0],
    dilation: [1, 1, 1],
};

fn composed<C: Composite + Copy>(op: C) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static {
    move |x| Ok(Tensor::try_compose(op, &x.iter().collect::<Vec<_>>())?.into_iter().collect())
}

fn gradients() -> Vec<Entry> {
    let conv = |groups| Conv { window: WINDOW, groups };
    let places = |x: &Tensor| x.try_to_dtype(DType::U8);
    let mean = AvgPool { window: WINDOW, after: [0; 3], count_padding: false };
    vec![
        Entry::new(
            "conv_weight_grad",
            "torch.nn.grad.conv2d_weight",
            "The gradient of a convolution with respect to weight and bias.",
        )
        .case(reals(&[&[2, 2, 5, 4], &[2, 3, 3, 4]]), composed(ConvWeightGrad { conv: conv(1), bias: true }))
        .case(reals(&[&[2, 2, 5, 4], &[2, 4, 3, 4]]), composed(ConvWeightGrad { conv: conv(2), bias: false }))
        .large(reals(&[&[70, 5, 5, 4], &[70, 37, 3, 4]]), move |x| {
            Tensor::try_compose1(ConvWeightGrad { conv: conv(1), bias: false }, &[&x[0], &x[1]])
        }),
        Entry::new(
            "max_pool_grad",
            "torch.ops.aten.max_pool2d_with_indices_backward",
            "Gradients added to the places that maxima came from.",
        )
        .one(
            vec![input(&[2, 2, 3, 4], Fill::Real(-2.0, 2.0)), input(&[2, 2, 3, 4], Fill::Int(3, 4))],
            move |x| {
                let window = Window { input: [6, 4, 1], ..WINDOW };
                Tensor::try_compose1(MaxPoolGrad(window), &[&x[0], &places(&x[1])?])
            },
        ),
        Entry::new("avg_pool_grad", "torch.ops.aten.avg_pool2d_backward", "Gradients shared by the places of means.")
            .case(reals(&[&[2, 2, 3, 4]]), composed(AvgPoolGrad(mean))),
    ]
}

fn distinct(shape: &[usize]) -> Vec<Input> {
    spreads(&[shape])
}

fn pools() -> Vec<Entry> {
    let max = "The largest of each window.";
    let at = "The largest of each window, and where it was.";
    let avg = "The mean of each window.";
    let o = PoolOptions::new;
    let both = |(a, b): (Tensor, Tensor)| vec![a, b];
    vec![
        Entry::new("max_pool1d", "torch.nn.functional.max_pool1d", max)
            .one(distinct(&[2, 2, 7]), move |x| x[0].try_max_pool1d(&o(2)))
            .one(distinct(&[2, 7]), move |x| x[0].try_max_pool1d(&o(3).stride(2).padding(1).ceil_mode(true))),
        Entry::new("max_pool2d", "torch.nn.functional.max_pool2d", max)
            .one(distinct(&[2, 2, 4, 4]), move |x| x[0].try_max_pool2d(&PoolOptions::new(2)))
            .one(distinct(&[1, 2, 5, 6]), |x| {
                x[0].try_max_pool2d(&PoolOptions::new([3, 2]).stride([2, 1]).padding(1).dilation([1, 2]))
            })
            .one(distinct(&[1, 1, 5, 5]), |x| x[0].try_max_pool2d(&PoolOptions::new(2).ceil_mode(true)))
            .large(distinct(&[19, 31, 14, 14]), |x| x[0].try_max_pool2d(&PoolOptions::new(2))),
        Entry::new("max_pool3d", "torch.nn.functional.max_pool3d", max)
            .one(distinct(&[1, 2, 3, 4, 2]), |x| x[0].try_max_pool3d(&PoolOptions::new([2, 2, 1]).stride(1))),
        Entry::new("max_pool1d_with_indices", "torch.nn.functional.max_pool1d(return_indices=True)", at)
            .case(distinct(&[2, 2, 6]), move |x| {
                Ok(both(x[0].try_max_pool1d_with_indices(&PoolOptions::new(3).stride(1))?))
            }),
        Entry::new("max_pool2d_with_indices", "torch.nn.functional.max_pool2d(return_indices=True)", at)
            .case(distinct(&[2, 2, 4, 5]), move |x| {
                Ok(both(x[0].try_max_pool2d_with_indices(&PoolOptions::new(2).padding(1))?))
            }),
        Entry::new("max_pool3d_with_indices", "torch.nn.functional.max_pool3d(return_indices=True)", at)
            .case(distinct(&[1, 1, 2, 3, 4]), move |x| {
                Ok(both(x[0].try_max_pool3d_with_indices(&PoolOptions::new(2).stride(1))?))
            }),
        Entry::new("avg_pool1d", "torch.nn.functional.avg_pool1d", avg)
            .one(reals(&[&[2, 2, 7]]), |x| x[0].try_avg_pool1d(&PoolOptions::new(3).stride(2).padding(1)))
            .one(reals(&[&[2, 7]]), |x| {
                x[0].try_avg_pool1d(&PoolOptions::new(3).stride(2).padding(1).ceil_mode(true).count_include_pad(false))
            }),
        Entry::new("avg_pool2d", "torch.nn.functional.avg_pool2d", avg)
            .one(reals(&[&[2, 2, 4, 4]]), |x| x[0].try_avg_pool2d(&PoolOptions::new(2)))
            .one(reals(&[&[1, 2, 5, 6]]), |x| {
                x[0].try_avg_pool2d(&PoolOptions::new([3, 2]).stride([2, 3]).padding([1, 0]).ceil_mode(true))
            })
            .large(reals(&[&[19, 31, 14, 14]]), |x| x[0].try_avg_pool2d(&PoolOptions::new(3).padding(1).stride(2))),
        Entry::new("avg_pool3d", "torch.nn.functional.avg_pool3d", avg)
            .one(reals(&[&[1, 2, 3, 4, 2]]), |x| x[0].try_avg_pool3d(&PoolOptions::new([2, 2, 1]).stride(1))),
    ]
}

fn adaptive() -> Vec<Entry> {
    let avg = "Means of as many windows as are asked for.";
    let max = "The largest of as many windows as are asked for, and where they were.";
    let both = |(a, b): (Tensor, Tensor)| vec![a, b];
    vec![
        Entry::new("adaptive_avg_pool1d", "torch.nn.functional.adaptive_avg_pool1d", avg)
            .one(reals(&[&[2, 2, 7]]), |x| x[0].try_adaptive_avg_pool1d(3))
            .one(reals(&[&[2, 6]]), |x| x[0].try_adaptive_avg_pool1d(3)),
        Entry::new("adaptive_avg_pool2d", "torch.nn.functional.adaptive_avg_pool2d", avg)
            .one(reals(&[&[2, 2, 4, 5]]), |x| x[0].try_adaptive_avg_pool2d(1))
            .one(reals(&[&[1, 2, 5, 3]]), |x| x[0].try_adaptive_avg_pool2d([2, 4])),
        Entry::new("adaptive_avg_pool3d", "torch.nn.functional.adaptive_avg_pool3d", avg)
            .one(reals(&[&[1, 2, 3, 4, 2]]), |x| x[0].try_adaptive_avg_pool3d([2, 2, 1])),
        Entry::new("adaptive_max_pool1d", "torch.nn.functional.adaptive_max_pool1d", max)
            .case(distinct(&[2, 2, 7]), move |x| Ok(both(x[0].try_adaptive_max_pool1d(3)?))),
        Entry::new("adaptive_max_pool2d", "torch.nn.functional.adaptive_max_pool2d", max)
            .case(distinct(&[2, 2, 5, 4]), move |x| Ok(both(x[0].try_adaptive_max_pool2d([3, 2])?)))
            .case(distinct(&[2, 3, 3]), move |x| Ok(both(x[0].try_adaptive_max_pool2d(2)?))),
        Entry::new("adaptive_max_pool3d", "torch.nn.functional.adaptive_max_pool3d", max)
            .case(distinct(&[1, 2, 3, 3, 2]), move |x| Ok(both(x[0].try_adaptive_max_pool3d([2, 1, 2])?))),
        Entry::new("max_pool", "torch.nn.functional.max_pool2d", "Windows on given places, as a composite.").case(
            distinct(&[2, 2, 5, 4]),
            composed(MaxPool { window: Window { output: [2, 4, 1], ..WINDOW }, indices: false }),
        ),
    ]
}

fn resizing() -> Vec<Entry> {
    use InterpolateMode::{Area, Cubic, Linear, Nearest, NearestExact};
    let mut resize = Entry::new("interpolate", "torch.nn.functional.interpolate", "The spatial dimensions resized.");
    for mode in [Nearest, NearestExact, Linear, Cubic, Area] {
        let options = InterpolateOptions::new(mode);
        resize = resize
            .one(reals(&[&[1, 2, 3, 4]]), move |x| x[0].try_interpolate([5, 3], &options))
            .one(reals(&[&[2, 1, 4, 3]]), move |x| x[0].try_interpolate([2, 7], &options));
    }
    for mode in [Linear, Cubic] {
        let options = InterpolateOptions::new(mode).align_corners(true);
        resize = resize.one(reals(&[&[1, 2, 3, 4]]), move |x| x[0].try_interpolate([5, 3], &options));
    }
    let linear = InterpolateOptions::new(Linear);
    vec![
        resize
            .one(reals(&[&[2, 2, 5]]), move |x| x[0].try_interpolate(8, &linear))
            .one(reals(&[&[1, 1, 2, 3, 2]]), move |x| x[0].try_interpolate([3, 4, 3], &linear)),
        Entry::new(
            "interpolate_by",
            "torch.nn.functional.interpolate(scale_factor=)",
            "The spatial dimensions resized by a factor.",
        )
        .one(reals(&[&[1, 2, 3, 4]]), move |x| x[0].try_interpolate_by(1.7, &linear))
        .one(reals(&[&[1, 2, 4]]), |x| x[0].try_interpolate_by(2.0, &InterpolateOptions::new(Nearest))),
    ]
}
