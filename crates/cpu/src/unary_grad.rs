//! Gradients of the commonest activations in one pass.

use crate::activation::Activation;
use crate::elementwise::{CHUNK, finish, source_of};
use crate::launch::{Out, launch};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch};
use crate::threads::for_ranges;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::ops::{UnaryGrad, UnaryOp};
use gradus_core::{Buffer, DType, Result};

pub(crate) type Fn2 = fn(&[f32], &[f32], &mut [f32]);

macro_rules! grad {
    (|$g:ident, $v:ident| $body:expr) => {{
        vectorized! { fn run(g: &[f32], v: &[f32], d: &mut [f32]) { for ((d, &$g), &$v) in d.iter_mut().zip(g).zip(v) { *d = $body; } } }
        run as Fn2
    }};
}

/// The loop for an op's gradient, of the output's gradient and the saved input or output.
pub(crate) fn table(op: UnaryOp) -> Option<Fn2> {
    Some(match op {
        UnaryOp::Relu => grad!(|g, y| if y <= 0.0 { 0.0 } else { g }),
        UnaryOp::Sigmoid => grad!(|g, y| g * (y * (1.0 - y))),
        UnaryOp::Tanh => grad!(|g, y| g * (1.0 - y * y)),
        UnaryOp::Exp => grad!(|g, y| g * y),
        UnaryOp::Sqrt => grad!(|g, y| g / (y * 2.0)),
        UnaryOp::Log => grad!(|g, x| g / x),
        UnaryOp::Square => grad!(|g, x| g * x * 2.0),
        UnaryOp::Silu => grad!(|g, x| g * x.silu::<FMA>().1),
        UnaryOp::Gelu => grad!(|g, x| g * x.gelu::<FMA>().1),
        UnaryOp::GeluTanh => grad!(|g, x| g * x.gelu_tanh::<FMA>().1),
        _ => return None,
    })
}

pub(crate) fn register(kernels: &KernelTable) {
    kernels.register(|c: FusedCall<'_, UnaryGrad>| {
        if c.x.len() != 2 || c.x[0].dtype != DType::F32 {
            return Ok(None);
        }
        Ok(gradient(c.op.0, c.x[0], c.x[1])?.map(Fused::one))
    });
}

/// The gradient before an op, of the one behind it and what the op saves, of `f32`; `None` for an op without a loop here.
pub(crate) fn gradient(op: UnaryOp, g: View<'_>, saved: View<'_>) -> Result<Option<Buffer>> {
    table(op).map(|f| pairwise(f, g, saved)).transpose()
}

/// The same, of an op's slope.
pub(crate) fn times_slope(g: View<'_>, slope: View<'_>) -> Result<Buffer> {
    pairwise(grad!(|g, slope| g * slope), g, slope)
}

fn pairwise(f: Fn2, g: View<'_>, saved: View<'_>) -> Result<Buffer> {
    let n = g.elements();
    let ((g, sg), (v, sv)) = (source_of::<f32>(g)?, source_of::<f32>(saved)?);
    let to = CpuStorage::new(n * 4)?;
    let out = Out::<f32>::of(&to);
    launch(&[sg, sv], &[&to], move || {
        for_ranges(n, CHUNK, 400, |start, len| {
            let (mut kg, mut kv) = (Scratch::new(), Scratch::new());
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                f(g.block(at, k, &mut kg), v.block(at, k, &mut kv), out.part(at, k));
            }
        });
    });
    finish(to)
}
