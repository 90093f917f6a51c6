//! Normalizations whose statistics are an input's own: layer, group and RMS normalization.

use crate::init::Init;
use crate::layer::layer;
use crate::{Cx, Module, Param, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, IntoShape, Result, Shape, Tensor};

/// (x − mean)/√(var + eps)·w + b over the trailing dimensions, with the biased variance (Ba, Kiros & Hinton, 2016).
/// In PyTorch: `torch.nn.LayerNorm`. w starts at 1, b at 0.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, LayerNorm};
/// let device = gradus_cpu::device();
/// let norm = LayerNorm::new(4, &mut Init::new(device, 0));
/// let y = norm.call(&Tensor::ones([2, 6, 4], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 6, 4]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = LayerNorm::options)]
pub struct LayerNorm {
    /// w, of the normalized shape.
    pub weight: Option<Param>,
    /// b, of the normalized shape.
    pub bias: Option<Param>,
    normalized: Shape,
    eps: f64,
    site: Site,
}

impl LayerNorm {
    /// Over trailing dimensions of shape `normalized` (a number: over the last one), with eps 1e-5. Panics at the caller's line
    /// if that is too large to be held.
    #[track_caller]
    pub fn new(normalized: impl IntoShape, init: &mut Init) -> LayerNorm {
        or_raise(LayerNorm::try_new(normalized, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(normalized: impl IntoShape, init: &mut Init) -> Result<LayerNorm> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        let normalized = normalized.into_shape()?;
        let weight = Some(Param::try_new(Tensor::try_ones(normalized, init.place())?)?);
        let bias = Some(Param::try_new(Tensor::try_zeros(normalized, init.place())?)?);
        Ok(LayerNorm { weight, bias, normalized, eps: 1e-5, site: Site::default() })
    }
    /// With this number added to the variance.
    pub fn eps(mut self, eps: f64) -> LayerNorm {
        self.eps = eps;
        self
    }
    /// Whether it has w and b.
    pub fn affine(mut self, affine: bool) -> LayerNorm {
        self.weight = self.weight.filter(|_| affine);
        self.bias(affine)
    }
    /// Whether it has b.
    pub fn bias(mut self, bias: bool) -> LayerNorm {
        self.bias = self.bias.filter(|_| bias);
        self
    }
    /// (self(x + residual), x + residual), in one pass where the device can: the sum is what the next residual goes around. x and
    /// residual have one shape. Hooks and the observer see the first. Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> (Tensor, Tensor) {
        or_raise(self.try_call_add(x, residual, cx))
    }
    /// As [`call_add`](Self::call_add), with misuse returned as an error.
    #[track_caller]
    pub fn try_call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> Result<(Tensor, Tensor)> {
        let _scope = cx.enter(self);
        let (y, sum) =
            x.try_add_layer_norm(residual, self.normalized, self.weight.as_deref(), self.bias.as_deref(), self.eps)?;
        Ok((cx.passed(self, y), sum))
    }
    fn options(&self) -> String {
        let affine = match (&self.weight, &self.bias) {
            (None, None) => ", no affine",
            (Some(_), None) => ", no bias",
            _ => "",
        };
        format!("{}{affine}", self.normalized)
    }
}

layer!(LayerNorm, |self, x, _cx| x.try_layer_norm(
    self.normalized,
    self.weight.as_deref(),
    self.bias.as_deref(),
    self.eps
));

/// x/√(mean(x²) + eps)·w over the trailing dimensions (Zhang & Sennrich, 2019). In PyTorch: `torch.nn.RMSNorm`. w starts at 1.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, RmsNorm};
/// let device = gradus_cpu::device();
/// let norm = RmsNorm::new(4, &mut Init::new(device, 0));
/// let y = norm.call(&Tensor::ones([2, 6, 4], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 6, 4]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = RmsNorm::options)]
pub struct RmsNorm {
    /// w, of the normalized shape.
    pub weight: Option<Param>,
    normalized: Shape,
    eps: Option<f64>,
    site: Site,
}

impl RmsNorm {
    /// Over trailing dimensions of shape `normalized` (a number: over the last one), with the dtype's machine epsilon. Panics
    /// at the caller's line if that is too large to be held.
    #[track_caller]
    pub fn new(normalized: impl IntoShape, init: &mut Init) -> RmsNorm {
        or_raise(RmsNorm::try_new(normalized, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(normalized: impl IntoShape, init: &mut Init) -> Result<RmsNorm> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        let normalized = normalized.into_shape()?;
        let weight = Some(Param::try_new(Tensor::try_ones(normalized, init.place())?)?);
        Ok(RmsNorm { weight, normalized, eps: None, site: Site::default() })
    }
    /// With this number added to the mean square.
    pub fn eps(mut self, eps: f64) -> RmsNorm {
        self.eps = Some(eps);
        self
    }
    /// Whether it has w.
    pub fn affine(mut self, affine: bool) -> RmsNorm {
        self.weight = self.weight.filter(|_| affine);
        self
    }
    /// (self(x + residual), x + residual), in one pass where the device can: the sum is what the next residual goes around. x and
    /// residual have one shape. Hooks and the observer see the first. Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> (Tensor, Tensor) {
        or_raise(self.try_call_add(x, residual, cx))
    }
    /// As [`call_add`](Self::call_add), with misuse returned as an error.
    #[track_caller]
    pub fn try_call_add(&self, x: &Tensor, residual: &Tensor, cx: &Cx) -> Result<(Tensor, Tensor)> {
        let _scope = cx.enter(self);
        let (y, sum) = x.try_add_rms_norm(residual, self.normalized, self.weight.as_deref(), self.eps)?;
        Ok((cx.passed(self, y), sum))
    }
    fn options(&self) -> String {
        self.normalized.to_string()
    }
}

layer!(RmsNorm, |self, x, _cx| x.try_rms_norm(self.normalized, self.weight.as_deref(), self.eps));

/// (x − mean)/√(var + eps)·w + b of `[batch, channels, ..]`, with mean and biased variance over each group of channels
/// (Wu & He, 2018). In PyTorch: `torch.nn.GroupNorm`. w starts at 1, b at 0, one number for each channel.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::{Cx, Init, Layer, GroupNorm};
/// let device = gradus_cpu::device();
/// let norm = GroupNorm::new(3, 6, &mut Init::new(device, 0));
/// let y = norm.call(&Tensor::ones([2, 6, 4], device), &Cx::eval());
/// assert_eq!(y.dims(), [2, 6, 4]);
/// ```
#[derive(Module, Clone, Debug)]
#[module(describe = GroupNorm::options)]
pub struct GroupNorm {
    /// w, `[channels]`.
    pub weight: Option<Param>,
    /// b, `[channels]`.
    pub bias: Option<Param>,
    groups: usize,
    channels: usize,
    eps: f64,
    site: Site,
}

impl GroupNorm {
    /// `channels` channels in `groups` groups, with eps 1e-5. Panics at the caller's line if they do not fall into these.
    #[track_caller]
    pub fn new(groups: usize, channels: usize, init: &mut Init) -> GroupNorm {
        or_raise(GroupNorm::try_new(groups, channels, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(groups: usize, channels: usize, init: &mut Init) -> Result<GroupNorm> {
        init.next_key(); // nothing is drawn, but the layers after it must not depend on that
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::misuse(format!("group_norm: {channels} channels do not fall into {groups} groups")));
        }
        let weight = Some(Param::try_new(Tensor::try_ones([channels], init.place())?)?);
        let bias = Some(Param::try_new(Tensor::try_zeros([channels], init.place())?)?);
        Ok(GroupNorm { weight, bias, groups, channels, eps: 1e-5, site: Site::default() })
    }
    /// With this number added to the variance.
    pub fn eps(mut self, eps: f64) -> GroupNorm {
        self.eps = eps;
        self
    }
    /// Whether it has w and b.
    pub fn affine(mut self, affine: bool) -> GroupNorm {
        self.weight = self.weight.filter(|_| affine);
        self.bias(affine)
    }
    /// Whether it has b.
    pub fn bias(mut self, bias: bool) -> GroupNorm {
        self.bias = self.bias.filter(|_| bias);
        self
    }
    /// max(self(x) + residual, 0): with the ReLU that follows, and what is added before it (`None`: nothing), in one pass over x
    /// where the device can. Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn call_relu(&self, x: &Tensor, residual: Option<&Tensor>, cx: &Cx) -> Tensor {
        or_raise(self.try_call_relu(x, residual, cx))
    }
    /// As [`call_relu`](Self::call_relu), with misuse returned as an error.
    #[track_caller]
    pub fn try_call_relu(&self, x: &Tensor, residual: Option<&Tensor>, cx: &Cx) -> Result<Tensor> {
        let _scope = cx.enter(self);
        let y = match (&self.weight, &self.bias) {
            (Some(w), Some(b)) => x.try_group_norm_relu(self.groups, w, b, residual, self.eps)?,
            (w, b) => {
                let y = x.try_group_norm(self.groups, w.as_deref(), b.as_deref(), self.eps)?;
                residual.map_or(Ok(y.clone()), |r| y.try_add(r))?.try_relu()?
            }
        };
        Ok(cx.passed(self, y))
    }
    fn options(&self) -> String {
        format!("{} in {} groups", self.channels, self.groups)
    }
}

layer!(GroupNorm, |self, x, _cx| x.try_group_norm(self.groups, self.weight.as_deref(), self.bias.as_deref(), self.eps));
