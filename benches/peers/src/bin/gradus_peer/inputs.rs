//! What the peers are given: weights and batches.

use gradus::{Device, Error, Result, Tensor, io};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tensors of a file, and the file's name for messages.
pub struct Tensors(pub BTreeMap<String, Tensor>, PathBuf);

impl Tensors {
    pub fn load(path: &Path, device: Device) -> Result<Tensors> {
        Ok(Tensors(io::load(path, device)?, path.to_owned()))
    }
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| Error::data(format!("{}: there is no tensor called {name}", self.1.display())))
    }
    /// What a tensor holds at each place of its first dimension.
    pub fn unbind(&self, name: &str) -> Result<Vec<Tensor>> {
        let all = self.get(name)?;
        (0..all.dim(0)).map(|i| all.try_select(0, i as isize)).collect()
    }
}
