//! Derivatives of a catalog case, by the library and by finite differences.
//!
//! A case's function y(x) is made a number, L = Σ ⟨c, y⟩ with random cotangents c. First order: ∂L/∂x. Second order: with random
//! directions v, S = Σ ⟨v, ∂L/∂x⟩, differentiated by x (the Hessian in direction v) and by c (the Jacobian in direction v).

use crate::{compare, sample};
use gradus_core::autodiff::{Backward, try_grad_allow_unused};
use gradus_core::catalog::Run;
use gradus_core::rng::Key;
use gradus_core::{Result, Tensor};

/// A function with a point, cotangents and directions to differentiate it at.
pub struct Problem {
    /// The function.
    pub run: Run,
    /// The point.
    pub inputs: Vec<Tensor>,
    /// A cotangent for each output; used for floating-point ones.
    pub cotangents: Vec<Tensor>,
    /// A direction for each input; used for floating-point ones.
    pub directions: Vec<Tensor>,
}

/// Outputs and gradients: an entry for each input, `None` where the input is no floating-point tensor.
pub struct First {
    /// The outputs, detached.
    pub outputs: Vec<Tensor>,
    /// ∂L/∂x.
    pub gradients: Vec<Option<Tensor>>,
}

/// Second derivatives: of S by each input, and by each cotangent.
pub struct Second {
    /// ∂L/∂x, as it was computed with a graph.
    pub gradients: Vec<Option<Tensor>>,
    /// ∂S/∂x; `None` as in [`First`].
    pub by_input: Vec<Option<Tensor>>,
    /// ∂S/∂c; `None` where the output is no floating-point tensor.
    pub by_cotangent: Vec<Option<Tensor>>,
}

impl Problem {
    /// The problem of a function at a point, with cotangents and directions drawn by `key`.
    pub fn new(run: &Run, inputs: Vec<Tensor>, key: &Key) -> Result<Problem> {
        let outputs = run(&inputs)?;
        let draw = |name: &str, like: &[Tensor]| -> Result<Vec<Tensor>> {
            like.iter().enumerate().map(|(i, t)| sample::direction(t, &key.fold(name).fold_in(i as u64))).collect()
        };
        let (cotangents, directions) = (draw("cotangent", &outputs)?, draw("direction", &inputs)?);
        Ok(Problem { run: run.clone(), inputs, cotangents, directions })
    }

    /// The same problem at another point.
    pub fn at(&self, inputs: Vec<Tensor>) -> Problem {
        Problem {
            run: self.run.clone(),
            inputs,
            cotangents: self.cotangents.clone(),
            directions: self.directions.clone(),
        }
    }

    /// L at the point, as a tensor, and the outputs; with the given inputs and cotangents. Fails if the function cut the
    /// graph of a floating-point output.
    fn loss(&self, inputs: &[Tensor], cotangents: &[Tensor]) -> Result<(Option<Tensor>, Vec<Tensor>), String> {
        let outputs = (self.run)(inputs).map_err(|e| e.to_string())?;
        let tracked = inputs.iter().any(Tensor::is_tracked);
        let mut loss: Option<Tensor> = None;
        for (i, (y, c)) in outputs.iter().zip(cotangents).enumerate().filter(|(_, (y, _))| y.dtype().is_float()) {
            if tracked && !y.is_tracked() {
                return Err(format!("output {i} is cut off from the graph"));
            }
            let term = y.try_mul(c).and_then(|t| t.try_sum()).map_err(|e| e.to_string())?;
            loss = Some(match loss {
                Some(l) => l.try_add(&term).map_err(|e| e.to_string())?,
                None => term,
            });
        }
        Ok((loss, outputs))
    }

    /// L at a point, in `f64` on the host.
    fn value(&self, inputs: &[Tensor]) -> Result<f64, String> {
        let outputs = (self.run)(inputs).map_err(|e| e.to_string())?;
        let mut total = 0.0;
        for (y, c) in outputs.iter().zip(&self.cotangents).filter(|(y, _)| y.dtype().is_float()) {
            let (y, c) = (compare::read("output", y)?, compare::read("cotangent", c)?);
            total += y.iter().zip(&c).map(|(y, c)| y * c).sum::<f64>();
        }
        Ok(total)
    }

    fn leaves(&self) -> Vec<Tensor> {
        self.inputs.iter().map(|x| if x.dtype().is_float() { x.requires_grad() } else { x.clone() }).collect()
    }

    /// Outputs and gradients, without a graph.
    pub fn first(&self) -> Result<First, String> {
        let (outputs, gradients, _) = self.gradients(&self.cotangents, Backward::default())?;
        Ok(First { outputs: outputs.iter().map(Tensor::detach).collect(), gradients })
    }

