//! Reading safetensors: the header at once, the data when asked for.
//!
//! `open` costs the header alone; each tensor is then read from the open file, from a memory map, or from bytes in
//! memory. A file that is replaced by [`save`](crate::save) meanwhile stays readable as it was, because `save` renames a
//! new file into its place and never writes into an old one.

use crate::error::{Cause, SafetensorsError};
use crate::header::{Header, Limits, TensorInfo};
use memmap2::Mmap;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// How the data of an open file are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Read from the file when asked for.
    #[default]
    Read,
    /// Mapped into memory: opening costs nothing, and pages are read when touched. Nobody may shorten or overwrite the
    /// file while it is mapped: a page that has gone ends the process (SIGBUS on Unix), and one that changes changes the
    /// bytes under their reader. Files that Gradus writes are never changed in place.
    Mapped,
}

/// An open safetensors file: its header read and checked, its data at hand.
///
/// ```no_run
/// # fn main() -> Result<(), gradus_io::SafetensorsError> {
/// let file = gradus_io::SafeTensors::open("model.safetensors")?;
/// for name in file.names() {
///     let info = file.info(name)?;
///     println!("{name}: {} {:?}", info.dtype, info.shape);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SafeTensors {
    path: Option<PathBuf>,
    header: Header,
    data: Data,
}

#[derive(Debug)]
enum Data {
    File(File),
    Mapped(Mmap),
    Memory(Vec<u8>),
}

impl SafeTensors {
    /// Opens a file and reads its header.
    pub fn open(path: impl AsRef<Path>) -> Result<SafeTensors, SafetensorsError> {
        SafeTensors::open_with(path, Access::Read, &Limits::default())
    }

    /// Opens a file, reads its header, and maps its data into memory. See [`Access::Mapped`] for what that asks of others.
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<SafeTensors, SafetensorsError> {
        SafeTensors::open_with(path, Access::Mapped, &Limits::default())
    }

    /// Opens a file with limits of your own.
    pub fn open_with(path: impl AsRef<Path>, access: Access, limits: &Limits) -> Result<SafeTensors, SafetensorsError> {
        let path = path.as_ref();
        let open = || {
            let file = open_regular(path)?;
            let file_bytes = file.metadata().map_err(Cause::io("ask for the file's length"))?.len();
            let header = Header::read(&file, file_bytes, limits)?;
            let data = match access {
                Access::Read => Data::File(file),
                Access::Mapped => Data::Mapped(map(&file)?),
            };
            Ok(SafeTensors { path: Some(path.to_path_buf()), header, data })
        };
        open().map_err(|cause| SafetensorsError::new(Some(path), cause))
    }

    /// Reads the header of a file whose bytes are in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<SafeTensors, SafetensorsError> {
        SafeTensors::from_bytes_with(bytes, &Limits::default())
    }

    /// Reads the header of a file whose bytes are in memory, with limits of your own.
    pub fn from_bytes_with(bytes: Vec<u8>, limits: &Limits) -> Result<SafeTensors, SafetensorsError> {
        let header =
            Header::read(&bytes[..], bytes.len() as u64, limits).map_err(|c| SafetensorsError::new(None, c))?;
        Ok(SafeTensors { path: None, header, data: Data::Memory(bytes) })
    }

    /// The tensors' names, in the order of their data.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensors.iter().map(|t| t.name.as_str())
    }

    /// What the header says about each tensor, in the order of their data.
    pub fn infos(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// What the header says about the tensor called `name`. An error names the most similar names.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, SafetensorsError> {
        self.header.find(name).map_err(|cause| self.error(cause))
    }

    /// The free-form strings beside the tensors, by key (`__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The tensor's elements as they stand in the file: little-endian, row-major. Borrowed from a map or from memory; read
    /// from a file.
    pub fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, SafetensorsError> {
        let info = self.info(name)?;
        if let Some(bytes) = self.borrowed(info)? {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = Vec::new();
        self.read(info, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// The tensor's bytes, if they are in memory.
    pub(crate) fn borrowed(&self, info: &TensorInfo) -> Result<Option<&[u8]>, SafetensorsError> {
        let all: &[u8] = match &self.data {
            Data::File(_) => return Ok(None),
            Data::Mapped(map) => map,
            Data::Memory(bytes) => bytes,
        };
        // The range lies inside the length that was checked, which fits memory; a map may be shorter if the file was cut.
        match all.get(info.range.start as usize..info.range.end as usize) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(self.error(Cause::io("read the data")(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    /// The tensor's bytes, read from the file into `scratch`, which is memory to be used again.
    pub(crate) fn read<'s>(&self, info: &TensorInfo, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], SafetensorsError> {
        let Data::File(file) = &self.data else { return Ok(&[]) };
        let length = (info.range.end - info.range.start) as usize;
        if scratch.len() < length {
            // Fresh zeroed memory costs no pass over it: the system hands out zero pages.
            *scratch = vec![0; length];
        }
        let bytes = &mut scratch[..length];
        read_exact_at(file, bytes, info.range.start).map_err(|e| self.error(Cause::io("read the data")(e)))?;
        Ok(bytes)
    }

    pub(crate) fn error(&self, cause: Cause) -> SafetensorsError {
        SafetensorsError::new(self.path.as_deref(), cause)
    }
}

/// Opens `path` if it is a regular file: opening a pipe would wait for its other end, and a device has no end.
fn open_regular(path: &Path) -> Result<File, Cause> {
    let kind = std::fs::metadata(path).map_err(Cause::io("open the file"))?;
    if !kind.is_file() {
        return Err(Cause::NotAFile);
    }
    File::open(path).map_err(Cause::io("open the file"))
}

fn map(file: &File) -> Result<Mmap, Cause> {
    // SAFETY: the map is read-only, and its bytes are only ever read as `u8`, for which every value is valid. That nobody
    // changes or shortens the file meanwhile cannot be enforced; `Access::Mapped` asks it of whoever chooses to map.
    unsafe { Mmap::map(file) }.map_err(Cause::io("map the file into memory"))
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
