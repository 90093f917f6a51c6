//! What a gradient rule sees of its call.

use super::node::{Call, Node, Saved};
use crate::device::Device;
use crate::error::Error;
use crate::op::Meta;
use crate::tensor::Tensor;
use std::sync::Arc;

/// What a rule sees of its call: gradients, inputs, outputs and shapes.
///
/// Without a graph being made ([`Vjp::graph`]) the tensors it hands out are detached.
pub struct Vjp<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) call: &'a Call,
    pub(crate) saved: &'a Saved,
    pub(crate) grads: &'a [Option<Tensor>],
    pub(crate) graph: bool,
}

impl Vjp<'_> {
    /// The gradient of the only output.
    pub fn grad(&self) -> Tensor {
        self.grad_or_zeros(0)
    }
    /// As [`grad`](Self::grad), lent.
    #[track_caller]
    pub fn grad_ref(&self) -> &Tensor {
        match self.grads {
            [Some(g)] => g,
            _ => self.raise("has several outputs, whose gradients may be missing"),
        }
    }
    /// The gradient of output `i`, if one arrived.
    pub fn grad_of(&self, i: usize) -> Option<Tensor> {
        self.grads.get(i).cloned().flatten()
    }
    /// The gradient of output `i`, or zeros of its shape if none arrived.
    #[track_caller]
    pub fn grad_or_zeros(&self, i: usize) -> Tensor {
        self.grad_of(i).unwrap_or_else(|| {
            let m = self.call.several.get(i).copied().unwrap_or(self.node.meta);
            Tensor::zeros(m.shape, self.node.device.with(m.dtype))
        })
    }
    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.call.inputs.len()
    }
    /// Whether anybody wants the gradient of input `i`.
    pub fn needs(&self, i: usize) -> bool {
        self.call.inputs[i].is_some()
    }
    /// The dtype and shape of input `i`; needs no saving.
    pub fn meta(&self, i: usize) -> Meta {
        match (self.call.input_metas.get(i), &self.call.inputs[i], self.saved.inputs.get(i)) {
            (Some(meta), ..) => *meta,
            (None, Some(node), _) => node.meta,
            (None, None, Some(Some(x))) => x.meta(),
            (None, None, _) => self.raise(&format!("does not know input {i}")),
        }
    }
    /// The shape of input `i`; needs no saving.
    pub fn shape(&self, i: usize) -> crate::shape::Shape {
        self.meta(i).shape
    }
    /// Input `i`, which the op must have said it saves.
    #[track_caller]
    pub fn x(&self, i: usize) -> Tensor {
        self.x_ref(i).clone()
    }
    /// As [`x`](Self::x), lent.
    #[track_caller]
    pub fn x_ref(&self, i: usize) -> &Tensor {
        match self.saved.inputs.get(i) {
            Some(Some(x)) => x,
            _ => self.raise(&format!("did not save input {i}")),
        }
    }
    /// The only output, which the op must have said it saves.
    #[track_caller]
    pub fn y(&self) -> Tensor {
        self.y_of(0)
    }
    /// As [`y`](Self::y), lent.
    #[track_caller]
    pub fn y_ref(&self) -> &Tensor {
        match self.saved.outputs.first() {
            Some(y) => y,
            None => self.raise("did not save its output"),
        }
    }
    /// Output `i`, which the op must have said it saves.
    #[track_caller]
    pub fn y_of(&self, i: usize) -> Tensor {
        match self.saved.outputs.get(i) {
            Some(y) => y.clone(),
            None => self.raise("did not save its output"),
        }
    }
    /// What the fused kernel kept at place `i`, detached; `None` if the call ran by definition.
    pub fn aux(&self, i: usize) -> Option<Tensor> {
        self.saved.aux.get(i).cloned()
    }
    /// Whether the gradients are to be differentiable themselves.
    pub fn graph(&self) -> bool {
        self.graph
    }
    /// The device of the call.
    pub fn device(&self) -> Device {
        self.node.device
    }
    /// What an op without a gradient answers: it says so, instead of cutting the graph silently.
    #[track_caller]
    pub fn no_gradient(&self, why: &str) -> ! {
        self.raise(&format!("has no gradient: {why}"))
    }
    #[cold]
    #[track_caller]
    fn raise(&self, what: &str) -> ! {
        crate::error::raise(Error::misuse(format!("{} {what}", self.call.rule.name())))
    }
}
