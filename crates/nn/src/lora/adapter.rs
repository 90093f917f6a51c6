//! The two thin matrices.

use crate::init::{Init, Initializer};
use crate::{Cx, Dropout, Layer, Module, Param, Site};
use gradus_core::{Error, Result, Tensor};

/// The options of adapters.
///
/// ```
/// use gradus_nn::LoraOptions;
/// assert_eq!(LoraOptions::new(8).alpha(16.0).scale(), 2.0);
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LoraOptions {
    /// How thin the matrices are.
    pub rank: usize,
    /// The product is scaled by alpha/rank.
    pub alpha: f64,
    /// The probability of zeroing an element of the adapter's input in training.
    pub dropout: f64,
}

impl LoraOptions {
    /// Of this rank, with alpha equal to it, so that the scale is 1.
    pub fn new(rank: usize) -> LoraOptions {
        LoraOptions { rank, alpha: rank as f64, dropout: 0.0 }
    }
    /// With this alpha.
    pub fn alpha(mut self, alpha: f64) -> LoraOptions {
        self.alpha = alpha;
        self
    }
    /// With this probability of zeroing an element of the adapter's input.
    pub fn dropout(mut self, p: f64) -> LoraOptions {
        self.dropout = p;
        self
    }
    /// alpha/rank.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }
}

/// scale·dropout(x)·Aᵀ·Bᵀ: A starts as a linear layer's weight, B at 0, so that it changes nothing before it is trained.
#[derive(Module, Clone, Debug)]
pub struct LoraAdapter {
    /// A, `[rank, inputs]`.
    pub lora_a: Param,
    /// B, `[outputs, rank]`.
    pub lora_b: Param,
    dropout: Dropout,
    scale: f64,
    site: Site,
}

impl LoraAdapter {
    /// From `inputs` to `outputs` numbers; misuse is returned as an error.
    pub fn try_new(inputs: usize, outputs: usize, options: LoraOptions, init: &mut Init) -> Result<LoraAdapter> {
        if options.rank == 0 {
            return Err(Error::misuse("an adapter has a rank of 1 at least"));
        }
        let (place, key) = (init.place(), init.next_key());
        let a = Initializer::layer_default().try_draw([options.rank, inputs], place, key.fold("lora_a"))?;
        Ok(LoraAdapter {
            lora_a: Param::try_new(a)?,
            lora_b: Param::try_new(Tensor::try_zeros([outputs, options.rank], place)?)?,
            dropout: Dropout::new(options.dropout),
            scale: options.scale(),
            site: Site::default(),
        })
    }
    /// What it adds for `x`; misuse is returned as an error.
    pub fn try_forward(&self, x: &Tensor, cx: &Cx) -> Result<Tensor> {
        let _scope = cx.enter(self);
        let x = self.dropout.call(x, cx);
        Ok(x.try_linear(&self.lora_a, None)?.try_linear(&self.lora_b, None)? * self.scale)
    }
    /// What it adds to the weight: scale·B·A.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.lora_b.try_matmul(&self.lora_a)? * self.scale)
    }
}
