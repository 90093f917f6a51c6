//! silu(gate)·up and its gradients, each in one launch.

use super::covered;
use crate::Gpu;
use crate::launch::{Steps, folded, lengths};
use crate::runtime::GpuRuntime;
use gradus_core::composite::Fused;
use gradus_core::{Result, View};
use gradus_kernels::swiglu::{swiglu_grad_kernel, swiglu_kernel};
use smallvec::smallvec;

impl<R: GpuRuntime> Gpu<R> {
    pub(super) fn swiglu(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [gate, up] = x else { return Ok(None) };
        let (len, dtype) = (gate.elements(), gate.dtype);
        if !covered(dtype) || len == 0 {
            return Ok(None);
        }
        let (a, b, out) = (self.memory_of(gate.buffer)?, self.memory_of(up.buffer)?, self.reserve(len, dtype)?);
        let (shape, [at_gate, at_up]) = folded(gate.shape(), [&Steps::of(gate.layout), &Steps::of(up.layout)]);
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[a.elements, b.elements, len])?;
        // SAFETY: the views lie inside their buffers (the caller's contract), and the kernel stops at `len`.
        unsafe {
            swiglu_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(a),
                self.array(b),
                self.array(&out),
                lengths(&shape),
                at_gate.place(),
                at_up.place(),
                len,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused::one(self.done(out)?)))
    }

    pub(super) fn swiglu_grad(&self, x: &[View<'_>]) -> Result<Option<Fused>> {
        let [g, gate, up] = x else { return Ok(None) };
        let (len, dtype) = (g.elements(), g.dtype);
        if !covered(dtype) || len == 0 {
            return Ok(None);
        }
        let memory = x.iter().map(|v| self.memory_of(v.buffer)).collect::<Result<Vec<_>>>()?;
        let (of_gate, of_up) = (self.reserve(len, dtype)?, self.reserve(len, dtype)?);
        let steps = [g, gate, up].map(|v| Steps::of(v.layout));
        let (shape, [at_g, at_gate, at_up]) = folded(g.shape(), steps.each_ref());
        let (cubes, threads) = self.grid(len);
        let address = self.address(&[memory[0].elements, memory[1].elements, memory[2].elements, len])?;
        // SAFETY: as in `swiglu`.
        unsafe {
            swiglu_grad_kernel::launch_unchecked::<R>(
                self.client(),
                cubes,
                threads,
                address,
                self.array(memory[0]),
                self.array(memory[1]),
                self.array(memory[2]),
                self.array(&of_gate),
                self.array(&of_up),
                lengths(&shape),
                at_g.place(),
                at_gate.place(),
                at_up.place(),
                len,
                self.types.stored(dtype),
            );
        }
        self.launched();
        Ok(Some(Fused { outputs: smallvec![self.done(of_gate)?, self.done(of_up)?], ..Fused::default() }))
    }
}
