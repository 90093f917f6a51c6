//! Convolution (cross-correlation, as deep learning has it) over one to three spatial dimensions, and its transpose.
//!
//! Three composites are closed under differentiation: [`Conv`] takes x and w to y, [`ConvInputGrad`] y and w to x (which is the
//! transposed convolution), [`ConvWeightGrad`] x and y to w. Each is linear in either input, and each one's gradients are the
//! other two, so gradients of any order run fused. [`ConvThen`] is one of the first two with an activation in its epilogue.
//! [`convolution`](super::convolution) has what users call.

use super::window::{Window, spatial};
use crate::autodiff::{Grads, Vjp};
use crate::composite::Composite;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Saves, Tensors, one};
use crate::ops::{UnaryGrad, UnaryOp};
use crate::precision::Autocast;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// y\[n, o, p\] = b\[o\] + Σ_{c, k} w\[o, c, k\] · x\[n, group(o)·C/groups + c, p·stride − before + k·dilation\], zero outside x.
///
/// Inputs: x `[batch, C, spatial..]`, w `[O, C/groups, size..]`, b `[O]` (optional) → `[batch, O, output..]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv {
    /// The windows over x.
    pub window: Window,
    /// Channels fall into this many groups, which see nothing of each other.
    pub groups: usize,
}

/// The gradient of [`Conv`] with respect to x, or the transposed convolution.
///
/// Inputs: y `[batch, O, output..]`, w `[O, C/groups, size..]`, b `[C]` (optional) → x `[batch, C, spatial..]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvInputGrad(pub Conv);

/// The gradient of [`Conv`] with respect to w, and, if asked for, to the bias.
///
/// Inputs: x `[batch, C, spatial..]`, y `[batch, O, output..]` → w `[O, C/groups, size..]`, and Σ y `[O]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvWeightGrad {
    /// The convolution.
    pub conv: Conv,
    /// Whether the bias's gradient is a second output.
    pub bias: bool,
}

/// f(y), for y of a [`Conv`] or [`ConvInputGrad`], whose inputs it has.
///
/// A fused kernel is for an activation whose output tells its slope (relu, tanh, sigmoid): that output is what backward keeps. Others
/// go by definition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvThen<C> {
    /// The convolution.
    pub conv: C,
    /// f.
    pub activation: UnaryOp,
}

fn vector_for(t: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape = vec![t.elements()];
    shape.resize(1 + rank, 1);
    t.try_reshape(shape)
}

impl Conv {
    /// x `[n, C, input..]` as columns `[n, groups, C/groups·places, windows]`.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c) = (x.dims()[0], x.dims()[1]);
        let columns = self.window.unfold(x)?;
        columns.try_reshape([n, self.groups, c / self.groups * self.window.places(), self.window.windows()])
    }
    /// y `[n, O, output..]` as `[n, groups, O/groups, windows]`.
    fn grouped(&self, y: &Tensor) -> Result<Tensor> {
        y.try_reshape([y.dims()[0], self.groups, y.dims()[1] / self.groups, self.window.windows()])
    }
    /// w `[O, C/groups, size..]` as `[groups, O/groups, C/groups·places]`.
    fn matrix(&self, w: &Tensor) -> Result<Tensor> {
        w.try_reshape([self.groups, w.dims()[0] / self.groups, w.dims()[1] * self.window.places()])
    }
    /// The weight's shape.
    fn weight_shape(&self, out: usize, channels: usize) -> Result<Shape> {
        Shape::try_new(&[&[out, channels / self.groups], &self.window.size[..self.window.rank]].concat())
    }
    fn check(&self, x: &[Meta]) -> Result<()> {
        if x.iter().any(|m| m.dtype != x[0].dtype) || !x[0].dtype.is_float() {
            return Err(Error::misuse("input, weight and bias must have one floating-point dtype"));
        }
        if self.groups == 0 {
            return Err(Error::misuse("there must be at least 1 group, not 0"));
        }
        if x[..2].iter().any(|m| m.shape.rank() != 2 + self.window.rank) {
            return Err(Error::misuse(format!(
                "input and weight need two dimensions and {} spatial ones",
                self.window.rank
            )));
        }
        Ok(())
    }
    fn check_bias(&self, bias: Option<&Meta>, channels: usize) -> Result<()> {
        match bias.filter(|b| b.shape.dims() != [channels]) {
            Some(b) => Err(Error::misuse(format!("a bias of shape [{channels}] would fit, not {}", b.shape))),
            None => Ok(()),
        }
    }
    fn check_spatial(&self, x: Option<&Shape>, y: Option<&Shape>) -> Result<()> {
        for (what, shape, lens) in [("input", x, self.window.input), ("output", y, self.window.output)] {
            if let Some(s) = shape.filter(|s| spatial(s) != lens) {
                return Err(Error::misuse(format!(
                    "an {what} of shape {s} does not have this convolution's spatial lengths {lens:?}"
                )));
            }
        }
        Ok(())
    }
}

