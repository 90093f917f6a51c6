//! L-BFGS, as PyTorch's `torch.optim.LBFGS` has it: a quasi-Newton method that asks for the loss several times in a step.
//!
//! It is no [`Rule`](crate::Rule): it sees all parameters as one vector, and decides on the host how to go on, so a step reads
//! numbers back and cannot be recorded.

mod line_search;
mod state;

use crate::demand::{demand, demand_size};
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor, no_grad};
use gradus_nn::Module;
use line_search::{Bounds, Point};
use std::collections::VecDeque;

/// L-BFGS: p ← p + t·d, with d = −H·g and H an estimate of the inverse Hessian from the last steps and changes of the gradient.
///
/// For few parameters and gradients of the whole data set. All floating-point parameters must be of one dtype, on one device; one
/// without a gradient counts as having zeros. Source: Nocedal & Wright, *Numerical optimization* (2006), algorithms 7.4 and 3.5,
/// in PyTorch's form. Its defaults: learning rate 1, 20 iterations a step and 25 evaluations, tolerances 1e-7 (gradient) and 1e-9
/// (change), 100 steps of history, no line search.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::Param;
/// use gradus_optim::Lbfgs;
/// let mut w = vec![Param::new(Tensor::from_slice(&[-1.0, 2.0], gradus_cpu::device()))];
/// let mut optimizer = Lbfgs::new(1.0).strong_wolfe();
/// for _ in 0..10 {
///     // Rosenbrock's valley, whose lowest point is (1, 1).
///     optimizer.step(&mut w, |w| {
///         let (x, y) = (w[0].i(0), w[0].i(1));
///         Ok((1.0 - &x).square() + (y - x.square()).square() * 100.0)
///     })?;
/// }
/// assert!(w[0].to_vec::<f64>()?.iter().all(|x| (x - 1.0).abs() < 1e-6));
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lbfgs {
    learning_rate: f64,
    iterations: usize,
    evaluations: Option<usize>,
    tolerance_gradient: f64,
    tolerance_change: f64,
    history: usize,
    strong_wolfe: bool,
    maximize: bool,
    memory: Memory,
}

/// What is known of the way so far.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Iterations over all steps.
    iterations: u64,
    /// Evaluations over all steps.
    evaluations: u64,
    /// The last direction, and how far along it was gone.
    direction: Option<Tensor>,
    length: f64,
    /// The gradient and the loss before the last move.
    gradient: Option<Tensor>,
    loss: f64,
    /// Changes of the gradient y and moves s, oldest first.
    pairs: VecDeque<(Tensor, Tensor)>,
    /// 1/⟨y, s⟩ of each.
    rho: VecDeque<f64>,
    /// ⟨y, s⟩/⟨y, y⟩ of the last: the size of H.
    scale: f64,
}

