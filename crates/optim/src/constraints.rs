//! Conditions that parameters fulfil after each update.
//!
//! A weight `[out, ..]` has a row for each output (its first dimension, with the others as one); norms are taken over rows. A
//! parameter of fewer than two dimensions is one row.

use crate::demand::demand_positive;
use crate::pattern::{Selection, selects};
use crate::rules::{store, widened};
use gradus_core::{Result, Tensor};
use std::fmt::Debug;

/// A condition on parameters, made true after each update. Recording is off.
pub trait Constraint: Debug + Send + Sync + 'static {
    /// Its name, for messages.
    fn name(&self) -> &'static str;
    /// An error that names the setting and its value if one is out of range, or a pattern that matches none of the names.
    fn check(&self, _names: &[&str]) -> Result<()> {
        Ok(())
    }
    /// Changes the parameter's value in place.
    fn apply(&self, name: &str, param: &mut Tensor) -> Result<()>;
}

/// The 2-norm of each row, in a shape that broadcasts over the parameter.
fn row_norms(p: &Tensor) -> Result<Tensor> {
    let dims: Vec<isize> = if p.rank() < 2 { Vec::new() } else { (1..p.rank() as isize).collect() };
    p.try_norm(2.0, &dims, p.rank() > 1)
}

/// No row is longer than a limit: a longer one is shortened to it. Source: Srivastava et al., *Dropout* (2014), section 5.1.
#[derive(Clone, Debug)]
pub struct MaxNorm {
    max: f64,
    selection: Selection,
}

impl MaxNorm {
    /// Rows of at most this 2-norm, in all parameters.
    pub fn new(max: f64) -> MaxNorm {
        MaxNorm { max, selection: Selection::default() }
    }
}

selects!(MaxNorm, selection);

impl Constraint for MaxNorm {
    fn name(&self) -> &'static str {
        "MaxNorm"
    }
    fn check(&self, names: &[&str]) -> Result<()> {
        demand_positive(self.name(), "the largest norm", self.max)?;
        self.selection.demand_matches(self.name(), names)
    }
    fn apply(&self, name: &str, param: &mut Tensor) -> Result<()> {
        if !self.selection.has(name) {
            return Ok(());
        }
        let p = widened(param)?;
        let norms = row_norms(&p)?;
        // A row within the limit is multiplied with exactly 1.
        let factor = norms.try_scalar_binary(gradus_core::ops::BinaryOp::Div, self.max)?.try_clamp(None, Some(1.0))?;
        let new = p.try_mul(&factor)?;
        drop(p);
        store(param, &new)
    }
}

/// Every row has length 1; a row of zeros stays.
#[derive(Clone, Debug, Default)]
pub struct UnitNorm {
    selection: Selection,
}

impl UnitNorm {
    /// Rows of length 1, in all parameters.
    pub fn new() -> UnitNorm {
        UnitNorm::default()
    }
}

selects!(UnitNorm, selection);

impl Constraint for UnitNorm {
    fn name(&self) -> &'static str {
        "UnitNorm"
    }
    fn check(&self, names: &[&str]) -> Result<()> {
        self.selection.demand_matches(self.name(), names)
    }
    fn apply(&self, name: &str, param: &mut Tensor) -> Result<()> {
        if !self.selection.has(name) {
            return Ok(());
        }
        let p = widened(param)?;
        let norms = row_norms(&p)?;
        let new = p.try_div(&norms.try_masked_fill(&norms.try_eq_scalar(0.0)?, 1.0)?)?;
        drop(p);
        store(param, &new)
    }
}

/// No element is below 0: one that is becomes 0.
#[derive(Clone, Debug, Default)]
pub struct NonNegative {
    selection: Selection,
}

impl NonNegative {
    /// No element below 0, in all parameters.
    pub fn new() -> NonNegative {
        NonNegative::default()
    }
}

selects!(NonNegative, selection);

impl Constraint for NonNegative {
    fn name(&self) -> &'static str {
        "NonNegative"
    }
    fn check(&self, names: &[&str]) -> Result<()> {
        self.selection.demand_matches(self.name(), names)
    }
    fn apply(&self, name: &str, param: &mut Tensor) -> Result<()> {
        if !self.selection.has(name) {
            return Ok(());
        }
        let new = param.detach().try_clamp(Some(0.0), None)?;
        store(param, &new)
    }
}
