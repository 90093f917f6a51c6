//! Scaled dot-product attention (Vaswani et al., 2017).
//!
//! A fused kernel need not hold the scores of all queries at once; it keeps ln Σ e^score of each query, from which backward
//! computes the scores again (Dao et al., 2022).

use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::precision::Autocast;
use crate::rng::Key;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// softmax(q·kᵀ·scale + mask)·v for each head, with dropout of the probabilities. A query that may see no key gives 0.
///
/// Inputs: q `[batch, heads, queries, width]`, k `[batch, shared, keys, width]`, v `[batch, shared, keys, values]`, where `shared`
/// divides `heads` and several heads of queries in a row share a head of keys and values (Ainslie et al., 2023), and optionally a
/// mask `[batch, heads, queries, keys]`: `bool` (true: may be seen), or a number added to the score. Output: `[batch, heads,
/// queries, values]`. A fused kernel keeps ln Σ e^score, `[batch, heads, queries]` (−∞ for a query that sees no key).
#[derive(Clone, Debug)]
pub struct Attention {
    /// What scores are multiplied with.
    pub scale: f64,
    /// Whether query i sees keys 0 to i alone.
    pub causal: bool,
    /// The probability of dropping a probability, and the mask's name: element `[b, h, i, j]` of `[batch, heads, queries, keys]`.
    pub dropout: Option<(f64, Key)>,
}

/// The gradients of [`Attention`] with respect to q, k and v. Inputs: g, q, k, v, then the output and the ln Σ e^score that forward
/// kept, which the definition computes anew, and the mask, if there is one.
#[derive(Clone, Debug)]
pub struct AttentionGrad(pub Attention);

/// Keys or values with a head for each of `heads` heads of queries.
fn each_head(x: &Tensor, heads: usize) -> Result<Tensor> {
    match x.dim(1) {
        shared if shared == heads || shared == 0 => Ok(x.clone()),
        shared => x.try_repeat_interleave(heads / shared, 1),
    }
}

/// The gradient of [`each_head`]: the sum over the heads of queries that share one of `shared`.
fn summed_heads(grad: Tensor, shared: usize) -> Result<Tensor> {
    let d = grad.dims();
    if shared == d[1] || shared == 0 {
        return Ok(grad);
    }
    grad.try_reshape([d[0], shared, d[1] / shared, d[2], d[3]])?.try_sum_dims(&[2], false)
}

impl Attention {
    /// Probabilities before dropout, `[batch, heads, queries, keys]`.
    fn probabilities(&self, q: &Tensor, k: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let mut scores = q.try_matmul(&k.try_t()?)? * self.scale;
        let (queries, keys) = (q.dims()[2], k.dims()[2]);
        if keys == 0 {
            return Ok(scores);
        }
        if self.causal {
            let seen = Tensor::try_ones([queries, keys], q.device().with(DType::Bool))?.try_tril(0)?;
            scores = scores.try_masked_fill(&seen.try_logical_not()?, f64::NEG_INFINITY)?;
        }
        scores = match mask {
            Some(m) if m.dtype() == DType::Bool => scores.try_masked_fill(&m.try_logical_not()?, f64::NEG_INFINITY)?,
            Some(m) => scores.try_add(m)?,
            None => scores,
        };
        // The largest is a constant: it cancels. Where no key is seen it is −∞, which must not be subtracted from itself.
        let max = scores.detach().try_amax(&[-1], true)?;
        let max = max.try_masked_fill(&max.try_eq_scalar(f64::NEG_INFINITY)?, 0.0)?;
        let e = scores.try_sub(&max)?.try_exp()?;
        let sum = e.try_sum_dims(&[-1], true)?;
        e.try_div(&sum.try_masked_fill(&sum.try_eq_scalar(0.0)?, 1.0)?)
    }

    fn dropped(&self, p: &Tensor) -> Result<Tensor> {
        match &self.dropout {
            Some((rate, key)) => p.try_dropout(*rate, key),
            None => Ok(p.clone()),
        }
    }
}

