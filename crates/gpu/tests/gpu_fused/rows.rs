//! What goes along rows: softmax, the norms of layers and batches, cross-entropy.

use crate::adapter::{devices, turn};
use crate::{agrees, normal, run};
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::{Backward, DType, Tensor, by_definition};
use gradus_gpu::profile::profile;
use gradus_nn::loss::CrossEntropy as CrossEntropyLoss;

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
fn norms_of_a_sum_are_their_definitions_and_give_the_sum() {
    let _turn = turn();
    for gpu in devices() {
        for [rows, width] in [[5, 33], [3, 129], [2, 700]] {
            let x = [
                normal(&[rows, width], "x"),
                normal(&[rows, width], "r"),
                normal(&[width], "w"),
                normal(&[width], "b"),
            ];
            let second = width < 200;
            let name = |what: &str| format!("{what} of {rows} rows of {width}");
            let layer = |x: &[Tensor]| {
                let (y, sum) = x[0].try_add_layer_norm(&x[1], [x[0].dim(1)], x.get(2), x.get(3), 1e-3)?;
                Ok(vec![y, sum])
            };
            let rms = |x: &[Tensor]| {
                let (y, sum) = x[0].try_add_rms_norm(&x[1], [x[0].dim(1)], x.get(2), Some(1e-3))?;
                Ok(vec![y, sum])
            };
            agrees(gpu, &name("add_layer_norm"), &x, 1, second, &layer);
            agrees(gpu, &name("add_layer_norm without w and b"), &x[..2], 1, second, &layer);
            agrees(gpu, &name("add_rms_norm"), &x[..3], 1, second, &rms);
            agrees(gpu, &name("add_rms_norm without a weight"), &x[..2], 1, second, &rms);
            // Norms last: the sum goes nowhere else.
            agrees(gpu, &name("the first of add_layer_norm"), &x, 1, second, &|x| Ok(vec![layer(x)?.swap_remove(0)]));
            agrees(gpu, &name("the first of add_rms_norm"), &x[..3], 1, second, &|x| Ok(vec![rms(x)?.swap_remove(0)]));
            agrees(gpu, &name("the sum of add_rms_norm"), &x[..2], 1, second, &|x| Ok(vec![rms(x)?.swap_remove(1)]));
        }
        // Rows of longer memory, where both operands and the gradient begin somewhere.
        let x = [normal(&[7, 40], "x"), normal(&[9, 40], "r"), normal(&[40], "w")];
        agrees(gpu, "add_rms_norm of some rows", &x, 1, true, &|x| {
            let (y, sum) =
                x[0].try_narrow(0, 2, 4)?.try_add_rms_norm(&x[1].try_narrow(0, 5, 4)?, [40], Some(&x[2]), None)?;
            Ok(vec![y, sum])
        });
        agrees(gpu, "add_layer_norm of some rows", &x, 1, true, &|x| {
            let (y, sum) = x[0].try_narrow(0, 2, 4)?.try_add_layer_norm(
                &x[1].try_narrow(0, 5, 4)?,
                [40],
                Some(&x[2]),
                None,
                1e-5,
            )?;
            Ok(vec![y, sum])
        });
    }
}

/// Forward one; backward one for x and the residual together, and one for weight and bias.
#[test]
fn norms_of_a_sum_take_three_launches() {
    let _turn = turn();
    for gpu in devices() {
        let place = |t: Tensor| t.to(gpu).requires_grad();
        let x = [normal(&[6, 40], "x"), normal(&[6, 40], "r"), normal(&[40], "w"), normal(&[40], "b")].map(place);
        let g = normal(&[6, 40], "g").to(gpu);
        for rms in [false, true] {
            let (outputs, forward) = profile(|| match rms {
                false => x[0].add_layer_norm(&x[1], [40], Some(&x[2]), Some(&x[3]), 1e-5),
                true => x[0].add_rms_norm(&x[1], [40], Some(&x[2]), None),
            });
            let both = &outputs.0 + &outputs.1;
            let (_, backward) = profile(|| both.backward_with(Some(&g), Backward::default()));
            assert_eq!((forward.launches(), backward.launches()), (1, 2), "rms {rms}: {forward}{backward}");
            x.iter().for_each(Tensor::zero_grad);
        }
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
