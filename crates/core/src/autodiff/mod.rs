//! Reverse-mode differentiation of any order.
//!
//! Every recorded call makes a [`Node`]; a tensor holds the node that made it. [`Vjp`] is what a rule sees of its call. The
//! engine (`engine.rs`) pops nodes newest first: an id is given at creation, so every consumer of a node is older in the
//! walk, and no second pass over the graph is needed. The engine alone accumulates, un-broadcasts, and frees what was saved.

mod check;
mod checkpoint;
mod engine;
mod function;
mod node;
mod products;
mod rule;
mod vjp;
mod vmap;

pub use check::{GradCheck, gradcheck, gradgradcheck};

pub use checkpoint::{checkpoint, is_recomputing, try_checkpoint};
pub use engine::{Backward, grad, grad_allow_unused, try_grad, try_grad_allow_unused};
pub(crate) use engine::{gradients_of, inputs_of};
pub use function::{Function, apply_function, try_apply_function};
pub use node::{Aux, Grads, Hook, HookHandle, Node, Saved};
pub use products::{hessian, hvp, jacobian, jvp, vjp};
pub(crate) use rule::CallRule;
pub use rule::Rule;
pub use vjp::Vjp;
pub use vmap::{per_sample_gradients, vmap};

use crate::tensor::Tensor;
use std::cell::Cell;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

struct Restore(bool);
impl Drop for Restore {
    fn drop(&mut self) {
        RECORDING.set(self.0);
    }
}

fn with_recording<T>(on: bool, f: impl FnOnce() -> T) -> T {
    let _restore = Restore(RECORDING.replace(on));
    f()
}

/// Runs `f` without recording: nothing in it can be differentiated. Scoped to this thread; a panic restores it.
///
/// ```
/// use gradus::prelude::*;
/// let x = Tensor::ones([2], Device::cpu()).requires_grad();
/// assert!(!no_grad(|| &x * 2.0).is_tracked());
/// assert!((&x * 2.0).is_tracked());
/// ```
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    with_recording(false, f)
}

/// Runs `f` with recording on, inside a [`no_grad`] too.
pub fn enable_grad<T>(f: impl FnOnce() -> T) -> T {
    with_recording(true, f)
}

/// Whether calls are being recorded on this thread.
pub fn is_grad_enabled() -> bool {
    RECORDING.get()
}

/// Whether a call with these inputs is to be recorded.
#[inline]
pub(crate) fn records(x: &[&Tensor]) -> bool {
    x.iter().any(|t| t.node.is_some()) && RECORDING.get()
}
