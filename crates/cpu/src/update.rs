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
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::tensor::UpdateCall;
use gradus_core::{DType, Element, Result, Scalar, View};
use smallvec::SmallVec;

pub(crate) fn register(table: &KernelTable) {
    macro_rules! kernels {
        ($($update:ident => $kernel:ident),*) => { $(
            table.register_update(|c: UpdateCall<'_, '_, $update>| match c.meta.dtype {
                DType::F32 => $kernel::<f32>(c),
                DType::F64 => $kernel::<f64>(c),
                _ => Ok(false),
            });
        )* };
    }
    kernels!(SgdUpdate => sgd, AdamUpdate => adam, LionUpdate => lion, MomentumUpdate => momentum, MuonUpdate => muon);
}

/// Runs `f(factor, targets, gradient)` block by block over the targets and the gradient, with what the gradient is to be multiplied
/// with: 1, which changes no bit, unless it is given.
fn blocks<T: Float + Element, U, const N: usize>(
    c: &UpdateCall<'_, '_, U>,
    f: impl Fn(T, [&mut [T]; N], &[T]) + Send + Sync + 'static,
) -> Result<bool> {
    let (g, factor) = match *c.x {
        [g] => (g, None),
        [g, factor] => (g, Some(factor)),
        _ => return Ok(false),
    };
    let covered = |factor: View<'_>| factor.dtype == T::DTYPE && factor.elements() == 1;
    if g.dtype != T::DTYPE || *g.shape() != c.meta.shape || c.targets.len() != N || !factor.is_none_or(covered) {
        return Ok(false);
    }
    // Pushed one by one: collecting one or two takes longer than a small update.
    let (mut writes, mut outs) = (SmallVec::<[&CpuStorage; 4]>::new(), SmallVec::<[Out<T>; 4]>::new());
    for target in c.targets.iter() {
        let to = storage(target)?;
        writes.push(to);
        outs.push(Out::of(to));
    }
    let mut reads = SmallVec::<[&CpuStorage; 2]>::new();
    for x in c.x {
        reads.push(storage(x.buffer)?);
    }
    let (n, src) = (g.elements(), source::<T>(g)?);
    let factor = factor.map(source::<T>).transpose()?;
    launch(&reads, &writes, move || {
        for_ranges(n, 16 * BLOCK, 700, |start, len| {
            let mut scratch = Scratch::new();
            let factor = factor.as_ref().map_or(T::ONE, |c| c.block(0, 1, &mut scratch)[0]);
            for at in (start..start + len).step_by(BLOCK) {
                let k = BLOCK.min(start + len - at);
                f(factor, std::array::from_fn(|i| outs[i].part(at, k)), src.block(at, k, &mut scratch));
            }
        });
    });
    Ok(true)
}

/// The numbers of a step, rounded to the arithmetic's dtype when the kernel runs.
fn number<T: Element>(s: &Scalar) -> T {
    T::from_f64(s.to_f64())
}

/// A gradient's factor, negated to climb: one product does both, with the same bits.
fn signed<T: Float>(factor: T, maximize: bool) -> T {
    if maximize { -factor } else { factor }
}

#[derive(Clone, Copy)]
struct Sgd<T> {
    rate: T,
    momentum: T,
    gain: T,
    decay: T,
    nesterov: bool,
    factor: T,
}

vectorized! {
    fn sgd_plain<T: Float>(s: Sgd<T>, p: &mut [T], g: &[T]) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = g * s.factor;
            let g = if s.decay != T::ZERO { g + *p * s.decay } else { g };
            *p = *p - g * s.rate;
        }
    }
    fn sgd_momentum<T: Float>(s: Sgd<T>, p: &mut [T], b: &mut [T], g: &[T]) {
        for ((p, b), &g) in p.iter_mut().zip(b).zip(g) {
            let g = g * s.factor;
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
            factor: signed(T::ONE, op.maximize),
        }
    }
}

