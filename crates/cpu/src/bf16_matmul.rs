//! Products of `bf16` by the processor's own instruction (AVX512-BF16), where it has it: `c + a₀·b₀ + a₁·b₁` for pairs along k, summed in `f32`.
//!
//! The right operand is packed into panels of 32 columns, pair by pair, the left one only where its pairs do not lie side by side. Rows are shared out
//! in blocks that depend on the sizes alone; each element is one sum over k in order, so the bits do not depend on the threads.
//! (Subnormal products count as 0: that is how the instruction is made.)

use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::matmul::{Matrix, Side};
use crate::memory::CpuStorage;
use crate::simd::{Level, level};
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::{Buffer, Result};
use half::bf16;

/// Columns of a panel: two registers.
const PANEL: usize = 32;
/// Rows of a block, which one thread computes.
const BLOCK: usize = 64;
/// Pairs along k after which the sums go back to memory, so that a panel's part stays in the cache.
const DEPTH: usize = 1024;
/// Smaller products are not worth the packing.
const LEAST: usize = 1 << 14;

/// Whether [`product`] is for products of `[m, k] × [k, n]` on this processor.
pub(crate) fn fits(m: usize, k: usize, n: usize) -> bool {
    m > 1 && m * k * n >= LEAST && level() == Level::Avx512 && detected()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}
#[cfg(not(target_arch = "x86_64"))]
fn detected() -> bool {
    false
}

/// A number of `bf16`'s bits.
fn bits(x: *const bf16) -> u32 {
    // SAFETY: a place inside an operand, by the callers.
    unsafe { (*x).to_bits() as u32 }
}

/// The pairs of row `i` of a matrix whose rows have `k` numbers; an odd last number is paired with 0.
fn pairs(x: Matrix<bf16>, i: usize, k: usize) -> impl Iterator<Item = u32> {
    let row = x.ptr.wrapping_offset(i as isize * x.row);
    let at = move |p: usize| if p < k { bits(row.wrapping_offset(p as isize * x.column)) } else { 0 };
    (0..k.div_ceil(2)).map(move |p| at(2 * p) | at(2 * p + 1) << 16)
}

/// a·b in `f32`, for `[batch.., m, k] × [batch.., k, n]` of `bf16` that [fit](fits).
pub(crate) fn product(a: View<'_>, b: View<'_>) -> Result<Buffer> {
    let (ra, rb) = (a.shape().rank(), b.shape().rank());
    let (m, k, n) = (a.shape()[ra - 2], a.shape()[ra - 1], b.shape()[rb - 1]);
    let batch: usize = a.shape()[..ra - 2].iter().product();
    let (sa, sb) = (Side::<bf16>::of(a)?, Side::<bf16>::of(b)?);
    let (depth, panels, blocks) = (k.div_ceil(2), n.div_ceil(PANEL), m.div_ceil(BLOCK));
    let in_place = sa.columns == 1 && k.is_multiple_of(2);
    let to = CpuStorage::new(batch * m * n * size_of::<f32>())?;
    let right = CpuStorage::new(batch * panels * PANEL * depth * size_of::<u32>())?;
    let left = CpuStorage::new(if in_place { 0 } else { batch * m * depth * size_of::<u32>() })?;
    let (out, packed, rows) = (Out::<f32>::of(&to), Out::<u32>::of(&right), Out::<u32>::of(&left));
    launch(&[storage(a.buffer)?, storage(b.buffer)?], &[&to, &right, &left], move || {
        for_chunks(batch * panels, batch * k * n, |c| {
            let panel = packed.part(c * PANEL * depth, PANEL * depth);
            // The columns of b are the rows of its transpose.
            let columns = Matrix { ptr: sb.start(c / panels), row: sb.columns, column: sb.rows };
            let first = c % panels * PANEL;
            for j in 0..PANEL {
                let pad = first + j >= n;
                for (p, pair) in pairs(columns, if pad { 0 } else { first + j }, k).enumerate() {
                    panel[p * PANEL + j] = if pad { 0 } else { pair };
                }
            }
        });
        for_chunks(batch * blocks, batch * m * n * k / 100, |c| {
            let (i, first) = (c / blocks, c % blocks * BLOCK);
            let here = first..m.min(first + BLOCK);
            let x = Matrix { ptr: sa.start(i), row: sa.rows, column: sa.columns };
            let (ptr, step) = if in_place {
                (x.ptr.wrapping_offset(first as isize * x.row).cast::<u32>(), x.row * size_of::<bf16>() as isize)
            } else {
                let block = rows.part((i * m + first) * depth, here.len() * depth);
                for (row, to) in here.clone().zip(block.chunks_exact_mut(depth)) {
                    to.iter_mut().zip(pairs(x, row, k)).for_each(|(to, pair)| *to = pair);
                }
                (block.as_ptr(), (depth * size_of::<u32>()) as isize)
            };
            let panels = packed.whole()[i * panels * PANEL * depth..].as_ptr();
            // SAFETY: `fits` has seen the instructions; blocks are disjoint and lie inside the operands and the output.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                native::block(out.ptr().add((i * m + first) * n), here.len(), n, depth, (ptr, step), panels);
            }
        });
    });
    finish(to)
}

#[cfg(target_arch = "x86_64")]
mod native {
    use super::{DEPTH, PANEL};
    use std::arch::x86_64::*;
    use std::mem::transmute;

