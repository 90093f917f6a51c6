//! The models of the cases that train: the twins of `torch_models.py`, with its names.

use crate::inputs::Tensors;
use burn::module::{AutodiffModule, Module};
use burn::nn::conv::Conv2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, Dropout, DropoutConfig, Embedding, LayerNorm, Linear, Lstm, LstmConfig};
use burn::tensor::activation::{gelu_approximate, relu};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, module::attention, ops::AttentionModuleOptions};
use contract::Result;

/// A classifier and what it is given.
pub trait Model<B: AutodiffBackend>: AutodiffModule<B> + Sized {
    type Input: Clone;
    /// From the given weights. `dropout` switches it on where the model has it.
    fn new(weights: &Tensors, dropout: bool, device: &B::Device) -> Result<Self>;
    /// `[rows, classes]`; of tokens, a row for each.
    fn logits(&self, x: Self::Input) -> Tensor<B, 2>;
}

#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    fc1: Linear<B>,
    fc2: Linear<B>,
}

impl<B: AutodiffBackend> Model<B> for Mlp<B> {
    type Input = Tensor<B, 2>;
    fn new(weights: &Tensors, _dropout: bool, device: &B::Device) -> Result<Self> {
        Ok(Mlp { fc1: weights.linear("fc1", device)?, fc2: weights.linear("fc2", device)? })
    }
    fn logits(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.fc2.forward(relu(self.fc1.forward(x)))
    }
}

/// conv 1→32, relu, conv 32→64, relu, max pool 2, dropout ¼, fc 9216→128, relu, dropout ½, fc 128→10.
#[derive(Module, Debug)]
pub struct Cnn<B: Backend> {
    conv1: Conv2d<B>,
    conv2: Conv2d<B>,
    pool: MaxPool2d,
    dropout1: Dropout,
    fc1: Linear<B>,
    dropout2: Dropout,
    fc2: Linear<B>,
}

impl<B: AutodiffBackend> Model<B> for Cnn<B> {
    type Input = Tensor<B, 4>;
    fn new(weights: &Tensors, dropout: bool, device: &B::Device) -> Result<Self> {
        let dropout = |p| DropoutConfig::new(if dropout { p } else { 0.0 }).init();
        Ok(Cnn {
            conv1: weights.conv("conv1", 1, 0, device)?,
            conv2: weights.conv("conv2", 1, 0, device)?,
            pool: MaxPool2dConfig::new([2, 2]).init(),
            dropout1: dropout(0.25),
            fc1: weights.linear("fc1", device)?,
            dropout2: dropout(0.5),
            fc2: weights.linear("fc2", device)?,
        })
    }
    fn logits(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.conv1.forward(x)); // [64, 32, 26, 26]
        let x = relu(self.conv2.forward(x)); // [64, 64, 24, 24]
        let x: Tensor<B, 2> = self.dropout1.forward(self.pool.forward(x)).flatten(1, 3); // [64, 9216]
        self.fc2.forward(self.dropout2.forward(relu(self.fc1.forward(x))))
    }
}

/// Classifies a sequence by the last state.
#[derive(Module, Debug)]
pub struct Sequences<B: Backend> {
    lstm: Lstm<B>,
    fc: Linear<B>,
}

impl<B: AutodiffBackend> Model<B> for Sequences<B> {
    type Input = Tensor<B, 3>;
    /// The rows of PyTorch's matrices are its gates' in the order input, forget, cell, output.
    fn new(weights: &Tensors, _dropout: bool, device: &B::Device) -> Result<Self> {
        let all = weights.linear_of::<B>("lstm.", ["weight_ih_l0", "bias_ih_l0"], device)?;
        let [inputs, gates] = all.weight.dims();
        let mut lstm = LstmConfig::new(inputs, gates / 4, true).init(device);
        let cut = |of: &str, i: usize| -> Result<Linear<B>> {
            let all =
                weights.linear_of::<B>("lstm.", [&format!("weight_{of}_l0"), &format!("bias_{of}_l0")], device)?;
            let columns = i * gates / 4..(i + 1) * gates / 4;
            let rows = 0..all.weight.dims()[0];
            let weight = all.weight.val().inner().slice([rows, columns.clone()]).into_data();
            let bias = all.bias.map(|bias| bias.val().inner().slice([columns]).into_data());
            Ok(Linear {
                weight: burn::module::Param::from_data(weight, device),
                bias: bias.map(|bias| burn::module::Param::from_data(bias, device)),
            })
        };
        let gates = [&mut lstm.input_gate, &mut lstm.forget_gate, &mut lstm.cell_gate, &mut lstm.output_gate];
        for (i, gate) in gates.into_iter().enumerate() {
            gate.input_transform = cut("ih", i)?;
            gate.hidden_transform = cut("hh", i)?;
        }
        Ok(Sequences { lstm, fc: weights.linear("fc", device)? })
    }
    fn logits(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        self.fc.forward(self.lstm.forward(x, None).1.hidden)
    }
}

/// Two convolutions beside a shortcut.
#[derive(Module, Debug)]
struct Basic<B: Backend> {
    conv1: Conv2d<B>,
    bn1: BatchNorm<B>,
    conv2: Conv2d<B>,
    bn2: BatchNorm<B>,
    conv3: Option<Conv2d<B>>,
    bn3: Option<BatchNorm<B>>,
}

