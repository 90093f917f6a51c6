//! State: its names, saving, loading, refusals.

use crate::{Model, bits, every_rule, model, set_grad, train, trained, value};
use gradus_core::{DType, Result, Tensor};
use gradus_nn::Module;
use gradus_optim::*;

#[test]
fn a_loaded_state_goes_on_with_the_same_bits() -> Result<()> {
    let builds: [fn(&Model) -> Result<Optimizer>; 4] = [
        |m| AdamW::new(0.1).optimizer().schedule(Cosine::warmup(3, 12)).build(m),
        |m| Adam::new(0.1).amsgrad().optimizer().transform(ClipNorm::new(0.5)).build(m),
        |m| Sgd::new(0.1).momentum(0.9).dampening(0.5).optimizer().schedule(OneCycle::new(10)).build(m),
        |m| Sgd::new(0.1).optimizer().group(Group::matching("*.a").learning_rate_factor(0.5)).build(m),
    ];
    let every = every_rule().into_iter();
    let every = every.map(|b| Box::new(move |m: &Model| b().build(m)) as Box<dyn Fn(&Model) -> Result<Optimizer>>);
    for build in builds.into_iter().map(|b| Box::new(b) as Box<_>).chain(every) {
        let (whole, _) = trained(&build, 10)?;
        let (first, mut early) = trained(&build, 4)?;
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
