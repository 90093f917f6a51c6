//! A loss scaled up before its backward pass, so that small gradients stay within the range of `f16`.

use gradus_core::{DType, Error, Result, Tensor, no_grad};
use gradus_nn::{Module, Param};
use std::collections::BTreeMap;

/// Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018, §3.2): the loss is multiplied by a scale and its
/// gradients divided by it. Where a gradient is infinite or NaN, the step is to be skipped and the scale is halved; after a number
/// of steps without, it is doubled. In PyTorch: `torch.amp.GradScaler`.
///
/// ```
/// use gradus_core::{Precision, Tensor, with_precision};
/// use gradus_nn::{Module, Param};
/// use gradus_optim::{LossScale, Rule, Sgd};
/// # fn main() -> gradus_core::Result<()> {
/// let device = gradus_cpu::device();
/// let mut w = vec![Param::new(Tensor::ones([2, 2], device))];
/// let (mut optimizer, mut scale) = (Sgd::new(0.1).optimizer().build(&w)?, LossScale::new());
/// for _ in 0..3 {
///     w.zero_grad();
///     let loss = with_precision(Precision::F16, || Tensor::ones([1, 2], device).matmul(&w[0]).square().mean());
///     scale.scaled(&loss)?.backward();
///     if scale.unscale(&w)? {
///         optimizer.step(&mut w)?;
///     }
/// }
/// assert_eq!((scale.skipped(), optimizer.steps()), (0, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LossScale {
    scale: f64,
    growth_interval: u64,
    /// Steps without an overflow since the scale last changed.
    good: u64,
    skipped: u64,
}

impl Default for LossScale {
    /// 2¹⁶, doubled after 2000 steps, as in PyTorch.
    fn default() -> LossScale {
        LossScale { scale: 65536.0, growth_interval: 2000, good: 0, skipped: 0 }
    }
}

impl LossScale {
    /// 2¹⁶, doubled after 2000 steps without an overflow.
    pub fn new() -> LossScale {
        LossScale::default()
    }
    /// Beginning with this scale.
    pub fn initial(mut self, scale: f64) -> LossScale {
        self.scale = scale;
        self
    }
    /// Doubled after so many steps without an overflow.
    pub fn growth_interval(mut self, steps: u64) -> LossScale {
        self.growth_interval = steps;
        self
    }
    /// What the next loss is multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }
    /// How many steps were skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The loss times the scale, in `f32`. An error if the scale is not a finite number above 0.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor> {
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Error::misuse(format!("a loss scale must be a finite number above 0; got {}", self.scale)));
        }
        let loss = if loss.dtype().is_half() { loss.try_to_dtype(DType::F32)? } else { loss.clone() };
        Ok(loss * self.scale)
    }

    /// Divides the gradients by the scale and gives `true`; or, where one of their numbers is not finite, forgets them all,
    /// halves the scale, counts a skipped step, and gives `false`. Reads one number from the device.
    pub fn unscale(&mut self, model: &dyn Module) -> Result<bool> {
        let finite = no_grad(|| self.divided(model))?;
        if finite {
            self.good += 1;
            if self.good >= self.growth_interval.max(1) && (self.scale * 2.0).is_finite() {
                (self.scale, self.good) = (self.scale * 2.0, 0);
            }
        } else {
            model.zero_grad();
            (self.scale, self.good) = (self.scale * 0.5, 0);
            self.skipped += 1;
        }
        Ok(finite)
    }

    /// Divides the gradients; whether all of them are finite.
    fn divided(&self, model: &dyn Module) -> Result<bool> {
        let (mut nothing, mut outcome) = (None::<Tensor>, Ok(()));
        model.for_each_parameter(&mut |name, p| {
            if outcome.is_ok() {
                outcome = self.divide_one(p, &mut nothing).map_err(|e| e.context(format!("the gradient of {name}")));
            }
        });
        outcome?;
        match nothing {
            Some(zero) => Ok(zero.item::<f64>()? == 0.0),
            None => Ok(true),
        }
    }

    /// Divides a gradient and adds 0·g to `nothing`: 0, or NaN where g is not finite.
    fn divide_one(&self, p: &Param, nothing: &mut Option<Tensor>) -> Result<()> {
        let Some(g) = p.take_grad() else { return Ok(()) };
        let g = g * (1.0 / self.scale);
        let zero = (&g * 0.0).try_sum()?.try_to_dtype(DType::F32)?;
        *nothing = Some(match nothing.take() {
            Some(sum) => sum.try_add(&gradus_core::tensor::to_device(&zero, sum.device())?)?,
            None => zero,
        });
        p.set_grad(g)
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> BTreeMap<String, f64> {
        let all = [("scale", self.scale), ("good", self.good as f64), ("skipped", self.skipped as f64)];
        all.into_iter().map(|(name, x)| (name.to_owned(), x)).collect()
    }
    /// Takes back what [`state`](Self::state) gave. An error, and nothing changed, if something is missing.
    pub fn load_state(&mut self, state: &BTreeMap<String, f64>) -> Result<()> {
        let get = |name: &str| {
            let missing = || Error::data(format!("LossScale: the state has no number called {name}"));
            state.get(name).copied().ok_or_else(missing)
        };
        let (scale, good, skipped) = (get("scale")?, get("good")?, get("skipped")?);
        (self.scale, self.good, self.skipped) = (scale, good as u64, skipped as u64);
        Ok(())
    }
}
