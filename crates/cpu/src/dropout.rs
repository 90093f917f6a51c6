//! Fused dropout: the mask's words are drawn block by block and never stored.

use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::random::for_words;
use crate::simd::vectorized;
use crate::strided::Scratch;
use crate::threads::for_ranges;
use gradus_core::DType;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::dropout::Dropout;
use gradus_core::rng::uniform;

vectorized! {
    fn masked(x: &[f32], w: &[u32], keep: f32, scale: f32, y: &mut [f32]) {
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = x * if uniform(w) < keep { scale } else { 0.0 };
        }
    }
}

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Dropout>| {
        let (x, p) = (c.x[0], c.op.p);
        let keep = 1.0 - p;
        // The mask compares in f64 by definition; a uniform is a multiple of 2⁻²⁴, so any bound between two of them decides alike.
        let bound = (keep * 16_777_216.0).ceil() as f32 / 16_777_216.0;
        if x.dtype != DType::F32 {
            return Ok(None);
        }
        let n = x.elements();
        let (from, to) = (storage(x.buffer)?, CpuStorage::new(n * 4)?);
        let (src, out, key) = (crate::elementwise::source::<f32>(x)?, Out::<f32>::of(&to), c.op.key.clone());
        let scale = if keep > 0.0 { (1.0 / keep) as f32 } else { 0.0 };
        launch(&[from], &[&to], move || {
            for_ranges(n, 8192, 1500, |start, len| {
                let mut scratch = Scratch::new();
                for_words(&key, start, len, |at, k, w| {
                    masked(src.block(at, k, &mut scratch), w, bound, scale, out.part(at, k))
                });
            });
        });
        Ok(Some(Fused::one(finish(to)?)))
    });
}
