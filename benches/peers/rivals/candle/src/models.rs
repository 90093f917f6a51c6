//! The models of the cases that train: the twins of `torch_models.py`, with its names.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::rnn::{LSTM, LSTMConfig, RNN};
use candle_nn::{Conv2d, Dropout, Embedding, Linear, Module, VarBuilder, ops};

/// What trains: a forward pass with dropout on where the model has it.
pub trait Model {
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

pub struct Mlp(Linear, Linear);

impl Mlp {
    pub fn new(inputs: usize, hidden: usize, outputs: usize, vb: VarBuilder) -> Result<Mlp> {
        let fc1 = candle_nn::linear(inputs, hidden, vb.pp("fc1"))?;
        Ok(Mlp(fc1, candle_nn::linear(hidden, outputs, vb.pp("fc2"))?))
    }
}

impl Model for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?.relu()?)
    }
}

/// conv 1→32, relu, conv 32→64, relu, max pool 2, dropout ¼, fc 9216→128, relu, dropout ½, fc 128→10.
pub struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    dropout: bool,
}

impl Cnn {
    pub fn new(dropout: bool, vb: VarBuilder) -> Result<Cnn> {
        Ok(Cnn {
            conv1: candle_nn::conv2d(1, 32, 3, Default::default(), vb.pp("conv1"))?,
            conv2: candle_nn::conv2d(32, 64, 3, Default::default(), vb.pp("conv2"))?,
            fc1: candle_nn::linear(9216, 128, vb.pp("fc1"))?,
            fc2: candle_nn::linear(128, 10, vb.pp("fc2"))?,
            dropout,
        })
    }
}

impl Model for Cnn {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.conv1.forward(x)?.relu()?; // [64, 32, 26, 26]
        let x = self.conv2.forward(&x)?.relu()?.max_pool2d(2)?; // [64, 64, 12, 12]
        let x = Dropout::new(0.25).forward(&x, self.dropout)?.flatten_from(1)?; // [64, 9216]
        let x = self.fc1.forward(&x)?.relu()?;
        self.fc2.forward(&Dropout::new(0.5).forward(&x, self.dropout)?)
    }
}

/// Classifies a sequence by the last state.
pub struct Sequences(LSTM, Linear);

impl Sequences {
    pub fn new(inputs: usize, hidden: usize, outputs: usize, vb: VarBuilder) -> Result<Sequences> {
        let lstm = candle_nn::lstm(inputs, hidden, LSTMConfig::default(), vb.pp("lstm"))?;
        Ok(Sequences(lstm, candle_nn::linear(hidden, outputs, vb.pp("fc"))?))
    }
}

impl Model for Sequences {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let states = self.0.seq(x)?;
        self.1.forward(states[states.len() - 1].h())
    }
}

/// candle's own LayerNorm has no backward pass: it cuts the graph. This one is its documented slow form.
struct LayerNorm(Tensor, Tensor);

impl LayerNorm {
    fn new(width: usize, vb: VarBuilder) -> Result<LayerNorm> {
        Ok(LayerNorm(vb.get(width, "weight")?, vb.get(width, "bias")?))
    }
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm_slow(x, &self.0, &self.1, 1e-5)
    }
}

struct Block {
    ln_1: LayerNorm,
    qkv: Linear,
    out_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    heads: usize,
}

impl Block {
    fn new(width: usize, heads: usize, vb: VarBuilder) -> Result<Block> {
        let attn = vb.pp("attn");
        Ok(Block {
            ln_1: LayerNorm::new(width, vb.pp("ln_1"))?,
            qkv: Linear::new(
                attn.get((3 * width, width), "in_proj_weight")?,
                Some(attn.get(3 * width, "in_proj_bias")?),
            ),
            out_proj: candle_nn::linear(width, width, attn.pp("out_proj"))?,
            ln_2: LayerNorm::new(width, vb.pp("ln_2"))?,
            c_fc: candle_nn::linear(width, 4 * width, vb.pp("c_fc"))?,
            c_proj: candle_nn::linear(4 * width, width, vb.pp("c_proj"))?,
            heads,
        })
    }

    /// `mask` is 0 where a place may look, and −∞ after it: `[length, length]`. candle's fused attentions have no backward pass.
    fn attention(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let size = width / self.heads;
        let qkv = self.qkv.forward(x)?.reshape((batch, length, 3, self.heads, size))?.permute((2, 0, 3, 1, 4))?;
        let (q, k, v) = (qkv.get(0)?.contiguous()?, qkv.get(1)?.contiguous()?, qkv.get(2)?.contiguous()?);
        let scores = (q.matmul(&k.t()?)? * (size as f64).powf(-0.5))?; // [batch, heads, query, key]
        let weights = ops::softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        let y = weights.matmul(&v)?.transpose(1, 2)?.reshape((batch, length, width))?;
        self.out_proj.forward(&y)
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let x = (x + self.attention(&self.ln_1.forward(x)?, mask)?)?;
        let hidden = self.c_fc.forward(&self.ln_2.forward(&x)?)?.gelu()?; // by tanh
        &x + self.c_proj.forward(&hidden)?
    }
}

/// GPT-2 without dropout; the head is the table of tokens.
pub struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt {
    pub fn new(layers: usize, width: usize, tokens: usize, context: usize, vb: VarBuilder) -> Result<Gpt> {
        let heads = (width / 64).max(4); // as GPT-2: heads of 64 numbers; the smallest model has four
        let block = |i: usize| Block::new(width, heads, vb.pp("h").pp(i));
        Ok(Gpt {
            wte: candle_nn::embedding(tokens, width, vb.pp("wte"))?,
            wpe: candle_nn::embedding(context, width, vb.pp("wpe"))?,
            h: (0..layers).map(block).collect::<Result<_>>()?,
            ln_f: LayerNorm::new(width, vb.pp("ln_f"))?,
        })
    }
}

impl Model for Gpt {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let length = x.dim(1)?;
        let places = Tensor::arange(0u32, length as u32, &Device::Cpu)?;
        let later = (0..length).flat_map(|q| (0..length).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 }));
        let mask = Tensor::from_iter(later, &Device::Cpu)?.reshape((length, length))?;
        let mut x = self.wte.forward(x)?.broadcast_add(&self.wpe.forward(&places)?)?;
        for block in &self.h {
            x = block.forward(&x, &mask)?;
        }
        Linear::new(self.wte.embeddings().clone(), None).forward(&self.ln_f.forward(&x)?)
    }
}
