//! A weighted mean with a compensated sum, so that a million small losses lose no digits.

/// Σ wᵢxᵢ / Σ wᵢ, summed in `f64` with Neumaier's compensation.
///
/// ```
/// use gradus_metrics::Mean;
/// let mut loss = Mean::default();
/// loss.add(1.0, 64.0); // the mean loss of a batch of 64
/// loss.add(4.0, 32.0);
/// assert_eq!(loss.value(), 2.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    /// The rounded sum of w·x.
    pub sum: f64,
    /// What rounding took from it.
    pub compensation: f64,
    /// The sum of the weights.
    pub weight: f64,
}

impl Mean {
    /// Takes `x` into account with this weight (a batch's mean: its number of samples).
    pub fn add(&mut self, x: f64, weight: f64) {
        let term = x * weight;
        let sum = self.sum + term;
        // The smaller of the two summands is the one whose low digits the sum has lost.
        let lost = if self.sum.abs() >= term.abs() { (self.sum - sum) + term } else { (term - sum) + self.sum };
        if sum.is_finite() {
            self.compensation += lost;
        }
        self.sum = sum;
        self.weight += weight;
    }

    /// The mean so far; NaN if nothing was added.
    pub fn value(&self) -> f64 {
        self.total() / self.weight
    }

    /// Σ wᵢxᵢ.
    pub fn total(&self) -> f64 {
        self.sum + self.compensation
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Mean::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_compensated() {
        let mut m = Mean::default();
        m.add(1e16, 1.0);
        (0..1000).for_each(|_| m.add(1.0, 1.0));
        m.add(-1e16, 1.0);
        assert_eq!(m.total(), 1000.0); // a plain sum gives 0
    }

    #[test]
    fn nothing_and_infinity_are_told_apart() {
        let mut m = Mean::default();
        assert!(m.value().is_nan());
        m.add(f64::INFINITY, 1.0);
        m.add(1.0, 1.0);
        assert_eq!(m.value(), f64::INFINITY);
    }
}
