//! Trajectories of optimizers: the parameters after some of the steps, from the gradients that the file gives.

use super::{Tally, distance, files, finish, json};
use gradus_core::{DType, Error, Result, Tensor};
use gradus_io::SafeTensors;
use gradus_nn::{Module, Param};
use gradus_optim::*;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The tolerance of a trajectory, in parts of max(1, its scale).
const ALLOWED: f64 = 1e-5;

/// Trajectories that rounding decides, which no other program can repeat: an optimizer, the settings that must be there, and the
/// reason. Of them the direction of the first move is compared, and that the loss goes the right way.
const UNDETERMINED: [(&str, &[&str], &str); 1] = [(
    "LBFGS",
    &["line_search_fn", "maximize"],
    "½·x·A·x − b·x has no highest point: the line search extrapolates by a cubic whose leading coefficient is 0 but for rounding, \
     so each of its steps is a factor of 10 or of 1.01 by the sign of that rounding. PyTorch itself ends elsewhere (the relative \
     difference is 1) if the closure sums ½·x·(A·x) in place of (½·x·A)·x.",
)];

/// The settings of a configuration. Each must be asked for, so that none is overlooked.
struct Settings<'a> {
    all: &'a Map<String, Value>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Settings<'a> {
    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.insert(name);
        self.all.get(name)
    }
    fn or(&mut self, name: &'static str, default: f64) -> f64 {
        self.get(name).and_then(Value::as_f64).unwrap_or(default)
    }
    fn flag(&mut self, name: &'static str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
    fn list(&mut self, name: &'static str) -> Option<Vec<f64>> {
        self.get(name).map(super::numbers)
    }
    fn finish(self) -> Result<(), String> {
        let left: Vec<&str> = self.all.keys().map(String::as_str).filter(|k| !self.asked.contains(k)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("settings are not mapped: {}", left.join(", "))) }
    }
}

/// `rule.flag()` where the flag is set.
macro_rules! flags {
    ($s:ident, $rule:expr, $($name:literal => $method:ident),*) => {{
        let mut rule = $rule;
        $(if $s.flag($name) {
            rule = rule.$method();
        })*
        rule
    }};
}

/// β₁ and β₂ of the configuration.
fn betas(s: &mut Settings<'_>) -> (f64, f64) {
    s.list("betas").map_or((0.9, 0.999), |b| (b[0], b[1]))
}

fn adams(name: &str, s: &mut Settings<'_>) -> Option<OptimizerBuilder> {
    let ((b1, b2), eps) = (betas(s), s.or("eps", 1e-8));
    Some(match name {
        "Adam" => {
            let rule = Adam::new(s.or("lr", 1e-3)).betas(b1, b2).eps(eps).weight_decay(s.or("weight_decay", 0.0));
            flags!(s, rule, "amsgrad" => amsgrad, "maximize" => maximize).optimizer()
        }
        "AdamW" => {
            let rule = AdamW::new(s.or("lr", 1e-3)).betas(b1, b2).eps(eps).weight_decay(s.or("weight_decay", 1e-2));
            flags!(s, rule, "amsgrad" => amsgrad, "maximize" => maximize).optimizer()
        }
        "NAdam" => {
            let rule = NAdam::new(s.or("lr", 2e-3)).betas(b1, b2).eps(eps).weight_decay(s.or("weight_decay", 0.0));
            let rule = rule.momentum_decay(s.or("momentum_decay", 4e-3));
            flags!(s, rule, "decoupled_weight_decay" => decoupled, "maximize" => maximize).optimizer()
        }
        "RAdam" => {
            let rule = RAdam::new(s.or("lr", 1e-3)).betas(b1, b2).eps(eps).weight_decay(s.or("weight_decay", 0.0));
            flags!(s, rule, "decoupled_weight_decay" => decoupled, "maximize" => maximize).optimizer()
        }
        "Adamax" => {
            let rule = Adamax::new(s.or("lr", 2e-3)).betas(b1, b2).eps(eps).weight_decay(s.or("weight_decay", 0.0));
            flags!(s, rule, "maximize" => maximize).optimizer()
        }
        _ => return None,
    })
}

