//! The parameters of recurrent layers, by PyTorch's names: `weight_ih_l0`, `bias_hh_l1_reverse`.

use super::options::RecurrentOptions;
use crate::init::{Init, Initializer};
use crate::module::{Visitor, VisitorMut};
use crate::{Module, Param};
use gradus_core::{Error, Key, Result, Tensor};

/// The parameters of one layer in one direction, or of a cell.
#[derive(Module, Clone, Debug)]
pub(super) struct Weights {
    /// `[gates·hidden, inputs]`
    pub weight_ih: Param,
    /// `[gates·hidden, state]`
    pub weight_hh: Param,
    /// `[gates·hidden]`
    pub bias_ih: Option<Param>,
    /// `[gates·hidden]`
    pub bias_hh: Option<Param>,
    /// `[state, hidden]`
    pub weight_hr: Option<Param>,
}

impl Weights {
    /// All uniform on ±1/√hidden, as in PyTorch.
    pub fn try_new(gates: usize, options: &RecurrentOptions, init: &Init, key: &Key) -> Result<Weights> {
        let too_large =
            || Error::misuse(format!("a state of {} numbers has too many gates to be held", options.hidden));
        let rows = options.hidden.checked_mul(gates).ok_or_else(too_large)?;
        let bound = 1.0 / (options.hidden.max(1) as f64).sqrt();
        let draw = |shape: &[usize], name: &str| {
            let uniform = Initializer::Uniform { low: -bound, high: bound };
            Param::try_new(uniform.try_draw(shape, init.place(), key.fold(name))?)
        };
        let bias = |name: &str| options.bias.then(|| draw(&[rows], name)).transpose();
        Ok(Weights {
            weight_ih: draw(&[rows, options.inputs], "weight_ih")?,
            weight_hh: draw(&[rows, options.state_width()], "weight_hh")?,
            bias_ih: bias("bias_ih")?,
            bias_hh: bias("bias_hh")?,
            weight_hr: options.projection.map(|p| draw(&[p, options.hidden], "weight_hr")).transpose()?,
        })
    }

    /// Both biases as one.
    pub fn bias(&self) -> Result<Option<Tensor>> {
        match (&self.bias_ih, &self.bias_hh) {
            (Some(a), Some(b)) => a.try_add(b).map(Some),
            _ => Ok(None),
        }
    }
}

/// The parameters of all layers and directions, layer by layer.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    pub all: Vec<Weights>,
    directions: usize,
}

impl Stack {
    pub fn try_new(gates: usize, options: &RecurrentOptions, init: &mut Init) -> Result<Stack> {
        if options.layers == 0 || options.hidden == 0 {
            let (n, h) = (options.layers, options.hidden);
            return Err(Error::misuse(format!("a recurrent layer needs layers and a state, not {n} and {h} numbers")));
        }
        if let Some(p) = options.projection.filter(|&p| p == 0 || p >= options.hidden) {
            return Err(Error::misuse(format!("a state of {} numbers cannot be projected to {p}", options.hidden)));
        }
        let (key, directions) = (init.next_key(), options.directions());
        let mut all = Vec::new();
        for i in 0..options.layers * directions {
            let inputs = if i < directions { options.inputs } else { options.width() };
            all.push(Weights::try_new(gates, &RecurrentOptions { inputs, ..*options }, init, &key.fold_in(i as u64))?);
        }
        Ok(Stack { all, directions })
    }

    /// `l1_reverse`.
    fn suffix(&self, i: usize) -> String {
        format!("l{}{}", i / self.directions, if i % self.directions == 1 { "_reverse" } else { "" })
    }
}

impl Module for Stack {
    fn visit<'a>(&'a self, v: &mut dyn Visitor<'a>) {
        for (i, w) in self.all.iter().enumerate() {
            let name = self.suffix(i);
            v.child(&format!("weight_ih_{name}"), &w.weight_ih);
            v.child(&format!("weight_hh_{name}"), &w.weight_hh);
            v.child(&format!("bias_ih_{name}"), &w.bias_ih);
            v.child(&format!("bias_hh_{name}"), &w.bias_hh);
            v.child(&format!("weight_hr_{name}"), &w.weight_hr);
        }
    }
    fn visit_mut<'a>(&'a mut self, v: &mut dyn VisitorMut<'a>) {
        let names: Vec<String> = (0..self.all.len()).map(|i| self.suffix(i)).collect();
        for (name, w) in names.iter().zip(&mut self.all) {
            v.child(&format!("weight_ih_{name}"), &mut w.weight_ih);
            v.child(&format!("weight_hh_{name}"), &mut w.weight_hh);
            v.child(&format!("bias_ih_{name}"), &mut w.bias_ih);
            v.child(&format!("bias_hh_{name}"), &mut w.bias_hh);
            v.child(&format!("weight_hr_{name}"), &mut w.weight_hr);
        }
    }
}
