//! Rules, schedules and clipping against PyTorch's numbers, which `pytorch/trajectories.py` wrote.

use gradus_core::{Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::{
    Adam, AdamW, ClipNorm, Cosine, Exponential, NamedGrad, NamedGrads, Notes, OneCycle, OptimizerBuilder, Rule,
    Schedule, Sgd, StepDecay, Transform, Warmup,
};
use std::collections::BTreeMap;

/// A line of the file: a kind, settings, numbers.
struct Line {
    kind: &'static str,
    settings: BTreeMap<&'static str, f64>,
    numbers: Vec<f64>,
}

impl Line {
    fn get(&self, key: &str, otherwise: f64) -> f64 {
        self.settings.get(key).copied().unwrap_or(otherwise)
    }
    fn has(&self, key: &str) -> bool {
        self.get(key, 0.0) != 0.0
    }
}

fn lines() -> Vec<Line> {
    let number = |s: &str| s.parse().unwrap_or_else(|e| panic!("{s}: {e}"));
    let line = |line: &'static str| {
        let (head, numbers) = line.split_once('|').unwrap();
        let mut words = head.split_whitespace();
        let kind = words.next().unwrap();
        let settings = words.map(|w| w.split_once('=').unwrap()).map(|(k, v)| (k, number(v))).collect();
        Line { kind, settings, numbers: numbers.split_whitespace().map(number).collect() }
    };
    include_str!("pytorch/trajectories.txt").lines().map(line).collect()
}

/// The largest difference, relative to the larger of 1 and the wanted value.
fn distance(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| (g - w).abs() / w.abs().max(1.0)).fold(0.0, f64::max)
}

/// "a" `[2, 3]` and "b" `[2]` as tensors.
fn tensors(x: &[f64]) -> [Tensor; 2] {
    let device = gradus_cpu::device();
    [Tensor::from_vec(x[..6].to_vec(), [2, 3], device), Tensor::from_vec(x[6..].to_vec(), [2], device)]
}

fn values(model: &dyn Module) -> Vec<f64> {
    model.named_parameters().iter().flat_map(|(_, p)| p.to_vec::<f64>().unwrap()).collect()
}

fn sgd(l: &Line) -> OptimizerBuilder {
    let mut rule = Sgd::new(l.get("lr", 1e-3)).momentum(l.get("momentum", 0.0)).dampening(l.get("dampening", 0.0));
    rule = rule.weight_decay(l.get("weight_decay", 0.0));
    if l.has("nesterov") {
        rule = rule.nesterov();
    }
    if l.has("maximize") {
        rule = rule.maximize();
    }
    rule.optimizer()
}

macro_rules! adam {
    ($t:ident, $l:expr, $decay:literal) => {{
        let l = $l;
        let mut rule = $t::new(l.get("lr", 1e-3)).betas(l.get("beta1", 0.9), l.get("beta2", 0.999));
        rule = rule.eps(l.get("eps", 1e-8)).weight_decay(l.get("weight_decay", $decay));
        if l.has("amsgrad") {
            rule = rule.amsgrad();
        }
        if l.has("maximize") {
            rule = rule.maximize();
        }
        rule.optimizer()
    }};
}

#[test]
fn rules_go_where_pytorchs_go() -> Result<()> {
    let lines = lines();
    let start = &lines.iter().find(|l| l.kind == "start").unwrap().numbers;
    let grads: Vec<&Line> = lines.iter().filter(|l| l.kind == "grads").collect();
    let mut checked = 0;
    for l in &lines {
        let builder = match l.kind {
            "sgd" => sgd(l),
            "adam" => adam!(Adam, l, 0.0),
            "adamw" => adam!(AdamW, l, 0.01),
            _ => continue,
        };
        let mut model: Vec<Param> = tensors(start).map(Param::new).into_iter().collect();
        let mut optimizer = builder.build(&model)?;
        let steps = l.get("step", 0.0) as usize;
        for (t, g) in grads[..steps].iter().enumerate() {
            model.zero_grad();
            let [a, b] = tensors(&g.numbers);
            model[0].set_grad(a)?;
            if t != 2 {
                model[1].set_grad(b)?; // at the third step it has no gradient
            }
            let report = optimizer.step(&mut model)?;
            assert_eq!((report.updated, report.skipped), if t == 2 { (1, 1) } else { (2, 0) });
        }
        let d = distance(&values(&model), &l.numbers);
        assert!(d < 1e-13, "{} {:?}: {d:e}", l.kind, l.settings);
        checked += 1;
    }
    assert_eq!(checked, 152);
    Ok(())
}

#[test]
fn defaults_are_pytorchs() {
    assert_eq!(AdamW::new(1e-3), AdamW::new(1e-3).betas(0.9, 0.999).eps(1e-8).weight_decay(0.01));
    assert_eq!(Adam::new(1e-3), Adam::new(1e-3).betas(0.9, 0.999).eps(1e-8).weight_decay(0.0));
    assert_eq!(Sgd::new(1e-3), Sgd::new(1e-3).momentum(0.0).dampening(0.0).weight_decay(0.0));
}

#[test]
fn schedules_go_where_pytorchs_go() {
    let mut checked = 0;
    for l in lines() {
        let count = |key| l.get(key, 0.0) as u64;
        let one_cycle = || {
            let s = OneCycle::new(count("total")).peak_at(l.get("peak", 0.3));
            let s = s.divided_by(l.get("start", 25.0), l.get("end", 1e4));
            let s = if l.has("three") { s.three_phases() } else { s };
            if l.has("linear") { s.linear() } else { s }
        };
        let schedule: Box<dyn Schedule> = match l.kind {
            "step-decay" => Box::new(StepDecay::new(count("every"), l.get("gamma", 0.0))),
            "exponential" => Box::new(Exponential::new(l.get("gamma", 0.0))),
            "warmup" => Box::new(Warmup::new(count("steps")).from(l.get("from", 0.0))),
            "cosine" => Box::new(
                Cosine::warmup(count("warmup"), count("total")).from(l.get("from", 1.0)).low(l.get("low", 0.0)),
            ),
            "one-cycle" | "one-cycle-momentum" => Box::new(one_cycle()),
            _ => continue,
        };
        schedule.check().unwrap();
        let at = |step| match l.kind {
            "one-cycle-momentum" => schedule.momentum(step).unwrap(),
            _ => schedule.learning_rate(0.3, step),
        };
        let got: Vec<f64> = (0..l.numbers.len() as u64).map(at).collect();
        let d = distance(&got, &l.numbers);
        assert!(d < 1e-14, "{} {:?}: {d:e}\n{got:?}\n{:?}", l.kind, l.settings, l.numbers);
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn the_global_norm_is_clipped_as_pytorch_clips_it() -> Result<()> {
    let lines = lines();
    let grads = tensors(&lines.iter().find(|l| l.kind == "grads").unwrap().numbers);
    for l in lines.iter().filter(|l| l.kind == "clip-norm") {
        let named = |g: &Tensor| NamedGrad { name: "x".into(), param: g.zeros_like(), grad: g.clone() };
        let mut named: NamedGrads = grads.iter().map(named).collect();
        let mut notes = Notes::default();
        ClipNorm::new(l.get("max", 0.0)).p(l.get("p", 0.0)).apply(&mut named, &mut notes)?;
        let mut got = vec![notes.gradient_norm.unwrap().item::<f64>()?];
        got.extend(named.iter().flat_map(|g| g.grad.to_vec::<f64>().unwrap()));
        let d = distance(&got, &l.numbers);
        assert!(d < 1e-14, "{:?}: {d:e}", l.settings);
    }
    Ok(())
}
