//! Custom differentiable functions, written by users in tensors.

use super::node::{Aux, Grads, Node};
use super::rule::{CallRule, Rule};
use super::vjp::Vjp;
use super::{no_grad, records};
use crate::capture::{self, Ask, Effect};
use crate::error::{Error, Result, or_raise};
use crate::op::{Saves, Tensors};
use crate::precision::{Autocast, recast};
use crate::tensor::Tensor;
use std::fmt::Debug;

/// A function with a gradient of the user's own: a straight-through estimator, an implicit layer, a numerical trick.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::{Function, Grads, Vjp, apply_function};
///
/// /// Rounds forward; lets the gradient pass backward.
/// #[derive(Debug)]
/// struct StraightThrough;
/// impl Function for StraightThrough {
///     fn name(&self) -> &'static str { "straight_through" }
///     fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> { Ok(vec![x[0].round()]) }
///     fn backward(&self, cx: &Vjp<'_>) -> Grads { [Some(cx.grad())].into_iter().collect() }
/// }
///
/// let x = Tensor::from_slice(&[0.4f32, 1.6], Device::cpu()).requires_grad();
/// apply_function(StraightThrough, &[&x])[0].sum().backward();
/// assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [1.0, 1.0]);
/// ```
///
/// In a recorded step ([`crate::capture`]) a call counts as the recorded one if its inputs and its `Debug` text are the same: the
/// text must show everything that the function depends on.
pub trait Function: Debug + Send + Sync + 'static {
    /// A name for messages.
    fn name(&self) -> &'static str;
    /// The outputs. Runs without recording.
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>>;
    /// What it computes in under a half precision ([`with_precision`](crate::with_precision)).
    fn autocast(&self) -> Autocast {
        Autocast::Widest
    }
    /// The gradients of the inputs, in tensors, so that they can be differentiated again. `cx` has every input and output.
    fn backward(&self, cx: &Vjp<'_>) -> Grads;
}

/// Runs a custom function. Panics at the caller's line on misuse.
#[track_caller]
pub fn apply_function(f: impl Function, x: &[&Tensor]) -> Tensors {
    or_raise(try_apply_function(f, x))
}

/// Runs a custom function, with misuse returned as an error.
#[track_caller]
pub fn try_apply_function<F: Function>(f: F, x: &[&Tensor]) -> Result<Tensors> {
    if let Some(cast) = recast(f.autocast(), x) {
        return try_apply_function(f, &cast?.iter().collect::<Vec<_>>());
    }
    match capture::ask(&f, x) {
        Ask::Eager | Ask::Define => call(f, x),
        Ask::Done(outputs) => outputs,
        Ask::Note(note) => {
            let outputs = call(f, x)?;
            note.gave(&outputs, Effect::None);
            Ok(outputs)
        }
    }
}

#[track_caller]
fn call<F: Function>(f: F, x: &[&Tensor]) -> Result<Tensors> {
    let outputs = no_grad(|| f.forward(x))?;
    if outputs.is_empty() {
        return Err(Error::misuse(format!("the custom function {} gave no output", f.name())));
    }
    if !records(x) {
        return Ok(outputs.into_iter().collect());
    }
    let values: smallvec::SmallVec<[_; 1]> = outputs.into_iter().map(|t| t.value).collect();
    Ok(Node::call(CallRule::of(FunctionRule(f)), x, Saves::BOTH, Aux::new(), values))
}

#[derive(Debug)]
struct FunctionRule<F>(F);
impl<F: Function> Rule for FunctionRule<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        self.0.backward(cx)
    }
}
