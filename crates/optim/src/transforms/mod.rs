//! What is done to all gradients between backward and the update: the [`Transform`] trait.

mod clip;
mod noise;
mod penalty;
mod structure;

pub use clip::{ClipNorm, ClipValue, gradient_norm, scaled_gradient_norm};
pub(crate) use clip::{beside, multiplied};
pub use noise::GradientNoise;
pub use penalty::{ElasticNet, L1, L2};
pub use structure::{GroupLasso, Orthogonal};

use gradus_core::{Result, Tensor};
use gradus_nn::Module;
use std::fmt::Debug;
use std::sync::Arc;

/// A parameter that has a gradient.
#[derive(Debug)]
pub struct NamedGrad {
    /// The parameter's name.
    pub name: Arc<str>,
    /// Its value, untracked.
    pub param: Tensor,
    /// Its gradient, which a transform may replace by another of the same shape and dtype.
    pub grad: Tensor,
}

/// Every parameter that has a gradient, in the model's order.
pub type NamedGrads = Vec<NamedGrad>;

/// What transforms tell about a step.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The global norm of the gradients as a clipping transform found it, before it clipped: a tensor without dimensions,
    /// so that nobody waits for the device who does not look.
    pub gradient_norm: Option<Tensor>,
}

/// A change of all gradients before an update: penalties, clipping. Transforms run in the order they were added.
pub trait Transform: Debug + Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// An error that names the setting and its value if one is out of range, or a pattern that matches none of the names.
    fn check(&self, _names: &[&str]) -> Result<()> {
        Ok(())
    }
    /// Told before each step how many went before it: arithmetic on the host, also where the step itself is replayed. What varies
    /// by step is written into cells here.
    fn prepare(&self, _step: u64) {}
    /// Changes the gradients. Recording is off.
    fn apply(&self, grads: &mut NamedGrads, notes: &mut Notes) -> Result<()>;
    /// What [`apply`](Transform::apply) multiplies every gradient with, without dimensions, if that is all it does. An optimizer asks
    /// its last transform for it, in place of `apply`: an update that multiplies by the way saves a pass over the gradients. The
    /// factor is brought to each gradient's device and dtype.
    ///
    /// The gradients are still to be multiplied with `by` (1, but where a scaled loss's scale is undone by the way), as if which it
    /// looks at them, and which the factor that it gives includes.
    fn factor(&self, _grads: &NamedGrads, _by: f64, _notes: &mut Notes) -> Result<Option<Tensor>> {
        Ok(None)
    }
    /// What it adds to the loss for this parameter, without dimensions; `None` if it adds nothing.
    fn penalty(&self, _name: &str, _param: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// What a penalty adds to the loss of this model, without dimensions and differentiable: for whoever adds it to the loss by hand, and
/// not to an optimizer. Frozen parameters are not counted; `None` if the penalty concerns none.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::Param;
/// use gradus_optim::{L2, penalty_of};
/// let model = vec![Param::new(Tensor::from_slice(&[3.0, 4.0], gradus_cpu::device()))];
/// let penalty = penalty_of(&L2::new(0.1), &model)?.expect("it concerns every parameter");
/// penalty.backward();
/// assert_eq!(penalty.item::<f64>()?, 1.25);
/// assert_eq!(model[0].grad().expect("a gradient").to_vec::<f64>()?, [0.1 * 3.0, 0.1 * 4.0]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn penalty_of(penalty: &dyn Transform, model: &dyn Module) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for (name, p) in model.named_parameters().into_iter().filter(|(_, p)| !p.is_frozen()) {
        let Some(more) = penalty.penalty(&name, p).map_err(|e| e.context(&name))? else { continue };
        sum = Some(match sum {
            None => more,
            Some(sum) => sum.try_add(&gradus_core::tensor::to_device(&more, sum.device())?)?,
        });
    }
    Ok(sum)
}
