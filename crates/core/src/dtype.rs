//! Element types: a closed set, one promotion table, and the Rust types that stand for them.
//!
//! The set is closed so that every backend can say, exhaustively, what it does with each. Promotion follows PyTorch: the
//! category (bool < integer < float) decides first, the width second; two halves of different kind meet in `f32`.

use half::{bf16, f16};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    /// Truth values, one byte each, 0 or 1.
    Bool,
    /// Unsigned 8-bit integers.
    U8,
    /// Unsigned 32-bit integers.
    U32,
    /// Signed 32-bit integers.
    I32,
    /// Signed 64-bit integers; the default of indices.
    I64,
    /// IEEE binary16.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// IEEE binary32; the default of numbers.
    F32,
    /// IEEE binary64.
    F64,
}

impl DType {
    /// Every element type, in promotion order.
    pub const ALL: [DType; 9] =
        [DType::Bool, DType::U8, DType::U32, DType::I32, DType::I64, DType::F16, DType::Bf16, DType::F32, DType::F64];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 | DType::Bf16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Whether this is one of the floating-point types, the ones that gradients exist for.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::Bf16 | DType::F32 | DType::F64)
    }

    /// Whether this is one of the integer types (`bool` is not).
    pub const fn is_int(self) -> bool {
        matches!(self, DType::U8 | DType::U32 | DType::I32 | DType::I64)
    }

    /// Whether this is one of the 16-bit floating-point types; their arithmetic accumulates in `f32`.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::Bf16)
    }

    /// The type in which two operands meet: the one promotion table of the library.
    pub const fn promote(self, other: DType) -> DType {
        use DType::*;
        match (self, other) {
            (F16, Bf16) | (Bf16, F16) => F32,
            (U32, I32) | (I32, U32) => I64,
            (a, b) => {
                if a as u8 >= b as u8 {
                    a
                } else {
                    b
                }
            }
        }
    }

    /// The short name used in messages, files and `Display`: `f32`, `bool`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The type called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust type that can be a tensor's element.
pub trait Element: Copy + Send + Sync + Default + PartialEq + fmt::Debug + 'static {
    /// The dtype it stands for.
    const DTYPE: DType;
    /// Its value as `f64` (64-bit integers beyond 2⁵³ are rounded).
    fn to_f64(self) -> f64;
    /// The nearest value to `x`; integers truncate towards zero and saturate, `bool` is `x != 0`.
    fn from_f64(x: f64) -> Self;
    /// Its value as `i64`, truncated towards zero.
    fn to_i64(self) -> i64;
    /// The nearest value to `x`; narrower integers wrap, as PyTorch's casts do.
    fn from_i64(x: i64) -> Self;
    /// The bytes of a slice.
    fn bytes(data: &[Self]) -> &[u8];
    /// A vector of elements out of native-endian bytes; a `bool` byte other than 0 counts as true.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! plain_bytes {
    () => {
        fn bytes(data: &[Self]) -> &[u8] {
            bytemuck::cast_slice(data)
        }
        fn from_bytes(bytes: &[u8]) -> Vec<Self> {
            bytemuck::allocation::pod_collect_to_vec(bytes)
        }
    };
}

macro_rules! number {
    ($($t:ty => $d:ident),*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn from_f64(x: f64) -> Self { x as $t }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn from_i64(x: i64) -> Self { x as $t }
            plain_bytes!();
        }
    )*};
}
number!(u8 => U8, u32 => U32, i32 => I32, i64 => I64, f32 => F32, f64 => F64);

macro_rules! half_number {
    ($($t:ty => $d:ident),*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            #[inline(always)]
            fn to_f64(self) -> f64 { <$t>::to_f64(self) }
            #[inline(always)]
            fn from_f64(x: f64) -> Self { <$t>::from_f64(x) }
            #[inline(always)]
            fn to_i64(self) -> i64 { self.to_f32() as i64 }
            #[inline(always)]
            fn from_i64(x: i64) -> Self { <$t>::from_f64(x as f64) }
            plain_bytes!();
        }
    )*};
}
half_number!(f16 => F16, bf16 => Bf16);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as u8 as f64
    }
    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x != 0.0
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self as i64
    }
    #[inline(always)]
    fn from_i64(x: i64) -> Self {
        x != 0
    }
    fn bytes(data: &[Self]) -> &[u8] {
        bytemuck::cast_slice(data)
    }
    fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&b| b != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_is_symmetric_idempotent_and_never_narrows() {
        for a in DType::ALL {
            assert_eq!(a.promote(a), a);
            for b in DType::ALL {
                let p = a.promote(b);
                assert_eq!(p, b.promote(a), "{a} with {b}");
                assert!(p.is_float() == (a.is_float() || b.is_float()), "{a} with {b} gives {p}");
            }
        }
        assert_eq!(DType::F16.promote(DType::Bf16), DType::F32);
        assert_eq!(DType::I64.promote(DType::F16), DType::F16);
        assert_eq!(DType::U32.promote(DType::I32), DType::I64);
        assert_eq!(DType::U8.promote(DType::I32), DType::I32);
    }

    #[test]
    fn names_round_trip() {
        for d in DType::ALL {
            assert_eq!(DType::from_name(d.name()), Some(d));
        }
    }
}
