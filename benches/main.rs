//! Benches of Gradus: `cargo bench -p gradus-benches`, and `-- gemm` for those whose name has it. They run on the CPU; with the
//! feature `wgpu` or `cuda` those whose name begins with `gpu` are there as well.
//!
//! Short by default, so that the whole table is there in two minutes; `-- --measurement-time 5 --sample-size 100 gemm` looks
//! closer. `-- --test` runs each once. At the end stands each bench's share of what the machine can do (`limits.rs`): elements are
//! floating-point operations everywhere, and bytes those that must be read and written.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod devices;
mod kernels;
mod limits;
mod networks;
mod training;

use criterion::{Criterion, criterion_group};
use std::time::{Duration, SystemTime};

/// Ten samples in half a second, after a fifth to warm up.
fn short() -> Criterion {
    let short = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200));
    short.measurement_time(Duration::from_millis(500)).without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets =
        kernels::gemm, kernels::elementwise, kernels::chains, kernels::reductions,
        networks::rows, networks::attention, networks::convolution, networks::images, networks::lookups,
        training::overhead, training::optimizers, training::steps,
}
#[cfg(any(feature = "wgpu", feature = "cuda"))]
criterion_group! {
    name = on_devices;
    config = short();
    targets = devices::kernels,
}

fn main() {
    let start = SystemTime::now();
    benches();
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    on_devices();
    Criterion::default().configure_from_args().final_summary();
    limits::print_shares(start, of_gpus);
}

/// What the GPUs that were built in can do.
fn of_gpus() -> Vec<(String, limits::Limits)> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    return devices::limits();
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    Vec::new()
}