impl Lbfgs {
    /// The method at this learning rate (PyTorch's default is 1), with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Lbfgs {
        Lbfgs {
            learning_rate,
            iterations: 20,
            evaluations: None,
            tolerance_gradient: 1e-7,
            tolerance_change: 1e-9,
            history: 100,
            strong_wolfe: false,
            maximize: false,
            memory: Memory { scale: 1.0, ..Memory::default() },
        }
    }
    /// How many moves a step makes at most; 20. In PyTorch: `max_iter`.
    pub fn iterations(self, iterations: usize) -> Lbfgs {
        Lbfgs { iterations, ..self }
    }
    /// How often a step asks for the loss at most; 5/4 of the iterations. In PyTorch: `max_eval`.
    pub fn evaluations(self, evaluations: usize) -> Lbfgs {
        Lbfgs { evaluations: Some(evaluations), ..self }
    }
    /// A step ends when no element of the gradient is larger; 1e-7. In PyTorch: `tolerance_grad`.
    pub fn tolerance_gradient(self, tolerance: f64) -> Lbfgs {
        Lbfgs { tolerance_gradient: tolerance, ..self }
    }
    /// A step ends when parameters or loss change by less; 1e-9.
    pub fn tolerance_change(self, tolerance: f64) -> Lbfgs {
        Lbfgs { tolerance_change: tolerance, ..self }
    }
    /// How many moves are remembered; 100. In PyTorch: `history_size`.
    pub fn history(self, moves: usize) -> Lbfgs {
        Lbfgs { history: moves, ..self }
    }
    /// Searches along each direction for a point that fulfils the strong Wolfe conditions. In PyTorch:
    /// `line_search_fn="strong_wolfe"`.
    pub fn strong_wolfe(self) -> Lbfgs {
        Lbfgs { strong_wolfe: true, ..self }
    }
    /// Climbs instead of descending.
    pub fn maximize(self) -> Lbfgs {
        Lbfgs { maximize: true, ..self }
    }
    /// The learning rate.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
    /// Changes the learning rate. An error, and nothing changed, unless it is finite and not negative.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        demand_size("Lbfgs", "the learning rate", learning_rate)?;
        self.learning_rate = learning_rate;
        Ok(())
    }
    fn check(&self) -> Result<()> {
        demand_size("Lbfgs", "the learning rate", self.learning_rate)?;
        demand(self.history > 0, "Lbfgs", "the history", "at least 1 move", self.history as f64)?;
        demand(self.iterations > 0, "Lbfgs", "the number of iterations", "at least 1", self.iterations as f64)
    }

    /// Makes a step: up to [`iterations`](Self::iterations) moves. `loss` is called several times, and gives a tensor of one
    /// element; gradients are cleared before and differentiated after each call. Gives the loss before the step.
    pub fn step<M: Module>(&mut self, model: &mut M, mut loss: impl FnMut(&M) -> Result<Tensor>) -> Result<f64> {
        self.check()?;
        let mut way = Way { model, loss: &mut loss, maximize: self.maximize };
        let (first, gradient) = way.evaluate()?;
        let first = if self.maximize { -first } else { first };
        self.memory.evaluations += 1;
        if let Some(gradient) = gradient
            && largest(&gradient)? > self.tolerance_gradient
        {
            let signed = if self.maximize { -first } else { first };
            no_grad(|| self.moves(&mut way, signed, gradient))?;
        }
        Ok(first)
    }

    fn moves<M: Module>(&mut self, way: &mut Way<'_, M>, mut loss: f64, mut gradient: Tensor) -> Result<()> {
        let most = self.evaluations.unwrap_or(self.iterations * 5 / 4);
        let mut evaluations = 1;
        for n in 1..=self.iterations {
            self.memory.iterations += 1;
            let d = self.memory.direction_from(&gradient, self.history)?;
            (self.memory.gradient, self.memory.loss) = (Some(gradient.clone()), loss);
            let mut t = match self.memory.iterations {
                1 => self.learning_rate * (1.0 / sum_of_sizes(&gradient)?).min(1.0),
                _ => self.learning_rate,
            };
            self.memory.direction = Some(d.clone());
            let slope = dot(&gradient, &d)?;
            if slope > -self.tolerance_change {
                self.memory.length = t;
                break;
            }
            let (mut asked, mut flat) = (0, false);
            if self.strong_wolfe {
                let start = Point { t: 0.0, loss, slope, gradient: gradient.clone() };
                let bounds = Bounds { change: self.tolerance_change, evaluations: most.saturating_sub(evaluations) };
                let found = line_search::strong_wolfe(&start, t, largest(&d)?, bounds, &mut |t| {
                    let values = way.values();
                    way.advance(&d, t)?;
                    let (loss, gradient) = way.evaluate()?;
                    way.put_back(&values)?;
                    let gradient = gradient.ok_or_else(vanished)?;
                    Ok(Point { t, loss, slope: dot(&gradient, &d)?, gradient })
                })?;
                (t, loss, gradient, asked) = (found.0.t, found.0.loss, found.0.gradient, found.1);
                way.advance(&d, t)?;
                flat = largest(&gradient)? <= self.tolerance_gradient;
            } else {
                way.advance(&d, t)?;
                if n != self.iterations {
                    let (new, g) = way.evaluate()?;
                    (loss, gradient, asked) = (new, g.ok_or_else(vanished)?, 1);
                    flat = largest(&gradient)? <= self.tolerance_gradient;
                }
            }
            self.memory.length = t;
            evaluations += asked;
            self.memory.evaluations += asked as u64;
            let small = n != self.iterations && largest(&scaled(&d, t)?)? <= self.tolerance_change;
            let level = (loss - self.memory.loss).abs() < self.tolerance_change;
            if evaluations >= most || flat || small || level {
                break;
            }
        }
        Ok(())
    }
}

impl Memory {
    /// −H·g, after taking the last move into the history.
    fn direction_from(&mut self, gradient: &Tensor, history: usize) -> Result<Tensor> {
        let (Some(d), Some(before)) = (&self.direction, &self.gradient) else { return gradient.try_neg() };
        let (y, s) = (gradient.try_sub(before)?, scaled(d, self.length)?);
        let ys = dot(&y, &s)?;
        if ys > 1e-10 {
            while self.pairs.len() >= history {
                self.pairs.pop_front();
                self.rho.pop_front();
            }
            self.scale = ys / dot(&y, &y)?;
            self.pairs.push_back((y, s));
            self.rho.push_back(1.0 / ys);
        }
        let mut q = gradient.try_neg()?;
        let mut alphas = Vec::with_capacity(self.pairs.len());
        for ((y, s), rho) in self.pairs.iter().zip(&self.rho).rev() {
            let alpha = dot(s, &q)? * rho;
            q = q.try_sub(&scaled(y, alpha)?)?;
            alphas.push(alpha);
        }
        let mut r = scaled(&q, self.scale)?;
        for (((y, s), rho), alpha) in self.pairs.iter().zip(&self.rho).zip(alphas.iter().rev()) {
            let beta = dot(y, &r)? * rho;
            r = r.try_add(&scaled(s, alpha - beta)?)?;
        }
        Ok(r)
    }
}

