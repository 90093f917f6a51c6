//! Grouped-query attention (Ainslie et al., "GQA", 2023), as in Llama and Mistral.

use super::cache::KvCache;
use super::rotary::RotaryEmbedding;
use crate::init::Init;
use crate::{Cx, Layer, Linear, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{DType, Error, Result, Tensor};

/// Causal self-attention in which several heads of queries share a head of keys and values, with rotary positions and a cache.
///
/// Parameters have the names of Llama's checkpoints: `q_proj`, `k_proj`, `v_proj`, `o_proj` (without biases). One head of keys and
/// values is multi-query attention; as many as of queries, multi-head attention.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, GroupedQueryAttention, Init, KvCache, Layer, RotaryEmbedding};
/// let device = gradus_cpu::device();
/// let attention = GroupedQueryAttention::new(16, 4, 2, &mut Init::new(device, 0)).rotary(RotaryEmbedding::new(4));
/// let x = Tensor::randn([1, 3, 16], device, 7);
/// let whole = attention.call(&x, &Cx::eval());
/// // Token by token, each sees those before it through the cache.
/// let mut cache = KvCache::new();
/// let mut last = attention.step(&x.narrow(1, 0, 2), &mut cache, &Cx::eval());
/// last = attention.step(&x.narrow(1, 2, 1), &mut cache, &Cx::eval());
/// assert!((last - whole.narrow(1, 2, 1)).abs().amax(&[0, 1, 2], false).item::<f32>()? < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = GroupedQueryAttention::described)]
pub struct GroupedQueryAttention {
    /// To the queries, `[width, width]`.
    pub q_proj: Linear,
    /// To the keys, `[heads of keys · width/heads, width]`.
    pub k_proj: Linear,
    /// To the values, of the same size.
    pub v_proj: Linear,
    /// From the heads' results, `[width, width]`.
    pub o_proj: Linear,
    rotary: Option<RotaryEmbedding>,
    heads: usize,
    kv_heads: usize,
    causal: bool,
    dropout: f64,
    site: Site,
}

impl GroupedQueryAttention {
    /// `heads` heads of queries, which share `kv_heads` heads of keys and values; causal, without positions. Panics at the
    /// caller's line if the numbers do not divide each other.
    #[track_caller]
    pub fn new(width: usize, heads: usize, kv_heads: usize, init: &mut Init) -> GroupedQueryAttention {
        or_raise(GroupedQueryAttention::try_new(width, heads, kv_heads, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(width: usize, heads: usize, kv_heads: usize, init: &mut Init) -> Result<GroupedQueryAttention> {
        if heads == 0 || kv_heads == 0 || !width.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) {
            return Err(Error::misuse(format!(
                "attention: {width} numbers in {heads} heads, which share {kv_heads} heads of keys: each must divide the one before"
            )));
        }
        let narrow = width / heads * kv_heads;
        Ok(GroupedQueryAttention {
            q_proj: Linear::try_new(width, width, init)?.bias(false),
            k_proj: Linear::try_new(width, narrow, init)?.bias(false),
            v_proj: Linear::try_new(width, narrow, init)?.bias(false),
            o_proj: Linear::try_new(width, width, init)?.bias(false),
            rotary: None,
            heads,
            kv_heads,
            causal: true,
            dropout: 0.0,
            site: Site::default(),
        })
    }
    /// With queries and keys turned by their positions.
    pub fn rotary(mut self, rotary: RotaryEmbedding) -> GroupedQueryAttention {
        self.rotary = Some(rotary);
        self
    }
    /// Whether each place sees itself and the places before it alone (as it does unless told otherwise).
    pub fn causal(mut self, causal: bool) -> GroupedQueryAttention {
        self.causal = causal;
        self
    }
    /// With this probability of dropping an attention probability in training.
    pub fn dropout(mut self, p: f64) -> GroupedQueryAttention {
        self.dropout = p;
        self
    }

    /// The results of new tokens x `[batch, length, width]`, which come after those in the cache and are added to it. Panics at the
    /// caller's line if they do not fit.
    #[track_caller]
    pub fn step(&self, x: &Tensor, cache: &mut KvCache, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_run(x, Some(cache), cx));
        cx.passed(self, y)
    }

    #[track_caller]
    fn try_run(&self, x: &Tensor, cache: Option<&mut KvCache>, cx: &Cx) -> Result<Tensor> {
        let width = self.q_proj.weight.dim(1);
        if x.rank() != 3 || x.dim(-1) != width {
            let message = format!("needs an input [batch, length, {width}]");
            return Err(Error::misuse(message).in_op("attention", [(x.dtype(), *x.shape())]));
        }
        let (batch, length) = (x.dim(0), x.dim(1));
        let start = cache.as_ref().map_or(0, |c| c.len());
        let heads = |y: Tensor, n: usize| y.try_reshape([batch, length, n, width / self.heads])?.try_transpose(1, 2);
        let mut q = heads(self.q_proj.call(x, cx), self.heads)?;
        let mut k = heads(self.k_proj.call(x, cx), self.kv_heads)?;
        let mut v = heads(self.v_proj.call(x, cx), self.kv_heads)?;
        if let Some(rotary) = &self.rotary {
            (q, k) = (rotary.try_rotate(&q, start)?, rotary.try_rotate(&k, start)?);
        }
        if let Some(cache) = cache {
            (k, v) = cache.push(&k, &v)?;
        }
        let mut options = AttentionOptions { causal: self.causal, ..Default::default() }.grouped();
        if self.causal && start > 0 {
            // Query i is at position start + i.
            let seen = Tensor::try_ones([length, start + length], x.device().with(DType::Bool))?;
            options.causal = false;
            options.mask = (length > 1).then(|| seen.try_tril(start as i64)).transpose()?;
        }
        if cx.is_training() && self.dropout > 0.0 {
            options = options.dropout(self.dropout, cx.key(self.site.stream()));
        }
        let y = q.try_attention(&k, &v, &options)?; // [batch, heads, length, width/heads]
        Ok(self.o_proj.call(&y.try_transpose(1, 2)?.try_reshape([batch, length, width])?, cx))
    }

    fn described(&self) -> String {
        format!("{}, {} heads, {} of keys", self.q_proj.weight.dim(1), self.heads, self.kv_heads)
    }
}

impl Layer for GroupedQueryAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        or_raise(self.try_run(x, None, cx))
    }
}
