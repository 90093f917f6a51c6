//! The optimizer around the rules: groups, transforms, missing gradients, state, bad settings, replays, bits.

use gradus_core::capture::Captured;
use gradus_core::functional::update::{AdamUpdate, SgdUpdate};
use gradus_core::{DType, Result, Tensor, by_definition};
use gradus_nn::{Module, Param};
use gradus_optim::*;
use std::collections::BTreeMap;

type Model = BTreeMap<String, Param>;

/// A model of one-dimensional parameters.
fn model(parts: &[(&str, &[f32])]) -> Model {
    let param = |x: &[f32]| Param::new(Tensor::from_slice(x, gradus_cpu::device()));
    parts.iter().map(|(name, x)| (name.to_string(), param(x))).collect()
}

fn set_grad(model: &Model, name: &str, grad: &[f32]) {
    model[name].set_grad(Tensor::from_slice(grad, gradus_cpu::device())).unwrap();
}

fn value(model: &Model, name: &str) -> Vec<f32> {
    model[name].to_vec().unwrap()
}

fn refusal(r: Result<Optimizer>) -> String {
    r.err().expect("it was taken").to_string()
}

#[test]
fn a_parameter_has_its_first_groups_settings() -> Result<()> {
    let mut m = model(&[("a.bias", &[1.0]), ("a.weight", &[1.0]), ("b.weight", &[1.0])]);
    let mut o = Sgd::new(0.5)
        .weight_decay(1.0)
        .optimizer()
        .group(Group::matching("*.bias").weight_decay(0.0))
        .group(Group::matching("a.*").learning_rate_factor(0.5))
        .build(&m)?;
    for name in ["a.bias", "a.weight", "b.weight"] {
        set_grad(&m, name, &[1.0]);
    }
    let report = o.step(&mut m)?;
    assert_eq!((report.step, report.learning_rate, report.updated, report.skipped), (1, 0.5, 3, 0));
    assert_eq!(value(&m, "a.bias"), [0.5], "no decay");
    assert_eq!(value(&m, "a.weight"), [0.5], "half the rate, and decay");
    assert_eq!(value(&m, "b.weight"), [0.0], "the rule's own");
    Ok(())
}

