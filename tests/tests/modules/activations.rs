//! Activations.

use super::{Outcome, init, one};
use gradus_core::Result;
use gradus_nn::*;
use gradus_tests::golden_modules::Arguments;

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    plain(name).or_else(|| with_options(name, a))
}

fn plain(name: &str) -> Outcome {
    match name {
        "ReLU" => one(Ok(Relu)),
        "ReLU6" => one(Ok(Relu6)),
        "GELU" => one(Ok(Gelu)),
        "SiLU" => one(Ok(Silu)),
        "Mish" => one(Ok(Mish)),
        "Tanh" => one(Ok(Tanh)),
        "Sigmoid" => one(Ok(Sigmoid)),
        "LogSigmoid" => one(Ok(LogSigmoid)),
        "Softsign" => one(Ok(Softsign)),
        "Hardsigmoid" => one(Ok(HardSigmoid)),
        "Hardswish" => one(Ok(HardSwish)),
        "SELU" => one(Ok(Selu)),
        "Tanhshrink" => one(Ok(Tanhshrink)),
        "Identity" => one(Ok(Identity)),
        "Softmax2d" => one(Ok(Softmax2d)),
        _ => None,
    }
}

fn with_options(name: &str, a: &Arguments<'_>) -> Outcome {
    let number = |name: &str, default| a.number(0, name, default);
    let dim = || Ok(a.int(0, "dim", -1)? as isize);
    match name {
        "LeakyReLU" => one(number("negative_slope", 0.01).map(LeakyRelu::new)),
        "ELU" => one(number("alpha", 1.0).map(Elu::new)),
        "CELU" => one(number("alpha", 1.0).map(Celu::new)),
        "Hardshrink" => one(number("lambd", 0.5).map(Hardshrink::new)),
        "Softshrink" => one(number("lambd", 0.5).map(Softshrink::new)),
        "Hardtanh" => one(two(a, ("min_val", -1.0), ("max_val", 1.0)).map(|(l, h)| Hardtanh::new(l, h))),
        "Softplus" => one(two(a, ("beta", 1.0), ("threshold", 20.0)).map(|(b, t)| Softplus::new(b, t))),
        "Threshold" => one(two(a, ("threshold", 0.0), ("value", 0.0)).map(|(t, v)| Threshold::new(t, v))),
        "GLU" => one(dim().map(Glu::new)),
        "Softmax" => one(dim().map(Softmax::new)),
        "Softmin" => one(dim().map(Softmin::new)),
        "LogSoftmax" => one(dim().map(LogSoftmax::new)),
        "PReLU" => one(a.len_or(0, "num_parameters", 1).and_then(|n| Prelu::try_new(n, &mut init()))),
        _ => None,
    }
}

fn two(a: &Arguments<'_>, first: (&str, f64), second: (&str, f64)) -> Result<(f64, f64)> {
    Ok((a.number(0, first.0, first.1)?, a.number(1, second.0, second.1)?))
}
