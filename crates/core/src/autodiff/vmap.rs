//! A function of one sample, mapped over the samples of a batch.
//!
//! Both functions here run the function once for each sample and stack what it gives. That is always right, also for functions
//! that look at values, and as slow as a loop: most ops take a batch as they are, and where a function is written for one, call
//! it with the batch. No op is rewritten to a batched one behind the caller's back.

use super::engine::{Backward, try_grad_allow_unused};
use super::{enable_grad, no_grad};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The function `f` of one sample, for all samples: each input is taken apart along its dimension in `dims` (`None`: the whole
/// input for each sample), and each output stacked along a new first dimension. In PyTorch: `torch.vmap`.
///
/// Gradients flow through. One run of `f` for each sample.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::vmap;
/// let (a, b) = (Tensor::arange(0.0, 6.0, 1.0, Device::cpu()).reshape([3, 2]), Tensor::from_slice(&[1.0, 10.0], Device::cpu()));
/// let y = vmap(|x| Ok(vec![x[0].dot(&x[1])]), &[&a, &b], &[Some(0), None])?;
/// assert_eq!(y[0].to_vec::<f64>()?, [10.0, 32.0, 54.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn vmap(
    f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    x: &[&Tensor],
    dims: &[Option<isize>],
) -> Result<Vec<Tensor>> {
    if dims.len() != x.len() {
        return Err(Error::misuse(format!("vmap: {} inputs, but dimensions for {}", x.len(), dims.len())));
    }
    let mut samples: Option<usize> = None;
    for (i, (x, dim)) in x.iter().zip(dims).enumerate() {
        let Some(dim) = *dim else { continue };
        let at = if dim < 0 { dim + x.rank() as isize } else { dim };
        let n = usize::try_from(at)
            .ok()
            .and_then(|at| x.dims().get(at).copied())
            .ok_or_else(|| Error::misuse(format!("vmap: input {i} of shape {} has no dimension {dim}", x.shape())))?;
        match samples {
            Some(m) if m != n => {
                return Err(Error::misuse(format!("vmap: input {i} has {n} samples, an earlier one {m}")));
            }
            _ => samples = Some(n),
        }
    }
    let n = match samples {
        Some(n @ 1..) => n,
        Some(_) => return Err(Error::misuse("vmap: a batch without samples tells no output shape")),
        None => return Err(Error::misuse("vmap: no input is to be taken apart; call the function itself")),
    };
    let mut columns: Vec<Vec<Tensor>> = Vec::new();
    for i in 0..n {
        let part = |(x, dim): (&&Tensor, &Option<isize>)| match dim {
            Some(dim) => x.try_select(*dim, i as isize),
            None => Ok((*x).clone()),
        };
        let parts = x.iter().zip(dims).map(part).collect::<Result<Vec<_>>>()?;
        let outputs = f(&parts).map_err(|e| e.context(format!("vmap: sample {i}")))?;
        columns.resize_with(columns.len().max(outputs.len()), Vec::new);
        columns.iter_mut().zip(outputs).for_each(|(column, y)| column.push(y));
    }
    if let Some(short) = columns.iter().find(|c| c.len() != n) {
        return Err(Error::misuse(format!("vmap: only {} of {n} samples gave every output", short.len())));
    }
    columns.iter().map(|c| Tensor::try_stack(&c.iter().collect::<Vec<_>>(), 0)).collect()
}

/// The gradient of each sample's loss by each parameter: `[samples, ..parameter]`.
///
/// `loss` is given a batch of one sample (each tensor of `batch` cut along its first dimension, which stays) and gives one
/// element. Zeros for a parameter that a sample's loss does not depend on. One pass forward and back for each sample. In PyTorch:
/// `torch.func.vmap(torch.func.grad(..))`.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::per_sample_gradients;
/// let w = Tensor::from_slice(&[1.0, 2.0], Device::cpu()).requires_grad();
/// let x = Tensor::from_vec(vec![1.0, 0.0, 3.0, 1.0], [2, 2], Device::cpu());
/// let g = per_sample_gradients(|batch| Ok((&batch[0] * &w).sum()), &[&w], &[&x])?;
/// assert_eq!(g[0].to_vec::<f64>()?, [1.0, 0.0, 3.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn per_sample_gradients(
    loss: impl Fn(&[Tensor]) -> Result<Tensor>,
    parameters: &[&Tensor],
    batch: &[&Tensor],
) -> Result<Vec<Tensor>> {
    let Some(n) = batch.first().and_then(|x| x.dims().first().copied()).filter(|&n| n > 0) else {
        return Err(Error::misuse("per_sample_gradients: the batch has no samples"));
    };
    if let Some(i) = batch.iter().position(|x| x.dims().first() != Some(&n)) {
        let shape = batch[i].shape();
        return Err(Error::misuse(format!(
            "per_sample_gradients: tensor {i} of the batch has shape {shape}, not {n} samples"
        )));
    }
    let mut columns: Vec<Vec<Tensor>> = vec![Vec::new(); parameters.len()];
    for i in 0..n {
        let at = |e: Error| e.context(format!("per_sample_gradients: sample {i}"));
        let sample = batch.iter().map(|x| x.try_narrow(0, i, 1)).collect::<Result<Vec<_>>>()?;
        let y = enable_grad(|| loss(&sample)).map_err(at)?;
        let found = try_grad_allow_unused(&[&y], parameters, Backward::default()).map_err(at)?;
        for ((column, g), p) in columns.iter_mut().zip(found).zip(parameters) {
            column.push(g.map_or_else(|| Tensor::try_zeros(*p.shape(), p.place()), Ok)?);
        }
    }
    no_grad(|| columns.iter().map(|c| Tensor::try_stack(&c.iter().collect::<Vec<_>>(), 0)).collect())
}
