//! Attention's kernels for tensor cores, with the two things that only such a device can do emulated by threads: everything else
//! is the same code, line by line. In `f32` the emulation rounds nothing, so these results must be as near to the definition
//! as those of the plain kernels; in `f16` they lie within what rounding probabilities and results to `f16` explains.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;
mod definition;

use adapter::{devices, turn};
use definition::{agrees, attend, heads, normal, numbers};
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::tensor::to_device;
use gradus_core::{Backward, DType, Device, Key, Result, Tensor, autodiff};
use gradus_gpu::profile::profile;
use gradus_gpu::strategies::{Strategies, set_strategies, strategies};

/// Runs `work` on each device while it emulates tensor cores.
fn on_each(work: impl Fn(Device)) {
    let _turn = turn();
    for gpu in devices() {
        let (_, usual) = strategies(gpu).expect("it is a GPU");
        let emulated = Strategies { attention_cores: 2, ..usual };
        set_strategies(gpu, emulated).expect("it is a GPU");
        // Whatever comes of it, the next test finds the usual ones.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(gpu)));
        set_strategies(gpu, usual).expect("it is a GPU");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// Outputs and the gradients of Σ g·y with uneven g that `f16` has.
fn attended(x: &[Tensor], options: &AttentionOptions) -> Result<Vec<Tensor>> {
    let x: Vec<Tensor> = x.iter().map(|t| t.detach().requires_grad()).collect();
    let y = x[0].try_attention(&x[1], &x[2], options)?;
    let g = gradient(&y)?;
    let grads = autodiff::try_grad(&[&y.try_mul(&g)?.try_sum()?], &[&x[0], &x[1], &x[2]], Backward::default())?;
    Ok([vec![y.detach()], grads].concat())
}

fn gradient(y: &Tensor) -> Result<Tensor> {
    let g: Vec<f64> = (0..y.elements()).map(|i| ((i * 37) % 11) as f64 / 8.0 - 0.5).collect();
    to_device(&Tensor::try_from_vec(g, *y.shape(), gradus_cpu::device())?.try_to_dtype(y.dtype())?, y.device())
}

#[test]
fn emulated_tensor_cores_are_asked_forward_and_backward() {
    on_each(|gpu| {
        let x: Vec<Tensor> = heads([1, 1, 40, 40, 8, 16]).iter().map(|t| t.to(gpu)).collect();
        let (_, profile) = profile(|| attended(&x, &AttentionOptions::causal()).expect("it runs"));
        let page = profile.to_string();
        let (cores, plain) = (page.matches("attention/tensor_cores.rs").count(), page.contains("attention/plain.rs"));
        assert!(cores == 3 && !plain, "{page}");
    });
}

#[test]
fn attention_is_its_definition_at_every_edge_of_a_tile() {
    on_each(|gpu| {
        // Three kernels take seconds to compile on a software device: cases share those they can.
        for (size, causal) in [
            ([1, 1, 1, 1, 8, 16], true),
            ([2, 2, 33, 70, 8, 16], true),
            ([1, 1, 100, 33, 8, 16], true),
            ([1, 1, 70, 100, 80, 40], false),
        ] {
            let options = AttentionOptions { causal, ..Default::default() };
            agrees(
                gpu,
                &format!("attention {size:?}, causal {causal}"),
                &heads(size),
                1,
                size[4] < 40,
                &attend(options),
            );
        }
        let grouped =
            |x: &[Tensor]| Ok(vec![x[0].try_attention(&x[1], &x[2], &AttentionOptions::causal().grouped())?]);
        let x = [normal(&[2, 4, 34, 8], "q"), normal(&[2, 2, 34, 8], "k"), normal(&[2, 2, 34, 8], "v")];
        agrees(gpu, "four heads of queries to two of keys", &x, 1, true, &grouped);
    });
}

#[test]
fn attention_with_masks_and_dropout_of_turned_heads_is_its_definition() {
    on_each(|gpu| {
        // A head's columns that do not lie side by side, of 17 and 9 numbers; the third query sees nothing.
        let x = [normal(&[2, 2, 17, 19], "q"), normal(&[2, 2, 17, 35], "k"), normal(&[2, 2, 9, 35], "v")];
        let seen = |i: usize| i / 35 != 2 && !(i * 7).is_multiple_of(3);
        let seen = Tensor::from_vec((0..19 * 35).map(seen).collect::<Vec<bool>>(), [19, 35], gradus_cpu::device());
        let added = normal(&[2, 1, 19, 35], "mask");
        // Words of the dropout's mask that differed would give other results altogether.
        let dropped = AttentionOptions::default().dropout(0.3, Key::new(5).fold("dropout").at(3));
        for (mask, options) in [(&seen, AttentionOptions::causal()), (&added, dropped)] {
            let turned = |x: &[Tensor]| {
                let [q, k, v] = [&x[0], &x[1], &x[2]].map(|t| t.transpose(-1, -2));
                // Not an argument: a mask that is learnt goes by the definition in backward.
                let mask = if mask.dtype().is_float() { mask.try_to_dtype(x[0].dtype())? } else { mask.clone() };
                let options = AttentionOptions { mask: Some(to_device(&mask, x[0].device())?), ..options.clone() };
                Ok(vec![q.try_attention(&k, &v, &options)?])
            };
            agrees(gpu, &format!("attention with a mask of {}", mask.dtype()), &x, 1, true, &turned);
        }
    });
}

/// `[batch, heads, rows, columns]` as `f64` of what a tensor of halves holds.
fn exactly(x: &Tensor) -> Tensor {
    x.to(gradus_cpu::device()).to_dtype(DType::F64).detach()
}

/// How far outputs, dq, dk and dv may lie from what `f64` makes of the same halves, if probabilities, ds and results are rounded to
/// halves, each by at most `u` of itself, and y enters δ rounded. Sums in `f32` are exact beside that.
fn bounds(x: &[Tensor], causal: bool, u: f64) -> Vec<Tensor> {
    let [q, k, v] = [&x[0], &x[1], &x[2]];
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let mut scores = q.matmul(&k.transpose(-1, -2)) * scale;
    if causal {
        let (queries, keys) = (q.dims()[2], k.dims()[2]);
        let unseen = (0..queries * keys).map(|at| if at % keys > at / keys { -1e300 } else { 0.0 }).collect();
        scores = &scores + &Tensor::from_vec::<f64>(unseen, [queries, keys], gradus_cpu::device());
    }
    let p = scores.softmax(-1);
    let y = p.matmul(v);
    let g = gradient(&y).expect("it runs");
    let of_y = (p.matmul(&v.abs()) + y.abs()) * u;
    let of_delta = (g.abs() * of_y.clone()).sum_dims(&[-1], true);
    let ds = &p * &(g.matmul(&v.transpose(-1, -2)) - (&g * &y).sum_dims(&[-1], true));
    let of_ds = (ds.abs() * u + p.clone() * of_delta) * scale;
    let (dq, dk) = (ds.matmul(k) * scale, ds.transpose(-1, -2).matmul(q) * scale);
    let dv = p.transpose(-1, -2).matmul(&g);
    vec![
        of_y,
        of_ds.matmul(&k.abs()) + dq.abs() * u,
        of_ds.transpose(-1, -2).matmul(&q.abs()) + dk.abs() * u,
        (p.transpose(-1, -2).matmul(&g.abs()) + dv.abs()) * u,
    ]
}

#[test]
fn halves_differ_by_their_rounding_and_no_more() {
    on_each(|gpu| {
        for (dtype, u) in [(DType::F16, 1.0 / 2048.0), (DType::Bf16, 1.0 / 256.0)] {
            if !gpu.backend().supports(dtype) {
                println!("{gpu} has no {dtype}");
                continue;
            }
            for (size, causal) in [([1, 2, 100, 70, 128, 64], true), ([1, 1, 17, 70, 128, 64], true)] {
                let x: Vec<Tensor> = heads(size).iter().map(|t| t.to_dtype(dtype).to(gpu)).collect();
                let options = AttentionOptions { causal, ..Default::default() };
                let wide: Vec<Tensor> = x.iter().map(exactly).collect();
                let got = attended(&x, &options).expect("it runs");
                let exact = attended(&wide, &options).expect("it runs");
                let bounds = bounds(&wide, causal, u);
                for (part, ((got, exact), bound)) in got.iter().zip(&exact).zip(&bounds).enumerate() {
                    let [got, exact, bound] = [got, exact, bound].map(|t| numbers(t).expect("it runs"));
                    let worst = (0..got.len())
                        .map(|i| (got[i] - exact[i]).abs() / (1.01 * bound[i] + 1e-5))
                        .fold(0.0, f64::max);
                    assert!(got.len() == exact.len() && worst <= 1.0, "{dtype} {size:?}: result {part} off by {worst}");
                }
            }
        }
    });
}

#[test]
fn the_same_bits_each_time() {
    on_each(|gpu| {
        let step = || -> Vec<u32> {
            let x: Vec<Tensor> = heads([2, 2, 70, 70, 8, 16]).iter().map(|t| t.to(gpu)).collect();
            let all = attended(&x, &AttentionOptions::causal()).expect("it runs");
            all.iter().flat_map(|t| t.to_vec::<f32>().expect("the device works")).map(f32::to_bits).collect()
        };
        assert_eq!(step(), step());
    });
}
