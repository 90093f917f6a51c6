//! silu(gate)·up and its gradients, each in one pass.

use crate::activation::Activation;
use crate::elementwise::{CHUNK, finish, source};
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch};
use crate::threads::for_ranges;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::swiglu::{SwiGlu, SwiGluGrad};
use gradus_core::{DType, Result, View};
use smallvec::smallvec;

vectorized! {
    fn forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &x), &up) in y.iter_mut().zip(gate).zip(up) { *y = x.silu::<FMA>().0 * up; }
    }
    /// The gradients of gate and up.
    fn backward(of: [&[f32]; 3], d_gate: &mut [f32], d_up: &mut [f32]) {
        let [g, gate, up] = of;
        for ((((dx, du), &g), &x), &up) in d_gate.iter_mut().zip(d_up).zip(g).zip(gate).zip(up) {
            let (y, slope) = x.silu::<FMA>();
            *dx = g * up * slope;
            *du = g * y;
        }
    }
}

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, SwiGlu>| gated(c.x));
    table.register(|c: FusedCall<'_, SwiGluGrad>| gradients(c.x));
}

fn gated(x: &[View<'_>]) -> Result<Option<Fused>> {
    let [gate, up] = x else { return Ok(None) };
    if gate.dtype != DType::F32 {
        return Ok(None);
    }
    let (n, to) = (gate.elements(), CpuStorage::new(gate.elements() * 4)?);
    let reads = [storage(gate.buffer)?, storage(up.buffer)?];
    let (gate, up, y) = (source::<f32>(*gate)?, source::<f32>(*up)?, Out::<f32>::of(&to));
    launch(&reads, &[&to], move || {
        for_ranges(n, CHUNK, 400, |start, len| {
            let (mut a, mut b) = (Scratch::new(), Scratch::new());
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                forward(gate.block(at, k, &mut a), up.block(at, k, &mut b), y.part(at, k));
            }
        });
    });
    Ok(Some(Fused::one(finish(to)?)))
}

fn gradients(x: &[View<'_>]) -> Result<Option<Fused>> {
    let [g, gate, up] = x else { return Ok(None) };
    if g.dtype != DType::F32 {
        return Ok(None);
    }
    let n = g.elements();
    let (first, second) = (CpuStorage::new(n * 4)?, CpuStorage::new(n * 4)?);
    let reads = [storage(g.buffer)?, storage(gate.buffer)?, storage(up.buffer)?];
    let (g, gate, up) = (source::<f32>(*g)?, source::<f32>(*gate)?, source::<f32>(*up)?);
    let (d_gate, d_up) = (Out::<f32>::of(&first), Out::<f32>::of(&second));
    launch(&reads, &[&first, &second], move || {
        for_ranges(n, CHUNK, 600, |start, len| {
            let (mut a, mut b, mut c) = (Scratch::new(), Scratch::new(), Scratch::new());
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                let of = [g.block(at, k, &mut a), gate.block(at, k, &mut b), up.block(at, k, &mut c)];
                backward(of, d_gate.part(at, k), d_up.part(at, k));
            }
        });
    });
    Ok(Some(Fused { outputs: smallvec![finish(first)?, finish(second)?], ..Fused::default() }))
}
