//! How long a bench takes. Short by default, so that the whole table is there in two minutes;
//! `cargo bench -p gradus-benches -- --measurement-time 5 --sample-size 100 gemm` looks closer at some of it.

use criterion::Criterion;
use std::time::Duration;

/// Ten samples in half a second, after a fifth to warm up.
pub fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args()
}
