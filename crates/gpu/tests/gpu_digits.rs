//! Training on a device as on the CPU: the network of the example `digits`, whose first losses agree, whose memory does not
//! grow, and which goes on after an allocation was refused.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::{Device, ErrorKind, Result, Tensor};
use gradus_data::{InMemory, Loader, Subset, digits, stratified_split};
use gradus_nn::{Conv2d, Cx, Dropout, Flatten, Init, Layer, Linear, MaxPool2d, Module, Relu};
use gradus_optim::{AdamW, Cosine, Optimizer, OptimizerBuilder};
use std::time::Instant;

/// The network of `examples/digits.rs`.
#[derive(Module)]
struct Reader {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    conv3: Conv2d,
    flatten: Flatten,
    drop: Dropout,
    fc: Linear,
}

impl Layer for Reader {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = Relu.call(&self.conv1.call(x, cx), cx); // [batch, 16, 8, 8]
        let x = self.pool.call(&Relu.call(&self.conv2.call(&x, cx), cx), cx); // [batch, 32, 4, 4]
        let x = self.pool.call(&Relu.call(&self.conv3.call(&x, cx), cx), cx); // [batch, 64, 2, 2]
        self.fc.call(&self.drop.call(&self.flatten.call(&x, cx), cx), cx) // [batch, 10]
    }
}

/// A run on a device, step by step, through as many epochs as are asked for.
struct Run {
    model: Reader,
    optimizer: Optimizer,
    train: Loader<Subset<InMemory>>,
    step: usize,
}

impl Run {
    fn new(device: Device, seed: u64) -> Result<Run> {
        let source = digits()?;
        let parts = stratified_split(&source.labels()?, &[0.7, 0.1, 0.2], seed)?;
        let train = Loader::new(Subset::new(source, parts[0].clone())?, device).batch_size(32).shuffle(seed);
        let init = &mut Init::new(device, seed);
        let model = Reader {
            conv1: Conv2d::new(1, 16, 3, init).same(),
            conv2: Conv2d::new(16, 32, 3, init).same(),
            pool: MaxPool2d::new(2),
            conv3: Conv2d::new(32, 64, 3, init).same(),
            flatten: Flatten::default(),
            drop: Dropout::new(0.3),
            fc: Linear::new(64 * 2 * 2, 10, init),
        }
        .with_paths();
        let rule: OptimizerBuilder = AdamW::new(0.003).weight_decay(0.01).into();
        let optimizer = rule.schedule(Cosine::warmup(60, 1200)).build(&model)?;
        Ok(Run { model, optimizer, train, step: 0 })
    }

    /// Trains for `count` steps; gives the losses, which are read back at the end.
    fn steps(&mut self, count: usize) -> Result<Vec<f32>> {
        let batches = self.train.batches();
        let mut losses = Vec::new();
        while losses.len() < count {
            for batch in self.train.epoch_from(self.step / batches, self.step % batches)?.take(count - losses.len()) {
                let batch = batch?;
                self.model.zero_grad();
                let logits = self.model.call(&batch.input, &Cx::train(7, self.step as u32));
                let loss = logits.try_cross_entropy(&batch.target)?;
                loss.try_backward()?;
                self.optimizer.step(&mut self.model)?;
                losses.push(loss.detach());
                self.step += 1;
            }
        }
        losses.iter().map(Tensor::item).collect()
    }
}

#[test]
fn the_first_twenty_losses_are_the_cpu_s_and_the_same_each_time() {
    let _turn = turn();
    for device in devices() {
        let start = Instant::now();
        let first = Run::new(device, 0).and_then(|mut run| run.steps(20)).expect("it trains");
        let cold = start.elapsed();
        let start = Instant::now();
        let again = Run::new(device, 0).and_then(|mut run| run.steps(20)).expect("it trains");
        println!("20 steps on {device}: {cold:.1?} with compilation, {:.1?} without", start.elapsed());
        assert!(first.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{first:?}\nthen\n{again:?}");

        let cpu = Run::new(gradus_cpu::device(), 0).and_then(|mut run| run.steps(20)).expect("it trains");
        assert_eq!((first.len(), cpu.len()), (20, 20));
        let apart = first.iter().zip(&cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("the losses on {device} and on the CPU (seed 0) differ by {apart:.2e} at most");
        assert!(apart <= 1e-3, "{first:?} on {device}\n{cpu:?} on the CPU");
        assert!(cpu[19] < cpu[0], "the run must learn to say anything: {cpu:?}");
    }
}

#[test]
fn memory_does_not_grow_over_500_steps_and_a_refusal_ends_nothing() {
    let _turn = turn();
    for device in devices() {
        let mut run = Run::new(device, 1).expect("it is set up");
        let mut report = |steps: usize| {
            run.steps(steps).expect("it trains");
            let memory = device.backend().memory();
            let [in_use, peak, reserved] = [memory.in_use, memory.peak, memory.reserved].map(|b| b >> 10);
            println!("{device} after {} steps: {in_use} KiB in use, {peak} peak, {reserved} reserved", run.step);
            memory
        };
        report(20);
        let early = report(30);
        let late = report(450);
        assert!(late.in_use <= early.in_use && late.peak <= early.peak + (1 << 20), "{early:?} then {late:?}");
        // The runtime's pools may round up once more, and no further.
        assert!(late.reserved <= early.reserved + (16 << 20), "{early:?} then {late:?}");

        let elements = 1usize << 48;
        let error = Tensor::try_zeros([elements], device).expect_err("a petabyte does not fit");
        assert_eq!(error.kind(), ErrorKind::Memory, "{error}");
        assert!(error.to_string().contains(&(4 * elements).to_string()), "{error}");
        let next = run.steps(1).expect("the device works on");
        assert!(next[0].is_finite());
    }
}
