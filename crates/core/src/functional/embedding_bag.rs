//! Bags of embeddings: rows of a table, summed, averaged or maximized bag by bag.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::ScatterReduceOp;
use crate::tensor::Tensor;

/// How the rows of a bag become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BagMode {
    /// Their sum.
    Sum,
    /// Their mean; 0 for an empty bag.
    #[default]
    Mean,
    /// The largest of each column; 0 for an empty bag.
    Max,
}

/// The options of [`Tensor::embedding_bag`]. By default: means of bags of equal size.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingBagOptions {
    /// How the rows of a bag become one.
    pub mode: BagMode,
    /// Where each bag begins in indices `[n]`; `None` for indices `[bags, n]`.
    pub offsets: Option<Tensor>,
    /// Whether the last offset is the end of the last bag, not the beginning of another.
    pub include_last_offset: bool,
    /// A weight for each index (sums alone).
    pub weights: Option<Tensor>,
    /// An index that does not count.
    pub padding: Option<usize>,
}

impl EmbeddingBagOptions {
    /// Bags of equal size in this mode.
    pub fn new(mode: BagMode) -> EmbeddingBagOptions {
        EmbeddingBagOptions { mode, ..EmbeddingBagOptions::default() }
    }

    /// For each of `n` indices, its bag; and how many bags there are.
    fn bags(&self, index: &Tensor) -> Result<(Tensor, usize)> {
        let place = Tensor::try_count(index.elements(), index.device())?;
        match (&self.offsets, index.dims()) {
            (None, &[bags, n]) => {
                Ok((place.try_binary_scalar(crate::ops::BinaryOp::FloorDivide, n.max(1) as i64)?, bags))
            }
            (Some(offsets), &[_]) if offsets.rank() == 1 && offsets.dtype().is_int() => {
                let count = offsets.elements();
                let bags = count.checked_sub(usize::from(self.include_last_offset));
                let bags = bags.ok_or_else(|| Error::misuse("there is no last offset to include"))?;
                let starts = offsets.try_narrow(0, 0, bags)?.try_to_dtype(DType::I64)?;
                // The last bag that begins at or before the place.
                Ok((starts.try_searchsorted(&place, true)? - 1i64, bags))
            }
            _ => Err(Error::misuse("needs indices [bags, n], or indices [n] and integer offsets [bags]")),
        }
    }
}

/// The rows of a bag as one, `[bags, width]`.
fn gathered(rows: &Tensor, bag: &Tensor, counted: &Tensor, bags: usize, mode: BagMode) -> Result<Tensor> {
    let zeros = Tensor::try_zeros([bags, rows.dims()[1]], rows.place())?;
    if mode == BagMode::Max {
        let lowest = rows.try_masked_fill(&counted.try_eq_scalar(0.0)?, f64::NEG_INFINITY)?;
        let at = bag.try_unsqueeze(1)?.try_expand(*rows.shape())?;
        let y = zeros.try_scatter_reduce(0, &at, &lowest, ScatterReduceOp::Max, false)?;
        return y.try_masked_fill(&y.detach().try_eq_scalar(f64::NEG_INFINITY)?, 0.0);
    }
    let sum = zeros.try_index_add(0, bag, &rows.try_mul(counted)?)?;
    if mode == BagMode::Sum {
        return Ok(sum);
    }
    let none = Tensor::try_zeros([bags, 1], rows.place())?;
    sum.try_div(&none.try_index_add(0, bag, counted)?.try_clamp(Some(1.0), None)?)
}

impl Tensor {
    crate::fallible! {
        /// The rows of this table `[rows, width]` that `index` names, one row for each bag: `[bags, width]`. In PyTorch:
        /// `torch.nn.functional.embedding_bag(index, table)`; see [`EmbeddingBagOptions`].
        pub fn embedding_bag | try_embedding_bag(&self, index: &Tensor, options: &EmbeddingBagOptions) -> Tensor {
            let named = |e: Error| e.in_op("embedding_bag", [(self.dtype(), *self.shape()), (index.dtype(), *index.shape())]);
            if options.weights.as_ref().is_some_and(|w| options.mode != BagMode::Sum || w.shape() != index.shape()) {
                return Err(named(Error::misuse("weights are for sums, and need the shape of the indices")));
            }
            let (bag, bags) = options.bags(index).map_err(named)?;
            let flat = index.try_reshape([index.elements()])?;
            let rows = self.try_embedding(&flat)?;
            let counted = match options.padding {
                Some(p) => flat.try_ne_scalar(p)?.try_to_dtype(self.dtype())?,
                None => Tensor::try_ones([flat.elements()], self.place())?,
            };
            let rows = match &options.weights {
                Some(w) => rows.try_mul(&w.try_reshape([flat.elements(), 1])?)?,
                None => rows,
            };
            gathered(&rows, &bag, &counted.try_unsqueeze(1)?, bags, options.mode)
        }
    }
}
