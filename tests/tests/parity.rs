//! Facts of PyTorch at ties, kinks, zeros and infinities, and mistakes of other libraries, tested for by name. The numbers
//! were printed by PyTorch 2.15 in `f64`.

use gradus_core::functional::loss::CrossEntropyOptions;
use gradus_core::{Backward, Device, Tensor, by_definition, grad};

fn cpu() -> Device {
    gradus_cpu::device()
}

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn t(data: &[f64]) -> Tensor {
    Tensor::from_slice(data, cpu())
}

#[track_caller]
fn same(have: &Tensor, want: &[f64]) {
    let have: Vec<f64> = have.to_vec().expect("a tensor on the CPU can be read");
    let close = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() < 1e-12 * b.abs().max(1.0);
    assert!(have.len() == want.len() && have.iter().zip(want).all(|(&a, &b)| close(a, b)), "{have:?} is not {want:?}");
}

/// Values and gradients of a sum of `f`'s elements; fused and by definition.
#[track_caller]
fn both(f: impl Fn(&[Tensor]) -> Tensor, x: &[&[f64]], value: &[f64], gradients: &[&[f64]]) {
    let check = || {
        let leaves: Vec<Tensor> = x.iter().map(|x| t(x).requires_grad()).collect();
        let y = f(&leaves);
        y.sum().backward();
        (y.detach(), leaves.iter().map(|l| l.grad().expect("a gradient")).collect::<Vec<_>>())
    };
    for (y, grads) in [check(), by_definition(check)] {
        same(&y, value);
        grads.iter().zip(gradients).for_each(|(g, want)| same(g, want));
    }
}

#[track_caller]
fn one(f: impl Fn(&Tensor) -> Tensor, x: &[f64], value: &[f64], gradient: &[f64]) {
    both(|x| f(&x[0]), &[x], value, &[gradient]);
}

#[test]
fn extremes_share_gradients_evenly_and_places_take_the_first() {
    one(|x| x.amax(&[0], false), &[1.0, 3.0, 3.0, 2.0], &[3.0], &[0.0, 0.5, 0.5, 0.0]);
    one(|x| x.max(), &[1.0, 3.0, 3.0, 2.0], &[3.0], &[0.0, 0.5, 0.5, 0.0]);
    one(|x| x.max_dim(0, false).0, &[1.0, 3.0, 3.0, 2.0], &[3.0], &[0.0, 1.0, 0.0, 0.0]);
    one(|x| x.min_dim(0, false).0, &[2.0, 1.0, 1.0], &[1.0], &[0.0, 1.0, 0.0]);
    both(
        |x| x[0].maximum(&x[1]),
        &[&[1.0, 2.0, 3.0], &[1.0, 5.0, 0.0]],
        &[1.0, 5.0, 3.0],
        &[&[0.5, 0.0, 1.0], &[0.5, 1.0, 0.0]],
    );
    same(&t(&[2.0, NAN, 1.0, INF]).sort(0, false).1, &[2.0, 0.0, 3.0, 1.0]);
    same(&t(&[1.0, 1.0, 1.0]).argsort(0, true), &[0.0, 1.0, 2.0]);
    same(&t(&[1.0, NAN, 3.0]).argmax(0, false), &[1.0]);
    same(&t(&[1.0, NAN, 3.0]).max(), &[NAN]);
    same(&t(&[NAN, 1.0]).maximum(&t(&[1.0, NAN])), &[NAN, NAN]);
    let (value, place) = t(&[3.0, 1.0, 2.0, 4.0]).median(0, false);
    same(&value, &[2.0]);
    same(&place, &[2.0]);
    let (value, place) = t(&[1.0, NAN, 0.0]).median(0, false);
    same(&value, &[NAN]);
    same(&place, &[1.0]);
}

