//! What can go wrong with files and directories that are to be written whole, or verified.

use crate::manifest::FileHash;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A step on files or directories that the operating system refused.
#[derive(Debug)]
pub struct FileError {
    /// What was being done.
    pub doing: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileError {
    /// A failure of `doing` something to `path`.
    pub(crate) fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
        move |source| FileError { doing, path: path.to_path_buf(), source }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.source)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Something in a directory that is not as its manifest says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A listed file is not there.
    Missing {
        /// The file.
        path: String,
    },
    /// A file that is not listed.
    Unlisted {
        /// The file.
        path: String,
    },
    /// A file of another length.
    Length {
        /// The file.
        path: String,
        /// Bytes by the manifest.
        listed: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A file of the right length and another content.
    Content {
        /// The file.
        path: String,
        /// The hash by the manifest.
        listed: FileHash,
        /// The file's hash.
        found: FileHash,
    },
    /// A file that cannot be read.
    Unreadable(FileError),
}

/// Why a directory could not be written whole, or is not what its manifest says.
#[derive(Debug)]
#[non_exhaustive]
pub enum DirError {
    /// The operating system refused a step.
    File(FileError),
    /// Something other than a file or a directory, or a name that a manifest cannot hold.
    Unfit {
        /// What it is.
        path: PathBuf,
        /// Why it cannot be listed.
        why: &'static str,
    },
    /// The manifest itself is cut, edited or of another version.
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the line must be.
        expected: &'static str,
    },
    /// The directory is not what its manifest says.
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

/// Bytes, shown as hexadecimal digits.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing { path } => write!(f, "{path:?} is missing"),
            Problem::Unlisted { path } => write!(f, "{path:?} is not in the manifest"),
            Problem::Length { path, listed, found } => write!(f, "{path:?} has {found} bytes instead of {listed}"),
            Problem::Content { path, listed, found } => {
                write!(f, "{path:?} has the hash {}… instead of {}…", Hex(&found[..8]), Hex(&listed[..8]))
            }
            Problem::Unreadable(e) => e.fmt(f),
        }
    }
}

impl fmt::Display for DirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirError::File(e) => e.fmt(f),
            DirError::Unfit { path, why } => write!(f, "cannot list {} in a manifest: {why}", path.display()),
            DirError::Malformed { path, line, expected } => {
                write!(f, "{}: line {line} is not {expected}: the manifest is cut or was edited", path.display())
            }
            DirError::Damaged { dir, problems } => {
                write!(f, "{} is not what its manifest says: ", dir.display())?;
                for (i, problem) in problems.iter().enumerate() {
                    write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for DirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DirError::File(e) => Some(e),
            _ => None,
        }
    }
}

impl From<FileError> for DirError {
    fn from(e: FileError) -> DirError {
        DirError::File(e)
    }
}

impl From<FileError> for gradus_core::Error {
    /// The same message, of kind `Io`.
    fn from(e: FileError) -> gradus_core::Error {
        gradus_core::Error::new(gradus_core::ErrorKind::Io, e.to_string())
    }
}

impl From<DirError> for gradus_core::Error {
    /// The same message: of kind `Io` where the operating system refused, else `Data`.
    fn from(e: DirError) -> gradus_core::Error {
        let kind = match e {
            DirError::File(_) => gradus_core::ErrorKind::Io,
            _ => gradus_core::ErrorKind::Data,
        };
        gradus_core::Error::new(kind, e.to_string())
    }
}
