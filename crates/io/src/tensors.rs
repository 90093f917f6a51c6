//! From a file to tensors on a device, and back, with as few copies as a device allows.
//!
//! Data go from the file into memory that is used again for each tensor, and from there to the device; from a map, they
//! go to the device straight away. What lies in the host's memory is written from there; downloads go through pieces of a few megabytes, so that saving a model needs no second
//! model's memory.

use crate::error::{Cause, SafetensorsError};
use crate::header::TensorInfo;
use crate::reader::SafeTensors;
use crate::stored_dtype::StoredDType;
use crate::writer::{Plan, Stored, WRITING};
use gradus_core::{Device, Layout, Shape, Tensor, View};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

// The format is little-endian, and tensors are read and written as they lie in memory.
#[cfg(target_endian = "big")]
compile_error!("gradus-io reads and writes the memory of little-endian machines only");

/// Elements of a tensor are fetched from its device in pieces of this many bytes.
const PIECE: usize = 4 << 20;

impl SafeTensors {
    /// The tensor called `name`, on `device`. Errors if there is none, if Gradus has no such dtype (see
    /// [`bytes`](SafeTensors::bytes)), if a `bool` is neither 0 nor 1, or if the device refuses.
    pub fn tensor(&self, name: &str, device: Device) -> Result<Tensor, SafetensorsError> {
        self.upload(self.info(name)?, device, &mut Vec::new())
    }

    /// Every tensor, on `device`, by name. Errors as [`tensor`](SafeTensors::tensor) does.
    pub fn tensors(&self, device: Device) -> Result<BTreeMap<String, Tensor>, SafetensorsError> {
        let mut scratch = Vec::new();
        self.infos().iter().map(|info| Ok((info.name.clone(), self.upload(info, device, &mut scratch)?))).collect()
    }

    fn upload(&self, info: &TensorInfo, device: Device, scratch: &mut Vec<u8>) -> Result<Tensor, SafetensorsError> {
        let refuse = |cause| self.error(cause);
        let Some(dtype) = info.dtype.dtype() else {
            return Err(refuse(Cause::Unsupported { name: info.name.clone(), dtype: info.dtype }));
        };
        let device_refuses = |source| refuse(Cause::Device { name: info.name.clone(), source });
        let shape = Shape::try_new(&info.shape).map_err(device_refuses)?;
        let bytes = match self.borrowed(info)? {
            Some(bytes) => bytes,
            None => self.read(info, scratch)?,
        };
        // The fold is vectorized, the search is not.
        if info.dtype == StoredDType::Bool && bytes.iter().fold(0, |all, &b| all | b) > 1 {
            let i = bytes.iter().position(|&b| b > 1).unwrap_or(0);
            let (name, at) = (info.name.clone(), info.range.start + i as u64);
            return Err(refuse(Cause::BoolByte { name, at, byte: bytes[i] }));
        }
        Tensor::from_bytes(bytes, shape, device.with(dtype)).map_err(device_refuses)
    }
}

/// Every tensor of the file at `path`, on `device`, by name.
///
/// ```no_run
/// # fn show(device: gradus_core::Device) -> Result<(), gradus_io::SafetensorsError> {
/// let state = gradus_io::load("model.safetensors", device)?;
/// println!("{:?}", state["fc.weight"].shape());
/// # Ok(()) }
/// ```
pub fn load(path: impl AsRef<Path>, device: Device) -> Result<BTreeMap<String, Tensor>, SafetensorsError> {
    SafeTensors::open(path)?.tensors(device)
}

/// Writes tensors under their names to the file `path`, whole or not at all, with free-form strings beside them.
///
/// The same content gives the same bytes, whatever order it comes in. Waits for the tensors' devices.
pub fn save<'a, N: AsRef<str>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), SafetensorsError> {
    plan(tensors, metadata)
        .and_then(|plan| plan.save(path.as_ref()))
        .map_err(|cause| SafetensorsError::new(Some(path.as_ref()), cause))
}

/// The bytes of the file that [`save`] would write.
pub fn to_bytes<'a, N: AsRef<str>>(
    tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SafetensorsError> {
    plan(tensors, metadata).and_then(|plan| plan.to_bytes()).map_err(|cause| SafetensorsError::new(None, cause))
}

/// A file of tensors, ready to be written.
pub(crate) fn plan<'a, N: AsRef<str>>(
    tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Plan<Named<'a, N>>, Cause> {
    Plan::new(tensors.into_iter().map(|(name, tensor)| Named { name, tensor }).collect(), metadata)
}

/// A tensor and the name to write it under.
pub(crate) struct Named<'a, N> {
    name: N,
    tensor: &'a Tensor,
}

impl<N: AsRef<str>> Stored for Named<'_, N> {
    fn name(&self) -> &str {
        self.name.as_ref()
    }
    fn dtype(&self) -> StoredDType {
        self.tensor.dtype().into()
    }
    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }
    fn write(&self, out: &mut dyn Write, scratch: &mut Vec<u8>) -> Result<(), Cause> {
        let (view, size) = (self.tensor.view(), self.tensor.dtype().size());
        if let Some(bytes) = self.tensor.device().backend().host_bytes(view) {
            return bytes.chunks(PIECE).try_for_each(|piece| out.write_all(piece)).map_err(Cause::io(WRITING));
        }
        let elements = view.elements();
        // A strided view is fetched at once: cutting it anywhere but at its outer dimension would not be a view again.
        let piece = if view.layout.is_dense() { PIECE / size } else { elements };
        let mut start = 0;
        while start < elements {
            let count = piece.min(elements - start);
            scratch.resize(count * size, 0);
            let fetched = self.fetch(start, count, scratch);
            fetched.map_err(|source| Cause::Device { name: self.name().to_string(), source })?;
            out.write_all(scratch).map_err(Cause::io(WRITING))?;
            start += count;
        }
        Ok(())
    }
}

impl<N> Named<'_, N> {
    /// Writes `count` elements, from the row-major element `start` on, to `out`. A strided tensor gives all or nothing.
    fn fetch(&self, start: usize, count: usize, out: &mut [u8]) -> gradus_core::Result<()> {
        let view = self.tensor.view();
        let mut layout = *view.layout;
        if layout.is_dense() {
            let line = Shape::try_new(&[count])?;
            layout = Layout::strided(line, line.strides(), layout.offset() + start);
        }
        self.tensor.device().backend().download(View { layout: &layout, ..view }, out)
    }
}
