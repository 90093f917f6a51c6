//! The candle side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.
//!
//! The twin of `torch_peer.py`, written as a user of candle writes: its layers, its optimizers, its CPU device with the matrix
//! products that come with it. `RAYON_NUM_THREADS` sets its threads. README.md states the contract, and which cases candle lacks.

mod models;
mod pieces;
mod train;

use candle_core::{Device, Tensor, safetensors};
use contract::{Case, Options, Outcome, Result};
use std::collections::HashMap;
use std::process::ExitCode;

/// candle's version: its crates do not say it.
const VERSION: &str = "0.11.1";

/// The tensors of a file.
pub type Tensors = HashMap<String, Tensor>;

pub fn get<'a>(tensors: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    tensors.get(name).ok_or_else(|| format!("there is no tensor called {name}").into())
}

fn load(options: &Options) -> Result<(Tensors, Tensors)> {
    if options.device != "cpu" {
        return Err(format!("there is no device {}: candle has no Vulkan", options.device).into());
    }
    let threads = rayon::current_num_threads();
    if threads != usize::from(options.threads) {
        return Err(format!("RAYON_NUM_THREADS asks for {threads} threads, --threads for {}", options.threads).into());
    }
    Ok((safetensors::load(&options.weights, &Device::Cpu)?, safetensors::load(&options.data, &Device::Cpu)?))
}

fn measure(options: &Options, (weights, data): (Tensors, Tensors)) -> Result<Outcome> {
    let (steps, warmup) = (options.steps(), options.warmup());
    match options.case {
        Case::Matmul => pieces::matmul(&weights, &data, steps),
        Case::C14 => pieces::ops(&weights, &data, steps),
        Case::C8 => pieces::update(&weights, &data, steps),
        Case::C9 | Case::C9c => pieces::residual(&weights, &data, steps),
        Case::C10 => pieces::head(&weights, &data, steps, warmup),
        Case::C12 => train::epoch(options, &weights, &data),
        Case::C13 => pieces::files(&weights, steps),
        _ => train::train(options, &weights, &data),
    }
}

fn main() -> ExitCode {
    contract::peer("candle", VERSION, &["eager"], load, measure)
}