fn others(name: &str, s: &mut Settings<'_>) -> Option<OptimizerBuilder> {
    let decay = s.or("weight_decay", if name == "Muon" { 0.1 } else { 0.0 });
    Some(match name {
        "SGD" => {
            let rule = Sgd::new(s.or("lr", 1e-3)).momentum(s.or("momentum", 0.0)).dampening(s.or("dampening", 0.0));
            flags!(s, rule.weight_decay(decay), "nesterov" => nesterov, "maximize" => maximize).optimizer()
        }
        "Adagrad" => {
            let rule = Adagrad::new(s.or("lr", 1e-2)).rate_decay(s.or("lr_decay", 0.0)).eps(s.or("eps", 1e-10));
            let rule = rule.initial(s.or("initial_accumulator_value", 0.0)).weight_decay(decay);
            flags!(s, rule, "maximize" => maximize).optimizer()
        }
        "Adadelta" => {
            let rule = Adadelta::new(s.or("lr", 1.0)).rho(s.or("rho", 0.9)).eps(s.or("eps", 1e-6)).weight_decay(decay);
            flags!(s, rule, "maximize" => maximize).optimizer()
        }
        "RMSprop" => {
            let rule = RmsProp::new(s.or("lr", 1e-2)).alpha(s.or("alpha", 0.99)).eps(s.or("eps", 1e-8));
            let rule = rule.momentum(s.or("momentum", 0.0)).weight_decay(decay);
            flags!(s, rule, "centered" => centered, "maximize" => maximize).optimizer()
        }
        "Rprop" => {
            let etas = s.list("etas").unwrap_or(vec![0.5, 1.2]);
            let sizes = s.list("step_sizes").unwrap_or(vec![1e-6, 50.0]);
            let rule = Rprop::new(s.or("lr", 1e-2)).etas(etas[0], etas[1]).step_sizes(sizes[0], sizes[1]);
            flags!(s, rule, "maximize" => maximize).optimizer()
        }
        "ASGD" => {
            let rule = Asgd::new(s.or("lr", 1e-2)).lambd(s.or("lambd", 1e-4)).alpha(s.or("alpha", 0.75));
            let rule = rule.t0(s.or("t0", 1e6)).weight_decay(decay);
            flags!(s, rule, "maximize" => maximize).optimizer()
        }
        "Adafactor" => {
            let rule = Adafactor::new(s.or("lr", 1e-2)).beta2_decay(s.or("beta2_decay", -0.8)).clip(s.or("d", 1.0));
            flags!(s, rule.weight_decay(decay), "maximize" => maximize).optimizer()
        }
        "Muon" => {
            let rule = Muon::new(s.or("lr", 1e-3)).momentum(s.or("momentum", 0.95)).weight_decay(decay);
            let rule = rule.iterations(s.or("ns_steps", 5.0) as usize);
            let c = s.list("ns_coefficients").unwrap_or(vec![3.4445, -4.775, 2.0315]);
            let scale = match s.get("adjust_lr_fn").and_then(Value::as_str) {
                Some("match_rms_adamw") => MuonScale::MatchAdamW,
                Some("spectral_unclamped") => MuonScale::Unclamped,
                _ => MuonScale::Original,
            };
            rule.coefficients(c[0], c[1], c[2]).scale(scale).optimizer()
        }
        _ => return None,
    })
}

fn read(tensors: &SafeTensors, name: &str, dtype: DType) -> Result<Tensor> {
    tensors.tensor(name, gradus_cpu::device())?.try_to_dtype(dtype)
}

