//! Putting an optimizer together. Everything that can be wrong with it is told here, before the first step.

use crate::constraints::Constraint;
use crate::demand::demand_size;
use crate::group::Group;
use crate::optimizer::Optimizer;
use crate::rule::Rule;
use crate::schedules::{Constant, Schedule};
use crate::transforms::Transform;
use gradus_core::{Error, Result};
use gradus_nn::Module;
use std::collections::BTreeSet;

/// An optimizer to be: a rule, and what goes with it. [`build`](Self::build) makes it for a model.
#[derive(Debug)]
pub struct OptimizerBuilder {
    rule: Box<dyn Rule>,
    groups: Vec<Group>,
    transforms: Vec<Box<dyn Transform>>,
    constraints: Vec<Box<dyn Constraint>>,
    schedule: Box<dyn Schedule>,
}

impl<R: Rule> From<R> for OptimizerBuilder {
    fn from(rule: R) -> OptimizerBuilder {
        let (groups, transforms, constraints) = (Vec::new(), Vec::new(), Vec::new());
        OptimizerBuilder { rule: Box::new(rule), groups, transforms, constraints, schedule: Box::new(Constant) }
    }
}

impl OptimizerBuilder {
    /// Other settings for some parameters. Of several groups, the first that a parameter fits counts.
    pub fn group(mut self, group: Group) -> OptimizerBuilder {
        self.groups.push(group);
        self
    }
    /// A change of the gradients before each update; several run in the order given here.
    pub fn transform(mut self, transform: impl Transform) -> OptimizerBuilder {
        self.transforms.push(Box::new(transform));
        self
    }
    /// A condition that parameters fulfil after each update; several are made true in the order given here.
    pub fn constraint(mut self, constraint: impl Constraint) -> OptimizerBuilder {
        self.constraints.push(Box::new(constraint));
        self
    }
    /// The course of the learning rate, in place of a constant one.
    pub fn schedule(mut self, schedule: impl Schedule) -> OptimizerBuilder {
        self.schedule = Box::new(schedule);
        self
    }
    /// The optimizer of this model.
    ///
    /// An error that names the setting and its value if one is out of range (a learning rate that is negative, infinite or
    /// NaN, a beta of 1 or more), a pattern that matches no parameter, with the names nearest to it, or a name that two
    /// parameters have.
    pub fn build(self, model: &dyn Module) -> Result<Optimizer> {
        let names: Vec<String> = model.named_parameters().into_iter().map(|(name, _)| name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|n| !seen.insert(**n)) {
            return Err(Error::misuse(format!(
                "two parameters of the model are called {twice}; their state would be mixed up"
            )));
        }
        demand_size(self.rule.name(), "the learning rate", self.rule.learning_rate())?;
        demand_size(self.rule.name(), "the weight decay", self.rule.weight_decay())?;
        self.rule.check()?;
        self.schedule.check()?;
        let base = self.rule.learning_rate();
        self.groups.iter().try_for_each(|g| g.check(&names, base))?;
        self.transforms.iter().try_for_each(|t| t.check(&names))?;
        self.constraints.iter().try_for_each(|c| c.check(&names))?;
        let optimizer =
            Optimizer::new(self.rule, self.groups, self.transforms, self.constraints, self.schedule, &names)?;
        for (name, p) in model.named_parameters().into_iter().filter(|(_, p)| !p.is_frozen()) {
            optimizer.rule_for(&name).check_parameter(p).map_err(|e| e.context(name))?;
        }
        Ok(optimizer)
    }
}
