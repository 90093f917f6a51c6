//! A linear layer and the cross-entropy of its outputs, a chunk of rows at a time, so that the logits of all rows are never
//! held at once: of a language model they are by far its largest tensor.
//!
//! Each chunk is a checkpointed block: it keeps its rows of the input alone, and backward computes its logits again.

use super::{CrossEntropy, Loss, Losses, Reduction, misfit};
use crate::{Init, Linear, Module, State};
use gradus_core::error::or_raise;
use gradus_core::{DType, Error, Result, Tensor};

/// How many logits a chunk may hold, unless told otherwise: 16 MiB in `f32`.
const CHUNK: usize = 1 << 22;

/// The cross-entropy of x·Wᵀ + b with class indices, for x `[rows, inputs]` and targets `[rows]` (or more dimensions of rows),
/// without ever holding the logits `[rows, classes]`. In PyTorch: `torch.nn.LinearCrossEntropyLoss`.
///
/// It starts without a bias, as PyTorch's. Values are those of [`CrossEntropy`] after [`Linear`]; gradients of any order reach x,
/// W and b. With a weight that another layer owns (tied embeddings), use [`CrossEntropy::try_of_linear`].
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{LinearCrossEntropy, Loss};
/// use gradus_nn::Init;
/// let device = gradus_cpu::device();
/// let loss = LinearCrossEntropy::new(8, 1000, &mut Init::new(device, 0)).rows_at_once(2);
/// let target = Tensor::from_vec(vec![1i64, 20, 300], [3], device);
/// assert!(loss.forward(&Tensor::zeros([3, 8], device), &target).item::<f32>()? - 1000f32.ln() < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct LinearCrossEntropy {
    /// The layer before the loss.
    pub linear: Linear,
    /// Weights, smoothing, ignored index, reduction.
    #[module(flatten)]
    pub loss: CrossEntropy,
    rows_at_once: Option<usize>,
}

impl LinearCrossEntropy {
    /// From `inputs` numbers to the logits of `classes` classes. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(inputs: usize, classes: usize, init: &mut Init) -> LinearCrossEntropy {
        or_raise(LinearCrossEntropy::try_new(inputs, classes, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(inputs: usize, classes: usize, init: &mut Init) -> Result<LinearCrossEntropy> {
        let linear = Linear::try_new(inputs, classes, init)?.bias(false);
        Ok(LinearCrossEntropy { linear, loss: CrossEntropy::new(), rows_at_once: None })
    }
    /// With this layer.
    pub fn linear(mut self, linear: Linear) -> LinearCrossEntropy {
        self.linear = linear;
        self
    }
    /// With these weights, smoothing, ignored index and reduction.
    pub fn loss(mut self, loss: CrossEntropy) -> LinearCrossEntropy {
        self.loss = loss;
        self
    }
    /// With this many rows' logits held at once (by default, as many as make 4 Mi logits).
    pub fn rows_at_once(mut self, rows: usize) -> LinearCrossEntropy {
        self.rows_at_once = Some(rows);
        self
    }
}

impl Loss for LinearCrossEntropy {
    fn try_losses(&self, x: &Tensor, target: &Tensor) -> Result<Losses> {
        let (weight, bias) = (&self.linear.weight, self.linear.bias.as_deref());
        self.loss.losses_of_linear(x, weight, bias, target, self.rows_at_once)
    }
    fn reduction(&self) -> Reduction {
        self.loss.reduction
    }
}

impl CrossEntropy {
    /// This loss of the logits x·Wᵀ + b, of which no more than `rows_at_once` rows are held at a time: see
    /// [`LinearCrossEntropy`].
    pub fn try_of_linear(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        target: &Tensor,
        rows_at_once: Option<usize>,
    ) -> Result<Tensor> {
        self.losses_of_linear(x, weight, bias, target, rows_at_once)?.reduced(self.reduction)
    }

    fn losses_of_linear(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        target: &Tensor,
        rows_at_once: Option<usize>,
    ) -> Result<Losses> {
        let fits = x.rank() >= 1 && x.dims()[..x.rank() - 1] == *target.dims() && target.dtype().is_int();
        if !fits || weight.rank() != 2 || weight.dim(1) != x.dim(-1) {
            let message = "needs rows [.., inputs], a weight [classes, inputs] and class indices [..]";
            return Err(misfit("linear_cross_entropy", message, [x, weight, target]));
        }
        if rows_at_once == Some(0) {
            return Err(Error::misuse("linear_cross_entropy: a chunk has at least 1 row"));
        }
        let (rows, classes) = (target.elements(), weight.dim(0));
        let target = target.try_to_dtype(DType::I64)?;
        let flat = target.try_reshape([rows])?;
        let x = x.try_reshape([rows, weight.dim(1)])?;
        let step = rows_at_once.unwrap_or(CHUNK / classes.max(1)).clamp(1, rows.max(1));
        let mut each = Vec::new();
        for start in (0..rows).step_by(step) {
            let n = step.min(rows - start);
            let (target, options) = (flat.try_narrow(0, start, n)?, self.options(Reduction::None));
            let bias = bias.cloned();
            let block =
                move |x: &[Tensor]| x[0].try_linear(&x[1], bias.as_ref())?.try_cross_entropy_with(&target, &options);
            each.push(gradus_core::autodiff::try_checkpoint(block, &[&x.try_narrow(0, start, n)?, weight])?);
        }
        let each = match each.is_empty() {
            true => Tensor::try_zeros([0], x.place())?,
            false => Tensor::try_cat(&each.iter().collect::<Vec<_>>(), 0)?,
        };
        let counted = flat.try_ne_scalar(self.ignore)?;
        let share = counted.try_to_dtype(each.dtype())?;
        let share = match self.weight.as_ref().map(State::value) {
            Some(w) => {
                let class = flat.try_masked_fill(&counted.try_logical_not()?, 0i64)?;
                w.try_index_select(0, &class)?.try_mul(&share)?
            }
            None => share,
        };
        Ok(Losses { each: each.try_reshape(*target.shape())?, share: Some(share.try_reshape(*target.shape())?) })
    }
}
