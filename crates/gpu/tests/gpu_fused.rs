//! The fused kernels against the definitions of their composites, on the CPU in `f64`: outputs, gradients and second gradients, at
//! sizes on both sides of every tile; and that a device runs the kernel, in as many launches as it should, and no definition.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;
mod definition;

use adapter::{devices, turn};
use definition::{agrees, attend, heads, normal, numbers, run};
use gradus_core::functional::attention::{Attention, AttentionGrad, AttentionOptions};
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, BatchNormRelu, BatchNormReluGrad, ChannelAffine};
use gradus_core::functional::chain::Chain;
use gradus_core::functional::conv::{Conv, ConvInputGrad, ConvWeightGrad};
use gradus_core::functional::dropout::Dropout;
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::functional::gru::{GruStep, GruStepGrad};
use gradus_core::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use gradus_core::functional::linear::Linear;
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad};
use gradus_core::functional::lstm::{LstmStep, LstmStepGrad};
use gradus_core::functional::lstm_sequence::{LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::norm::{LayerNorm, LayerNormGrad};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::rms_norm::{RmsNorm, RmsNormGrad};
use gradus_core::functional::rotary::Rotary;
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::functional::special::{Lgamma, Polygamma};
use gradus_core::functional::swiglu::{SwiGlu, SwiGluGrad};
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::ops::{UnaryGrad, UnaryOp};
use gradus_core::tensor::to_device;
use gradus_core::{Backward, DType, Device, Key, Result, Tensor, autodiff, by_definition};
use gradus_gpu::profile::profile;
use gradus_nn::loss::CrossEntropy as CrossEntropyLoss;

#[test]
fn attention_is_its_definition_at_every_edge_of_a_tile() {
    let _turn = turn();
    for gpu in devices() {
        // A kernel takes a second to compile on a software device: sizes share those they can.
        let (plain, causal) = (AttentionOptions::default(), AttentionOptions::causal());
        for (size, options) in [
            ([1, 1, 1, 1, 1, 1], &plain),
            ([2, 3, 1, 7, 5, 4], &plain),
            ([2, 3, 7, 1, 5, 4], &causal),
            ([1, 2, 17, 33, 33, 20], &plain),
            ([1, 2, 17, 33, 33, 20], &causal),
            ([1, 1, 33, 17, 33, 20], &causal),
            ([1, 1, 65, 130, 40, 24], &causal),
            ([2, 1, 32, 32, 16, 16], &causal),
        ] {
            let second = size[2] * size[3] < 2000;
            let name = format!("attention {size:?}, causal {}", options.causal);
            agrees(gpu, &name, &heads(size), 1, second, &attend(options.clone()));
        }
        let wide = attend(causal.scale(0.05));
        agrees(gpu, "attention of heads of 128", &heads([1, 1, 70, 66, 128, 128]), 1, false, &wide);
        // A head's columns that do not lie side by side, as a layer's do not.
        let turned = |x: &[Tensor]| {
            let [q, k, v] = [&x[0], &x[1], &x[2]].map(|t| t.transpose(-1, -2));
            Ok(vec![q.try_attention(&k, &v, &AttentionOptions::causal())?])
        };
        let x = [normal(&[2, 2, 9, 20], "q"), normal(&[2, 2, 9, 20], "k"), normal(&[2, 2, 9, 20], "v")];
        agrees(gpu, "attention of transposed heads", &x, 1, true, &turned);
    }
}

#[test]
fn attention_with_masks_dropout_and_shared_keys_is_its_definition() {
    let _turn = turn();
    for gpu in devices() {
        let size = [2, 2, 19, 35, 12, 10];
        let mut x = heads(size);
        // The third query of every head sees nothing; a mask is broadcast over the heads.
        let seen = |i: usize| i / 35 % 19 != 2 && !(i * 7).is_multiple_of(3);
        let mask: Vec<bool> = (0..2 * 19 * 35).map(seen).collect();
        x.push(Tensor::from_vec(mask, [2, 1, 19, 35], gradus_cpu::device()));
        agrees(gpu, "causal attention with a mask", &x, 1, true, &attend(AttentionOptions::causal()));
        // A mask that is learnt goes by the definition in backward.
        x[3] = normal(&[19, 35], "mask");
        agrees(gpu, "attention with added numbers", &x, 1, false, &attend(Default::default()));
        let dropped = AttentionOptions::causal().dropout(0.3, Key::new(5).fold("dropout").at(3));
        agrees(gpu, "attention with dropout", &heads(size), 1, true, &attend(dropped));
        let grouped =
            |x: &[Tensor]| Ok(vec![x[0].try_attention(&x[1], &x[2], &AttentionOptions::causal().grouped())?]);
        let x = [normal(&[2, 4, 18, 8], "q"), normal(&[2, 2, 18, 8], "k"), normal(&[2, 2, 18, 8], "v")];
        agrees(gpu, "four heads of queries to two of keys", &x, 1, true, &grouped);
        // Without a batch, with several tiles, and one head of keys for all.
        let x = [normal(&[3, 40, 8], "q"), normal(&[1, 70, 8], "k"), normal(&[1, 70, 5], "v")];
        let shared =
            |x: &[Tensor]| Ok(vec![x[0].try_attention(&x[1], &x[2], &AttentionOptions::default().grouped())?]);
        agrees(gpu, "three heads of queries to one of keys", &x, 1, false, &shared);
    }
}

#[test]
fn attention_that_no_kernel_covers_runs_by_its_definition() {
    let _turn = turn();
    for gpu in devices() {
        let on = |size| heads(size).iter().map(|t| t.to(gpu)).collect::<Vec<_>>();
        let nothing = attend(AttentionOptions::causal())(&on([2, 1, 0, 3, 4, 4])).expect("no queries are no error");
        assert_eq!(nothing[0].dims(), [2, 1, 0, 4]);
        let zeros = attend(Default::default())(&on([1, 1, 2, 0, 4, 3])).expect("no keys are no error");
        assert_eq!(zeros[0].to_vec::<f32>().expect("the device works"), [0.0; 6]);
        let x = heads([1, 1, 5, 6, 300, 7]);
        let wide = attend(AttentionOptions::causal())(&on([1, 1, 5, 6, 300, 7])).expect("wide heads are no error");
        let here = attend(AttentionOptions::causal())(&x).expect("it runs");
        let apart = numbers(&wide[0]).expect("the device works").into_iter().zip(numbers(&here[0]).expect("it works"));
        assert!(apart.into_iter().all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn attention_has_the_same_bits_each_time() {
    let _turn = turn();
    for gpu in devices() {
        let step = || -> Vec<u32> {
            let x: Vec<Tensor> = heads([2, 2, 70, 70, 16, 16]).iter().map(|t| t.to(gpu).requires_grad()).collect();
            let y = x[0].attention(&x[1], &x[2], &AttentionOptions::causal());
            let grads = autodiff::grad(&[&y.square().sum()], &[&x[0], &x[1], &x[2]], Backward::default());
            grads.iter().flat_map(|g| g.to_vec::<f32>().expect("the device works")).map(f32::to_bits).collect()
        };
        assert_eq!(step(), step());
    }
}

#[test]
fn rows_are_their_definitions_however_many_threads_share_them() {
    let _turn = turn();
    for gpu in devices() {
        // One thread a row, or a cube of 32, 64, 128 or 256: which, the table of strategies decides by the width.
        for [rows, width] in [[1, 1], [5, 33], [3, 129], [2, 300], [2, 700], [1, 5000]] {
            let x = [normal(&[rows, width], "x"), normal(&[width], "w"), normal(&[width], "b")];
            let second = width < 200;
            let name = |what: &str| format!("{what} of {rows} rows of {width}");
            agrees(gpu, &name("rms_norm"), &x[..2], 1, second, &|x| {
                Ok(vec![x[0].try_rms_norm([x[0].dim(1)], Some(&x[1]), Some(1e-3))?])
            });
            agrees(gpu, &name("rms_norm without a weight"), &x[..1], 1, second, &|x| {
                Ok(vec![x[0].try_rms_norm([x[0].dim(1)], None, Some(1e-3))?])
            });
            if width > 1 {
                agrees(gpu, &name("layer_norm"), &x, 1, second, &|x| {
                    Ok(vec![x[0].try_layer_norm([x[0].dim(1)], Some(&x[1]), Some(&x[2]), 1e-3)?])
                });
            }
            agrees(gpu, &name("softmax"), &x[..1], 1, second, &|x| Ok(vec![x[0].try_softmax(1)?]));
            agrees(gpu, &name("log_softmax"), &x[..1], 1, second, &|x| Ok(vec![x[0].try_log_softmax(1)?]));
        }
    }
}

#[test]
fn an_lstm_s_step_is_its_definition() {
    let _turn = turn();
    let step = |x: &[Tensor]| Ok(Tensor::try_compose(LstmStep, &x.iter().collect::<Vec<_>>())?.into_vec());
    for gpu in devices() {
        for [rows, n] in [[1, 1], [3, 17], [33, 5]] {
            let x = [normal(&[rows, 4 * n], "x"), normal(&[rows, 4 * n], "h"), normal(&[rows, n], "c")];
            agrees(gpu, &format!("lstm_step of {rows} rows of {n}"), &x, 1, true, &step);
        }
        // A step of a sequence: gates that lie between those of other steps.
        let x = [normal(&[3, 5, 8], "x"), normal(&[3, 8], "h"), normal(&[3, 2], "c")];
        let within =
            |x: &[Tensor]| Ok(Tensor::try_compose(LstmStep, &[&x[0].try_select(1, 2)?, &x[1], &x[2]])?.into_vec());
        agrees(gpu, "lstm_step of a sequence's gates", &x, 1, true, &within);
    }
}

#[test]
fn a_gru_s_step_is_its_definition() {
    let _turn = turn();
    let step = |x: &[Tensor]| Ok(Tensor::try_compose(GruStep, &x.iter().collect::<Vec<_>>())?.into_vec());
    for gpu in devices() {
        for [rows, n] in [[1, 1], [3, 17], [33, 5]] {
            let x = [normal(&[rows, 3 * n], "x"), normal(&[rows, 3 * n], "s"), normal(&[rows, n], "h")];
            agrees(gpu, &format!("gru_step of {rows} rows of {n}"), &x, 1, true, &step);
        }
        let x = [normal(&[3, 5, 6], "x"), normal(&[3, 6], "s"), normal(&[3, 2], "h")];
        let within =
            |x: &[Tensor]| Ok(Tensor::try_compose(GruStep, &[&x[0].try_select(1, 2)?, &x[1], &x[2]])?.into_vec());
        agrees(gpu, "gru_step of a sequence's gates", &x, 1, true, &within);
        // A sequence is a product and a step for each of its steps, and what stacks them.
        let x = [normal(&[4, 3, 15], "x"), normal(&[15, 5], "w"), normal(&[3, 5], "h"), normal(&[15], "b")];
        let sequence = |x: &[Tensor]| {
            let x: Vec<&Tensor> = x.iter().collect();
            Ok(Tensor::try_compose(GruSequence { reverse: true }, &x)?.into_vec())
        };
        agrees(gpu, "gru_sequence", &x, 4 * 2 + 4, true, &sequence);
    }
}

#[test]
fn batch_normalization_with_residual_and_relu_is_its_definition() {
    let _turn = turn();
    let train = |x: &[Tensor]| {
        let (y, mean, var) = x[0].try_batch_norm_relu_train(&x[1], &x[2], x.get(3), 1e-3)?;
        Ok(vec![y, mean, var])
    };
    for gpu in devices() {
        for shape in [[2, 1, 1], [3, 5, 7], [4, 3, 130], [9, 2, 300]] {
            let x = [normal(&shape, "x"), normal(&[shape[1]], "w"), normal(&[shape[1]], "b"), normal(&shape, "r")];
            let name = |what: &str| format!("batch_norm_relu {what} a residual of {shape:?}");
            agrees(gpu, &name("without"), &x[..3], 1, shape[2] < 200, &train);
            agrees(gpu, &name("with"), &x, 1, shape[2] < 200, &train);
        }
        let x = [normal(&[300], "old"), normal(&[300], "new")];
        let average =
            |x: &[Tensor]| Ok(Tensor::try_compose(RunningAverage { momentum: 0.1 }, &[&x[0], &x[1]])?.into_vec());
        agrees(gpu, "running_average", &x, 1, true, &average);
        let tiny = Tensor::from_vec(vec![1e-38f32, -1e-38, 1e-37], [3], gradus_cpu::device()).to(gpu);
        let after = average(&[tiny, Tensor::zeros([3], gpu)]).expect("it runs").swap_remove(0);
        let after = after.to_vec::<f32>().expect("the device works");
        assert_eq!(after[..2], [0.0, 0.0], "what is too small for full precision becomes 0");
        assert!((after[2] / 9e-38 - 1.0).abs() < 1e-6, "{}", after[2]);
    }
}

#[test]
fn gates_and_rotations_are_their_definitions() {
    let _turn = turn();
    let gate = |x: &[Tensor]| Ok(vec![x[0].try_swiglu(&x[1])?]);
    for gpu in devices() {
        agrees(gpu, "swiglu", &[normal(&[3, 100], "gate"), normal(&[3, 100], "up")], 1, true, &gate);
        // Halves of one product, as they lie.
        agrees(gpu, "swiglu of halves", &[normal(&[5, 14], "both")], 1, true, &|x| {
            Ok(vec![x[0].try_narrow(1, 0, 7)?.try_swiglu(&x[0].try_narrow(1, 7, 7)?)?])
        });
        for (interleaved, width) in [(false, 8), (true, 8), (false, 11), (true, 11)] {
            let name = |what: &str| format!("rotary of {width}, interleaved {interleaved}, {what}");
            let x = [normal(&[2, 5, 3, width], "x"), normal(&[5, 4], "cos"), normal(&[5, 4], "sin")];
            // Heads lie beside each other, as in a layer.
            agrees(gpu, &name("with learnt angles"), &x, 1, true, &|x| {
                Ok(vec![x[0].try_transpose(1, 2)?.try_rotary(&x[1], &x[2], interleaved)?])
            });
            agrees(gpu, &name("with given angles"), &x[..1], 1, true, &|x| {
                let table = |f: fn(f32) -> f32| -> Result<Tensor> {
                    let values: Vec<f32> = (0..28).map(|i| f(i as f32 / 4.0)).collect();
                    let table = Tensor::try_from_vec(values, [7, 4], x[0].device())?.try_to_dtype(x[0].dtype())?;
                    table.try_narrow(0, 2, 5) // positions from the third on
                };
                Ok(vec![x[0].try_transpose(1, 2)?.try_rotary(&table(f32::cos)?, &table(f32::sin)?, interleaved)?])
            });
        }
    }
}

/// Forward and backward are a launch each; broadcast inputs have sums besides, in the backward.
#[test]
fn a_chain_of_functions_is_its_definition_in_one_launch() {
    let _turn = turn();
    for gpu in devices() {
        let x = [normal(&[37, 53], "x"), normal(&[37, 53], "y")];
        agrees(gpu, "chain", &x, 1, true, &|x| {
            Ok(vec![Tensor::try_chain([&x[0], &x[1]], |[a, b]| {
                (a * b + 1.0).tanh() / (2.0 + b.square()) - (a * 0.5).gelu() * b.sigmoid()
            })?])
        });
        let x = [normal(&[4, 1, 53], "x"), normal(&[6, 1], "y").t(), normal(&[], "z")];
        agrees(gpu, "chain of views", &x[..2], 1, true, &|x| {
            let (a, b) = (&x[0], &x[1].t());
            Ok(vec![Tensor::try_chain([a, b], |[a, b]| (a.softplus() - b).relu() * (1.0 / (b.exp() + 2.0)))?])
        });
        agrees(gpu, "chain of a number", &x[2..], 1, true, &|x| {
            Ok(vec![Tensor::try_chain([&x[0]], |[a]| a.sin() * a.cos() + a.abs().maximum(0.3))?])
        });
        let x = x.map(|t| t.to(gpu).requires_grad());
        let y = Tensor::chain([&x[0], &x[2]], |[a, b]| (a * 2.0).tanh() + (a * b).exp()).sum();
        let (_, backward) = profile(|| autodiff::grad(&[&y], &[&x[0]], Backward::default()));
        println!("{backward}");
        assert!(backward.launches() <= 3, "a chain's backward is a chain:\n{backward}");
    }
}

#[test]
fn a_vocabulary_of_fifty_thousand_is_no_trouble() {
    let _turn = turn();
    for gpu in devices() {
        let (classes, width) = (50_257, 6);
        let target = Tensor::from_vec(vec![50_256i64, -100, 7], [3], gradus_cpu::device());
        let x = [normal(&[3, classes], "logits"), target.clone()];
        // The rows, the count, the sum, the mean.
        agrees(gpu, "cross_entropy of 50,257 classes", &x, 4, false, &|x| Ok(vec![x[0].try_cross_entropy(&x[1])?]));
        let x = [normal(&[3, width], "hidden"), normal(&[classes, width], "head"), target];
        let chunked =
            |x: &[Tensor]| Ok(vec![CrossEntropyLoss::new().try_of_linear(&x[0], &x[1], None, &x[2], Some(2))?]);
        let cpu = gradus_cpu::device();
        let (exact, got) = (
            by_definition(|| run(&x, cpu, DType::F64, false, &chunked)).expect("the definition runs"),
            run(&x, gpu, DType::F32, false, &chunked).expect("it runs"),
        );
        for (got, exact) in got.iter().zip(&exact) {
            let scale = exact.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            let apart = got.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(got.len() == exact.len() && apart <= 1e-5 * scale, "in chunks: {apart:e} apart of {scale:e}");
        }
    }
}

#[test]
fn one_launch_has_a_product_its_bias_and_its_activation() {
    let _turn = turn();
    for gpu in devices() {
        for [rows, inputs, outputs] in [[1, 1, 1], [17, 33, 65], [70, 5, 20]] {
            let x = [normal(&[rows, inputs], "x"), normal(&[outputs, inputs], "w"), normal(&[outputs], "b")];
            let name = format!("linear_tanh {rows}x{inputs} to {outputs}");
            agrees(gpu, &name, &x, 1, true, &|x| Ok(vec![x[0].try_linear_tanh(&x[1], Some(&x[2]))?]));
        }
        for op in [UnaryOp::Gelu, UnaryOp::GeluTanh, UnaryOp::Silu] {
            let x = [normal(&[7, 37], "g"), normal(&[7, 37], "x")];
            let of = move |x: &[Tensor]| Ok(Tensor::try_compose(UnaryGrad(op), &[&x[0], &x[1]])?.into_vec());
            agrees(gpu, &format!("the gradient of {}", op.name()), &x, 1, true, &of);
        }
        let x = [normal(&[3, 4], "a"), normal(&[20_000], "b"), normal(&[1], "c")];
        // All tensors, and their sum.
        agrees(gpu, "global_norm", &x, 2, false, &|x| {
            Ok(vec![Tensor::try_global_norm(&x.iter().collect::<Vec<_>>())?])
        });
    }
}

#[test]
fn halves_are_computed_in_f32_and_rounded_once() {
    let _turn = turn();
    for gpu in devices() {
        for dtype in [DType::F16, DType::Bf16] {
            if !gpu.backend().supports(dtype) {
                println!("{gpu} has no {dtype}");
                continue;
            }
            let on = |device: Device, float: DType| -> Result<Vec<f64>> {
                let x = heads([1, 2, 20, 20, 16, 16]);
                let x: Vec<Tensor> = x
                    .iter()
                    .map(|t| to_device(&t.try_to_dtype(dtype)?.try_to_dtype(float)?, device))
                    .collect::<Result<_>>()?;
                numbers(&x[0].try_attention(&x[1], &x[2], &AttentionOptions::causal())?)
            };
            let (got, exact) =
                (on(gpu, dtype).expect("it runs"), on(gradus_cpu::device(), DType::F64).expect("it runs"));
            let unit = if dtype == DType::F16 { 1.0 / 2048.0 } else { 1.0 / 256.0 };
            assert!(
                got.iter().zip(&exact).all(|(g, e)| (g - e).abs() <= 1.01 * unit * e.abs() + 1e-5),
                "{dtype} on {gpu}"
            );
        }
    }
}

/// The table of `docs/gpu.md`: which device fuses what.
#[test]
fn the_table_of_fused_kernels_in_the_documentation_is_current() {
    let _turn = turn();
    let cpu = gradus_cpu::device().backend().kernels();
    let Some(device) = devices().into_iter().next() else { return };
    let gpu = device.backend().kernels();
    let mut page = String::from("| composite | CPU | GPU |\n|---|---|---|\n");
    let mut row = |name: &str, on: [bool; 2]| {
        let [cpu, gpu] = on.map(|has| if has { "fused" } else { "by definition" });
        page += &format!("| `{name}` | {cpu} | {gpu} |\n");
    };
    macro_rules! composites {
        ($($name:ident),*) => { $(row(stringify!($name), [cpu.has::<$name>(), gpu.has::<$name>()]);)* };
    }
    composites!(
        Attention,
        AttentionGrad,
        AvgPool,
        AvgPoolGrad,
        BatchNorm,
        BatchNormGrad,
        BatchNormRelu,
        BatchNormReluGrad,
        Chain,
        ChannelAffine,
        Conv,
        ConvInputGrad,
        ConvWeightGrad,
        CrossEntropy,
        CrossEntropyGrad,
        Dropout,
        GlobalNorm,
        GruSequence,
        GruSequenceGrad,
        GruStep,
        GruStepGrad,
        LayerNorm,
        LayerNormGrad,
        Lgamma,
        Linear,
        LogSoftmax,
        LogSoftmaxGrad,
        LstmSequence,
        LstmSequenceGrad,
        LstmStep,
        LstmStepGrad,
        LstmWeightGrad,
        MaxPool,
        MaxPoolGrad,
        NewtonSchulzSum,
        Polygamma,
        RmsNorm,
        RmsNormGrad,
        Rotary,
        RunningAverage,
        Softmax,
        SoftmaxGrad,
        SwiGlu,
        SwiGluGrad,
        UnaryGrad
    );
    macro_rules! updates {
        ($($name:ident),*) => { $(row(stringify!($name), [cpu.has_update::<$name>(), gpu.has_update::<$name>()]);)* };
    }
    updates!(AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/gpu.md");
    let text = std::fs::read_to_string(path).expect("docs/gpu.md is there");
    let begin = text.find("| composite |").expect("the page has the table");
    let end = begin + text[begin..].find("\n\n").map_or(text.len() - begin, |n| n + 1);
    if std::env::var_os("GRADUS_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{}{page}{}", &text[..begin], &text[end..])).expect("docs/gpu.md can be written");
        return;
    }
    assert_eq!(&text[begin..end], page, "write it with GRADUS_WRITE_DOCS=1 and this test");
}
