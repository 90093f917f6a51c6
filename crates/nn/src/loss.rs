//! Losses: how far a prediction is from its target, as one number to be made small.

use gradus_core::error::or_raise;
use gradus_core::functional::loss::CrossEntropyOptions;
pub use gradus_core::functional::loss::Reduction;
use gradus_core::{DType, Error, Result, Tensor};

/// A loss.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{CrossEntropy, Loss};
/// let device = gradus_cpu::device();
/// let logits = Tensor::zeros([2, 10], device).requires_grad();
/// let loss = CrossEntropy::new().smoothing(0.1).forward(&logits, &Tensor::from_vec(vec![3i64, 7], [2], device));
/// assert!((loss.item::<f32>()? - 10f32.ln()).abs() < 1e-6);
/// loss.backward();
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub trait Loss {
    /// The loss of `prediction`, with misuse returned as an error.
    fn try_forward(&self, prediction: &Tensor, target: &Tensor) -> Result<Tensor>;
    /// The loss of `prediction`. Panics at the caller's line if shapes or dtypes do not fit.
    #[track_caller]
    fn forward(&self, prediction: &Tensor, target: &Tensor) -> Tensor {
        or_raise(self.try_forward(prediction, target))
    }
}

/// The cross-entropy of logits `[rows, classes, ..]` and class indices `[rows, ..]`: −ln softmax(logits) at the target.
/// In PyTorch: `torch.nn.CrossEntropyLoss`.
///
/// With class weights w, smoothing s and C classes, a row's loss is −(1−s)·w_t·p_t − s/C·Σ_c w_c·p_c for log-probabilities p;
/// the mean is over the weights of the targets. A target that is no class is an error, but for the ignored one (−100).
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// Weights, smoothing, ignored index, reduction.
    pub options: CrossEntropyOptions,
}

impl CrossEntropy {
    /// Without weights or smoothing, ignoring −100, the mean.
    pub fn new() -> CrossEntropy {
        CrossEntropy::default()
    }
    /// With a weight for each class, `[classes]`.
    pub fn weight(mut self, weight: Tensor) -> CrossEntropy {
        self.options.weight = Some(weight);
        self
    }
    /// With the share `smoothing` of each target's probability spread over all classes (Szegedy et al., 2016).
    pub fn smoothing(mut self, smoothing: f64) -> CrossEntropy {
        self.options.smoothing = smoothing;
        self
    }
    /// Not counting rows with this target.
    pub fn ignore(mut self, index: i64) -> CrossEntropy {
        self.options.ignore = index;
        self
    }
    /// With this reduction.
    pub fn reduction(mut self, reduction: Reduction) -> CrossEntropy {
        self.options.reduction = reduction;
        self
    }
}

impl Loss for CrossEntropy {
    fn try_forward(&self, logits: &Tensor, target: &Tensor) -> Result<Tensor> {
        logits.try_cross_entropy_with(target, &self.options)
    }
}

