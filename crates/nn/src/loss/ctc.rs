//! Connectionist temporal classification (Graves et al., 2006): sequences of labels without their alignment in time.

use super::{Losses, Reduction, misfit, options};
use crate::Module;
use gradus_core::error::or_raise;
use gradus_core::ops::PadMode;
use gradus_core::{DType, Result, Tensor};

/// What stands for ln 0 in the recursion: −∞ would give ∞ − ∞ in gradients.
const NEVER: f64 = -1e30;

/// −ln p(labels), where p sums over every way to stretch the labels, with blanks between them, over the input's steps.
/// In PyTorch: `torch.nn.CTCLoss`.
///
/// Log-probabilities `[steps, batch, classes]`, labels `[batch, longest]` (or all in one row, one sequence after another), and
/// for each sequence how many steps and labels count. (Or one sequence alone: `[steps, classes]`.) The mean is of each
/// sequence's loss over its number of labels. Labels that cannot be stretched so give ∞, or 0 if so told.
///
/// As in PyTorch, the gradient with respect to the log-probabilities is the one with respect to the logits that they came from,
/// softmax − expected count; log_softmax hands it on unchanged.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::Ctc;
/// let device = gradus_cpu::device();
/// let p = Tensor::zeros([4, 1, 3], device).log_softmax(-1);
/// let loss = Ctc::new().forward(&p, &Tensor::from_vec(vec![1i64, 2], [1, 2], device), &[4], &[2]);
/// // 15 of the 3⁴ paths spell 1, 2; the mean is over 2 labels
/// assert!((loss.item::<f32>()? - (81f32 / 15.0).ln() / 2.0).abs() < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug, Default)]
pub struct Ctc {
    /// The class that stands for no label.
    pub blank: usize,
    /// Whether infinite losses count as 0.
    pub zero_infinity: bool,
    /// How the sequences' losses become one number.
    pub reduction: Reduction,
}

impl Ctc {
    /// Blank 0, the mean.
    pub fn new() -> Ctc {
        Ctc::default()
    }
    options! {
        /// With this class for no label.
        blank: usize,
        /// Whether infinite losses (and their gradients) count as 0.
        zero_infinity: bool,
        /// With this reduction.
        reduction: Reduction
    }

    /// The loss. Panics at the caller's line if shapes or lengths do not fit.
    #[track_caller]
    pub fn forward(&self, log_p: &Tensor, labels: &Tensor, steps: &[usize], lens: &[usize]) -> Tensor {
        or_raise(self.try_forward(log_p, labels, steps, lens))
    }

    /// As [`forward`](Self::forward), with misuse returned as an error.
    pub fn try_forward(&self, log_p: &Tensor, labels: &Tensor, steps: &[usize], lens: &[usize]) -> Result<Tensor> {
        if log_p.rank() == 2 {
            let loss =
                self.try_forward(&log_p.try_unsqueeze(1)?, &labels.try_reshape([1, labels.elements()])?, steps, lens)?;
            return if self.reduction == Reduction::None { loss.try_squeeze(0) } else { Ok(loss) };
        }
        let losses = self.try_losses(log_p, labels, steps, lens)?;
        if self.reduction == Reduction::Mean {
            let lens: Vec<f32> = lens.iter().map(|&n| n.max(1) as f32).collect();
            let lens = Tensor::try_from_vec(lens, [log_p.dim(1)], log_p.device())?.try_to_dtype(log_p.dtype())?;
            return losses.try_div(&lens)?.try_mean();
        }
        Losses::from(losses).reduced(self.reduction)
    }

    /// The loss of each sequence, `[batch]`.
    fn try_losses(&self, log_p: &Tensor, labels: &Tensor, steps: &[usize], lens: &[usize]) -> Result<Tensor> {
        let labels = self.checked(log_p, labels, steps, lens)?;
        let (time, batch) = (log_p.dim(0), log_p.dim(1));
        let longest = labels.dim(1);
        let states = 2 * longest + 1;
        // blank, label, blank, label, .., blank: [batch, states]
        let blank = Tensor::try_full([batch, longest, 1], self.blank as i64, labels.place())?;
        let pairs = Tensor::try_cat(&[&blank, &labels.try_unsqueeze(-1)?], -1)?.try_reshape([batch, 2 * longest])?;
        let path = Tensor::try_cat(&[&pairs, &Tensor::try_full([batch, 1], self.blank as i64, labels.place())?], 1)?;
        let index = path.try_unsqueeze(0)?.try_expand([time, batch, states])?;
        let emitted = log_p.try_gather(2, &index)?; // [steps, batch, states]
        // A label may follow the one before without a blank between, unless they are the same.
        let before = shifted(&path, 2, -1.0)?;
        let barred = path.try_eq(&before)?.try_logical_or(&path.try_eq_scalar(self.blank as i64)?)?;
        let start: Vec<bool> = (0..states).map(|s| s > 1).collect();
        let start = Tensor::try_from_vec(start, [1, states], log_p.device())?;
        let mut alpha = emitted.try_select(0, 0)?.try_masked_fill(&start.try_expand([batch, states])?, NEVER)?;
        for t in 1..time {
            let skip = shifted(&alpha, 2, NEVER)?.try_masked_fill(&barred, NEVER)?;
            let next = alpha.try_logaddexp(&shifted(&alpha, 1, NEVER)?)?.try_logaddexp(&skip)?;
            let next = next.try_add(&emitted.try_select(0, t as isize)?)?;
            alpha = match steps.iter().all(|&n| n > t) {
                true => next,
                false => {
                    let on: Vec<bool> = steps.iter().map(|&n| n > t).collect();
                    next.try_where(&Tensor::try_from_vec(on, [batch, 1], log_p.device())?, &alpha)?
                }
            };
        }
        let likelihood = ended(&alpha, lens)?;
        let hopeless = likelihood.try_lt_scalar(NEVER / 2.0)?;
        let none = if self.zero_infinity { 0.0 } else { f64::INFINITY };
        let losses = likelihood.try_neg()?.try_add(&self.through_softmax(log_p, steps)?)?;
        losses.try_masked_fill(&hopeless, none)
    }

