//! The Gradus side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.
//!
//! `gradus_peer --case C1 --weights FILE --data FILE --threads 2 --steps 5000`
//!
//! The twin of `torch_peer.py`, function by function, and written as a user of Gradus writes: layers, an optimizer, the
//! eager path. README.md states the contract.

use clap::{Parser, ValueEnum};
use gradus::nn::{Conv2d, Cx, Dropout, Init, Layer, Linear, MaxPool2d, Module};
use gradus::optim::{Adam, AdamW, Optimizer, OptimizerBuilder, Sgd};
use gradus::{Device, Devices, Error, Result, Tensor, cpu, io, no_grad};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LOSSES: usize = 10;
const WARMUP_STEPS: usize = 20;
const WARMUP: Duration = Duration::from_millis(300);
/// A run stops here with the steps it has, at least `WARMUP_STEPS` of them.
const LONGEST: Duration = Duration::from_secs(20);
/// A clock reading costs as much as a one-element add: blocks are timed.
const OPS_PER_BLOCK: usize = 1000;

#[derive(Parser)]
struct Options {
    #[arg(long, value_enum)]
    case: Case,
    /// The safetensors file of weights.
    #[arg(long)]
    weights: PathBuf,
    /// The safetensors file of batches.
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Timed steps.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    steps: u32,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Case {
    C1,
    C2,
    C4,
    #[value(name = "matmul")]
    Matmul,
    C14,
}

/// The tensors of a file, and the file's name for messages.
struct Tensors<'a>(BTreeMap<String, Tensor>, &'a Path);

impl Tensors<'_> {
    fn load(path: &Path) -> Result<Tensors<'_>> {
        Ok(Tensors(io::load(path, Device::cpu())?, path))
    }
    fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::data(format!("{}: there is no tensor called {name}", self.1.display())))
    }
    /// What a tensor holds at each place of its first dimension.
    fn unbind(&self, name: &str) -> Result<Vec<Tensor>> {
        let all = self.get(name)?;
        (0..all.dim(0)).map(|i| all.try_select(0, i as isize)).collect()
    }
}

#[derive(Module)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn new(inputs: usize, hidden: usize, outputs: usize, init: &mut Init) -> Mlp {
        Mlp { fc1: Linear::new(inputs, hidden, init), fc2: Linear::new(hidden, outputs, init) }
    }
}

impl Layer for Mlp {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let hidden = x.linear_relu(&self.fc1.weight, self.fc1.bias.as_deref());
        self.fc2.call(&hidden, cx)
    }
}

/// conv 1→32, relu, conv 32→64, relu, max pool 2, dropout ¼, fc 9216→128, relu, dropout ½, fc 128→10.
#[derive(Module)]
struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    dropout1: Dropout,
    fc1: Linear,
    dropout2: Dropout,
    fc2: Linear,
}

impl Cnn {
    fn new(dropout: bool, init: &mut Init) -> Cnn {
        let dropout = |p| Dropout::new(if dropout { p } else { 0.0 });
        Cnn {
            conv1: Conv2d::new(1, 32, 3, init),
            conv2: Conv2d::new(32, 64, 3, init),
            pool: MaxPool2d::new(2),
            dropout1: dropout(0.25),
            fc1: Linear::new(9216, 128, init),
            dropout2: dropout(0.5),
            fc2: Linear::new(128, 10, init),
        }
    }
}

impl Layer for Cnn {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = self.conv1.call(x, cx).relu(); // [64, 32, 26, 26]
        let x = self.conv2.call(&x, cx).relu(); // [64, 64, 24, 24]
        let x = self.dropout1.call(&self.pool.call(&x, cx), cx).flatten(1, -1); // [64, 9216]
        let x = x.linear_relu(&self.fc1.weight, self.fc1.bias.as_deref());
        self.fc2.call(&self.dropout2.call(&x, cx), cx)
    }
}

/// One model from the given weights, its optimizer and its batches; `step(i)` is forward, backward and update.
struct Training {
    model: Box<dyn Layer>,
    optimizer: Optimizer,
    batches: Vec<(Tensor, Tensor)>,
}

impl Training {
    fn new(case: Case, weights: &Tensors, data: &Tensors, dropout: bool) -> Result<Training> {
        let init = &mut Init::new(Device::cpu(), 0);
        let (mut model, optimizer): (Box<dyn Layer>, OptimizerBuilder) = match case {
            Case::C1 => (Box::new(Mlp::new(64, 32, 10, init)), Sgd::new(0.1).into()),
            Case::C2 => (Box::new(Mlp::new(784, 128, 10, init)), AdamW::new(1e-3).into()),
            Case::C4 => (Box::new(Cnn::new(dropout, init)), Adam::new(1e-3).into()),
            Case::Matmul | Case::C14 => return Err(Error::misuse("this case trains no model")),
        };
        model.assign_paths();
        model.load_state_dict(&weights.0)?;
        let optimizer = optimizer.build(&model)?;
        let batches = data.unbind("x")?.into_iter().zip(data.unbind("y")?).collect();
        Ok(Training { model, optimizer, batches })
    }

