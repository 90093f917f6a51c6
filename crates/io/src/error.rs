//! What can be wrong with a safetensors file: one list of causes, each with its place and its values.
//!
//! Written for the person who meets it: the file, the tensor, the byte in the file where it shows, what was found and what
//! was needed, and what to do. Names come from the file, so they are escaped and cut before they are shown.

use crate::stored_dtype::StoredDType;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why reading or writing a safetensors file failed. See [`cause`](SafetensorsError::cause) for the enumerated reason.
pub struct SafetensorsError(Box<Inner>);

struct Inner {
    file: Option<PathBuf>,
    cause: Cause,
}

/// The reasons for a [`SafetensorsError`]. Every `at` is a byte position counted from the start of the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The operating system refused something.
    Io {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The path names a directory, a pipe or a device.
    NotAFile,
    /// Fewer than the 8 bytes that hold the header's length.
    NoHeaderLength {
        /// Bytes in the file.
        file_bytes: u64,
    },
    /// The header's length does not fit into the file, or is too short for `{}`.
    HeaderLength {
        /// The length the file claims.
        claimed: u64,
        /// Bytes in the file.
        file_bytes: u64,
    },
    /// The header is longer than [`Limits::header_bytes`](crate::Limits::header_bytes).
    HeaderLimit {
        /// Its length.
        header_bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More tensors than [`Limits::tensors`](crate::Limits::tensors).
    TensorLimit {
        /// The limit.
        limit: usize,
    },
    /// More keys of metadata than [`Limits::metadata_keys`](crate::Limits::metadata_keys).
    MetadataLimit {
        /// The limit.
        limit: usize,
    },
    /// A tensor of more dimensions than [`Limits::rank`](crate::Limits::rank).
    RankLimit {
        /// The tensor.
        name: String,
        /// Where its shape begins.
        at: u64,
        /// The limit.
        limit: usize,
    },
    /// The header is not the JSON that the format asks for.
    Syntax {
        /// The tensor in whose entry it shows.
        name: Option<String>,
        /// Where.
        at: u64,
        /// What the format asks for there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A string of the header is not UTF-8.
    NotUtf8 {
        /// Where the string begins.
        at: u64,
    },
    /// The same name twice, or the same key twice in one object.
    Duplicate {
        /// What is there twice: `tensor`, `field` or `metadata key`.
        what: &'static str,
        /// The name or key.
        key: String,
        /// Where it shows again.
        at: u64,
    },
    /// A tensor's entry lacks one of its fields.
    MissingField {
        /// The tensor.
        name: String,
        /// Where its entry begins.
        at: u64,
        /// `dtype`, `shape` or `data_offsets`.
        field: &'static str,
    },
    /// An element type that the format does not know.
    UnknownDType {
        /// The tensor.
        name: String,
        /// Where its entry begins.
        at: u64,
        /// The type it names.
        dtype: String,
    },
    /// Shape and type ask for another number of bytes than the offsets give; `None` if it cannot be counted.
    Size {
        /// The tensor.
        name: String,
        /// Where its entry begins.
        at: u64,
        /// Its type.
        dtype: StoredDType,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that they need.
        needed: Option<u64>,
        /// The first byte and the byte after the last, counted from the start of the data.
        offsets: (u64, u64),
    },
    /// The data of tensors overlap, leave a hole, or do not begin where the data begin.
    Placement {
        /// The tensor.
        name: String,
        /// Where its entry begins.
        at: u64,
        /// Its first byte and the byte after its last, counted from the start of the data.
        offsets: (u64, u64),
        /// Where it must begin: the end of the tensor before it.
        expected: u64,
    },
    /// The file has fewer or more bytes of data than its tensors.
    DataLength {
        /// Bytes that the tensors cover.
        covered: u64,
        /// Bytes of data in the file.
        present: u64,
    },
    /// No tensor of this name.
    NotFound {
        /// The name asked for.
        name: String,
        /// The most similar names that there are.
        similar: Vec<String>,
    },
    /// Gradus does not compute with this element type.
    Unsupported {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: StoredDType,
    },
    /// A truth value that is neither 0 nor 1.
    BoolByte {
        /// The tensor.
        name: String,
        /// Where the byte is.
        at: u64,
        /// The byte.
        byte: u8,
    },
    /// A tensor that is to be written has a name that the format reserves.
    ReservedName,
    /// Two tensors that are to be written have one name.
    DuplicateToWrite {
        /// The name.
        name: String,
    },
    /// A tensor that is to be written has more dimensions than a reader takes.
    RankToWrite {
        /// The tensor.
        name: String,
        /// Its number of dimensions.
        rank: usize,
        /// The limit.
        limit: usize,
    },
    /// The data handed over for writing are not as long as type and shape say.
    DataToWrite {
        /// The tensor.
        name: String,
        /// Bytes handed over.
        bytes: u64,
        /// Its type.
        dtype: StoredDType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The device could not take or give the tensor's elements.
    Device {
        /// The tensor.
        name: String,
        /// What it said.
        source: gradus_core::Error,
    },
}

impl SafetensorsError {
    /// An error about `file`, or about bytes in memory.
    #[cold]
    pub(crate) fn new(file: Option<&Path>, cause: Cause) -> SafetensorsError {
        SafetensorsError(Box::new(Inner { file: file.map(Path::to_path_buf), cause }))
    }

    /// The file, unless the bytes were given in memory.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The reason.
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }
}

impl Cause {
    /// A failure of the operating system while `doing` something.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Cause {
        move |source| Cause::Io { doing, source }
    }

    /// What the reader of the message can do about it.
    fn advice(&self) -> &'static str {
        match self {
            Cause::Io { .. } | Cause::NotFound { .. } | Cause::Device { .. } => "",
            Cause::NotAFile => "; give the path of a safetensors file",
            Cause::HeaderLimit { .. }
            | Cause::TensorLimit { .. }
            | Cause::RankLimit { .. }
            | Cause::MetadataLimit { .. } => "; if you trust the file, open it with a higher limit",
            Cause::UnknownDType { .. } => "; the file is damaged, or of a later version of the format",
            Cause::Unsupported { .. } => "; read its raw bytes with `bytes`, or convert it before",
            Cause::BoolByte { .. } => "; read its raw bytes with `bytes`, or write the file anew",
            Cause::ReservedName | Cause::DuplicateToWrite { .. } => "; give the tensor another name",
            Cause::RankToWrite { .. } => "; reshape it before",
            Cause::DataToWrite { .. } => "; pass exactly the elements of the shape",
            _ => "; the file is damaged or was not written by the rules of the format: get it again",
        }
    }
}

