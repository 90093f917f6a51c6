//! Which of two values is the better one.

use serde::{Deserialize, Serialize};

/// Whether a measured value should become small or large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Goal {
    /// Smaller is better: losses and errors.
    Smaller,
    /// Larger is better: accuracies and scores.
    Larger,
}

impl Goal {
    /// What a name suggests: smaller for names that end in `loss`, `error`, `mse`, `rmse`, `mae`, `perplexity` or
    /// `penalty`; larger for all others.
    pub fn of(name: &str) -> Goal {
        let small = ["loss", "error", "mse", "mae", "perplexity", "penalty"];
        if small.iter().any(|s| name.ends_with(s)) { Goal::Smaller } else { Goal::Larger }
    }
    /// Whether `new` is better than `old` by more than `margin`. NaN is never better, and anything is better than NaN.
    pub fn improves(self, new: f64, old: f64, margin: f64) -> bool {
        match self {
            _ if new.is_nan() => false,
            _ if old.is_nan() => true,
            Goal::Smaller => new < old - margin,
            Goal::Larger => new > old + margin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_never_wins() {
        for goal in [Goal::Smaller, Goal::Larger] {
            assert!(!goal.improves(f64::NAN, 1.0, 0.0));
            assert!(goal.improves(1.0, f64::NAN, 0.0));
            assert!(!goal.improves(1.0, 1.0, 0.0));
        }
        assert!(Goal::of("val/loss").improves(0.9, 1.0, 0.05));
        assert!(!Goal::of("val/rmse").improves(0.9, 1.0, 0.2));
        assert!(Goal::of("val/accuracy").improves(0.9, 0.8, 0.0));
    }
}
