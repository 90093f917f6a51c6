//! Functions that networks are made of: each forward alone, and forward and backward. The elements of attention and
//! convolution are floating-point operations of the forward pass (its backward has twice as many), those of the others numbers.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use gradus::functional::attention::AttentionOptions;
use gradus::functional::convolution::ConvOptions;
use gradus::prelude::*;
use std::hint::black_box;

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, Device::cpu(), seed)
}

/// Benches f(x), and f(x) with the gradients of x and `weights`.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    elements: usize,
    x: &[Tensor],
    f: impl Fn(&[Tensor]) -> Tensor,
) {
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(format!("{name}, forward"), |b| b.iter(|| black_box(f(x))));
    let leaves: Vec<Tensor> =
        x.iter().map(|t| if t.dtype().is_float() { t.requires_grad() } else { t.clone() }).collect();
    let seed = f(x).ones_like();
    group.bench_function(format!("{name}, forward and backward"), |b| {
        b.iter(|| {
            f(&leaves).backward_with(Some(&seed), Backward::default());
            leaves.iter().for_each(Tensor::zero_grad);
        })
    });
}

pub fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let (rows, width) = (512, 768);
    let x = randn(&[rows, width], 0);
    let affine = [x.clone(), randn(&[width], 1), randn(&[width], 2)];
    both(&mut group, "softmax 512x768", rows * width, std::slice::from_ref(&x), |x| x[0].softmax(-1));
    both(&mut group, "log_softmax 512x768", rows * width, &[x], |x| x[0].log_softmax(-1));
    both(&mut group, "layer_norm 512x768", rows * width, &affine, |x| {
        x[0].layer_norm([768], Some(&x[1]), Some(&x[2]), 1e-5)
    });
    for (rows, classes) in [(64, 10), (512, 8192)] {
        let target = Tensor::randint(0, classes as i64, [rows], Device::cpu(), 3);
        let name = format!("cross_entropy {rows}x{classes}");
        both(&mut group, &name, rows * classes, &[randn(&[rows, classes], 4), target], |x| x[0].cross_entropy(&x[1]));
    }
    group.finish();
}

pub fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let [batch, heads, tokens, width] = [4, 8, 128, 64];
    let x: Vec<Tensor> = (0..3).map(|i| randn(&[batch, heads, tokens, width], i)).collect();
    let flops = 4 * batch * heads * tokens * tokens * width;
    for (name, options) in
        [("4x8x128x64", AttentionOptions::default()), ("4x8x128x64, causal", AttentionOptions::causal())]
    {
        both(&mut group, name, flops, &x, |x| x[0].attention(&x[1], &x[2], &options));
    }
    group.finish();
}

/// The two convolutions of a small network for images of 28×28, and a pool.
pub fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    let options = ConvOptions::default();
    for (inputs, outputs, size) in [(1, 32, 28), (32, 64, 26)] {
        let x = [randn(&[64, inputs, size, size], 0), randn(&[outputs, inputs, 3, 3], 1), randn(&[outputs], 2)];
        let flops = 2 * 64 * outputs * inputs * 9 * (size - 2) * (size - 2);
        let name = format!("64x{inputs}x{size}x{size} to {outputs}, 3x3");
        both(&mut group, &name, flops, &x, |x| x[0].conv2d(&x[1], Some(&x[2]), &options));
    }
    let pool = gradus::functional::pooling::PoolOptions::new(2);
    both(&mut group, "max_pool 2, 64x64x24x24", 64 * 64 * 24 * 24, &[randn(&[64, 64, 24, 24], 0)], |x| {
        x[0].max_pool2d(&pool)
    });
    group.finish();
}