/// A name out of a file, fit to be shown: quoted, escaped, and cut when long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &name[..end], name.len()),
    }
}

/// A shape out of a file, cut when long.
fn shown_shape(shape: &[usize]) -> String {
    const MOST: usize = 16;
    match shape.get(..MOST) {
        Some(first) if shape.len() > MOST => format!("{first:?}… ({} dimensions)", shape.len()),
        _ => format!("{shape:?}"),
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Cause::NotAFile => f.write_str("not a regular file"),
            Cause::NoHeaderLength { file_bytes } => {
                write!(f, "{file_bytes} bytes are too few for a safetensors file, which begins with an 8-byte length")
            }
            Cause::HeaderLength { claimed: claimed @ 0..2, .. } => {
                write!(f, "the header claims {claimed} bytes (byte 0), too few for `{{}}`")
            }
            Cause::HeaderLength { claimed, file_bytes } => {
                write!(
                    f,
                    "the header claims {claimed} bytes (byte 0), but the file has {file_bytes} in all, 8 before it"
                )
            }
            Cause::HeaderLimit { header_bytes, limit } => {
                write!(f, "the header has {header_bytes} bytes (byte 0), more than `Limits::header_bytes`, {limit}")
            }
            Cause::TensorLimit { limit } => write!(f, "more tensors than `Limits::tensors`, {limit}"),
            Cause::MetadataLimit { limit } => write!(f, "more keys of metadata than `Limits::metadata_keys`, {limit}"),
            Cause::RankLimit { name, at, limit } => {
                write!(
                    f,
                    "tensor {} (shape at byte {at}) has more dimensions than `Limits::rank`, {limit}",
                    shown(name)
                )
            }
            Cause::Syntax { name, at, expected, found } => {
                if let Some(name) = name {
                    write!(f, "tensor {}: ", shown(name))?;
                }
                write!(f, "expected {expected} at byte {at}, found {found}")
            }
            Cause::NotUtf8 { at } => write!(f, "the string that begins at byte {at} is not UTF-8"),
            Cause::Duplicate { what, key, at } => write!(f, "{what} {} appears twice, again at byte {at}", shown(key)),
            Cause::MissingField { name, at, field } => {
                write!(f, "tensor {} (byte {at}) has no `{field}`", shown(name))
            }
            Cause::UnknownDType { name, at, dtype } => {
                write!(f, "tensor {} (byte {at}) has the unknown dtype {}", shown(name), shown(dtype))
            }
            Cause::Size { name, at, dtype, shape, needed, offsets: (begin, end) } => {
                write!(f, "tensor {} (byte {at}): {dtype} of shape {} needs ", shown(name), shown_shape(shape))?;
                match needed {
                    Some(n) => write!(f, "{n} bytes, but data_offsets are [{begin}, {end}]"),
                    None => f.write_str("a number of bytes that cannot be counted, or that ends inside a byte"),
                }
            }
            Cause::Placement { name, at, offsets: (begin, end), expected } => {
                let what = if *expected == 0 { "the data begin" } else { "the tensor before it ends" };
                write!(f, "tensor {} (byte {at}) has data_offsets [{begin}, {end}]; ", shown(name))?;
                write!(f, "they must begin at {expected}, where {what}")
            }
            Cause::DataLength { covered, present } => {
                write!(f, "the tensors cover {covered} bytes of data, but the file has {present}")
            }
            Cause::NotFound { name, similar } => {
                write!(f, "no tensor is called {}", shown(name))?;
                if similar.is_empty() {
                    return Ok(());
                }
                let similar: Vec<String> = similar.iter().map(|n| shown(n)).collect();
                write!(f, "; the most similar names are {}", similar.join(", "))
            }
            Cause::Unsupported { name, dtype } => write!(f, "Gradus has no tensors of {dtype}, as {} is", shown(name)),
            Cause::BoolByte { name, at, byte } => {
                write!(f, "tensor {} holds the truth value {byte} at byte {at}; only 0 and 1 are allowed", shown(name))
            }
            Cause::ReservedName => f.write_str("a tensor cannot be called \"__metadata__\""),
            Cause::DuplicateToWrite { name } => {
                write!(f, "two of the tensors to be written are called {}", shown(name))
            }
            Cause::RankToWrite { name, rank, limit } => {
                write!(f, "tensor {} has {rank} dimensions, more than the {limit} that a reader takes", shown(name))
            }
            Cause::DataToWrite { name, bytes, dtype, shape } => {
                write!(f, "tensor {}: {bytes} bytes given for {dtype} of shape {}", shown(name), shown_shape(shape))
            }
            Cause::Device { name, source } => write!(f, "tensor {}: {source}", shown(name)),
        }
    }
}

impl fmt::Display for SafetensorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.file {
            Some(path) => write!(f, "{}: ", path.display())?,
            None => f.write_str("safetensors bytes: ")?,
        }
        write!(f, "{}{}", self.0.cause, self.0.cause.advice())
    }
}

impl fmt::Debug for SafetensorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f) // what `unwrap` and `main` print is what a person should read
    }
}

impl std::error::Error for SafetensorsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.cause {
            Cause::Io { source, .. } => Some(source),
            Cause::Device { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<SafetensorsError> for gradus_core::Error {
    /// The same message, of kind `Io` where the operating system refused, else `Data`; a device's own error keeps its kind.
    fn from(error: SafetensorsError) -> gradus_core::Error {
        use gradus_core::{Error, ErrorKind};
        let kind = match error.cause() {
            Cause::Io { .. } => ErrorKind::Io,
            Cause::Device { source, .. } => source.kind(),
            _ => ErrorKind::Data,
        };
        Error::new(kind, error.to_string())
    }
}
