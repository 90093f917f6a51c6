//! Scalars of ops: a constant, or a cell whose value may change between replays of a recorded step.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that an op is given beside its tensors.
#[derive(Clone, Debug)]
pub enum Scalar {
    /// A floating-point constant.
    Float(f64),
    /// An integer constant, exact for every 64-bit value.
    Int(i64),
    /// A cell that the host writes: learning rates, step counts. A record reads it anew at each replay.
    Slot(Slot),
}

/// A cell with one `f64` that the host writes and recorded kernels read.
#[derive(Clone, Default)]
pub struct Slot(Arc<AtomicU64>);

/// Says which cell it is, not what is in it: a recorded call is the same call when the cell's number has changed.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({:p})", self.0)
    }
}

impl Slot {
    /// A cell holding `value`.
    pub fn new(value: f64) -> Slot {
        Slot(Arc::new(AtomicU64::new(value.to_bits())))
    }
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
    /// The value now.
    #[inline]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Scalar {
    /// The value now, as `f64`.
    #[inline]
    pub fn to_f64(&self) -> f64 {
        match self {
            Scalar::Float(x) => *x,
            Scalar::Int(x) => *x as f64,
            Scalar::Slot(s) => s.get(),
        }
    }
    /// The value now, as `i64`, truncated towards zero.
    #[inline]
    pub fn to_i64(&self) -> i64 {
        match self {
            Scalar::Float(x) => *x as i64,
            Scalar::Int(x) => *x,
            Scalar::Slot(s) => s.get() as i64,
        }
    }
    /// Whether the number is written as an integer.
    pub fn is_int(&self) -> bool {
        matches!(self, Scalar::Int(_))
    }
}

impl From<&Scalar> for Scalar {
    fn from(s: &Scalar) -> Scalar {
        s.clone()
    }
}
impl From<Slot> for Scalar {
    fn from(s: Slot) -> Scalar {
        Scalar::Slot(s)
    }
}
impl From<&Slot> for Scalar {
    fn from(s: &Slot) -> Scalar {
        Scalar::Slot(s.clone())
    }
}
macro_rules! scalar_from {
    ($($t:ty => $v:ident as $w:ty),*) => {$(
        impl From<$t> for Scalar {
            fn from(x: $t) -> Scalar { Scalar::$v(x as $w) }
        }
    )*};
}
scalar_from!(f32 => Float as f64, f64 => Float as f64, i32 => Int as i64, i64 => Int as i64, u32 => Int as i64, u8 => Int as i64, usize => Int as i64, bool => Int as i64);
