//! A trainable value.

use crate::module::{Module, Visitor, VisitorMut};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};
use std::fmt;
use std::ops::Deref;

/// A trainable value of a module: a leaf that gradients gather in, and that an optimizer changes in place.
///
/// It reads as the tensor it holds (`Deref`), so a layer writes `x.matmul(&self.weight)`. A frozen one is a plain, untracked
/// value: forward makes no graph for it, and optimizers pass it by. A clone is a parameter of its own: it starts from the
/// same value (shared until one of the two is written), and its gradients are its own.
pub struct Param {
    /// A leaf; untracked while frozen. Held here alone, so that updates happen in place.
    tensor: Tensor,
}

impl Param {
    /// A parameter that starts at `value`. Panics at the caller's line if its dtype carries no gradient.
    #[track_caller]
    pub fn new(value: Tensor) -> Param {
        or_raise(Param::try_new(value))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    #[track_caller]
    pub fn try_new(value: Tensor) -> Result<Param> {
        Ok(Param { tensor: value.try_requires_grad()? })
    }

    /// The tensor as forward sees it: a leaf, or the bare value while frozen.
    pub fn value(&self) -> &Tensor {
        &self.tensor
    }
    /// The tensor, for updates in place ([`Tensor::update`], [`Tensor::set_value`], [`Tensor::write_value`]), which keep the
    /// leaf. Assigning another tensor here would make it another leaf; [`replace`](Self::replace) does that properly.
    pub fn value_mut(&mut self) -> &mut Tensor {
        &mut self.tensor
    }
    /// Takes another value, of any shape, dtype or device, and forgets the gradient. A frozen parameter stays frozen.
    pub fn replace(&mut self, value: Tensor) -> Result<()> {
        self.tensor = if self.is_frozen() { value.detach() } else { value.try_requires_grad()? };
        gradus_core::capture::note_replaced();
        Ok(())
    }

    /// The gradient gathered so far.
    pub fn grad(&self) -> Option<Tensor> {
        self.tensor.grad()
    }
    /// Takes the gradient out; the parameter then has none.
    pub fn take_grad(&self) -> Option<Tensor> {
        self.tensor.take_grad()
    }
    /// Puts a gradient in place of the gathered one. An error if the parameter is frozen, or shape or dtype differ.
    pub fn set_grad(&self, grad: Tensor) -> Result<()> {
        self.tensor.set_grad(grad)
    }
    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        self.tensor.zero_grad();
    }

    /// Stops training it: forward sees a bare value, and the gradient gathered so far is forgotten (as are gradient hooks).
    pub fn freeze(&mut self) {
        self.tensor = self.tensor.detach();
    }
    /// Trains it (again), as a new leaf.
    pub fn unfreeze(&mut self) {
        if self.is_frozen() {
            // Its dtype was checked when it was made, and cannot have changed to one that carries no gradient.
            self.tensor = self.tensor.requires_grad();
        }
    }
    /// Whether it is not to be trained.
    pub fn is_frozen(&self) -> bool {
        !self.tensor.is_leaf()
    }

    /// The same parameter under a second handle: gradients of either gather in one leaf. For blocks that are run again
    /// when their gradient is wanted.
    pub(crate) fn alias(&self) -> Param {
        Param { tensor: self.tensor.clone() }
    }
}

impl Deref for Param {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

impl AsRef<Tensor> for Param {
    fn as_ref(&self) -> &Tensor {
        &self.tensor
    }
}

impl Clone for Param {
    fn clone(&self) -> Param {
        let tensor = if self.is_frozen() { self.tensor.clone() } else { self.tensor.requires_grad() };
        Param { tensor }
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frozen = if self.is_frozen() { ", frozen" } else { "" };
        write!(f, "Param({} {} on {}{frozen})", self.dtype(), self.shape(), self.device())
    }
}

impl Module for Param {
    fn kind(&self) -> &'static str {
        "Param"
    }
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        v.parameter(self);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        v.parameter(self);
    }
}
