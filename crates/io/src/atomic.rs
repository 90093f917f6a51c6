//! Files and directories that appear whole or not at all.
//!
//! Everything is built beside its place under a hidden name (`.NAME.ID.partial`), synced, and renamed into place; then
//! the directory above is synced, so that the name survives a power cut. A rename is atomic on every system that Gradus
//! runs on, but it cannot put a directory over a full one: that takes two renames, and what a kill between them leaves is
//! put right by [`recover`]. A living writer holds a lock on what it builds; the system drops that lock with the process,
//! which is how leftovers of a kill are told from the work of another process. Directories are built in [`crate::staging`].

use crate::dir_error::FileError;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

/// Being written; worthless until it is renamed.
const PARTIAL: &str = "partial";
/// What stood in a place until a new directory took it; valid while that place is empty.
pub(crate) const OLD: &str = "old";
/// Being deleted.
const GONE: &str = "gone";

/// A file from this size on takes its time to go.
const LARGE: u64 = 16 << 20;

/// Writes a file that appears at `path` whole or not at all, replacing what stands there (a symbolic link itself, not what
/// it points to). `fill` writes the content; if it fails or the process is killed, `path` is as it was before.
pub fn write_file_atomic<T, E: From<FileError>>(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    let place = Place::of(path.as_ref())?;
    recover_named(&place.parent, Some(&place.name))?;
    let (partial, mut file) = place.create(|path| {
        OpenOptions::new().write(true).create_new(true).open(path).map_err(FileError::at("create", path))
    })?;
    let value = fill(&mut file)?;
    file.sync_all().map_err(FileError::at("sync", &partial.path))?;
    let replaced = large_file(&place.path());
    fs::rename(&partial.path, place.path()).map_err(FileError::at("move into place", &place.path()))?;
    partial.keep();
    release(replaced);
    sync_dir(&place.parent)?;
    Ok(value)
}

/// A handle on the file at `path`, if it is large: while it is open, a rename over the file need not wait until the system has
/// taken back its pages, which takes a third of the time of writing it.
fn large_file(path: &Path) -> Option<File> {
    let is_large = |m: fs::Metadata| m.is_file() && m.len() >= LARGE;
    // Elsewhere, a file that is open cannot be replaced. What is no file (a pipe) must not be opened.
    (cfg!(unix) && fs::symlink_metadata(path).is_ok_and(is_large)).then(|| File::open(path).ok()).flatten()
}

/// Closes the handle on a file that has been replaced, while the caller goes on. One file at most is on its way: the next one
/// waits for it, so that saving in a loop does not fill the disk with what it replaces.
fn release(replaced: Option<File>) {
    static LAST: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);
    let Some(file) = replaced else { return };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(earlier) = last.take() {
        let _ = earlier.join(); // it only closes a file
    }
    // Without a thread it is closed here: the closure is dropped, and the file with it.
    *last = thread::Builder::new().name("gradus-io-release".into()).spawn(move || drop(file)).ok();
}

/// Removes a directory so that it disappears at once: a kill on the way leaves it whole, or absent with a hidden rest that
/// [`recover`] clears away. Nothing there is no error.
pub fn remove_dir_atomic(path: impl AsRef<Path>) -> Result<(), FileError> {
    let place = Place::of(path.as_ref())?;
    let gone = place.beside(GONE);
    match fs::rename(place.path(), &gone) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(FileError::at("remove", &place.path()))?,
    }
    sync_dir(&place.parent)?;
    fs::remove_dir_all(&gone).map_err(FileError::at("remove", &gone))
}

/// Puts right what killed processes left in the directory `parent`: half-written files and directories are removed, and
/// a directory that had been moved aside for a new one that never came is put back. What a living process is writing is
/// left alone. Returns the paths that were removed or put back. Every writer here calls it for its own place; a program
/// that resumes calls it before it looks for its files.
pub fn recover(parent: impl AsRef<Path>) -> Result<Vec<PathBuf>, FileError> {
    recover_named(parent.as_ref(), None)
}

