//! The optimizer around the rules.

mod bits;
mod gradients;
mod replay;
mod settings;
mod state;

use gradus_core::{Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::Optimizer;
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