impl Composite for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        self.check(x)?;
        let (xs, w) = (&x[0].shape, &x[1].shape);
        self.check_spatial(Some(xs), None)?;
        if xs[1] != w[1] * self.groups {
            return Err(Error::misuse(format!(
                "the input has {} channels; this weight [out, in/groups, ..] with {} groups takes {}",
                xs[1],
                self.groups,
                w[1].saturating_mul(self.groups)
            )));
        }
        if !w[0].is_multiple_of(self.groups) {
            return Err(Error::misuse(format!("{} output channels do not fall into {} groups", w[0], self.groups)));
        }
        if *w != self.weight_shape(w[0], xs[1])? {
            return Err(Error::misuse(format!("the weight's spatial lengths are not {:?}", self.window.size)));
        }
        self.check_bias(x.get(2), w[0])?;
        Ok(one(x[0].dtype, self.window.output_shape(xs[0], w[0])?))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let y = self.matrix(x[1])?.try_matmul(&self.columns(x[0])?)?; // [n, groups, O/groups, windows]
        let mut y = y.try_reshape(self.window.output_shape(x[0].dims()[0], x[1].dims()[0])?)?;
        if let Some(b) = x.get(2) {
            y = y.try_add(&vector_for(b, self.window.rank)?)?;
        }
        Ok(smallvec![y])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(0).input(1)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(self.gradients(cx, cx.grad_ref()))
    }
}

/// What an activation can stand behind: [`Conv`] and [`ConvInputGrad`].
pub trait Convolution: Composite + Copy {
    /// The composite's name with one behind it.
    const THEN: &'static str;
    /// The gradients with respect to the inputs, from the gradient g of the output.
    #[track_caller]
    fn gradients(&self, cx: &Vjp<'_>, g: &Tensor) -> Grads;
}

impl Convolution for Conv {
    const THEN: &'static str = "conv_then";
    fn gradients(&self, cx: &Vjp<'_>, g: &Tensor) -> Grads {
        let dx = cx.needs(0).then(|| Tensor::compose(ConvInputGrad(*self), &[g, cx.x_ref(1)]).swap_remove(0));
        let bias = cx.inputs() == 3 && cx.needs(2);
        let (dw, db) = match (cx.needs(1), bias) {
            (false, false) => (None, None),
            (false, true) => (None, Some(bias_grad(g))),
            (true, _) => {
                let mut out = Tensor::compose(ConvWeightGrad { conv: *self, bias }, &[cx.x_ref(0), g]);
                let db = if bias { out.pop() } else { None };
                (out.pop(), db)
            }
        };
        Grads::from_buf_and_len([dx, dw, db], cx.inputs())
    }
}

/// Σ of each channel.
#[track_caller]
fn bias_grad(g: &Tensor) -> Tensor {
    let dims: Vec<isize> = (0..g.rank() as isize).filter(|&d| d != 1).collect();
    g.sum_dims(&dims, false)
}

impl Composite for ConvInputGrad {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        self.0.check(x)?;
        let (y, w) = (&x[0].shape, &x[1].shape);
        self.0.check_spatial(None, Some(y))?;
        if y[1] != w[0] {
            return Err(Error::misuse(format!(
                "the input has {} channels; this weight [in, out/groups, ..] takes {}",
                y[1], w[0]
            )));
        }
        if !w[0].is_multiple_of(self.0.groups) {
            return Err(Error::misuse(format!("{} input channels do not fall into {} groups", w[0], self.0.groups)));
        }
        let channels = w[1].checked_mul(self.0.groups).ok_or_else(|| Error::misuse("too many channels"))?;
        if *w != self.0.weight_shape(w[0], channels)? {
            return Err(Error::misuse(format!("the weight's spatial lengths are not {:?}", self.0.window.size)));
        }
        self.0.check_bias(x.get(2), channels)?;
        Ok(one(x[0].dtype, self.0.window.input_shape(y[0], channels)?))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let (conv, window) = (&self.0, &self.0.window);
        let (n, c) = (x[0].dims()[0], x[1].dims()[1] * conv.groups);
        let columns = conv.matrix(x[1])?.try_t()?.try_matmul(&conv.grouped(x[0])?)?; // [n, groups, C/groups·places, windows]
        let lens = [&[n, c], &window.size[..window.rank], &window.output[..window.rank]].concat();
        let mut dx = window.fold(&columns.try_reshape(lens)?)?;
        if let Some(b) = x.get(2) {
            dx = dx.try_add(&vector_for(b, window.rank)?)?;
        }
        Ok(smallvec![dx])
    }
    fn saves(&self) -> Saves {
        Saves::NOTHING.input(0).input(1)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        Some(self.gradients(cx, cx.grad_ref()))
    }
}

