//! Several tensors folded as if they were one: their norm, and whether all of their numbers are finite. One kernel, however many there
//! are; every segment of every one of them is folded by itself, so that threads share the work.
//!
//! The norm is the definition's in every bit: the norm of the tensors' norms, each summed in the order of [`super::fold`].

use super::{Fold, SEGMENT, Shared, fold_row, fold_segment};
use crate::elementwise::finish;
use crate::launch::{In, Out, launch, storage};
use crate::math::Float;
use crate::memory::CpuStorage;
use crate::strided::Walk;
use crate::threads::for_chunks;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::all_finite::AllFinite;
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::{DType, Element, Result, View};
use half::{bf16, f16};

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, GlobalNorm>| match c.x[0].dtype {
        DType::F32 => norm(c.x, Squares(c.op.factor as f32)).map(Some),
        DType::F64 => norm(c.x, Squares(c.op.factor)).map(Some),
        _ => Ok(None),
    });
    table.register(|c: FusedCall<'_, AllFinite>| match c.x[0].dtype {
        DType::F32 => all_finite::<f32>(c.x).map(Some),
        DType::F64 => all_finite::<f64>(c.x).map(Some),
        DType::F16 => all_finite::<f16>(c.x).map(Some),
        DType::Bf16 => all_finite::<bf16>(c.x).map(Some),
        _ => Ok(None),
    });
}

/// Adds up the squares of elements, each times a factor.
#[derive(Clone, Copy)]
struct Squares<T>(T);

impl<T: Float> Fold<T> for Squares<T> {
    type A = T;
    #[inline(always)]
    fn start(self) -> T {
        T::ZERO
    }
    #[inline(always)]
    fn step(self, a: T, x: T) -> T {
        let x = x * self.0;
        a + x * x
    }
    #[inline(always)]
    fn join(self, a: T, b: T) -> T {
        a + b
    }
}

/// Finds an element that is infinite or NaN: one whose exponent has all bits. Not 0 where there is one.
#[derive(Clone, Copy)]
struct NotFinite;

macro_rules! not_finite {
    ($($t:ty, $bits:ty, $exponent:expr);*) => {$(
        impl Fold<$t> for NotFinite {
            type A = $bits;
            #[inline(always)] fn start(self) -> $bits { 0 }
            #[inline(always)] fn step(self, a: $bits, x: $t) -> $bits {
                a | <$bits>::from(x.to_bits() & $exponent == $exponent)
            }
            #[inline(always)] fn join(self, a: $bits, b: $bits) -> $bits { a | b }
        }
    )*};
}
not_finite!(f32, u32, 0x7f80_0000; f64, u64, 0x7ff0_0000_0000_0000; f16, u16, 0x7c00; bf16, u16, 0x7f80);

/// One of the tensors.
struct One<T> {
    x: In<T>,
    walk: Walk,
    len: usize,
    /// The first of its segments among those of all.
    first: usize,
}

impl<T> One<T> {
    fn segments(&self) -> usize {
        self.len.div_ceil(SEGMENT)
    }
}

/// One number of several tensors: what `finish_all` makes of them and of the folds of their segments, which lie one after another.
fn fold_all<T, F, Y>(
    x: &[View<'_>],
    f: F,
    finish_all: impl Fn(&[One<T>], &[F::A]) -> Y + Send + Sync + 'static,
) -> Result<Fused>
where
    T: Element + Default,
    F: Fold<T>,
    Y: Copy + Send + Sync + 'static,
{
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<&CpuStorage>>>()?;
    let mut ones: Vec<One<T>> = Vec::with_capacity(x.len());
    let (mut segments, mut elements) = (0, 0);
    for (v, from) in x.iter().zip(&reads) {
        let one = One { x: In::of(from), walk: Walk::new(v.layout), len: v.elements(), first: segments };
        segments += one.segments();
        elements += one.len;
        ones.push(one);
    }
    let to = CpuStorage::new(size_of::<Y>())?;
    let out = Out::<Y>::of(&to);
    launch(&reads, &[&to], move || {
        let mut partial = vec![f.start(); segments];
        let parts = Shared::of(&mut partial);
        for_chunks(segments, elements / 4, |s| {
            // The last that begins at this segment or before it: one without elements begins where the next one does.
            let one = &ones[ones.partition_point(|o| o.first <= s) - 1];
            let start = (s - one.first) * SEGMENT;
            parts.set(s, fold_segment(f, one.x.slice(), &one.walk, start, SEGMENT.min(one.len - start)));
        });
        out.slice()[0] = finish_all(&ones, &partial);
    });
    Ok(Fused::one(finish(to)?))
}

/// √(Σ norm²) over the tensors' norms. That of a single number is its size.
fn norm<T: Float + Element>(x: &[View<'_>], f: Squares<T>) -> Result<Fused> {
    let root = |parts: &[T], size: Option<T>| match size {
        Some(size) => size.abs(),
        None => parts.iter().fold(T::ZERO, |a, &b| a + b).sqrt(),
    };
    fold_all(x, f, move |ones: &[One<T>], parts: &[T]| {
        let of_one = |o: &One<T>| {
            let size = (o.len == 1).then(|| o.x.slice()[o.walk.offset()] * f.0);
            root(&parts[o.first..o.first + o.segments()], size)
        };
        let norms: Vec<T> = ones.iter().map(of_one).collect();
        let squares: Vec<T> = norms.chunks(SEGMENT).map(|some| fold_row(Squares(T::ONE), some)).collect();
        root(&squares, (norms.len() == 1).then(|| norms[0]))
    })
}

fn all_finite<T: Element + Default>(x: &[View<'_>]) -> Result<Fused>
where
    NotFinite: Fold<T, A: PartialEq>,
{
    fold_all(x, NotFinite, |_: &[One<T>], parts| u8::from(parts.iter().all(|&p| p == NotFinite.start())))
}