/// [`recover`], for leftovers of the name `only` alone if it is given.
pub(crate) fn recover_named(parent: &Path, only: Option<&OsStr>) -> Result<Vec<PathBuf>, FileError> {
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(parent).map_err(FileError::at("list", parent))? {
        let path = entry.map_err(FileError::at("list", parent))?.path();
        if let Some((name, state)) = path.file_name().and_then(leftover)
            && only.is_none_or(|only| only == name)
        {
            // Held until all is done, so that nobody takes what is being removed for their own.
            let lock = if state == PARTIAL { lock_abandoned(&path) } else { None };
            leftovers.push(Leftover { name, state, path, lock });
        }
    }
    leftovers.sort_by(|a, b| a.path.cmp(&b.path));
    let mut changed = Vec::new();
    for l in &leftovers {
        let place = parent.join(&l.name);
        if l.state == OLD && fs::symlink_metadata(&place).is_err() {
            // Unless its writer lives and is between its two renames.
            if !leftovers.iter().any(|other| other.name == l.name && other.is_living()) {
                fs::rename(&l.path, &place).map_err(FileError::at("put back", &l.path))?;
                changed.push(place);
            }
        } else if !l.is_living() {
            remove_any(&l.path)?;
            changed.push(l.path.clone());
        }
    }
    if !changed.is_empty() {
        sync_dir(parent)?;
    }
    Ok(changed)
}

/// A hidden file or directory that a writer has made.
struct Leftover {
    name: OsString,
    state: &'static str,
    path: PathBuf,
    lock: Option<File>,
}

impl Leftover {
    /// Whether a process is at work on it.
    fn is_living(&self) -> bool {
        self.state == PARTIAL && self.lock.is_none()
    }
}

/// The name that a leftover is of, and its state, if `name` is one: `.NAME.ID.STATE`.
fn leftover(name: &OsStr) -> Option<(OsString, &'static str)> {
    let text = name.to_str()?.strip_prefix('.')?;
    let (rest, state) = text.rsplit_once('.')?;
    let state = [PARTIAL, OLD, GONE].into_iter().find(|s| *s == state)?;
    let (of, id) = rest.rsplit_once('.')?;
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !of.is_empty()).then(|| (of.into(), state))
}

/// The lock of a partial file or directory, if no living process holds it.
fn lock_abandoned(path: &Path) -> Option<File> {
    // Where locks do not exist nothing is known, so nothing counts as abandoned.
    let file = if path.is_dir() { open_dir(path) } else { File::open(path) };
    file.ok().filter(|file| file.try_lock().is_ok())
}

fn remove_any(path: &Path) -> Result<(), FileError> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()), // another process was quicker
        other => other.map_err(FileError::at("remove", path)),
    }
}

/// A handle on a directory, to be locked or synced.
#[cfg(not(windows))]
pub(crate) fn open_dir(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// A handle on a directory, which Windows gives only to those who ask for "backup semantics".
#[cfg(windows)]
pub(crate) fn open_dir(path: &Path) -> io::Result<File> {
    const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
    std::os::windows::fs::OpenOptionsExt::custom_flags(OpenOptions::new().read(true), FILE_FLAG_BACKUP_SEMANTICS)
        .open(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), FileError> {
    if cfg!(unix) {
        return open_dir(path).and_then(|d| d.sync_all()).map_err(FileError::at("sync", path));
    }
    Ok(()) // elsewhere there is no such call, and entries are durable by themselves
}

/// Where something is to appear.
pub(crate) struct Place {
    pub parent: PathBuf,
    pub name: OsString,
}

impl Place {
    pub fn of(path: &Path) -> Result<Place, FileError> {
        let invalid = |why: &str| FileError::at("write", path)(io::Error::new(io::ErrorKind::InvalidInput, why));
        let name = path.file_name().ok_or_else(|| invalid("the path does not end in a name"))?;
        if name.to_str().is_none() {
            return Err(invalid("the name is not Unicode"));
        }
        let parent = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        Ok(Place { parent: parent.to_path_buf(), name: name.to_owned() })
    }

    /// The place itself.
    pub fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// A hidden name beside the place that nothing has.
    pub fn beside(&self, state: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".{:0width$x}.{state}", unique_id(), width = ID_DIGITS));
        self.parent.join(name)
    }

    /// Creates something under a partial name with `make`, and locks it.
    pub fn create(&self, make: impl Fn(&Path) -> Result<File, FileError>) -> Result<(Partial, File), FileError> {
        loop {
            let path = self.beside(PARTIAL);
            let handle = make(&path)?;
            let partial = Partial { path, kept: false };
            match handle.try_lock() {
                // A cleaner that came between creation and lock holds the lock, or has removed it already.
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) if !partial.path.exists() => continue,
                // Where locks do not exist, nobody cleans either.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok((partial, handle)),
            }
        }
    }
}

/// Something under a partial name; removed again unless it was kept.
pub(crate) struct Partial {
    pub path: PathBuf,
    kept: bool,
}

impl Partial {
    /// It has been renamed.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // An error is on its way to the caller already; what stays here, `recover` removes.
            let _ = remove_any(&self.path);
        }
    }
}

const ID_DIGITS: usize = 32;

/// A number that no other place has: process, count and time.
fn unique_id() -> u128 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    (std::process::id() as u128) << 96 | (count as u128) << 64 | nanos as u128
}
