//! Gradients on their way to the rule: missing ones, penalties, clipping, averaging.

use crate::{model, set_grad, value};
use gradus_core::Result;
use gradus_optim::*;

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
    for p in [2.0, f64::INFINITY] {
        the_norm_is_global(p)?;
    }
    Ok(())
}

fn the_norm_is_global(p: f64) -> Result<()> {
    let mut m = model(&[("a", &[0.0]), ("b", &[0.0]), ("empty", &[])]);
    let mut o = Sgd::new(1.0).optimizer().transform(ClipNorm::new(1.0).p(p)).build(&m)?;
    set_grad(&m, "a", &[3.0]);
    set_grad(&m, "b", &[4.0]);
    set_grad(&m, "empty", &[]);
    let norm = o.step(&mut m)?.gradient_norm.expect("a norm").item::<f32>()?;
    let want = if p == 2.0 { 5.0 } else { 4.0 };
    assert_eq!(norm, want);
    assert!((value(&m, "a")[0] + 3.0 / want).abs() < 1e-6 && (value(&m, "b")[0] + 4.0 / want).abs() < 1e-6);
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
