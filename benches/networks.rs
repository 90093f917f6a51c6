//! Functions that networks are made of: each forward alone, and forward and backward. Attention and convolution count
//! floating-point operations, whose backward has twice as many; the others the bytes that each pass must read and write.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use gradus::functional::attention::AttentionOptions;
use gradus::functional::convolution::ConvOptions;
use gradus::prelude::*;
use std::hint::black_box;

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, Device::cpu(), seed)
}

/// Of the forward pass, and of both passes together.
pub type Work = (Throughput, Throughput);

/// Products: the backward pass has one for each of the two factors.
pub fn flops(forward: usize) -> Work {
    (Throughput::Elements(forward as u64), Throughput::Elements(3 * forward as u64))
}

/// So many bytes an element.
pub fn bytes(elements: usize, forward: usize, both: usize) -> Work {
    (Throughput::Bytes((elements * forward) as u64), Throughput::Bytes((elements * both) as u64))
}

/// Benches f(x), and f(x) with the gradients of the floating-point inputs.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    work: Work,
    x: &[Tensor],
    f: impl Fn(&[Tensor]) -> Tensor,
) {
    group.throughput(work.0);
    group.bench_function(format!("{name}, forward"), |b| b.iter(|| black_box(f(x))));
    let leaves: Vec<Tensor> =
        x.iter().map(|t| if t.dtype().is_float() { t.requires_grad() } else { t.clone() }).collect();
    let seed = f(x).ones_like();
    group.throughput(work.1);
    group.bench_function(format!("{name}, forward and backward"), |b| {
        b.iter(|| {
            f(&leaves).backward_with(Some(&seed), Backward::default());
            leaves.iter().for_each(Tensor::zero_grad);
        })
    });
}

/// Forward: read x, write y. Backward: read x (or y) and y's gradient, write x's.
pub fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let (rows, width) = (512, 768);
    let work = || bytes(rows * width, 8, 20);
    let x = randn(&[rows, width], 0);
    let affine = [x.clone(), randn(&[width], 1), randn(&[width], 2)];
    both(&mut group, "softmax 512x768", work(), std::slice::from_ref(&x), |x| x[0].softmax(-1));
    both(&mut group, "log_softmax 512x768", work(), &[x], |x| x[0].log_softmax(-1));
    both(&mut group, "layer_norm 512x768", work(), &affine, |x| x[0].layer_norm([768], Some(&x[1]), Some(&x[2]), 1e-5));
    both(&mut group, "rms_norm 512x768", work(), &affine[..2], |x| x[0].rms_norm([768], Some(&x[1]), None));
    // Two are read and two written, which then are added (8 and 4 bytes; nothing backward); backward, the gradient twice, and the sum.
    let with = [affine[0].clone(), affine[1].clone(), affine[2].clone(), randn(&[rows, width], 5)];
    both(&mut group, "add_layer_norm 512x768", bytes(rows * width, 28, 44), &with, |x| {
        let (y, sum) = x[0].add_layer_norm(&x[3], [768], Some(&x[1]), Some(&x[2]), 1e-5);
        y + sum
    });
    both(&mut group, "add_rms_norm 512x768", bytes(rows * width, 28, 44), &with, |x| {
        let (y, sum) = x[0].add_rms_norm(&x[3], [768], Some(&x[1]), None);
        y + sum
    });
    for (rows, classes) in [(64, 10), (512, 8192)] {
        let target = Tensor::randint(0, classes as i64, [rows], Device::cpu(), 3);
        let name = format!("cross_entropy {rows}x{classes}");
        let work = bytes(rows * classes, 4, 12); // its result is one number
        both(&mut group, &name, work, &[randn(&[rows, classes], 4), target], |x| x[0].cross_entropy(&x[1]));
    }
    group.finish();
}