fn check(x: &[Meta], mask: Option<&Meta>) -> Result<()> {
    let [q, k, v] = x else { return Err(Error::misuse("needs queries, keys and values")) };
    if x.iter().any(|m| m.shape.rank() != 4 || m.dtype != q.dtype) || !q.dtype.is_float() {
        return Err(Error::misuse("queries, keys and values need four dimensions and one floating-point dtype"));
    }
    let (heads, shared) = (q.shape[1], k.shape[1]);
    let whole = heads == shared || shared > 0 && heads.is_multiple_of(shared);
    let fits = q.shape[0] == k.shape[0] && whole && k.shape[..3] == v.shape[..3] && q.shape[3] == k.shape[3];
    if !fits {
        return Err(Error::misuse(format!(
            "queries [b, h·n, l, d], keys [b, h, s, d] and values [b, h, s, e] would fit, not {}, {} and {}",
            q.shape, k.shape, v.shape
        )));
    }
    let scores = Shape::try_new(&[q.shape[0], q.shape[1], q.shape[2], k.shape[2]])?;
    match mask {
        Some(m) if m.shape != scores || (m.dtype != DType::Bool && m.dtype != q.dtype) => {
            Err(Error::misuse(format!("a mask of bool or {} {scores} would fit, not {} {}", q.dtype, m.dtype, m.shape)))
        }
        _ => Ok(()),
    }
}

impl Composite for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(&x[..x.len().min(3)], x.get(3))?;
        if let Some((p, _)) = self.dropout.as_ref().filter(|(p, _)| !(0.0..=1.0).contains(p)) {
            return Err(Error::misuse(format!("the dropout probability must lie between 0 and 1; got {p}")));
        }
        Ok(one(x[0].dtype, x[0].shape.with(3, x[2].shape[3])))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let heads = x[0].dim(1);
        let p = self.probabilities(x[0], &each_head(x[1], heads)?, x.get(3).copied())?;
        Ok(smallvec![self.dropped(&p)?.try_matmul(&each_head(x[2], heads)?)?])
    }
    fn saves(&self) -> Saves {
        Saves::BOTH
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let lse = cx.aux(0)?;
        let mask = (cx.inputs() == 4).then(|| cx.x(3));
        if mask.is_some() && cx.needs(3) {
            return None; // a mask that is learnt: by the definition
        }
        let (g, q, k, v, y) = (cx.grad(), cx.x(0), cx.x(1), cx.x(2), cx.y().detach());
        let op = AttentionGrad(self.clone());
        let grads = match &mask {
            Some(m) => Tensor::compose(op, &[&g, &q, &k, &v, &y, &lse, m]),
            None => Tensor::compose(op, &[&g, &q, &k, &v, &y, &lse]),
        };
        Some(grads.into_iter().map(Some).chain(mask.map(|_| None)).collect())
    }
}

impl Composite for AttentionGrad {
    fn name(&self) -> &'static str {
        "attention_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if !(6..=7).contains(&x.len()) {
            return Err(Error::misuse("needs g, queries, keys, values, the output, ln Σ e^score, and perhaps a mask"));
        }
        check(&x[1..4], x.get(6))?;
        let (y, rows) = (Meta::new(x[1].dtype, x[1].shape.with(3, x[3].shape[3])), &x[1].shape[..3]);
        if x[0] != y || x[4] != y || x[5].shape.dims() != rows {
            return Err(Error::misuse(format!("g and an output of {} {} would fit", y.dtype, y.shape)));
        }
        Ok(smallvec![x[1], x[2], x[3]])
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (g, q, shared) = (x[0], x[1], x[2].dim(1));
        let (k, v) = (&each_head(x[2], q.dim(1))?, &each_head(x[3], q.dim(1))?);
        let p = self.0.probabilities(q, k, x.get(6).copied())?;
        let dv = self.0.dropped(&p)?.try_t()?.try_matmul(g)?;
        let dp = self.0.dropped(&g.try_matmul(&v.try_t()?)?)?; // dropout is linear, so its gradient is itself
        // dscores = p·(dp − Σ p·dp)
        let along = p.try_mul(&dp)?.try_sum_dims(&[-1], true)?;
        let ds = p.try_mul(&dp.try_sub(&along)?)? * self.0.scale;
        let dk = summed_heads(ds.try_t()?.try_matmul(q)?, shared)?;
        Ok(smallvec![ds.try_matmul(k)?, dk, summed_heads(dv, shared)?])
    }
}

/// The options of [`Tensor::attention`].
#[derive(Clone, Debug, Default)]
pub struct AttentionOptions {
    /// A mask that broadcasts to `[.., queries, keys]`: `bool` (true: may be seen), or numbers added to the scores.
    pub mask: Option<Tensor>,
    /// Whether query i sees keys 0 to i alone.
    pub causal: bool,
    /// What scores are multiplied with; `None`: 1/√width.
    pub scale: Option<f64>,
    /// The probability of dropping a probability, and the name of the dropout mask.
    pub dropout: Option<(f64, Key)>,
    /// Whether several heads of queries share a head of keys and values (Ainslie et al., 2023).
    pub grouped: bool,
}

