//! The Gradus side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.
//!
//! `gradus_peer --case C1 --weights FILE --data FILE --threads 2 --steps 5000`
//!
//! The twin of `torch_peer.py` and its modules, function by function, and written as a user of Gradus writes: layers, an
//! optimizer, the eager path. README.md states the contract.

mod inputs;
mod models;
mod pieces;
mod sampling;
mod train;

use clap::{Parser, ValueEnum};
use gradus::{Error, Result, cpu};
use inputs::Tensors;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Steps before those, at least.
    #[arg(long, default_value_t = 20)]
    warmup: u32,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Case {
    C1,
    C2,
    C3,
    C4,
    C5,
    C6,
    C7,
    C8,
    C9,
    C9c,
    C10,
    C11,
    C12,
    C13,
    #[value(name = "matmul")]
    Matmul,
    C14,
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
    let (steps, warmup) = (options.steps as usize, options.warmup as usize);
    let loaded = peak_rss()?;
    let done = match options.case {
        Case::Matmul => pieces::matmul(&weights, &data, steps)?,
        Case::C14 => pieces::ops(&weights, &data, steps)?,
        Case::C8 => pieces::update(&weights, &data, steps)?,
        Case::C9 | Case::C9c => pieces::residual(&weights, &data, steps)?,
        Case::C10 => pieces::head(&weights, &data, steps, warmup)?,
        Case::C12 => train::epoch(options.case, &weights, &data, steps, warmup)?,
        Case::C13 => pieces::files(&weights, steps)?,
        case => train::train(case, &weights, &data, steps, warmup)?,
    };
    let case = options.case.to_possible_value().map(|v| v.get_name().to_owned());
    Ok(json!({
        "peer": "gradus", "version": env!("CARGO_PKG_VERSION"), "variant": "eager",
        "case": case, "threads": options.threads, "steps": steps,
        "losses": done.losses, "first_step_at": done.first_step_at, "rows": done.rows,
        "loaded_rss_kib": loaded, "peak_rss_kib": peak_rss()?,
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
