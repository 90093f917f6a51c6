//! Gates, rotations, chains, and products with what is done to their elements.

use crate::adapter::{devices, turn};
use crate::{agrees, normal};
use gradus_core::ops::{UnaryGrad, UnaryOp};
use gradus_core::{Backward, Result, Tensor, autodiff};
use gradus_gpu::profile::profile;

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
    }
}
