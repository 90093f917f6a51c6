//! A GPT trains on a device as on the CPU: the same losses for 200 steps, text that it writes, memory that does not grow. What a
//! step consists of is printed.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;

use adapter::{devices, turn};
use gradus_core::{DType, Device, ErrorKind, Precision, Result, Tensor, no_grad, with_precision};
use gradus_data::{Characters, Loader, TokenWindows, king_james};
use gradus_gpu::profile::profile;
use gradus_nn::loss::CrossEntropy;
use gradus_nn::{Cx, Embedding, GeluTanh, Init, Layer, LayerNorm, Linear, Module, MultiheadAttention};
use gradus_optim::{AdamW, ClipNorm, Optimizer, OptimizerBuilder};
use std::time::Instant;

/// Attention, then two linear layers, each beside a shortcut: a block of `examples/gpt.rs`.
#[derive(Module)]
struct Block {
    ln_1: LayerNorm,
    attn: MultiheadAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = x + self.attn.call(&self.ln_1.call(x, cx), cx);
        let hidden = GeluTanh.call(&self.c_fc.call(&self.ln_2.call(&x, cx), cx), cx);
        &x + self.c_proj.call(&hidden, cx)
    }
}

/// The model of `examples/gpt.rs`.
#[derive(Module)]
struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Layer for Gpt {
    fn forward(&self, tokens: &Tensor, cx: &Cx) -> Tensor {
        let places = Tensor::arange(0i64, tokens.dim(1) as i64, 1i64, tokens.place());
        let mut x = self.wte.call(tokens, cx) + self.wpe.call(&places, cx);
        for block in &self.h {
            x = block.call(&x, cx);
        }
        self.ln_f.call(&x, cx)
    }
}

/// Layers, heads, width, context, windows in a batch.
struct Size(usize, usize, usize, usize, usize);

/// The tiny size of `examples/gpt.rs`.
const TINY: Size = Size(2, 2, 64, 32, 12);

/// The least of everything.
const LEAST: Size = Size(1, 2, 16, 8, 2);

/// A run on a device.
struct Run {
    model: Gpt,
    optimizer: Optimizer,
    train: Loader<TokenWindows>,
    characters: Characters,
    context: usize,
    step: usize,
}

impl Run {
    fn new(device: Device, Size(layers, heads, width, context, batch): Size) -> Result<Run> {
        let text: String = king_james()?.chars().take(60_000).collect();
        let characters = Characters::of(&text);
        let windows = TokenWindows::new(characters.encode(&text)?, context)?.random(600 * batch);
        let init = &mut Init::new(device, 0);
        let block = |init: &mut Init| Block {
            ln_1: LayerNorm::new(width, init),
            attn: MultiheadAttention::new(width, heads, init).causal(),
            ln_2: LayerNorm::new(width, init),
            c_fc: Linear::new(width, 4 * width, init),
            c_proj: Linear::new(4 * width, width, init),
        };
        let model = Gpt {
            wte: Embedding::new(characters.len(), width, init),
            wpe: Embedding::new(context, width, init),
            h: (0..layers).map(|_| block(init)).collect(),
            ln_f: LayerNorm::new(width, init),
        }
        .with_paths();
        let rule: OptimizerBuilder = AdamW::new(1e-3).weight_decay(0.1).into();
        let optimizer = rule.transform(ClipNorm::new(1.0)).build(&model)?;
        Ok(Run {
            model,
            optimizer,
            train: Loader::new(windows, device).batch_size(batch).shuffle(0),
            characters,
            context,
            step: 0,
        })
    }

