//! Penalties on the weights: L1, L2 and the elastic net (Zou & Hastie, 2005), added to the gradients.
//!
//! Adding a penalty's gradient here, and not the penalty to the loss, keeps it out of the graph; the optimizer can tell its
//! value for the loss apart ([`Optimizer::penalty`](crate::Optimizer::penalty)).

use crate::demand::{demand, demand_size};
use crate::pattern::{Selection, selects};
use crate::transforms::{NamedGrads, Notes, Transform};
use gradus_core::{Result, Tensor};

/// l1·Σ|p| + l2/2·Σp².
#[derive(Clone, Debug)]
struct Weights {
    l1: f64,
    l2: f64,
    selection: Selection,
}

impl Weights {
    fn apply(&self, grads: &mut NamedGrads) -> Result<()> {
        for g in grads.iter_mut().filter(|g| self.selection.has(&g.name)) {
            // A number is weak: it never changes the gradient's dtype.
            if self.l1 != 0.0 {
                g.grad = g.grad.try_add(&scaled(&g.param.try_sign()?, self.l1)?)?;
            }
            if self.l2 != 0.0 {
                g.grad = g.grad.try_add(&scaled(&g.param, self.l2)?)?;
            }
        }
        Ok(())
    }
    fn penalty(&self, name: &str, param: &Tensor) -> Result<Option<Tensor>> {
        if !self.selection.has(name) {
            return Ok(None);
        }
        let param = if param.dtype().is_half() { param.try_to_dtype(gradus_core::DType::F32)? } else { param.clone() };
        let l1 = scaled(&param.try_abs()?.try_sum()?, self.l1)?;
        let l2 = scaled(&param.try_square()?.try_sum()?, self.l2 / 2.0)?;
        // Where a part is absent, an infinite weight must not make it NaN.
        Ok(Some(match (self.l1 != 0.0, self.l2 != 0.0) {
            (true, false) => l1,
            (false, true) => l2,
            _ => l1.try_add(&l2)?,
        }))
    }
}

pub(super) fn scaled(x: &Tensor, by: f64) -> Result<Tensor> {
    x.try_binary_scalar(gradus_core::ops::BinaryOp::Mul, by)
}

macro_rules! penalty {
    ($(#[$doc:meta])* $t:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $t(Weights);

        selects!($t, 0.selection);

        impl Transform for $t {
            fn name(&self) -> &'static str {
                stringify!($t)
            }
            fn check(&self, names: &[&str]) -> Result<()> {
                self.check_strengths()?;
                self.0.selection.demand_matches(self.name(), names)
            }
            fn apply(&self, grads: &mut NamedGrads, _notes: &mut Notes) -> Result<()> {
                self.0.apply(grads)
            }
            fn penalty(&self, name: &str, param: &Tensor) -> Result<Option<Tensor>> {
                self.0.penalty(name, param)
            }
        }
    };
}

penalty! {
    /// λ·Σ|p|: adds λ·sign(p) to the gradients, 0 where p = 0. Drives weights to zero.
    L1
}
penalty! {
    /// λ/2·Σp²: adds λ·p to the gradients, as the weight decay of [`Sgd`](crate::Sgd) and [`Adam`](crate::Adam) does.
    L2
}
penalty! {
    /// λ·(ratio·Σ|p| + (1 − ratio)/2·Σp²), as in scikit-learn: [`L1`] at ratio 1, [`L2`] at 0.
    ElasticNet
}

impl L1 {
    /// A penalty of strength λ on all parameters.
    pub fn new(lambda: f64) -> L1 {
        L1(Weights { l1: lambda, l2: 0.0, selection: Selection::default() })
    }
    fn check_strengths(&self) -> Result<()> {
        demand_size(self.name(), "lambda", self.0.l1)
    }
}

impl L2 {
    /// A penalty of strength λ on all parameters.
    pub fn new(lambda: f64) -> L2 {
        L2(Weights { l1: 0.0, l2: lambda, selection: Selection::default() })
    }
    fn check_strengths(&self) -> Result<()> {
        demand_size(self.name(), "lambda", self.0.l2)
    }
}

impl ElasticNet {
    /// A penalty of strength λ on all parameters, `ratio` of it L1.
    pub fn new(lambda: f64, ratio: f64) -> ElasticNet {
        ElasticNet(Weights { l1: lambda * ratio, l2: lambda * (1.0 - ratio), selection: Selection::default() })
    }
    fn check_strengths(&self) -> Result<()> {
        let (l1, l2) = (self.0.l1, self.0.l2);
        let sound = l1.is_finite() && l2.is_finite() && l1 >= 0.0 && l2 >= 0.0;
        demand(sound, self.name(), "lambda", "finite and at least 0, and the ratio between 0 and 1", l1 + l2)
    }
}
