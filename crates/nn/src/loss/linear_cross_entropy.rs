//! A linear layer and the cross-entropy of its outputs, a chunk of rows at a time, so that the logits of all rows are never
//! held at once: of a language model they are by far its largest tensor.
//!
//! Each chunk is a checkpointed block: it keeps its rows of the input alone, and backward computes its logits again. What fits
//! into one chunk is not: its logits are kept, as they cost no more memory than a chunk does.

use super::{CrossEntropy, Loss, Losses, Reduction, misfit};
use crate::{Init, Linear, Module};
use gradus_core::error::or_raise;
use gradus_core::{DType, Error, Result, Tensor};

/// How many logits a chunk may hold, unless told otherwise: 64 MiB in `f32`. Smaller chunks cost time: each reads all weights
/// three times, and adds to all their gradients.
const CHUNK: usize = 1 << 24;

/// The cross-entropy of x·Wᵀ + b with class indices or probabilities, for x `[rows, inputs]` and targets `[rows]` or
/// `[rows, classes]` (or more dimensions of rows), without ever holding the logits `[rows, classes]` of more than 16 Mi numbers. With W of
/// classes · places rows, targets are `[rows, places..]` or `[rows, classes, places..]`. In PyTorch: `torch.nn.LinearCrossEntropyLoss`.
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
    /// With this many rows' logits held at once (by default, as many as make 16 Mi logits).
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
        let Some(shape) = Places::of(x, weight, target) else {
            let message = "needs rows [.., inputs], a weight [classes·places, inputs], and class indices [.., places..] or \
                probabilities [.., classes, places..]";
            return Err(misfit("linear_cross_entropy", message, [x, weight, target]));
        };
        if rows_at_once == Some(0) {
            return Err(Error::misuse("linear_cross_entropy: a chunk has at least 1 row"));
        }
        let Places { rows, logits, each } = shape;
        let target = if target.dtype().is_int() { target.try_to_dtype(DType::I64)? } else { target.clone() };
        let target = target.try_reshape([&[rows], &target.dims()[x.rank() - 1..]].concat())?;
        let x = x.try_reshape([rows, weight.dim(1)])?;
        let step = rows_at_once.unwrap_or(CHUNK / weight.dim(0).max(1)).clamp(1, rows.max(1));
        let (mut losses, mut shares) = (Vec::new(), Vec::new());
        for start in (0..rows).step_by(step) {
            let n = step.min(rows - start);
            let target = target.try_narrow(0, start, n)?;
            shares.extend(self.share(&target, x.dtype())?);
            let (loss, bias, shape) = (self.clone(), bias.cloned(), [&[n], &logits[..]].concat());
            let block = move |x: &[Tensor]| {
                let logits = x[0].try_linear(&x[1], bias.as_ref())?.try_reshape(&shape)?;
                Ok(loss.try_losses(&logits, &target)?.each)
            };
            if n == rows && rows_at_once.is_none() {
                losses.push(block(&[x.clone(), weight.clone()])?);
            } else {
                losses.push(gradus_core::autodiff::try_checkpoint(block, &[&x.try_narrow(0, start, n)?, weight])?);
            }
        }
        let joined = |parts: &[Tensor]| match parts {
            [] => Tensor::try_zeros(&each, x.place()),
            parts => Tensor::try_cat(&parts.iter().collect::<Vec<_>>(), 0)?.try_reshape(&each),
        };
        let share = if shares.is_empty() && rows > 0 { None } else { Some(joined(&shares)?) };
        Ok(Losses { each: joined(&losses)?, share })
    }
}

/// How rows, logits and losses lie.
struct Places {
    rows: usize,
    /// One row's logits, `[classes, places..]`.
    logits: Vec<usize>,
    /// The losses' shape.
    each: Vec<usize>,
}

impl Places {
    /// If the shapes fit.
    fn of(x: &Tensor, weight: &Tensor, target: &Tensor) -> Option<Places> {
        let lead = x.dims().split_last()?.1;
        let rest = target.dims().strip_prefix(lead)?;
        if weight.rank() != 2 || weight.dim(1) != x.dim(-1) {
            return None;
        }
        let places = if target.dtype().is_int() { rest } else { rest.split_first()?.1 };
        let n: usize = places.iter().product();
        if n == 0 || !weight.dim(0).is_multiple_of(n) {
            return None;
        }
        let classes = weight.dim(0) / n;
        if !target.dtype().is_int() && rest[0] != classes {
            return None;
        }
        let (logits, each) = ([&[classes], places].concat(), [lead, places].concat());
        Some(Places { rows: lead.iter().product(), logits, each })
    }
}
