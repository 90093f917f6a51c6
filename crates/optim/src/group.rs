//! Parameter groups: other settings for parameters by name.

use crate::demand::demand_size;
use crate::pattern::Pattern;
use gradus_core::Result;

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
}

impl Group {
    /// The parameters whose names fit this pattern: `*` stands for any characters, dots too, `?` for any one.
    pub fn matching(pattern: impl Into<Pattern>) -> Group {
        Group { patterns: vec![pattern.into()], factor: 1.0, weight_decay: None }
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

    pub(crate) fn has(&self, name: &str) -> bool {
        self.patterns.iter().any(|p| p.matches(name))
    }
    pub(crate) fn check(&self, names: &[&str]) -> Result<()> {
        let owner = self.owner();
        demand_size(&owner, "the learning rate's factor", self.factor)?;
        demand_size(&owner, "the weight decay", self.weight_decay.unwrap_or(0.0))?;
        self.patterns.iter().try_for_each(|p| p.demand_match(&owner, names))
    }
    fn owner(&self) -> String {
        let patterns: Vec<&str> = self.patterns.iter().map(Pattern::as_str).collect();
        format!("group \"{}\"", patterns.join("\" or \""))
    }
}
