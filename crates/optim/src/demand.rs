//! Checks of the numbers that users give, with one wording.

use gradus_core::{Error, Result};

/// An error that names the owner, the number and its value, unless `holds`.
pub(crate) fn demand(holds: bool, owner: &str, number: &str, must_be: &str, value: f64) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::misuse(format!("{owner}: {number} must be {must_be}; got {value}"))) }
}

/// Finite and not negative.
pub(crate) fn demand_size(owner: &str, number: &str, value: f64) -> Result<()> {
    demand(value.is_finite() && value >= 0.0, owner, number, "finite and at least 0", value)
}

/// Finite and above zero.
pub(crate) fn demand_positive(owner: &str, number: &str, value: f64) -> Result<()> {
    demand(value.is_finite() && value > 0.0, owner, number, "finite and above 0", value)
}

/// At least 0 and less than 1.
pub(crate) fn demand_fraction(owner: &str, number: &str, value: f64) -> Result<()> {
    demand((0.0..1.0).contains(&value), owner, number, "at least 0 and less than 1", value)
}