#[test]
fn bad_settings_are_refused_by_name_and_value() {
    let m = model(&[("fc.weight", &[1.0]), ("fc.bias", &[1.0])]);
    let built = |b: OptimizerBuilder| refusal(b.build(&m));
    let adamw = || AdamW::new(1e-3).optimizer();
    for (refused, words) in [
        (built(AdamW::new(f64::NAN).into()), vec!["AdamW", "learning rate", "NaN"]),
        (built(Sgd::new(-0.1).into()), vec!["Sgd", "learning rate", "-0.1"]),
        (built(Adam::new(f64::INFINITY).into()), vec!["Adam", "learning rate", "inf"]),
        (built(Adam::new(1.0).betas(1.0, 0.9).into()), vec!["beta1", "less than 1", "got 1"]),
        (built(Adam::new(1.0).betas(0.9, -0.5).into()), vec!["beta2", "-0.5"]),
        (built(Adam::new(1.0).eps(f64::NAN).into()), vec!["eps", "NaN"]),
        (built(AdamW::new(1.0).weight_decay(-1.0).into()), vec!["weight decay", "-1"]),
        (built(Sgd::new(1.0).momentum(f64::NAN).into()), vec!["momentum", "NaN"]),
        (built(Sgd::new(1.0).nesterov().into()), vec!["momentum", "Nesterov", "got 0"]),
        (built(Sgd::new(1.0).momentum(0.9).dampening(0.1).nesterov().into()), vec!["dampening", "0.1"]),
        (built(adamw().schedule(Cosine::new(0))), vec!["Cosine", "total", "got 0"]),
        (built(adamw().schedule(Cosine::warmup(9, 9))), vec!["Cosine", "warm-up", "got 9"]),
        (built(adamw().schedule(Exponential::new(f64::NAN))), vec!["Exponential", "gamma", "NaN"]),
        (built(adamw().schedule(StepDecay::new(0, 0.1))), vec!["StepDecay", "every", "got 0"]),
        (built(adamw().schedule(OneCycle::new(9).peak_at(1.5))), vec!["OneCycle", "peak", "1.5"]),
        (built(adamw().schedule(Warmup::new(3).from(-1.0))), vec!["Warmup", "-1"]),
        (built(adamw().schedule(Lambda::new(|_| f64::NAN))), vec!["Lambda", "step 0", "NaN"]),
        (built(adamw().transform(ClipNorm::new(0.0))), vec!["ClipNorm", "norm", "got 0"]),
        (built(adamw().transform(ClipValue::new(f64::NAN))), vec!["ClipValue", "NaN"]),
        (built(adamw().transform(L1::new(-1.0))), vec!["L1", "lambda", "-1"]),
        (built(adamw().transform(L2::new(f64::INFINITY))), vec!["L2", "lambda", "inf"]),
        (built(adamw().transform(ElasticNet::new(0.1, 1.5))), vec!["ElasticNet", "ratio"]),
        (built(adamw().transform(L2::new(0.1).only("*.wieght"))), vec!["L2", "\"*.wieght\"", "near it: fc.weight"]),
        (built(adamw().group(Group::matching("*.bais"))), vec!["\"*.bais\"", "near it: fc.bias"]),
        (built(adamw().group(Group::matching("*").learning_rate_factor(-2.0))), vec!["group \"*\"", "factor", "-2"]),
        (built(adamw().group(Group::matching("*").weight_decay(f64::NAN))), vec!["group \"*\"", "decay", "NaN"]),
    ] {
        assert!(words.iter().all(|w| refused.contains(w)), "{refused} lacks one of {words:?}");
    }
    let mut o = adamw().build(&m).unwrap();
    assert!(o.set_learning_rate(f64::NAN).unwrap_err().to_string().contains("NaN"));
    assert_eq!(o.learning_rate(), 1e-3);
    assert!(o.step_averaged(&mut model(&[]), 0).unwrap_err().to_string().contains("got 0"));
}

#[test]
fn a_rate_that_turns_bad_later_is_refused_before_anything_changes() -> Result<()> {
    let mut m = model(&[("w", &[1.0])]);
    let mut o = Sgd::new(0.5).optimizer().schedule(Lambda::new(|s| if s < 2 { 1.0 } else { -1.0 })).build(&m)?;
    set_grad(&m, "w", &[0.25]);
    o.step(&mut m)?;
    o.step(&mut m)?;
    let before = (value(&m, "w"), o.state_dict().numbers);
    let e = o.step(&mut m).unwrap_err().to_string();
    assert!(e.contains("step 2") && e.contains("-0.5"), "{e}");
    assert_eq!(before, (value(&m, "w"), o.state_dict().numbers));
    Ok(())
}

#[test]
fn without_a_gradient_a_parameter_and_its_state_stay() -> Result<()> {
    let mut m = model(&[("a", &[1.0, 2.0]), ("b", &[3.0])]);
    let mut o = Adam::new(0.1).weight_decay(0.5).optimizer().build(&m)?;
    set_grad(&m, "a", &[1.0, 1.0]);
    o.step(&mut m)?;
    let state = o.state_dict();
    assert_eq!(value(&m, "b"), [3.0]);
    assert_eq!((state.numbers["a.step"], state.numbers["b.step"]), (1.0, 0.0));
    assert!(state.tensors.contains_key("a.exp_avg") && !state.tensors.contains_key("b.exp_avg"));
    // b's first step is its own first: the bias corrections of step 1 make it as long as the rate.
    o.zero_grad(&m);
    set_grad(&m, "b", &[1e-3]);
    let before = value(&m, "a");
    let report = o.step(&mut m)?;
    assert_eq!((report.updated, report.skipped), (1, 1));
    assert!((value(&m, "b")[0] - 2.9).abs() < 1e-4, "{:?}", value(&m, "b"));
    assert_eq!(before, value(&m, "a"));
    m.get_mut("b").unwrap().freeze();
    assert_eq!(o.step(&mut m)?.updated, 0);
    Ok(())
}

