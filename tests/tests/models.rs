//! Models built from Gradus layers against the same models in PyTorch, on the same weights and inputs: logits, and ten losses of
//! AdamW. The numbers are PyTorch's (`models/generate.py`).
//!
//! GPT-2 at its full size, which needs a file of 0.5 GB:
//! `python tests/tests/models/generate.py gpt2-124m DIR`, then
//! `GRADUS_MODELS=DIR cargo test -p gradus-tests --test models -- --ignored --nocapture`.

use gradus_core::{Device, Tensor};
use gradus_nn::loss::{CrossEntropy, Loss};
use gradus_nn::*;
use gradus_optim::{AdamW, Rule};
use std::collections::BTreeMap;
use std::path::Path;

/// A model's file.
struct Recorded(BTreeMap<String, Tensor>);

fn device() -> Device {
    gradus_cpu::device()
}

impl Recorded {
    fn open(name: &str) -> Recorded {
        Recorded::open_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models"), name)
    }
    fn open_in(directory: &Path, name: &str) -> Recorded {
        let path = directory.join(format!("{name}.safetensors"));
        let file = gradus_io::SafeTensors::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let tensor = |name: &str| file.tensor(name, device()).unwrap_or_else(|e| panic!("{e}"));
        Recorded(file.infos().iter().map(|info| (info.name.clone(), tensor(&info.name))).collect())
    }
    fn get(&self, name: &str) -> Tensor {
        self.0[name].clone()
    }
    fn state(&self) -> BTreeMap<String, Tensor> {
        self.0.iter().filter_map(|(name, t)| Some((name.strip_prefix("state.")?.to_owned(), t.clone()))).collect()
    }

    /// Loads the state, compares the logits, trains ten steps, and compares the losses.
    fn check<M: Module>(
        &self,
        mut model: M,
        rate: f64,
        logits: impl Fn(&M, &Cx) -> Tensor,
        loss: impl Fn(&Tensor) -> Tensor,
    ) {
        model.load_state_dict(&self.state()).unwrap_or_else(|e| panic!("{e}"));
        let want = self.get("logits").to_vec::<f64>().expect("readable");
        let have = gradus_core::no_grad(|| logits(&model, &Cx::eval())).to_vec::<f64>().expect("readable");
        assert_eq!(have.len(), want.len());
        let furthest = have.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{} logits, {furthest:.1e} apart at most", want.len());
        for (i, (a, b)) in have.iter().zip(&want).enumerate() {
            assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "logit {i} is {a}, in PyTorch {b}");
        }
        let mut optimizer =
            AdamW::new(rate).weight_decay(0.01).optimizer().build(&model).unwrap_or_else(|e| panic!("{e}"));
        let want = self.get("losses").to_vec::<f64>().expect("readable");
        for (step, want) in want.iter().enumerate() {
            let loss = loss(&logits(&model, &Cx::train(0, step as u32)));
            let have = f64::from(loss.item::<f32>().expect("readable"));
            println!("step {step}: loss {have:.6}, in PyTorch {want:.6}");
            assert!((have - want).abs() <= 1e-3, "the loss of step {step} is {have}, in PyTorch {want}");
            loss.backward();
            drop(loss);
            optimizer.step(&mut model).unwrap_or_else(|e| panic!("{e}"));
            model.zero_grad();
        }
    }
}

#[derive(Module)]
struct Block {
    ln_1: LayerNorm,
    attn: MultiheadAttention,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
}

impl Block {
    fn new(width: usize, heads: usize, init: &mut Init) -> Block {
        Block {
            ln_1: LayerNorm::new(width, init),
            attn: MultiheadAttention::new(width, heads, init).causal(),
            ln_2: LayerNorm::new(width, init),
            c_fc: Linear::new(width, 4 * width, init),
            c_proj: Linear::new(4 * width, width, init),
        }
    }
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let attended = self.attn.call(&self.ln_1.call(x, cx), cx);
        let (normed, x) = self.ln_2.call_add(&attended, x, cx);
        let hidden = GeluTanh.call(&self.c_fc.call(&normed, cx), cx);
        x + self.c_proj.call(&hidden, cx)
    }
}