/// How far a trajectory is from the golden one.
fn follow(tensors: &SafeTensors, id: &str, meta: &Value, builder: OptimizerBuilder, dtype: DType) -> Result<f64> {
    let names: BTreeSet<&str> = tensors.infos().iter().map(|i| i.name.as_str()).collect();
    let count = meta["shapes"].as_array().map_or(0, Vec::len);
    let start = (0..count).map(|i| Ok(Param::new(read(tensors, &format!("p0/{i}"), dtype)?)));
    let mut model: Vec<Param> = start.collect::<Result<_>>()?;
    let mut optimizer = builder.build(&model)?;
    let (mut furthest, mut marks) = (0.0f64, 0);
    for t in 0.. {
        if !names.contains(format!("g{t:03}/0").as_str()) {
            break;
        }
        model.zero_grad();
        for (i, p) in model.iter().enumerate() {
            p.set_grad(read(tensors, &format!("g{t:03}/{i}"), dtype)?)?;
        }
        optimizer.step(&mut model)?;
        for (i, p) in model.iter().enumerate() {
            let mark = format!("{id}/t{:03}/{i}", t + 1);
            if names.contains(mark.as_str()) {
                let want = read(tensors, &mark, DType::F64)?.to_vec::<f64>()?;
                furthest = furthest.max(distance(&p.to_vec::<f64>()?, &want));
                marks += 1;
            }
        }
    }
    if marks == 0 { Err(Error::data("the file has no values after any step")) } else { Ok(furthest) }
}

/// The same for L-BFGS where rounding decides the length of a move: the sine of the angle between the first moves, and an error if
/// the loss does not go the right way.
fn follow_direction(tensors: &SafeTensors, id: &str, losses: &[f64], found: &[Vec<f64>]) -> Result<f64> {
    let start = read(tensors, "x0", DType::F64)?.to_vec::<f64>()?;
    let want = read(tensors, &format!("{id}/t001/x"), DType::F64)?.to_vec::<f64>()?;
    let unit = |x: &[f64]| -> Vec<f64> {
        let moved: Vec<f64> = x.iter().zip(&start).map(|(x, s)| x - s).collect();
        let norm = moved.iter().map(|m| m * m).sum::<f64>().sqrt();
        moved.iter().map(|m| m / norm).collect()
    };
    if !losses.is_sorted_by(|a, b| a < b) {
        return Err(Error::data(format!("the loss does not climb: {losses:?}")));
    }
    Ok(distance(&unit(&found[0]), &unit(&want)))
}

/// What L-BFGS minimizes: ½·x·A·x − b·x, summed in PyTorch's order or, to see what rounding does, in the other one.
struct Quadratic {
    a: Tensor,
    b: Tensor,
    x0: Tensor,
}

impl Quadratic {
    fn read(tensors: &SafeTensors) -> Result<Quadratic> {
        let [a, b, x0] = ["A", "b", "x0"].map(|name| read(tensors, name, DType::F64));
        Ok(Quadratic { a: a?, b: b?, x0: x0? })
    }
    fn loss(&self, x: &Tensor, turned: bool) -> Result<Tensor> {
        let half = Tensor::try_full((), 0.5, x.place())?;
        let square = if turned {
            self.a.try_matmul(x)?.try_dot(x)?.try_mul(&half)?
        } else {
            x.try_mul(&half)?.try_matmul(&self.a)?.try_dot(x)?
        };
        square.try_sub(&self.b.try_dot(x)?)
    }
    /// The loss before and the place after each step.
    fn steps(&self, mut optimizer: Lbfgs, count: usize, turned: bool) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let mut model = vec![Param::new(self.x0.clone())];
        let (mut losses, mut places) = (Vec::new(), Vec::new());
        for _ in 0..count {
            losses.push(optimizer.step(&mut model, |x| self.loss(x[0].value(), turned))?);
            places.push(model[0].to_vec::<f64>()?);
        }
        Ok((losses, places))
    }
}

