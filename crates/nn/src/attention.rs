//! Multi-head attention (Vaswani et al., "Attention is all you need", 2017).

use crate::init::{Init, Initializer};
use crate::{Cx, Layer, Linear, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{Error, Result, Tensor};

/// Attention of queries to keys and values in several heads, each projected from and back to `width` numbers:
/// concat(softmax(qᵢ·kᵢᵀ/√(width/heads))·vᵢ)·Wₒᵀ + bₒ. In PyTorch: `torch.nn.MultiheadAttention(batch_first=True)`, whose
/// parameters' names and layouts it has.
///
/// The projections of queries, keys and values lie in one weight, in this order; it starts Xavier uniform, its bias at 0.
///
/// As a [`Layer`] it is self-attention of x `[batch, length, width]` (or without the batch).
/// [`attend`](Self::attend) takes queries, keys, values and a mask.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, MultiheadAttention};
/// let device = gradus_cpu::device();
/// let attention = MultiheadAttention::new(16, 4, &mut Init::new(device, 0)).causal();
/// let y = attention.call(&Tensor::ones([2, 5, 16], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 5, 16]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = MultiheadAttention::options)]
pub struct MultiheadAttention {
    /// The projections of queries, keys and values, `[3·width, width]`.
    pub in_proj_weight: Param,
    /// Their biases, `[3·width]`.
    pub in_proj_bias: Option<Param>,
    /// The projection of the heads' results, `[width, width]`.
    pub out_proj: Linear,
    heads: usize,
    dropout: f64,
    causal: bool,
    site: Site,
}

impl MultiheadAttention {
    /// `heads` heads of `width/heads` numbers each. Panics at the caller's line if they are not whole.
    #[track_caller]
    pub fn new(width: usize, heads: usize, init: &mut Init) -> MultiheadAttention {
        or_raise(MultiheadAttention::try_new(width, heads, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(width: usize, heads: usize, init: &mut Init) -> Result<MultiheadAttention> {
        let rows = width.checked_mul(3);
        let (Some(rows), true) = (rows, heads > 0 && width.is_multiple_of(heads)) else {
            return Err(Error::misuse(format!("attention: {width} numbers do not fall into {heads} heads")));
        };
        let (place, key) = (init.place(), init.next_key());
        let weight =
            Initializer::XavierUniform { gain: 1.0 }.try_draw([rows, width], place, key.fold("in_proj_weight"))?;
        let mut out_proj = Linear::try_new(width, width, init)?;
        out_proj.bias = Some(Param::try_new(Tensor::try_zeros([width], place)?)?);
        Ok(MultiheadAttention {
            in_proj_weight: Param::try_new(weight)?,
            in_proj_bias: Some(Param::try_new(Tensor::try_zeros([rows], place)?)?),
            out_proj,
            heads,
            dropout: 0.0,
            causal: false,
            site: Site::default(),
        })
    }
    /// With this probability of dropping an attention probability in training.
    pub fn dropout(mut self, p: f64) -> MultiheadAttention {
        self.dropout = p;
        self
    }
    /// As a layer, each place sees itself and the places before it alone.
    pub fn causal(mut self) -> MultiheadAttention {
        self.causal = true;
        self
    }
    /// Whether the projections have biases.
    pub fn bias(mut self, bias: bool) -> MultiheadAttention {
        self.in_proj_bias = self.in_proj_bias.filter(|_| bias);
        self.out_proj = self.out_proj.bias(bias);
        self
    }

    /// The attention of `query` `[batch, queries, width]` to `key` and `value` `[batch, keys, width]` (all with the batch, or
    /// none). Panics at the caller's line if they do not fit.
    ///
    /// Of the options, the mask (it broadcasts to `[batch, heads, queries, keys]`; `bool`, true where a key may be seen, or
    /// numbers added to the scores), causality and scale are taken; dropout is the layer's own. (A mask of truth values in
    /// PyTorch's layer says the opposite, which keys may *not* be seen.)
    #[track_caller]
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, options: &AttentionOptions, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_attend([query, key, value], options, cx));
        cx.observe(self, &y);
        y
    }

    #[track_caller]
    fn try_attend(&self, inputs: [&Tensor; 3], options: &AttentionOptions, cx: &Cx) -> Result<Tensor> {
        let width = self.in_proj_weight.dim(1);
        let ranks = inputs.map(Tensor::rank);
        let fits = ranks[0] == ranks[1]
            && ranks[1] == ranks[2]
            && matches!(ranks[0], 2 | 3)
            && inputs.iter().all(|t| t.dim(-1) == width);
        if !fits {
            let message = format!("needs queries, keys and values [batch, length, {width}], or all without the batch");
            return Err(Error::misuse(message).in_op("attention", inputs.map(|t| (t.dtype(), *t.shape()))));
        }
        let [q, k, v] = self.project(inputs)?;
        let mut options = AttentionOptions { dropout: None, ..options.clone() };
        if cx.is_training() && self.dropout > 0.0 {
            options = options.dropout(self.dropout, cx.key(self.site.stream()));
        }
        let heads = |t: &Tensor| {
            let split = [&t.dims()[..t.rank() - 1], &[self.heads, width / self.heads]].concat();
            t.try_reshape(split)?.try_transpose(-3, -2) // [.., heads, length, width/heads]
        };
        let y = heads(&q)?.try_attention(&heads(&k)?, &heads(&v)?, &options)?.try_transpose(-3, -2)?;
        let y = y.try_reshape([&q.dims()[..q.rank() - 1], &[width]].concat())?; // [.., queries, width]
        Ok(self.out_proj.call(&y, cx))
    }

    /// Queries, keys and values: one product where they are projected from the same tensor.
    #[track_caller]
    fn project(&self, [q, k, v]: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        let width = self.in_proj_weight.dim(1);
        let (weight, bias) = (&*self.in_proj_weight, self.in_proj_bias.as_deref());
        if std::ptr::eq(q, k) && std::ptr::eq(k, v) {
            let all = q.try_linear(weight, bias)?;
            let part = |i: usize| all.try_narrow(-1, i * width, width);
            return Ok([part(0)?, part(1)?, part(2)?]);
        }
        let part = |x: &Tensor, i: usize| {
            let bias = bias.map(|b| b.try_narrow(0, i * width, width)).transpose()?;
            x.try_linear(&weight.try_narrow(0, i * width, width)?, bias.as_ref())
        };
        Ok([part(q, 0)?, part(k, 1)?, part(v, 2)?])
    }

    fn options(&self) -> String {
        let dropout = if self.dropout > 0.0 { format!(", dropout {}", self.dropout) } else { String::new() };
        let causal = if self.causal { ", causal" } else { "" };
        format!("{}, {} heads{dropout}{causal}", self.in_proj_weight.dim(1), self.heads)
    }
}

impl Layer for MultiheadAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let options = AttentionOptions { causal: self.causal, ..Default::default() };
        or_raise(self.try_attend([x, x, x], &options, cx))
    }
}
