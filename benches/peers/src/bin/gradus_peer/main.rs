//! The Gradus side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.
//!
//! `gradus_peer --case C1 --weights FILE --data FILE --threads 2 --steps 5000 --variant guarded`
//!
//! The twin of `torch_peer.py` and its modules, function by function, and written as a user of Gradus writes: layers and an
//! optimizer. A training's step runs `eager`, recorded and replayed `guarded` (as the trainer does) or `unchecked`; with
//! `--variant same-bits` all three, compared; with `same-threads` on one, two and four threads, compared; with `same-memory` guarded, for as many steps
//! as are asked for, and its memory watched. README.md states the contract.

mod inputs;
mod models;
mod pieces;
mod train;

use contract::{Case, Options, Outcome, Result};
use gradus::{Device, Devices, cpu};
use inputs::Tensors;
use std::process::ExitCode;

/// `same-bits` times nothing: it fails unless the first three give the same bits. So does `same-threads`, unless any number of threads
/// does, and `same-memory`, if resident memory grows after the first tenth of the steps.
const VARIANTS: [&str; 6] = ["eager", "guarded", "unchecked", "same-bits", "same-threads", "same-memory"];

fn load(options: &Options) -> Result<(Tensors, Tensors)> {
    cpu::set_threads(options.threads.into());
    let device = Device::parse(&options.device)?;
    Ok((Tensors::load(&options.weights, device)?, Tensors::load(&options.data, device)?))
}

fn measure(options: &Options, (weights, data): (Tensors, Tensors)) -> Result<Outcome> {
    let (steps, warmup) = (options.steps(), options.warmup());
    Ok(match options.case {
        Case::Matmul => pieces::matmul(&weights, &data, steps)?,
        Case::C14 => pieces::ops(&weights, &data, steps)?,
        Case::C8 => pieces::update(&weights, &data, steps)?,
        Case::C9 | Case::C9c => pieces::residual(&weights, &data, steps)?,
        Case::C10 => pieces::head(&weights, &data, steps, warmup)?,
        Case::C12 => train::epoch(options, &weights, &data)?,
        Case::C13 => pieces::files(&weights, steps)?,
        _ if options.variant == "same-bits" => train::same_bits(options, &weights, &data)?,
        _ if options.variant == "same-threads" => train::same_threads(options, &weights, &data)?,
        _ if options.variant == "same-memory" => train::same_memory(options, &weights, &data)?,
        _ => train::train(options, &weights, &data)?,
    })
}

fn main() -> ExitCode {
    contract::peer("gradus", env!("CARGO_PKG_VERSION"), &VARIANTS, load, measure)
}
