//! Kernels of the device, through the methods that everyone calls, without gradients: matrix products (their elements are
//! floating-point operations), elementwise functions and reductions (their bytes are those read and written).

use criterion::{BenchmarkId, Criterion, Throughput};
use gradus::prelude::*;
use std::hint::black_box;

/// Normal numbers of this shape.
fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, Device::cpu(), seed)
}

/// Products x·y of `[m, k]` and `[k, n]`: square ones, those of small networks, and a vector.
pub fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for [m, k, n] in [
        [64, 64, 64],
        [256, 256, 256],
        [1024, 1024, 1024],
        [32, 64, 32],
        [64, 784, 128],
        [64, 9216, 128],
        [1, 1024, 1024],
    ] {
        let (x, y) = (randn(&[m, k], 0), randn(&[k, n], 1));
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{k}x{n}")), |b| {
            b.iter(|| black_box(x.matmul(&y)))
        });
    }
    // As backward has them: a transposed operand is read where it lies.
    let (x, g) = (randn(&[64, 784], 0), randn(&[64, 128], 1));
    group.throughput(Throughput::Elements(2 * 64 * 784 * 128));
    group.bench_function("128x64x784, transposed", |b| b.iter(|| black_box(g.t().matmul(&x))));
    group.finish();
}

pub fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    for n in [1 << 12, 1 << 20] {
        let (x, y) = (randn(&[n], 0), randn(&[n], 1));
        group.throughput(Throughput::Bytes(12 * n as u64));
        group.bench_function(BenchmarkId::new("add", n), |b| b.iter(|| black_box(&x + &y)));
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(BenchmarkId::new("relu", n), |b| b.iter(|| black_box(x.relu())));
        group.bench_function(BenchmarkId::new("exp", n), |b| b.iter(|| black_box(x.exp())));
        group.bench_function(BenchmarkId::new("gelu", n), |b| b.iter(|| black_box(x.gelu())));
    }
    let (x, row) = (randn(&[1024, 1024], 0), randn(&[1024], 1));
    group.throughput(Throughput::Bytes(8 << 20));
    group.bench_function("add a row to 1024x1024", |b| b.iter(|| black_box(&x + &row)));
    group.bench_function("copy of a transposed 1024x1024", |b| b.iter(|| black_box(x.t().contiguous())));
    group.finish();
}

/// What users write of several elementwise functions. The bytes are those of one pass: inputs read, the result written.
pub fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("chain");
    for n in [1 << 12, 1 << 20] {
        let (x, y) = (randn(&[n], 0), randn(&[n], 1));
        group.throughput(Throughput::Bytes(12 * n as u64));
        group.bench_function(BenchmarkId::new("x * 2 + y", n), |b| b.iter(|| black_box(&x * 2.0 + &y)));
        group.bench_function(BenchmarkId::new("tanh(x * 2 + y) * y", n), |b| {
            b.iter(|| black_box((&x * 2.0 + &y).tanh() * &y))
        });
        group.bench_function(BenchmarkId::new("tanh(x * 2 + y) * y as a chain", n), |b| {
            b.iter(|| black_box(Tensor::chain([&x, &y], |[x, y]| (x * 2.0 + y).tanh() * y)))
        });
        group.throughput(Throughput::Bytes(8 * n as u64));
        group.bench_function(BenchmarkId::new("sigmoid(x) * x", n), |b| b.iter(|| black_box(x.sigmoid() * &x)));
    }
    group.finish();
}

pub fn reductions(c: &mut Criterion) {
    let mut group = c.benchmark_group("reduce 1024x1024");
    let x = randn(&[1024, 1024], 0);
    group.throughput(Throughput::Bytes(4 << 20));
    group.bench_function("sum", |b| b.iter(|| black_box(x.sum())));
    group.bench_function("sum of rows", |b| b.iter(|| black_box(x.sum_dims(&[1], false))));
    group.bench_function("sum of columns", |b| b.iter(|| black_box(x.sum_dims(&[0], false))));
    group.bench_function("max of rows", |b| b.iter(|| black_box(x.amax(&[1], false))));
    group.bench_function("argmax of rows", |b| b.iter(|| black_box(x.argmax(1, false))));
    group.finish();
}
