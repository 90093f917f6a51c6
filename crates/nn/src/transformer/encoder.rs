//! The encoder: self-attention and a feed-forward block, layer by layer.

use super::feed_forward::{attention, feed_forward, linear, norm, residuals};
use super::options::TransformerOptions;
use crate::{AttentionMask, Cx, Dropout, Init, Layer, LayerNorm, Linear, Module, MultiheadAttention, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// Self-attention, then a feed-forward block, each with a residual around it and a normalization: x ← norm1(x + attention(x)),
/// x ← norm2(x + feed_forward(x)) (or, norm first, x ← x + attention(norm1(x)), ..). In PyTorch:
/// `torch.nn.TransformerEncoderLayer(batch_first=True)`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{AttentionMask, Cx, Init, TransformerEncoderLayer, TransformerOptions};
/// let device = gradus_cpu::device();
/// let layer = TransformerEncoderLayer::new(TransformerOptions::new(16, 4).feed_forward(32), &mut Init::new(device, 0));
/// let y = layer.run(&Tensor::ones([2, 5, 16], device), &AttentionMask::causal(), &Cx::eval());
/// assert_eq!(y.dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = TransformerEncoderLayer::described)]
pub struct TransformerEncoderLayer {
    /// Each token attends to all.
    pub self_attn: MultiheadAttention,
    /// The feed-forward block's first matrix.
    pub linear1: Linear,
    /// The feed-forward block's second matrix.
    pub linear2: Linear,
    /// Around the attention.
    pub norm1: LayerNorm,
    /// Around the feed-forward block.
    pub norm2: LayerNorm,
    dropout: Dropout,
    dropout1: Dropout,
    dropout2: Dropout,
    #[module(skip)]
    options: TransformerOptions,
    site: Site,
}

impl TransformerEncoderLayer {
    /// With these sizes and options. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: TransformerOptions, init: &mut Init) -> TransformerEncoderLayer {
        or_raise(TransformerEncoderLayer::try_new(options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: TransformerOptions, init: &mut Init) -> Result<TransformerEncoderLayer> {
        let (o, dropout) = (&options, || Dropout::new(options.dropout));
        Ok(TransformerEncoderLayer {
            self_attn: attention(o, init)?,
            linear1: linear(o.width, o.hidden, o, init)?,
            linear2: linear(o.hidden, o.width, o, init)?,
            norm1: norm(o, init)?,
            norm2: norm(o, init)?,
            dropout: dropout(),
            dropout1: dropout(),
            dropout2: dropout(),
            options,
            site: Site::default(),
        })
    }
    /// The result for x `[batch, length, width]` (or without the batch) under a mask. Panics at the caller's line if they do not fit.
    #[track_caller]
    pub fn run(&self, x: &Tensor, mask: &AttentionMask, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_run(x, mask, cx));
        cx.passed(self, y)
    }
    /// As [`run`](Self::run), with misuse returned as an error.
    pub fn try_run(&self, x: &Tensor, mask: &AttentionMask, cx: &Cx) -> Result<Tensor> {
        let (o, attention) = (&self.options, mask.options()?);
        let attend = |x: &Tensor| Ok(self.dropout1.call(&self.self_attn.attend(x, x, x, &attention, cx), cx));
        let feed = |x: &Tensor| feed_forward(x, [&self.linear1, &self.linear2], [&self.dropout, &self.dropout2], o, cx);
        residuals(x, o.norm_first, cx, &[(&self.norm1, &attend), (&self.norm2, &feed)])
    }
    fn described(&self) -> String {
        self.options.described()
    }
}

impl Layer for TransformerEncoderLayer {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        or_raise(self.try_run(x, &AttentionMask::none(), cx))
    }
}

/// Encoder layers one after another, and perhaps a last normalization. In PyTorch: `torch.nn.TransformerEncoder`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, TransformerEncoder, TransformerOptions};
/// let device = gradus_cpu::device();
/// let encoder = TransformerEncoder::new(TransformerOptions::new(16, 4).feed_forward(32), 2, &mut Init::new(device, 0));
/// assert_eq!(encoder.call(&Tensor::ones([2, 5, 16], device), &Cx::eval()).dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct TransformerEncoder {
    /// The layers, first to last.
    pub layers: Vec<TransformerEncoderLayer>,
    /// After the last layer.
    pub norm: Option<LayerNorm>,
    site: Site,
}

impl TransformerEncoder {
    /// `layers` layers, without a last normalization. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: TransformerOptions, layers: usize, init: &mut Init) -> TransformerEncoder {
        or_raise(TransformerEncoder::try_new(options, layers, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: TransformerOptions, layers: usize, init: &mut Init) -> Result<TransformerEncoder> {
        let layers = (0..layers).map(|_| TransformerEncoderLayer::try_new(options, init)).collect::<Result<_>>()?;
        Ok(TransformerEncoder { layers, norm: None, site: Site::default() })
    }
    /// With a last normalization.
    pub fn norm(mut self, norm: LayerNorm) -> TransformerEncoder {
        self.norm = Some(norm);
        self
    }
    /// The result for x `[batch, length, width]` (or without the batch) under a mask. Panics at the caller's line if they do not fit.
    #[track_caller]
    pub fn run(&self, x: &Tensor, mask: &AttentionMask, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        cx.passed(self, self.through(x, mask, cx))
    }
    /// The layers, one after the other. (What a hook sees once must not be passed on twice.)
    #[track_caller]
    fn through(&self, x: &Tensor, mask: &AttentionMask, cx: &Cx) -> Tensor {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.run(&x, mask, cx);
        }
        self.norm.as_ref().map_or(x.clone(), |norm| norm.call(&x, cx))
    }
}

impl Layer for TransformerEncoder {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        self.through(x, &AttentionMask::none(), cx)
    }
}
