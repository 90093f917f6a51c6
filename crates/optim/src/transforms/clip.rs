//! Clipping of gradients, by their global norm or by value.

use crate::demand::demand_positive;
use crate::transforms::{NamedGrad, NamedGrads, Notes, Transform};
use gradus_core::ops::BinaryOp;
use gradus_core::{DType, Error, Result, Tensor};

/// Scales all gradients by min(1, max/(norm + 1e-6)), with the norm of all of them together (Pascanu et al., 2013).
///
/// The norm is taken over every gradient as if they were one vector; a transform that clipped each by its own would change
/// the direction. It stays on the device and is told in [`Notes::gradient_norm`]. An infinite or NaN norm makes gradients 0
/// or NaN, as it does in PyTorch's `clip_grad_norm_`, unless [`finite`](Self::finite) refuses it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipNorm {
    max: f64,
    p: f64,
    finite: bool,
}

impl ClipNorm {
    /// Clips the 2-norm at `max`.
    pub fn new(max: f64) -> ClipNorm {
        ClipNorm { max, p: 2.0, finite: false }
    }
    /// Takes the p-norm; p may be infinite.
    pub fn p(self, p: f64) -> ClipNorm {
        ClipNorm { p, ..self }
    }
    /// Makes a norm that is not finite an error, before anything is updated. This waits for the device at each step.
    pub fn finite(self) -> ClipNorm {
        ClipNorm { finite: true, ..self }
    }
}

/// The p-norm of all gradients together, without dimensions: the norm of their norms. `None` without gradients.
pub fn gradient_norm(grads: &NamedGrads, p: f64) -> Result<Option<Tensor>> {
    scaled_gradient_norm(grads, 1.0, p)
}

/// As [`gradient_norm`], of the gradients times a number, which undoes the scale of a [scaled loss](crate::LossScale).
pub fn scaled_gradient_norm(grads: &NamedGrads, by: f64, p: f64) -> Result<Option<Tensor>> {
    let grads: Vec<&NamedGrad> = grads.iter().filter(|g| g.grad.elements() > 0).collect();
    let Some(first) = grads.first() else { return Ok(None) };
    let wide = |d: DType| if d.is_half() { DType::F32 } else { d };
    let dtype = grads.iter().map(|g| wide(g.grad.dtype())).fold(DType::F32, DType::promote);
    let alike = grads.iter().all(|g| g.grad.dtype() == dtype && g.grad.device() == first.grad.device());
    if p == 2.0 && alike {
        let all: Vec<&Tensor> = grads.iter().map(|g| &g.grad).collect();
        return Tensor::try_scaled_global_norm(&all, by).map(Some);
    }
    let mut norms = Vec::with_capacity(grads.len());
    for g in &grads {
        let wide = multiplied(&g.grad.try_to_dtype(wide(g.grad.dtype()))?, by)?;
        let norm = wide.try_norm(p, &[], false)?;
        norms.push(gradus_core::tensor::to_device(&norm.try_to_dtype(dtype)?, first.grad.device())?);
    }
    let norms: Vec<&Tensor> = norms.iter().collect();
    Tensor::try_stack(&norms, 0)?.try_norm(p, &[], false).map(Some)
}

impl Transform for ClipNorm {
    fn name(&self) -> &'static str {
        "ClipNorm"
    }
    fn check(&self, _names: &[&str]) -> Result<()> {
        demand_positive(self.name(), "the largest norm", self.max)?;
        crate::demand::demand(self.p > 0.0, self.name(), "p", "above 0", self.p)
    }
    fn factor(&self, grads: &NamedGrads, by: f64, notes: &mut Notes) -> Result<Option<Tensor>> {
        let Some(norm) = scaled_gradient_norm(grads, by, self.p)? else { return Ok(None) };
        if self.finite {
            let value: f64 = norm.item()?;
            if !value.is_finite() {
                return Err(Error::data(format!(
                    "ClipNorm: the global norm of the gradients is {value}; {}",
                    culprits(grads)?
                )));
            }
        }
        let factor = Tensor::try_chain([&norm], |[norm]| {
            let factor = (self.max / (norm + 1e-6)).minimum(1.0);
            if by == 1.0 { factor } else { factor * by }
        })?;
        notes.gradient_norm = Some(norm);
        Ok(Some(factor))
    }
    fn apply(&self, grads: &mut NamedGrads, notes: &mut Notes) -> Result<()> {
        let Some(factor) = self.factor(grads, 1.0, notes)? else { return Ok(()) };
        grads.iter_mut().try_for_each(|g| {
            g.grad = g.grad.try_mul(&beside(&factor, &g.grad)?)?;
            Ok(())
        })
    }
}

/// x·by, which is `x` where that is 1.
pub(crate) fn multiplied(x: &Tensor, by: f64) -> Result<Tensor> {
    if by == 1.0 { Ok(x.clone()) } else { x.try_binary_scalar(BinaryOp::Mul, by) }
}

/// A number in the dtype and on the device of a gradient.
pub(crate) fn beside(factor: &Tensor, grad: &Tensor) -> Result<Tensor> {
    gradus_core::tensor::to_device(&factor.try_to_dtype(grad.dtype())?, grad.device())
}

/// The gradients that are not finite, by name.
fn culprits(grads: &NamedGrads) -> Result<String> {
    let mut names = Vec::new();
    for g in grads.iter().filter(|g| g.grad.elements() > 0) {
        let norm: f64 = g.grad.try_to_dtype(DType::F32)?.try_norm(f64::INFINITY, &[], false)?.item()?;
        if !norm.is_finite() {
            names.push(&*g.name);
        }
    }
    let none = "every element is finite, but their squares overflow";
    Ok(if names.is_empty() { none.into() } else { format!("not finite in: {}", names.join(", ")) })
}

/// Limits each element of the gradients to [−max, max]. In PyTorch: `clip_grad_value_`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipValue {
    max: f64,
}

impl ClipValue {
    /// Clips elements at `max`.
    pub fn new(max: f64) -> ClipValue {
        ClipValue { max }
    }
}

impl Transform for ClipValue {
    fn name(&self) -> &'static str {
        "ClipValue"
    }
    fn check(&self, _names: &[&str]) -> Result<()> {
        demand_positive(self.name(), "the largest value", self.max)
    }
    fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
        for g in grads {
            g.grad = g.grad.try_clamp(Some(-self.max), Some(self.max))?;
        }
        Ok(())
    }
}