    fn step(&mut self, i: usize) -> Result<Tensor> {
        let (x, y) = &self.batches[i % self.batches.len()];
        self.model.zero_grad();
        let loss = self.model.call(x, &Cx::train(0, i as u32)).cross_entropy(y);
        loss.backward();
        self.optimizer.step(&mut self.model)?;
        Ok(loss)
    }
}

/// Median, 10th and 90th percentile in microseconds of one call, after the warm-up; and how many were timed.
fn sample(steps: usize, per_block: usize, mut run: impl FnMut(usize) -> Result<()>) -> Result<Value> {
    let (start, mut i) = (Instant::now(), 0);
    while i < WARMUP_STEPS || start.elapsed() < WARMUP {
        run(i)?;
        i += 1;
    }
    let (start, mut times) = (Instant::now(), Vec::with_capacity(steps));
    for step in i..i + steps {
        let before = Instant::now();
        run(step)?;
        times.push(before.elapsed().as_secs_f64() * 1e6 / per_block as f64);
        if times.len() >= WARMUP_STEPS && start.elapsed() > LONGEST {
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

/// What a case gives: ten losses, the moment (Unix seconds) the first was there, and rows of times.
struct Outcome {
    losses: Vec<f32>,
    first_step_at: f64,
    rows: Value,
}

fn train(case: Case, weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let mut training = Training::new(case, weights, data, false)?;
    let mut losses = vec![training.step(0)?.item()?];
    let first_step_at = now();
    for i in 1..LOSSES {
        losses.push(training.step(i)?.item()?);
    }
    let mut training = Training::new(case, weights, data, true)?;
    let step = sample(steps, 1, |i| training.step(i).map(drop))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// c = x b. In place of losses: the mean square of each of ten blocks of 100 rows of c.
fn matmul(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, b) = (data.get("x")?, weights.get("b")?);
    let c = x.try_matmul(b)?;
    let first_step_at = now();
    let block = |i| c.try_narrow(0, 100 * i, 100)?.square().mean().item();
    let losses = (0..LOSSES).map(block).collect::<Result<_>>()?;
    let step = sample(steps, 1, |_| x.try_matmul(b).map(|c| drop(black_box(c))))?;
    Ok(Outcome { losses, first_step_at, rows: json!({"step": step}) })
}

/// `add`: x + w. `graph3`: relu(w · x).sum(), forward and backward. Losses: ten SGD steps of it, rate 0.1.
fn ops(weights: &Tensors, data: &Tensors, steps: usize) -> Result<Outcome> {
    let (x, plain) = (data.get("x")?, weights.get("w")?);
    let mut w = plain.requires_grad();
    let (mut losses, mut first_step_at) = (Vec::new(), 0.0);
    for i in 0..LOSSES {
        let loss = (&w * x).relu().sum();
        loss.backward();
        losses.push(loss.item()?);
        if i == 0 {
            first_step_at = now();
        }
        if let Some(grad) = w.take_grad() {
            w = no_grad(|| &w - grad * 0.1).requires_grad();
        }
    }
    let add = sample(steps, OPS_PER_BLOCK, |_| {
        (0..OPS_PER_BLOCK).for_each(|_| drop(black_box(x + plain)));
        Ok(())
    })?;
    let graph3 = sample((steps / 10).max(WARMUP_STEPS), OPS_PER_BLOCK, |_| {
        for _ in 0..OPS_PER_BLOCK {
            w.zero_grad();
            (&w * x).relu().sum().backward();
        }
        Ok(())
    })?;
    Ok(Outcome { losses, first_step_at, rows: json!({"add": add, "graph3": graph3}) })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// Peak resident memory of this process in KiB.
fn peak_rss() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|e| Error::io(format!("cannot read {path}"), e))?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    peak.ok_or_else(|| Error::data(format!("{path} has no line \"VmHWM: N kB\"")))
}

fn run(options: &Options) -> Result<Value> {
    cpu::set_threads(options.threads.into());
    let (weights, data) = (Tensors::load(&options.weights)?, Tensors::load(&options.data)?);
    let steps = options.steps as usize;
    let done = match options.case {
        Case::Matmul => matmul(&weights, &data, steps)?,
        Case::C14 => ops(&weights, &data, steps)?,
        case => train(case, &weights, &data, steps)?,
    };
    let case = options.case.to_possible_value().map(|v| v.get_name().to_owned());
    Ok(json!({
        "peer": "gradus", "version": env!("CARGO_PKG_VERSION"), "variant": "eager",
        "case": case, "threads": options.threads, "steps": steps,
        "losses": done.losses, "first_step_at": done.first_step_at, "rows": done.rows, "peak_rss_kib": peak_rss()?,
    }))
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("gradus_peer: {e}");
            ExitCode::FAILURE
        }
    }
}
