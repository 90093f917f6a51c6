//! The models of the cases that train: the twins of `torch_models.py`, with its names.

use gradus::Tensor;
use gradus::nn::{
    BatchNorm2d, Conv2d, Cx, Dropout, Embedding, Init, Layer, LayerNorm, Linear, Lstm, MaxPool2d, Module,
    MultiheadAttention, RecurrentOptions, Sequential,
};
use gradus::ops::UnaryOp;

#[derive(Module)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    pub fn new(inputs: usize, hidden: usize, outputs: usize, init: &mut Init) -> Mlp {
        Mlp { fc1: Linear::new(inputs, hidden, init), fc2: Linear::new(hidden, outputs, init) }
    }
}

impl Layer for Mlp {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let hidden = x.linear_relu(&self.fc1.weight, self.fc1.bias.as_deref());
        self.fc2.call(&hidden, cx)
    }
}

/// conv 1→32, relu, conv 32→64, relu, max pool 2, dropout ¼, fc 9216→128, relu, dropout ½, fc 128→10.
#[derive(Module)]
pub struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    dropout1: Dropout,
    fc1: Linear,
    dropout2: Dropout,
    fc2: Linear,
}

impl Cnn {
    pub fn new(dropout: bool, init: &mut Init) -> Cnn {
        let dropout = |p| Dropout::new(if dropout { p } else { 0.0 });
        Cnn {
            conv1: Conv2d::new(1, 32, 3, init),
            conv2: Conv2d::new(32, 64, 3, init),
            pool: MaxPool2d::new(2),
            dropout1: dropout(0.25),
            fc1: Linear::new(9216, 128, init),
            dropout2: dropout(0.5),
            fc2: Linear::new(128, 10, init),
        }
    }
}

impl Layer for Cnn {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let x = self.conv1.call_then(UnaryOp::Relu, x, cx); // [64, 32, 26, 26]
        let x = self.conv2.call_then(UnaryOp::Relu, &x, cx); // [64, 64, 24, 24]
        let x = self.dropout1.call(&self.pool.call(&x, cx), cx).flatten(1, -1); // [64, 9216]
        let x = x.linear_relu(&self.fc1.weight, self.fc1.bias.as_deref());
        self.fc2.call(&self.dropout2.call(&x, cx), cx)
    }
}

/// Classifies a sequence by the last state.
#[derive(Module)]
pub struct Sequences {
    lstm: Lstm,
    fc: Linear,
}

impl Sequences {
    pub fn new(inputs: usize, hidden: usize, outputs: usize, init: &mut Init) -> Sequences {
        let options = RecurrentOptions::new(inputs, hidden);
        Sequences { lstm: Lstm::new(options, init), fc: Linear::new(hidden, outputs, init) }
    }
}

impl Layer for Sequences {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        self.fc.call(&self.lstm.call(x, cx).select(1, -1), cx)
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
        let shortcut = (inputs != outputs).then(|| {
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
        let y = self.bn1.call_relu(&self.conv1.call(x, cx), None, cx);
        self.bn2.call_relu(&self.conv2.call(&y, cx), Some(&self.downsample.call(x, cx)), cx)
    }
}

#[derive(Module)]
pub struct ResNet20 {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    layer1: Sequential,
    layer2: Sequential,
    layer3: Sequential,
    fc: Linear,
}

impl ResNet20 {
    pub fn new(classes: usize, init: &mut Init) -> ResNet20 {
        let mut stage = |inputs, outputs, stride| {
            let first = Sequential::new().add(Basic::new(inputs, outputs, stride, init));
            first.add(Basic::new(outputs, outputs, 1, init)).add(Basic::new(outputs, outputs, 1, init))
        };
        let (layer1, layer2, layer3) = (stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2));
        ResNet20 {
            conv1: Conv2d::new(3, 16, 3, init).padding(1).bias(false),
            bn1: BatchNorm2d::new(16, init),
            layer1,
            layer2,
            layer3,
            fc: Linear::new(64, classes, init),
        }
    }
}

impl Layer for ResNet20 {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let mut x = self.bn1.call_relu(&self.conv1.call(x, cx), None, cx);
        for stage in [&self.layer1, &self.layer2, &self.layer3] {
            x = stage.call(&x, cx);
        }
        self.fc.call(&x.mean_dims(&[2, 3], false), cx)
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
        let hidden = self.c_fc.call_then(UnaryOp::GeluTanh, &normed, cx);
        x + self.c_proj.call(&hidden, cx)
    }
}

/// GPT-2 without dropout; the head is the table of tokens.
#[derive(Module)]
pub struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt {
    pub fn new(layers: usize, width: usize, tokens: usize, context: usize, init: &mut Init) -> Gpt {
        let heads = (width / 64).max(4); // as GPT-2: heads of 64 numbers; the smallest model has four
        Gpt {
            wte: Embedding::new(tokens, width, init),
            wpe: Embedding::new(context, width, init),
            h: (0..layers).map(|_| Block::new(width, heads, init)).collect(),
            ln_f: LayerNorm::new(width, init),
        }
    }
}

impl Layer for Gpt {
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let places = Tensor::arange(0i64, x.dim(1) as i64, 1i64, x.place());
        let mut x = self.wte.call(x, cx) + self.wpe.call(&places, cx);
        for block in &self.h {
            x = block.call(&x, cx);
        }
        self.ln_f.call(&x, cx).linear(&self.wte.weight, None)
    }
}
