//! Groups and bad settings.

use crate::{model, set_grad, value};
use gradus_core::{Result, Tensor};
use gradus_optim::*;

fn refusal(r: Result<Optimizer>) -> String {
    r.expect_err("it was taken").to_string()
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
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
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
