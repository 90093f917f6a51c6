//! What a step makes of the gradients before its updates: their average over passes, the transforms, the undoing of a loss's scale.
//!
//! What multiplies all gradients last is not done here, but handed on: an update does it by the way, and saves a pass.

use super::Optimizer;
use crate::transforms::{NamedGrad, NamedGrads, Notes, multiplied};
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};
use gradus_nn::Module;

/// Gradients in place of the parameters' own, by the parameter's place in the model; `None`: their own.
pub(super) type Changed = Option<Vec<Option<Tensor>>>;

impl Optimizer {
    /// The gradients, by the parameter's place in the model, averaged and run through the transforms; and what all of them are
    /// still to be multiplied with.
    pub(super) fn transformed(
        &self,
        model: &dyn Module,
        passes: usize,
        by: f64,
        notes: &mut Notes,
    ) -> Result<(Changed, Option<Tensor>)> {
        let (mut grads, mut places, mut count) = (NamedGrads::new(), Vec::new(), 0);
        model.for_each_parameter(&mut |name, p| {
            if let Some(grad) = p.grad() {
                let name = match self.entries.get(count).filter(|e| *e.name == *name) {
                    Some(e) => e.name.clone(),
                    None => name.into(),
                };
                grads.push(NamedGrad { name, param: p.detach(), grad });
                places.push(count);
            }
            count += 1;
        });
        if passes > 1 {
            for g in &mut grads {
                g.grad = g.grad.try_binary_scalar(BinaryOp::Div, passes as f64)?;
            }
        }
        let factor = self.transform(&mut grads, by, notes)?;
        let mut by_place = vec![None; count];
        for (g, place) in grads.into_iter().zip(places) {
            by_place[place] = Some(g.grad);
        }
        Ok((Some(by_place), factor))
    }

    /// Runs gradients, times `by`, through the transforms; gives what all of them are still to be multiplied with.
    fn transform(&self, grads: &mut NamedGrads, mut by: f64, notes: &mut Notes) -> Result<Option<Tensor>> {
        let multiply = |grads: &mut NamedGrads, by: &mut f64| {
            let by = std::mem::replace(by, 1.0);
            grads.iter_mut().try_for_each(|g| multiplied(&g.grad, by).map(|new| g.grad = new))
        };
        if grads.iter().any(|g| g.grad.dtype().is_half()) {
            multiply(grads, &mut by)?; // a half may be too small a range for the factor itself
        }
        for (i, t) in self.transforms.iter().enumerate() {
            if i + 1 == self.transforms.len()
                && let Some(factor) = t.factor(grads, by, notes)?
            {
                return Ok(Some(factor));
            }
            multiply(grads, &mut by)?;
            let (metas, had): (Vec<_>, usize) = (grads.iter().map(|g| g.grad.meta()).collect(), grads.len());
            t.apply(grads, notes)?;
            let kept = grads.len() == had && grads.iter().zip(&metas).all(|(g, m)| g.grad.meta() == *m);
            if !kept {
                let name = t.name();
                return Err(Error::misuse(format!(
                    "{name}: a transform must keep each gradient, and its shape and dtype"
                )));
            }
        }
        match grads.first() {
            Some(first) if by != 1.0 => {
                let dtype = grads.iter().fold(first.grad.dtype(), |d, g| d.promote(g.grad.dtype()));
                Tensor::try_full((), by, first.grad.device().with(dtype)).map(Some)
            }
            _ => Ok(None),
        }
    }
}
