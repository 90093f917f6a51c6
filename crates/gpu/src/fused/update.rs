//! Optimizer steps in place, those of many parameters in one launch. AMSGrad's fourth target, and `f64`, run by definition.
//!
//! A step updates its parameters one after another and asks for nothing in between. So an update is not launched at once: it waits
//! until one of another kind comes, as many wait as a launch has room for, or anything else is asked of the device, which lets
//! them go first ([`Gpu::client`]). Nobody can tell the difference but by the time it takes.

use super::covered;
use crate::Gpu;
use crate::launch::CUBE;
use crate::memory::{GpuBuffer, Memory};
use crate::runtime::GpuRuntime;
use cubecl::prelude::*;
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::tensor::UpdateCall;
use gradus_core::{Buffer, DType, Result, Scalar};
use gradus_kernels::update::{
    AdamNumbersLaunch, LionNumbersLaunch, MuonNumbersLaunch, PartLaunch, SHARE, SgdNumbersLaunch, adam_kernel,
    lion_kernel, momentum_kernel, muon_kernel, sgd_kernel,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sgd { momentum: bool, nesterov: bool },
    Adam,
    Lion,
    Momentum,
    Muon,
}

impl Kind {
    /// How many tensors an update of this kind writes.
    fn targets(self) -> usize {
        match self {
            Kind::Adam => 3,
            Kind::Lion | Kind::Sgd { momentum: true, .. } => 2,
            Kind::Sgd { .. } | Kind::Momentum | Kind::Muon => 1,
        }
    }
}

/// The numbers of an update, in the order of the kernel's; the rest unused.
type Numbers = [f32; 9];

/// A tensor, which may be gone before its update is launched.
struct Of {
    memory: Arc<Memory>,
    elements: usize,
}

impl Of {
    fn buffer(buffer: &GpuBuffer) -> Of {
        Of { memory: buffer.memory.clone(), elements: buffer.elements }
    }
    fn shares(&self, other: &Of) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }
}

/// The update of one tensor.
struct One {
    gradient: Of,
    /// Where it begins there.
    offset: usize,
    targets: Vec<Of>,
    len: usize,
    numbers: Numbers,
}

impl One {
    /// Whether one of the two writes what the other reads or writes.
    fn meets(&self, other: &One) -> bool {
        let writes = |a: &One, to: &Of| a.targets.iter().any(|t| t.shares(to));
        let touches = |a: &One, b: &One| writes(a, &b.gradient) || b.targets.iter().any(|t| writes(a, t));
        touches(self, other) || touches(other, self)
    }
}

/// Updates that are launched together.
struct Batch {
    kind: Kind,
    dtype: DType,
    /// What all gradients are multiplied with.
    factor: Option<Buffer>,
    ones: Vec<One>,
}