fn sgd<T: Float + Element>(c: UpdateCall<'_, '_, SgdUpdate>) -> Result<bool> {
    // Only a recorded kernel meets other numbers later, and needs a hold on their cells.
    let (now, later) = (Sgd::of(c.op), is_recording().then(|| c.op.clone()));
    let numbers = move |factor: T| {
        let s: Sgd<T> = later.as_ref().map_or(now, Sgd::of);
        Sgd { factor: s.factor * factor, ..s }
    };
    if c.targets.len() == 1 {
        blocks::<T, _, 1>(&c, move |factor, [p], g| sgd_plain(numbers(factor), p, g))
    } else {
        blocks::<T, _, 2>(&c, move |factor, [p, b], g| sgd_momentum(numbers(factor), p, b, g))
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
    factor: T,
}

vectorized! {
    fn adam_row<T: Float>(s: Adam<T>, p: &mut [T], m: &mut [T], v: &mut [T], g: &[T]) {
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * s.factor;
            let g = if s.penalty != T::ZERO { g + *p * s.penalty } else { g };
            let q = *p * s.decay;
            *m = (*m + (g - *m) * s.gain1).flushed();
            *v = (*v * s.beta2 + (g * s.gain2) * g).flushed();
            *p = q - (*m * s.step) / (v.sqrt() * s.rsqrt + s.eps);
        }
    }
    /// With the largest v so far, `n`, in place of v.
    fn amsgrad_row<T: Float>(s: Adam<T>, targets: [&mut [T]; 4], g: &[T]) {
        let [p, m, v, n] = targets;
        for ((((p, m), v), n), &g) in p.iter_mut().zip(m).zip(v).zip(n).zip(g) {
            let g = g * s.factor;
            let g = if s.penalty != T::ZERO { g + *p * s.penalty } else { g };
            let q = *p * s.decay;
            *m = (*m + (g - *m) * s.gain1).flushed();
            *v = (*v * s.beta2 + (g * s.gain2) * g).flushed();
            *n = if *n > *v || n.is_nan() { *n } else { *v };
            *p = q - (*m * s.step) / (n.sqrt() * s.rsqrt + s.eps);
        }
    }
}

impl<T: Float + Element> Adam<T> {
    fn of(op: &AdamUpdate, factor: T) -> Adam<T> {
        Adam {
            gain1: number(&op.one_minus_beta1),
            beta2: T::from_f64(op.beta2),
            gain2: T::from_f64(1.0 - op.beta2),
            eps: T::from_f64(op.eps),
            step: number(&op.step_size),
            rsqrt: number(&op.rsqrt_bias2),
            penalty: T::from_f64(op.weight_decay),
            // A product with 1 changes no bit.
            decay: op.decay.as_ref().map_or(T::ONE, number),
            factor: signed(factor, op.maximize),
        }
    }
}

fn adam<T: Float + Element>(c: UpdateCall<'_, '_, AdamUpdate>) -> Result<bool> {
    let op = c.op.clone();
    if c.targets.len() == 4 {
        return blocks::<T, _, 4>(&c, move |factor, targets, g| amsgrad_row(Adam::of(&op, factor), targets, g));
    }
    blocks::<T, _, 3>(&c, move |factor, [p, m, v], g| adam_row(Adam::of(&op, factor), p, m, v, g))
}

#[derive(Clone, Copy)]
struct Lion<T> {
    rate: T,
    gain1: T,
    gain2: T,
    decay: T,
    factor: T,
}

vectorized! {
    fn lion_row<T: Float>(s: Lion<T>, p: &mut [T], m: &mut [T], g: &[T]) {
        for ((p, m), &g) in p.iter_mut().zip(m).zip(g) {
            let towards = g * s.factor - *m;
            let mixed = *m + towards * s.gain1;
            let up = if mixed > T::ZERO { s.rate } else { T::ZERO };
            let step = if mixed < T::ZERO { -s.rate } else { up };
            *m = (*m + towards * s.gain2).flushed();
            *p = *p * s.decay - step;
        }
    }
    fn momentum_row<T: Float>(gain: T, factor: T, b: &mut [T], g: &[T]) {
        for (b, &g) in b.iter_mut().zip(g) {
            *b = (*b + (g * factor - *b) * gain).flushed();
        }
    }
    fn muon_row<T: Float>(rate: T, scale: T, decay: T, p: &mut [T], o: &[T]) {
        for (p, &o) in p.iter_mut().zip(o) {
            *p = *p * decay - (o * rate) * scale;
        }
    }
}

fn lion<T: Float + Element>(c: UpdateCall<'_, '_, LionUpdate>) -> Result<bool> {
    let op = c.op.clone();
    blocks::<T, _, 2>(&c, move |factor, [p, m], g| {
        let s = Lion::<T> {
            rate: number(&op.learning_rate),
            gain1: number(&op.gain1),
            gain2: T::from_f64(op.gain2),
            decay: number(&op.decay),
            factor: signed(factor, op.maximize),
        };
        lion_row(s, p, m, g);
    })
}

fn momentum<T: Float + Element>(c: UpdateCall<'_, '_, MomentumUpdate>) -> Result<bool> {
    let gain = c.op.gain.clone();
    blocks::<T, _, 1>(&c, move |factor, [b], g| momentum_row(number(&gain), factor, b, g))
}

fn muon<T: Float + Element>(c: UpdateCall<'_, '_, MuonUpdate>) -> Result<bool> {
    if c.x.len() != 1 {
        return Ok(false);
    }
    let op = c.op.clone();
    blocks::<T, _, 1>(&c, move |_, [p], o| {
        muon_row(number(&op.learning_rate), T::from_f64(op.scale), number(&op.decay), p, o);
    })
}
