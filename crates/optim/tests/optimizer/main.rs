//! The optimizer around the rules.

mod averages;
mod bits;
mod constraints;
mod formulas;
mod gradients;
mod lbfgs;
mod loss_scale;
mod penalties;
mod replay;
mod schedules;
mod settings;
mod state;

use gradus_core::{Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::*;
use std::collections::BTreeMap;

pub(crate) type Model = BTreeMap<String, Param>;

/// A model of one-dimensional parameters.
pub(crate) fn model(parts: &[(&str, &[f32])]) -> Model {
    let param = |x: &[f32]| Param::new(Tensor::from_slice(x, gradus_cpu::device()));
    parts.iter().map(|(name, x)| (name.to_string(), param(x))).collect()
}

pub(crate) fn set_grad(model: &Model, name: &str, grad: &[f32]) {
    model[name].set_grad(Tensor::from_slice(grad, gradus_cpu::device())).unwrap();
}

pub(crate) fn value(model: &Model, name: &str) -> Vec<f32> {
    model[name].to_vec().unwrap()
}

/// Some steps on a function of two parameters, with everything on.
pub(crate) fn train(m: &mut Model, o: &mut Optimizer, steps: usize) -> Result<()> {
    for _ in 0..steps {
        m.zero_grad();
        let (a, b) = (&*m["layers.a"], &*m["layers.b"]);
        (((a * 1.5 - 1.0).square() * (b.square() + 0.5)).sum() + (b - 0.3).abs().sum()).backward();
        o.step(m)?;
    }
    Ok(())
}

pub(crate) fn trained(build: impl Fn(&Model) -> Result<Optimizer>, steps: usize) -> Result<(Model, Optimizer)> {
    let mut m = model(&[("layers.a", &[0.5, -1.0, 2.0]), ("layers.b", &[1.0, 0.1, -0.7])]);
    let mut o = build(&m)?;
    train(&mut m, &mut o, steps)?;
    Ok((m, o))
}

pub(crate) fn bits(m: &Model) -> Vec<u32> {
    m.named_parameters().iter().flat_map(|(_, p)| p.to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
}

/// Every rule with options that are not the defaults, for parameters of any shape.
pub(crate) fn every_rule() -> Vec<fn() -> OptimizerBuilder> {
    vec![
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
        || NAdam::new(0.05).weight_decay(0.1).into(),
        || NAdam::new(0.05).weight_decay(0.1).decoupled().maximize().into(),
        || RAdam::new(0.05).betas(0.9, 0.6).weight_decay(0.1).into(),
        || RAdam::new(0.05).weight_decay(0.1).decoupled().maximize().into(),
        || Adamax::new(0.05).weight_decay(0.1).maximize().into(),
        || Adagrad::new(0.05).rate_decay(0.1).initial(0.2).weight_decay(0.1).into(),
        || Adadelta::new(0.5).weight_decay(0.1).into(),
        || RmsProp::new(0.05).into(),
        || RmsProp::new(0.05).momentum(0.5).weight_decay(0.1).centered().maximize().into(),
        || Rprop::new(0.05).into(),
        || Asgd::new(0.05).t0(2.0).lambd(0.1).weight_decay(0.1).into(),
        || Lion::new(0.05).weight_decay(0.1).into(),
        || Lamb::new(0.05).into(),
        || Adafactor::new(0.05).weight_decay(0.1).into(),
        || ScheduleFreeAdamW::new(0.05).weight_decay(0.1).into(),
    ]
}
