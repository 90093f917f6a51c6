//! Multi-head attention (Vaswani et al., "Attention is all you need", 2017).

use super::mask::both;
use crate::init::{Init, Initializer};
use crate::{Cx, Layer, Linear, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{DType, Error, Result, Tensor};

/// Attention of queries to keys and values in several heads, each projected from and back to `width` numbers:
/// concat(softmax(qᵢ·kᵢᵀ/√(width/heads))·vᵢ)·Wₒᵀ + bₒ. In PyTorch: `torch.nn.MultiheadAttention(batch_first=True)`, whose
/// parameters' names and layouts it has.
///
/// The projections of queries, keys and values lie in one weight, in this order, or, where keys or values have a width of their
/// own, in three; they start Xavier uniform, their biases at 0.
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
#[module(describe = MultiheadAttention::described)]
pub struct MultiheadAttention {
    /// The projections of queries, keys and values, `[3·width, width]`, where all have one width.
    pub in_proj_weight: Option<Param>,
    /// The projection of queries, `[width, width]`, where widths differ.
    pub q_proj_weight: Option<Param>,
    /// The projection of keys, `[width, key width]`, where widths differ.
    pub k_proj_weight: Option<Param>,
    /// The projection of values, `[width, value width]`, where widths differ.
    pub v_proj_weight: Option<Param>,
    /// Their biases, `[3·width]`.
    pub in_proj_bias: Option<Param>,
    /// A key that every query sees besides, `[1, 1, width]`.
    pub bias_k: Option<Param>,
    /// Its value, `[1, 1, width]`.
    pub bias_v: Option<Param>,
    /// The projection of the heads' results, `[width, width]`.
    pub out_proj: Linear,
    #[module(skip)]
    options: MultiheadOptions,
    causal: bool,
    site: Site,
}

/// The sizes and options of a [`MultiheadAttention`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MultiheadOptions {
    /// Numbers of queries and results.
    pub width: usize,
    /// How many heads the width falls into.
    pub heads: usize,
    /// Numbers of keys. In PyTorch: `kdim`.
    pub key_width: usize,
    /// Numbers of values. In PyTorch: `vdim`.
    pub value_width: usize,
    /// Whether the projections have biases.
    pub bias: bool,
    /// Whether there is a learnt key and value besides. In PyTorch: `add_bias_kv`.
    pub extra_key: bool,
    /// Whether there is a key and value of zeros besides. In PyTorch: `add_zero_attn`.
    pub zero_key: bool,
    /// The probability of dropping an attention probability in training.
    pub dropout: f64,
}

impl MultiheadOptions {
    /// `heads` heads of `width/heads` numbers, with biases.
    pub fn new(width: usize, heads: usize) -> MultiheadOptions {
        let (key_width, value_width) = (width, width);
        MultiheadOptions {
            width,
            heads,
            key_width,
            value_width,
            bias: true,
            extra_key: false,
            zero_key: false,
            dropout: 0.0,
        }
    }
    /// With keys and values of these widths.
    pub fn key_value_widths(mut self, keys: usize, values: usize) -> Self {
        (self.key_width, self.value_width) = (keys, values);
        self
    }
    /// Whether the projections have biases.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
    /// With a learnt key and value that every query sees.
    pub fn extra_key(mut self) -> Self {
        self.extra_key = true;
        self
    }
    /// With a key and value of zeros that every query sees.
    pub fn zero_key(mut self) -> Self {
        self.zero_key = true;
        self
    }
    /// With this probability of dropping an attention probability in training.
    pub fn dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
}

/// What an adapter adds to a projection (0 to 2: queries, keys, values; 3: the result) of an input.
pub(crate) type Adapt<'a> = &'a dyn Fn(usize, &Tensor) -> Result<Option<Tensor>>;

/// Heads `[batch, heads, length, width/heads]`, the options that go with them, and whether there was a batch.
struct Prepared {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: AttentionOptions,
    had_batch: bool,
}

