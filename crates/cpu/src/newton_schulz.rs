//! The sums of Muon's iteration, in one pass: the definition's `f64` stays in registers.

use crate::elementwise::{finish, source};
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch};
use crate::threads::for_ranges;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::{DType, Result};
use half::bf16;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, NewtonSchulzSum>| match c.x[0].dtype {
        DType::F32 => sum(c).map(Some),
        _ => Ok(None),
    });
}

vectorized! {
    fn row(own: f64, other: f32, x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
            *out = (f64::from(x) * own + f64::from(y * other)) as f32;
        }
    }
}

fn sum(c: FusedCall<'_, NewtonSchulzSum>) -> Result<Fused> {
    let (n, halves) = (c.x[0].elements(), c.op.halves);
    let (own, other) = (f64::from(c.op.own as f32), c.op.other as f32);
    let to = CpuStorage::new(n * size_of::<f32>())?;
    let [x, y] = [source::<f32>(c.x[0])?, source::<f32>(c.x[1])?];
    let (reads, sums) = ([storage(c.x[0].buffer)?, storage(c.x[1].buffer)?], Out::<f32>::of(&to));
    launch(&reads, &[&to], move || {
        for_ranges(n, 4 * BLOCK, 700, |start, len| {
            let (mut of_x, mut of_y) = (Scratch::new(), Scratch::new());
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                let out = sums.part(at, k);
                row(own, other, x.block(at, k, &mut of_x), y.block(at, k, &mut of_y), out);
                if halves {
                    out.iter_mut().for_each(|s| *s = bf16::from_f32(*s).to_f32());
                }
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}
