//! What is done to all gradients between backward and the update: the [`Transform`] trait.

use gradus_core::{Result, Tensor};
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
    /// Changes the gradients. Recording is off.
    fn apply(&self, grads: &mut NamedGrads, notes: &mut Notes) -> Result<()>;
    /// What it adds to the loss for this parameter, without dimensions; `None` if it adds nothing.
    fn penalty(&self, _name: &str, _param: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}