/// −p at the target, for log-probabilities p `[rows, classes, ..]` and class indices `[rows, ..]`. In PyTorch: `torch.nn.NLLLoss`.
///
/// With class weights w, a row's loss is −w_t·p_t, and the mean is over the weights of the targets.
#[derive(Clone, Debug)]
pub struct Nll {
    /// A weight for each class, `[classes]`.
    pub weight: Option<Tensor>,
    /// The target of rows that do not count.
    pub ignore: i64,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for Nll {
    fn default() -> Nll {
        Nll { weight: None, ignore: -100, reduction: Reduction::Mean }
    }
}

impl Nll {
    /// Without weights, ignoring −100, the mean.
    pub fn new() -> Nll {
        Nll::default()
    }
    /// With a weight for each class, `[classes]`.
    pub fn weight(mut self, weight: Tensor) -> Nll {
        self.weight = Some(weight);
        self
    }
    /// Not counting rows with this target.
    pub fn ignore(mut self, index: i64) -> Nll {
        self.ignore = index;
        self
    }
    /// With this reduction.
    pub fn reduction(mut self, reduction: Reduction) -> Nll {
        self.reduction = reduction;
        self
    }
}

impl Loss for Nll {
    fn try_forward(&self, log_p: &Tensor, target: &Tensor) -> Result<Tensor> {
        let fits = log_p.rank() >= 2
            && *target.shape() == log_p.shape().without(1)
            && log_p.dtype().is_float()
            && target.dtype().is_int();
        if !fits {
            return Err(misfit(
                "nll",
                "needs log-probabilities [rows, classes, ..] and integer targets [rows, ..]",
                log_p,
                target,
            ));
        }
        let target = target.try_to_dtype(DType::I64)?;
        let ignored = target.try_eq_scalar(self.ignore)?;
        let class = target.try_masked_fill(&ignored, 0i64)?;
        let mut weight = ignored.try_logical_not()?.try_to_dtype(log_p.dtype())?;
        if let Some(w) = &self.weight {
            if w.dims() != [log_p.dims()[1]] {
                return Err(misfit(
                    "nll",
                    &format!("class weights of shape [{}] would fit, not {}", log_p.dims()[1], w.shape()),
                    log_p,
                    &target,
                ));
            }
            weight = weight.try_mul(&w.try_index_select(0, &class)?)?;
        }
        let picked = log_p.try_gather(1, &class.try_unsqueeze(1)?)?.try_squeeze(1)?;
        // −∞ in a row that does not count must not become NaN.
        let losses = picked.try_masked_fill(&ignored, 0.0)?.try_mul(&weight)?.try_neg()?;
        match self.reduction {
            Reduction::Mean => losses.try_sum()?.try_div(&weight.try_sum()?),
            other => reduced(losses, other),
        }
    }
}

/// The binary cross-entropy of logits x and targets t in [0, 1], of one shape: −t·ln σ(x) − (1−t)·ln(1−σ(x)), without overflow.
/// In PyTorch: `torch.nn.BCEWithLogitsLoss`.
#[derive(Clone, Debug, Default)]
pub struct BceWithLogits {
    /// A factor of each element's loss; broadcasts.
    pub weight: Option<Tensor>,
    /// A factor of the positive term, for classes out of balance; broadcasts.
    pub positive_weight: Option<Tensor>,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl BceWithLogits {
    /// Without weights, the mean.
    pub fn new() -> BceWithLogits {
        BceWithLogits::default()
    }
    /// With a factor of each element's loss, which broadcasts.
    pub fn weight(mut self, weight: Tensor) -> BceWithLogits {
        self.weight = Some(weight);
        self
    }
    /// With a factor of the positive term, which broadcasts. In PyTorch: `pos_weight`.
    pub fn positive_weight(mut self, weight: Tensor) -> BceWithLogits {
        self.positive_weight = Some(weight);
        self
    }
    /// With this reduction.
    pub fn reduction(mut self, reduction: Reduction) -> BceWithLogits {
        self.reduction = reduction;
        self
    }
}

impl Loss for BceWithLogits {
    fn try_forward(&self, x: &Tensor, target: &Tensor) -> Result<Tensor> {
        let t = matching("bce_with_logits", x, target)?;
        // (1 − t)·x + (1 + (w − 1)·t)·softplus(−x)
        let mut positive = x.try_neg()?.try_softplus()?;
        if let Some(w) = &self.positive_weight {
            positive = positive.try_mul(&((w - 1.0).try_mul(&t)? + 1.0))?;
        }
        let losses = (1.0 - &t).try_mul(x)?.try_add(&positive)?;
        let losses = match &self.weight {
            Some(w) => losses.try_mul(w)?,
            None => losses,
        };
        reduced(losses, self.reduction)
    }
}

/// Losses of the difference d = prediction − target, of one shape: a row gives the type, its options, and the loss of each
/// element.
macro_rules! distances {
    ($($(#[$doc:meta])* $t:ident, $name:literal $({ $(#[$option_doc:meta])* $option:ident = $default:literal })?, |$self:ident, $d:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $t {
            $($(#[$option_doc])* pub $option: f64,)?
            /// How the elements' losses become one number.
            pub reduction: Reduction,
        }
        impl $t {
            $(
                #[doc = concat!("The mean, with `", stringify!($option), "` as given (PyTorch's default is ", stringify!($default), ").")]
                pub fn new($option: f64) -> $t {
                    $t { $option, reduction: Reduction::Mean }
                }
            )?
            /// With this reduction.
            pub fn reduction(mut self, reduction: Reduction) -> $t {
                self.reduction = reduction;
                self
            }
        }
        impl Default for $t {
            fn default() -> $t {
                $t { $($option: $default,)? reduction: Reduction::Mean }
            }
        }
        impl Loss for $t {
            fn try_forward(&$self, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
                let $d = prediction.try_sub(&matching($name, prediction, target)?)?;
                reduced($body?, $self.reduction)
            }
        }
    )*};
}

distances! {
    /// d². In PyTorch: `torch.nn.MSELoss`.
    Mse, "mse", |self, d| d.try_square();
    /// |d|. In PyTorch: `torch.nn.L1Loss`.
    L1, "l1", |self, d| d.try_abs();
    /// d²/2 where |d| < delta, else delta·(|d| − delta/2) (Huber, 1964). In PyTorch: `torch.nn.HuberLoss`.
    Huber, "huber" {
        /// Where the square becomes a line; above 0.
        delta = 1.0
    }, |self, d| huber(&d, positive("huber", "delta", self.delta)?);
    /// d²/(2·beta) where |d| < beta, else |d| − beta/2; |d| if beta is 0 (Girshick, 2015). In PyTorch: `torch.nn.SmoothL1Loss`.
    SmoothL1, "smooth_l1" {
        /// Where the square becomes a line; at least 0.
        beta = 1.0
    }, |self, d| match self.beta {
        0.0 => d.try_abs(),
        beta => huber(&d, positive("smooth_l1", "beta", beta)?).map(|y| y / beta),
    };
}

fn huber(d: &Tensor, delta: f64) -> Result<Tensor> {
    let a = d.try_abs()?;
    let line = (&a - delta / 2.0) * delta;
    (d.try_square()? * 0.5).try_where(&a.try_lt_scalar(delta)?, &line)
}

fn positive(loss: &str, what: &str, x: f64) -> Result<f64> {
    if x > 0.0 && x.is_finite() {
        return Ok(x);
    }
    Err(Error::misuse(format!("{loss}: {what} must be a number above 0; got {x}")))
}

/// The target in the prediction's dtype, if it has its shape.
fn matching(loss: &'static str, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if !prediction.dtype().is_float() || prediction.shape() != target.shape() {
        // Broadcasting here is nearly always a mistake: [n, 1] against [n] would compare all with all.
        return Err(misfit(loss, "needs a floating-point prediction and a target of its shape", prediction, target));
    }
    target.try_to_dtype(prediction.dtype())
}

fn misfit(loss: &'static str, message: &str, prediction: &Tensor, target: &Tensor) -> Error {
    Error::misuse(message).in_op(loss, [prediction, target].map(|t| (t.dtype(), *t.shape())))
}

fn reduced(losses: Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::Mean => losses.try_mean(),
        Reduction::Sum => losses.try_sum(),
        Reduction::None => Ok(losses),
    }
}
