//! The kernels of `kernels/`, file by file, on the GPUs that were built in: `cargo bench -p gradus-benches --features wgpu -- gpu`.
//!
//! `GRADUS_BENCH_DEVICE` names another device than the first of its runtime. Work on a device is only queued when a call
//! returns, so each sample waits for the device before its time is taken. Work is counted as in `networks.rs`: the bytes that a pass
//! must read and write, or the floating-point operations of products.

use crate::limits::Limits;
use crate::networks::{Work, bytes, flops};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use gradus::functional::attention::AttentionOptions;
use gradus::functional::batch_norm::ChannelAffine;
use gradus::functional::convolution::ConvOptions;
use gradus::functional::gru::GruStep;
use gradus::functional::lstm::LstmStep;
use gradus::functional::newton_schulz::NewtonSchulzSum;
use gradus::functional::pooling::PoolOptions;
use gradus::functional::running_average::RunningAverage;
use gradus::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// The devices to measure; what is missing is said.
fn devices() -> Vec<Device> {
    let asked = std::env::var("GRADUS_BENCH_DEVICE").ok();
    let mut names: Vec<&str> = Vec::new();
    match &asked {
        Some(name) => names.push(name),
        None => {
            names.extend(cfg!(feature = "cuda").then_some("cuda:0"));
            names.extend(cfg!(feature = "wgpu").then_some("wgpu:0"));
        }
    }
    let open = |name: &str| Device::parse(name).inspect_err(|e| eprintln!("not measured: {e}")).ok();
    names.into_iter().filter_map(open).collect()
}

/// A group of benches on a device.
struct Bench<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    device: Device,
}

impl Bench<'_> {
    fn randn(&self, shape: &[usize], seed: u64) -> Tensor {
        Tensor::randn(shape, self.device, seed)
    }

    /// Benches `f`; a sample's last act is to wait for the device.
    fn call<T>(&mut self, name: &str, throughput: Throughput, mut f: impl FnMut() -> T) {
        let device = self.device;
        self.group.throughput(throughput);
        self.group.bench_function(name, |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                for _ in 0..times {
                    black_box(f());
                }
                device.synchronize().expect("the device works");
                start.elapsed()
            })
        });
    }

    /// Benches f(x), and f(x) with the gradients of the floating-point inputs.
    fn both(&mut self, name: &str, work: Work, x: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
        self.call(&format!("{name}, forward"), work.0, || f(x));
        let track = |t: &Tensor| if t.dtype().is_float() { t.requires_grad() } else { t.clone() };
        let leaves: Vec<Tensor> = x.iter().map(track).collect();
        let seed = f(x).ones_like();
        self.call(&format!("{name}, forward and backward"), work.1, || {
            f(&leaves).backward_with(Some(&seed), Backward::default());
            leaves.iter().for_each(Tensor::zero_grad);
        });
    }
}

/// What the benched devices can do, by the names of their groups.
pub fn limits() -> Vec<(String, Limits)> {
    devices().into_iter().map(|device| (format!("gpu {device}/"), measured(device))).collect()
}

