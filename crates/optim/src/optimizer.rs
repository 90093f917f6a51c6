//! The optimizer: a rule, its settings by group, transforms, a schedule, and state under the parameters' names.
//!
//! A step has two halves. [`prepare`](Optimizer::prepare) is arithmetic on the host: it counts the step and writes the
//! numbers that vary (learning rates, bias corrections) into cells. The rest reads gradients and runs kernels, which read
//! the cells. A recorded step replays the kernels alone, so whoever replays calls `prepare` before each run; whoever does
//! not, never needs to know of it.

mod transformed;

use crate::constraints::Constraint;
use crate::group::Group;
use crate::rule::{At, Call, Rule};
use crate::schedules::{Schedule, demand_rate};
use crate::transforms::{Notes, Transform, beside, penalty_of};
use gradus_core::{DType, Error, Result, Scalar, Slot, Tensor, no_grad};
use gradus_nn::{Module, Param};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use transformed::Changed;

/// Updates a model's parameters by their gradients. Made by [`OptimizerBuilder::build`](crate::OptimizerBuilder::build).
#[derive(Debug)]
pub struct Optimizer {
    pub(crate) rule: Box<dyn Rule>,
    groups: Vec<Group>,
    transforms: Vec<Box<dyn Transform>>,
    constraints: Vec<Box<dyn Constraint>>,
    schedule: Box<dyn Schedule>,
    /// Updates done or, between `prepare` and the kernels, under way.
    pub(crate) step: u64,
    pub(crate) base: f64,
    /// For each group, and last for the parameters of none: the learning rate of the step that was prepared last.
    rates: Vec<f64>,
    momentum: Option<f64>,
    prepared: bool,
    /// In the model's order.
    pub(crate) entries: Vec<Entry>,
}

/// What is kept for one parameter.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    group: usize,
    /// The updates that the parameter had.
    pub(crate) steps: u64,
    /// Whether `steps` already counts the update that is being prepared.
    counted: bool,
    /// Whether the parameter had a gradient at the last step.
    active: bool,
    /// The state tensors; none before the first update.
    pub(crate) state: Vec<Tensor>,
    /// Their names.
    pub(crate) names: &'static [&'static str],
    slots: SmallVec<[Slot; 4]>,
    numbers: SmallVec<[Scalar; 4]>,
}

/// What a state dictionary has of one parameter.
pub(crate) struct Loaded {
    pub name: String,
    pub steps: u64,
    pub names: &'static [&'static str],
    pub state: Vec<Tensor>,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Which step it was, from 1.
    pub step: u64,
    /// The learning rate of parameters in no group.
    pub learning_rate: f64,
    /// How many parameters were updated.
    pub updated: usize,
    /// How many were left as they are: frozen, or without a gradient.
    pub skipped: usize,
    /// The gradients' global norm before clipping, if a transform took it; a tensor without dimensions.
    pub gradient_norm: Option<Tensor>,
}

impl Optimizer {
    pub(crate) fn new(
        rule: Box<dyn Rule>,
        groups: Vec<Group>,
        transforms: Vec<Box<dyn Transform>>,
        constraints: Vec<Box<dyn Constraint>>,
        schedule: Box<dyn Schedule>,
        names: &[&str],
    ) -> Result<Optimizer> {
        let base = rule.learning_rate();
        let mut new = Optimizer {
            rule,
            groups,
            transforms,
            constraints,
            schedule,
            step: 0,
            base,
            rates: Vec::new(),
            momentum: None,
            prepared: false,
            entries: Vec::new(),
        };
        new.rates = new.rates_at(0)?;
        new.entries = names.iter().map(|n| new.entry(n)).collect();
        Ok(new)
    }

