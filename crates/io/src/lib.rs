//! Files of tensors: safetensors, manifests with hashes, and writes that leave a file whole or not at all.
//!
//! | for | see |
//! |---|---|
//! | all tensors of a file, and back | [`load`], [`save`] |
//! | one tensor, a list, raw bytes, a memory map | [`SafeTensors`] |
//! | element types Gradus does not compute with | [`StoredDType`], [`RawTensor`], [`save_raw`] |
//! | what a hostile file may cost | [`Limits`] |
//! | a directory that is complete or absent (a checkpoint) | [`write_dir_atomic`], [`Manifest`], [`recover`] |
//!
//! Everything here depends on the outside world, so everything returns a `Result`; the errors name the file, the tensor,
//! the byte and the values. All of them convert into [`gradus_core::Error`]. No file, however made, causes a panic, a read
//! outside its tensors, or more than 64 MiB of memory before its tensors are asked for.

mod atomic;
mod dir_error;
mod error;
mod header;
mod json;
mod manifest;
mod reader;
mod staging;
mod stored_dtype;
mod tensors;
mod writer;

pub use atomic::{recover, remove_dir_atomic, write_file_atomic};
pub use dir_error::{DirError, FileError, Problem};
pub use error::{Cause, SafetensorsError};
pub use header::{Limits, TensorInfo};
pub use manifest::{FileHash, MANIFEST_NAME, Manifest, ManifestEntry, hash_of};
pub use reader::{Access, SafeTensors};
pub use staging::{StagedDir, write_dir_atomic};
pub use stored_dtype::StoredDType;
pub use tensors::{load, save, to_bytes};
pub use writer::{RawTensor, raw_to_bytes, save_raw};
