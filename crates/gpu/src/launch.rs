//! What every launch has in common: finding a view's memory, folding its dimensions, the grid, the width of addresses.

use crate::Gpu;
use crate::capture;
use crate::memory::{GpuBuffer, Memory};
use crate::runtime::GpuRuntime;
use cubecl::client::ComputeClient;
use cubecl::ir::AddressType;
use cubecl::prelude::*;
use cubecl::server::Handle;
use gradus_core::{Buffer, DType, Error, Layout, Result, Scalar, View};
use gradus_kernels::strided::{PlaceLaunch, fold};
use std::sync::Arc;

/// Threads of a cube in elementwise kernels.
pub(crate) const CUBE: u32 = 256;

/// The most tensors of a launch over lists of them: its kernel has a branch for each.
const MOST: usize = 16;
/// Bindings of such a launch that belong to no list: a factor or a result, and the numbers.
const OTHERS: usize = 2;

/// Strides and an offset, before they become a kernel's argument.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) strides: Vec<isize>,
    pub(crate) offset: isize,
}

impl Steps {
    pub(crate) fn of(layout: &Layout) -> Steps {
        Steps { strides: layout.strides().to_vec(), offset: layout.offset() as isize }
    }
    pub(crate) fn dense(shape: &[usize]) -> Steps {
        let mut strides = vec![1isize; shape.len()];
        for d in (1..shape.len()).rev() {
            strides[d - 1] = strides[d] * shape[d] as isize;
        }
        Steps { strides, offset: 0 }
    }
    pub(crate) fn place<R: GpuRuntime>(&self) -> PlaceLaunch<R> {
        PlaceLaunch::new(self.strides.iter().copied().collect(), self.offset)
    }
    /// The same steps with the given ones of dimension `d`.
    pub(crate) fn with(mut self, d: usize, stride: isize) -> Steps {
        self.strides[d] = stride;
        self
    }
}

/// Folds a shape and the steps of its operands; see [`fold`].
pub(crate) fn folded<const N: usize>(shape: &[usize], operands: [&Steps; N]) -> (Vec<usize>, [Steps; N]) {
    let (lengths, mut steps) = folded_all(shape, &operands.map(Steps::clone));
    (lengths, std::array::from_fn(|i| std::mem::take(&mut steps[i])))
}

/// The same for any number of operands.
pub(crate) fn folded_all(shape: &[usize], operands: &[Steps]) -> (Vec<usize>, Vec<Steps>) {
    let strides: Vec<&[isize]> = operands.iter().map(|s| s.strides.as_slice()).collect();
    let (lengths, strides) = fold(shape, &strides);
    let steps = strides.into_iter().zip(operands).map(|(strides, of)| Steps { strides, offset: of.offset });
    (lengths, steps.collect())
}

/// A shape as a kernel's argument.
pub(crate) fn lengths<R: GpuRuntime>(shape: &[usize]) -> SequenceArg<R, usize> {
    shape.iter().copied().collect()
}

/// The number of cubes, laid out in as many dimensions as the device's limits need.
fn cubes(count: usize, largest: (u32, u32, u32)) -> CubeCount {
    let x = count.clamp(1, largest.0.min(65_535) as usize);
    let y = count.div_ceil(x).clamp(1, largest.1.min(65_535) as usize);
    let z = count.div_ceil(x * y).max(1);
    CubeCount::Static(x as u32, y as u32, z as u32)
}