#[test]
fn penalties_add_their_gradient_and_tell_their_value() -> Result<()> {
    let gradient_of = |t: Box<dyn Fn(OptimizerBuilder) -> OptimizerBuilder>| -> Result<(Vec<f32>, f32)> {
        let mut m = model(&[("fc.bias", &[2.0]), ("fc.weight", &[-2.0, 0.0, 4.0])]);
        let mut o = t(Sgd::new(1.0).optimizer()).build(&m)?;
        let penalty = o.penalty(&m)?.map_or(Ok(0.0), |p| p.item::<f32>())?;
        set_grad(&m, "fc.bias", &[0.0]);
        set_grad(&m, "fc.weight", &[0.0; 3]);
        o.step(&mut m)?;
        let moved = |name: &str, old: &[f32]| value(&m, name).iter().zip(old).map(|(n, o)| o - n).collect::<Vec<f32>>();
        Ok(([moved("fc.bias", &[2.0]), moved("fc.weight", &[-2.0, 0.0, 4.0])].concat(), penalty))
    };
    assert_eq!(gradient_of(Box::new(|b| b))?, (vec![0.0; 4], 0.0));
    assert_eq!(gradient_of(Box::new(|b| b.transform(L1::new(0.5))))?, (vec![0.5, -0.5, 0.0, 0.5], 4.0));
    assert_eq!(gradient_of(Box::new(|b| b.transform(L2::new(0.5))))?, (vec![1.0, -1.0, 0.0, 2.0], 6.0));
    let weights = L2::new(0.5).only("*.weight");
    assert_eq!(gradient_of(Box::new(move |b| b.transform(weights.clone())))?, (vec![0.0, -1.0, 0.0, 2.0], 5.0));
    let not_bias = ElasticNet::new(1.0, 0.25).except("*.bias");
    // 0.25·Σ|p| + 0.375·Σp²
    assert_eq!(gradient_of(Box::new(move |b| b.transform(not_bias.clone())))?, (vec![0.0, -1.75, 0.0, 3.25], 9.0));
    // Two penalties add up; clipping by value comes after them here.
    let two = |b: OptimizerBuilder| b.transform(L1::new(0.5)).transform(L2::new(0.5)).transform(ClipValue::new(1.25));
    assert_eq!(gradient_of(Box::new(two))?, (vec![1.25, -1.25, 0.0, 1.25], 10.0));
    Ok(())
}

#[test]
fn the_norm_is_of_all_gradients_together() -> Result<()> {
    let mut m = model(&[("a", &[0.0]), ("b", &[0.0]), ("empty", &[])]);
    let mut o = Sgd::new(1.0).optimizer().transform(ClipNorm::new(1.0)).build(&m)?;
    set_grad(&m, "a", &[3.0]);
    set_grad(&m, "b", &[4.0]);
    set_grad(&m, "empty", &[]);
    let norm = o.step(&mut m)?.gradient_norm.expect("a norm").item::<f32>()?;
    assert_eq!(norm, 5.0);
    assert!((value(&m, "a")[0] + 0.6).abs() < 1e-6 && (value(&m, "b")[0] + 0.8).abs() < 1e-6);
    Ok(())
}

#[test]
fn an_infinite_norm_can_be_refused_before_anything_changes() -> Result<()> {
    let mut m = model(&[("a", &[1.0]), ("b", &[1.0])]);
    let mut o = AdamW::new(0.1).optimizer().transform(ClipNorm::new(1.0).finite()).build(&m)?;
    set_grad(&m, "a", &[1.0]);
    set_grad(&m, "b", &[f32::NAN]);
    let e = o.step(&mut m).unwrap_err().to_string();
    assert!(e.contains("NaN") && e.ends_with("not finite in: b"), "{e}");
    assert_eq!((value(&m, "a"), value(&m, "b")), (vec![1.0], vec![1.0]));
    // The refused step is not counted twice.
    set_grad(&m, "b", &[1.0]);
    o.step(&mut m)?;
    assert_eq!(o.steps(), 1);
    assert_eq!(o.state_dict().numbers["a.step"], 1.0);
    Ok(())
}

