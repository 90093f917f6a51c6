//! The launches of attention in plain `f32`.

use super::Call;
use crate::Gpu;
use crate::launch::Steps;
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::{AddressType, CubeCount, CubeDim};
use gradus_kernels::attention::{attention_dkv_kernel, attention_dq_kernel, attention_kernel};

impl<R: GpuRuntime> Gpu<R> {
    /// The forward kernel's launch; `memory` is that of queries, keys, values and mask, `out` of the output and ln Σ e^score.
    pub(super) fn attention_plain(
        &self,
        c: &Call<'_>,

        memory: [&GpuBuffer; 4],
        out: [&GpuBuffer; 2],
        places: [&Steps; 4],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, c.queries, c.heads);
        let [q, k, v, mask] = memory.map(|m| self.array(m));
        let [y, lse] = out.map(|m| self.array(m));
        let [at_q, at_k, at_v, at_mask] = places.map(|s| s.place());
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel checks each query, key and column
        // against its length; a mask is read only if there is one.
        unsafe {
            attention_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                q,
                k,
                v,
                mask,
                y,
                lse,
                at_q,
                at_k,
                at_v,
                at_mask,
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
    }

    /// The launch of dq's kernel; `memory` is that of g, q, k, v, y, ln Σ e^score and mask, `out` of dq and δ.
    pub(super) fn attention_plain_dq(
        &self,
        c: &Call<'_>,

        memory: [&GpuBuffer; 7],
        out: [&GpuBuffer; 2],
        places: [&Steps; 6],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, c.queries, c.heads);
        let [g, q, k, v, y, lse, mask] = memory.map(|m| self.array(m));
        let [dq, delta] = out.map(|m| self.array(m));
        let [at_g, at_q, at_k, at_v, at_y, at_mask] = places.map(|s| s.place());
        // SAFETY: as of the forward kernel's launch; ln Σ e^score has a number for each query.
        unsafe {
            attention_dq_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                g,
                q,
                k,
                v,
                y,
                lse,
                mask,
                dq,
                delta,
                at_g,
                at_q,
                at_k,
                at_v,
                at_y,
                at_mask,
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
    }

    /// The launch of dk's and dv's kernel; `memory` is that of g, q, k, v, ln Σ e^score, δ and mask, `out` of dk and dv.
    pub(super) fn attention_plain_dkv(
        &self,
        c: &Call<'_>,

        memory: [&GpuBuffer; 7],
        out: [&GpuBuffer; 2],
        places: [&Steps; 5],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, c.keys, c.shared);
        let [g, q, k, v, lse, delta, mask] = memory.map(|m| self.array(m));
        let [dk, dv] = out.map(|m| self.array(m));
        let [at_g, at_q, at_k, at_v, at_mask] = places.map(|s| s.place());
        // SAFETY: as of the forward kernel's launch; δ was written for each query.
        unsafe {
            attention_dkv_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                g,
                q,
                k,
                v,
                lse,
                delta,
                mask,
                dk,
                dv,
                at_g,
                at_q,
                at_k,
                at_v,
                at_mask,
                c.problem(),
                c.form,
                c.types,
            );
        }
        self.launched();
    }
}

/// A cube for each tile of `rows` of each of `heads` heads.
fn grid(c: &Call<'_>, rows: usize, heads: usize) -> (CubeCount, CubeDim) {
    let (tiles, side) = (rows.div_ceil(c.form.tile()) as u32, c.form.side as u32);
    (CubeCount::Static(tiles, heads as u32, c.batches as u32), CubeDim::new_2d(side, side))
}
