//! Fused dropout: the mask's words are drawn block by block. For backward their decisions are kept, a bit for each element: to draw them
//! again would take longer than all else.

use crate::elementwise::{finish, source};
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::random::for_words;
use crate::simd::{block_by_block, vectorized};
use crate::strided::Scratch;
use crate::threads::for_ranges;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::dropout::{Dropout, DropoutGrad, MASK_BLOCK, MASK_LANES, mask_words};
use gradus_core::{DType, Meta, Result, Shape};

/// Elements that one thread masks at a time: whole blocks of bits.
const CHUNK: usize = 16 * MASK_BLOCK;

vectorized! {
    /// y = x·scale where a word lies below `bound` by its upper 24 bits, else x·0; the decisions in `bits`, laid out as
    /// [`Dropout`] says.
    fn masked(x: &[f32], w: &[u32], bound: u32, scale: f32, y: &mut [f32], bits: &mut [u32]) {
        let blocks = y.chunks_mut(MASK_BLOCK).zip(x.chunks(MASK_BLOCK)).zip(w.chunks(MASK_BLOCK));
        for (((y, x), w), bits) in blocks.zip(bits.as_chunks_mut::<MASK_LANES>().0) {
            let mut kept = [0u32; MASK_LANES];
            let ((ys, y), (xs, x)) = (y.as_chunks_mut::<MASK_LANES>(), x.as_chunks::<MASK_LANES>());
            let (rows, w) = (ys.len(), w.split_at(ys.len() * MASK_LANES));
            for (row, ((y, x), w)) in ys.iter_mut().zip(xs).zip(w.0.as_chunks::<MASK_LANES>().0).enumerate() {
                block_by_block();
                for i in 0..MASK_LANES { (y[i], kept[i]) = decided(x[i], w[i], bound, scale, kept[i], row); }
            }
            for (i, ((y, &x), &w)) in y.iter_mut().zip(x).zip(w.1).enumerate() {
                (*y, kept[i]) = decided(x, w, bound, scale, kept[i], rows);
            }
            *bits = kept;
        }
    }
    fn added(residual: &[f32], y: &mut [f32]) {
        for (y, &r) in y.iter_mut().zip(residual) { *y += r; }
    }
    /// The same by the bits.
    fn masked_again(g: &[f32], bits: &[u32], scale: f32, dx: &mut [f32]) {
        let blocks = dx.chunks_mut(MASK_BLOCK).zip(g.chunks(MASK_BLOCK));
        for ((dx, g), kept) in blocks.zip(bits.as_chunks::<MASK_LANES>().0) {
            let ((ds, d), (gs, g)) = (dx.as_chunks_mut::<MASK_LANES>(), g.as_chunks::<MASK_LANES>());
            let rows = ds.len();
            for (row, (d, g)) in ds.iter_mut().zip(gs).enumerate() {
                block_by_block();
                for i in 0..MASK_LANES { d[i] = g[i] * if kept[i] >> row & 1 == 1 { scale } else { 0.0 }; }
            }
            for ((d, &g), &kept) in d.iter_mut().zip(g).zip(kept) {
                *d = g * if kept >> rows & 1 == 1 { scale } else { 0.0 };
            }
        }
    }
}

/// What becomes of x, and the bits that were kept with its own at place `row`.
#[inline(always)]
fn decided(x: f32, w: u32, bound: u32, scale: f32, kept: u32, row: usize) -> (f32, u32) {
    let stays = w >> 8 < bound;
    (x * if stays { scale } else { 0.0 }, kept | (stays as u32) << row)
}

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Dropout>| match c.x[0].dtype {
        DType::F32 => forward(c.op, c.x[0], c.x.get(1), c.records).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, DropoutGrad>| match c.x[0].dtype {
        DType::F32 if c.x[1].layout.is_dense() => backward(&c.op.0, c.x[0], c.x[1]).map(Some),
        _ => Ok(None),
    });
}

fn scale(op: &Dropout) -> f32 {
    let keep = 1.0 - op.p;
    if keep > 0.0 { (1.0 / keep) as f32 } else { 0.0 }
}

fn forward(op: &Dropout, x: View<'_>, residual: Option<&View<'_>>, keeps: bool) -> Result<Fused> {
    let (n, key, scale) = (x.elements(), op.key.clone(), scale(op));
    // The definition compares in f64; a uniform is a multiple of 2⁻²⁴, so the next of these decides alike.
    let bound = ((1.0 - op.p) * 16_777_216.0).ceil() as u32;
    let words = if keeps { mask_words(n) } else { 0 };
    let (from, to, mask) = (storage(x.buffer)?, CpuStorage::new(n * 4)?, CpuStorage::new(words * 4)?);
    let (src, out, bits) = (source::<f32>(x)?, Out::<f32>::of(&to), Out::<u32>::of(&mask));
    let (more, adds) = (*residual.unwrap_or(&x), residual.is_some());
    let (also_from, more) = (storage(more.buffer)?, source::<f32>(more)?);
    launch(&[from, also_from], &[&to, &mask], move || {
        for_ranges(n, CHUNK, 1500, |start, len| {
            let (mut scratch, mut other) = (Scratch::new(), Scratch::new());
            for_words(&key, start, len, |at, k, w| {
                let (x, y) = (src.block(at, k, &mut scratch), out.part(at, k));
                let mut unkept = [0u32; 2 * MASK_LANES];
                let bits = match keeps {
                    true => bits.part(at / MASK_BLOCK * MASK_LANES, mask_words(k)),
                    false => &mut unkept[..mask_words(k)],
                };
                masked(x, w, bound, scale, y, bits);
                if adds {
                    added(more.block(at, k, &mut other), y);
                }
            });
        });
    });
    let fused = Fused::one(finish(to)?);
    match keeps {
        true => Ok(fused.keep(Meta::new(DType::U32, Shape::try_new(&[words])?), finish(mask)?)),
        false => Ok(fused),
    }
}

fn backward(op: &Dropout, g: View<'_>, mask: View<'_>) -> Result<Fused> {
    let (n, scale, start_of_bits) = (g.elements(), scale(op), mask.layout.offset());
    let (from, kept, to) = (storage(g.buffer)?, storage(mask.buffer)?, CpuStorage::new(n * 4)?);
    let (src, bits, out) = (source::<f32>(g)?, In::<u32>::of(kept), Out::<f32>::of(&to));
    launch(&[from, kept], &[&to], move || {
        for_ranges(n, CHUNK, 300, |start, len| {
            let mut scratch = Scratch::new();
            for at in (start..start + len).step_by(2 * MASK_BLOCK) {
                let k = (2 * MASK_BLOCK).min(start + len - at);
                let bits = &bits.slice()[start_of_bits + at / MASK_BLOCK * MASK_LANES..][..mask_words(k)];
                masked_again(src.block(at, k, &mut scratch), bits, scale, out.part(at, k));
            }
        });
    });
    Ok(Fused::one(finish(to)?))
}