    /// Zeros `[batch]` whose gradient with respect to the log-probabilities is the probabilities: it makes the loss's gradient that
    /// with respect to the logits.
    fn through_softmax(&self, log_p: &Tensor, steps: &[usize]) -> Result<Tensor> {
        let (time, batch) = (log_p.dim(0), log_p.dim(1));
        let p = log_p.try_exp()?.try_sum_dims(&[-1], false)?;
        let on: Vec<bool> = (0..time).flat_map(|t| steps.iter().map(move |&n| n > t)).collect();
        let on = Tensor::try_from_vec(on, [time, batch], log_p.device())?.try_to_dtype(log_p.dtype())?;
        p.try_sub(&p.detach())?.try_mul(&on)?.try_sum_dims(&[0], false)
    }

    /// The labels as `[batch, longest]` of `i64`, if all fits.
    fn checked(&self, log_p: &Tensor, labels: &Tensor, steps: &[usize], lens: &[usize]) -> Result<Tensor> {
        let e = |m: String| misfit("ctc", &m, [log_p, labels]);
        if log_p.rank() != 3 || !log_p.dtype().is_float() || !labels.dtype().is_int() || log_p.dims().contains(&0) {
            return Err(e("needs log-probabilities [steps, batch, classes] and integer labels".into()));
        }
        let [time, batch, classes] = [log_p.dim(0), log_p.dim(1), log_p.dim(2)];
        if steps.len() != batch || lens.len() != batch {
            let (a, b) = (steps.len(), lens.len());
            return Err(e(format!("needs {batch} numbers of steps and of labels, not {a} and {b}")));
        }
        if let Some(n) = steps.iter().find(|&&n| n > time || n == 0) {
            return Err(e(format!("a sequence of {n} steps is not within 1 and {time}")));
        }
        if self.blank >= classes {
            return Err(e(format!("blank {} is none of {classes} classes", self.blank)));
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let labels = labels.try_to_dtype(DType::I64)?;
        match labels.rank() {
            2 if labels.dim(0) == batch && labels.dim(1) >= longest => {
                // What lies beyond a sequence's labels may be anything: it must not be looked up.
                let beyond: Vec<bool> = lens.iter().flat_map(|&n| (0..longest).map(move |s| s >= n)).collect();
                let beyond = Tensor::try_from_vec(beyond, [batch, longest], log_p.device())?;
                labels.try_narrow(1, 0, longest)?.try_masked_fill(&beyond, self.blank as i64)
            }
            1 if lens.iter().try_fold(0usize, |n, &l| n.checked_add(l)) == Some(labels.elements()) => {
                let mut at = 0;
                let rows: Result<Vec<Tensor>> = lens
                    .iter()
                    .map(|&n| {
                        at += n;
                        let row = labels.try_narrow(0, at - n, n)?;
                        row.try_pad(&[(0, (longest - n) as isize)], PadMode::Constant(self.blank as f64))
                    })
                    .collect();
                Tensor::try_stack(&rows?.iter().collect::<Vec<_>>(), 0)
            }
            _ => Err(e(format!("needs labels [batch, {longest} or more], or all of them in one row"))),
        }
    }
}

/// `x` moved `by` places to the right in its last dimension, with `fill` before it.
fn shifted(x: &Tensor, by: usize, fill: f64) -> Result<Tensor> {
    let n = x.dim(-1);
    let kept = n.saturating_sub(by);
    x.try_narrow(-1, 0, kept)?.try_pad(&[((n - kept) as isize, 0)], PadMode::Constant(fill))
}

/// ln of the probability to end at the last label or the blank after it, `[batch]`.
fn ended(alpha: &Tensor, lens: &[usize]) -> Result<Tensor> {
    let pick = |at: Vec<i64>| -> Result<Tensor> {
        let n = at.len();
        alpha.try_gather(1, &Tensor::try_from_vec(at, [n, 1], alpha.device())?)?.try_squeeze(1)
    };
    let last = pick(lens.iter().map(|&n| 2 * n as i64).collect())?;
    let label = pick(lens.iter().map(|&n| (2 * n as i64 - 1).max(0)).collect())?;
    let empty: Vec<bool> = lens.iter().map(|&n| n == 0).collect();
    let empty = Tensor::try_from_vec(empty, [lens.len()], alpha.device())?;
    last.try_logaddexp(&label.try_masked_fill(&empty, NEVER)?)
}
