//! Gradients of activations in one pass, and affine maps with their activation.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::runtime::GpuRuntime;
use gradus_core::backend::MatmulSpec;
use gradus_core::composite::Fused;
use gradus_core::functional::linear::keeps_slope;
use gradus_core::ops::UnaryOp;
use gradus_core::{Result, View};
use gradus_kernels::unary_grad::{UnaryGrad, unary_grad_kernel};

/// The kernel of an op's gradient, where there is one.
pub(super) fn gradient(op: UnaryOp) -> Option<UnaryGrad> {
    use UnaryGrad as G;
    Some(match op {
        UnaryOp::Relu => G::Relu,
        UnaryOp::Sigmoid => G::Sigmoid,
        UnaryOp::Tanh => G::Tanh,
        UnaryOp::Exp => G::Exp,
        UnaryOp::Sqrt => G::Sqrt,
        UnaryOp::Log => G::Log,
        UnaryOp::Square => G::Square,
        UnaryOp::Silu => G::Silu,
        UnaryOp::Gelu => G::Gelu,
        UnaryOp::GeluTanh => G::GeluTanh,
        UnaryOp::Abs => G::Abs,
        UnaryOp::Sin => G::Sin,
        UnaryOp::Cos => G::Cos,
        UnaryOp::Softplus => G::Softplus,
        _ => return None,
    })
}

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn unary_grad(&self, op: UnaryOp, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, v] = x else { return Ok(None) };
        let Some(kernel) = gradient(op).filter(|_| covered(g.dtype) && v.dtype == g.dtype && g.elements() > 0) else {
            return Ok(None);
        };
        let (mg, mv, len) = (self.memory_of(g.buffer)?, self.memory_of(v.buffer)?, g.elements());
        let out = self.reserve(len, g.dtype)?;
        let (shape, [at_g, at_v]) = folded(g.shape(), [&Steps::of(g.layout), &Steps::of(v.layout)]);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[mg.elements, mv.elements, len])?;
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            unary_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(mg),
                self.array(mv),
                self.array(&out),
                lengths(&shape),
                at_g.place(),
                at_v.place(),
                len,
                kernel,
                self.types.stored(g.dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    pub(super) fn linear(&self, activation: Option<UnaryOp>, x: &[View<'_>]) -> Result<Option<Fused>> {
        if !covered(x[0].dtype) || activation.is_some_and(keeps_slope) {
            return Ok(None);
        }
        let turned = x[1].layout.permute(&[1, 0]); // [in, out]
        let spec = MatmulSpec { bias: x.get(2).copied(), activation };
        Ok(Some(Fused::one(self.product(x[0], View { layout: &turned, ..x[1] }, &spec)?)))
    }
}