#[test]
fn accumulated_gradients_are_averaged_before_the_transforms() -> Result<()> {
    let mut m = model(&[("a", &[0.0])]);
    let mut o = Sgd::new(1.0).optimizer().transform(ClipValue::new(1.0)).build(&m)?;
    set_grad(&m, "a", &[2.0]); // the sum of 4 passes
    o.step_averaged(&mut m, 4)?;
    assert_eq!(value(&m, "a"), [-0.5]);
    Ok(())
}

/// Some steps on a function of two parameters, with everything on.
fn train(m: &mut Model, o: &mut Optimizer, steps: usize) -> Result<()> {
    for _ in 0..steps {
        m.zero_grad();
        let (a, b) = (&*m["layers.a"], &*m["layers.b"]);
        (((a * 1.5 - 1.0).square() * (b.square() + 0.5)).sum() + (b - 0.3).abs().sum()).backward();
        o.step(m)?;
    }
    Ok(())
}

fn trained(build: impl Fn(&Model) -> Result<Optimizer>, steps: usize) -> Result<(Model, Optimizer)> {
    let mut m = model(&[("layers.a", &[0.5, -1.0, 2.0]), ("layers.b", &[1.0, 0.1, -0.7])]);
    let mut o = build(&m)?;
    train(&mut m, &mut o, steps)?;
    Ok((m, o))
}

fn bits(m: &Model) -> Vec<u32> {
    m.named_parameters().iter().flat_map(|(_, p)| p.to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
}

#[test]
fn a_loaded_state_goes_on_with_the_same_bits() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 4] = [
        |m| AdamW::new(0.1).optimizer().schedule(Cosine::warmup(3, 12)).build(m),
        |m| Adam::new(0.1).amsgrad().optimizer().transform(ClipNorm::new(0.5)).build(m),
        |m| Sgd::new(0.1).momentum(0.9).dampening(0.5).optimizer().schedule(OneCycle::new(10)).build(m),
        |m| Sgd::new(0.1).optimizer().group(Group::matching("*.a").learning_rate_factor(0.5)).build(m),
    ];
    for build in builds {
        let (whole, _) = trained(build, 10)?;
        let (first, mut early) = trained(build, 4)?;
        early.set_learning_rate(early.state_dict().numbers["learning_rate"])?;
        let state = early.state_dict();
        let mut second = model(&[("layers.a", &[0.0; 3]), ("layers.b", &[0.0; 3])]);
        second.load_state_dict(&first.state_dict())?;
        let mut o = build(&second)?;
        o.load_state_dict(&second, &state)?;
        train(&mut second, &mut o, 6)?;
        assert_eq!(bits(&whole), bits(&second), "{:?}", o.rule());
        // What was saved has not moved.
        let again = early.state_dict();
        assert_eq!(state.numbers, again.numbers);
        for (name, t) in &state.tensors {
            assert_eq!(t.to_bytes()?, again.tensors[name].to_bytes()?, "{name}");
        }
    }
    Ok(())
}

