//! What a user's step gives back.

use gradus_core::Tensor;

/// What one pass over a batch gave: the loss to go down, and what else is to be measured.
///
/// ```
/// # fn show(logits: gradus_core::Tensor, target: gradus_core::Tensor) -> gradus_train::Step {
/// use gradus_train::Step;
/// Step::new(logits.cross_entropy(&target)).outputs(&logits, &target)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Step {
    pub(crate) loss: Tensor,
    pub(crate) outputs: Option<(Tensor, Tensor)>,
    pub(crate) values: Vec<(String, Tensor)>,
}

impl Step {
    /// The batch's mean loss: a tensor without dimensions (or with one element).
    pub fn new(loss: Tensor) -> Step {
        Step { loss, outputs: None, values: Vec::new() }
    }
    /// The model's outputs and what they should be, for the metrics of an evaluation.
    pub fn outputs(mut self, outputs: &Tensor, targets: &Tensor) -> Step {
        self.outputs = Some((outputs.detach(), targets.detach()));
        self
    }
    /// Another mean over the batch, of one element, to be averaged over the epoch under this name.
    pub fn value(mut self, name: &str, value: &Tensor) -> Step {
        self.values.push((name.to_owned(), value.detach()));
        self
    }
}
