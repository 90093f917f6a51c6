//! Trainings on 1, 2 and 4 threads: the same weights, bit for bit, after 50 steps.

use gradus_core::rng::Key;
use gradus_core::{Device, Result, Tensor};
use gradus_cpu::with_threads;
use gradus_nn::*;
use gradus_optim::*;
use std::sync::{Mutex, PoisonError};

fn cpu() -> Device {
    gradus_cpu::device()
}

const STEPS: u64 = 50;

/// Convolutions, pooling, dropout and linear layers, as a network for digits has them.
fn cnn(init: &mut Init) -> Sequential {
    let net = Sequential::new().add(Conv2d::new(1, 8, 3, init)).add(Relu).add(Conv2d::new(8, 16, 3, init)).add(Relu);
    let net = net.add(MaxPool2d::new(2)).add(Dropout::new(0.25)).add(Flatten::default());
    let net = net.add(Linear::new(16 * 6 * 6, 48, init)).add(Relu).add(Dropout::new(0.5));
    net.add(Linear::new(48, 10, init))
}

/// Convolutions with batch normalization, and a shortcut.
#[derive(Module)]
struct Residual {
    first: Conv2d,
    first_norm: BatchNorm2d,
    second: Conv2d,
    second_norm: BatchNorm2d,
    out: Linear,
}

impl Layer for Residual {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = self.first_norm.call_relu(&self.first.call(x, cx), None, cx);
        let y = self.second_norm.call_relu(&self.second.call(&x, cx), Some(&x), cx);
        self.out.call(&y.mean_dims(&[2, 3], false), cx)
    }
}

fn residual(init: &mut Init) -> Residual {
    Residual {
        first: Conv2d::new(1, 16, 3, init),
        first_norm: BatchNorm2d::new(16, init),
        second: Conv2d::new(16, 16, 3, init).padding(1),
        second_norm: BatchNorm2d::new(16, init),
        out: Linear::new(16, 10, init),
    }
}

#[derive(Module)]
struct Words {
    table: Embedding,
    blocks: Option<TransformerEncoder>,
    lstm: Option<Lstm>,
    gru: Option<Gru>,
    out: Linear,
}

impl Layer for Words {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let mut x = self.table.call(x, cx);
        if let Some(blocks) = &self.blocks {
            x = blocks.run(&x, &AttentionMask::causal(), cx);
        }
        if let Some(rnn) = &self.lstm {
            x = rnn.call(&x, cx);
        }
        if let Some(rnn) = &self.gru {
            x = rnn.call(&x, cx);
        }
        self.out.call(&x, cx).flatten(0, 1)
    }
}

const KINDS: usize = 65;

fn gpt(init: &mut Init) -> Words {
    let options = TransformerOptions::new(32, 4).feed_forward(128).dropout(0.0).norm_first(true);
    let blocks = TransformerEncoder::new(options, 2, init).norm(LayerNorm::new([32], init));
    let (table, out) = (Embedding::new(KINDS, 32, init), Linear::new(32, KINDS, init));
    Words { table, blocks: Some(blocks), lstm: None, gru: None, out }
}

fn recurrent(init: &mut Init) -> Words {
    let lstm = Lstm::new(RecurrentOptions::new(24, 32).bidirectional(), init);
    let gru = Gru::new(RecurrentOptions::new(64, 48), init);
    let (table, out) = (Embedding::new(KINDS, 24, init), Linear::new(48, KINDS, init));
    Words { table, blocks: None, lstm: Some(lstm), gru: Some(gru), out }
}

type Draw = fn(step: u64) -> (Tensor, Tensor);

fn images(step: u64) -> (Tensor, Tensor) {
    let classes = Tensor::randint(0, 10, [16], cpu(), Key::new(1).fold_in(step));
    (Tensor::randn([16, 1, 16, 16], cpu(), Key::new(2).fold_in(step)), classes)
}

fn tokens(step: u64) -> (Tensor, Tensor) {
    let draw = |seed: u64| Tensor::randint(0, KINDS as i64, [12, 24], cpu(), Key::new(seed).fold_in(step));
    (draw(3), draw(4).flatten(0, 1))
}

/// The weights and averages of a model after its steps.
fn trained<M: Layer>(make: fn(&mut Init) -> M, draw: Draw) -> Result<Vec<(String, Vec<u8>)>> {
    let mut model = make(&mut Init::new(cpu(), 5)).with_paths();
    let mut optimizer = AdamW::new(1e-3).optimizer().transform(ClipNorm::new(1.0)).build(&model)?;
    for i in 0..STEPS {
        let (x, y) = draw(i);
        model.zero_grad();
        model.call(&x, &Cx::train(0, i as u32)).cross_entropy(&y).backward();
        optimizer.step(&mut model)?;
    }
    model.state_dict().into_iter().map(|(name, t)| Ok((name, t.to_bytes()?))).collect()
}

fn same_on_any_number_of_threads<M: Layer>(make: fn(&mut Init) -> M, draw: Draw) -> Result<()> {
    // One after another: beside another training a kernel would find the threads taken, and run on one.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let start = make(&mut Init::new(cpu(), 5)).with_paths().state_dict();
    let one = with_threads(1, || trained(make, draw))?;
    for (name, bytes) in &one {
        assert!(start[name].to_bytes()? != *bytes, "{name} was not trained");
    }
    for threads in [2, 4] {
        let others = with_threads(threads, || trained(make, draw))?;
        for ((name, want), (_, have)) in one.iter().zip(&others) {
            assert!(want == have, "{name} on {threads} threads differs from that on one");
        }
    }
    Ok(())
}

#[test]
fn a_convolutional_net_has_the_same_weights_on_1_2_and_4_threads() -> Result<()> {
    same_on_any_number_of_threads(cnn, images)
}

#[test]
fn a_residual_net_has_the_same_weights_on_1_2_and_4_threads() -> Result<()> {
    same_on_any_number_of_threads(residual, images)
}

#[test]
fn transformer_blocks_have_the_same_weights_on_1_2_and_4_threads() -> Result<()> {
    same_on_any_number_of_threads(gpt, tokens)
}

#[test]
fn recurrent_layers_have_the_same_weights_on_1_2_and_4_threads() -> Result<()> {
    same_on_any_number_of_threads(recurrent, tokens)
}
