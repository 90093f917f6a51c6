//! Checkpoints: directories that are complete or absent, when they are written, and which are kept.
//!
//! `DIR/step-0000000420/` holds `model.safetensors`, `optimizer.safetensors`, `best.safetensors` (where best weights are kept),
//! `state.json`, and a manifest with the hash of each, written last. It is built beside its place and renamed, so a kill at
//! any instant leaves it whole or absent; [`gradus_io::recover`] removes the rest.

use crate::goal::Goal;
use crate::state::RunState;
use gradus_core::{Device, Error, ErrorKind, Result, Tensor};
use gradus_io::{Manifest, SafetensorsError, write_dir_atomic};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tensors by name.
pub(crate) type StateDict = BTreeMap<String, Tensor>;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "step-";

/// Where checkpoints go, when they are written, and how many are kept.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    every_epochs: Option<usize>,
    every_steps: Option<u64>,
    keep_last: usize,
    keep_best: Option<(String, Goal, usize)>,
}

impl Checkpoints {
    /// Checkpoints in the directory `dir`, which is made when the first is written: one an epoch unless another rhythm is
    /// set, of which the last 2 are kept.
    pub fn at(dir: impl Into<PathBuf>) -> Checkpoints {
        Checkpoints { dir: dir.into(), every_epochs: None, every_steps: None, keep_last: 2, keep_best: None }
    }
    /// One after each `n` epochs. (The end of a run always writes one.)
    pub fn every_epochs(mut self, n: usize) -> Checkpoints {
        self.every_epochs = Some(n.max(1));
        self
    }
    /// One after each `n` optimizer steps, in the middle of epochs too.
    pub fn every_steps(mut self, n: u64) -> Checkpoints {
        self.every_steps = Some(n.max(1));
        self
    }
    /// How many of the newest are kept; at least 1.
    pub fn keep_last(mut self, n: usize) -> Checkpoints {
        self.keep_last = n.max(1);
        self
    }
    /// Writes and keeps, beside the newest, those of the `n` epochs in which the value called `metric` was best
    /// ([`Goal::of`] says which way).
    pub fn keep_best(mut self, metric: &str, n: usize) -> Checkpoints {
        self.keep_best = Some((metric.to_owned(), Goal::of(metric), n));
        self
    }
    /// The directory that holds them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether one is due after this many optimizer steps.
    pub(crate) fn due_at_step(&self, step: u64) -> bool {
        self.every_steps.is_some_and(|n| step.is_multiple_of(n))
    }
    /// Whether one is due after this many epochs.
    pub(crate) fn due_at_epoch(&self, epochs: usize) -> bool {
        match (self.every_epochs, self.every_steps) {
            (Some(n), _) => epochs.is_multiple_of(n),
            (None, Some(_)) => false,
            (None, None) => true,
        }
    }
    /// The metric whose best epochs are kept, which way it goes, and how many.
    pub(crate) fn best(&self) -> Option<(&str, Goal, usize)> {
        self.keep_best.as_ref().map(|(name, goal, n)| (name.as_str(), *goal, *n))
    }

    /// An error if there are checkpoints already, which a new run would mix with its own.
    pub(crate) fn check_fresh(&self) -> Result<()> {
        match found(&self.dir)?.last() {
            None => Ok(()),
            Some((_, path)) => Err(Error::data(format!(
                "{} holds checkpoints of an earlier run ({}); resume it, or choose another directory",
                self.dir.display(),
                path.file_name().unwrap_or_default().display()
            ))),
        }
    }

    /// Writes a checkpoint; gives its directory.
    pub(crate) fn save(
        &self,
        state: &RunState,
        model: &StateDict,
        optimizer: &StateDict,
        best: Option<&StateDict>,
    ) -> Result<PathBuf> {
        let path = self.dir.join(format!("{PREFIX}{:010}", state.step));
        fs::create_dir_all(&self.dir)
            .map_err(|e| Error::io(format!("cannot make the directory {}", self.dir.display()), e))?;
        let json = state.to_json()?;
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]); // as PyTorch's files say
        let save = |dir: &gradus_io::StagedDir, name: &str, tensors: &StateDict| dir.save(name, tensors, &metadata);
        write_dir_atomic(&path, |dir| -> Result<()> {
            save(dir, MODEL, model)?;
            save(dir, OPTIMIZER, optimizer)?;
            if let Some(best) = best {
                save(dir, BEST, best)?;
            }
            Ok(dir.write(STATE, json.as_bytes())?)
        })
        .map_err(|e| e.context(format!("checkpoint {}", path.display())))?;
        self.prune(state)?;
        Ok(path)
    }

    /// Removes checkpoints up to the state's step that are neither among the newest nor among the best.
    pub(crate) fn prune(&self, state: &RunState) -> Result<()> {
        let past: Vec<(u64, PathBuf)> = found(&self.dir)?.into_iter().filter(|(step, _)| *step <= state.step).collect();
        let old = past.len().saturating_sub(self.keep_last);
        for (step, path) in &past[..old] {
            if !state.kept.iter().any(|k| k.step == *step) {
                gradus_io::remove_dir_atomic(path)?;
            }
        }
        Ok(())
    }
}

/// The checkpoints in a directory, oldest first, whether they are sound or not; none if there is no such directory.
fn found(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::io(format!("cannot list {}", dir.display()), e))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(format!("cannot list {}", dir.display()), e))?.path();
        let name = path.file_name().and_then(|n| n.to_str());
        if let Some(step) = name.and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse().ok()) {
            all.push((step, path));
        }
    }
    all.sort();
    Ok(all)
}

/// A checkpoint as it was read.
pub(crate) struct Loaded {
    pub path: PathBuf,
    pub state: RunState,
    pub model: StateDict,
    pub optimizer: StateDict,
    pub best: Option<StateDict>,
    /// Newer ones that could not be used, and why.
    pub damaged: Vec<String>,
}

/// The newest sound checkpoint in `dir`; `None` if there are no checkpoints. Damaged ones are passed over, and named; an error
/// if there are only such.
pub(crate) fn newest(dir: &Path, device: Device) -> Result<Option<Loaded>> {
    if dir.is_dir() {
        gradus_io::recover(dir)?;
    }
    let mut damaged = Vec::new();
    for (_, path) in found(dir)?.into_iter().rev() {
        match load(&path, device) {
            Ok(loaded) => return Ok(Some(Loaded { damaged, ..loaded })),
            Err(e) => damaged.push(format!("{}: {e}", path.display())),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    Err(Error::new(
        ErrorKind::Data,
        format!("no checkpoint in {} can be used:\n  {}", dir.display(), damaged.join("\n  ")),
    ))
}

/// Verifies and reads one checkpoint.
fn load(path: &Path, device: Device) -> Result<Loaded> {
    let manifest = Manifest::verify(path)?;
    let tensors = |name: &str| gradus_io::load(path.join(name), device);
    let text = fs::read_to_string(path.join(STATE))
        .map_err(|e| Error::io(format!("cannot read {}", path.join(STATE).display()), e))?;
    let best = match manifest.entry(BEST) {
        Some(_) => Some(tensors(BEST)?),
        None => None,
    };
    Ok(Loaded {
        path: path.to_path_buf(),
        state: RunState::from_json(&text)?,
        model: tensors(MODEL)?,
        optimizer: tensors(OPTIMIZER).map_err(|e: SafetensorsError| Error::from(e))?,
        best,
        damaged: Vec::new(),
    })
}
