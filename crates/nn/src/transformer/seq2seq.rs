//! Encoder and decoder together.

use super::decoder::TransformerDecoder;
use super::encoder::TransformerEncoder;
use super::feed_forward::norm;
use super::options::TransformerOptions;
use crate::init::Initializer;
use crate::{AttentionMask, Cx, Init, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Result, Tensor};

/// An encoder of the source and a decoder of the target that attends to it, each with a last normalization. In PyTorch:
/// `torch.nn.Transformer(batch_first=True)`. All matrices start Xavier uniform, as in PyTorch.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{AttentionMask, Cx, Init, Transformer, TransformerOptions};
/// let device = gradus_cpu::device();
/// let options = TransformerOptions::new(16, 4).feed_forward(32);
/// let model = Transformer::new(options, 1, 1, &mut Init::new(device, 0));
/// let (source, target) = (Tensor::ones([2, 7, 16], device), Tensor::ones([2, 5, 16], device));
/// let masks = [AttentionMask::none(), AttentionMask::causal(), AttentionMask::none()];
/// assert_eq!(model.run(&source, &target, [&masks[0], &masks[1], &masks[2]], &Cx::eval()).dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct Transformer {
    /// Of the source.
    pub encoder: TransformerEncoder,
    /// Of the target.
    pub decoder: TransformerDecoder,
    site: Site,
}

impl Transformer {
    /// So many layers of the encoder and the decoder. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: TransformerOptions, encoders: usize, decoders: usize, init: &mut Init) -> Transformer {
        or_raise(Transformer::try_new(options, encoders, decoders, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(
        options: TransformerOptions,
        encoders: usize,
        decoders: usize,
        init: &mut Init,
    ) -> Result<Transformer> {
        let encoder = TransformerEncoder::try_new(options, encoders, init)?.norm(norm(&options, init)?);
        let decoder = TransformerDecoder::try_new(options, decoders, init)?.norm(norm(&options, init)?);
        let mut model = Transformer { encoder, decoder, site: Site::default() };
        let (key, mut outcome) = (init.next_key(), Ok(()));
        model.for_each_parameter_mut(&mut |name, p| {
            if p.rank() > 1 {
                let xavier = Initializer::XavierUniform { gain: 1.0 };
                let drawn = xavier.try_draw(*p.shape(), init.place(), key.fold(name));
                outcome = std::mem::replace(&mut outcome, Ok(())).and_then(|()| p.value_mut().set_value(&drawn?));
            }
        });
        outcome.map(|()| model)
    }
    /// The decoder's result `[batch, length, width]` for a target, which attends to the encoder's of the source (both with the batch,
    /// or none). The masks are of the source's tokens, of the target's, and of the target's view of the encoder's results. Panics
    /// at the caller's line if they do not fit.
    #[track_caller]
    pub fn run(&self, source: &Tensor, target: &Tensor, masks: [&AttentionMask; 3], cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let memory = self.encoder.run(source, masks[0], cx);
        let y = self.decoder.run(target, &memory, masks[1], masks[2], cx);
        cx.passed(self, y)
    }
}
