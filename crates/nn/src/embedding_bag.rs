//! A table of vectors, whose rows are summed bag by bag.

use crate::init::{Init, Initializer};
use crate::layer::layer;
use crate::{Cx, Module, Param, Site};
use gradus_core::error::or_raise;
pub use gradus_core::functional::embedding_bag::BagMode;
use gradus_core::functional::embedding_bag::EmbeddingBagOptions;
use gradus_core::{Error, Result, Tensor};

/// The sum, mean or maximum of the rows that each bag of indices names: integers `[bags, n]` → `[bags, width]`. In PyTorch:
/// `torch.nn.EmbeddingBag`.
///
/// The table `[rows, width]` starts standard normal. Bags of several sizes are one list of indices with the place where each
/// begins: [`bags`](Self::bags). An index out of range is an error.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{BagMode, Cx, EmbeddingBag, Init, Layer};
/// let device = gradus_cpu::device();
/// let table = EmbeddingBag::new(10, 4, BagMode::Sum, &mut Init::new(device, 0));
/// let index = Tensor::from_vec(vec![3i64, 0, 7, 3, 1, 2], [6], device);
/// assert_eq!(table.call(&index.reshape([2, 3]), &Cx::eval()).dims(), [2, 4]);
/// let starts = Tensor::from_vec(vec![0i64, 2, 2], [3], device); // of 2, 0 and 4 indices
/// assert_eq!(table.bags(&index, &starts, None, &Cx::eval()).dims(), [3, 4]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = EmbeddingBag::described)]
pub struct EmbeddingBag {
    /// The table, `[rows, width]`.
    pub weight: Param,
    #[module(skip)]
    mode: BagMode,
    include_last: bool,
    padding: Option<usize>,
    site: Site,
}

impl EmbeddingBag {
    /// A table of `rows` vectors of `width` numbers. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(rows: usize, width: usize, mode: BagMode, init: &mut Init) -> EmbeddingBag {
        or_raise(EmbeddingBag::try_new(rows, width, mode, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(rows: usize, width: usize, mode: BagMode, init: &mut Init) -> Result<EmbeddingBag> {
        let key = init.next_key().fold("weight");
        let weight = Initializer::Normal { mean: 0.0, std: 1.0 }.try_draw([rows, width], init.place(), key)?;
        let weight = Param::try_new(weight)?;
        Ok(EmbeddingBag { weight, mode, include_last: false, padding: None, site: Site::default() })
    }
    /// With row `index` for padding: it is zeroed now, counts in no bag, and no gradient reaches it. Panics at the caller's line if
    /// there is no such row.
    #[track_caller]
    pub fn padding_index(self, index: usize) -> EmbeddingBag {
        or_raise(self.try_padding_index(index))
    }
    /// As [`padding_index`](Self::padding_index), with misuse returned as an error.
    pub fn try_padding_index(mut self, index: usize) -> Result<EmbeddingBag> {
        let (rows, table) = (self.weight.dim(0), self.weight.detach());
        if index >= rows {
            return Err(Error::misuse(format!("padding index {index} is no row of a table of {rows}")));
        }
        let at = Tensor::try_from_vec(vec![index as i64], [1], table.device())?;
        let zeros = Tensor::try_zeros([1, table.dim(1)], table.place())?;
        self.weight.replace(table.try_index_copy(0, &at, &zeros)?)?;
        self.padding = Some(index);
        Ok(self)
    }
    /// Whether the last of the places where bags begin is the end of the last bag.
    pub fn include_last_offset(mut self, include: bool) -> EmbeddingBag {
        self.include_last = include;
        self
    }

    /// One row for each bag: of `index` `[n]`, bag b begins at `starts[b]`. With `weights` `[n]`, each row counts as often (sums
    /// alone). Panics at the caller's line if they do not fit.
    #[track_caller]
    pub fn bags(&self, index: &Tensor, starts: &Tensor, weights: Option<&Tensor>, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_bags(index, Some(starts), weights));
        cx.observe(self, &y);
        y
    }

    #[track_caller]
    fn try_bags(&self, index: &Tensor, starts: Option<&Tensor>, weights: Option<&Tensor>) -> Result<Tensor> {
        let options = EmbeddingBagOptions {
            mode: self.mode,
            offsets: starts.cloned(),
            include_last_offset: self.include_last && starts.is_some(),
            weights: weights.cloned(),
            padding: self.padding,
        };
        self.weight.try_embedding_bag(index, &options)
    }

    fn described(&self) -> String {
        format!("{} × {}, {:?}", self.weight.dim(0), self.weight.dim(1), self.mode)
    }
}

layer!(EmbeddingBag, |self, x, _cx| self.try_bags(x, None, None));