#[test]
fn state_is_kept_under_the_parameters_names() -> Result<()> {
    let (_, o) = trained(|m| AdamW::new(0.1).amsgrad().optimizer().build(m), 2)?;
    let state = o.state_dict();
    let names: Vec<&str> = state.tensors.keys().map(String::as_str).collect();
    let slots = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    let want: Vec<String> = ["a", "b"].iter().flat_map(|p| slots.map(|s| format!("layers.{p}.{s}"))).collect();
    assert_eq!(names, want);
    let want = [("layers.a.step", 2.0), ("layers.b.step", 2.0), ("learning_rate", 0.1), ("step", 2.0)];
    assert_eq!(state.numbers.iter().map(|(k, &v)| (k.as_str(), v)).collect::<Vec<_>>(), want);
    let (_, o) = trained(|m| Sgd::new(0.1).momentum(0.5).optimizer().build(m), 1)?;
    assert!(o.state_dict().tensors.keys().eq(["layers.a.momentum_buffer", "layers.b.momentum_buffer"]));
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_is_refused_whole() -> Result<()> {
    let (m, mut o) = trained(|m| AdamW::new(0.1).optimizer().build(m), 3)?;
    let good = o.state_dict();
    let device = gradus_cpu::device();
    let mut bad = good.clone();
    bad.numbers.insert("step".into(), 1.5);
    bad.numbers.insert("learning_rate".into(), f64::NAN);
    bad.numbers.remove("layers.b.step");
    bad.numbers.insert("layers.z.step".into(), 1.0);
    bad.tensors.insert("layers.a.exp_avg".into(), Tensor::zeros([4], device));
    bad.tensors.insert("layers.a.exp_avg_sq".into(), Tensor::zeros([3], device.with(DType::F64)));
    let e = o.load_state_dict(&m, &bad).unwrap_err().to_string();
    for words in [
        "8 mismatches",
        "step: must be a count of steps; got 1.5",
        "learning_rate: must be finite and at least 0; got NaN",
        "layers.b.step: missing",
        "layers.z.step: unexpected",
        "layers.a.exp_avg: the optimizer has f32 [3], the state f32 [4]",
        "layers.a.exp_avg_sq: the optimizer has f32 [3], the state f64 [3]",
        "layers.b.exp_avg: unexpected",
    ] {
        assert!(e.contains(words), "{e}\nlacks {words}");
    }
    let after = o.state_dict();
    assert_eq!(after.numbers, good.numbers);
    assert!(after.tensors.iter().all(|(name, t)| t.is_same(&good.tensors[name])));
    // Another rule's state is a mismatch too.
    let mut sgd = Sgd::new(0.1).momentum(0.9).optimizer().build(&m)?;
    let e = sgd.load_state_dict(&m, &good).unwrap_err().to_string();
    assert!(e.contains("layers.a.momentum_buffer: missing") && e.contains("layers.b.exp_avg_sq: unexpected"), "{e}");
    assert_eq!(sgd.steps(), 0);
    Ok(())
}

/// Every rule with every option that a kernel knows.
fn rules() -> Vec<(String, fn() -> OptimizerBuilder)> {
    let all: [fn() -> OptimizerBuilder; 10] = [
        || Sgd::new(0.05).into(),
        || Sgd::new(0.05).weight_decay(0.1).maximize().into(),
        || Sgd::new(0.05).momentum(0.9).dampening(0.3).weight_decay(0.1).into(),
        || Sgd::new(0.05).momentum(0.9).nesterov().weight_decay(0.1).into(),
        || Sgd::new(0.05).momentum(0.9).maximize().into(),
        || Adam::new(0.05).into(),
        || Adam::new(0.05).weight_decay(0.1).maximize().into(),
        || Adam::new(0.05).weight_decay(0.1).amsgrad().into(),
        || AdamW::new(0.05).weight_decay(0.1).into(),
        || AdamW::new(0.05).amsgrad().maximize().into(),
    ];
    all.into_iter().map(|b| (format!("{:?}", b()), b)).collect()
}

/// The bits of a large and an odd-sized parameter after four steps on random gradients.
fn random_run(builder: OptimizerBuilder, dtype: DType) -> Result<Vec<u8>> {
    let place = gradus_cpu::device().with(dtype);
    let random = |shape: [usize; 2], key: u64| Tensor::randn(shape, place, key);
    let mut m: Vec<Param> = vec![Param::new(random([257, 131], 1)), Param::new(random([7, 1], 2))];
    let mut o = builder.build(&m)?;
    for t in 0..4 {
        m[0].set_grad(random([131, 257], 10 + t).t())?; // not dense
        m[1].set_grad(random([7, 1], 20 + t))?;
        o.step(&mut m)?;
    }
    let mut bytes = Vec::new();
    for t in m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()) {
        bytes.extend(t.to_bytes()?);
    }
    Ok(bytes)
}

