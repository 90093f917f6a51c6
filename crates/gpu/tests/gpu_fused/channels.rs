//! What goes by channels of images: group normalization, and normalization by known statistics; and norms of halves.

use crate::adapter::{devices, turn};
use crate::definition::Case;
use crate::{agrees, normal};
use gradus_core::functional::batch_norm::ChannelAffine;
use gradus_core::{Backward, DType, Device, Result, Tensor, autodiff};
use gradus_gpu::profile::profile;

fn normalized(groups: usize) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> {
    move |x| Ok(vec![x[0].try_group_norm(groups, x.get(1), x.get(2), 1e-3)?])
}

#[test]
fn group_normalization_is_its_definition_however_many_threads_share_a_group() {
    let _turn = turn();
    for gpu in devices() {
        // One thread a group, or a cube of 32, 64, 128 or 256; and the same for the sums of a channel over batch and places.
        for (shape, groups) in [
            ([1, 6, 1], 3),
            ([3, 6, 7], 6),
            ([2, 5, 9], 1),
            ([2, 8, 37], 2),
            ([1, 6, 300], 2),
            ([33, 3, 130], 3),
            ([1, 2, 4999], 1),
            ([2, 2, 4999], 2),
            ([1, 70, 61], 1),
            ([2, 4200, 1], 1),
        ] {
            let x = [normal(&shape, "x"), normal(&[shape[1]], "w"), normal(&[shape[1]], "b")];
            let name = |what: &str| format!("group_norm {what} of {shape:?} in {groups} groups");
            let second = shape.iter().product::<usize>() < 1000;
            agrees(gpu, &name("with weight and bias"), &x, 1, second, &normalized(groups));
            agrees(gpu, &name("alone"), &x[..1], 1, second, &normalized(groups));
        }
        let x = [normal(&[2, 4, 9], "x"), normal(&[4], "w"), normal(&[4], "b")];
        // The bias that is not there is filled with zeros, the weight with ones.
        agrees(gpu, "group_norm with a weight", &x[..2], 2, true, &normalized(2));
        agrees(gpu, "group_norm with a bias", &[x[0].clone(), x[2].clone()], 2, true, &|x| {
            Ok(vec![x[0].try_group_norm(2, None, Some(&x[1]), 1e-3)?])
        });
    }
}

fn relu(groups: usize) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> {
    move |x| Ok(vec![x[0].try_group_norm_relu(groups, &x[1], &x[2], x.get(3), 1e-3)?])
}

#[test]
fn group_normalization_with_residual_and_relu_is_its_definition() {
    let _turn = turn();
    let relu =
        |groups: usize| move |x: &[Tensor]| Ok(vec![x[0].try_group_norm_relu(groups, &x[1], &x[2], x.get(3), 1e-3)?]);
    for gpu in devices() {
        for (shape, groups) in [([3, 6, 7], 3), ([2, 8, 37], 2), ([1, 6, 300], 2), ([33, 3, 130], 3), ([1, 2, 4999], 1)]
        {
            let x = [normal(&shape, "x"), normal(&[shape[1]], "w"), normal(&[shape[1]], "b"), normal(&shape, "r")];
            let name = |what: &str| format!("group_norm_relu {what} a residual of {shape:?} in {groups} groups");
            let second = shape.iter().product::<usize>() < 1000;
            agrees(gpu, &name("without"), &x[..3], 1, second, &relu(groups));
            agrees(gpu, &name("with"), &x, 1, second, &relu(groups));
        }
        let x = [normal(&[3, 35, 4], "x"), normal(&[4], "w"), normal(&[4], "b"), normal(&[3, 35, 4], "r")];
        agrees(gpu, "group_norm_relu of channels that lie side by side", &x, 3, true, &|x| {
            let turned = |t: &Tensor| t.try_transpose(1, 2);
            Ok(vec![turned(&x[0])?.try_group_norm_relu(2, &x[1], &x[2], Some(&turned(&x[3])?), 1e-3)?])
        });
    }
}

/// Both kernels read memory as it lies: a view is copied first, and its gradient as well.
#[test]
fn group_normalization_of_a_view_is_its_definition() {
    let _turn = turn();
    for gpu in devices() {
        let x = [normal(&[3, 35, 4], "x"), normal(&[4], "w"), normal(&[4], "b")];
        agrees(gpu, "group_norm of channels that lie side by side", &x, 2, true, &|x| {
            Ok(vec![x[0].try_transpose(1, 2)?.try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3)?])
        });
        agrees(gpu, "the mean over places of a group_norm of some channels", &x, 3, true, &|x| {
            let some = x[0].try_narrow(1, 7, 20)?.try_reshape([3, 4, 20])?;
            Ok(vec![some.try_group_norm(2, Some(&x[1]), Some(&x[2]), 1e-3)?.try_mean_dims(&[2], false)?])
        });
    }
}

