//! Averages of the weights over training: exponential (EMA) and equal (SWA).

use crate::demand::demand_fraction;
use crate::rules::{store, towards, widened};
use crate::state::OptimizerState;
use gradus_core::{Error, Result, Tensor, no_grad};
use gradus_nn::Module;
use std::collections::BTreeMap;

/// An average of a model's parameters, which often generalizes better than the last of them.
///
/// Exponential: a ← δ·a + (1 − δ)·p. Equal: a ← a + (p − a)/(n + 1), with n the updates so far. The first update takes the
/// parameters as they are. Kept in `f32` for halves. Running statistics (batch normalization) are not averaged: gather them anew
/// with the averaged weights. Source: Polyak & Juditsky (1992); Izmailov et al., *Averaging weights leads to wider optima and better
/// generalization* (2018). In PyTorch: `torch.optim.swa_utils.AveragedModel`.
#[derive(Clone, Debug)]
pub struct WeightAverage {
    /// δ; `None` for equal weights.
    decay: Option<f64>,
    updates: u64,
    average: BTreeMap<String, Tensor>,
}

impl WeightAverage {
    /// An exponential average, of which the part `decay` stays at each update.
    pub fn ema(decay: f64) -> WeightAverage {
        WeightAverage { decay: Some(decay), updates: 0, average: BTreeMap::new() }
    }
    /// The mean of all updates.
    pub fn swa() -> WeightAverage {
        WeightAverage { decay: None, updates: 0, average: BTreeMap::new() }
    }
    /// How many updates it has seen.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Takes the model's parameters into account; one that is new begins with its value.
    pub fn update(&mut self, model: &dyn Module) -> Result<()> {
        demand_fraction("WeightAverage", "the decay", self.decay.unwrap_or(0.0))?;
        let part = self.decay.map_or(1.0 / (self.updates as f64 + 1.0), |d| 1.0 - d);
        let mut outcome = Ok(());
        model.for_each_parameter(&mut |name, p| {
            if outcome.is_ok() {
                outcome = no_grad(|| self.take(name, p, part)).map_err(|e| e.context(name));
            }
        });
        outcome?;
        self.updates += 1;
        Ok(())
    }

    fn take(&mut self, name: &str, p: &Tensor, part: f64) -> Result<()> {
        let now = widened(p)?;
        match self.average.get_mut(name) {
            Some(a) if a.meta() == now.meta() && a.device() == now.device() => store(a, &towards(a, &now, part)?),
            _ => {
                let mut own = crate::rules::zeros(p)?; // memory of its own, to be written in place
                store(&mut own, &now)?;
                self.average.insert(name.to_owned(), own);
                Ok(())
            }
        }
    }

    /// The averages by the parameters' names, for [`with_weights`](crate::with_weights). (For a model of halves, convert them.)
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.average.iter().map(|(name, a)| (name.clone(), a.detach())).collect()
    }

    /// What it must remember: the averages by name, and the number `updates`.
    pub fn state_dict(&self) -> OptimizerState {
        let numbers = [("updates".to_owned(), self.updates as f64)].into_iter().collect();
        OptimizerState { tensors: self.weights(), numbers }
    }
    /// Takes back what [`state_dict`](Self::state_dict) gave, for this model. An error, and nothing changed, unless every tensor is
    /// an average of one of its parameters.
    pub fn load_state_dict(&mut self, model: &dyn Module, state: &OptimizerState) -> Result<()> {
        let updates = state.numbers.get("updates").copied();
        let updates = updates.filter(|n| *n >= 0.0 && n.fract() == 0.0);
        let updates = updates.ok_or_else(|| Error::data("the state of a weight average has no count of updates"))?;
        let (mut own, mut outcome) = (BTreeMap::new(), Ok(()));
        model.for_each_parameter(&mut |name, p| {
            if let (Some(given), true) = (state.tensors.get(name), outcome.is_ok()) {
                let loaded = crate::rules::zeros(p).and_then(|mut into| {
                    into.write_value(&gradus_core::tensor::to_device(&given.detach(), p.device())?)?;
                    own.insert(name.to_owned(), into);
                    Ok(())
                });
                outcome = loaded.map_err(|e| e.context(name));
            }
        });
        outcome?;
        if let Some(name) = state.tensors.keys().find(|name| !own.contains_key(*name)) {
            return Err(Error::data(format!("the state averages {name}, which the model does not have")));
        }
        (self.updates, self.average) = (updates as u64, own);
        Ok(())
    }
}
