//! Parameters and states by name: out, in, and every way in which they may not fit.

use gradus_core::{DType, Tensor};
use gradus_nn::{BatchNorm1d, Cx, Init, Layer, Linear, Module, Param, Relu, Sequential};

fn net(seed: u64) -> Sequential {
    let mut init = Init::new(gradus_cpu::device(), seed);
    Sequential::new()
        .add(Linear::new(3, 4, &mut init))
        .add(BatchNorm1d::new(4, &mut init))
        .add(Relu)
        .add(Linear::new(4, 2, &mut init).bias(false))
}

fn input() -> Tensor {
    Tensor::randn([8, 3], gradus_cpu::device(), 11)
}

fn values(m: &dyn Module) -> Vec<(String, Vec<f64>)> {
    m.state_dict().into_iter().map(|(name, t)| (name, t.to_vec::<f64>().expect("readable"))).collect()
}

#[test]
fn a_state_goes_from_model_to_model() {
    let (mut a, mut b) = (net(1), net(2));
    a.call(&input(), &Cx::train(0, 0)); // moves the running averages
    assert_ne!(values(&a), values(&b));
    let state = a.state_dict();
    let names: Vec<&str> = state.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "0.bias",
            "0.weight",
            "1.bias",
            "1.num_batches_tracked",
            "1.running_mean",
            "1.running_var",
            "1.weight",
            "3.weight"
        ]
    );
    b.load_state_dict(&state).expect("it fits");
    assert_eq!(values(&a), values(&b));
    let [ya, yb] = [&a, &b].map(|m| m.call(&input(), &Cx::eval()).to_vec::<f32>().expect("readable"));
    assert_eq!(ya, yb);
    // What was handed out does not follow later changes.
    let before = values(&a);
    let kept = a.state_dict();
    for (_, p) in a.named_parameters_mut() {
        let new = p.detach() + 1.0;
        p.value_mut().write_value(&new).expect("of the same shape");
    }
    assert_ne!(values(&a), before);
    a.load_state_dict(&kept).expect("it fits");
    assert_eq!(values(&a), before);
}

#[test]
fn loading_keeps_leaves_and_frozen_parameters() {
    let (mut a, b) = (net(1), net(2));
    a.for_each_parameter_mut(&mut |name, p| {
        if name == "0.weight" {
            p.freeze()
        }
    });
    a.load_state_dict(&b.state_dict()).expect("it fits");
    let frozen: Vec<String> =
        a.named_parameters().into_iter().filter(|(_, p)| p.is_frozen()).map(|(name, _)| name).collect();
    assert_eq!(frozen, ["0.weight"]);
    a.call(&input(), &Cx::train(0, 0)).sum().backward();
    for (name, p) in a.named_parameters() {
        assert_eq!(p.grad().is_none(), name == "0.weight", "{name}");
    }
}

#[test]
fn every_mismatch_is_listed_and_nothing_changes() {
    let mut m = net(1);
    let before = values(&m);
    let device = gradus_cpu::device();
    let mut state = net(2).state_dict();
    state.remove("0.bias");
    state.remove("1.running_mean");
    state.insert("3.bias".into(), Tensor::zeros([2], device));
    state.insert("0.weight".into(), Tensor::zeros([3, 4], device));
    state.insert("3.weight".into(), Tensor::zeros([2, 4], device.with(DType::F64)));
    let error = m.load_state_dict(&state).expect_err("it does not fit").to_string();
    assert_eq!(
        error,
        "the state does not fit the model (5 mismatches):\
         \n  0.weight: the model has f32 [4, 3], the state f32 [3, 4]\
         \n  0.bias: missing; the model wants f32 [4]\
         \n  1.running_mean: missing; the model wants f32 [4]\
         \n  3.weight: the model has f32 [2, 4], the state f64 [2, 4]\
         \n  3.bias: unexpected; the state has f32 [2], the model nothing of that name"
    );
    assert_eq!(values(&m), before);
}

#[derive(Module)]
struct Twice {
    #[module(flatten)]
    a: Pair,
    #[module(flatten)]
    b: Pair,
}
#[derive(Module)]
struct Pair {
    weight: Param,
}

#[test]
#[should_panic(expected = "two parts of the model are called weight")]
fn two_parts_of_one_name_are_refused() {
    let pair = || Pair { weight: Param::new(Tensor::zeros([1], gradus_cpu::device())) };
    Twice { a: pair(), b: pair() }.state_dict();
}

#[test]
fn a_dtype_is_changed_as_a_whole() {
    let mut m = net(1);
    m.to_dtype(DType::F64).expect("a float");
    for (name, t) in m.state_dict() {
        assert_eq!(t.dtype(), if name.ends_with("tracked") { DType::I64 } else { DType::F64 }, "{name}");
    }
    assert_eq!(m.call(&input().to_dtype(DType::F64), &Cx::eval()).dtype(), DType::F64);
    assert!(m.to_dtype(DType::I64).expect_err("no float").to_string().contains("i64"));
    m.to_device(gradus_cpu::device()).expect("it is there already");
}

#[test]
fn a_clone_is_a_model_of_its_own() {
    let mut a = net(1);
    let b = a.clone();
    a.call(&input(), &Cx::train(0, 0)).sum().backward();
    assert!(a.named_parameters().iter().all(|(_, p)| p.grad().is_some()));
    assert!(b.named_parameters().iter().all(|(_, p)| p.grad().is_none()), "gradients reached the clone");
    assert_eq!(
        b.state_dict()["1.num_batches_tracked"].item::<i64>().expect("a number"),
        0,
        "statistics reached the clone"
    );
    let before = values(&b);
    for (_, p) in a.named_parameters_mut() {
        let new = p.detach() * 2.0 + 1.0;
        p.value_mut().write_value(&new).expect("of the same shape");
    }
    assert_eq!(values(&b), before);
    a.zero_grad();
    assert!(a.named_parameters().iter().all(|(_, p)| p.grad().is_none()));
}

#[test]
fn a_parameter_freezes_and_thaws() {
    let mut p = Param::new(Tensor::ones([2], gradus_cpu::device()));
    (&*p * 3.0).sum().backward();
    assert_eq!(p.grad().expect("a gradient").to_vec::<f32>().expect("readable"), [3.0; 2]);
    p.set_grad(Tensor::ones([2], gradus_cpu::device())).expect("it fits");
    assert_eq!(p.grad().expect("a gradient").to_vec::<f32>().expect("readable"), [1.0; 2]);
    p.freeze();
    assert!(p.is_frozen() && p.grad().is_none() && !(&*p * 3.0).is_tracked());
    p.replace(Tensor::zeros([3], gradus_cpu::device())).expect("any shape");
    assert!(p.is_frozen());
    p.unfreeze();
    assert!(!p.is_frozen() && p.dims() == [3]);
    assert!(Param::try_new(Tensor::arange(0, 3, 1, gradus_cpu::device().with(DType::I64))).is_err());
}
