//! Learning rates and momenta of schedules, step by step.

use super::{Tally, distance, files, finish, json, numbers};
use gradus_core::Tensor;
use gradus_nn::Param;
use gradus_optim::*;
use serde_json::Value;

/// Rates and momenta are plain arithmetic in `f64` on both sides.
const ALLOWED: f64 = 1e-12;

fn get(record: &Value, name: &str) -> Option<f64> {
    record["kwargs"][name].as_f64()
}

/// The schedule of a record, if it is mapped. PyTorch's `max_lr` is the base rate here.
fn schedule(r: &Value) -> Option<Box<dyn Schedule>> {
    let count = |name: &str| get(r, name).map(|n| n as u64);
    let low = get(r, "eta_min").unwrap_or(0.0);
    Some(match r["sched"].as_str()? {
        "StepLR" => Box::new(StepDecay::new(count("step_size")?, get(r, "gamma")?)),
        "MultiStepLR" => {
            let milestones: Vec<u64> = numbers(&r["kwargs"]["milestones"]).into_iter().map(|m| m as u64).collect();
            Box::new(MultiStep::new(milestones, get(r, "gamma")?))
        }
        "ConstantLR" => Box::new(ConstantFactor::new(get(r, "factor")?, count("total_iters")?)),
        "LinearLR" => Box::new(LinearRamp::new(get(r, "start_factor")?, get(r, "end_factor")?, count("total_iters")?)),
        "ExponentialLR" => Box::new(Exponential::new(get(r, "gamma")?)),
        "PolynomialLR" => Box::new(Polynomial::new(count("total_iters")?, get(r, "power")?)),
        "CosineAnnealingLR" => Box::new(Cosine::new(count("T_max")?).low(low).returning()),
        "CosineAnnealingWarmRestarts" => Box::new(CosineRestarts::new(count("T_0")?).growth(count("T_mult")?).low(low)),
        "CyclicLR" => {
            let s = Cyclic::new(get(r, "base_lr")?, count("step_size_up")?);
            let s = if let Some(down) = count("step_size_down") { s.down(down) } else { s };
            Box::new(match r["kwargs"]["mode"].as_str()? {
                "triangular" => s,
                "triangular2" => s.halved(),
                "exp_range" => s.falling(get(r, "gamma")?),
                _ => return None,
            })
        }
        "OneCycleLR" => {
            let s = OneCycle::new(count("total_steps")?).peak_at(get(r, "pct_start").unwrap_or(0.3));
            let s = if r["kwargs"]["anneal_strategy"] == "linear" { s.linear() } else { s };
            Box::new(if r["kwargs"]["three_phase"] == true { s.three_phases() } else { s })
        }
        name if name.starts_with("SequentialLR(LinearLR(0.01,total_iters=10),CosineAnnealingLR(T_max=90),[10])") => {
            Box::new(SequentialSchedule::new(LinearRamp::new(0.01, 1.0, 10)).then(10, Cosine::new(90)))
        }
        _ => return None,
    })
}

/// The rates that follow a measured value.
fn plateau(r: &Value, metric: &[f64], steps: usize) -> gradus_core::Result<Vec<f64>> {
    let or = |name: &str, default: f64| get(r, name).unwrap_or(default);
    let p = if r["kwargs"]["mode"] == "max" { Plateau::higher() } else { Plateau::lower() };
    let p = p.factor(or("factor", 0.1)).patience(or("patience", 10.0) as u64).cooldown(or("cooldown", 0.0) as u64);
    let p = p.low(or("min_lr", 0.0));
    let threshold = or("threshold", 1e-4);
    let mut p =
        if r["kwargs"]["threshold_mode"] == "abs" { p.absolute_threshold(threshold) } else { p.threshold(threshold) };
    let model = vec![Param::new(Tensor::zeros([1], gradus_cpu::device()))];
    let mut optimizer = Sgd::new(r["base_lr"].as_f64().unwrap_or(0.1)).optimizer().build(&model)?;
    let mut rates = Vec::new();
    for &value in metric.iter().take(steps) {
        rates.push(optimizer.learning_rate());
        p.observe(value, &mut optimizer)?;
    }
    Ok(rates)
}

#[test]
fn schedules_are_pytorchs() {
    let mut tallies = Vec::new();
    for file in files("sched") {
        let meta = json(&file);
        let metric = numbers(&meta["metric"]);
        for r in meta["schedules"].as_array().into_iter().flatten() {
            let name = r["sched"].as_str().unwrap_or_default();
            let (want, momenta) = (numbers(&r["lr"]), numbers(&r["momentum"]));
            let run = || -> Result<f64, String> {
                if name == "ReduceLROnPlateau" {
                    return plateau(r, &metric, want.len())
                        .map(|have| distance(&have, &want))
                        .map_err(|e| e.to_string());
                }
                let s = schedule(r).ok_or("is not mapped")?;
                s.check().map_err(|e| e.to_string())?;
                let base = get(r, "max_lr").or(r["base_lr"].as_f64()).unwrap_or(0.1);
                let steps = 0..want.len() as u64;
                let have: Vec<f64> = steps.clone().map(|t| s.learning_rate(base, t)).collect();
                let moved: Vec<f64> = steps.filter_map(|t| s.momentum(t)).collect();
                let apart = if momenta.is_empty() { 0.0 } else { distance(&moved, &momenta) };
                Ok(distance(&have, &want).max(apart))
            };
            let mut tally = Tally::default();
            tally.add(|| format!("{name} {}", r["kwargs"]), run(), ALLOWED);
            tally.say(name);
            tallies.push(tally);
        }
    }
    finish("schedules", tallies);
}