#[test]
fn fused_updates_are_their_definitions_bit_for_bit() -> Result<()> {
    let kernels = gradus_cpu::device().backend().kernels();
    assert!(kernels.has_update::<SgdUpdate>() && kernels.has_update::<AdamUpdate>(), "nothing is fused");
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        for (name, builder) in rules() {
            let (fused, defined) = (random_run(builder(), dtype)?, by_definition(|| random_run(builder(), dtype))?);
            assert!(fused == defined, "{name} in {dtype}");
        }
    }
    Ok(())
}

#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    for (name, builder) in rules() {
        let clipped = || builder().transform(ClipNorm::new(1.0)).transform(L1::new(1e-3));
        let run = |n| gradus_cpu::with_threads(n, || random_run(clipped(), DType::F32));
        assert!(run(1)? == run(2)?, "{name}");
    }
    Ok(())
}

#[test]
fn halves_keep_their_state_in_f32() -> Result<()> {
    let device = gradus_cpu::device();
    let mut m = vec![Param::new(Tensor::ones([3], device.with(DType::Bf16)))];
    let mut o = AdamW::new(1e-2).optimizer().build(&m)?;
    m[0].set_grad(Tensor::ones([3], device.with(DType::Bf16)))?;
    o.step(&mut m)?;
    assert_eq!(m[0].dtype(), DType::Bf16);
    assert!((m[0].to_vec::<f32>()?[0] - 0.99).abs() < 4e-3);
    let state = o.state_dict();
    assert!(state.tensors.values().all(|t| t.dtype() == DType::F32));
    assert!((state.tensors["0.exp_avg_sq"].to_vec::<f32>()?[0] - 1e-3).abs() < 1e-8);
    Ok(())
}

#[test]
fn parameters_are_written_in_place_and_snapshots_are_not() -> Result<()> {
    let mut m = model(&[("w", &[1.0, 2.0])]);
    let mut o = Sgd::new(0.5).optimizer().build(&m)?;
    set_grad(&m, "w", &[1.0, 1.0]);
    let snapshot = m["w"].detach();
    o.step(&mut m)?;
    assert_eq!(snapshot.to_vec::<f32>()?, [1.0, 2.0]);
    assert_eq!(value(&m, "w"), [0.5, 1.5]);
    assert!(m["w"].is_leaf() && m["w"].grad().is_some());
    Ok(())
}

#[test]
fn a_replayed_step_reads_rates_and_bias_corrections_anew() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 3] = [
        |m| AdamW::new(0.1).optimizer().schedule(Cosine::warmup(3, 12)).transform(ClipNorm::new(1.0)).build(m),
        |m| Sgd::new(0.1).momentum(0.9).dampening(0.5).optimizer().schedule(Exponential::new(0.8)).build(m),
        |m| Sgd::new(0.1).optimizer().schedule(Exponential::new(0.8)).build(m),
    ];
    for build in builds {
        let start = || model(&[("layers.a", &[0.5, -1.0, 2.0])]);
        let inputs: Vec<Tensor> = (0..8).map(|i| Tensor::randn([3], gradus_cpu::device(), i as u64)).collect();
        let step = |m: &mut Model, o: &mut Optimizer, x: &Tensor| -> Result<Tensor> {
            let loss = (&*m["layers.a"] * x - 1.0).square().sum();
            loss.try_backward()?;
            o.step(m)?;
            m.zero_grad(); // what outlives a captured step is either returned or gone
            Ok(loss.detach())
        };
        let (mut eager, mut captured) = (start(), start());
        let (mut o1, mut o2) = (build(&eager)?, build(&captured)?);
        let mut record = Captured::new();
        let mut replays = 0;
        for x in &inputs {
            let want = step(&mut eager, &mut o1, x)?.item::<f32>()?;
            replays += usize::from(record.is_recorded());
            o2.prepare()?;
            let got = record.run(&[x], |x| Ok(vec![step(&mut captured, &mut o2, &x[0])?]))?[0].item::<f32>()?;
            assert_eq!(want.to_bits(), got.to_bits());
        }
        assert!(replays >= 5, "{replays} replays");
        assert_eq!(bits(&eager), bits(&captured), "{:?}", o1.rule());
        assert_eq!(o1.state_dict().numbers, o2.state_dict().numbers);
    }
    Ok(())
}

