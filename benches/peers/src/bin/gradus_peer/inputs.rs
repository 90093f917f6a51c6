//! What the peers are given: weights and batches.

use gradus::{Device, Devices, Error, Result, Tensor, io};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of a file, and the file's name for messages.
pub struct Tensors<'a>(pub BTreeMap<String, Tensor>, &'a Path);

impl Tensors<'_> {
    pub fn load(path: &Path) -> Result<Tensors<'_>> {
        Ok(Tensors(io::load(path, Device::cpu())?, path))
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
