//! What a step of training costs: the price of one small op, updates of many parameters, and whole steps of small networks,
//! eager and replayed. (`benches/peers` sets the same steps beside PyTorch's.)

use criterion::{Criterion, Throughput};
use gradus::capture::Captured;
use gradus::prelude::*;
use std::hint::black_box;

/// Ops on one element: all that is measured is what surrounds a kernel.
pub fn overhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("overhead");
    let (x, w) = (Tensor::ones([1], Device::cpu()), Tensor::ones([1], Device::cpu()).requires_grad());
    group.bench_function("add of 1 element", |b| b.iter(|| black_box(&x + &x)));
    group.bench_function("view of 1 element", |b| b.iter(|| black_box(x.unsqueeze(0))));
    group.bench_function("add of 1 element, recorded", |b| b.iter(|| black_box(&x + &w)));
    group.bench_function("3 nodes, forward and backward", |b| {
        b.iter(|| {
            w.zero_grad();
            (&w * &x).relu().sum().backward();
        })
    });
    group.finish();
}

/// One update of 100 parameters of 65,536 numbers. The bytes are those of parameter, gradient and state, read and written.
pub fn optimizers(c: &mut Criterion) {
    let mut group = c.benchmark_group("optimizers 100x65536");
    let numbers = 100 * 65_536;
    let rules: [(&str, OptimizerBuilder, u64); 3] = [
        ("sgd", Sgd::new(1e-3).into(), 3),
        ("sgd, momentum", Sgd::new(1e-3).momentum(0.9).into(), 5),
        ("adamw", AdamW::new(1e-3).into(), 7),
    ];
    for (name, rule, words) in rules {
        let mut model: Vec<Param> = (0..100).map(|i| Param::new(Tensor::randn([65_536], Device::cpu(), i))).collect();
        for (i, p) in model.iter().enumerate() {
            p.set_grad(Tensor::randn([65_536], Device::cpu(), 100 + i as u64))
                .expect("a gradient of the parameter's shape");
        }
        let mut optimizer = rule.build(&model).expect("an optimizer with its defaults");
        group.throughput(Throughput::Bytes(4 * words * numbers));
        group.bench_function(name, |b| b.iter(|| optimizer.step(&mut model).expect("a step")));
    }
    group.finish();
}

#[derive(Module)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Layer for Mlp {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        self.fc2.call(&x.linear_relu(&self.fc1.weight, self.fc1.bias.as_deref()), cx)
    }
}

struct Training {
    model: Mlp,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
}

impl Training {
    fn new(sizes: [usize; 4], rule: impl Into<OptimizerBuilder>) -> Training {
        let [batch, inputs, hidden, classes] = sizes;
        let init = &mut Init::new(Device::cpu(), 0);
        let model =
            Mlp { fc1: Linear::new(inputs, hidden, init), fc2: Linear::new(hidden, classes, init) }.with_paths();
        let optimizer = rule.into().build(&model).expect("an optimizer with its defaults");
        let x = Tensor::randn([batch, inputs], Device::cpu(), 1);
        let y = Tensor::randint(0, classes as i64, [batch], Device::cpu(), 2);
        Training { model, optimizer, x, y }
    }
}

/// Forward, backward and update on a batch; leaves no gradient behind, as a captured step must not.
fn step(model: &mut Mlp, optimizer: &mut Optimizer, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let loss = model.call(x, &Cx::train(0, 0)).cross_entropy(y);
    loss.backward();
    optimizer.step(model)?;
    model.zero_grad();
    Ok(loss)
}

pub fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("step");
    let cases: [(&str, Training); 2] = [
        ("MLP 64-32-10, batch 32, SGD", Training::new([32, 64, 32, 10], Sgd::new(0.1))),
        ("MLP 784-128-10, batch 64, AdamW", Training::new([64, 784, 128, 10], AdamW::new(1e-3))),
    ];
    for (name, mut t) in cases {
        // Products of a linear layer: forward, and backward to the weight and, but for the first layer's, to the input.
        let products = 2 * t.model.fc1.weight.elements() + 3 * t.model.fc2.weight.elements();
        group.throughput(Throughput::Elements((2 * t.x.dim(0) * products) as u64));
        group.bench_function(format!("{name}, eager"), |b| {
            b.iter(|| step(&mut t.model, &mut t.optimizer, &t.x, &t.y).expect("a step"))
        });
        for (how, mut captured) in [("guarded", Captured::new()), ("unchecked", Captured::unchecked())] {
            let mut replayed = || {
                t.optimizer.prepare().expect("the next learning rate");
                let run = |x: &[Tensor]| Ok(vec![step(&mut t.model, &mut t.optimizer, &x[0], &x[1])?]);
                captured.run(&[&t.x, &t.y], run).expect("a step that can be recorded")
            };
            (0..2).for_each(|_| drop(replayed())); // once eagerly, once to record: what is timed are replays
            group.bench_function(format!("{name}, replayed {how}"), |b| b.iter(&mut replayed));
            assert!(captured.is_recorded(), "{name}: the step was not recorded");
        }
    }
    group.finish();
}
