//! Writing safetensors: the same content gives the same bytes, and a file appears whole or not at all.
//!
//! Tensors are laid out as the format's reference writer does it, by descending element type and then by name, with the
//! metadata sorted by key; so both writers produce the same file, and data of wide elements are aligned. What could not be
//! read back under the default [`Limits`] is refused before anything is written.

use crate::atomic::write_file_atomic;
use crate::dir_error::FileError;
use crate::error::{Cause, SafetensorsError};
use crate::header::{Limits, METADATA, PREFIX, encode};
use crate::stored_dtype::StoredDType;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A tensor to be written, of any element type the format knows, as little-endian bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: StoredDType,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its elements, row-major.
    pub bytes: &'a [u8],
}

/// Something that can be written as a tensor.
pub(crate) trait Stored {
    fn name(&self) -> &str;
    fn dtype(&self) -> StoredDType;
    fn shape(&self) -> &[usize];
    /// Writes the elements to `out`; `scratch` is memory to be used again.
    fn write(&self, out: &mut dyn Write, scratch: &mut Vec<u8>) -> Result<(), Cause>;
}

impl Stored for RawTensor<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn dtype(&self) -> StoredDType {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn write(&self, out: &mut dyn Write, _: &mut Vec<u8>) -> Result<(), Cause> {
        out.write_all(self.bytes).map_err(Cause::io(WRITING))
    }
}

/// What is being done when the system refuses to take data.
pub(crate) const WRITING: &str = "write the data";

/// Writes a file of raw tensors to `path`, whole or not at all. The order of `tensors` does not matter.
pub fn save_raw(
    path: impl AsRef<Path>,
    tensors: &[RawTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), SafetensorsError> {
    check_lengths(tensors)
        .and_then(|()| Plan::new(tensors.to_vec(), metadata)?.save(path.as_ref()))
        .map_err(|cause| SafetensorsError::new(Some(path.as_ref()), cause))
}

/// The bytes of a file of raw tensors, as [`save_raw`] writes it.
pub fn raw_to_bytes(
    tensors: &[RawTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SafetensorsError> {
    check_lengths(tensors)
        .and_then(|()| Plan::new(tensors.to_vec(), metadata)?.to_bytes())
        .map_err(|cause| SafetensorsError::new(None, cause))
}

fn check_lengths(tensors: &[RawTensor<'_>]) -> Result<(), Cause> {
    match tensors.iter().find(|t| t.dtype.bytes_of(t.shape) != Some(t.bytes.len() as u64)) {
        None => Ok(()),
        Some(t) => Err(Cause::DataToWrite {
            name: t.name.to_string(),
            bytes: t.bytes.len() as u64,
            dtype: t.dtype,
            shape: t.shape.to_vec(),
        }),
    }
}

/// A file ready to be written: its header, and its tensors in order.
pub(crate) struct Plan<T> {
    header: Vec<u8>,
    tensors: Vec<T>,
    data_bytes: u64,
}

impl<T: Stored> Plan<T> {
    /// Sorts the tensors, checks that the file could be read again, and writes its header.
    pub(crate) fn new(mut tensors: Vec<T>, metadata: &BTreeMap<String, String>) -> Result<Plan<T>, Cause> {
        let limits = Limits::default();
        if tensors.len() > limits.tensors {
            return Err(Cause::TensorLimit { limit: limits.tensors });
        }
        if metadata.len() > limits.metadata_keys {
            return Err(Cause::MetadataLimit { limit: limits.metadata_keys });
        }
        tensors.sort_by(|a, b| a.name().cmp(b.name()));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            return Err(Cause::DuplicateToWrite { name: pair[0].name().to_string() });
        }
        tensors.sort_by_key(|t| std::cmp::Reverse(t.dtype())); // stable: by name within a type
        let mut sizes = Vec::with_capacity(tensors.len());
        for t in &tensors {
            sizes.push(bytes_to_write(t, &limits)?);
        }
        let described = tensors.iter().zip(&sizes).map(|(t, &bytes)| (t.name(), t.dtype(), t.shape(), bytes));
        let header = encode(described, metadata);
        let header_bytes = header.len() as u64 - PREFIX;
        if header_bytes > limits.header_bytes {
            return Err(Cause::HeaderLimit { header_bytes, limit: limits.header_bytes });
        }
        Ok(Plan { header, tensors, data_bytes: sizes.iter().sum() })
    }

    /// Writes the file to `path`.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Cause> {
        write_file_atomic(path, |file| {
            // Gathers small tensors; what is larger than the buffer passes it by.
            let mut out = BufWriter::with_capacity(256 << 10, file);
            self.write(&mut out)?;
            out.flush().map_err(Cause::io(WRITING))
        })
    }

    /// The file's bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Cause> {
        let length = self.header.len() as u64 + self.data_bytes;
        let mut bytes = Vec::new();
        let reserved = usize::try_from(length).is_ok_and(|n| bytes.try_reserve_exact(n).is_ok());
        if !reserved {
            return Err(Cause::io("hold the whole file in memory")(io::ErrorKind::OutOfMemory.into()));
        }
        self.write(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the file to `out`.
    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<(), Cause> {
        out.write_all(&self.header).map_err(Cause::io(WRITING))?;
        let mut scratch = Vec::new();
        self.tensors.iter().try_for_each(|t| t.write(out, &mut scratch))
    }
}

/// The number of a tensor's bytes, if a reader would take the tensor.
fn bytes_to_write(t: &impl Stored, limits: &Limits) -> Result<u64, Cause> {
    if t.name() == METADATA {
        return Err(Cause::ReservedName);
    }
    let (name, dtype, shape) = (|| t.name().to_string(), t.dtype(), t.shape());
    if shape.len() > limits.rank {
        return Err(Cause::RankToWrite { name: name(), rank: shape.len(), limit: limits.rank });
    }
    dtype.bytes_of(shape).ok_or_else(|| Cause::DataToWrite { name: name(), bytes: 0, dtype, shape: shape.to_vec() })
}

impl From<FileError> for Cause {
    fn from(e: FileError) -> Cause {
        Cause::Io { doing: "write the file", source: io::Error::new(e.source.kind(), e) }
    }
}
