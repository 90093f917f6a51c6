//! Keys and values of the tokens so far, so that each new token computes its own alone.

use gradus_core::{Error, Result, Tensor};

/// The keys and values of one attention layer, `[batch, heads, length, width/heads]`.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    kept: Option<(Tensor, Tensor)>,
}

impl KvCache {
    /// Nothing yet.
    pub fn new() -> KvCache {
        KvCache::default()
    }
    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.kept.as_ref().map_or(0, |(k, _)| k.dim(-2))
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.kept = None;
    }
    /// Forgets the tokens from `len` on.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if let Some((k, v)) = self.kept.take().filter(|_| len > 0) {
            let len = len.min(k.dim(-2));
            self.kept = Some((k.try_narrow(-2, 0, len)?, v.try_narrow(-2, 0, len)?));
        }
        Ok(())
    }
    /// Adds tokens, and gives the keys and values of all.
    pub fn push(&mut self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let all = match &self.kept {
            None => (key.clone(), value.clone()),
            Some((k, v)) => {
                let fits = |old: &Tensor, new: &Tensor| {
                    let d = old.rank().saturating_sub(2);
                    old.rank() == new.rank() && old.rank() >= 2 && old.shape().with(d, 0) == new.shape().with(d, 0)
                };
                if !fits(k, key) || !fits(v, value) {
                    return Err(Error::misuse(format!(
                        "a cache of keys {} and values {} does not take {} and {}",
                        k.shape(),
                        v.shape(),
                        key.shape(),
                        value.shape()
                    )));
                }
                (Tensor::try_cat(&[k, key], -2)?, Tensor::try_cat(&[v, value], -2)?)
            }
        };
        self.kept = Some((all.0.detach(), all.1.detach()));
        Ok(all)
    }
}
