//! A part of the way from one tensor to another, in one pass, with the bits of its three ops.

use crate::elementwise::{map2, source_of};
use crate::math::Float;
use crate::simd::vectorized;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::lerp::Lerp;
use gradus_core::{DType, Element, Result};

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Lerp>| match c.x[0].dtype {
        DType::F32 => lerp::<f32>(c).map(Some),
        DType::F64 => lerp::<f64>(c).map(Some),
        _ => Ok(None), // between halves each op rounds
    });
}

vectorized! {
    fn row<T: Float>(part: T, x: &[T], end: &[T], out: &mut [T]) {
        for ((out, &x), &end) in out.iter_mut().zip(x).zip(end) {
            *out = x + (end - x) * part;
        }
    }
}

fn lerp<T: Float + Element>(c: FusedCall<'_, Lerp>) -> Result<Fused> {
    let ((x, of_x), (end, of_end)) = (source_of::<T>(c.x[0])?, source_of::<T>(c.x[1])?);
    let (n, part) = (c.x[0].elements(), c.op.part.clone());
    let run = move |x: &[T], end: &[T], out: &mut [T]| row(T::from_f64(part.to_f64()), x, end, out);
    Ok(Fused::one(map2(n, x, end, [Some(of_x), Some(of_end)], 700, run)?))
}