impl<B: Backend> Basic<B> {
    fn new(weights: &Tensors, name: &str, first: bool, stride: usize, device: &B::Device) -> Result<Self> {
        let (conv3, bn3) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        Ok(Basic {
            conv1: weights.conv(&format!("{name}.conv1"), stride, 1, device)?,
            bn1: weights.batch_norm(&format!("{name}.bn1"), device)?,
            conv2: weights.conv(&format!("{name}.conv2"), 1, 1, device)?,
            bn2: weights.batch_norm(&format!("{name}.bn2"), device)?,
            conv3: if first { Some(weights.conv(&conv3, stride, 0, device)?) } else { None },
            bn3: if first { Some(weights.batch_norm(&bn3, device)?) } else { None },
        })
    }
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = self.bn2.forward(self.conv2.forward(y));
        let shortcut = match (&self.conv3, &self.bn3) {
            (Some(conv), Some(norm)) => norm.forward(conv.forward(x)),
            _ => x,
        };
        relu(y + shortcut)
    }
}

#[derive(Module, Debug)]
pub struct ResNet20<B: Backend> {
    conv1: Conv2d<B>,
    bn1: BatchNorm<B>,
    blocks: Vec<Basic<B>>,
    fc: Linear<B>,
}

impl<B: AutodiffBackend> Model<B> for ResNet20<B> {
    type Input = Tensor<B, 4>;
    fn new(weights: &Tensors, _dropout: bool, device: &B::Device) -> Result<Self> {
        let mut blocks = Vec::new();
        for stage in 1..4 {
            for i in 0..3 {
                let begins = stage > 1 && i == 0;
                let name = format!("layer{stage}.{i}");
                blocks.push(Basic::new(weights, &name, begins, if begins { 2 } else { 1 }, device)?);
            }
        }
        Ok(ResNet20 {
            conv1: weights.conv("conv1", 1, 1, device)?,
            bn1: weights.batch_norm("bn1", device)?,
            blocks,
            fc: weights.linear("fc", device)?,
        })
    }
    fn logits(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x: Tensor<B, 3> = x.flatten(2, 3);
        self.fc.forward(x.mean_dim(2).squeeze_dim(2))
    }
}

#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    pub ln_1: LayerNorm<B>,
    pub qkv: Linear<B>,
    pub out_proj: Linear<B>,
    pub ln_2: LayerNorm<B>,
    pub c_fc: Linear<B>,
    pub c_proj: Linear<B>,
}

impl<B: Backend> Block<B> {
    fn new(weights: &Tensors, name: &str, device: &B::Device) -> Result<Self> {
        Ok(Block {
            ln_1: weights.layer_norm(&format!("{name}.ln_1"), device)?,
            qkv: weights.linear_of(&format!("{name}.attn.in_proj_"), ["weight", "bias"], device)?,
            out_proj: weights.linear(&format!("{name}.attn.out_proj"), device)?,
            ln_2: weights.layer_norm(&format!("{name}.ln_2"), device)?,
            c_fc: weights.linear(&format!("{name}.c_fc"), device)?,
            c_proj: weights.linear(&format!("{name}.c_proj"), device)?,
        })
    }
    fn attention(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, length, width] = x.dims();
        let heads = (width / 64).max(4); // as GPT-2: heads of 64 numbers; the smallest model has four
        let qkv = self.qkv.forward(x).chunk(3, 2).into_iter();
        let mut qkv = qkv.map(|t| t.reshape([batch, length, heads, width / heads]).swap_dims(1, 2));
        let (Some(q), Some(k), Some(v)) = (qkv.next(), qkv.next(), qkv.next()) else { unreachable!("three chunks") };
        let causal = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let y = attention(q, k, v, None, None, causal); // [batch, heads, length, size]
        self.out_proj.forward(y.swap_dims(1, 2).reshape([batch, length, width]))
    }
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = x.clone() + self.attention(self.ln_1.forward(x));
        x.clone() + self.c_proj.forward(gelu_approximate(self.c_fc.forward(self.ln_2.forward(x))))
    }
}

/// GPT-2 without dropout; the head is the table of tokens.
#[derive(Module, Debug)]
pub struct Gpt<B: Backend> {
    pub wte: Embedding<B>,
    pub wpe: Embedding<B>,
    pub h: Vec<Block<B>>,
    pub ln_f: LayerNorm<B>,
}

impl<B: Backend> Gpt<B> {
    pub fn of(weights: &Tensors, device: &B::Device) -> Result<Self> {
        let layers = weights.0.keys().filter(|name| name.ends_with("ln_1.bias")).count();
        Ok(Gpt {
            wte: weights.embedding("wte", device)?,
            wpe: weights.embedding("wpe", device)?,
            h: (0..layers).map(|i| Block::new(weights, &format!("h.{i}"), device)).collect::<Result<_>>()?,
            ln_f: weights.layer_norm("ln_f", device)?,
        })
    }
}

impl<B: AutodiffBackend> Model<B> for Gpt<B> {
    type Input = Tensor<B, 2, Int>;
    fn new(weights: &Tensors, _dropout: bool, device: &B::Device) -> Result<Self> {
        Gpt::of(weights, device)
    }
    fn logits(&self, x: Tensor<B, 2, Int>) -> Tensor<B, 2> {
        let places = Tensor::arange(0..x.dims()[1] as i64, &x.device()).unsqueeze();
        let x = self.wte.forward(x) + self.wpe.forward(places);
        let x = self.h.iter().fold(x, |x, block| block.forward(x));
        let x: Tensor<B, 2> = self.ln_f.forward(x).flatten(0, 1); // [batch · length, width]
        x.matmul(self.wte.weight.val().transpose())
    }
}