pub fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let [batch, heads, tokens, width] = [4, 8, 128, 64];
    let x: Vec<Tensor> = (0..3).map(|i| randn(&[batch, heads, tokens, width], i)).collect();
    let all = 4 * batch * heads * tokens * tokens * width;
    both(&mut group, "4x8x128x64", flops(all), &x, |x| x[0].attention(&x[1], &x[2], &AttentionOptions::default()));
    both(&mut group, "4x8x128x64, causal", flops(all / 2), &x, |x| {
        x[0].attention(&x[1], &x[2], &AttentionOptions::causal())
    });
    group.finish();
}

/// The two convolutions of a small network for images of 28×28; those of a residual network: with a stride, 1×1, and depthwise.
pub fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    for (batch, inputs, outputs, size, window, stride, groups) in [
        (64, 1, 32, 28, 3, 1, 1),
        (64, 32, 64, 26, 3, 1, 1),
        (128, 16, 16, 32, 3, 1, 1),
        (128, 32, 64, 16, 3, 2, 1),
        (128, 32, 64, 16, 1, 1, 1),
        (32, 64, 64, 28, 3, 1, 64),
    ] {
        let options = ConvOptions::default().padding(window / 2).stride(stride).groups(groups);
        let inner = inputs / groups;
        let weight = randn(&[outputs, inner, window, window], 1);
        let x = [randn(&[batch, inputs, size, size], 0), weight, randn(&[outputs], 2)];
        let out = size.div_ceil(stride);
        let work = flops(2 * batch * outputs * inner * window * window * out * out);
        let name = format!("{batch}x{inputs}x{size}x{size} to {outputs}, {window}x{window}/{stride}, groups {groups}");
        both(&mut group, &name, work, &x, |x| x[0].conv2d(&x[1], Some(&x[2]), &options));
    }
    group.finish();
}

pub fn images(c: &mut Criterion) {
    let mut group = c.benchmark_group("images");
    let x = [randn(&[64, 64, 24, 24], 0), randn(&[64], 1), randn(&[64], 2)];
    let numbers = 64 * 64 * 24 * 24;
    // Forward: read x, write a quarter. Backward: read a quarter, write x's gradient.
    let pool = gradus::functional::pooling::PoolOptions::new(2);
    both(&mut group, "max_pool 2, 64x64x24x24", bytes(numbers, 5, 10), &x[..1], |x| x[0].max_pool2d(&pool));
    // Statistics need a pass of their own, forward (x) and backward (x and y's gradient).
    both(&mut group, "batch_norm 64x64x24x24", bytes(numbers, 12, 32), &x, |x| {
        x[0].batch_norm_train(Some(&x[1]), Some(&x[2]), 1e-5).0
    });
    // A group stays in a cache, as a row does.
    both(&mut group, "group_norm 8, 64x64x24x24", bytes(numbers, 8, 20), &x, |x| {
        x[0].group_norm(8, Some(&x[1]), Some(&x[2]), 1e-5)
    });
    let with = [x[0].clone(), x[1].clone(), x[2].clone(), randn(&[64, 64, 24, 24], 3)];
    both(&mut group, "group_norm_relu 8 and a residual, 64x64x24x24", bytes(numbers, 12, 36), &with, |x| {
        x[0].group_norm_relu(8, &x[1], &x[2], Some(&x[3]), 1e-5)
    });
    group.finish();
}

/// 4,096 rows of a table: read and written forward; backward reads their gradients, and writes that of the whole table.
pub fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("embedding");
    let (tokens, width, rows) = (8192, 256, 4096);
    let x = [randn(&[tokens, width], 0), Tensor::randint(0, tokens as i64, [rows], Device::cpu(), 1)];
    let read = 4 * rows * width;
    let work = (Throughput::Bytes(2 * read as u64), Throughput::Bytes((3 * read + 4 * tokens * width) as u64));
    both(&mut group, "4096 of 8192x256", work, &x, |x| x[0].embedding(&x[1]));
    group.finish();
}