impl MultiheadAttention {
    /// `heads` heads of `width/heads` numbers each. Panics at the caller's line if they are not whole.
    #[track_caller]
    pub fn new(width: usize, heads: usize, init: &mut Init) -> MultiheadAttention {
        or_raise(MultiheadAttention::try_new(width, heads, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(width: usize, heads: usize, init: &mut Init) -> Result<MultiheadAttention> {
        MultiheadAttention::try_with(MultiheadOptions::new(width, heads), init)
    }
    /// With these sizes and options; misuse is returned as an error.
    pub fn try_with(options: MultiheadOptions, init: &mut Init) -> Result<MultiheadAttention> {
        let MultiheadOptions { width, heads, key_width, value_width, .. } = options;
        let rows = width.checked_mul(3);
        let (Some(rows), true) = (rows, heads > 0 && width.is_multiple_of(heads)) else {
            return Err(Error::misuse(format!("attention: {width} numbers do not fall into {heads} heads")));
        };
        let (place, key) = (init.place(), init.next_key());
        let draw = |shape: [usize; 2], name: &str| {
            let xavier = Initializer::XavierUniform { gain: 1.0 };
            Param::try_new(xavier.try_draw(shape, place, key.fold(name))?).map(Some)
        };
        let one = key_width == width && value_width == width;
        let extra = |name: &str| {
            let normal = Initializer::XavierNormal { gain: 1.0 };
            options
                .extra_key
                .then(|| Param::try_new(normal.try_draw([1, 1, width], place, key.fold(name))?))
                .transpose()
        };
        let mut out_proj = Linear::try_new(width, width, init)?;
        out_proj.bias = Some(Param::try_new(Tensor::try_zeros([width], place)?)?);
        Ok(MultiheadAttention {
            in_proj_weight: if one { draw([rows, width], "in_proj_weight")? } else { None },
            q_proj_weight: if one { None } else { draw([width, width], "q_proj_weight")? },
            k_proj_weight: if one { None } else { draw([width, key_width], "k_proj_weight")? },
            v_proj_weight: if one { None } else { draw([width, value_width], "v_proj_weight")? },
            in_proj_bias: Some(Param::try_new(Tensor::try_zeros([rows], place)?)?).filter(|_| options.bias),
            bias_k: extra("bias_k")?,
            bias_v: extra("bias_v")?,
            out_proj: out_proj.bias(options.bias),
            options,
            causal: false,
            site: Site::default(),
        })
    }
    /// With this probability of dropping an attention probability in training.
    pub fn dropout(mut self, p: f64) -> MultiheadAttention {
        self.options.dropout = p;
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
    /// Whether, as a layer, each place sees itself and the places before it alone.
    pub fn is_causal(&self) -> bool {
        self.causal
    }
    /// Its sizes and options.
    pub fn options(&self) -> &MultiheadOptions {
        &self.options
    }

    /// The attention of `query` `[batch, queries, width]` to `key` and `value` `[batch, keys, width]` (all with the batch, or
    /// none). Panics at the caller's line if they do not fit.
    ///
    /// Of the options, the mask (it broadcasts to `[batch, heads, queries, keys]`; `bool`, true where a key may be seen, or
    /// numbers added to the scores), causality and scale are taken; dropout is the layer's own. (A mask of truth values in
    /// PyTorch's layer says the opposite, which keys may *not* be seen.) [`AttentionMask`](crate::AttentionMask) makes such options.
    #[track_caller]
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, options: &AttentionOptions, cx: &Cx) -> Tensor {
        let _scope = cx.enter(self);
        let y = or_raise(self.try_attend([query, key, value], options, cx));
        cx.passed(self, y)
    }

    /// As [`attend`](Self::attend), and the attention probabilities of each head `[batch, heads, queries, keys]` (after dropout; with
    /// the keys that the layer has besides, last). A query that sees no key has probabilities 0. In PyTorch: `need_weights=True`,
    /// which gives their mean over the heads.
    #[track_caller]
    pub fn attend_with_weights(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        options: &AttentionOptions,
        cx: &Cx,
    ) -> (Tensor, Tensor) {
        let _scope = cx.enter(self);
        let (y, p) = or_raise(self.try_attend_with_weights([query, key, value], options, cx));
        (cx.passed(self, y), p)
    }

    #[track_caller]
    pub(crate) fn try_attend(&self, inputs: [&Tensor; 3], options: &AttentionOptions, cx: &Cx) -> Result<Tensor> {
        self.try_adapted(inputs, options, cx, &|_, _| Ok(None))
    }

    /// As [`attend`](Self::attend), with something added to the projections.
    #[track_caller]
    pub(crate) fn try_adapted(
        &self,
        inputs: [&Tensor; 3],
        options: &AttentionOptions,
        cx: &Cx,
        adapt: Adapt<'_>,
    ) -> Result<Tensor> {
        let Prepared { q, k, v, options, had_batch } = self.prepare(inputs, options, cx, adapt)?;
        self.finish(&q.try_attention(&k, &v, &options)?, had_batch, cx, adapt)
    }

    #[track_caller]
    fn try_attend_with_weights(
        &self,
        inputs: [&Tensor; 3],
        options: &AttentionOptions,
        cx: &Cx,
    ) -> Result<(Tensor, Tensor)> {
        let Prepared { q, k, v, options, had_batch } = self.prepare(inputs, options, cx, &|_, _| Ok(None))?;
        // Attention of the unit vectors in place of the values gives the probabilities.
        let keys = k.dim(-2);
        let unit = Tensor::try_eye(keys, v.place())?.try_expand([&v.dims()[..2], &[keys, keys]].concat())?;
        let p = q.try_attention(&k, &unit, &options)?;
        let y = self.finish(&p.try_matmul(&v)?, had_batch, cx, &|_, _| Ok(None))?;
        Ok((y, if had_batch { p } else { p.try_squeeze(0)? }))
    }

    #[track_caller]
    fn prepare(&self, inputs: [&Tensor; 3], options: &AttentionOptions, cx: &Cx, adapt: Adapt<'_>) -> Result<Prepared> {
        let o = &self.options;
        let widths = [o.width, o.key_width, o.value_width];
        let ranks = inputs.map(Tensor::rank);
        let fits = ranks[0] == ranks[1]
            && ranks[1] == ranks[2]
            && matches!(ranks[0], 2 | 3)
            && inputs.iter().zip(widths).all(|(t, w)| t.dim(-1) == w);
        if !fits {
            let message = match widths {
                [w, k, v] if w == k && w == v => format!("needs queries, keys and values [batch, length, {w}]"),
                [w, k, v] => format!("needs queries [batch, length, {w}], keys [.., {k}] and values [.., {v}]"),
            };
            let message = message + ", or all without the batch";
            return Err(Error::misuse(message).in_op("attention", inputs.map(|t| (t.dtype(), *t.shape()))));
        }
        let mut options = AttentionOptions { dropout: None, ..options.clone() };
        if cx.is_training() && o.dropout > 0.0 {
            options = options.dropout(o.dropout, cx.key(self.site.stream()));
        }
        let had_batch = ranks[0] == 3;
        let mut projected = self.project(inputs)?;
        for (i, x) in projected.iter_mut().enumerate() {
            if let Some(more) = adapt(i, inputs[i])? {
                *x = x.try_add(&more)?;
            }
            if !had_batch {
                *x = x.try_unsqueeze(0)?;
            }
        }
        let [q, k, v] = projected;
        let (k, v) = self.extended(k, v, &q, &mut options)?;
        let heads = |t: &Tensor| {
            let split = [t.dim(0), t.dim(1), o.heads, o.width / o.heads];
            t.try_reshape(split)?.try_transpose(-3, -2) // [batch, heads, length, width/heads]
        };
        Ok(Prepared { q: heads(&q)?, k: heads(&k)?, v: heads(&v)?, options, had_batch })
    }

    /// Keys and values with those that the layer has besides; every query sees them.
    fn extended(&self, k: Tensor, v: Tensor, q: &Tensor, options: &mut AttentionOptions) -> Result<(Tensor, Tensor)> {
        let keys = k.dim(1);
        let (mut k, mut v) = (k, v);
        let one = [k.dim(0), 1, self.options.width];
        if let (Some(bias_k), Some(bias_v)) = (&self.bias_k, &self.bias_v) {
            k = Tensor::try_cat(&[&k, &bias_k.try_expand(one)?], 1)?;
            v = Tensor::try_cat(&[&v, &bias_v.try_expand(one)?], 1)?;
        }
        if self.options.zero_key {
            let zeros = Tensor::try_zeros(one, k.place())?;
            k = Tensor::try_cat(&[&k, &zeros], 1)?;
            v = Tensor::try_cat(&[&v, &zeros], 1)?;
        }
        let more = k.dim(1) - keys;
        if more == 0 {
            return Ok((k, v));
        }
        if options.causal {
            let seen = Tensor::try_ones([q.dim(1), keys], q.device().with(DType::Bool))?.try_tril(0)?;
            options.mask = Some(match &options.mask {
                Some(mask) => both(mask, &seen)?,
                None => seen,
            });
            options.causal = false;
        }
        if let Some(mask) = &options.mask {
            let dims = mask.dims();
            let lead = &dims[..dims.len().saturating_sub(1)];
            let mask = mask.try_expand([lead, &[keys]].concat())?;
            let seen = if mask.dtype() == DType::Bool { 1.0 } else { 0.0 };
            let besides = Tensor::try_full([lead, &[more]].concat(), seen, mask.place())?;
            options.mask = Some(Tensor::try_cat(&[&mask, &besides], -1)?);
        }
        Ok((k, v))
    }

    /// The heads' results side by side, projected: `[batch, queries, width]`.
    #[track_caller]
    fn finish(&self, y: &Tensor, had_batch: bool, cx: &Cx, adapt: Adapt<'_>) -> Result<Tensor> {
        let (batch, queries) = (y.dim(0), y.dim(2));
        let mut y = y.try_transpose(1, 2)?.try_reshape([batch, queries, self.options.width])?;
        if !had_batch {
            y = y.try_squeeze(0)?;
        }
        let result = self.out_proj.call(&y, cx);
        match adapt(3, &y)? {
            Some(more) => result.try_add(&more),
            None => Ok(result),
        }
    }

    /// Queries, keys and values: one product where they are projected from the same tensor.
    #[track_caller]
    fn project(&self, [q, k, v]: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        let width = self.options.width;
        let bias = self.in_proj_bias.as_deref();
        let part_of = |bias: Option<&Tensor>, i: usize| bias.map(|b| b.try_narrow(0, i * width, width)).transpose();
        if let Some(weight) = &self.in_proj_weight {
            if std::ptr::eq(q, k) && std::ptr::eq(k, v) {
                let mut parts = q.try_linear(weight, bias)?.try_split(width, -1)?.into_iter();
                return match (parts.next(), parts.next(), parts.next()) {
                    (Some(q), Some(k), Some(v)) => Ok([q, k, v]),
                    _ => Err(Error::misuse("attention: a width of 0 has no heads")),
                };
            }
            let weights = weight.try_split(width, 0)?;
            let part = |x: &Tensor, i: usize| x.try_linear(&weights[i], part_of(bias, i)?.as_ref());
            return Ok([part(q, 0)?, part(k, 1)?, part(v, 2)?]);
        }
        let part = |x: &Tensor, weight: &Option<Param>, i: usize| {
            let weight = weight.as_ref().ok_or_else(|| Error::misuse("attention: a projection is missing"))?;
            x.try_linear(weight, part_of(bias, i)?.as_ref())
        };
        Ok([part(q, &self.q_proj_weight, 0)?, part(k, &self.k_proj_weight, 1)?, part(v, &self.v_proj_weight, 2)?])
    }

    fn described(&self) -> String {
        let o = &self.options;
        let dropout = if o.dropout > 0.0 { format!(", dropout {}", o.dropout) } else { String::new() };
        let causal = if self.causal { ", causal" } else { "" };
        format!("{}, {} heads{dropout}{causal}", o.width, o.heads)
    }
}

impl Layer for MultiheadAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let options = AttentionOptions { causal: self.causal, ..Default::default() };
        or_raise(self.try_attend([x, x, x], &options, cx))
    }
}