#[test]
fn activations_at_their_kinks() {
    one(|x| x.relu(), &[-1.0, 0.0, 1.0], &[0.0, 0.0, 1.0], &[0.0, 0.0, 1.0]);
    one(|x| x.abs(), &[-1.0, 0.0, 1.0], &[1.0, 0.0, 1.0], &[-1.0, 0.0, 1.0]);
    one(|x| x.relu6(), &[0.0, 6.0, 3.0], &[0.0, 6.0, 3.0], &[0.0, 0.0, 1.0]);
    one(
        |x| x.clamp(Some(-1.0), Some(1.0)),
        &[-2.0, -1.0, 0.0, 1.0, 2.0],
        &[-1.0, -1.0, 0.0, 1.0, 1.0],
        &[0.0, 0.0, 1.0, 0.0, 0.0],
    );
    one(
        |x| x.hardtanh(-1.0, 1.0),
        &[-2.0, -1.0, 0.0, 1.0, 2.0],
        &[-1.0, -1.0, 0.0, 1.0, 1.0],
        &[0.0, 0.0, 1.0, 0.0, 0.0],
    );
    one(|x| x.leaky_relu(0.01), &[0.0], &[0.0], &[0.01]);
    one(|x| x.elu(1.0), &[0.0], &[0.0], &[1.0]);
    one(|x| x.hard_swish(), &[-3.0, 3.0], &[0.0, 3.0], &[0.0, 1.0]);
    one(|x| x.hard_sigmoid(), &[-3.0, 3.0], &[0.0, 1.0], &[0.0, 0.0]);
    one(|x| x.softshrink(0.5), &[-0.5, 0.5, 0.0], &[0.0, 0.0, 0.0], &[0.0, 0.0, 0.0]);
    one(|x| x.hardshrink(0.5), &[-0.5, 0.5, 0.0], &[0.0, 0.0, 0.0], &[0.0, 0.0, 0.0]);
    one(|x| x.threshold(1.0, 9.0), &[1.0], &[9.0], &[0.0]);
    one(|x| x.relu(), &[NAN], &[NAN], &[1.0]);
    one(|x| x.sigmoid(), &[-1000.0, 1000.0], &[0.0, 1.0], &[0.0, 0.0]);
    one(|x| x.softplus(), &[-1000.0, 1000.0], &[0.0, 1000.0], &[0.0, 1.0]);
    one(|x| x.log_sigmoid(), &[-1000.0, 1000.0], &[-1000.0, 0.0], &[1.0, 0.0]);
}

#[test]
fn powers_products_and_norms_at_zero() {
    both(
        |x| x[0].pow(&x[1]),
        &[&[0.0, 0.0, 2.0], &[0.0, 2.0, 0.0]],
        &[1.0, 0.0, 1.0],
        &[&[0.0, 0.0, 0.0], &[0.0, 0.0, std::f64::consts::LN_2]],
    );
    one(|x| x.powf(2.0), &[0.0], &[0.0], &[0.0]);
    one(|x| x.powf(0.0), &[0.0], &[1.0], &[0.0]);
    one(|x| x.prod(), &[0.0, 2.0, 3.0], &[0.0], &[6.0, 0.0, 0.0]);
    one(|x| x.prod(), &[0.0, 0.0, 3.0], &[0.0], &[0.0, 0.0, 0.0]);
    one(|x| x.cumprod(0), &[2.0, 0.0, 3.0], &[2.0, 0.0, 0.0], &[1.0, 8.0, 0.0]);
    one(|x| x.norm(2.0, &[], false), &[0.0, 0.0], &[0.0], &[0.0, 0.0]);
    one(|x| x.norm(1.0, &[], false), &[0.0, 2.0], &[2.0], &[0.0, 1.0]);
    one(|x| x.norm(INF, &[], false), &[3.0, -3.0], &[3.0], &[0.5, -0.5]);
    both(
        |x| x[0].xlogy(&x[1]),
        &[&[0.0, 0.0], &[0.0, 2.0]],
        &[0.0, 0.0],
        &[&[0.0, std::f64::consts::LN_2], &[NAN, 0.0]],
    );
    both(|x| x[0].atan2(&x[1]), &[&[0.0], &[-1.0]], &[std::f64::consts::PI], &[&[-1.0], &[0.0]]);
}

#[test]
fn infinities_and_nothing() {
    one(|x| x.logsumexp(&[0], false), &[-INF, -INF], &[-INF], &[NAN, NAN]);
    one(|x| x.logsumexp(&[0], false), &[INF, 1.0], &[INF], &[NAN, 0.0]);
    one(|x| x.logsumexp(&[0], false), &[1000.0, 1000.0], &[1000.0 + std::f64::consts::LN_2], &[0.5, 0.5]);
    one(|x| x.softmax(0) * t(&[1.0, 2.0]), &[-INF, 0.0], &[0.0, 2.0], &[0.0, 0.0]);
    same(&t(&[-INF, -INF]).softmax(0), &[NAN, NAN]);
    same(&t(&[1.0]).var(&[], 1, false), &[NAN]);
    same(&t(&[]).mean(), &[NAN]);
    same(&t(&[]).sum(), &[0.0]);
    same(&t(&[]).prod(), &[1.0]);
    assert!(t(&[]).try_max().is_err(), "there is no largest of nothing");
    let (values, inverse, counts) = t(&[1.0, NAN, 1.0, NAN]).unique();
    same(&values, &[1.0, NAN, NAN]);
    same(&inverse, &[0.0, 1.0, 0.0, 2.0]);
    same(&counts, &[2.0, 1.0, 1.0]);
}

