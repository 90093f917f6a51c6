//! The doors through which calls are recorded: operations of a number and a tensor, fused kernels, updates and writes.

use crate::Gpu;
use crate::launch::{CUBE, Steps, lengths};
use crate::memory::{GpuBuffer, Memory};
use crate::runtime::GpuRuntime;
use crate::types::U32;
use cubecl::prelude::*;
use gradus_core::backend::{Operand, WriteMode};
use gradus_core::composite::{Composite, Fused, FusedCall};
use gradus_core::tensor::{Update, UpdateCall};
use gradus_core::{Backend, Buffer, Layout, Result, View};
use gradus_kernels::copy::store_kernel;

impl<R: GpuRuntime> Gpu<R> {
    /// As [`Gpu::recorded`], for operands of which one may be a number.
    pub(crate) fn recorded_pair(
        &self,
        a: Operand<'_>,
        b: Operand<'_>,
        call: impl Fn(&Gpu<R>, Operand<'_>, Operand<'_>) -> Result<Buffer> + Send + 'static,
    ) -> Result<Buffer> {
        use Operand::{Scalar, View};
        match (a, b) {
            (View(a), View(b)) => self.recorded(&[a, b], move |gpu, x| call(gpu, View(x[0]), View(x[1]))),
            (View(a), Scalar(b)) => self.recorded(&[a], move |gpu, x| call(gpu, View(x[0]), Scalar(b.clone()))),
            (Scalar(a), View(b)) => self.recorded(&[b], move |gpu, x| call(gpu, Scalar(a.clone()), View(x[0]))),
            (a, b) => call(self, a, b),
        }
    }

    /// Enters the fused kernel of composite `C`, its calls recorded.
    pub(crate) fn fused<C: Composite + Clone>(
        &'static self,
        kernel: impl Fn(&Gpu<R>, FusedCall<'_, C>) -> Result<Option<Fused>> + Copy + Send + Sync + 'static,
    ) {
        self.kernels().register(move |c: FusedCall<'_, C>| {
            if !self.is_recording() {
                return kernel(self, c);
            }
            let (op, outputs, records) = (c.op.clone(), c.outputs.to_vec(), c.records);
            self.recorded(c.x, move |gpu, x| kernel(gpu, FusedCall { op: &op, on: gpu, x, outputs: &outputs, records }))
        });
    }

    /// Enters the fused kernel of update `U`, its calls recorded.
    pub(crate) fn fused_update<U: Update + Clone>(
        &'static self,
        kernel: impl Fn(&Gpu<R>, UpdateCall<'_, '_, U>) -> Result<bool> + Copy + Send + Sync + 'static,
    ) {
        self.kernels().register_update(move |c: UpdateCall<'_, '_, U>| {
            if !self.is_recording() {
                return kernel(self, c);
            }
            let (op, meta) = (c.op.clone(), c.meta);
            let targets = c.targets.iter().map(|b| self.second(b)).collect::<Result<Vec<_>>>()?;
            self.recorded(c.x, move |gpu, x| {
                let mut handles = targets.clone();
                let mut targets: Vec<&mut Buffer> = handles.iter_mut().collect();
                kernel(gpu, UpdateCall { op: &op, on: gpu, targets: &mut targets, meta, x })
            })
        });
    }

    /// As [`Gpu::write_into`], recorded.
    pub(crate) fn recorded_write(&self, dst: &mut Buffer, at: &Layout, src: View<'_>, mode: WriteMode) -> Result<()> {
        if !self.is_recording() {
            return self.write_into(dst, at, src, mode);
        }
        let (to, at) = (self.second(dst)?, *at);
        self.recorded(&[src], move |gpu, x| gpu.write_into(&mut to.clone(), &at, x[0], mode))
    }

    /// Host data as the device stores it, written into new memory each time that the step is made again.
    pub(crate) fn recorded_upload(&self, elements: usize, words: Vec<u8>) -> Result<Buffer> {
        self.recorded(&[], move |gpu, _| {
            let out = gpu.reserve_bytes(elements, words.len())?;
            gpu.write_words(&words, &out)?;
            gpu.done(out)
        })
    }

    /// Writes host data, whole words, over the whole of a buffer.
    pub(super) fn write_words(&self, words: &[u8], out: &GpuBuffer) -> Result<()> {
        let count = words.len() / 4;
        let held = self.ledger.hold(words.len(), &self.name)?;
        let staged = Memory::new(self.client.create_from_slice(words), words.len(), held);
        let (cubes, dim) = (self.cubes(count.div_ceil(CUBE as usize)), CubeDim::new_1d(CUBE));
        let place = Steps::dense(&[count]);
        // SAFETY: both memories have `count` words, at which the kernel stops.
        unsafe {
            store_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                dim,
                self.address(&[count])?,
                self.raw(&staged.handle, count),
                self.raw(out.handle(), count),
                lengths(&[count]),
                place.place(),
                place.place(),
                count,
                false,
                [U32, U32],
            );
        }
        self.launched();
        Ok(())
    }
}
