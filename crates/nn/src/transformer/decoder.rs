//! The decoder: self-attention, attention to a memory, and a feed-forward block, layer by layer.

use super::feed_forward::{Normed, attention, feed_forward, linear, norm, residuals};
use super::options::TransformerOptions;
use crate::{AttentionMask, Cx, Dropout, Init, Layer, LayerNorm, Linear, Module, MultiheadAttention, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// Self-attention, then attention to a memory, then a feed-forward block, each with a residual around it and a normalization.
/// In PyTorch: `torch.nn.TransformerDecoderLayer(batch_first=True)`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{AttentionMask, Cx, Init, TransformerDecoderLayer, TransformerOptions};
/// let device = gradus_cpu::device();
/// let layer = TransformerDecoderLayer::new(TransformerOptions::new(16, 4).feed_forward(32), &mut Init::new(device, 0));
/// let (x, memory) = (Tensor::ones([2, 5, 16], device), Tensor::ones([2, 7, 16], device));
/// let y = layer.run(&x, &memory, &AttentionMask::causal(), &AttentionMask::none(), &Cx::eval());
/// assert_eq!(y.dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = TransformerDecoderLayer::described)]
pub struct TransformerDecoderLayer {
    /// Each token attends to those of its own sequence.
    pub self_attn: MultiheadAttention,
    /// Each token attends to the memory.
    pub multihead_attn: MultiheadAttention,
    /// The feed-forward block's first matrix.
    pub linear1: Linear,
    /// The feed-forward block's second matrix.
    pub linear2: Linear,
    /// Around the self-attention.
    pub norm1: LayerNorm,
    /// Around the attention to the memory.
    pub norm2: LayerNorm,
    /// Around the feed-forward block.
    pub norm3: LayerNorm,
    dropout: Dropout,
    dropout1: Dropout,
    dropout2: Dropout,
    dropout3: Dropout,
    #[module(skip)]
    options: TransformerOptions,
    site: Site,
}

impl TransformerDecoderLayer {
    /// With these sizes and options. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: TransformerOptions, init: &mut Init) -> TransformerDecoderLayer {
        or_raise(TransformerDecoderLayer::try_new(options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: TransformerOptions, init: &mut Init) -> Result<TransformerDecoderLayer> {
        let (o, dropout) = (&options, || Dropout::new(options.dropout));
        Ok(TransformerDecoderLayer {
            self_attn: attention(o, init)?,
            multihead_attn: attention(o, init)?,
            linear1: linear(o.width, o.hidden, o, init)?,
            linear2: linear(o.hidden, o.width, o, init)?,
            norm1: norm(o, init)?,
            norm2: norm(o, init)?,
            norm3: norm(o, init)?,
            dropout: dropout(),
            dropout1: dropout(),
            dropout2: dropout(),
            dropout3: dropout(),
            options,
            site: Site::default(),
        })
    }
    /// The result for x `[batch, length, width]`, which attends to `memory` `[batch, tokens, width]` (both with the batch, or
    /// none); `mask` is of x's tokens, `memory_mask` of the memory's. Panics at the caller's line if they do not fit.
    #[track_caller]
    pub fn run(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
        cx: &Cx,
    ) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_run(x, memory, mask, memory_mask, cx));
        cx.passed(self, y)
    }
    /// As [`run`](Self::run), with misuse returned as an error.
    pub fn try_run(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
        cx: &Cx,
    ) -> Result<Tensor> {
        let (o, own, other) = (&self.options, mask.options()?, memory_mask.options()?);
        let attend = |x: &Tensor| Ok(self.dropout1.call(&self.self_attn.attend(x, x, x, &own, cx), cx));
        let look = |x: &Tensor| Ok(self.dropout2.call(&self.multihead_attn.attend(x, memory, memory, &other, cx), cx));
        let feed = |x: &Tensor| feed_forward(x, [&self.linear1, &self.linear2], [&self.dropout, &self.dropout3], o, cx);
        let blocks: [Normed<'_>; 3] = [(&self.norm1, &attend), (&self.norm2, &look), (&self.norm3, &feed)];
        residuals(x, o.norm_first, cx, &blocks)
    }
    fn described(&self) -> String {
        self.options.described()
    }
}

/// Decoder layers one after another, and perhaps a last normalization. In PyTorch: `torch.nn.TransformerDecoder`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{AttentionMask, Cx, Init, TransformerDecoder, TransformerOptions};
/// let device = gradus_cpu::device();
/// let decoder = TransformerDecoder::new(TransformerOptions::new(16, 4).feed_forward(32), 2, &mut Init::new(device, 0));
/// let (x, memory) = (Tensor::ones([2, 5, 16], device), Tensor::ones([2, 7, 16], device));
/// let y = decoder.run(&x, &memory, &AttentionMask::causal(), &AttentionMask::none(), &Cx::eval());
/// assert_eq!(y.dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct TransformerDecoder {
    /// The layers, first to last.
    pub layers: Vec<TransformerDecoderLayer>,
    /// After the last layer.
    pub norm: Option<LayerNorm>,
    site: Site,
}

impl TransformerDecoder {
    /// `layers` layers, without a last normalization. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: TransformerOptions, layers: usize, init: &mut Init) -> TransformerDecoder {
        or_raise(TransformerDecoder::try_new(options, layers, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: TransformerOptions, layers: usize, init: &mut Init) -> Result<TransformerDecoder> {
        let layers = (0..layers).map(|_| TransformerDecoderLayer::try_new(options, init)).collect::<Result<_>>()?;
        Ok(TransformerDecoder { layers, norm: None, site: Site::default() })
    }
    /// With a last normalization.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerDecoder {
        self.norm = Some(norm);
        self
    }
    /// The result for x, which attends to `memory`: see [`TransformerDecoderLayer::run`].
    #[track_caller]
    pub fn run(
        &self,
        x: &Tensor,
        memory: &Tensor,
        mask: &AttentionMask,
        memory_mask: &AttentionMask,
        cx: &Cx,
    ) -> Tensor {
        let _scope = cx.enter(self);
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.run(&x, memory, mask, memory_mask, cx);
        }
        let y = self.norm.as_ref().map_or(x.clone(), |norm| norm.call(&x, cx));
        cx.passed(self, y)
    }
}
