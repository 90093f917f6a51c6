//! The update rules, one a file, and the arithmetic that they share.
//!
//! A rule is written in ops, each of which says what it does; those that most trainings use ([`Sgd`], [`Adam`] and its twin,
//! [`Lion`]) are single fused kernels, and so are the parts of [`Muon`] that are no products. Every rule is a pure function of parameter, gradient, state and the step's numbers: nothing is read
//! back to the host, so that a step can be recorded and replayed. Names of state and defaults are PyTorch's.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod lamb;
mod lion;
mod muon;
mod nadam;
mod radam;
mod rmsprop;
mod rprop;
mod schedule_free;
mod sgd;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use adamax::Adamax;
pub use asgd::Asgd;
pub use lamb::Lamb;
pub use lion::Lion;
pub use muon::{Muon, MuonScale};
pub use nadam::NAdam;
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use rprop::Rprop;
pub use schedule_free::ScheduleFreeAdamW;
pub use sgd::Sgd;

use crate::rule::Call;
use gradus_core::ops::BinaryOp;
use gradus_core::{DType, Error, Result, Scalar, Tensor};

/// For a call whose numbers are not those that the rule asks for.
fn miscounted(rule: &str) -> Error {
    Error::misuse(format!("{rule}: the numbers or the state it was given are not its own"))
}

/// x·s. (The operators would panic where a device fails.)
fn times(x: &Tensor, s: impl Into<Scalar>) -> Result<Tensor> {
    x.try_binary_scalar(BinaryOp::Mul, s)
}

/// x + s.
fn plus(x: &Tensor, s: impl Into<Scalar>) -> Result<Tensor> {
    x.try_binary_scalar(BinaryOp::Add, s)
}

/// s / x.
fn over(s: impl Into<Scalar>, x: &Tensor) -> Result<Tensor> {
    x.try_scalar_binary(BinaryOp::Div, s)
}

/// x + (to − x)·part: PyTorch's `lerp`.
pub(crate) fn towards(x: &Tensor, to: &Tensor, part: impl Into<Scalar>) -> Result<Tensor> {
    x.try_lerp(to, part)
}

/// v·stays + x²·(1 − stays): the running mean of squares.
fn squares(v: &Tensor, x: &Tensor, stays: f64) -> Result<Tensor> {
    times(v, stays)?.try_add(&times(x, 1.0 - stays)?.try_mul(x)?)
}

/// A tensor in the dtype of the arithmetic: `f32` for halves, in which small changes would be lost.
pub(crate) fn widened(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_half() { x.try_to_dtype(DType::F32) } else { Ok(x.detach()) }
}

/// Parameter and gradient in the dtype of the arithmetic (the first may share the parameter's memory: it must be gone, not only
/// shadowed, before that is written): the gradient negated to climb, and with the L2 penalty's added unless
/// the decay is `decoupled`.
fn operands(call: &Call<'_>, maximize: bool, decoupled: bool) -> Result<(Tensor, Tensor)> {
    let (p, mut g) = (widened(call.param)?, widened(call.grad)?);
    if maximize {
        g = g.try_neg()?;
    }
    if call.weight_decay != 0.0 && !decoupled {
        g = g.try_add(&times(&p, call.weight_decay)?)?;
    }
    Ok((p, g))
}

/// p ← p − step. Takes `p`, which may share the parameter's memory: whoever writes must hold it alone.
fn descend(param: &mut Tensor, p: Tensor, step: &Tensor) -> Result<()> {
    let new = p.try_sub(step)?;
    drop(p);
    store(param, &new)
}

/// Writes a new value into the memory of the old one, in its dtype.
pub(crate) fn store(target: &mut Tensor, new: &Tensor) -> Result<()> {
    if new.dtype() == target.dtype() {
        target.write_value(new)
    } else {
        target.write_value(&new.try_to_dtype(target.dtype())?)
    }
}

/// The dtype of a parameter's state: `f32` for halves.
fn state_dtype(param: &Tensor) -> DType {
    if param.dtype().is_half() { DType::F32 } else { param.dtype() }
}

/// State like the parameter, full of a number.
fn full(param: &Tensor, value: f64) -> Result<Tensor> {
    Tensor::try_full(*param.shape(), value, param.device().with(state_dtype(param)))
}

/// State like the parameter, of zeros.
pub(crate) fn zeros(param: &Tensor) -> Result<Tensor> {
    full(param, 0.0)
}

/// A state of one number, 1 at first.
fn one(param: &Tensor) -> Result<Tensor> {
    Tensor::try_ones((), param.device().with(state_dtype(param)))
}

/// 1 − x.
fn one_minus(x: &Tensor) -> Result<Tensor> {
    x.try_scalar_binary(BinaryOp::Sub, 1.0)
}

/// The setters of a rule: `name: type;`, `flag name;` for what is off unless asked for, `betas;` for the pair.
macro_rules! settings {
    ($t:ident { $($body:tt)* }) => {
        impl $t { crate::rules::settings! { @ $t $($body)* } }
    };
    (@ $t:ident) => {};
    (@ $t:ident $(#[$doc:meta])* betas; $($rest:tt)*) => {
        $(#[$doc])*
        pub fn betas(self, beta1: f64, beta2: f64) -> $t {
            $t { betas: (beta1, beta2), ..self }
        }
        crate::rules::settings! { @ $t $($rest)* }
    };
    (@ $t:ident $(#[$doc:meta])* flag $field:ident; $($rest:tt)*) => {
        $(#[$doc])*
        pub fn $field(self) -> $t {
            $t { $field: true, ..self }
        }
        crate::rules::settings! { @ $t $($rest)* }
    };
    (@ $t:ident $(#[$doc:meta])* $field:ident: $ty:ty; $($rest:tt)*) => {
        $(#[$doc])*
        pub fn $field(self, $field: $ty) -> $t {
            $t { $field, ..self }
        }
        crate::rules::settings! { @ $t $($rest)* }
    };
}
use settings;

/// The methods of [`Rule`](crate::Rule) that only tell what a rule was made with.
macro_rules! told {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }
        fn learning_rate(&self) -> f64 {
            self.learning_rate
        }
        fn weight_decay(&self) -> f64 {
            self.weight_decay
        }
    };
}
use told;
