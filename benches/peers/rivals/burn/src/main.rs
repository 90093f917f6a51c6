//! The Burn side of the comparison: one case, its first ten losses, then its timed steps, as one line of JSON.
//!
//! The twin of `torch_peer.py`, written as a user of Burn writes: its layers, its optimizers, its loader, `Autodiff` over a backend.
//! The variants are Burn's CPU backends; `RAYON_NUM_THREADS` and `MATMUL_NUM_THREADS` set their threads. On a GPU (feature `wgpu`)
//! it is the Vulkan backend with fusion and autotune. README.md states the contract.

mod inputs;
mod models;
mod pieces;
mod train;

use burn::backend::{Autodiff, Flex, NdArray};
use burn::tensor::backend::AutodiffBackend;
use contract::{Case, Options, Outcome, Result};
use inputs::Tensors;
use std::process::ExitCode;

/// Burn's version: its crates do not say it.
const VERSION: &str = "0.21.0";

fn load(options: &Options) -> Result<(Tensors, Tensors)> {
    let threads = rayon::current_num_threads();
    if threads != usize::from(options.threads) {
        return Err(format!("RAYON_NUM_THREADS asks for {threads} threads, --threads for {}", options.threads).into());
    }
    Ok((Tensors::load(&options.weights)?, Tensors::load(&options.data)?))
}

fn measure(options: &Options, (weights, data): (Tensors, Tensors)) -> Result<Outcome> {
    match (options.device.as_str(), options.variant.as_str()) {
        ("cpu", "ndarray") => on::<Autodiff<NdArray>>(options, Default::default(), &weights, &data),
        ("cpu", _) => on::<Autodiff<Flex>>(options, Default::default(), &weights, &data),
        #[cfg(feature = "wgpu")]
        ("wgpu:0", _) => on::<Autodiff<burn::backend::Vulkan>>(options, Default::default(), &weights, &data),
        (device, _) => Err(format!("there is no device {device} here (wgpu:0 needs the feature wgpu)").into()),
    }
}

fn on<B: AutodiffBackend>(options: &Options, device: B::Device, weights: &Tensors, data: &Tensors) -> Result<Outcome> {
    let (steps, warmup) = (options.steps(), options.warmup());
    match options.case {
        Case::Matmul => pieces::matmul::<B>(weights, data, steps, &device),
        Case::C14 => pieces::ops::<B>(weights, data, steps, &device),
        Case::C8 => pieces::update::<B>(weights, data, steps, &device),
        Case::C9 | Case::C9c => pieces::residual::<B>(weights, data, steps, &device),
        Case::C10 => pieces::head::<B>(weights, data, steps, warmup, &device),
        Case::C12 => train::epoch::<B>(options, weights, data, &device),
        Case::C13 => pieces::files::<B>(weights, steps, &device),
        _ => train::train::<B>(options, weights, data, &device),
    }
}

fn main() -> ExitCode {
    contract::peer("burn", VERSION, &["flex", "ndarray"], load, measure)
}
