//! Attention: tiles, masks, dropout, shared heads, and what no kernel covers.

use crate::adapter::{devices, turn};
use crate::{agrees, attend, heads, normal, numbers};
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::tensor::to_device;
use gradus_core::{Backward, DType, Device, Key, Result, Tensor, autodiff};

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
fn attention_of_a_query_of_nan_is_nan() {
    let _turn = turn();
    for gpu in devices() {
        let x: Vec<Tensor> = heads([1, 1, 5, 6, 8, 8]).iter().map(|t| t.to(gpu)).collect();
        let third = Tensor::arange(0i64, 5i64, 1i64, gpu).eq_scalar(2i64).reshape([5, 1]);
        let q = x[0].masked_fill(&third, f64::NAN);
        let y = numbers(&q.attention(&x[1], &x[2], &AttentionOptions::causal())).expect("the device works");
        let rows = y.chunks(8).enumerate();
        rows.for_each(|(i, y)| assert!(y.iter().all(|y| y.is_nan() == (i == 2)), "row {i}: {y:?}"));
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
