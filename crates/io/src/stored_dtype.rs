//! The element types that a safetensors file can hold: more than Gradus computes with.
//!
//! A tensor of a type that Gradus lacks is still listed, and readable as raw bytes. The order of the variants is that of
//! the format's reference implementation (safetensors 0.8), whose writer lays tensors out by descending type, then by
//! name; keeping it makes both writers produce the same bytes.

use gradus_core::DType;
use std::fmt;

macro_rules! stored_dtypes {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $bits:literal;)*) => {
        /// An element type as a safetensors header names it.
        #[allow(non_camel_case_types)] // the format's own names
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum StoredDType { $($(#[$meta])* $variant,)* }

        impl StoredDType {
            /// Every element type, in the order in which a writer sorts them (last first).
            pub const ALL: &'static [StoredDType] = &[$(StoredDType::$variant),*];

            /// The name in the header, such as `F32` or `BF16`.
            pub const fn name(self) -> &'static str {
                match self { $(StoredDType::$variant => $name),* }
            }

            /// Bits of one element; 4 and 6 occur.
            pub const fn bits(self) -> u64 {
                match self { $(StoredDType::$variant => $bits),* }
            }
        }
    };
}

stored_dtypes! {
    /// Truth values, one byte each.
    Bool = "BOOL", 8;
    /// OCP microscaling 4-bit float.
    F4 = "F4", 4;
    /// OCP microscaling 6-bit float, 2 exponent bits.
    F6_E2M3 = "F6_E2M3", 6;
    /// OCP microscaling 6-bit float, 3 exponent bits.
    F6_E3M2 = "F6_E3M2", 6;
    /// Unsigned bytes.
    U8 = "U8", 8;
    /// Signed bytes.
    I8 = "I8", 8;
    /// 8-bit float, 5 exponent bits.
    F8_E5M2 = "F8_E5M2", 8;
    /// 8-bit float, 4 exponent bits.
    F8_E4M3 = "F8_E4M3", 8;
    /// 8-bit exponents (scales of microscaling formats).
    F8_E8M0 = "F8_E8M0", 8;
    /// 8-bit float, 4 exponent bits, finite, no negative zero.
    F8_E4M3Fnuz = "F8_E4M3FNUZ", 8;
    /// 8-bit float, 5 exponent bits, finite, no negative zero.
    F8_E5M2Fnuz = "F8_E5M2FNUZ", 8;
    /// Signed 16-bit integers.
    I16 = "I16", 16;
    /// Unsigned 16-bit integers.
    U16 = "U16", 16;
    /// IEEE binary16.
    F16 = "F16", 16;
    /// The upper half of an IEEE binary32.
    Bf16 = "BF16", 16;
    /// Signed 32-bit integers.
    I32 = "I32", 32;
    /// Unsigned 32-bit integers.
    U32 = "U32", 32;
    /// IEEE binary32.
    F32 = "F32", 32;
    /// Complex numbers of two IEEE binary32.
    C64 = "C64", 64;
    /// IEEE binary64.
    F64 = "F64", 64;
    /// Signed 64-bit integers.
    I64 = "I64", 64;
    /// Unsigned 64-bit integers.
    U64 = "U64", 64;
}

impl StoredDType {
    /// The type that a header calls `name`, if there is one. Case matters.
    pub fn from_name(name: &str) -> Option<StoredDType> {
        StoredDType::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// The type of a tensor that holds such elements, or `None` if Gradus does not compute with them.
    pub const fn dtype(self) -> Option<DType> {
        Some(match self {
            StoredDType::Bool => DType::Bool,
            StoredDType::U8 => DType::U8,
            StoredDType::U32 => DType::U32,
            StoredDType::I32 => DType::I32,
            StoredDType::I64 => DType::I64,
            StoredDType::F16 => DType::F16,
            StoredDType::Bf16 => DType::Bf16,
            StoredDType::F32 => DType::F32,
            StoredDType::F64 => DType::F64,
            _ => return None,
        })
    }

    /// Bytes of a tensor of this type and shape; `None` if they cannot be counted in 64 bits, or end inside a byte.
    pub fn bytes_of(self, shape: &[usize]) -> Option<u64> {
        // A product of 0 must not hide an overflow before it: [2^63, 4, 0] is refused, as the reference reader refuses it.
        let elements = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
        let bits = elements.checked_mul(self.bits())?;
        (bits % 8 == 0).then_some(bits / 8)
    }
}

impl From<DType> for StoredDType {
    fn from(dtype: DType) -> StoredDType {
        match dtype {
            DType::Bool => StoredDType::Bool,
            DType::U8 => StoredDType::U8,
            DType::U32 => StoredDType::U32,
            DType::I32 => StoredDType::I32,
            DType::I64 => StoredDType::I64,
            DType::F16 => StoredDType::F16,
            DType::Bf16 => StoredDType::Bf16,
            DType::F32 => StoredDType::F32,
            DType::F64 => StoredDType::F64,
        }
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_has_a_stored_form_of_its_size_and_comes_back() {
        for dtype in DType::ALL {
            let stored = StoredDType::from(dtype);
            assert_eq!(stored.dtype(), Some(dtype));
            assert_eq!(stored.bits(), 8 * dtype.size() as u64, "{dtype}");
        }
        let computed = StoredDType::ALL.iter().filter(|d| d.dtype().is_some()).count();
        assert_eq!(computed, DType::ALL.len());
    }

    #[test]
    fn names_round_trip_and_case_matters() {
        for &d in StoredDType::ALL {
            assert_eq!(StoredDType::from_name(d.name()), Some(d));
        }
        assert_eq!(StoredDType::from_name("f32"), None);
        assert_eq!(StoredDType::from_name("F33"), None);
    }

    #[test]
    fn byte_counts_refuse_overflow_and_broken_bytes() {
        assert_eq!(StoredDType::F32.bytes_of(&[2, 3]), Some(24));
        assert_eq!(StoredDType::F32.bytes_of(&[]), Some(4));
        assert_eq!(StoredDType::F32.bytes_of(&[0, 1 << 40]), Some(0));
        assert_eq!(StoredDType::F32.bytes_of(&[1 << 32, 1 << 32]), None);
        assert_eq!(StoredDType::F32.bytes_of(&[(1 << 62) + 4]), None);
        assert_eq!(StoredDType::F4.bytes_of(&[3]), None);
        assert_eq!(StoredDType::F4.bytes_of(&[4]), Some(2));
    }
}