/// Multiply-adds in registers, and passes over memory that read and write as many bytes: what the best of five took.
fn measured(device: Device) -> Limits {
    let best = move |times: usize, f: &dyn Fn() -> Tensor| {
        let once = || {
            let start = Instant::now();
            (0..times).for_each(|_| drop(black_box(f())));
            device.synchronize().expect("the device works");
            start.elapsed().as_secs_f64() / times as f64
        };
        once(); // compiles the kernel
        (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
    };
    // Eight sums that do not wait for each other, as many rounds as a kernel's 256 links have room for, and memory that fits a cache.
    let (n, rounds, sums) = (1usize << 22, 15, 8);
    let x = Tensor::randn([n], device, 0);
    let compute = || {
        Tensor::chain([&x], |[x]| {
            let mut all: Vec<_> = (0..sums).map(|i| x + i as f64).collect();
            for _ in 0..rounds {
                all.iter_mut().for_each(|sum| *sum = *sum * 0.999 + 0.001);
            }
            all.into_iter().reduce(|a, b| a + b).expect("there are sums")
        })
    };
    let flops = (n * rounds * sums * 2) as f64 / best(4, &compute);
    let copy = move |bytes: f64| {
        let x = Tensor::randn([(bytes as usize / 8).max(1)], device, 1);
        bytes / best(((1 << 24) / bytes as usize).clamp(1, 100), &|| x.neg())
    };
    Limits { flops, copy: Box::new(copy) }
}

/// Every family, on every device.
pub fn kernels(c: &mut Criterion) {
    for device in devices() {
        let mut group = c.benchmark_group(format!("gpu {device}"));
        group.sample_size(10);
        let mut bench = Bench { group, device };
        elementwise(&mut bench);
        along_rows(&mut bench);
        products(&mut bench);
        sequences(&mut bench);
        images(&mut bench);
        by_index(&mut bench);
        updates(&mut bench);
        bench.group.finish();
    }
}

/// `unary`, `unary_grad`, `binary`, `compare`, `copy`, `random`, `dropout`, `chain`, `newton_schulz`, `swiglu`.
fn elementwise(b: &mut Bench<'_>) {
    let n = 1 << 20;
    let (x, y) = (b.randn(&[n], 0), b.randn(&[n], 1));
    let once = |per: usize| bytes(n, per, per).0;
    b.both("gelu 1M", bytes(n, 8, 20), std::slice::from_ref(&x), |x| x[0].gelu());
    b.call("add 1M", once(12), || &x + &y);
    b.call("less than 1M", once(9), || x.lt(&y));
    let square = b.randn(&[1024, 1024], 2);
    b.call("copy of a transposed 1024x1024", once(8), || square.t().contiguous());
    let device = b.device;
    b.call("normal numbers 1M", once(4), || Tensor::randn([n], device, 3));
    b.call("dropout 1M", once(8), || x.dropout(0.3, 4));
    b.call("dropout and a residual 1M", once(12), || x.dropout_add(&y, 0.3, 4));
    // Backward, the inputs and the gradient are read, and two gradients written.
    b.both("tanh(x·2 + y)·y in a chain 1M", bytes(n, 12, 32), &[x.clone(), y.clone()], |x| {
        Tensor::chain([&x[0], &x[1]], |[x, y]| (x * 2.0 + y).tanh() * y)
    });
    let sum = NewtonSchulzSum { own: 3.4445, other: -4.775, halves: false };
    b.call("newton_schulz 1M", once(12), || Tensor::compose(sum, &[&x, &y]));
    b.both("swiglu 1M", bytes(n, 12, 32), &[x, y], |x| x[0].swiglu(&x[1]));
}

/// `reduce`, `scan`, `sort`, `softmax`, `layer_norm`, `rms_norm` (also of a sum, with one launch more that adds the two results),
/// `cross_entropy`, `several`.
fn along_rows(b: &mut Bench<'_>) {
    let n = 1 << 18;
    let once = |per: usize| bytes(n, per, per).0;
    let x = b.randn(&[512, 512], 0);
    b.call("sum of 512x512", once(4), || x.sum());
    b.call("sum of rows of 512x512", once(4), || x.sum_dims(&[1], false));
    b.call("argmax of rows of 512x512", once(4), || x.argmax(1, false));
    b.call("cumsum of 512x512", once(8), || x.cumsum(1));
    b.call("argsort of 512x512", once(8), || x.argsort(1, false));
    b.both("softmax 512x512", bytes(n, 8, 20), std::slice::from_ref(&x), |x| x[0].softmax(-1));
    let affine = [x.clone(), b.randn(&[512], 1), b.randn(&[512], 2)];
    b.both("layer_norm 512x512", bytes(n, 8, 20), &affine, |x| x[0].layer_norm([512], Some(&x[1]), Some(&x[2]), 1e-5));
    b.both("rms_norm 512x512", bytes(n, 8, 20), &affine[..2], |x| x[0].rms_norm([512], Some(&x[1]), Some(1e-5)));
    let with = [affine[0].clone(), affine[1].clone(), affine[2].clone(), b.randn(&[512, 512], 3)];
    b.both("add_layer_norm 512x512", bytes(n, 28, 44), &with, |x| {
        let (y, sum) = x[0].add_layer_norm(&x[3], [512], Some(&x[1]), Some(&x[2]), 1e-5);
        y + sum
    });
    b.both("add_rms_norm 512x512", bytes(n, 28, 44), &[with[0].clone(), with[1].clone(), with[3].clone()], |x| {
        let (y, sum) = x[0].add_rms_norm(&x[2], [512], Some(&x[1]), Some(1e-5));
        y + sum
    });
    b.call("global_norm of two of 512x512", once(8), || Tensor::try_global_norm(&[&x, &x]).expect("a norm"));
    b.call("all_finite of two of 512x512", once(8), || Tensor::try_all_finite(&[&x, &x]).expect("an answer"));
    let target = Tensor::randint(0, 512, [512], b.device, 3);
    b.both("cross_entropy 512x512", bytes(n, 4, 12), &[x, target], |x| x[0].cross_entropy(&x[1]));
    let x = [b.randn(&[16, 50_257], 4), Tensor::randint(0, 50_257, [16], b.device, 5)];
    b.both("cross_entropy 16x50257", bytes(16 * 50_257, 4, 12), &x, |x| x[0].cross_entropy(&x[1]));
}

/// `matmul`, ours and Burn's.
fn products(b: &mut Bench<'_>) {
    for n in [64usize, 256, 512, 2048] {
        let (x, y) = (b.randn(&[n, n], 0), b.randn(&[n, n], 1));
        b.call(&format!("matmul {n}x{n}x{n}"), flops(2 * n * n * n).0, || x.matmul(&y));
    }
}

/// `attention`, `rotary`, `lstm`, `gru`. Attention's operations are counted before causal skipping.
fn sequences(b: &mut Bench<'_>) {
    for [heads, length, width] in [[24usize, 32, 32], [8, 256, 64]] {
        let x: Vec<Tensor> = (0..3).map(|i| b.randn(&[1, heads, length, width], i)).collect();
        let work = || flops(4 * heads * length * length * width);
        let name = format!("causal attention {heads}x{length}x{width}");
        let attend = |x: &[Tensor]| x[0].attention(&x[1], &x[2], &AttentionOptions::causal());
        b.both(&name, work(), &x, attend);
        // By tensor cores where the device has them.
        let device = b.device;
        for half in [DType::F16, DType::Bf16].into_iter().filter(|d| device.backend().supports(*d)) {
            let x: Vec<Tensor> = x.iter().map(|x| x.to_dtype(half)).collect();
            b.both(&format!("{name} {half}"), work(), &x, attend);
        }
    }
    // Gates, two products' sums and the cell are read, the cell and the output written; backward, the gates' gradients, too.
    let n = 32 * 128;
    let x = [b.randn(&[32, 512], 0), b.randn(&[32, 512], 1), b.randn(&[32, 128], 2)];
    let step = |x: &[Tensor]| Tensor::compose(LstmStep, &[&x[0], &x[1], &x[2]]).swap_remove(0);
    b.both("lstm_step 32x128", bytes(n, 44, 108), &x, step);
    let x = [b.randn(&[32, 384], 0), b.randn(&[32, 384], 1), b.randn(&[32, 128], 2)];
    let step = |x: &[Tensor]| Tensor::compose(GruStep, &[&x[0], &x[1], &x[2]]).swap_remove(0);
    b.both("gru_step 32x128", bytes(n, 32, 92), &x, step);
    let (x, angles) = (b.randn(&[8, 256, 64], 0), b.randn(&[256, 32], 1));
    let (cos, sin) = (angles.cos(), angles.sin());
    b.both("rotary 8x256x64", bytes(8 * 256 * 64, 8, 16), &[x], |x| x[0].rotary(&cos, &sin, false));
}

/// `conv`, `pool`, `batch_norm`, `group_norm`, `channel_affine`, `running_average`.
fn images(b: &mut Bench<'_>) {
    let x = [b.randn(&[32, 16, 8, 8], 0), b.randn(&[32, 16, 3, 3], 1), b.randn(&[32], 2)];
    let options = ConvOptions::default().padding(1);
    let work = flops(2 * 32 * 32 * 64 * 16 * 9);
    b.both("conv2d 32x16x8x8 to 32, 3x3", work, &x, |x| x[0].conv2d(&x[1], Some(&x[2]), &options));
    let x = b.randn(&[32, 32, 16, 16], 3);
    let n = 32 * 32 * 256;
    let pool = PoolOptions::new(2);
    b.both("max_pool2d 2, 32x32x16x16", bytes(n, 5, 10), std::slice::from_ref(&x), |x| x[0].max_pool2d(&pool));
    b.both("avg_pool2d 2, 32x32x16x16", bytes(n, 5, 10), std::slice::from_ref(&x), |x| x[0].avg_pool2d(&pool));
    let affine = [x, b.randn(&[32], 4), b.randn(&[32], 5)];
    // Statistics over the batch need a pass of their own, forward and backward.
    b.both("batch_norm 32x32x16x16", bytes(n, 12, 32), &affine, |x| {
        x[0].batch_norm_train(Some(&x[1]), Some(&x[2]), 1e-5).0
    });
    b.both("batch_norm_relu 32x32x16x16", bytes(n, 12, 32), &affine, |x| {
        x[0].batch_norm_relu_train(&x[1], &x[2], None, 1e-5).0
    });
    b.both("group_norm 8, 32x32x16x16", bytes(n, 8, 20), &affine, |x| {
        x[0].group_norm(8, Some(&x[1]), Some(&x[2]), 1e-5)
    });
    let with = [affine[0].clone(), affine[1].clone(), affine[2].clone(), b.randn(&[32, 32, 16, 16], 8)];
    b.both("group_norm_relu 8 and a residual, 32x32x16x16", bytes(n, 12, 36), &with, |x| {
        x[0].group_norm_relu(8, &x[1], &x[2], Some(&x[3]), 1e-5)
    });
    let flat = [affine[0].reshape([32, 32, 256]), affine[1].clone(), affine[2].clone()];
    b.both("channel_affine 32x32x16x16", bytes(n, 8, 20), &flat, |x| {
        Tensor::compose(ChannelAffine, &[&x[0], &x[1], &x[2]]).swap_remove(0)
    });
    let (average, new) = (b.randn(&[512], 6), b.randn(&[512], 7));
    b.call("running_average 512", bytes(512, 12, 12).0, || {
        Tensor::compose(RunningAverage { momentum: 0.1 }, &[&average, &new])
    });
}

/// `gather`: an embedding, whose backward is the ordered scatter.
fn by_index(b: &mut Bench<'_>) {
    let table = b.randn(&[1000, 64], 0);
    let tokens = Tensor::randint(0, 1000, [2048], b.device, 1);
    let n = 2048 * 64;
    b.both("embedding of 2048 in 1000x64", bytes(n, 8, 14), &[table, tokens], |x| x[0].embedding(&x[1]));
}

/// `update`: a step of AdamW over ten parameters of 65,536 numbers.
fn updates(b: &mut Bench<'_>) {
    let mut model: Vec<Param> = (0..10).map(|i| Param::new(b.randn(&[65_536], i))).collect();
    for (i, p) in model.iter().enumerate() {
        p.set_grad(b.randn(&[65_536], 100 + i as u64)).expect("a gradient of the parameter's shape");
    }
    let rule: OptimizerBuilder = AdamW::new(1e-3).into();
    let mut optimizer = rule.build(&model).expect("an optimizer with its defaults");
    b.call("adamw 10x65536", bytes(655_360, 28, 28).0, || optimizer.step(&mut model).expect("a step"));
}