    /// Trains for `count` steps; gives the losses, which are read back at the end.
    fn steps(&mut self, count: usize) -> Result<Vec<f32>> {
        let batches = self.train.batches();
        let mut losses = Vec::new();
        while losses.len() < count {
            for batch in self.train.epoch_from(self.step / batches, self.step % batches)?.take(count - losses.len()) {
                let batch = batch?;
                self.model.zero_grad();
                let hidden = self.model.call(&batch.input, &Cx::train(7, self.step as u32));
                let head = &self.model.wte.weight;
                let loss = CrossEntropy::new().try_of_linear(&hidden, head, None, &batch.target, None)?;
                loss.try_backward()?;
                self.optimizer.step(&mut self.model)?;
                losses.push(loss.detach());
                self.step += 1;
            }
        }
        losses.iter().map(Tensor::item).collect()
    }

    /// What the model writes after the first character: each time the likeliest.
    fn written(&self, count: usize, device: Device) -> Result<String> {
        let mut tokens = vec![0i64];
        for _ in 0..count {
            let seen = &tokens[tokens.len().saturating_sub(self.context)..];
            let seen = Tensor::try_from_vec(seen.to_vec(), [1, seen.len()], device)?;
            let last =
                no_grad(|| self.model.call(&seen, &Cx::eval()).select(1, -1).linear(&self.model.wte.weight, None));
            tokens.push(last.try_argmax(-1, false)?.to_vec::<i64>()?[0]);
        }
        self.characters.decode(&tokens[1..].iter().map(|&t| t as u32).collect::<Vec<_>>())
    }
}

#[test]
fn two_hundred_losses_are_the_cpu_s_and_it_writes() {
    let _turn = turn();
    for device in devices() {
        let cpu = Run::new(gradus_cpu::device(), TINY).and_then(|mut run| run.steps(200)).expect("it trains");
        let mut run = Run::new(device, TINY).expect("it is set up");
        let start = Instant::now();
        let mut losses = run.steps(2).expect("it trains");
        let cold = start.elapsed();
        let start = Instant::now();
        losses.extend(run.steps(198).expect("it trains"));
        println!("a GPT on {device}: 2 steps in {cold:.1?} with compilation, 198 in {:.1?}", start.elapsed());
        for at in (9..200).step_by(10) {
            let apart = (losses[at] - cpu[at]).abs();
            assert!(apart <= 1e-2, "step {}: {} on {device}, {} on the CPU", at + 1, losses[at], cpu[at]);
        }
        println!("after 200 steps {:.4} there and {:.4} on the CPU", losses[199], cpu[199]);
        assert!(cpu[199] < 0.75 * cpu[0], "the run must learn to say anything: {} then {}", cpu[0], cpu[199]);
        let text = run.written(40, device).expect("it writes");
        println!("it writes: {text:?}");
        assert_eq!(text.chars().count(), 40);
        let (_, step) = profile(|| run.steps(1).expect("it trains"));
        println!("one step: {step}");
    }
}

#[test]
fn memory_does_not_grow_over_500_steps() {
    let _turn = turn();
    for device in devices() {
        let mut run = Run::new(device, LEAST).expect("it is set up");
        let mut report = |steps: usize| {
            let losses = run.steps(steps).expect("it trains");
            assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
            drop(losses);
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
    }
}

#[test]
fn a_half_precision_that_the_device_lacks_is_refused_by_name() {
    let _turn = turn();
    for device in devices() {
        for (precision, dtype) in [(Precision::F16, DType::F16), (Precision::Bf16, DType::Bf16)] {
            let x = Tensor::try_randn([5, 7], device, 0).expect("it draws");
            let w = Tensor::try_randn([3, 7], device, 1).expect("it draws");
            let product = with_precision(precision, || x.try_linear(&w, None));
            match product {
                Ok(y) => assert!(device.backend().supports(dtype) && y.dtype() == dtype, "{device} gave {}", y.dtype()),
                Err(error) => {
                    let text = error.to_string();
                    println!("{text}");
                    assert!(!device.backend().supports(dtype) && error.kind() == ErrorKind::Unsupported, "{text}");
                    let name = dtype.to_string();
                    assert!(text.contains(&name) && text.contains(device.name()) && text.contains("use "), "{text}");
                }
            }
        }
    }
}
