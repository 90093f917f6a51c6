//! Contrastive loss of pairs (van den Oord et al., "Representation learning with contrastive predictive coding", 2018).

use super::{Loss, Losses, Reduction, misfit, options, positive};
use crate::Module;
use gradus_core::functional::loss::CrossEntropyOptions;
use gradus_core::{DType, Result, Tensor};

/// InfoNCE: −ln(e^(qᵢ·kᵢ/τ) / Σⱼ e^(qᵢ·kⱼ/τ)) for queries q and keys k `[rows, width]`, scaled to length 1: each query is to
/// find its own key among those of the batch.
///
/// The symmetric form (CLIP, SimCLR's pairs) takes the mean with the same of keys finding their queries.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{InfoNce, Loss};
/// let q = Tensor::eye(4, gradus_cpu::device());
/// let loss = InfoNce::new().temperature(0.01).forward(&q, &q);
/// assert!(loss.item::<f32>()? < 1e-6);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct InfoNce {
    /// τ: the smaller, the more the hardest negatives count.
    pub temperature: f64,
    /// Whether keys have to find their queries, too.
    pub symmetric: bool,
    /// How the rows' losses become one number.
    pub reduction: Reduction,
}

impl Default for InfoNce {
    fn default() -> InfoNce {
        InfoNce { temperature: 0.1, symmetric: false, reduction: Reduction::Mean }
    }
}

impl InfoNce {
    /// τ 0.1, queries to keys alone, the mean.
    pub fn new() -> InfoNce {
        InfoNce::default()
    }
    options! {
        /// With this τ.
        temperature: f64,
        /// Whether keys have to find their queries, too.
        symmetric: bool,
        /// With this reduction.
        reduction: Reduction
    }

    /// Its loss with negatives of one's own, `[negatives, width]`, in place of the other rows' keys.
    pub fn try_forward_against(&self, query: &Tensor, key: &Tensor, negatives: &Tensor) -> Result<Tensor> {
        let [q, k] = self.unit(query, key)?;
        if negatives.rank() != 2 || negatives.dim(1) != query.dim(1) {
            return Err(misfit("info_nce", "needs negatives [negatives, width]", [query, key, negatives]));
        }
        let own = q.try_mul(&k)?.try_sum_dims(&[1], true)?;
        let others = q.try_matmul(&scaled(negatives)?.try_t()?)?;
        let scores = Tensor::try_cat(&[&own, &others], 1)? / self.temperature;
        let first = Tensor::try_zeros([query.dim(0)], query.device().with(DType::I64))?;
        Losses::from(rows(&scores, &first)?).reduced(self.reduction)
    }

    fn unit(&self, query: &Tensor, key: &Tensor) -> Result<[Tensor; 2]> {
        if query.rank() != 2 || query.shape() != key.shape() || !query.dtype().is_float() {
            return Err(misfit("info_nce", "needs queries and keys of one shape [rows, width]", [query, key]));
        }
        positive("info_nce", "the temperature", self.temperature)?;
        Ok([scaled(query)?, scaled(key)?])
    }
}

/// Rows of length 1; one of length 0 stays.
fn scaled(x: &Tensor) -> Result<Tensor> {
    x.try_div(&(x.try_square()?.try_sum_dims(&[-1], true)? + 1e-24).try_sqrt()?)
}

/// The cross-entropy of each row.
fn rows(scores: &Tensor, target: &Tensor) -> Result<Tensor> {
    scores.try_cross_entropy_with(target, &CrossEntropyOptions { reduction: Reduction::None, ..Default::default() })
}

impl Loss for InfoNce {
    fn try_losses(&self, query: &Tensor, key: &Tensor) -> Result<Losses> {
        let [q, k] = self.unit(query, key)?;
        let scores = q.try_matmul(&k.try_t()?)? / self.temperature;
        let own = Tensor::try_arange(0i64, query.dim(0) as i64, 1i64, query.device().with(DType::I64))?;
        let forth = rows(&scores, &own)?;
        Ok(match self.symmetric {
            true => ((forth.try_add(&rows(&scores.try_t()?, &own)?)?) * 0.5).into(),
            false => forth.into(),
        })
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