/// A language model in the manner of GPT-2, whose head is its table of tokens.
#[derive(Module)]
struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt2 {
    fn new(vocabulary: usize, context: usize, width: usize, heads: usize, layers: usize) -> Gpt2 {
        let mut init = Init::new(device(), 0);
        Gpt2 {
            wte: Embedding::new(vocabulary, width, &mut init),
            wpe: Embedding::new(context, width, &mut init),
            h: (0..layers).map(|_| Block::new(width, heads, &mut init)).collect(),
            ln_f: LayerNorm::new(width, &mut init),
        }
    }
    /// Before the head, `[batch, length, width]`.
    fn hidden(&self, tokens: &Tensor, cx: &Cx) -> Tensor {
        let places = Tensor::arange(0i64, tokens.dim(1) as i64, 1i64, tokens.place());
        let mut x = self.wte.call(tokens, cx) + self.wpe.call(&places, cx);
        for block in &self.h {
            x = block.call(&x, cx);
        }
        self.ln_f.call(&x, cx)
    }
}

#[test]
fn gpt2_has_pytorchs_logits_and_losses() {
    let recorded = Recorded::open("gpt2");
    let (tokens, target) = (recorded.get("in.tokens"), recorded.get("in.target").flatten(0, 1));
    recorded.check(
        Gpt2::new(96, 16, 32, 4, 2),
        1e-3,
        |model, cx| model.hidden(&tokens, cx).linear(&model.wte.weight, None),
        |logits| CrossEntropy::new().forward(&logits.flatten(0, 1), &target),
    );
}

/// 124 million parameters.
#[test]
#[ignore = "needs the 0.5 GB that `generate.py gpt2-124m DIR` writes, and GRADUS_MODELS=DIR"]
fn gpt2_at_full_size_has_pytorchs_logits_and_losses() {
    let directory =
        std::env::var_os("GRADUS_MODELS").expect("GRADUS_MODELS names the directory of gpt2-124m.safetensors");
    let recorded = Recorded::open_in(Path::new(&directory), "gpt2-124m");
    let (tokens, target) = (recorded.get("in.tokens"), recorded.get("in.target").flatten(0, 1));
    recorded.check(
        Gpt2::new(50257, 1024, 768, 12, 12),
        1e-4,
        |model, cx| model.hidden(&tokens, cx).linear(&model.wte.weight, None),
        |logits| CrossEntropy::new().forward(&logits.flatten(0, 1), &target),
    );
}

/// The same losses, without the logits of all tokens ever being there: the head and the loss in chunks.
#[test]
fn gpt2_has_pytorchs_losses_in_chunks() {
    let recorded = Recorded::open("gpt2");
    let (tokens, target) = (recorded.get("in.tokens"), recorded.get("in.target"));
    let mut model = Gpt2::new(96, 16, 32, 4, 2);
    model.load_state_dict(&recorded.state()).unwrap_or_else(|e| panic!("{e}"));
    let mut optimizer = AdamW::new(1e-3).weight_decay(0.01).optimizer().build(&model).unwrap_or_else(|e| panic!("{e}"));
    for (step, want) in recorded.get("losses").to_vec::<f64>().expect("readable").iter().enumerate() {
        let hidden = model.hidden(&tokens, &Cx::train(0, step as u32));
        let loss = CrossEntropy::new().try_of_linear(&hidden, &model.wte.weight, None, &target, Some(7));
        let loss = loss.unwrap_or_else(|e| panic!("{e}"));
        let have = f64::from(loss.item::<f32>().expect("readable"));
        assert!((have - want).abs() <= 1e-3, "the loss of step {step} is {have}, in PyTorch {want}");
        loss.backward();
        drop((loss, hidden));
        optimizer.step(&mut model).unwrap_or_else(|e| panic!("{e}"));
        model.zero_grad();
    }
}

/// Two convolutions beside a shortcut.
#[derive(Module, Clone)]
struct Basic {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    downsample: Option<Sequential>,
}

