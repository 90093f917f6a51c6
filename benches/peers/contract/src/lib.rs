//! The contract of a peer, as README.md states it: options, the sampling of times, one line of JSON.
//!
//! Shared by the peers that are written in Rust, so that none of them can be timed in another way.

mod sampling;

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
pub use sampling::{Outcome, WARMUP_STEPS, now, sample};
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many losses a peer prints before it times anything.
pub const LOSSES: usize = 10;

#[derive(Parser)]
#[command(about = "One case, its first ten losses, then its timed steps, as one line of JSON")]
pub struct Options {
    #[arg(long, value_enum)]
    pub case: Case,
    /// The safetensors file of weights.
    #[arg(long)]
    pub weights: PathBuf,
    /// The safetensors file of batches.
    #[arg(long)]
    pub data: PathBuf,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
    /// Timed steps.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    steps: u32,
    /// Steps before those, at least.
    #[arg(long, default_value_t = WARMUP_STEPS as u32)]
    warmup: u32,
    /// Where the work is done.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Which form of the peer runs; the first it has, if none is asked for.
    #[arg(long, default_value = "")]
    pub variant: String,
}

impl Options {
    pub fn steps(&self) -> usize {
        self.steps as usize
    }
    pub fn warmup(&self) -> usize {
        self.warmup as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Case {
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
    /// The convolutional net of C4, small enough for a GPU in software.
    G4,
    /// The GPT of C6, small enough for a GPU in software.
    G6,
}

/// The `main` of a peer: loads the inputs, measures, prints the line of JSON. Exit code 1 and why, when that cannot be done.
pub fn peer<Inputs>(
    name: &str,
    version: &str,
    variants: &[&str],
    load: impl FnOnce(&Options) -> Result<Inputs>,
    measure: impl FnOnce(&Options, Inputs) -> Result<Outcome>,
) -> ExitCode {
    let mut options = Options::parse();
    if options.variant.is_empty() {
        options.variant = variants[0].to_owned();
    }
    if !variants.contains(&options.variant.as_str()) {
        let message = format!("there is no variant '{}': give one of {variants:?}", options.variant);
        Options::command().error(ErrorKind::InvalidValue, message).exit();
    }
    let done = || -> Result<serde_json::Value> {
        let inputs = load(&options)?;
        let loaded = peak_rss()?;
        let done = measure(&options, inputs)?;
        let case = options.case.to_possible_value().map(|v| v.get_name().to_owned());
        Ok(json!({
            "peer": name, "version": version, "variant": options.variant,
            "device": options.device, "case": case, "threads": options.threads, "steps": options.steps,
            "losses": done.losses, "first_step_at": done.first_step_at, "rows": done.rows,
            "loaded_rss_kib": loaded, "peak_rss_kib": peak_rss()?,
        }))
    };
    match done() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{name}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Peak resident memory of this process in KiB.
pub fn peak_rss() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    peak.ok_or_else(|| format!("{path} has no line \"VmHWM: N kB\"").into())
}
