//! Which parameters the loss does not reach: a branch that was detached, a layer that was left out, units that are all dead.

use crate::Module;
use gradus_core::{DType, Result, no_grad};
use std::fmt;

/// What a backward pass left in a model's trainable parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GradientFlow {
    /// How many parameters are trainable.
    pub trainable: usize,
    /// The names of those without a gradient: the loss does not depend on them.
    pub missing: Vec<String>,
    /// The names of those whose gradient is zero in every element.
    pub zero: Vec<String>,
}

impl GradientFlow {
    /// Whether every trainable parameter has a gradient that is not all zero.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.zero.is_empty()
    }
}

/// Audits the gradients that a model holds, after a backward pass: names every trainable parameter with no gradient or an all-zero
/// one, by its path in the model. Frozen parameters are not counted; one without elements has nothing to be zero. Waits for the
/// device once for each parameter.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, Linear, Module, audit_gradients};
///
/// #[derive(Module)]
/// struct TwoHeads { trunk: Linear, left: Linear, right: Linear }
///
/// let mut init = Init::new(gradus_cpu::device(), 0);
/// let m = TwoHeads { trunk: Linear::new(3, 4, &mut init), left: Linear::new(4, 1, &mut init), right: Linear::new(4, 1, &mut init) };
/// let (x, cx) = (Tensor::ones([2, 3], gradus_cpu::device()), Cx::eval());
/// let h = m.trunk.call(&x, &cx);
/// let right = m.right.call(&h, &cx).detach(); // a mistake
/// (m.left.call(&h, &cx) + right).sum().backward();
/// let flow = audit_gradients(&m)?;
/// assert_eq!(flow.missing, ["right.weight", "right.bias"]);
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn audit_gradients(model: &dyn Module) -> Result<GradientFlow> {
    let mut flow = GradientFlow::default();
    for (name, p) in model.named_parameters().into_iter().filter(|(_, p)| !p.is_frozen()) {
        flow.trainable += 1;
        let Some(grad) = p.grad() else {
            flow.missing.push(name);
            continue;
        };
        if grad.elements() == 0 {
            continue;
        }
        let wide = if grad.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let largest = no_grad(|| grad.try_to_dtype(wide)?.try_norm(f64::INFINITY, &[], false)?.item::<f64>());
        if largest.map_err(|e| e.context(&name))? == 0.0 {
            flow.zero.push(name);
        }
    }
    Ok(flow)
}

impl fmt::Display for GradientFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GradientFlow { trainable, missing, zero } = self;
        if self.is_sound() {
            return write!(f, "every one of {trainable} trainable parameters has a gradient");
        }
        let mut parts = Vec::new();
        if !missing.is_empty() {
            parts.push(format!("no gradient (detached, or not used in the loss): {}", missing.join(", ")));
        }
        if !zero.is_empty() {
            parts.push(format!("a gradient of zeros only: {}", zero.join(", ")));
        }
        let n = missing.len() + zero.len();
        write!(f, "{n} of {trainable} trainable parameters are not trained: {}", parts.join("; "))
    }
}
