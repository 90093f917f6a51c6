//! Measuring a model over a whole data set.

use crate::running::{LOSS, Running};
use crate::step::Step;
use gradus_core::{Error, Result, no_grad};
use gradus_data::{Collate, Loader, Source};
use gradus_metrics::Metric;
use gradus_nn::{Cx, Module};

/// What was measured over a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Number of samples.
    pub samples: usize,
    values: Vec<(String, f64)>,
}

impl Evaluation {
    /// The loss's mean over all samples.
    pub fn loss(&self) -> f64 {
        self.get(LOSS).unwrap_or(f64::NAN)
    }
    /// The value called `name`: a metric's, or one that the step gave.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
    /// All values: the loss, what the step gave, and the metrics.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(n, v)| (n.as_str(), *v))
    }
}

/// Runs `step` on every batch of `data` in evaluation mode, without recording gradients, and measures: the mean loss weighted
/// by samples, the step's own values, and `metrics` (reset first, exact over the whole set).
///
/// Errors: an empty data set, whatever the step or a metric refuses, and metrics without outputs to measure
/// ([`Step::outputs`]).
pub fn evaluate<M: Module, S: Source>(
    model: &M,
    data: &Loader<S>,
    metrics: &mut [&mut dyn Metric],
    mut step: impl FnMut(&M, &<S::Item as Collate>::Batch, &Cx) -> Result<Step>,
) -> Result<Evaluation> {
    metrics.iter_mut().for_each(|m| m.reset());
    let (mut running, mut losses) = (Running::default(), gradus_metrics::Mean::default());
    no_grad(|| {
        for (i, batch) in data.epoch(0)?.enumerate() {
            let samples = data.samples_in(i) as f64;
            let out = step(model, &batch?, &Cx::eval())?;
            // Here a loss that is not finite is a finding, not a reason to stop.
            losses.add(out.loss.item()?, samples);
            for (name, value) in &out.values {
                running.add(name, value, samples, 0, i as u64)?;
            }
            running.read()?;
            if metrics.is_empty() {
                continue;
            }
            let Some((outputs, targets)) = &out.outputs else {
                return Err(Error::misuse("metrics need the model's outputs: give them with `Step::outputs`"));
            };
            metrics.iter_mut().try_for_each(|m| m.update(outputs, targets))?;
        }
        Ok(())
    })?;
    let mut values = vec![(LOSS.to_owned(), losses.value())];
    values.extend(running.values().map(|(name, value)| (name.to_owned(), value)));
    values.extend(metrics.iter().map(|m| (m.name().to_owned(), m.value())));
    Ok(Evaluation { samples: data.samples(), values })
}
