//! Parameter groups: other settings for parameters by name.

use crate::demand::demand_size;
use crate::pattern::Pattern;
use crate::rule::Rule;
use gradus_core::{Error, Result};
use std::sync::Arc;

/// Other settings for the parameters whose names fit a pattern. A parameter belongs to the first group that it fits; one that
/// fits none has the rule's own settings.
///
/// ```
/// use gradus_optim::Group;
/// let no_decay = Group::matching("*.bias").or("*norm*").weight_decay(0.0);
/// let slower = Group::matching("backbone.*").learning_rate_factor(0.1);
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    patterns: Vec<Pattern>,
    pub(crate) factor: f64,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) rule: Option<Arc<dyn Rule>>,
}

impl Group {
    /// The parameters whose names fit this pattern: `*` stands for any characters, dots too, `?` for any one.
    pub fn matching(pattern: impl Into<Pattern>) -> Group {
        Group { patterns: vec![pattern.into()], factor: 1.0, weight_decay: None, rule: None }
    }
    /// Also those whose names fit this pattern.
    pub fn or(mut self, pattern: impl Into<Pattern>) -> Group {
        self.patterns.push(pattern.into());
        self
    }
    /// What the learning rate is multiplied with.
    pub fn learning_rate_factor(mut self, factor: f64) -> Group {
        self.factor = factor;
        self
    }
    /// The weight decay in place of the rule's.
    pub fn weight_decay(mut self, weight_decay: f64) -> Group {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// Another rule for these parameters, with its own learning rate and weight decay. The rates of all rules keep their
    /// proportion when the schedule, or [`set_learning_rate`](crate::Optimizer::set_learning_rate), changes the optimizer's.
    pub fn rule(mut self, rule: impl Rule) -> Group {
        self.rule = Some(Arc::new(rule));
        self
    }

    /// What the optimizer's learning rate is multiplied with for this group, whose rule may have one of its own.
    pub(crate) fn rate_factor(&self, base: f64) -> f64 {
        self.factor * self.rule.as_ref().map_or(1.0, |r| r.learning_rate() / base)
    }
    pub(crate) fn has(&self, name: &str) -> bool {
        self.patterns.iter().any(|p| p.matches(name))
    }
    /// An error unless the settings can be used; `base` is the optimizer's learning rate.
    pub(crate) fn check(&self, names: &[&str], base: f64) -> Result<()> {
        let owner = self.owner();
        if let Some(rule) = &self.rule {
            demand_size(rule.name(), "the learning rate", rule.learning_rate())?;
            demand_size(rule.name(), "the weight decay", rule.weight_decay())?;
            rule.check()?;
            if base == 0.0 {
                return Err(Error::misuse(format!(
                    "{owner}: its rule's learning rate is kept in proportion to the optimizer's, which must be above 0; got 0"
                )));
            }
        }
        demand_size(&owner, "the learning rate's factor", self.factor)?;
        demand_size(&owner, "the weight decay", self.weight_decay.unwrap_or(0.0))?;
        self.patterns.iter().try_for_each(|p| p.demand_match(&owner, names))
    }
    fn owner(&self) -> String {
        let patterns: Vec<&str> = self.patterns.iter().map(Pattern::as_str).collect();
        format!("group \"{}\"", patterns.join("\" or \""))
    }
}
