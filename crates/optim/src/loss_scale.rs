//! A loss scaled up before its backward pass, so that small gradients stay within the range of `f16`.

use crate::transforms::multiplied;
use gradus_core::{DType, Error, Result, Tensor, no_grad};
use gradus_nn::Module;
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
///     if let Some(by) = scale.checked(&w)? {
///         optimizer.step_scaled(&mut w, by)?;
///     }
/// }
/// assert_eq!(scale.skipped() + optimizer.steps(), 3); // here the first one overflows
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

    /// What the gradients are to be multiplied with to undo the scale, which
    /// [`step_scaled`](crate::Optimizer::step_scaled) does by the way; or, where one of their numbers is not finite, `None`, having
    /// forgotten them all, halved the scale and counted a skipped step. Reads one number from the device.
    pub fn checked(&mut self, model: &dyn Module) -> Result<Option<f64>> {
        let mut by = 1.0 / self.scale;
        if by > 1.0 {
            multiply(model, by)?; // what is finite may overflow by that
            by = 1.0;
        }
        let finite = no_grad(|| all_finite(model))?;
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
        Ok(finite.then_some(by))
    }

    /// As [`checked`](Self::checked), and multiplies the gradients: for whoever works with them before the step. Whether there are any
    /// left.
    pub fn unscale(&mut self, model: &dyn Module) -> Result<bool> {
        let by = self.checked(model)?;
        by.map_or(Ok(()), |by| multiply(model, by))?;
        Ok(by.is_some())
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

/// Whether all gradients are finite: one answer for those of a device and dtype, and one of all to be read.
fn all_finite(model: &dyn Module) -> Result<bool> {
    let mut alike: Vec<Vec<Tensor>> = Vec::new();
    model.for_each_parameter(&mut |_, p| {
        let Some(g) = p.grad() else { return };
        let same = |other: &Tensor| other.dtype() == g.dtype() && other.device() == g.device();
        match alike.iter_mut().find(|group| same(&group[0])) {
            Some(group) => group.push(g),
            None => alike.push(vec![g]),
        }
    });
    let mut all: Option<Tensor> = None;
    for group in alike {
        let finite = Tensor::try_all_finite(&group.iter().collect::<Vec<_>>())?;
        all = Some(match all {
            Some(all) => all.try_logical_and(&gradus_core::tensor::to_device(&finite, all.device())?)?,
            None => finite,
        });
    }
    all.map_or(Ok(true), |all| all.item())
}

/// Multiplies the gradients.
fn multiply(model: &dyn Module, by: f64) -> Result<()> {
    let mut outcome = Ok(());
    model.for_each_parameter(&mut |name, p| {
        if outcome.is_ok()
            && let Some(g) = p.take_grad()
        {
            let new = no_grad(|| multiplied(&g, by)).and_then(|g| p.set_grad(g));
            outcome = new.map_err(|e| e.context(format!("the gradient of {name}")));
        }
    });
    outcome
}