impl Convolution for ConvInputGrad {
    const THEN: &'static str = "conv_transpose_then";
    /// Here g is of x's shape.
    fn gradients(&self, cx: &Vjp<'_>, g: &Tensor) -> Grads {
        let dy = cx.needs(0).then(|| Tensor::compose(self.0, &[g, cx.x_ref(1)]).swap_remove(0));
        let weight = ConvWeightGrad { conv: self.0, bias: false };
        let dw = cx.needs(1).then(|| Tensor::compose(weight, &[g, cx.x_ref(0)]).swap_remove(0));
        let db = (cx.inputs() == 3 && cx.needs(2)).then(|| bias_grad(g));
        Grads::from_buf_and_len([dy, dw, db], cx.inputs())
    }
}

impl<C: Convolution> ConvThen<C> {
    fn output_tells_slope(&self) -> bool {
        self.activation.saves() == Saves::OUTPUT
    }
}

impl<C: Convolution> Composite for ConvThen<C> {
    fn name(&self) -> &'static str {
        C::THEN
    }
    fn autocast(&self) -> Autocast {
        self.conv.autocast()
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        self.conv.infer(x)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        // A device may have a kernel for the convolution alone.
        let mut y = Tensor::try_compose(self.conv, x)?;
        y[0] = y[0].try_unary(self.activation)?;
        Ok(y)
    }
    fn saves(&self) -> Saves {
        if self.output_tells_slope() { self.conv.saves().output() } else { Saves::INPUTS }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        self.output_tells_slope().then(|| {
            let g = Tensor::try_compose1(UnaryGrad(self.activation), &[cx.grad_ref(), cx.y_ref()]);
            self.conv.gradients(cx, &or_raise(g))
        })
    }
}

impl Composite for ConvWeightGrad {
    fn name(&self) -> &'static str {
        "conv_weight_grad"
    }
    fn autocast(&self) -> Autocast {
        Autocast::Half
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        self.conv.check(x)?;
        let (xs, y) = (&x[0].shape, &x[1].shape);
        self.conv.check_spatial(Some(xs), Some(y))?;
        if !xs[1].is_multiple_of(self.conv.groups) || !y[1].is_multiple_of(self.conv.groups) || xs[0] != y[0] {
            return Err(Error::misuse(format!(
                "batches must agree, and channels fall into {} groups",
                self.conv.groups
            )));
        }
        let mut metas = one(x[0].dtype, self.conv.weight_shape(y[1], xs[1])?);
        if self.bias {
            metas.push(Meta::new(x[0].dtype, Shape::try_new(&[y[1]])?));
        }
        Ok(metas)
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        // The images stand side by side, so that one product sums over them.
        let columns = self.conv.columns(x[0])?; // [n, groups, C/groups·places, windows]
        let (n, k) = (columns.dims()[0], columns.dims()[2]);
        let (groups, windows, out) = (self.conv.groups, self.conv.window.windows(), x[1].dims()[1]);
        let columns = columns.try_permute(&[1, 0, 3, 2])?.try_reshape([groups, n * windows, k])?;
        let g =
            self.conv.grouped(x[1])?.try_permute(&[1, 2, 0, 3])?.try_reshape([groups, out / groups, n * windows])?;
        let dw = g.try_matmul(&columns)?.try_reshape(self.conv.weight_shape(out, x[0].dims()[1])?)?;
        let mut outputs: Tensors = smallvec![dw];
        if self.bias {
            let dims: Vec<isize> = (0..x[1].rank() as isize).filter(|&d| d != 1).collect();
            outputs.push(x[1].try_sum_dims(&dims, false)?);
        }
        Ok(outputs)
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Option<Grads> {
        let v = cx.grad_or_zeros(0); // of w's shape
        let dx = cx.needs(0).then(|| Tensor::compose(ConvInputGrad(self.conv), &[&cx.x(1), &v]).swap_remove(0));
        let dy = cx.needs(1).then(|| match cx.grad_of(1) {
            Some(b) if self.bias => Tensor::compose(self.conv, &[&cx.x(0), &v, &b]).swap_remove(0),
            _ => Tensor::compose(self.conv, &[&cx.x(0), &v]).swap_remove(0),
        });
        Some(smallvec![dx, dy])
    }
}
