//! Saving and loading an optimizer's state, by the parameters' names: all or nothing.

use crate::optimizer::{Loaded, Optimizer};
use gradus_core::{Error, Result, Tensor};
use gradus_nn::Module;
use std::collections::{BTreeMap, BTreeSet};

/// An optimizer's state. Tensors go into a file of tensors, numbers into JSON; neither is ever NaN or infinite by itself.
///
/// | where | key | what |
/// |---|---|---|
/// | `numbers` | `step` | how many updates were done |
/// | `numbers` | `learning_rate` | the base rate, before the schedule |
/// | `numbers` | `NAME.step` | how many updates the parameter had; for every parameter |
/// | `tensors` | `NAME.SLOT` | a state tensor of a parameter that had updates, as [`Rule::slots`](crate::Rule::slots) names it |
///
/// Schedules are functions of the step, and have no state of their own. What else an optimizer is made of (betas, weight
/// decay, groups) is the program's, not the state's.
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    /// The state tensors.
    pub tensors: BTreeMap<String, Tensor>,
    /// The counts and the base learning rate.
    pub numbers: BTreeMap<String, f64>,
}

const STEP: &str = "step";
const RATE: &str = "learning_rate";

impl Optimizer {
    /// The state by name. It shares memory with the optimizer, whose next step leaves it as it is.
    pub fn state_dict(&self) -> OptimizerState {
        let mut state = OptimizerState::default();
        state.numbers.insert(STEP.into(), self.step as f64);
        state.numbers.insert(RATE.into(), self.base);
        for e in &self.entries {
            state.numbers.insert(format!("{}.{STEP}", e.name), e.steps as f64);
            for (slot, tensor) in e.names.iter().zip(&e.state) {
                state.tensors.insert(format!("{}.{slot}", e.name), tensor.detach());
            }
        }
        state
    }

    /// Takes a state that [`state_dict`](Self::state_dict) gave, for this model; tensors on another device are moved.
    ///
    /// An error that lists every mismatch (missing, unexpected, another shape or dtype, counts that are none), the optimizer
    /// untouched, unless all fit.
    pub fn load_state_dict(&mut self, model: &dyn Module, state: &OptimizerState) -> Result<()> {
        let mut reader = Reader { state, known: BTreeSet::new(), faults: Vec::new() };
        let step = reader.count(STEP.into());
        let base = reader.number(RATE.into());
        if base.is_some_and(|b| !(b.is_finite() && b >= 0.0)) {
            reader.faults.push(format!("{RATE}: must be finite and at least 0; got {}", base.unwrap_or_default()));
        }
        let mut loaded = Vec::new();
        for (name, param) in model.named_parameters() {
            let steps = reader.count(format!("{name}.{STEP}")).unwrap_or(0);
            let (mut state, mut names): (_, &[_]) = (Vec::new(), &[]);
            if steps > 0 {
                let (slots, start) = self.starting(&name, param).map_err(|e| e.context(&name))?;
                for (slot, into) in slots.iter().zip(start) {
                    state.extend(reader.tensor(format!("{name}.{slot}"), into)?);
                }
                names = slots;
            }
            loaded.push(Loaded { name, steps, names, state });
        }
        reader.finish()?;
        (self.step, self.base) = (step.unwrap_or(0), base.unwrap_or(self.base));
        self.adopt(loaded);
        Ok(())
    }
}

/// Reads a state and gathers what is wrong with it.
struct Reader<'a> {
    state: &'a OptimizerState,
    known: BTreeSet<String>,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn number(&mut self, key: String) -> Option<f64> {
        let number = self.state.numbers.get(&key).copied();
        if number.is_none() {
            self.faults.push(format!("{key}: missing"));
        }
        self.known.insert(key);
        number
    }

    fn count(&mut self, key: String) -> Option<u64> {
        let n = self.number(key.clone())?;
        // Beyond 2⁵³ a float no longer counts.
        let sound = (0.0..=9_007_199_254_740_992.0).contains(&n) && n.fract() == 0.0;
        if !sound {
            self.faults.push(format!("{key}: must be a count of steps; got {n}"));
        }
        sound.then_some(n as u64)
    }

    /// `into` with the elements of the tensor called `key`, if there is one of its dtype and shape. A copy, so that the
    /// optimizer holds its state alone and goes on writing in place, also in a recorded step.
    fn tensor(&mut self, key: String, mut into: Tensor) -> Result<Option<Tensor>> {
        let given = self.state.tensors.get(&key);
        let fault = match given {
            None => Some(format!("{key}: missing; the optimizer wants {} {}", into.dtype(), into.shape())),
            Some(t) if t.meta() != into.meta() => Some(format!(
                "{key}: the optimizer has {} {}, the state {} {}",
                into.dtype(),
                into.shape(),
                t.dtype(),
                t.shape()
            )),
            Some(_) => None,
        };
        let fits = fault.is_none();
        self.faults.extend(fault);
        let copied = match given.filter(|_| fits) {
            Some(t) => {
                let moved = gradus_core::tensor::to_device(&t.detach(), into.device()).map_err(|e| e.context(&key))?;
                into.write_value(&moved)?;
                Some(into)
            }
            None => None,
        };
        self.known.insert(key);
        Ok(copied)
    }

    /// An error with all faults, among them the names that nobody asked for.
    fn finish(mut self) -> Result<()> {
        for (key, t) in self.state.tensors.iter().filter(|(key, _)| !self.known.contains(*key)) {
            let (dtype, shape) = (t.dtype(), t.shape());
            self.faults
                .push(format!("{key}: unexpected; the state has {dtype} {shape}, the optimizer nothing of that name"));
        }
        for (key, n) in self.state.numbers.iter().filter(|(key, _)| !self.known.contains(*key)) {
            self.faults.push(format!("{key}: unexpected; the state has {n}, the optimizer nothing of that name"));
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        let (n, plural) = (self.faults.len(), if self.faults.len() == 1 { "" } else { "es" });
        let listed = self.faults.join("\n  ");
        Err(Error::data(format!("the state does not fit the optimizer ({n} mismatch{plural}):\n  {listed}")))
    }
}
