//! The affine layer: one product with bias and activation in its epilogue.

use crate::matmul::{can_finish, matmul};
use gradus_core::backend::{MatmulSpec, View};
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::linear::Linear;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Linear>| {
        let (x, w, bias) = (c.x[0], c.x[1], c.x.get(2).copied());
        if !can_finish(x.dtype, c.op.activation) || bias.is_some_and(|b| !b.layout.is_dense()) {
            return Ok(None);
        }
        let wt = w.layout.permute(&[1, 0]);
        let spec = MatmulSpec { bias, activation: c.op.activation };
        Ok(Some(Fused::one(matmul(x, View { layout: &wt, ..w }, &spec)?)))
    });
}
