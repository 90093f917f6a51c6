//! Saving and loading what L-BFGS knows of its way, in the form of every optimizer's state.

use super::{Lbfgs, Memory};
use crate::state::OptimizerState;
use gradus_core::{Device, Error, Result, Tensor};
use std::collections::VecDeque;

impl Lbfgs {
    /// What it must remember to go on with the same bits. Tensors: `d` (the last direction), `prev_flat_grad`, and `old_dirs.N`
    /// and `old_stps.N` from the oldest on; numbers: `learning_rate`, `n_iter`, `func_evals`, `t`, `prev_loss`, `h_diag`, `ro.N`.
    pub fn state_dict(&self) -> OptimizerState {
        let m = &self.memory;
        let mut state = OptimizerState::default();
        let counts = [("n_iter", m.iterations), ("func_evals", m.evaluations)];
        state.numbers.extend(counts.map(|(name, n)| (name.to_owned(), n as f64)));
        let sizes =
            [("learning_rate", self.learning_rate), ("t", m.length), ("prev_loss", m.loss), ("h_diag", m.scale)];
        state.numbers.extend(sizes.map(|(name, x)| (name.to_owned(), x)));
        let single = [("d", &m.direction), ("prev_flat_grad", &m.gradient)];
        state.tensors.extend(single.into_iter().filter_map(|(name, t)| Some((name.to_owned(), t.as_ref()?.detach()))));
        for (i, ((y, s), rho)) in m.pairs.iter().zip(&m.rho).enumerate() {
            state.tensors.insert(format!("old_dirs.{i}"), y.detach());
            state.tensors.insert(format!("old_stps.{i}"), s.detach());
            state.numbers.insert(format!("ro.{i}"), *rho);
        }
        state
    }

    /// Takes a state that [`state_dict`](Self::state_dict) gave; tensors are moved to `device`, the parameters' own.
    ///
    /// An error that names what is missing, unexpected or of another length, and nothing changed, unless all fit.
    pub fn load_state_dict(&mut self, device: Device, state: &OptimizerState) -> Result<()> {
        let number = |name: &str| {
            let missing = || Error::data(format!("the state of Lbfgs has no number called {name}"));
            state.numbers.get(name).copied().ok_or_else(missing)
        };
        let tensor = |name: &str| -> Result<Option<Tensor>> {
            let moved = state.tensors.get(name).map(|t| gradus_core::tensor::to_device(&t.detach(), device));
            moved.transpose().map_err(|e| e.context(name))
        };
        let (direction, gradient) = (tensor("d")?, tensor("prev_flat_grad")?);
        let (mut pairs, mut rho) = (VecDeque::new(), VecDeque::new());
        while let Some(y) = tensor(&format!("old_dirs.{}", pairs.len()))? {
            let i = pairs.len();
            let s = tensor(&format!("old_stps.{i}"))?;
            let s = s.ok_or_else(|| Error::data(format!("the state of Lbfgs has old_dirs.{i} but no old_stps.{i}")))?;
            rho.push_back(number(&format!("ro.{i}"))?);
            pairs.push_back((y, s));
        }
        let known = 2 * pairs.len() + usize::from(direction.is_some()) + usize::from(gradient.is_some());
        if known != state.tensors.len() || direction.is_some() != gradient.is_some() {
            let names: Vec<&str> = state.tensors.keys().map(String::as_str).collect();
            return Err(Error::data(format!("the state is not one of Lbfgs: its tensors are {}", names.join(", "))));
        }
        let all = pairs.iter().flat_map(|(y, s)| [y, s]).chain(&direction).chain(&gradient);
        let metas: Vec<_> = all.map(|t| t.meta()).collect();
        if metas.iter().any(|m| m.shape.rank() != 1 || *m != metas[0]) {
            return Err(Error::data("the state of Lbfgs has vectors of different lengths or dtypes"));
        }
        let memory = Memory {
            iterations: number("n_iter")? as u64,
            evaluations: number("func_evals")? as u64,
            direction,
            length: number("t")?,
            gradient,
            loss: number("prev_loss")?,
            pairs,
            rho,
            scale: number("h_diag")?,
        };
        self.set_learning_rate(number("learning_rate")?)?;
        self.memory = memory;
        Ok(())
    }
}