/// The second is for the weight and the bias, and is not there without them.
#[test]
fn the_gradients_of_group_normalization_take_two_launches() {
    let _turn = turn();
    for gpu in devices() {
        let place = |t: Tensor| t.to(gpu).requires_grad();
        let x = [normal(&[2, 6, 40], "x"), normal(&[6], "w"), normal(&[6], "b")].map(place);
        let g = normal(&[2, 6, 40], "g").to(gpu);
        for leaves in [&x[..], &x[..1]] {
            let y = normalized(3)(leaves).expect("it runs").swap_remove(0);
            let (_, profile) = profile(|| y.backward_with(Some(&g), Backward::default()));
            assert_eq!(profile.launches(), if leaves.len() > 1 { 2 } else { 1 }, "{profile}");
            leaves.iter().for_each(Tensor::zero_grad);
        }
    }
}

/// Rounded once, from statistics in `f32`.
#[test]
fn halves_are_normalized_in_single_precision() {
    let _turn = turn();
    let channels = [normal(&[3, 6, 50], "x"), normal(&[6], "w"), normal(&[6], "b"), normal(&[3, 6, 50], "r")];
    let rows = [normal(&[7, 50], "x"), normal(&[7, 50], "r"), normal(&[50], "w"), normal(&[50], "b")];
    let halves = |gpu: Device| [DType::F16, DType::Bf16].into_iter().filter(move |d| gpu.backend().supports(*d));
    for (gpu, half) in devices().into_iter().flat_map(|gpu| halves(gpu).map(move |half| (gpu, half))) {
        let is_near = |what: &str, x: &[Tensor], f: Case<'_>| {
            let x: Vec<Tensor> = x.iter().map(|t| t.to_dtype(half)).collect();
            let gradients = |place: &dyn Fn(&Tensor) -> Tensor| -> Result<Vec<Tensor>> {
                let x: Vec<Tensor> = x.iter().map(|t| place(t).requires_grad()).collect();
                let y = f(&x)?;
                let loss = y.iter().map(Tensor::sum).reduce(|a, b| a + b).expect("there are outputs");
                let grads = autodiff::try_grad(&[&loss], &x.iter().collect::<Vec<_>>(), Backward::default())?;
                Ok([y, grads].concat())
            };
            let exact = gradients(&|t| t.to_dtype(DType::F64)).expect("it runs");
            let got = gradients(&|t| t.to(gpu)).expect("it runs");
            for (got, exact) in got.iter().zip(&exact) {
                let (got, exact) = (crate::numbers(got).expect("numbers"), crate::numbers(exact).expect("numbers"));
                let scale = exact.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                let apart = got.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(apart <= scale / 128.0, "{what} of {half} on {gpu}: {apart} apart of {scale}");
            }
        };
        is_near("group_norm", &channels[..3], &normalized(2));
        is_near("channel_affine", &channels[..3], &affine);
        is_near("group_norm_relu", &channels, &relu(2));
        is_near("add_layer_norm", &rows, &|x| {
            let (y, sum) = x[0].try_add_layer_norm(&x[1], [50], Some(&x[2]), Some(&x[3]), 1e-3)?;
            Ok(vec![y, sum])
        });
        is_near("add_rms_norm", &rows[..3], &|x| {
            let (y, sum) = x[0].try_add_rms_norm(&x[1], [50], Some(&x[2]), Some(1e-3))?;
            Ok(vec![y, sum])
        });
    }
}

fn affine(x: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(Tensor::try_compose(ChannelAffine, &[&x[0], &x[1], &x[2]])?.into_vec())
}

#[test]
fn normalization_by_known_statistics_is_its_definition_in_one_launch() {
    let _turn = turn();
    for gpu in devices() {
        for shape in [[1, 1, 1], [2, 3, 1], [5, 7, 11], [3, 2, 300], [2, 70, 33]] {
            let x = [normal(&shape, "x"), normal(&[shape[1]], "scale"), normal(&[shape[1]], "shift")];
            agrees(gpu, &format!("channel_affine of {shape:?}"), &x, 1, true, &affine);
        }
        let x = [normal(&[3, 35, 4], "x"), normal(&[4], "scale"), normal(&[4], "shift")];
        agrees(gpu, "channel_affine of channels that lie side by side", &x, 2, true, &|x| {
            affine(&[x[0].try_transpose(1, 2)?, x[1].clone(), x[2].clone()])
        });
    }
}
