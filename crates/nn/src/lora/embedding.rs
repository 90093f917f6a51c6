//! An adapter beside an embedding.

use super::adapter::LoraOptions;
use crate::init::{Init, Initializer};
use crate::layer::layer;
use crate::{Cx, Embedding, Layer, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// Row i of W + scale·(B·A)ᵀ for each index i, of which A and B alone are trained. A starts at 0, B normal, as in Microsoft's and
/// Hugging Face's implementations.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Embedding, Init, Layer, LoraEmbedding, LoraOptions};
/// let device = gradus_cpu::device();
/// let mut init = Init::new(device, 0);
/// let table = LoraEmbedding::new(Embedding::new(10, 6, &mut init), LoraOptions::new(2), &mut init);
/// let y = table.call(&Tensor::from_vec(vec![3i64, 0, 7], [3], device), &Cx::eval());
/// assert_eq!(y.dims(), [3, 6]);
/// ```
#[derive(Module, Clone, Debug)]
pub struct LoraEmbedding {
    /// The frozen table.
    pub base: Embedding,
    /// A, `[rank, rows]`.
    pub lora_a: Param,
    /// B, `[width, rank]`.
    pub lora_b: Param,
    scale: f64,
    site: Site,
}

impl LoraEmbedding {
    /// This table, frozen, with an adapter. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(base: Embedding, options: LoraOptions, init: &mut Init) -> LoraEmbedding {
        or_raise(LoraEmbedding::try_new(base, options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(mut base: Embedding, options: LoraOptions, init: &mut Init) -> Result<LoraEmbedding> {
        if options.rank == 0 {
            return Err(Error::misuse("an adapter has a rank of 1 at least"));
        }
        base.freeze();
        let (rows, width) = (base.weight.dim(0), base.weight.dim(1));
        let (place, key) = (init.place(), init.next_key());
        let normal = Initializer::Normal { mean: 0.0, std: 1.0 };
        Ok(LoraEmbedding {
            base,
            lora_a: Param::try_new(Tensor::try_zeros([options.rank, rows], place)?)?,
            lora_b: Param::try_new(normal.try_draw([width, options.rank], place, key.fold("lora_b"))?)?,
            scale: options.scale(),
            site: Site::default(),
        })
    }
    /// One table that gives the same, to be trained.
    pub fn merged(mut self) -> Result<Embedding> {
        let delta = self.lora_b.try_matmul(&self.lora_a)?.try_t()? * self.scale;
        let table = self.base.weight.try_add(&delta)?.detach();
        self.base.weight.replace(table)?;
        self.base.unfreeze();
        Ok(self.base)
    }
    #[track_caller]
    fn run(&self, index: &Tensor, cx: &Cx) -> Result<Tensor> {
        let thin = self.lora_a.try_t()?.try_embedding(index)?; // [.., rank]
        self.base.call(index, cx).try_add(&(thin.try_linear(&self.lora_b, None)? * self.scale))
    }
}

layer!(LoraEmbedding, |self, x, cx| self.run(x, cx));
