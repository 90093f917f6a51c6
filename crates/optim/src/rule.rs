//! What an optimizer does with one parameter and its gradient: the [`Rule`] trait.
//!
//! A rule is asked twice at each step. [`numbers`](Rule::numbers) is plain arithmetic on the host: what varies by step
//! (learning rate, bias corrections) as a few `f64`. [`update`](Rule::update) gets them as [`Scalar`]s in cells and runs the
//! kernels. A recorded step is replayed without the second; the first alone runs again, so that nothing is baked in.

use crate::OptimizerBuilder;
use gradus_core::{Result, Scalar, Tensor};
use smallvec::SmallVec;
use std::fmt::Debug;

/// The numbers of a rule for one step.
pub type Numbers = SmallVec<[f64; 4]>;

/// When, and under which settings, a parameter is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// How many updates this parameter will have had after this one: 1 at the first.
    pub step: u64,
    /// The learning rate of its group, by the schedule.
    pub learning_rate: f64,
    /// The weight decay of its group. It never changes while the optimizer lives.
    pub weight_decay: f64,
    /// The momentum that the schedule asks for, if it cycles one; else the rule's own counts.
    pub momentum: Option<f64>,
}

/// A parameter at its update.
#[derive(Debug)]
pub struct Call<'a> {
    /// The parameter's value, to be changed in place ([`Tensor::update`], [`Tensor::write_value`]).
    pub param: &'a mut Tensor,
    /// Its gradient, dense.
    pub grad: &'a Tensor,
    /// What the gradient is to be multiplied with first, without dimensions; only ever given to a rule that
    /// [takes one](Rule::takes_factor).
    pub factor: Option<&'a Tensor>,
    /// Its state, in the order of [`Rule::slots`], to be changed in place.
    pub state: &'a mut [Tensor],
    /// What [`Rule::numbers`] gave for this step, in cells: hand them to ops as they are.
    pub numbers: &'a [Scalar],
    /// The weight decay of its group.
    pub weight_decay: f64,
}

impl<'a> Call<'a> {
    /// What a fused update reads: the gradient, and its factor if there is one.
    pub(crate) fn inputs(&self) -> SmallVec<[&'a Tensor; 2]> {
        let mut inputs = SmallVec::new();
        inputs.push(self.grad);
        if let Some(factor) = self.factor {
            inputs.push(factor);
        }
        inputs
    }
}

/// An update rule: what to do with a parameter, its gradient and its state.
///
/// The optimizer keeps each state tensor under the parameter's name: slot `exp_avg` of `layers.0.weight` is
/// `layers.0.weight.exp_avg`. A rule of one's own:
///
/// ```
/// use gradus_core::{Result, Tensor};
/// use gradus_optim::{At, Call, Numbers, Rule};
///
/// /// Signed descent: p ← p − η·sign(g).
/// #[derive(Debug)]
/// struct Signed { learning_rate: f64 }
///
/// impl Rule for Signed {
///     fn name(&self) -> &'static str { "Signed" }
///     fn learning_rate(&self) -> f64 { self.learning_rate }
///     fn numbers(&self, at: &At) -> Numbers { [at.learning_rate].into_iter().collect() }
///     fn update(&self, call: Call<'_>) -> Result<()> {
///         let new = call.param.detach().try_sub(&(call.grad.try_sign()? * call.numbers[0].clone()))?;
///         call.param.write_value(&new)
///     }
/// }
/// ```
pub trait Rule: Debug + Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// The learning rate it was made with.
    fn learning_rate(&self) -> f64;
    /// The weight decay it was made with.
    fn weight_decay(&self) -> f64 {
        0.0
    }
    /// The names of a parameter's state tensors. (The count of steps is kept by the optimizer.)
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &[]
    }
    /// An error that names the setting and its value if one is out of range. The learning rate and weight decay are checked
    /// by the optimizer.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// An error that says why, if the rule cannot update this parameter (its shape).
    fn check_parameter(&self, _param: &Tensor) -> Result<()> {
        Ok(())
    }
    /// A slot's tensor before the parameter's first update: zeros like the parameter, in `f32` for halves, in which small
    /// changes of an average would be lost.
    fn start(&self, _slot: &str, param: &Tensor, _at: &At) -> Result<Tensor> {
        crate::rules::zeros(param)
    }
    /// Whether [`update`](Rule::update) multiplies the gradient with [`Call::factor`] itself. If not, that is done before, in a pass
    /// over the gradient of its own.
    fn takes_factor(&self) -> bool {
        false
    }
    /// What varies by step, computed on the host: as many numbers, in the same order, each time.
    fn numbers(&self, at: &At) -> Numbers;
    /// Updates a parameter and its state. Recording is off.
    fn update(&self, call: Call<'_>) -> Result<()>;
    /// What the parameter is worth, where that is not the value that is being trained: an average of it. Recording is off.
    fn evaluation_value(&self, _param: &Tensor, _state: &[Tensor]) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// An optimizer to be, with this rule.
    fn optimizer(self) -> OptimizerBuilder
    where
        Self: Sized,
    {
        OptimizerBuilder::from(self)
    }
}