/// The updates that wait.
#[derive(Default)]
pub(crate) struct Waiting {
    any: AtomicBool,
    batch: Mutex<Option<Batch>>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.batch.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<R: GpuRuntime> Gpu<R> {
    /// Launches the updates that wait.
    #[inline]
    pub(crate) fn let_updates_go(&self) {
        if self.updates.any.load(Ordering::Acquire) {
            // The lock is held until they are launched: who asks meanwhile for something else comes after them.
            self.launch_updates(&mut self.updates.lock());
        }
    }

    fn launch_updates(&self, waiting: &mut Option<Batch>) {
        if let Some(batch) = waiting.take() {
            if let Err(error) = self.launch_batch(batch) {
                self.note(error);
            }
            self.updated();
        }
        // Only now: whoever finds none waiting need not wait for the lock.
        self.updates.any.store(false, Ordering::Release);
    }

    /// Takes an update, to be launched with others; `false`, and nothing done, if no kernel covers it.
    fn update<U>(&self, c: &UpdateCall<'_, '_, U>, kind: Kind, numbers: Numbers) -> Result<bool> {
        let (g, factor) = match *c.x {
            [g] => (g, None),
            [g, factor] => (g, Some(factor)),
            _ => return Ok(false),
        };
        let dtype = c.meta.dtype;
        let alike = g.dtype == dtype && factor.is_none_or(|f| f.dtype == dtype && f.elements() == 1);
        if !covered(dtype) || !alike || *g.shape() != c.meta.shape || c.targets.len() != kind.targets() {
            return Ok(false);
        }
        let len = g.elements();
        if len == 0 {
            return Ok(true);
        }
        // What these make dense is launched before anything is added below.
        let factor = factor.map(|f| self.dense(f)).transpose()?;
        let dense = g.layout.is_dense();
        let (gradient, offset) = if dense { (g.buffer.clone(), g.layout.offset()) } else { (self.dense(g)?, 0) };
        let targets = c.targets.iter().map(|b| Ok(Of::buffer(self.memory_of(b)?))).collect::<Result<_>>()?;
        let one = One { gradient: Of::buffer(self.memory_of(&gradient)?), offset, targets, len, numbers };

        let mut waiting = self.updates.lock();
        let room = self.most_tensors(kind.targets() + 1);
        let fits = |b: &Batch| {
            let same = match (&b.factor, &factor) {
                (None, None) => true,
                (Some(a), Some(b)) => a.address() == b.address(),
                _ => false,
            };
            same && b.kind == kind && b.dtype == dtype && b.ones.len() < room && !b.ones.iter().any(|o| o.meets(&one))
        };
        if !waiting.as_ref().is_some_and(fits) {
            self.launch_updates(&mut waiting);
        }
        let batch = waiting.get_or_insert_with(|| Batch { kind, dtype, factor, ones: Vec::with_capacity(room) });
        batch.ones.push(one);
        self.updates.any.store(true, Ordering::Release);
        Ok(true)
    }

    fn launch_batch(&self, Batch { kind, dtype, factor, ones }: Batch) -> Result<()> {
        let memory = |m: &Of| self.raw(&m.memory.handle, m.elements);
        let target = |i: usize| ones.iter().map(move |o| memory(&o.targets[i]));
        let gradients = ones.iter().map(|o| memory(&o.gradient));
        let factor = factor.iter().map(|f| Ok(self.array(self.memory_of(f)?))).collect::<Result<Vec<_>>>()?;
        let numbers = ones.iter().map(|o| o.numbers);
        let (mut count, mut parts) = (0, SequenceArg::new());
        for o in &ones {
            parts.push(PartLaunch::new(count, o.len, o.offset));
            count += o.len.div_ceil(SHARE);
        }
        let longest = ones.iter().flat_map(|o| o.targets.iter().chain([&o.gradient])).map(|m| m.elements).max();
        let address = self.address(&[longest.unwrap_or(0), count * SHARE])?;
        let (client, cubes, threads) = (&self.client, self.cubes(count), CubeDim::new_1d(CUBE));
        let stored = self.types.stored(dtype);
        // SAFETY: targets are dense, held alone and of their gradient's shape (the caller's contract), and no other of this launch;
        // the gradients are dense; the kernels stop at each one's length.
        unsafe {
            macro_rules! launch {
                ($kernel:ident, [$($state:expr),*], $($rest:expr),*) => {
                    $kernel::launch_unchecked::<R>(
                        client, cubes, threads, address, gradients.collect(), $($state.collect(),)* $($rest),*
                    )
                };
            }
            match kind {
                Kind::Sgd { momentum, nesterov } => {
                    let to = |[rate, mu, gain, penalty, sign, ..]: Numbers| {
                        SgdNumbersLaunch::new(rate, mu, gain, penalty, sign)
                    };
                    let (buffers, numbers) = (momentum.then(|| target(1)), numbers.map(to).collect());
                    let buffers = buffers.into_iter().flatten();
                    launch!(sgd_kernel, [target(0), buffers, factor.into_iter()], parts, numbers, nesterov, stored)
                }
                Kind::Adam => {
                    let to = |[gain1, beta2, gain2, eps, step, rsqrt, penalty, decay, sign]: Numbers| {
                        AdamNumbersLaunch::new(gain1, beta2, gain2, eps, step, rsqrt, penalty, decay, sign)
                    };
                    let numbers = numbers.map(to).collect();
                    launch!(adam_kernel, [target(0), target(1), target(2), factor.into_iter()], parts, numbers, stored)
                }
                Kind::Lion => {
                    let to = |[rate, gain1, gain2, decay, sign, ..]: Numbers| {
                        LionNumbersLaunch::new(rate, gain1, gain2, decay, sign)
                    };
                    let numbers = numbers.map(to).collect();
                    launch!(lion_kernel, [target(0), target(1), factor.into_iter()], parts, numbers, stored)
                }
                Kind::Momentum => {
                    let gains = numbers.map(|n| n[0]).collect();
                    launch!(momentum_kernel, [target(0), factor.into_iter()], parts, gains, stored)
                }
                Kind::Muon => {
                    let to = |[rate, scale, decay, ..]: Numbers| MuonNumbersLaunch::new(rate, scale, decay);
                    let numbers = numbers.map(to).collect();
                    launch!(muon_kernel, [target(0)], parts, numbers, stored)
                }
            }
        }
        Ok(())
    }

    pub(super) fn sgd(&self, c: UpdateCall<'_, '_, SgdUpdate>) -> Result<bool> {
        let op = c.op;
        let kind = Kind::Sgd { momentum: c.targets.len() == 2, nesterov: op.nesterov };
        let (rate, momentum, gain) = (number(&op.learning_rate), number(&op.momentum), number(&op.gain));
        self.update(&c, kind, numbers([rate, momentum, gain, op.weight_decay as f32, sign(op.maximize)]))
    }

    pub(super) fn adam(&self, c: UpdateCall<'_, '_, AdamUpdate>) -> Result<bool> {
        let op = c.op;
        let these = [
            number(&op.one_minus_beta1),
            op.beta2 as f32,
            (1.0 - op.beta2) as f32,
            op.eps as f32,
            number(&op.step_size),
            number(&op.rsqrt_bias2),
            op.weight_decay as f32,
            op.decay.as_ref().map_or(1.0, number),
            sign(op.maximize),
        ];
        self.update(&c, Kind::Adam, these)
    }

    pub(super) fn lion(&self, c: UpdateCall<'_, '_, LionUpdate>) -> Result<bool> {
        let op = c.op;
        let (rate, gain1, decay) = (number(&op.learning_rate), number(&op.gain1), number(&op.decay));
        self.update(&c, Kind::Lion, numbers([rate, gain1, op.gain2 as f32, decay, sign(op.maximize)]))
    }

    pub(super) fn momentum(&self, c: UpdateCall<'_, '_, MomentumUpdate>) -> Result<bool> {
        self.update(&c, Kind::Momentum, numbers([number(&c.op.gain)]))
    }

    pub(super) fn muon(&self, c: UpdateCall<'_, '_, MuonUpdate>) -> Result<bool> {
        if c.x.len() != 1 {
            return Ok(false);
        }
        let (rate, decay) = (number(&c.op.learning_rate), number(&c.op.decay));
        self.update(&c, Kind::Muon, numbers([rate, c.op.scale as f32, decay]))
    }
}

/// A number of a step, as it is now.
fn number(s: &Scalar) -> f32 {
    s.to_f64() as f32
}

fn sign(maximize: bool) -> f32 {
    if maximize { -1.0 } else { 1.0 }
}

fn numbers<const N: usize>(these: [f32; N]) -> Numbers {
    std::array::from_fn(|i| these.get(i).copied().unwrap_or(0.0))
}
