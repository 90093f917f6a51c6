//! Directories that are complete or absent, with a manifest of their files: what a checkpoint is.
//!
//! How the renaming works is said in [`crate::atomic`]. Files written through [`StagedDir`] are hashed while they are
//! written, on a second thread: writing is what takes the time, and reading back would add a fifth to it.

use crate::atomic::{OLD, Partial, Place, open_dir, recover_named, sync_dir};
use crate::dir_error::{DirError, FileError};
use crate::error::SafetensorsError;
use crate::manifest::{FileHash, Manifest};
use crate::tensors::plan;
use gradus_core::Tensor;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

/// A directory being built. It dereferences to its path, for files that are written by other means.
pub struct StagedDir {
    path: PathBuf,
    /// Length and hash of each file that was written here.
    written: RefCell<BTreeMap<String, (u64, FileHash)>>,
}

impl StagedDir {
    /// Writes tensors to the safetensors file `name`, as [`save`](crate::save) does. The file must not be changed after.
    pub fn save<'a, N: AsRef<str>>(
        &self,
        name: &str,
        tensors: impl IntoIterator<Item = (N, &'a Tensor)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), SafetensorsError> {
        plan(tensors, metadata)
            .and_then(|plan| self.create(name, |out| plan.write(out)))
            .map_err(|cause| SafetensorsError::new(Some(&self.path.join(name)), cause))
    }

    /// Writes the file `name`. It must not be changed after.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), FileError> {
        self.create(name, |out| out.write_all(content).map_err(FileError::at("write", &self.path.join(name))))
    }

    /// Writes a new file with `fill`, hashing it on the way, and syncs it.
    fn create<E: From<FileError>>(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path.join(name);
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the name leads out of the directory");
            return Err(FileError { doing: "write", path, source }.into());
        }
        let file = File::create_new(&path).map_err(FileError::at("create", &path))?;
        // The buffer gathers small tensors; what is larger passes it by.
        let mut out = BufWriter::with_capacity(PIECE, Hashing { file, hasher: blake3::Hasher::new(), bytes: 0 });
        fill(&mut out)?;
        let hashing = out.into_inner().map_err(|e| FileError::at("write", &path)(e.into_error()))?;
        hashing.file.sync_all().map_err(FileError::at("sync", &path))?;
        self.written.borrow_mut().insert(name.to_string(), (hashing.bytes, hashing.hasher.finalize().into()));
        Ok(())
    }
}

impl Deref for StagedDir {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for StagedDir {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Writes in pieces from this size on are hashed on a thread of their own; starting one costs a fiftieth of the write.
const PIECE: usize = 1 << 20;

/// A file whose content is hashed while it is written.
struct Hashing {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_all(piece).map(|()| piece.len())
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        let (file, hasher) = (&mut self.file, &mut self.hasher);
        if piece.len() < PIECE {
            hasher.update(piece);
            return file.write_all(piece);
        }
        let (hashed, written) = std::thread::scope(|threads| {
            let hash = || {
                hasher.update(piece);
            };
            (std::thread::Builder::new().spawn_scoped(threads, hash).is_ok(), file.write_all(piece))
        });
        if !hashed {
            self.hasher.update(piece); // no thread was to be had
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Builds a directory that appears at `path` whole or not at all, with a [`Manifest`] of its files written last.
///
/// `fill` is given an empty directory beside `path` and puts files into it (and directories; no links), best by the methods
/// of [`StagedDir`], which hash on the way. Every other file is then hashed, all are synced, the manifest is written, and
/// the directory is renamed into place. A directory that stands at `path` is replaced. A process killed at any instant
/// leaves at `path` either a complete directory or nothing; after a kill during the replacement of a directory,
/// [`recover`](crate::recover) puts the old one back.
///
/// ```
/// # let out = std::env::temp_dir().join(format!("gradus-doc-{}", std::process::id()));
/// use gradus_io::{DirError, Manifest, write_dir_atomic};
/// write_dir_atomic(&out, |dir| dir.write("state.json", b"{}").map_err(DirError::from))?;
/// assert_eq!(Manifest::verify(&out)?.entries()[0].path, "state.json");
/// # std::fs::remove_dir_all(&out).unwrap();
/// # Ok::<(), DirError>(())
/// ```
pub fn write_dir_atomic<T, E: From<DirError>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&StagedDir) -> Result<T, E>,
) -> Result<T, E> {
    let place = Place::of(path.as_ref()).map_err(DirError::from)?;
    recover_named(&place.parent, Some(&place.name)).map_err(DirError::from)?;
    let create = |path: &Path| {
        fs::create_dir(path).map_err(FileError::at("create", path))?;
        open_dir(path).map_err(FileError::at("open", path))
    };
    let (partial, lock) = place.create(create).map_err(DirError::from)?;
    let staged = StagedDir { path: partial.path.clone(), written: RefCell::default() };
    let value = fill(&staged)?;
    Manifest::write_with(&staged.path, staged.written.into_inner())?;
    install_dir(partial, &place).map_err(DirError::from)?;
    drop(lock);
    Ok(value)
}

/// Renames the complete directory `partial` into its place, around a directory that stands there.
fn install_dir(partial: Partial, place: &Place) -> Result<(), FileError> {
    let path = place.path();
    let into_place = || fs::rename(&partial.path, &path).map_err(FileError::at("move into place", &path));
    match fs::symlink_metadata(&path) {
        Ok(there) if there.is_dir() => {
            let old = place.beside(OLD);
            fs::rename(&path, &old).map_err(FileError::at("move aside", &path))?;
            if let Err(e) = into_place() {
                // Best effort: should this fail too, `recover` does the same.
                let _ = fs::rename(&old, &path);
                return Err(e);
            }
            partial.keep();
            sync_dir(&place.parent)?;
            fs::remove_dir_all(&old).map_err(FileError::at("remove", &old))
        }
        Ok(_) => Err(FileError::at("replace", &path)(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file stands where a directory is to be written",
        ))),
        Err(_) => {
            into_place()?;
            partial.keep();
            sync_dir(&place.parent)
        }
    }
}