impl Basic {
    fn new(inputs: usize, outputs: usize, stride: usize, init: &mut Init) -> Basic {
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            let conv = Conv2d::new(inputs, outputs, 1, init).stride(stride).bias(false);
            Sequential::new().add(conv).add(BatchNorm2d::new(outputs, init))
        });
        Basic {
            conv1: Conv2d::new(inputs, outputs, 3, init).stride(stride).padding(1).bias(false),
            bn1: BatchNorm2d::new(outputs, init),
            conv2: Conv2d::new(outputs, outputs, 3, init).padding(1).bias(false),
            bn2: BatchNorm2d::new(outputs, init),
            downsample: shortcut,
        }
    }
}

impl Layer for Basic {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let y = Relu.call(&self.bn1.call(&self.conv1.call(x, cx), cx), cx);
        let y = self.bn2.call(&self.conv2.call(&y, cx), cx);
        Relu.call(&(y + self.downsample.call(x, cx)), cx)
    }
}

#[derive(Module)]
struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    maxpool: MaxPool2d,
    layer1: Sequential,
    layer2: Sequential,
    layer3: Sequential,
    layer4: Sequential,
    fc: Linear,
}

impl ResNet18 {
    fn new(width: usize, classes: usize) -> ResNet18 {
        let mut init = Init::new(device(), 0);
        let mut stage = |inputs, outputs, stride| {
            let first = Basic::new(inputs, outputs, stride, &mut init);
            Sequential::new().add(first).add(Basic::new(outputs, outputs, 1, &mut init))
        };
        let (layer1, layer2) = (stage(width, width, 1), stage(width, 2 * width, 2));
        let (layer3, layer4) = (stage(2 * width, 4 * width, 2), stage(4 * width, 8 * width, 2));
        ResNet18 {
            conv1: Conv2d::new(3, width, 7, &mut init).stride(2).padding(3).bias(false),
            bn1: BatchNorm2d::new(width, &mut init),
            maxpool: MaxPool2d::new(3).stride(2).padding(1),
            layer1,
            layer2,
            layer3,
            layer4,
            fc: Linear::new(8 * width, classes, &mut init),
        }
    }
}

impl Layer for ResNet18 {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = Relu.call(&self.bn1.call(&self.conv1.call(x, cx), cx), cx);
        let mut x = self.maxpool.call(&x, cx);
        for stage in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            x = stage.call(&x, cx);
        }
        self.fc.call(&x.mean_dims(&[2, 3], false), cx)
    }
}

#[test]
fn resnet18_has_pytorchs_logits_and_losses() {
    let recorded = Recorded::open("resnet18");
    let (images, target) = (recorded.get("in.images"), recorded.get("in.target"));
    recorded.check(
        ResNet18::new(4, 10),
        1e-3,
        |model, cx| model.call(&images, cx),
        |logits| CrossEntropy::new().forward(logits, &target),
    );
}

/// Sequences of several lengths, read from both ends; the last layer's last states are classified.
#[derive(Module)]
struct BiLstm {
    embedding: Embedding,
    lstm: Lstm,
    fc: Linear,
}

#[test]
fn bidirectional_lstm_has_pytorchs_logits_and_losses() {
    let recorded = Recorded::open("bilstm");
    let (tokens, target) = (recorded.get("in.tokens"), recorded.get("in.target"));
    let lens: Vec<usize> =
        recorded.get("in.lengths").to_vec::<i64>().expect("readable").into_iter().map(|n| n as usize).collect();
    let mut init = Init::new(device(), 0);
    let model = BiLstm {
        embedding: Embedding::new(60, 16, &mut init),
        lstm: Lstm::new(RecurrentOptions::new(16, 24).layers(2).bidirectional(), &mut init),
        fc: Linear::new(48, 4, &mut init),
    };
    recorded.check(
        model,
        1e-2,
        |model, cx| {
            let (_, state) = model.lstm.run(&model.embedding.call(&tokens, cx), None, Some(&lens), cx);
            let both = Tensor::cat(&[&state.h.select(0, -2), &state.h.select(0, -1)], -1);
            model.fc.call(&both, cx)
        },
        |logits| CrossEntropy::new().forward(logits, &target),
    );
}
