//! Mixed precision: which dtype each op computes in, decided at the one doorway by the op's class.
//!
//! Under a half precision, products (matrix products, convolutions, attention) take their operands in it; what sums or
//! exponentiates (norms, softmax, losses, means, logarithms) takes them in `f32`; everything else takes the widest dtype among its
//! operands. Parameters stay what they are, so the weights that an optimizer sees are the `f32` masters, and their gradients are `f32`
//! too: a cast is an op like any other. (Micikevicius et al., "Mixed precision training", 2018; PyTorch's `torch.autocast`.)
//!
//! The policy belongs to a thread and a scope. Gradients are computed in the dtypes that the forward pass chose, wherever
//! `backward` is called. Only `f32` and the half dtypes take part: integers stay, and `f64` is somebody's wish.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use smallvec::SmallVec;
use std::cell::Cell;
use std::fmt::Display;
use std::str::FromStr;

/// What products are computed in, under [`with_precision`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Precision {
    /// Every op in the dtypes that it is given.
    #[default]
    F32,
    /// As `F32`, but products of `f32` matrices may round their operands to TF32 (the range of `f32`, 10 bits of its mantissa), where a
    /// device's tensor cores are fed so; forward and backward. Elsewhere, and on the CPU, they are exact.
    Tf32,
    /// Products in `f16`, whose range is small: gradients below 6e-8 vanish, so a loss is scaled up before its backward pass.
    F16,
    /// Products in `bf16`, which has the range of `f32` and 8 bits of it.
    Bf16,
}

impl Precision {
    /// The dtype of products, unless it is the operands' own.
    pub const fn half(self) -> Option<DType> {
        match self {
            Precision::F32 | Precision::Tf32 => None,
            Precision::F16 => Some(DType::F16),
            Precision::Bf16 => Some(DType::Bf16),
        }
    }
}

impl Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::Tf32 => "tf32",
            _ => self.half().unwrap_or(DType::F32).name(),
        })
    }
}

impl FromStr for Precision {
    type Err = Error;
    fn from_str(name: &str) -> Result<Precision> {
        let all = [Precision::F32, Precision::Tf32, Precision::F16, Precision::Bf16];
        let found = all.into_iter().find(|p| p.to_string() == name);
        found.ok_or_else(|| Error::misuse(format!("there is no precision {name:?}; there are f32, tf32, f16 and bf16")))
    }
}

/// What an op does under a half precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Autocast {
    /// Takes its operands in half precision: products.
    Half,
    /// Takes them in `f32`: sums, exponentials, norms, losses.
    Full,
    /// Takes them in the widest dtype among them.
    Widest,
}

thread_local! {
    static POLICY: Cell<Precision> = const { Cell::new(Precision::F32) };
}

struct Restore(Precision);
impl Drop for Restore {
    fn drop(&mut self) {
        POLICY.set(self.0);
    }
}

/// Runs `f` with this precision, on this thread; a panic restores the one before.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::{Precision, with_precision};
/// let (x, w) = (Tensor::ones([2, 3], Device::cpu()), Tensor::ones([3, 4], Device::cpu()).requires_grad());
/// let (y, p) = with_precision(Precision::Bf16, || {
///     let y = x.matmul(&w);
///     (y.clone(), y.softmax(-1))
/// });
/// assert_eq!((y.dtype(), p.dtype()), (DType::Bf16, DType::F32));
/// p.sum().backward();
/// assert_eq!(w.grad().unwrap().dtype(), DType::F32);
/// ```
pub fn with_precision<T>(precision: Precision, f: impl FnOnce() -> T) -> T {
    let _restore = Restore(POLICY.replace(precision));
    f()
}

/// Whether products of `f32` that a device is asked for now, on this thread, may round their operands to TF32.
#[inline]
pub fn allows_tf32() -> bool {
    POLICY.get() == Precision::Tf32
}

/// The precision in force on this thread.
pub fn precision() -> Precision {
    POLICY.get()
}

/// The operands in the dtypes that the policy wants for an op of this class; `None` if they have them already.
#[inline(always)]
pub(crate) fn recast(class: Autocast, x: &[&Tensor]) -> Option<Result<SmallVec<[Tensor; 4]>>> {
    let half = POLICY.get().half()?;
    recast_to(half, class, x)
}

/// Whether a dtype takes part.
fn follows(dtype: DType) -> bool {
    dtype.is_half() || dtype == DType::F32
}

#[inline(never)]
fn recast_to(half: DType, class: Autocast, x: &[&Tensor]) -> Option<Result<SmallVec<[Tensor; 4]>>> {
    let floats = || x.iter().map(|t| t.dtype()).filter(|d| d.is_float());
    if floats().any(|d| !follows(d)) {
        return None;
    }
    let to = match class {
        Autocast::Half => half,
        Autocast::Full => DType::F32,
        Autocast::Widest => floats().reduce(DType::promote)?,
    };
    if floats().all(|d| d == to) {
        return None;
    }
    Some(x.iter().map(|t| if t.dtype().is_float() { t.try_to_dtype(to) } else { Ok((*t).clone()) }).collect())
}