    #[allow(clippy::type_complexity)]
    fn gradients(
        &self,
        cotangents: &[Tensor],
        how: Backward,
    ) -> Result<(Vec<Tensor>, Vec<Option<Tensor>>, Vec<Tensor>), String> {
        let leaves = self.leaves();
        let (loss, outputs) = self.loss(&leaves, cotangents)?;
        let loss = loss.ok_or("no output is a floating-point tensor")?;
        let floats: Vec<&Tensor> = leaves.iter().filter(|x| x.dtype().is_float()).collect();
        let mut found = try_grad_allow_unused(&[&loss], &floats, how).map_err(|e| e.to_string())?.into_iter();
        let mut gradients = Vec::with_capacity(leaves.len());
        for (i, x) in leaves.iter().enumerate() {
            if !x.dtype().is_float() {
                gradients.push(None);
                continue;
            }
            let g = found.next().flatten().ok_or_else(|| format!("input {i} has no gradient"))?;
            if g.meta() != x.meta() {
                return Err(format!(
                    "the gradient of input {i} is {} {}, the input {} {}",
                    g.dtype(),
                    g.shape(),
                    x.dtype(),
                    x.shape()
                ));
            }
            gradients.push(Some(g));
        }
        Ok((outputs, gradients, leaves))
    }

    /// Second derivatives, by differentiating the gradients.
    pub fn second(&self) -> Result<Second, String> {
        let cotangents: Vec<Tensor> =
            self.cotangents.iter().map(|c| if c.dtype().is_float() { c.requires_grad() } else { c.clone() }).collect();
        let (_, gradients, leaves) = self.gradients(&cotangents, Backward::graph())?;
        let mut s: Option<Tensor> = None;
        for (g, v) in gradients.iter().zip(&self.directions) {
            let Some(g) = g else { continue };
            let term = g.try_mul(v).and_then(|t| t.try_sum()).map_err(|e| e.to_string())?;
            s = Some(match s {
                Some(s) => s.try_add(&term).map_err(|e| e.to_string())?,
                None => term,
            });
        }
        let s = s.ok_or("no input is a floating-point tensor")?;
        let all: Vec<&Tensor> = leaves.iter().chain(&cotangents).collect();
        let wanted: Vec<&Tensor> = all.iter().copied().filter(|t| t.is_tracked()).collect();
        // Of gradients that depend on nothing (all zero), S has no graph: its derivatives are zero.
        let found = if s.is_tracked() {
            try_grad_allow_unused(&[&s], &wanted, Backward::default()).map_err(|e| e.to_string())?
        } else {
            vec![None; wanted.len()]
        };
        let mut found = found.into_iter();
        let mut derivatives = all.iter().map(|t| {
            if t.is_tracked() { Some(found.next().flatten().unwrap_or_else(|| t.detach().zeros_like())) } else { None }
        });
        let by_input = derivatives.by_ref().take(leaves.len()).collect();
        let by_cotangent = derivatives.collect();
        let gradients = gradients.into_iter().map(|g| g.map(|g| g.detach())).collect();
        Ok(Second { gradients, by_input, by_cotangent })
    }

    /// S at a point: the gradients there (without a graph) in the given directions.
    fn slope(&self, inputs: &[Tensor], cotangents: &[Tensor]) -> Result<f64, String> {
        let (_, gradients, _) = self.at(inputs.to_vec()).gradients(cotangents, Backward::default())?;
        let mut total = 0.0;
        for (g, v) in gradients.iter().zip(&self.directions) {
            if let Some(g) = g {
                let (g, v) = (compare::read("gradient", g)?, compare::read("direction", v)?);
                total += g.iter().zip(&v).map(|(g, v)| g * v).sum::<f64>();
            }
        }
        Ok(total)
    }

    /// ∂L/∂x of input `i` by central differences.
    pub fn differences(&self, i: usize) -> Result<Vec<f64>, String> {
        central(&self.inputs, i, |x| self.value(x))
    }

    /// ∂S/∂x of input `i` by central differences of gradients.
    pub fn second_differences(&self, i: usize) -> Result<Vec<f64>, String> {
        central(&self.inputs, i, |x| self.slope(x, &self.cotangents))
    }

    /// ∂S/∂c of output `k` by central differences of gradients.
    pub fn cotangent_differences(&self, k: usize) -> Result<Vec<f64>, String> {
        central(&self.cotangents, k, |c| self.slope(&self.inputs, c))
    }
}

/// The derivative of `f` by each element of tensor `i`, by central differences; `f64` only.
fn central(tensors: &[Tensor], i: usize, f: impl Fn(&[Tensor]) -> Result<f64, String>) -> Result<Vec<f64>, String> {
    let data = compare::read("point", &tensors[i])?;
    let mut moved = tensors.to_vec();
    let mut at = |e: usize, x: f64| {
        let mut data = data.clone();
        data[e] = x;
        moved[i] = sample::tensor(&data, tensors[i].dims(), tensors[i].dtype(), tensors[i].device())
            .map_err(|e| e.to_string())?;
        f(&moved)
    };
    (0..data.len())
        .map(|e| {
            let h = 1e-5 * data[e].abs().max(1.0);
            let (up, down) = (data[e] + h, data[e] - h);
            Ok((at(e, up)? - at(e, down)?) / (up - down))
        })
        .collect()
}
