//! A table of vectors, looked up by index.

use crate::init::{Init, Initializer};
use crate::layer::layer;
use crate::{Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// Row i of a table for each index i: integers `[..]` → `[.., width]`. In PyTorch: `torch.nn.Embedding`.
///
/// The table `[rows, width]` starts standard normal. An index out of range is an error.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Embedding, Init, Layer};
/// let device = gradus_cpu::device();
/// let table = Embedding::new(100, 16, &mut Init::new(device, 0)).padding_index(0);
/// let y = table.call(&Tensor::from_vec(vec![3i64, 0, 7, 3], [2, 2], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 2, 16]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = Embedding::options)]
pub struct Embedding {
    /// The table, `[rows, width]`.
    pub weight: Param,
    padding: Option<usize>,
    #[module(skip)]
    max_norm: Option<(f64, f64)>,
    site: Site,
}

impl Embedding {
    /// A table of `rows` vectors of `width` numbers. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(rows: usize, width: usize, init: &mut Init) -> Embedding {
        or_raise(Embedding::try_new(rows, width, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(rows: usize, width: usize, init: &mut Init) -> Result<Embedding> {
        let key = init.next_key().fold("weight");
        let weight = Initializer::Normal { mean: 0.0, std: 1.0 }.try_draw([rows, width], init.place(), key)?;
        Ok(Embedding { weight: Param::try_new(weight)?, padding: None, max_norm: None, site: Site::default() })
    }
    /// With row `index` for padding: it is zeroed now, and no gradient reaches it. Panics at the caller's line if there is no
    /// such row.
    #[track_caller]
    pub fn padding_index(self, index: usize) -> Embedding {
        or_raise(self.try_padding_index(index))
    }
    /// As [`padding_index`](Self::padding_index), with misuse returned as an error.
    pub fn try_padding_index(mut self, index: usize) -> Result<Embedding> {
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
    /// With rows that are scaled down to length `norm` where they are longer, by their p-norm (2 is usual).
    ///
    /// PyTorch's layer shortens the table itself as it looks rows up. This one gives shortened rows, and their gradient as if they
    /// had been that short; [`renormalize`](Self::renormalize) shortens the table.
    pub fn max_norm(mut self, norm: f64, p: f64) -> Embedding {
        self.max_norm = Some((norm, p));
        self
    }
    /// Scales down the rows that are longer than the greatest length, if there is one: after each step of an optimizer, say.
    pub fn renormalize(&mut self) -> Result<()> {
        let Some((norm, p)) = self.max_norm else { return Ok(()) };
        let short = shortened(&self.weight.detach(), norm, p)?;
        self.weight.value_mut().set_value(&short)
    }
    /// The row for padding, if there is one.
    pub fn padding(&self) -> Option<usize> {
        self.padding
    }

    fn options(&self) -> String {
        let padding = self.padding.map_or_else(String::new, |i| format!(", padding {i}"));
        format!("{} × {}{padding}", self.weight.dim(0), self.weight.dim(1))
    }
    #[track_caller]
    fn look_up(&self, index: &Tensor) -> Result<Tensor> {
        let mut rows = self.weight.try_embedding(index)?;
        if let Some((norm, p)) = self.max_norm {
            // The short rows' values, and the gradient of rows as they are.
            let still = rows.detach();
            rows = rows.try_add(&shortened(&still, norm, p)?.try_sub(&still)?)?;
        }
        match self.padding {
            Some(padding) if rows.is_tracked() => {
                let kept = index.try_ne_scalar(padding as i64)?.try_unsqueeze(-1)?;
                // The same value, by a way that no gradient takes.
                rows.try_where(&kept, &rows.detach())
            }
            _ => Ok(rows),
        }
    }
}

/// Rows scaled down to length `norm` where they are longer, as PyTorch does it.
fn shortened(rows: &Tensor, norm: f64, p: f64) -> Result<Tensor> {
    let lens = rows.try_norm(p, &[-1], true)?;
    let scale = (norm / (&lens + 1e-7)).try_masked_fill(&lens.try_le_scalar(norm)?, 1.0)?;
    rows.try_mul(&scale)
}

layer!(Embedding, |self, x, _cx| self.look_up(x));
