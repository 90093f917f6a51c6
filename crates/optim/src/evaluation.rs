//! Weights that are not the ones being trained: put into a model for an evaluation, and taken out again.

use crate::optimizer::Optimizer;
use gradus_core::{Error, Result, Tensor, no_grad};
use gradus_nn::Module;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Optimizer {
    /// What the model is worth under a rule that trains other values than it evaluates ([`Asgd`](crate::Asgd),
    /// [`ScheduleFreeAdamW`](crate::ScheduleFreeAdamW)): the values by the parameters' names, in the parameters' dtype. Empty for
    /// every other rule, and before the first step. Use them with [`with_weights`].
    pub fn evaluation_weights(&self, model: &dyn Module) -> Result<BTreeMap<String, Tensor>> {
        let (mut weights, mut outcome) = (BTreeMap::new(), Ok(()));
        model.for_each_parameter(&mut |name, p| {
            let Some(entry) = self.entries.iter().find(|e| *e.name == *name && e.steps > 0) else { return };
            if outcome.is_ok() {
                let value = no_grad(|| {
                    let value = self.rule_for(name).evaluation_value(&p.detach(), &entry.state)?;
                    value.map(|v| v.try_to_dtype(p.dtype())).transpose()
                });
                match value {
                    Ok(value) => weights.extend(value.map(|v| (name.to_owned(), v))),
                    Err(e) => outcome = Err(e.context(name)),
                }
            }
        });
        outcome.map(|()| weights)
    }
}

/// Runs `f` on the model with other values for the parameters that are named; afterwards, and after a panic too, the model has its
/// own again, to the bit. Gradients are not touched.
///
/// An error that names the parameter, and `f` not called, if one has no such value, or another shape, dtype or device.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Module, Param};
/// use gradus_optim::{WeightAverage, with_weights};
/// let mut model = vec![Param::new(Tensor::ones([2], gradus_cpu::device()))];
/// let mut average = WeightAverage::ema(0.9);
/// average.update(&model)?;
/// let sum = with_weights(&mut model, &average.weights(), |m| Ok(m[0].sum()))?;
/// assert_eq!(sum.item::<f32>()?, 2.0);
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn with_weights<M: Module, T>(
    model: &mut M,
    weights: &BTreeMap<String, Tensor>,
    f: impl FnOnce(&M) -> Result<T>,
) -> Result<T> {
    let mut own = BTreeMap::new();
    model.for_each_parameter(&mut |name, p| {
        if weights.contains_key(name) {
            own.insert(name.to_owned(), p.detach());
        }
    });
    if let Some(name) = weights.keys().find(|name| !own.contains_key(*name)) {
        return Err(Error::misuse(format!("with_weights: the model has no parameter called {name}")));
    }
    for (name, new) in weights {
        let old = &own[name];
        if new.meta() != old.meta() || new.device() != old.device() {
            return Err(Error::misuse(format!(
                "with_weights: {name} is {} {} on {}; the value given is {} {} on {}",
                old.dtype(),
                old.shape(),
                old.device(),
                new.dtype(),
                new.shape(),
                new.device()
            )));
        }
    }
    put(model, weights)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| f(model)));
    put(model, &own)?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

fn put<M: Module>(model: &mut M, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut outcome = Ok(());
    model.for_each_parameter_mut(&mut |name, p| {
        if let (Some(value), true) = (weights.get(name), outcome.is_ok()) {
            outcome = p.value_mut().set_value(value).map_err(|e| e.context(name));
        }
    });
    outcome
}
