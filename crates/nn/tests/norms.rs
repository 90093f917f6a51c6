//! Normalizations and dropout with a residual give what the steps one by one do.

use gradus_core::{Device, Tensor};
use gradus_nn::{Cx, Dropout, GroupNorm, Init, Layer, LayerNorm, RmsNorm};
use std::sync::{Arc, Mutex};

fn device() -> Device {
    gradus_cpu::device()
}

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, device(), seed)
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.to_vec::<f32>().expect("readable").into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_norm_of_a_sum_gives_the_bits_of_a_sum_and_a_norm() {
    let (x, residual, cx) = (randn(&[3, 5, 40], 0), randn(&[3, 5, 40], 1), Cx::eval());
    let mut init = Init::new(device(), 2);
    let sum = &x + &residual;
    let layer = LayerNorm::new([5, 40], &mut init);
    for norm in [layer.clone(), layer.clone().bias(false), layer.affine(false)] {
        let (y, s) = norm.call_add(&x, &residual, &cx);
        assert_eq!((bits(&y), bits(&s)), (bits(&norm.call(&sum, &cx)), bits(&sum)), "{norm:?}");
    }
    for norm in [RmsNorm::new(40, &mut init), RmsNorm::new(40, &mut init).affine(false).eps(1e-3)] {
        let (y, s) = norm.call_add(&x, &residual, &cx);
        assert_eq!((bits(&y), bits(&s)), (bits(&norm.call(&sum, &cx)), bits(&sum)), "{norm:?}");
    }
}

/// Of many places in a row, and of few.
#[test]
fn a_group_norm_with_residual_and_relu_gives_the_bits_of_its_steps() {
    let (cx, norm) = (Cx::eval(), GroupNorm::new(2, 6, &mut Init::new(device(), 0)));
    for norm in [norm.clone(), norm.clone().bias(false), norm.affine(false)] {
        for places in [3, 50] {
            let (x, residual) = (randn(&[4, 6, places], 1), randn(&[4, 6, places], 2));
            let plain = norm.call(&x, &cx);
            assert_eq!(bits(&norm.call_relu(&x, None, &cx)), bits(&plain.relu()), "{norm:?}");
            let with = norm.call_relu(&x, Some(&residual), &cx);
            assert_eq!(bits(&with), bits(&(plain + residual).relu()), "{norm:?} with a residual");
        }
    }
}

#[test]
fn a_dropout_and_a_sum_give_the_bits_of_a_dropout_and_then_a_sum() {
    let (x, residual, drop) = (randn(&[5, 700], 0), randn(&[5, 700], 1), Dropout::new(0.3));
    for cx in [|| Cx::train(4, 5), Cx::eval] {
        let steps = drop.call(&x, &cx()) + &residual;
        assert_eq!(bits(&drop.call_add(&x, &residual, &cx())), bits(&steps));
        let turned = drop.call_add(&x.transpose(0, 1), &residual.transpose(0, 1), &cx());
        assert_eq!(bits(&turned), bits(&(drop.call(&x.transpose(0, 1), &cx()) + residual.transpose(0, 1))));
    }
    let e = drop.try_call_add(&x, &randn(&[5, 7], 0), &Cx::train(0, 0)).expect_err("shapes differ").to_string();
    assert!(e.contains("a residual of f32 [5, 700] would fit, not f32 [5, 7]"), "{e}");
}

/// The observer sees the normalized tensor once; errors name the shapes.
#[test]
fn a_norm_of_a_sum_is_a_call_of_its_layer() {
    let norm = LayerNorm::new(4, &mut Init::new(device(), 0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let cx = Cx::eval().observing(move |call| {
        log.lock().expect("nobody panicked").push((call.kind.to_string(), call.output.dims().to_vec()));
    });
    norm.call_add(&randn(&[2, 4], 0), &randn(&[2, 4], 1), &cx);
    assert_eq!(*seen.lock().expect("nobody panicked"), [("LayerNorm".to_string(), vec![2, 4])]);
    let e = norm.try_call_add(&randn(&[2, 4], 0), &randn(&[3, 4], 1), &cx).expect_err("shapes differ").to_string();
    assert!(e.contains("a residual of [2, 4] would fit") && e.contains("[3, 4]"), "{e}");
    let e = GroupNorm::new(2, 4, &mut Init::new(device(), 0))
        .try_call_relu(&randn(&[2, 4, 3], 0), Some(&randn(&[2, 4, 4], 1)), &cx)
        .expect_err("shapes differ")
        .to_string();
    assert!(e.contains("a residual of [2, 4, 3] would fit") && e.contains("[2, 4, 4]"), "{e}");
    // As many places in another order would be added where they do not belong.
    let (x, turned) = (randn(&[2, 4, 3, 5], 0), randn(&[2, 4, 5, 3], 1));
    let (w, b) = (randn(&[4], 2), randn(&[4], 3));
    for e in [
        x.try_group_norm_relu(2, &w, &b, Some(&turned), 1e-5).expect_err("shapes differ"),
        x.try_batch_norm_relu_train(&w, &b, Some(&turned), 1e-5).expect_err("shapes differ"),
    ] {
        assert!(e.to_string().contains("a residual of [2, 4, 3, 5] would fit"), "{e}");
    }
}