/// How far L-BFGS is from the golden trajectory, and how far it is determined at all.
///
/// Where the curvature is nearly the same along all its steps, L-BFGS divides rounding by rounding: from seed 1, PyTorch's own
/// places with lr 0.01 are 4e-5 apart after eight steps if the closure sums ½·x·(A·x) in place of (½·x·A)·x, and 5e-16 after
/// five. So both sums are run here, and a step may be off by 4 times what they have come apart by then.
fn follow_lbfgs(
    tensors: &SafeTensors,
    config: &Value,
    optimizer: impl Fn() -> Lbfgs,
    determined: bool,
) -> Result<(f64, f64)> {
    let losses = super::numbers(&config["losses"]);
    let id = config["id"].as_str().unwrap_or_default();
    if losses.is_empty() {
        return Err(Error::data("the file has no losses"));
    }
    let quadratic = Quadratic::read(tensors)?;
    let have = quadratic.steps(optimizer(), losses.len(), false)?;
    if !determined {
        return Ok((follow_direction(tensors, id, &have.0, &have.1)?, 0.0));
    }
    let turned = quadratic.steps(optimizer(), losses.len(), true)?;
    let (mut furthest, mut spread) = (0.0f64, 0.0f64);
    for (t, loss) in losses.iter().enumerate() {
        let want = read(tensors, &format!("{id}/t{:03}/x", t + 1), DType::F64)?.to_vec::<f64>()?;
        let off = distance(&have.1[t], &want).max(distance(&[have.0[t]], &[*loss]));
        let apart = distance(&turned.1[t], &have.1[t]).max(distance(&[turned.0[t]], &[have.0[t]]));
        spread = spread.max(apart);
        // What rounding explains is not counted.
        if off > ALLOWED.max(4.0 * spread) || off <= ALLOWED {
            furthest = furthest.max(off);
        }
    }
    Ok((furthest, spread))
}

fn lbfgs(s: &mut Settings<'_>) -> Lbfgs {
    let rule = Lbfgs::new(s.or("lr", 1.0)).tolerance_gradient(s.or("tolerance_grad", 1e-7));
    let rule = if s.get("line_search_fn").and_then(Value::as_str) == Some("strong_wolfe") {
        rule.strong_wolfe()
    } else {
        rule
    };
    flags!(s, rule, "maximize" => maximize)
}

#[test]
fn trajectories_are_pytorchs() {
    let (mut tallies, mut undetermined) = (Vec::new(), 0);
    for file in files("optim") {
        let meta = json(&file);
        let name = meta["optimizer"].as_str().unwrap_or_default();
        let tensors = SafeTensors::open(file.with_extension("safetensors")).unwrap_or_else(|e| panic!("{e}"));
        let (mut exact, mut single) = (Tally::default(), Tally::default());
        for config in meta["configs"].as_array().into_iter().flatten() {
            let id = config["id"].as_str().unwrap_or_default();
            let what = || format!("{name} {id} {}", config["kwargs"]);
            if let Some(why) = config["skipped"].as_str() {
                gradus_tests::report::say(&format!("{}: PyTorch itself refuses it: {why}", what()));
                continue;
            }
            let Some(all) = config["kwargs"].as_object() else { continue };
            let fits = |keys: &[&str]| keys.iter().all(|k| all.contains_key(*k));
            let why = UNDETERMINED.iter().find(|(of, keys, _)| *of == name && fits(keys)).map(|(.., why)| *why);
            if let Some(why) = why {
                undetermined += 1;
                gradus_tests::report::say(&format!("{}: only its first direction is compared: {why}", what()));
            }
            let run = |dtype: DType| -> Result<f64, String> {
                let mut s = Settings { all, asked: BTreeSet::new() };
                let text = |e: Error| e.to_string();
                if name == "LBFGS" {
                    let optimizer = lbfgs(&mut s);
                    s.finish()?;
                    let run = follow_lbfgs(&tensors, config, || optimizer.clone(), why.is_none());
                    let (furthest, spread) = run.map_err(text)?;
                    if 4.0 * spread > ALLOWED {
                        gradus_tests::report::say(&format!("{}: rounding decides it to {spread:.0e}", what()));
                    }
                    return Ok(furthest);
                }
                let builder = adams(name, &mut s).or_else(|| others(name, &mut s)).ok_or("is not mapped")?;
                s.finish()?;
                follow(&tensors, id, &meta, builder, dtype).map_err(text)
            };
            exact.add(what, run(DType::F64), ALLOWED);
            // In f32 a bit of the momentum may turn a bit of Muon's bf16, which is 2⁻⁸ of a step; L-BFGS stops by its tolerances.
            if !["LBFGS", "Muon"].contains(&name) {
                single.add(|| format!("{} in f32", what()), run(DType::F32), ALLOWED);
            }
        }
        exact.say(name);
        if single.total > 0 {
            single.say(&format!("{name} in f32"));
        }
        tallies.extend([exact, single]);
    }
    gradus_tests::report::say(&format!("goldens: of {undetermined} trajectories only the first direction is compared"));
    finish("trajectories", tallies);
}