impl<R: GpuRuntime> Gpu<R> {
    /// The memory of a view, if it is this device's.
    pub(crate) fn memory_of<'a>(&self, buffer: &'a Buffer) -> Result<&'a GpuBuffer> {
        match buffer.as_any().downcast_ref::<GpuBuffer>() {
            Some(memory) if memory.name == self.name => Ok(memory),
            Some(memory) => Err(Error::misuse(format!(
                "the tensor lives on {}, not on {}; move it with `to`",
                memory.name, self.name
            ))),
            None => Err(Error::misuse(format!("the tensor's memory is not that of {}; move it with `to`", self.name))),
        }
    }

    /// New memory for `elements` of `dtype`, counted; its content is unspecified.
    pub(crate) fn reserve(&self, elements: usize, dtype: DType) -> Result<GpuBuffer> {
        if !self.types.has(dtype) {
            return Err(self.lacks(dtype));
        }
        self.reserve_bytes(elements, elements.saturating_mul(self.types.size(dtype)))
    }

    /// New memory of `bytes` for `elements`, counted.
    pub(crate) fn reserve_bytes(&self, elements: usize, bytes: usize) -> Result<GpuBuffer> {
        let bytes = bytes.max(4); // no runtime reserves nothing
        if capture::is_inside() {
            return self.planned(elements, bytes);
        }
        Ok(GpuBuffer::new(self.fresh(bytes)?, elements, &self.name))
    }

    /// Memory that nobody has had.
    pub(crate) fn fresh(&self, bytes: usize) -> Result<Arc<Memory>> {
        let held = self.ledger.hold(bytes, &self.name)?;
        Ok(Memory::new(self.client.empty(bytes), bytes, held))
    }

    /// The refusal of a dtype, with what to use instead.
    pub(crate) fn lacks(&self, dtype: DType) -> Error {
        let instead = match dtype {
            DType::F64 => "f32 (64-bit floats need the CPU or CUDA)",
            DType::Bf16 => "f16 or f32",
            DType::U8 => "u32 or i32",
            _ => "f32",
        };
        Error::unsupported(format!("{} has no tensors of {dtype}; use {instead}", self.name))
    }

    /// One thread for each of `threads`.
    pub(crate) fn grid(&self, threads: usize) -> (CubeCount, CubeDim) {
        (self.cubes(threads.div_ceil(CUBE as usize)), CubeDim::new_1d(CUBE))
    }

    /// `count` cubes, maybe a few more: kernels check.
    pub(crate) fn cubes(&self, count: usize) -> CubeCount {
        cubes(count, self.client.properties().hardware.max_cube_count)
    }

    /// How many tensors a launch over lists of them takes, with so many bindings for each.
    pub(crate) fn most_tensors(&self, bindings: usize) -> usize {
        (self.most_bindings() / bindings).clamp(1, MOST)
    }

    /// How many bindings a launch over lists of tensors has for those.
    pub(crate) fn most_bindings(&self) -> usize {
        (self.client.properties().hardware.max_bindings as usize).saturating_sub(OTHERS)
    }

    /// The width of addresses that buffers of these lengths need.
    pub(crate) fn address(&self, lengths: &[usize]) -> Result<AddressType> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let width = AddressType::from_len_signed(longest);
        if !self.client.properties().supports_address(width) {
            return Err(Error::unsupported(format!(
                "{} addresses at most {} elements of one tensor; this one has {longest}",
                self.name,
                i32::MAX
            )));
        }
        Ok(width)
    }

    /// A number as an argument of type `dtype`'s computation: integers wrap, as the CPU's casts do.
    pub(crate) fn number(&self, value: &Scalar, dtype: DType) -> InputScalar {
        let of = self.types.computed(dtype);
        match dtype {
            DType::F16 | DType::Bf16 | DType::F32 => InputScalar::new(value.to_f64() as f32, of),
            DType::F64 => InputScalar::new(value.to_f64(), of),
            DType::I64 if of.size() == 8 => InputScalar::new(value.to_i64(), of),
            DType::I64 | DType::I32 => InputScalar::new(value.to_i64() as i32, of),
            DType::U32 => InputScalar::new(value.to_i64() as u32, of),
            DType::U8 => InputScalar::new(u32::from(value.to_i64() as u8), crate::types::U32),
            DType::Bool => InputScalar::new(u32::from(value.to_f64() != 0.0), crate::types::U32),
        }
    }

    /// What everything but updates is asked of: those that wait go first.
    #[inline]
    pub(crate) fn client(&self) -> &ComputeClient<R> {
        self.let_updates_go();
        &self.client
    }

    /// Notes a launch.
    #[track_caller]
    pub(crate) fn launched(&self) {
        self.paced(false);
    }

    /// Notes a launch that updates parameters.
    #[track_caller]
    pub(crate) fn updated(&self) {
        self.paced(true);
    }

    /// A buffer as a kernel's argument.
    pub(crate) fn array(&self, memory: &GpuBuffer) -> ArrayArg<R> {
        self.raw(memory.handle(), memory.elements)
    }

    /// A handle of `elements` as a kernel's argument.
    pub(crate) fn raw(&self, handle: &Handle, elements: usize) -> ArrayArg<R> {
        // SAFETY: `elements` is the number the handle was reserved for, and the kernels stay below it.
        unsafe { ArrayArg::from_raw_parts(handle.clone(), elements) }
    }

    /// A reserved buffer as the trait gives it.
    pub(crate) fn done(&self, memory: GpuBuffer) -> Result<Buffer> {
        Ok(Arc::new(memory))
    }

    /// The view made dense, or itself if it is the whole of a dense buffer.
    pub(crate) fn dense(&self, x: View<'_>) -> Result<Buffer> {
        let memory = self.memory_of(x.buffer)?;
        if x.layout.is_dense() && x.layout.offset() == 0 && x.elements() == memory.elements {
            return Ok(x.buffer.clone());
        }
        self.convert(x, x.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_its_cubes_within_the_limits() {
        let largest = (65_535, 65_535, 65_535);
        for count in [1usize, 65_535, 65_536, 1 << 24, (1 << 32) + 7] {
            let CubeCount::Static(x, y, z) = cubes(count, largest) else { panic!("a static count") };
            assert!(x as usize * y as usize * z as usize >= count, "{count}");
            assert!(x <= 65_535 && y <= 65_535 && z <= 65_535, "{count}");
        }
    }
}
