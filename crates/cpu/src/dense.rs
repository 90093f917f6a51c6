//! Inputs whose elements lie one after another, as most kernels want them.

use crate::elementwise::copy;
use crate::launch::{In, storage};
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::{Buffer, DType, Layout, Result};

/// A dense input, to be read in a kernel.
#[derive(Clone, Copy)]
pub(crate) struct Dense<T> {
    x: In<T>,
    offset: usize,
    len: usize,
}

impl<T> Dense<T> {
    pub(crate) fn of(v: View<'_>) -> Result<Dense<T>> {
        Ok(Dense { x: In::of(storage(v.buffer)?), offset: v.layout.offset(), len: v.elements() })
    }
    pub(crate) fn all(x: &[View<'_>]) -> Result<Vec<Dense<T>>> {
        x.iter().map(|v| Dense::of(*v)).collect()
    }
    pub(crate) fn slice(&self) -> &[T] {
        &self.x.slice()[self.offset..self.offset + self.len]
    }
    pub(crate) fn part(&self, start: usize, len: usize) -> &[T] {
        &self.slice()[start..][..len]
    }
}

/// Room for the copy of a view that is not dense.
#[derive(Default)]
pub(crate) struct MadeDense(Option<(Buffer, Layout)>);

impl MadeDense {
    /// A dense view of the same elements: this one, or of a copy.
    pub(crate) fn of<'a>(&'a mut self, x: View<'a>) -> Result<View<'a>> {
        if x.layout.is_dense() {
            return Ok(x);
        }
        let (buffer, layout) = self.0.insert((copy(x)?, Layout::dense(*x.shape())));
        Ok(View { buffer, layout, dtype: x.dtype })
    }
}

/// Runs a kernel on dense inputs of `f32` or `f64`; everything else, and what is empty, goes by definition.
pub(crate) fn by_dtype(
    x: &[View<'_>],
    run: impl FnOnce(&[View<'_>], DType) -> Result<Option<Fused>>,
) -> Result<Option<Fused>> {
    if !matches!(x[0].dtype, DType::F32 | DType::F64) || x.iter().any(|v| v.elements() == 0) {
        return Ok(None);
    }
    let mut made: Vec<MadeDense> = x.iter().map(|_| MadeDense::default()).collect();
    let views = x.iter().zip(&mut made).map(|(v, made)| made.of(*v)).collect::<Result<Vec<_>>>()?;
    run(&views, x[0].dtype)
}