/// A model and its loss, as a function of one vector.
struct Way<'a, M> {
    model: &'a mut M,
    loss: &'a mut dyn FnMut(&M) -> Result<Tensor>,
    maximize: bool,
}

impl<M: Module> Way<'_, M> {
    /// The loss and the gradient as one vector, both negated to climb. No gradient if there is nothing to train.
    fn evaluate(&mut self) -> Result<(f64, Option<Tensor>)> {
        self.model.zero_grad();
        let loss = gradus_core::autodiff::enable_grad(|| (self.loss)(self.model))?;
        if loss.is_tracked() {
            loss.try_backward()?;
        }
        let sign = if self.maximize { -1.0 } else { 1.0 };
        let value: f64 = loss.item()?;
        let mut parts: Vec<Tensor> = Vec::new();
        let mut outcome = Ok(());
        self.model.for_each_parameter(&mut |name, p| {
            if !p.is_frozen() && outcome.is_ok() {
                match flat_gradient(p) {
                    Ok(g) if parts.first().is_none_or(|f| (f.dtype(), f.device()) == (g.dtype(), g.device())) => {
                        parts.push(g)
                    }
                    Ok(_) => outcome = Err(one_place(name)),
                    Err(e) => outcome = Err(e.context(name)),
                }
            }
        });
        outcome?;
        if parts.is_empty() {
            return Ok((sign * value, None));
        }
        let flat = no_grad(|| Tensor::try_cat(&parts.iter().collect::<Vec<_>>(), 0))?;
        Ok((sign * value, Some(if self.maximize { no_grad(|| flat.try_neg())? } else { flat })))
    }

    /// p ← p + t·d.
    fn advance(&mut self, d: &Tensor, t: f64) -> Result<()> {
        let (mut at, mut outcome) = (0, Ok(()));
        self.model.for_each_parameter_mut(&mut |name, p| {
            if !p.is_frozen() && outcome.is_ok() {
                let n = p.elements();
                let part = d.try_narrow(0, at, n).and_then(|d| scaled(&d, t)?.try_reshape(*p.shape()));
                let new = part.and_then(|step| p.detach().try_add(&step));
                outcome = new.and_then(|new| p.value_mut().write_value(&new)).map_err(|e| e.context(name));
                at += n;
            }
        });
        outcome
    }

    /// The parameters' values, which stay as they are when the parameters move.
    fn values(&self) -> Vec<Tensor> {
        let mut values = Vec::new();
        self.model.for_each_parameter(&mut |_, p| values.push(p.detach()));
        values
    }

    fn put_back(&mut self, values: &[Tensor]) -> Result<()> {
        let (mut values, mut outcome) = (values.iter(), Ok(()));
        self.model.for_each_parameter_mut(&mut |name, p| {
            if let (Some(value), true) = (values.next(), outcome.is_ok()) {
                outcome = p.value_mut().set_value(value).map_err(|e| e.context(name));
            }
        });
        outcome
    }
}

fn flat_gradient(p: &gradus_nn::Param) -> Result<Tensor> {
    let g = match p.grad() {
        Some(g) => g,
        None => Tensor::try_zeros(*p.shape(), p.place())?,
    };
    no_grad(|| g.try_reshape([p.elements()]))
}

fn one_place(name: &str) -> Error {
    Error::misuse(format!(
        "Lbfgs sees all parameters as one vector; {name} is of another dtype or device than the first"
    ))
}

fn vanished() -> Error {
    Error::misuse("Lbfgs: no parameter is trainable any more")
}

fn scaled(x: &Tensor, by: f64) -> Result<Tensor> {
    x.try_binary_scalar(BinaryOp::Mul, by)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    a.try_mul(b)?.try_sum()?.item()
}

/// max |xᵢ|.
fn largest(x: &Tensor) -> Result<f64> {
    x.try_norm(f64::INFINITY, &[], false)?.item()
}

/// Σ |xᵢ|.
fn sum_of_sizes(x: &Tensor) -> Result<f64> {
    x.try_abs()?.try_sum()?.item()
}