#[test]
fn a_replayed_step_sees_a_state_that_was_loaded() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 2] = [
        |m| Sgd::new(0.1).optimizer().schedule(Exponential::new(0.5)).build(m), // has no tensors of state
        |m| AdamW::new(0.1).optimizer().schedule(Exponential::new(0.5)).build(m),
    ];
    for build in builds {
        let run = |load_at: [usize; 2]| -> Result<Vec<u32>> {
            let mut m = model(&[("layers.a", &[0.5, -1.0, 2.0])]);
            let (mut o, mut record) = (build(&m)?, Captured::new());
            let x = Tensor::randn([3], gradus_cpu::device(), 3);
            let mut saved = o.state_dict();
            for i in 0..6 {
                if i == load_at[0] {
                    saved = o.state_dict();
                    for t in saved.tensors.values_mut() {
                        // A snapshot that shares memory would keep the step from being recorded.
                        *t = Tensor::from_vec(t.to_vec::<f32>()?, *t.shape(), t.device());
                    }
                }
                if i == load_at[1] {
                    o.load_state_dict(&m, &saved)?;
                }
                o.prepare()?;
                record.run(&[&x], |x| {
                    (&*m["layers.a"] * &x[0] - 1.0).square().sum().try_backward()?;
                    o.step(&mut m)?;
                    m.zero_grad();
                    Ok(vec![])
                })?;
            }
            Ok(bits(&m))
        };
        // Loading what was saved at once changes nothing; loading an older state does.
        let never = run([9, 9])?;
        assert_eq!(never, run([4, 4])?);
        assert_ne!(never, run([1, 4])?);
    }
    Ok(())
}

/// Signed descent, with a slot that counts nothing but that must be kept by name.
#[derive(Debug)]
struct Signed;

impl Rule for Signed {
    fn name(&self) -> &'static str {
        "Signed"
    }
    fn learning_rate(&self) -> f64 {
        0.25
    }
    fn slots(&self) -> &'static [&'static str] {
        &["last_sign"]
    }
    fn numbers(&self, at: &At) -> Numbers {
        Numbers::from_slice(&[at.learning_rate])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let sign = call.grad.try_sign()?;
        let new = call.param.detach().try_sub(&(&sign * call.numbers[0].clone()))?;
        call.state[0].write_value(&sign)?;
        call.param.write_value(&new)
    }
}

#[test]
fn a_users_rule_runs_like_any_other() -> Result<()> {
    let mut m = model(&[("w", &[1.0, 1.0, 1.0])]);
    let mut o = Signed.optimizer().group(Group::matching("w").learning_rate_factor(2.0)).build(&m)?;
    set_grad(&m, "w", &[3.0, 0.0, -0.1]);
    o.step(&mut m)?;
    assert_eq!(value(&m, "w"), [0.5, 1.0, 1.5]);
    assert_eq!(o.state_dict().tensors["w.last_sign"].to_vec::<f32>()?, [1.0, 0.0, -1.0]);
    Ok(())
}

#[test]
fn a_model_that_grows_keeps_the_state_it_had() -> Result<()> {
    let mut m = model(&[("b", &[1.0])]);
    let mut o = Sgd::new(0.5).momentum(0.5).optimizer().build(&m)?;
    set_grad(&m, "b", &[1.0]);
    o.step(&mut m)?;
    m.extend(model(&[("a", &[1.0])]));
    set_grad(&m, "a", &[1.0]);
    o.step(&mut m)?;
    assert_eq!((value(&m, "a"), value(&m, "b")), (vec![0.5], vec![-0.25]));
    assert_eq!(o.state_dict().numbers["b.step"], 2.0);
    Ok(())
}
