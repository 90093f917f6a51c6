//! The affine layer: one product with bias and activation in its epilogue; its gradients in one call.

use crate::elementwise::finish;
use crate::matmul::{can_finish, matmul};
use crate::memory::{CpuStorage, release};
use crate::product::{finish_block, product};
use crate::reduce::reduce;
use crate::unary_grad::{gradient, times_slope};
use gradus_core::Result;
use gradus_core::backend::{Dims, MatmulSpec, View};
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::linear::{Linear, LinearGrad, keeps_slope};
use gradus_core::ops::ReduceOp;
use gradus_core::{DType, Layout};

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Linear>| {
        let (x, w, bias) = (c.x[0], c.x[1], c.x.get(2).copied());
        if !can_finish(x.dtype, c.op.activation) || bias.is_some_and(|b| !b.layout.is_dense()) {
            return Ok(None);
        }
        let spec = MatmulSpec { bias, activation: c.op.activation };
        let turned = transposed(w);
        let w = View { layout: &turned, ..w };
        if !c.records || !c.op.activation.is_some_and(keeps_slope) {
            return Ok(Some(Fused::one(matmul(x, w, &spec)?)));
        }
        let slope = CpuStorage::new(c.outputs[0].shape.elements() * size_of::<f32>())?;
        let y = product::<f32>(x, w, &spec, Some(finish_block), Some(&slope))?;
        Ok(Some(Fused::one(y).keep(c.outputs[0], finish(slope)?)))
    });
    table.register(|c: FusedCall<'_, LinearGrad>| match c.x[0].dtype {
        DType::F32 => backward(*c.op, c.x),
        _ => Ok(None),
    });
}

fn transposed(x: View<'_>) -> Layout {
    x.layout.permute(&[1, 0])
}

fn backward(op: LinearGrad, x: &[View<'_>]) -> Result<Option<Fused>> {
    let (mut g, dense, mut before) = (x[0], Layout::dense(*x[0].shape()), None);
    if let Some(f) = op.activation {
        let buffer = if keeps_slope(f) { Some(times_slope(g, x[3])?) } else { gradient(f, g, x[3])? };
        let Some(buffer) = buffer else { return Ok(None) };
        g = View { buffer: before.insert(buffer), layout: &dense, ..g };
    }
    let mut fused = Fused::default();
    if op.wanted[0] {
        fused.outputs.push(matmul(g, x[2], &MatmulSpec::default())?);
    }
    if op.wanted[1] {
        fused.outputs.push(matmul(View { layout: &transposed(g), ..g }, x[1], &MatmulSpec::default())?);
    }
    if op.wanted[2] {
        fused.outputs.push(reduce(ReduceOp::Sum, g, Dims::default().with(0))?);
    }
    if let Some(buffer) = before {
        release(buffer);
    }
    Ok(Some(fused))
}