    /// `rows` rows of the output, rows `n` apart; the left operand's rows are `step` bytes apart.
    ///
    /// # Safety
    /// Needs the instructions named, and memory for the whole of each operand.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn block(
        out: *mut f32,
        rows: usize,
        n: usize,
        depth: usize,
        (left, step): (*const u32, isize),
        panels: *const u32,
    ) {
        for column in (0..n).step_by(PANEL) {
            let panel = panels.wrapping_add(column * depth);
            let keep = if n - column >= PANEL { u32::MAX } else { (1 << (n - column)) - 1 };
            for from in (0..depth).step_by(DEPTH) {
                let part = from..depth.min(from + DEPTH);
                let mut row = 0;
                while row < rows {
                    let to = out.wrapping_add(row * n + column);
                    let a = left.wrapping_byte_offset(row as isize * step);
                    let r = (rows - row).min(8);
                    // SAFETY: by the caller.
                    unsafe {
                        match r {
                            8 => tile::<8>(to, n, part.clone(), (a, step), panel, keep),
                            7 => tile::<7>(to, n, part.clone(), (a, step), panel, keep),
                            6 => tile::<6>(to, n, part.clone(), (a, step), panel, keep),
                            5 => tile::<5>(to, n, part.clone(), (a, step), panel, keep),
                            4 => tile::<4>(to, n, part.clone(), (a, step), panel, keep),
                            3 => tile::<3>(to, n, part.clone(), (a, step), panel, keep),
                            2 => tile::<2>(to, n, part.clone(), (a, step), panel, keep),
                            _ => tile::<1>(to, n, part.clone(), (a, step), panel, keep),
                        }
                    }
                    row += r;
                }
            }
        }
    }

    /// R rows of a panel's columns, those of which `keep` has bits, over a part of k; added to what the parts before gave.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    unsafe fn tile<const R: usize>(
        out: *mut f32,
        n: usize,
        part: std::ops::Range<usize>,
        (left, step): (*const u32, isize),
        panel: *const u32,
        keep: u32,
    ) {
        let masks = [keep as u16, (keep >> 16) as u16];
        // SAFETY: by the caller; the masks leave out what lies beyond the output's columns.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            if part.start > 0 {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_maskz_loadu_ps(masks[v], out.wrapping_add(r * n + v * 16));
                    }
                }
            }
            for p in part {
                let right: [__m512bh; 2] = std::array::from_fn(|v| {
                    transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.add(p * PANEL + v * 16).cast()))
                });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let pair = left.wrapping_byte_offset(r as isize * step).wrapping_add(p).read_unaligned();
                    let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32));
                    for (sum, &y) in sums.iter_mut().zip(&right) {
                        *sum = _mm512_dpbf16_ps(*sum, pair, y);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    _mm512_mask_storeu_ps(out.wrapping_add(r * n + v * 16), masks[v], *sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_core::{DType, Layout, Shape};

    /// Small whole numbers, so that every product and sum is exact.
    fn numbers(n: usize) -> Vec<bf16> {
        (0..n).map(|i| bf16::from_f32(((i * 7919 + 13) % 17) as f32 - 8.0)).collect()
    }

    #[test]
    fn native_products_are_the_sums_that_they_stand_for() {
        if !fits(64, 64, 64) {
            println!("skipped: this processor has no products of bf16");
            return;
        }
        let cpu = crate::device();
        for [m, k, n] in [[2, 64, 130], [9, 33, 65], [64, 64, 64], [70, 2100, 33], [129, 17, 31]] {
            let (x, y) = (numbers(3 * m * k), numbers(3 * k * n));
            let bytes = |v: &[bf16]| v.iter().flat_map(|x| x.to_bits().to_ne_bytes()).collect::<Vec<u8>>();
            let [bx, by] = [&x, &y].map(|v| cpu.backend().upload(DType::Bf16, &bytes(v)).expect("there is memory"));
            for flip in 0..4 {
                let layout = |rows: usize, columns: usize, flipped: bool| {
                    let shape = if flipped { [3, columns, rows] } else { [3, rows, columns] };
                    let dense = Layout::dense(Shape::try_new(&shape).expect("of rank 3"));
                    if flipped { dense.permute(&[0, 2, 1]) } else { dense }
                };
                let (lx, ly) = (layout(m, k, flip & 1 > 0), layout(k, n, flip & 2 > 0));
                let view = |buffer, layout| View { buffer, layout, dtype: DType::Bf16 };
                let out = product(view(&bx, &lx), view(&by, &ly)).expect("it runs");
                let have = crate::launch::In::<f32>::of(storage(&out).expect("of the CPU"));
                let (ox, oy): (Vec<usize>, Vec<usize>) = (lx.offsets().collect(), ly.offsets().collect());
                for (place, &have) in have.slice().iter().enumerate() {
                    let (i, row, column) = (place / (m * n), place / n % m, place % n);
                    let term =
                        |p: usize| x[ox[(i * m + row) * k + p]].to_f32() * y[oy[(i * k + p) * n + column]].to_f32();
                    let want: f32 = (0..k).map(term).sum();
                    assert_eq!(have, want, "[{m}, {k}] × [{k}, {n}], form {flip}, element {place}");
                }
            }
        }
    }
}
