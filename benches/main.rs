//! Benches of Gradus on the CPU: `cargo bench -p gradus-benches`, and `-- gemm` for those whose name has it.
//!
//! Short by default, so that the whole table is there in two minutes; `-- --measurement-time 5 --sample-size 100 gemm` looks
//! closer. `-- --test` runs each once.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod kernels;
mod networks;
mod training;

use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

/// Ten samples in half a second, after a fifth to warm up.
fn short() -> Criterion {
    let short = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200));
    short.measurement_time(Duration::from_millis(500)).without_plots()
}

criterion_group! {
    name = benches;
    config = short();
    targets =
        kernels::gemm, kernels::elementwise, kernels::reductions,
        networks::rows, networks::attention, networks::convolution,
        training::overhead, training::optimizers, training::steps,
}
criterion_main!(benches);