    /// How many updates were done.
    pub fn steps(&self) -> u64 {
        self.step
    }
    /// The rule.
    pub fn rule(&self) -> &dyn Rule {
        &*self.rule
    }
    /// The learning rate, by the schedule, of the next update of parameters in no group.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.learning_rate(self.base, if self.prepared { self.step - 1 } else { self.step })
    }
    /// Changes the base rate, which the schedule goes on from. An error, and nothing changed, unless it is finite and not
    /// negative.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        crate::demand::demand_size(self.rule.name(), "the learning rate", learning_rate)?;
        self.base = learning_rate;
        Ok(())
    }

    /// Forgets every gradient of the model.
    pub fn zero_grad(&self, model: &dyn Module) {
        model.zero_grad();
    }

    /// Updates every parameter that has a gradient. One without (frozen, or not reached by backward) is left as it is, and
    /// so is its state. Gradients stay until [`zero_grad`](Self::zero_grad).
    pub fn step(&mut self, model: &mut dyn Module) -> Result<StepReport> {
        self.step_with(model, 1, 1.0)
    }

    /// As [`step`](Self::step) on the gradients times `by`, which undoes the scale of a [scaled loss](crate::LossScale): where an update
    /// and the transforms allow it, no pass is made over the gradients for that. They stay as they are.
    pub fn step_scaled(&mut self, model: &mut dyn Module, by: f64) -> Result<StepReport> {
        self.step_with(model, 1, by)
    }

    /// As [`step`](Self::step), after several backward passes over parts of a batch: the gathered gradients are divided by
    /// `passes` first, so that they are those of the mean over the whole batch. Passes of unequal size want losses that are
    /// weighted before backward.
    pub fn step_averaged(&mut self, model: &mut dyn Module, passes: usize) -> Result<StepReport> {
        if passes == 0 {
            return Err(Error::misuse("a step averages over at least 1 backward pass; got 0"));
        }
        self.step_with(model, passes, 1.0)
    }

    /// A step on the gradients divided by `passes`, times `by`.
    fn step_with(&mut self, model: &mut dyn Module, passes: usize, by: f64) -> Result<StepReport> {
        if !self.prepared {
            self.prepare()?;
        }
        no_grad(|| {
            let mut notes = Notes::default();
            let (changed, factor) = match self.transforms.is_empty() && passes == 1 && by == 1.0 {
                true => (None, None),
                false => self.transformed(model, passes, by, &mut notes)?,
            };
            let (updated, skipped) = self.update_all(model, changed, factor.as_ref())?;
            self.prepared = false;
            let (step, learning_rate) = (self.step, self.rates.last().copied().unwrap_or(self.base));
            Ok(StepReport { step, learning_rate, updated, skipped, gradient_norm: notes.gradient_norm })
        })
    }

    /// Counts a step and writes the numbers of its kernels, which a replay reads. To be called before each run of a captured
    /// step that has [`step`](Self::step) in it; `step` itself then does not count again. A parameter that had a gradient in
    /// the last step is taken to have one in this.
    ///
    /// An error, and nothing changed, if the schedule gives a rate that cannot be used.
    pub fn prepare(&mut self) -> Result<()> {
        self.rates = self.rates_at(self.step)?;
        self.momentum = self.schedule.momentum(self.step);
        self.transforms.iter().for_each(|t| t.prepare(self.step));
        self.step += 1;
        self.prepared = true;
        for i in 0..self.entries.len() {
            self.entries[i].counted = self.entries[i].active;
            if self.entries[i].active {
                self.entries[i].steps += 1;
                self.write_numbers(i);
            }
        }
        Ok(())
    }

    /// What the transforms' penalties add to the loss of this model, without dimensions: its frozen parameters are not
    /// counted. `None` if no transform has one.
    pub fn penalty(&self, model: &dyn Module) -> Result<Option<Tensor>> {
        no_grad(|| {
            let mut sum: Option<Tensor> = None;
            for t in &self.transforms {
                let Some(more) = penalty_of(&**t, model)? else { continue };
                sum = Some(match sum {
                    None => more.detach(),
                    Some(sum) => sum.try_add(&gradus_core::tensor::to_device(&more, sum.device())?)?,
                });
            }
            Ok(sum)
        })
    }

    /// The penalties apart: what each transform that has one adds to the loss, by its name, in order.
    pub fn penalties(&self, model: &dyn Module) -> Result<Vec<(&'static str, Tensor)>> {
        let one = |t: &dyn Transform| Ok(penalty_of(t, model)?.map(|p| (t.name(), p.detach())));
        no_grad(|| self.transforms.iter().filter_map(|t| one(&**t).transpose()).collect())
    }

    /// Takes loaded counts and state tensors, in the model's order, in place of its own.
    pub(crate) fn adopt(&mut self, loaded: Vec<Loaded>) {
        // The cells stay, since a recorded step may be reading them. The tensors are new ones, not new values in the old: a
        // recorded step notices that its memory is gone, and is recorded anew.
        let mut old: BTreeMap<Arc<str>, Entry> = self.entries.drain(..).map(|e| (e.name.clone(), e)).collect();
        for Loaded { name, steps, names, state } in loaded {
            let entry = old.remove(name.as_str()).unwrap_or_else(|| self.entry(&name));
            self.entries.push(Entry { steps, names, state, counted: false, ..entry });
        }
        self.prepared = false;
    }

    fn rates_at(&self, step: u64) -> Result<Vec<f64>> {
        let start = self.rule.learning_rate();
        let factors = self.groups.iter().map(|g| g.rate_factor(start)).chain([1.0]);
        let rate = |f: f64| demand_rate(&*self.schedule, self.schedule.learning_rate(self.base * f, step), step);
        factors.map(rate).collect()
    }

    /// The rule of a group, or of the parameters of none.
    fn rule_of(&self, group: usize) -> &dyn Rule {
        self.groups.get(group).and_then(|g| g.rule.as_deref()).unwrap_or(&*self.rule)
    }
    /// The rule that updates the parameter of this name.
    pub(crate) fn rule_for(&self, name: &str) -> &dyn Rule {
        self.rule_of(self.group_of(name))
    }
    fn group_of(&self, name: &str) -> usize {
        self.groups.iter().position(|g| g.has(name)).unwrap_or(self.groups.len())
    }
    fn weight_decay(&self, group: usize) -> f64 {
        self.groups.get(group).and_then(|g| g.weight_decay).unwrap_or_else(|| self.rule_of(group).weight_decay())
    }
    /// When, and under which settings, a parameter of this group is updated for the `step`-th time.
    pub(crate) fn at(&self, group: usize, step: u64) -> At {
        At { step, learning_rate: self.rates[group], weight_decay: self.weight_decay(group), momentum: self.momentum }
    }
    /// The state that the parameter of this name begins with, and its names.
    pub(crate) fn starting(&self, name: &str, param: &Tensor) -> Result<(&'static [&'static str], Vec<Tensor>)> {
        let group = self.group_of(name);
        let (rule, at) = (self.rule_of(group), self.at(group, 1));
        let names = rule.slots(param);
        Ok((names, names.iter().map(|s| rule.start(s, param, &at)).collect::<Result<_>>()?))
    }

    fn entry(&self, name: &str) -> Entry {
        let (group, state, names) = (self.group_of(name), Vec::new(), &[]);
        let (slots, numbers) = (SmallVec::new(), SmallVec::new());
        Entry { name: name.into(), group, steps: 0, counted: false, active: false, state, names, slots, numbers }
    }

    /// The entry of the model's `i`-th parameter; a new one if the model has grown.
    fn find(&mut self, i: usize, name: &str) -> usize {
        if self.entries.get(i).is_some_and(|e| *e.name == *name) {
            return i;
        }
        if let Some(at) = self.entries.iter().position(|e| *e.name == *name) {
            return at;
        }
        let at = i.min(self.entries.len());
        self.entries.insert(at, self.entry(name));
        at
    }

    fn write_numbers(&mut self, i: usize) {
        let (steps, group) = (self.entries[i].steps, self.entries[i].group);
        let numbers = self.rule_of(group).numbers(&self.at(group, steps));
        let e = &mut self.entries[i];
        if e.slots.len() != numbers.len() {
            e.slots = numbers.iter().map(|&n| Slot::new(n)).collect();
            e.numbers = e.slots.iter().map(Scalar::from).collect();
        }
        e.slots.iter().zip(&numbers).for_each(|(slot, &n)| slot.set(n));
    }

    /// Updates every parameter that has a gradient: its own, or the one in `changed`, times the factor. Gives how many were
    /// updated, and how many not.
    fn update_all(
        &mut self,
        model: &mut dyn Module,
        mut changed: Changed,
        factor: Option<&Tensor>,
    ) -> Result<(usize, usize)> {
        let (mut i, mut updated, mut outcome) = (0, 0, Ok(()));
        let mut factors = Vec::new();
        model.for_each_parameter_mut(&mut |name, p| {
            if outcome.is_ok() {
                let at = self.find(i, name);
                let grad = match &mut changed {
                    Some(all) => all.get_mut(i).and_then(Option::take),
                    None => p.grad(),
                };
                match grad {
                    Some(grad) => {
                        let factor = factor.map(|f| shared_beside(f, &grad, &mut factors)).transpose();
                        let done = factor.and_then(|factor| self.update(at, p, grad, factor));
                        outcome = done.map_err(|e| e.context(name));
                        updated += 1;
                    }
                    None => self.pass_by(at),
                }
            }
            i += 1;
        });
        outcome.map(|()| (updated, i - updated))
    }

    /// Leaves a parameter without a gradient as it is; takes back what `prepare` counted for it.
    fn pass_by(&mut self, i: usize) {
        let e = &mut self.entries[i];
        e.steps -= u64::from(e.counted);
        (e.counted, e.active) = (false, false);
    }

    fn update(&mut self, i: usize, param: &mut Param, grad: Tensor, mut factor: Option<Tensor>) -> Result<()> {
        let start = self.entries[i].state.is_empty();
        if start && !self.rule_of(self.entries[i].group).slots(param).is_empty() {
            let name = self.entries[i].name.clone();
            let (names, state) = self.starting(&name, param)?;
            (self.entries[i].names, self.entries[i].state) = (names, state);
        }
        if !self.entries[i].counted {
            self.entries[i].steps += 1;
            self.write_numbers(i);
        }
        let weight_decay = self.weight_decay(self.entries[i].group);
        let e = &mut self.entries[i];
        // Not `rule_of`: the entry is borrowed at the same time.
        let rule = self.groups.get(e.group).and_then(|g| g.rule.as_deref()).unwrap_or(&*self.rule);
        (e.counted, e.active) = (false, true);
        if !start {
            follow(&mut e.state, param)?;
        }
        let mut grad = if grad.is_dense() { grad } else { grad.try_contiguous()? };
        if let Some(c) = factor.take_if(|_| !rule.takes_factor()) {
            grad = grad.try_mul(&c)?;
        }
        let (state, numbers, factor) = (e.state.as_mut_slice(), e.numbers.as_slice(), factor.as_ref());
        rule.update(Call { param: param.value_mut(), grad: &grad, factor, state, numbers, weight_decay })?;
        self.constraints.iter().try_for_each(|c| c.apply(&self.entries[i].name, param.value_mut()))
    }
}

/// The factor in the dtype and on the device of a gradient: one tensor for all that are alike, so that they can be updated together.
fn shared_beside(factor: &Tensor, grad: &Tensor, made: &mut Vec<Tensor>) -> Result<Tensor> {
    if let Some(same) = made.iter().find(|f| f.dtype() == grad.dtype() && f.device() == grad.device()) {
        return Ok(same.clone());
    }
    let new = beside(factor, grad)?;
    made.push(new.clone());
    Ok(new)
}

/// Moves the state to where its parameter has moved, and to its precision if that became wider.
fn follow(state: &mut [Tensor], param: &Tensor) -> Result<()> {
    for s in state {
        if s.device() != param.device() {
            *s = gradus_core::tensor::to_device(s, param.device())?;
        }
        if param.dtype() == DType::F64 && s.dtype() == DType::F32 {
            *s = s.try_to_dtype(DType::F64)?;
        }
    }
    Ok(())
}
