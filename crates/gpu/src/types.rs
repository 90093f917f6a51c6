//! How each [`DType`] is held on a device, and what it is computed in.
//!
//! Devices differ: Vulkan's shading language has 64-bit integers and bytes only where the adapter offers them, and no
//! 64-bit exponentials. What a device lacks is either held in a wider or narrower type that behaves the same for every
//! value it accepts (`bool` as `u32`, `i64` as `i32` with the values checked on upload; docs/adr/0002) or refused by name.

use cubecl::ir::features::TypeUsage;
use cubecl::ir::{DeviceProperties, ElemType, FloatKind, IntKind, StorageType, UIntKind};
use gradus_core::{DType, Error, Result};

/// The storage types of one device, by dtype.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    bytes: bool,
    long: bool,
    f16: bool,
    bf16: bool,
    f64: bool,
}

pub(crate) const U32: StorageType = StorageType::Scalar(ElemType::UInt(UIntKind::U32));
pub(crate) const F32: StorageType = StorageType::Scalar(ElemType::Float(FloatKind::F32));
const F64: StorageType = StorageType::Scalar(ElemType::Float(FloatKind::F64));
const I32: StorageType = StorageType::Scalar(ElemType::Int(IntKind::I32));
const I64: StorageType = StorageType::Scalar(ElemType::Int(IntKind::I64));
const U8: StorageType = StorageType::Scalar(ElemType::UInt(UIntKind::U8));
const F16: StorageType = StorageType::Scalar(ElemType::Float(FloatKind::F16));
const BF16: StorageType = StorageType::Scalar(ElemType::Float(FloatKind::BF16));

impl Types {
    /// What the device says it has. `doubles`: whether its compiler has 64-bit exponentials, too.
    pub(crate) fn of(device: &DeviceProperties, doubles: bool) -> Types {
        let has = |t: StorageType| device.type_usage(t).contains(TypeUsage::Buffer);
        Types { bytes: has(U8), long: has(I64), f16: has(F16), bf16: has(BF16), f64: doubles && has(F64) }
    }

    /// Whether tensors of `dtype` can live and be computed with.
    pub(crate) fn has(&self, dtype: DType) -> bool {
        match dtype {
            DType::Bool | DType::U32 | DType::I32 | DType::I64 | DType::F32 => true,
            DType::U8 => self.bytes,
            DType::F16 => self.f16,
            DType::Bf16 => self.bf16,
            DType::F64 => self.f64,
        }
    }

    /// The type that elements of `dtype` are stored in.
    pub(crate) fn stored(&self, dtype: DType) -> StorageType {
        match dtype {
            DType::Bool => {
                if self.bytes {
                    U8
                } else {
                    U32
                }
            }
            DType::U8 => U8,
            DType::U32 => U32,
            DType::I32 => I32,
            DType::I64 => {
                if self.long {
                    I64
                } else {
                    I32
                }
            }
            DType::F16 => F16,
            DType::Bf16 => BF16,
            DType::F32 => F32,
            DType::F64 => F64,
        }
    }

    /// The type that a value of `dtype` is computed and accumulated in: `f32` for halves, `u32` for `bool`.
    pub(crate) fn computed(&self, dtype: DType) -> StorageType {
        match dtype {
            DType::F16 | DType::Bf16 => F32,
            DType::Bool => U32,
            d => self.stored(d),
        }
    }

    /// Bytes of one element as stored.
    pub(crate) fn size(&self, dtype: DType) -> usize {
        self.stored(dtype).size()
    }

    /// Bits of an integer as stored.
    pub(crate) fn bits(&self, dtype: DType) -> i64 {
        8 * self.size(dtype) as i64
    }

    /// Host bytes (native-endian, one byte for a `bool`) as the device stores them.
    pub(crate) fn to_device(&self, dtype: DType, bytes: &[u8]) -> Result<Vec<u8>> {
        match dtype {
            DType::Bool if !self.bytes => Ok(bytes.iter().flat_map(|&b| u32::from(b != 0).to_ne_bytes()).collect()),
            DType::I64 if !self.long => {
                let mut out = Vec::with_capacity(bytes.len() / 2);
                for (at, x) in bytemuck::pod_collect_to_vec::<u8, i64>(bytes).into_iter().enumerate() {
                    let narrow = i32::try_from(x).map_err(|_| {
                        Error::unsupported(format!(
                            "element {at} is {x}; this device has no 64-bit integers and holds i64 in 32 bits, from {} to {}",
                            i32::MIN,
                            i32::MAX
                        ))
                    })?;
                    out.extend_from_slice(&narrow.to_ne_bytes());
                }
                Ok(out)
            }
            _ => Ok(bytes.to_vec()),
        }
    }

    /// What the device stored as host bytes, written to `out`.
    pub(crate) fn to_host(&self, dtype: DType, stored: &[u8], out: &mut [u8]) {
        match dtype {
            DType::Bool if !self.bytes => {
                stored.chunks_exact(4).zip(out.iter_mut()).for_each(|(w, b)| *b = u8::from(w.iter().any(|&x| x != 0)));
            }
            DType::I64 if !self.long => {
                for (w, o) in stored.chunks_exact(4).zip(out.chunks_exact_mut(8)) {
                    let x = i32::from_ne_bytes([w[0], w[1], w[2], w[3]]);
                    o.copy_from_slice(&i64::from(x).to_ne_bytes());
                }
            }
            _ => out.copy_from_slice(&stored[..out.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: Types = Types { bytes: false, long: false, f16: false, bf16: false, f64: false };

    #[test]
    fn narrow_devices_hold_bool_and_i64_in_32_bits() {
        let bools = NARROW.to_device(DType::Bool, &[1, 0, 1]).expect("bools always fit");
        let mut back = [9u8; 3];
        NARROW.to_host(DType::Bool, &bools, &mut back);
        assert_eq!((bools.len(), back), (12, [1, 0, 1]));

        let long = [-5i64, i64::from(i32::MAX)];
        let held = NARROW.to_device(DType::I64, bytemuck::cast_slice(&long)).expect("they fit");
        let mut back = [0i64; 2];
        NARROW.to_host(DType::I64, &held, bytemuck::cast_slice_mut(&mut back));
        assert_eq!((held.len(), back), (8, long));
    }

    #[test]
    fn an_i64_that_does_not_fit_is_refused_with_its_value_and_place() {
        let long = [1i64, 1 << 40];
        let error = NARROW.to_device(DType::I64, bytemuck::cast_slice(&long)).expect_err("it does not fit");
        let text = error.to_string();
        assert!(text.contains("element 1") && text.contains("1099511627776"), "{text}");
    }
}
