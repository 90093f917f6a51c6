//! How a step is timed: the warm-up, then each step by itself; and what a case gives.

use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const WARMUP_STEPS: usize = 20;
const WARMUP: Duration = Duration::from_millis(300);
/// Of the warm-up and of what is timed, however slow they are.
const LEAST_STEPS: usize = 5;
/// A warm-up ends here with fewer steps.
const LONGEST_WARMUP: Duration = Duration::from_secs(10);
/// And a run with the steps it has.
const LONGEST: Duration = Duration::from_secs(20);

/// What a case gives: ten losses, the moment (Unix seconds) the first was there, and rows of times.
pub struct Outcome {
    pub losses: Vec<f32>,
    pub first_step_at: f64,
    pub rows: Value,
}

/// Median, 10th and 90th percentile in microseconds of one call, after the warm-up; and how many were timed.
pub fn sample<E>(
    steps: usize,
    per_block: usize,
    warmup: usize,
    mut run: impl FnMut(usize) -> Result<(), E>,
) -> Result<Value, E> {
    let (start, mut i) = (Instant::now(), 0);
    while i < warmup || start.elapsed() < WARMUP {
        if i >= LEAST_STEPS && start.elapsed() > LONGEST_WARMUP {
            break;
        }
        run(i)?;
        i += 1;
    }
    let (start, mut times) = (Instant::now(), Vec::with_capacity(steps));
    for step in i..i + steps {
        let before = Instant::now();
        run(step)?;
        times.push(before.elapsed().as_secs_f64() * 1e6 / per_block as f64);
        if times.len() >= LEAST_STEPS && start.elapsed() > LONGEST {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    // Linear between the two nearest, as Python's `statistics.quantiles(method="inclusive")`.
    let quantile = |q: f64| {
        let at = q * (times.len() - 1) as f64;
        let (low, high) = (times[at.floor() as usize], times[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    Ok(json!({"median_us": quantile(0.5), "p10_us": quantile(0.1), "p90_us": quantile(0.9), "timed": times.len()}))
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}
