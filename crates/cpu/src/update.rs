//! Optimizer steps in one pass over parameter, gradient and state, in the order of their definitions, so that both give the
//! same bits. One thing is done besides: state that has decayed below the numbers of full precision becomes zero, since each such
//! number would cost every later step some hundred cycles.

use crate::elementwise::source;
use crate::launch::{Out, is_recording, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::{BLOCK, Scratch};
use crate::threads::for_ranges;
use gradus_core::composite::KernelTable;
use gradus_core::functional::update::{AdamUpdate, SgdUpdate};
use gradus_core::tensor::UpdateCall;
use gradus_core::{DType, Element, Result, Scalar};
use smallvec::SmallVec;

pub(crate) fn register(table: &KernelTable) {
    table.register_update(|c: UpdateCall<'_, '_, SgdUpdate>| match c.meta.dtype {
        DType::F32 => sgd::<f32>(c),
        DType::F64 => sgd::<f64>(c),
        _ => Ok(false),
    });
    table.register_update(|c: UpdateCall<'_, '_, AdamUpdate>| match c.meta.dtype {
        DType::F32 => adam::<f32>(c),
        DType::F64 => adam::<f64>(c),
        _ => Ok(false),
    });
}

/// Runs `f(targets, gradient)` block by block over the targets and the gradient.
fn blocks<T: Element, U, const N: usize>(
    c: &UpdateCall<'_, '_, U>,
    f: impl Fn([&mut [T]; N], &[T]) + Send + Sync + 'static,
) -> Result<bool> {
    let [g] = c.x else { return Ok(false) };
    if g.dtype != T::DTYPE || *g.shape() != c.meta.shape || c.targets.len() != N {
        return Ok(false);
    }
    let writes = c.targets.iter().map(|b| storage(b)).collect::<Result<SmallVec<[&CpuStorage; 4]>>>()?;
    let outs: SmallVec<[Out<T>; 4]> = writes.iter().map(|s| Out::of(s)).collect();
    let (n, src) = (g.elements(), source::<T>(*g)?);
    launch(&[storage(g.buffer)?], &writes, move || {
        for_ranges(n, 16 * BLOCK, 700, |start, len| {
            let mut scratch = Scratch::new();
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                f(std::array::from_fn(|i| outs[i].part(at, k)), src.block(at, k, &mut scratch));
            }
        });
    });
    Ok(true)
}

/// The numbers of a step, rounded to the arithmetic's dtype when the kernel runs.
fn number<T: Element>(s: &Scalar) -> T {
    T::from_f64(s.to_f64())
}

#[derive(Clone, Copy)]
struct Sgd<T> {
    rate: T,
    momentum: T,
    gain: T,
    decay: T,
    nesterov: bool,
    sign: T,
}

vectorized! {
    fn sgd_plain<T: Float>(s: Sgd<T>, p: &mut [T], g: &[T]) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = g * s.sign;
            let g = if s.decay != T::ZERO { g + *p * s.decay } else { g };
            *p = *p - g * s.rate;
        }
    }
    fn sgd_momentum<T: Float>(s: Sgd<T>, p: &mut [T], b: &mut [T], g: &[T]) {
        for ((p, b), &g) in p.iter_mut().zip(b).zip(g) {
            let g = g * s.sign;
            let g = if s.decay != T::ZERO { g + *p * s.decay } else { g };
            *b = (*b * s.momentum + g * s.gain).flushed();
            let step = if s.nesterov { g + *b * s.momentum } else { *b };
            *p = *p - step * s.rate;
        }
    }
}

impl<T: Float + Element> Sgd<T> {
    fn of(op: &SgdUpdate) -> Sgd<T> {
        Sgd {
            rate: number(&op.learning_rate),
            momentum: number(&op.momentum),
            gain: number(&op.gain),
            decay: T::from_f64(op.weight_decay),
            nesterov: op.nesterov,
            sign: if op.maximize { -T::ONE } else { T::ONE },
        }
    }
}

fn sgd<T: Float + Element>(c: UpdateCall<'_, '_, SgdUpdate>) -> Result<bool> {
    // Only a recorded kernel meets other numbers later, and needs a hold on their cells.
    let (now, later) = (Sgd::of(c.op), is_recording().then(|| c.op.clone()));
    let numbers = move || later.as_ref().map_or(now, Sgd::of);
    if c.targets.len() == 1 {
        blocks::<T, _, 1>(&c, move |[p], g| sgd_plain(numbers(), p, g))
    } else {
        blocks::<T, _, 2>(&c, move |[p, b], g| sgd_momentum(numbers(), p, b, g))
    }
}

#[derive(Clone, Copy)]
struct Adam<T> {
    gain1: T,
    beta2: T,
    gain2: T,
    eps: T,
    step: T,
    rsqrt: T,
    penalty: T,
    decay: T,
    sign: T,
}

vectorized! {
    fn adam_row<T: Float>(s: Adam<T>, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * s.sign;
            let g = if s.penalty != T::ZERO { g + *p * s.penalty } else { g };
            let q = *p * s.decay;
            *m = (*m + (g - *m) * s.gain1).flushed();
            *v = (*v * s.beta2 + (g * s.gain2) * g).flushed();
            *p = q - (*m * s.step) / (v.sqrt() * s.rsqrt + s.eps);
        }
    }
}

fn adam<T: Float + Element>(c: UpdateCall<'_, '_, AdamUpdate>) -> Result<bool> {
    let op = c.op.clone();
    // AMSGrad's fourth target: by definition.
    blocks::<T, _, 3>(&c, move |[p, m, v], g| {
        let s = Adam::<T> {
            gain1: number(&op.one_minus_beta1),
            beta2: T::from_f64(op.beta2),
            gain2: T::from_f64(1.0 - op.beta2),
            eps: T::from_f64(op.eps),
            step: number(&op.step_size),
            rsqrt: number(&op.rsqrt_bias2),
            penalty: T::from_f64(op.weight_decay),
            // A product with 1 changes no bit.
            decay: op.decay.as_ref().map_or(T::ONE, number),
            sign: if op.maximize { -T::ONE } else { T::ONE },
        };
        adam_row(s, p, m, v, g);
    })
}
