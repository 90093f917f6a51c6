//! Penalties on how the rows of a weight stand to each other: group lasso and orthogonality.
//!
//! A weight `[out, ..]` has a row for each output: its first dimension, with the others as one.

use super::penalty::scaled;
use super::{NamedGrads, Notes, Transform};
use crate::demand::demand_size;
use crate::pattern::{Selection, selects};
use gradus_core::{DType, Result, Tensor};

/// A weight as a matrix of rows, in `f32` for halves.
fn rows(param: &Tensor) -> Result<Tensor> {
    let wide = if param.dtype().is_half() { param.try_to_dtype(DType::F32)? } else { param.clone() };
    let count = wide.dims().first().copied().unwrap_or(1);
    let width = wide.elements().checked_div(count).unwrap_or(0);
    wide.try_reshape([count, width])
}

/// λ·√width·Σ ‖row‖₂ over the rows: drives whole rows to zero, and with them whole outputs.
///
/// Its gradient is λ·√width·row/‖row‖, 0 for a row of zeros. Source: Yuan & Lin, *Model selection and estimation in regression with
/// grouped variables* (2006). A parameter of fewer than two dimensions has rows of one element: there it is the L1 penalty.
#[derive(Clone, Debug)]
pub struct GroupLasso {
    lambda: f64,
    selection: Selection,
}

impl GroupLasso {
    /// A penalty of strength λ on all parameters.
    pub fn new(lambda: f64) -> GroupLasso {
        GroupLasso { lambda, selection: Selection::default() }
    }
    fn weight(&self, rows: &Tensor) -> f64 {
        self.lambda * (rows.dims()[1] as f64).sqrt()
    }
}

selects!(GroupLasso, selection);

impl Transform for GroupLasso {
    fn name(&self) -> &'static str {
        "GroupLasso"
    }
    fn check(&self, names: &[&str]) -> Result<()> {
        demand_size(self.name(), "lambda", self.lambda)?;
        self.selection.demand_matches(self.name(), names)
    }
    fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
        for g in grads.iter_mut().filter(|g| self.selection.has(&g.name)) {
            let w = rows(&g.param)?;
            let norms = w.try_norm(2.0, &[1], true)?;
            let zero = norms.try_eq_scalar(0.0)?;
            let unit = w.try_div(&norms.try_masked_fill(&zero, 1.0)?)?;
            let add = scaled(&unit, self.weight(&w))?.try_reshape(*g.grad.shape())?;
            g.grad = g.grad.try_add(&add.try_to_dtype(g.grad.dtype())?)?;
        }
        Ok(())
    }
    fn penalty(&self, name: &str, param: &Tensor) -> Result<Option<Tensor>> {
        if !self.selection.has(name) {
            return Ok(None);
        }
        let w = rows(param)?;
        scaled(&w.try_norm(2.0, &[1], false)?.try_sum()?, self.weight(&w)).map(Some)
    }
}

/// λ·‖W·Wᵀ − I‖² (Frobenius) over matrices of rows, with the columns in place of the rows where there are fewer of them: keeps rows
/// apart and near length 1.
///
/// Its gradient is 4λ·(W·Wᵀ − I)·W. Parameters of fewer than two dimensions are left alone. Source: Brock et al., *Neural photo
/// editing with introspective adversarial networks* (2017); Bansal et al., *Can we gain more from orthogonality regularizations in
/// training deep networks?* (2018), "soft orthogonality".
#[derive(Clone, Debug)]
pub struct Orthogonal {
    lambda: f64,
    selection: Selection,
}

impl Orthogonal {
    /// A penalty of strength λ on all parameters of two dimensions or more.
    pub fn new(lambda: f64) -> Orthogonal {
        Orthogonal { lambda, selection: Selection::default() }
    }
    fn concerns(&self, name: &str, param: &Tensor) -> bool {
        param.rank() >= 2 && self.selection.has(name)
    }
}

selects!(Orthogonal, selection);

/// The wide matrix of a weight, whether it was turned for that, and W·Wᵀ − I.
fn excess(param: &Tensor) -> Result<(Tensor, bool, Tensor)> {
    let w = rows(param)?;
    let tall = w.dims()[0] > w.dims()[1];
    let w = if tall { w.try_t()? } else { w };
    let gram = w.try_matmul(&w.try_t()?)?;
    let excess = gram.try_sub(&Tensor::try_eye(w.dims()[0], w.place())?)?;
    Ok((w, tall, excess))
}

impl Transform for Orthogonal {
    fn name(&self) -> &'static str {
        "Orthogonal"
    }
    fn check(&self, names: &[&str]) -> Result<()> {
        demand_size(self.name(), "lambda", self.lambda)?;
        self.selection.demand_matches(self.name(), names)
    }
    fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
        for g in grads.iter_mut().filter(|g| self.concerns(&g.name, &g.param)) {
            let (w, tall, excess) = excess(&g.param)?;
            let add = scaled(&excess.try_matmul(&w)?, 4.0 * self.lambda)?;
            let add = if tall { add.try_t()? } else { add }.try_reshape(*g.grad.shape())?;
            g.grad = g.grad.try_add(&add.try_to_dtype(g.grad.dtype())?)?;
        }
        Ok(())
    }
    fn penalty(&self, name: &str, param: &Tensor) -> Result<Option<Tensor>> {
        if !self.concerns(name, param) {
            return Ok(None);
        }
        let (_, _, excess) = excess(param)?;
        scaled(&excess.try_square()?.try_sum()?, self.lambda).map(Some)
    }
}
