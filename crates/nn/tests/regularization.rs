//! DropPath, DropBlock, noise, gradient penalties; forward hooks; the audit of gradient flow.

use gradus_core::autodiff::{GradCheck, gradcheck};
use gradus_core::{DType, Device, Key, Result, Tensor};
use gradus_nn::*;
use std::sync::{Arc, Mutex};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_vec().expect("it can be read")
}

#[test]
fn drop_path_drops_whole_samples_and_keeps_the_mean() {
    let (layer, x) = (DropPath::new(0.25), Tensor::ones([4000, 2, 3], cpu()));
    let y = values(&layer.call(&x, &Cx::train(1, 0)));
    let kept = y.chunks(6).filter(|s| s.iter().all(|v| (v - 1.0 / 0.75).abs() < 1e-6)).count();
    let dropped = y.chunks(6).filter(|s| s.iter().all(|v| *v == 0.0)).count();
    assert_eq!(kept + dropped, 4000);
    assert!((dropped as f64 / 4000.0 - 0.25).abs() < 0.03, "{dropped}");
    assert_eq!(values(&layer.call(&x, &Cx::eval())), values(&x));
    assert!(values(&DropPath::new(1.0).call(&x, &Cx::train(1, 0))).iter().all(|v| *v == 0.0));
}

#[test]
fn drop_block_drops_squares() {
    let (size, side) = (3, 16);
    let (layer, x) = (DropBlock::new(0.2, size), Tensor::ones([8, 4, side, side], cpu()));
    let y = layer.call(&x, &Cx::train(1, 0));
    let v = values(&y);
    let dropped = v.iter().filter(|v| **v == 0.0).count() as f64 / v.len() as f64;
    assert!((dropped - 0.18).abs() < 0.05, "{dropped}: squares that overlap drop a little less than 0.2");
    assert!((f64::from(values(&y.mean())[0]) - 1.0).abs() < 1e-5, "the mean is kept");
    for map in v.chunks(side * side) {
        // Every dropped element lies in a dropped square that fits into the map.
        let zero = |r: usize, c: usize| map[r * side + c] == 0.0;
        let square = |r: usize, c: usize| (r..r + size).all(|r| (c..c + size).all(|c| zero(r, c)));
        for at in (0..side * side).filter(|&at| zero(at / side, at % side)) {
            let (r, c) = (at / side, at % side);
            let starts = |x: usize| x.saturating_sub(size - 1)..=x.min(side - size);
            assert!(starts(r).any(|r| starts(c).any(|c| square(r, c))), "a lone zero at {r}, {c}");
        }
    }
    assert_eq!(values(&layer.call(&x, &Cx::eval())), values(&x));
    // A map smaller than the square, and a part of 1: nothing is left, and nothing is NaN.
    let y = DropBlock::new(1.0, 7).call(&Tensor::ones([2, 1, 3, 2], cpu()), &Cx::train(1, 0));
    assert!(values(&y).iter().all(|v| *v == 0.0));
}

#[test]
fn noise_has_its_deviation_and_a_gradient() {
    let (layer, x) = (GaussianNoise::new(0.5), Tensor::zeros([100, 100], cpu()).requires_grad());
    let y = layer.call(&x, &Cx::train(3, 0));
    let deviation = f64::from(values(&y.std(&[], 1, false))[0]);
    assert!((deviation - 0.5).abs() < 0.02, "{deviation}");
    y.sum().backward();
    assert!(values(&x.grad().expect("it flows")).iter().all(|g| *g == 1.0));
    assert_eq!(values(&layer.call(&x, &Cx::eval())), values(&x));
    assert_ne!(values(&layer.call(&x, &Cx::train(3, 1))), values(&y), "another step, other noise");
}

#[test]
fn a_gradient_penalty_is_differentiable_by_the_parameters() -> Result<()> {
    let draw = |name: &str, shape: &[usize]| Tensor::randn(shape, cpu().with(DType::F64), Key::new(5).fold(name));
    let (x, w, v) = (draw("x", &[3, 4]), draw("w", &[4, 5]), draw("v", &[5]));
    let penalty =
        |p: &[Tensor]| Ok(vec![gradient_penalty(|x| x.try_matmul(&p[0])?.try_tanh()?.try_matmul(&p[1]), &x, 1.0)?]);
    gradcheck(penalty, &[&w, &v], GradCheck { relative: 1e-6, absolute: 1e-8, ..GradCheck::default() })?;
    let e = gradient_penalty(|_| Ok(w.sum()), &x, 1.0).unwrap_err().to_string();
    assert!(e.contains("gradient_penalty"), "{e}");
    Ok(())
}

#[test]
fn hooks_see_and_replace_outputs_inner_layers_first() {
    let mut init = Init::new(cpu(), 0);
    let mut m = Sequential::new().add(Linear::new(2, 2, &mut init)).add(Relu);
    m.assign_paths();
    let x = Tensor::ones([1, 2], cpu());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (first, last) = (seen.clone(), seen.clone());
    let cx = Cx::eval()
        .hooked(move |call| {
            first.lock().expect("nobody panicked").push(call.kind);
            (call.kind == "Linear").then(|| call.output.full_like(3.0))
        })
        .hooked(|call| (call.kind == "Linear").then(|| call.output + 1.0))
        .observing(move |call| last.lock().expect("nobody panicked").push(call.kind));
    assert_eq!(values(&m.call(&x, &cx)), [4.0, 4.0]);
    let seen = seen.lock().expect("nobody panicked");
    assert_eq!(seen.iter().filter(|k| **k == "Linear").count(), 2, "{seen:?}: the hook and the observer");
    assert!(seen.first() == Some(&"Linear") && seen.last() == Some(&"Sequential"), "{seen:?}");
}

#[derive(Module)]
struct TwoHeads {
    trunk: Linear,
    left: Linear,
    right: Linear,
    dead: Param,
}

#[test]
fn the_audit_names_what_is_not_trained() -> Result<()> {
    let mut init = Init::new(cpu(), 0);
    let mut m = TwoHeads {
        trunk: Linear::new(3, 4, &mut init),
        left: Linear::new(4, 1, &mut init),
        right: Linear::new(4, 1, &mut init),
        dead: Param::new(Tensor::ones([1], cpu())),
    };
    let loss = |m: &TwoHeads, cut: bool| {
        let h = m.trunk.call(&Tensor::ones([2, 3], cpu()), &Cx::eval());
        let right = m.right.call(&h, &Cx::eval());
        (m.left.call(&h, &Cx::eval()) + if cut { right.detach() } else { right } + &*m.dead * 0.0).sum()
    };
    loss(&m, true).backward();
    let flow = audit_gradients(&m)?;
    assert_eq!(
        (flow.trainable, &flow.missing[..], &flow.zero[..]),
        (7, &["right.weight".to_owned(), "right.bias".into()][..], &["dead".to_owned()][..])
    );
    let text = flow.to_string();
    assert!(
        text.contains("3 of 7") && text.contains("right.weight, right.bias") && text.contains("zeros only: dead"),
        "{text}"
    );
    m.zero_grad();
    m.dead.freeze();
    loss(&m, false).backward();
    let flow = audit_gradients(&m)?;
    assert!(flow.is_sound() && flow.trainable == 6, "{flow}");
    Ok(())
}