#[test]
fn rounding_and_remainders() {
    same(&t(&[0.5, 1.5, 2.5, -0.5]).round(), &[0.0, 2.0, 2.0, 0.0]);
    let (a, b) = (t(&[-7.0, 7.0, -7.0]), t(&[3.0, -3.0, -3.0]));
    same(&a.remainder(&b), &[2.0, -2.0, -1.0]);
    same(&a.fmod(&b), &[-1.0, 1.0, -1.0]);
    let (a, b) = (Tensor::from_slice(&[-7i64, 7], cpu()), Tensor::from_slice(&[2i64, -2], cpu()));
    same(&a.floor_divide(&b), &[-4.0, -4.0]);
    same(&a.remainder(&Tensor::from_slice(&[2i64, -3], cpu())), &[1.0, -2.0]);
    same(&t(&[1.0, -2.0]).gelu(), &[0.841_344_746_068_542_9, -0.045_500_263_896_358_42]);
}

#[test]
fn cross_entropy_ignores_weighs_and_smooths() {
    let target = |y: &[i64]| Tensor::from_slice(y, cpu());
    let x = t(&[1.0, 2.0, 3.0, 1.0, 1.0, 1.0]).reshape([2, 3]);
    let lse = (1f64.exp() + 2f64.exp() + 3f64.exp()).ln();
    same(&x.cross_entropy(&target(&[2, -100])), &[lse - 3.0]);
    same(&x.i(..1).cross_entropy(&target(&[-100])), &[NAN]); // the mean of no rows
    let options = CrossEntropyOptions { weight: Some(t(&[1.0, 2.0, 0.5])), smoothing: 0.1, ..Default::default() };
    let x = t(&[1.0, 2.0, 3.0, 0.5, 1.0, -1.0]).reshape([2, 3]);
    let loss: f64 = x.cross_entropy_with(&target(&[2, 0]), &options).item().expect("one element");
    assert!((loss - 0.9523).abs() < 5e-5, "{loss}");
    for bad in [3, -1] {
        let e = x.try_cross_entropy(&target(&[2, bad])).map(|l| l.item::<f64>());
        assert!(matches!(e, Err(_) | Ok(Err(_))), "class {bad} of 3 is out of range");
    }
    let e = x.try_cross_entropy(&target(&[0, 1, 2])).expect_err("3 targets for 2 rows").to_string();
    assert!(e.contains("[2]") && e.contains("[3]"), "{e}");
}

/// candle's LayerNorm, RmsNorm and softmax have kernels without a gradient: what lies before them silently stops learning.
#[test]
fn fused_functions_keep_the_graph() {
    let x = Tensor::randn([4, 6], cpu(), 1).requires_grad();
    let (w, b) = (Tensor::randn([6], cpu(), 2).requires_grad(), Tensor::randn([6], cpu(), 3).requires_grad());
    let kinds: [(&str, Tensor); 6] = [
        ("softmax", x.softmax(1)),
        ("log_softmax", x.log_softmax(1)),
        ("layer_norm", x.layer_norm([6], Some(&w), Some(&b), 1e-5)),
        ("rms_norm", x.rms_norm([6], Some(&w), None)),
        ("attention", x.attention(&x, &x, &Default::default())),
        ("dropout", x.dropout(0.5, 4)),
    ];
    for (name, y) in kinds {
        assert!(y.is_tracked(), "{name} cuts the graph");
        let loss = (&y * &y * &y).sum();
        let first = grad(&[&loss], &[&x], Backward::graph()).swap_remove(0);
        let reached: f64 = first.abs().max().item().expect("one element");
        assert!(reached > 1e-3, "{name}: the gradient is zero");
        assert!(first.is_tracked(), "{name}: its gradient cannot be differentiated again");
    }
}