impl AttentionOptions {
    /// Query i sees keys 0 to i alone.
    pub fn causal() -> AttentionOptions {
        AttentionOptions { causal: true, ..Default::default() }
    }
    /// With a mask that broadcasts to `[.., queries, keys]`.
    pub fn mask(mut self, mask: &Tensor) -> Self {
        self.mask = Some(mask.clone());
        self
    }
    /// With dropout of the probabilities.
    pub fn dropout(mut self, p: f64, key: impl Into<Key>) -> Self {
        self.dropout = (p != 0.0).then(|| (p, key.into()));
        self
    }
    /// With scores multiplied by `scale`.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = Some(scale);
        self
    }
    /// With several heads of queries to a head of keys and values.
    pub fn grouped(mut self) -> Self {
        self.grouped = true;
        self
    }
}

/// `x` stretched to the leading dimensions `lead` and with those as exactly two: `[batch, heads, rows, columns]`.
fn as_heads(x: &Tensor, lead: &[usize]) -> Result<Tensor> {
    let (rows, columns) = (x.dim(-2), x.dim(-1));
    let x = x.try_expand([lead, &[rows, columns]].concat())?;
    match lead {
        [_, _] => Ok(x),
        [] | [_] => x.try_reshape([lead.first().copied().unwrap_or(1), 1, rows, columns]),
        [batch @ .., heads] => x.try_reshape([batch.iter().product(), *heads, rows, columns]),
    }
}

impl Tensor {
    crate::fallible! {
        /// softmax(q·kᵀ/√width)·v of these queries `[.., queries, width]`, keys `[.., keys, width]` and values `[.., keys, values]`;
        /// the leading dimensions (batch, heads) broadcast. ∂ by the fused backward. In PyTorch:
        /// `torch.nn.functional.scaled_dot_product_attention`.
        ///
        /// A query that may see no key gives 0.
        pub fn attention | try_attention(&self, key: &Tensor, value: &Tensor, options: &AttentionOptions) -> Tensor {
            let inputs = [self, key, value];
            let e = |m: String| Error::misuse(m).in_op("attention", inputs.map(|t| (t.dtype(), *t.shape())));
            if inputs.iter().any(|t| t.rank() < 2) {
                return Err(e("queries, keys and values need two dimensions at least".into()));
            }
            let mut sharing = 1; // heads of queries to a head of keys and values
            if options.grouped {
                if inputs.iter().any(|t| t.rank() < 3) || key.dim(-3) == 0 || !self.dim(-3).is_multiple_of(key.dim(-3)) || key.dim(-3) != value.dim(-3) {
                    return Err(e("the heads of the queries (dimension −3) must be a multiple of those of keys and values".into()));
                }
                sharing = self.dim(-3) / key.dim(-3);
            }
            let lead = |t: &Tensor, times: usize| {
                let mut lead = t.dims()[..t.rank() - 2].to_vec();
                if let Some(heads) = lead.last_mut() {
                    *heads *= times;
                }
                Shape::try_new(&lead)
            };
            let common = lead(self, 1)?.broadcast(&lead(key, sharing)?).zip(Some(lead(value, sharing)?)).and_then(|(a, b)| a.broadcast(&b));
            let Some(common) = common else {
                return Err(e("the leading dimensions do not broadcast".into()));
            };
            let scale = options.scale.unwrap_or(1.0 / (self.dim(-1) as f64).sqrt());
            let op = Attention { scale, causal: options.causal, dropout: options.dropout.clone() };
            // Shared heads are heads, not a batch, even where there is no batch.
            let batch: &[usize] = if sharing > 1 && common.rank() == 1 { &[1] } else { &[] };
            let all = [batch, &common[..]].concat();
            let mut few = all.clone();
            if let Some(heads) = few.last_mut() {
                *heads /= sharing;
            }
            let (q, k, v) = (as_heads(self, &all)?, as_heads(key, &few)?, as_heads(value, &few)?);
            let y = match &options.mask {
                None => Tensor::try_compose1(op, &[&q, &k, &v])?,
                Some(m) => {
                    let m = if m.dtype() == DType::Bool { m.clone() } else { m.try_to_dtype(self.dtype())? };
                    let scores = [&common[..], &[self.dim(-2), key.dim(-2)]].concat();
                    let m = m.try_expand(scores).map_err(|_| e(format!("the mask {} does not broadcast to [.., {}, {}]", m.shape(), self.dim(-2), key.dim(-2))))?;
                    Tensor::try_compose1(op, &[&q, &k, &v, &as_heads(&m, &all)?])?
                }
            };
            y.try_reshape([&common[..], &[self.dim(-2), value.dim(-1)]].concat())
        }
    }
}
