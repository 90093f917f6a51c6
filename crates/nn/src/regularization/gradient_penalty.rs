//! A penalty on how long a function's gradient by its input is: it needs second derivatives.

use gradus_core::autodiff::{Backward, enable_grad, is_grad_enabled, try_grad};
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};

/// The mean over the samples of (‖∂f/∂x‖₂ − target)², without dimensions: to be added to a loss, times a weight.
///
/// `f` maps x `[batch, ..]` to values of which each depends on its own sample alone; their sum is differentiated. With target 1 and x
/// between real and generated samples this is the penalty of WGAN-GP (Gulrajani et al., *Improved training of Wasserstein GANs*, 2017,
/// weight 10); with target 0 it is R₁ (Mescheder et al., 2018) and Drucker & Le Cun's double backpropagation (1992). The gradient of
/// a norm of 0 is taken as 0.
///
/// ```
/// use gradus_core::{Tensor, ops::BinaryOp};
/// use gradus_nn::{gradient_penalty, Param};
/// let device = gradus_cpu::device();
/// let w = Param::new(Tensor::from_slice(&[3.0, 4.0], device));
/// let x = Tensor::ones([5, 2], device.with(gradus_core::DType::F64));
/// let penalty = gradient_penalty(|x| x.try_matmul(&w), &x, 1.0)?;
/// penalty.backward();
/// assert!((penalty.item::<f64>()? - 16.0).abs() < 1e-12); // (5 − 1)²
/// let slope = w.grad().expect("the penalty depends on w").to_vec::<f64>()?; // 2·(5 − 1)·w/5
/// assert!((slope[0] - 4.8).abs() < 1e-12 && (slope[1] - 6.4).abs() < 1e-12);
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn gradient_penalty(f: impl FnOnce(&Tensor) -> Result<Tensor>, x: &Tensor, target: f64) -> Result<Tensor> {
    let Some(&samples) = x.dims().first().filter(|n| **n > 0) else {
        return Err(Error::misuse(format!("gradient_penalty: needs samples [batch, ..]; got {}", x.shape())));
    };
    let x = if x.is_tracked() { x.clone() } else { x.try_requires_grad()? };
    let how = if is_grad_enabled() { Backward::graph() } else { Backward::default() };
    let y = enable_grad(|| f(&x)?.try_sum())?; // also where nothing is recorded: the slope itself needs a graph
    let slope = try_grad(&[&y], &[&x], how).map_err(|e| e.context("gradient_penalty"))?.remove(0);
    let norms = slope.try_reshape([samples, x.elements() / samples])?.try_norm(2.0, &[1], false)?;
    norms.try_binary_scalar(BinaryOp::Sub, target)?.try_square()?.try_mean()
}
