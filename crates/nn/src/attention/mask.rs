//! Which keys a query may see.

use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{DType, Error, Result, Tensor};

/// Which keys queries may see: everything, unless told otherwise.
///
/// Truth values are true where a key may be seen; PyTorch's modules have it the other way round (`key_padding_mask` and `attn_mask`
/// are true where a key may *not* be seen).
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::AttentionMask;
/// // Two sequences, of 3 and 1 tokens; no token sees those after it.
/// let counts = Tensor::from_vec(vec![true, true, true, true, false, false], [2, 3], gradus_cpu::device());
/// let mask = AttentionMask::causal().keys(&counts);
/// # let _ = mask;
/// ```
#[derive(Clone, Debug, Default)]
pub struct AttentionMask {
    /// Broadcasts to `[batch, heads, queries, keys]`: truth values, or numbers added to the scores.
    pub scores: Option<Tensor>,
    /// The keys that count, `[batch, keys]` (or `[keys]` without a batch); truth values, or numbers added to the scores.
    pub keys: Option<Tensor>,
    /// Whether query i sees keys 0 to i alone.
    pub causal: bool,
}

impl AttentionMask {
    /// Everything is seen.
    pub fn none() -> AttentionMask {
        AttentionMask::default()
    }
    /// Query i sees keys 0 to i alone.
    pub fn causal() -> AttentionMask {
        AttentionMask { causal: true, ..Default::default() }
    }
    /// With a mask that broadcasts to `[batch, heads, queries, keys]`.
    pub fn scores(mut self, mask: &Tensor) -> AttentionMask {
        self.scores = Some(mask.clone());
        self
    }
    /// With these keys alone, `[batch, keys]`.
    pub fn keys(mut self, keys: &Tensor) -> AttentionMask {
        self.keys = Some(keys.clone());
        self
    }

    /// As the options of attention.
    pub fn options(&self) -> Result<AttentionOptions> {
        let keys = match &self.keys {
            None => None,
            Some(k) => Some(match k.rank() {
                1 => k.clone(),
                2 => k.try_unsqueeze(1)?.try_unsqueeze(1)?, // [batch, 1, 1, keys]
                r => {
                    return Err(Error::misuse(format!("the keys that count are [batch, keys], not of {r} dimensions")));
                }
            }),
        };
        let mask = match (&self.scores, &keys) {
            (Some(a), Some(b)) => Some(both(a, b)?),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Ok(AttentionOptions { mask, causal: self.causal, ..Default::default() })
    }
}

/// What both masks let be seen.
pub(super) fn both(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.dtype() == DType::Bool, b.dtype() == DType::Bool) {
        (true, true) => a.try_logical_and(b),
        (false, false) => a.try_add(b),
        (true, false) => hidden(b, a),
        (false, true) => hidden(a, b),
    }
}

/// Added scores, −∞ where `seen` is false.
fn hidden(scores: &Tensor, seen: &Tensor) -> Result<Tensor> {
    let none = Tensor::try_full((), f64::NEG_INFINITY, scores.place())?;
    scores.try_where(seen, &none)
}
