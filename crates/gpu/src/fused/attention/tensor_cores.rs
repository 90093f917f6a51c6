//! When attention goes by tensor cores, how it is cut for them, and its launches. The choice depends on the device, the dtype and
//! the shapes alone.

use super::Call;
use crate::Gpu;
use crate::launch::Steps;
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::ir::features::MmaConfig;
use cubecl::prelude::{AddressType, CubeCount, CubeDim};
use gradus_core::{DType, View};
use gradus_kernels::attention::tensor_cores::{
    Cores, attention_cores_dkv_kernel, attention_cores_dq_kernel, attention_cores_kernel,
};

/// What the table of strategies says where threads are to do what tensor cores would; see [`crate::strategies`].
const EMULATED: usize = 2;

/// Planes of a cube: four share each tile of the other side.
const PLANES: usize = 4;

/// The three kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Forward,
    /// The gradient of queries.
    Queries,
    /// The gradients of keys and values.
    Keys,
}

impl Kernel {
    /// The widest heads whose results a lane's registers hold.
    fn widest(self) -> usize {
        match self {
            Kernel::Forward => 256,
            Kernel::Queries | Kernel::Keys => 128,
        }
    }
    /// Rows of the other side's tile for heads of so many columns. A lane holds half as many scores; with these, NVIDIA's
    /// compiler keeps all in registers, and a multiprocessor of Ampere or Hopper has room for two to four cubes.
    fn other(self, columns: usize) -> usize {
        match self {
            Kernel::Forward if columns <= 128 => 64,
            Kernel::Queries if columns <= 64 => 64,
            _ => 32,
        }
    }
}

impl<R: GpuRuntime> Gpu<R> {
    /// What a kernel is compiled for where tensor cores do the call's products.
    pub(super) fn cores(&self, c: &Call<'_>, kernel: Kernel, dtype: DType, operands: &[&View<'_>]) -> Option<Cores> {
        let asked = self.strategies().attention_cores;
        let emulated = asked == EMULATED;
        if asked == 0 || !emulated && !self.has_cores(dtype) {
            return None;
        }
        let [width, values] = [c.width, c.values].map(|n| n.next_multiple_of(16));
        let columns = width.max(values);
        if columns > kernel.widest() {
            return None;
        }
        let mut form = Cores {
            planes: PLANES,
            other: kernel.other(columns),
            width,
            values,
            lanes: self.lanes(dtype, &[c.width, c.values], operands),
            causal: c.form.causal,
            mask: c.form.mask,
            dropout: c.form.dropout,
            emulated,
        };
        let size = self.types.size(dtype);
        let shared = |f: Cores| if kernel == Kernel::Forward { f.shared(size) } else { f.shared_backward(size) };
        let room = self.client.properties().hardware.max_shared_memory_size;
        while shared(form) > room && form.other > 16 {
            form.other /= 2;
        }
        while shared(form) > room && form.planes > 1 {
            form.planes /= 2;
        }
        (shared(form) <= room).then_some(form)
    }

    /// Whether the device multiplies 16 × 16 of this dtype with 16 × 8 to sums in `f32`, in planes of 32 lanes.
    fn has_cores(&self, dtype: DType) -> bool {
        let (of, properties) = (self.types.stored(dtype), self.client.properties());
        let product = MmaConfig { a_type: of, b_type: of, cd_type: crate::types::F32, m: 16, n: 8, k: 16 };
        let planes = [properties.hardware.plane_size_min, properties.hardware.plane_size_max];
        matches!(dtype, DType::F16 | DType::Bf16)
            && planes == [32, 32]
            && properties.features.matmul.mma.contains(&product)
    }

    /// How many numbers of the operands can be read at a time: up to 16 bytes, where rows lie in one piece and all that
    /// leads to one is divisible.
    fn lanes(&self, dtype: DType, columns: &[usize], operands: &[&View<'_>]) -> usize {
        let most = self.client.properties().hardware.max_vector_size.min(16 / self.types.size(dtype));
        let fits = |n: usize| {
            n <= most
                && columns.iter().all(|c| c.is_multiple_of(n))
                && operands.iter().all(|v| {
                    let (last, leading) = v.layout.strides().split_last().unwrap_or((&1, &[]));
                    *last == 1 && v.layout.offset() % n == 0 && leading.iter().all(|s| s % n as isize == 0)
                })
        };
        [8, 4, 2].into_iter().find(|n| fits(*n)).unwrap_or(1)
    }

    /// The forward kernel's launch; `memory` is that of queries, keys, values and mask, `out` of the output and ln Σ e^score.
    pub(super) fn attention_cores(
        &self,
        c: &Call<'_>,
        form: Cores,
        memory: [&GpuBuffer; 4],
        out: [&GpuBuffer; 2],
        places: [&Steps; 4],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, form, c.queries, c.heads);
        let [q, k, v, mask] = memory.map(|m| self.array(m));
        let [y, lse] = out.map(|m| self.array(m));
        let [at_q, at_k, at_v, at_mask] = places.map(|s| s.place());
        // SAFETY: as of the plain kernel's launch; where several numbers are read at a time, rows, strides and offsets are
        // multiples of as many, and so they lie inside the row that the first of them lies in.
        unsafe {
            attention_cores_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                form.lanes,
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
                form,
                c.types,
            );
        }
        self.launched();
    }

    /// The launch of dq's kernel; `memory` is that of g, q, k, v, y, ln Σ e^score and mask, `out` of dq and δ.
    pub(super) fn attention_cores_dq(
        &self,
        c: &Call<'_>,
        form: Cores,
        memory: [&GpuBuffer; 7],
        out: [&GpuBuffer; 2],
        places: [&Steps; 6],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, form, c.queries, c.heads);
        let [g, q, k, v, y, lse, mask] = memory.map(|m| self.array(m));
        let [dq, delta] = out.map(|m| self.array(m));
        let [at_g, at_q, at_k, at_v, at_y, at_mask] = places.map(|s| s.place());
        // SAFETY: as of the forward kernel's launch.
        unsafe {
            attention_cores_dq_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                form.lanes,
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
                form,
                c.types,
            );
        }
        self.launched();
    }

    /// The launch of dk's and dv's kernel; `memory` is that of g, q, k, v, ln Σ e^score, δ and mask, `out` of dk and dv.
    pub(super) fn attention_cores_dkv(
        &self,
        c: &Call<'_>,
        form: Cores,
        memory: [&GpuBuffer; 7],
        out: [&GpuBuffer; 2],
        places: [&Steps; 5],
        address: AddressType,
    ) {
        let (cubes, threads) = grid(c, form, c.keys, c.shared);
        let [g, q, k, v, lse, delta, mask] = memory.map(|m| self.array(m));
        let [dk, dv] = out.map(|m| self.array(m));
        let [at_g, at_q, at_k, at_v, at_mask] = places.map(|s| s.place());
        // SAFETY: as of the forward kernel's launch; δ was written for each query.
        unsafe {
            attention_cores_dkv_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                form.lanes,
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
                form,
                c.types,
            );
        }
        self.launched();
    }
}

/// A cube for each tile of `rows` of each of `heads` heads, with a plane of 32 lanes for each 16 rows.
fn grid(c: &Call<'_>, form: Cores, rows: usize, heads: usize) -> (CubeCount, CubeDim) {
    let tiles = rows.div_ceil(form.rows()) as u32;
    (CubeCount::Static(tiles, heads as u32, c.batches as u32), CubeDim::new_2d(32, form.planes as u32))
}
