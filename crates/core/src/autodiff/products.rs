//! Products with Jacobians and Hessians, and the matrices themselves, of functions of tensors.
//!
//! Everything is made of reverse mode, which every op has to any order. A product with the Jacobian from the right (`jvp`) is
//! reverse mode twice: x̄ = Jᵀ·u is linear in u, so the gradient of ⟨x̄, v⟩ by u is J·v (Townsend, *A new trick for calculating
//! Jacobian vector products*, 2017). A result can be differentiated again if what it was made from is tracked: a point, a
//! direction, or a parameter that the function closes over.

use super::checkpoint::hangs_on;
use super::engine::{Backward, gradients};
use super::node::Node;
use super::{enable_grad, is_grad_enabled};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A function at a point, with nodes of its own for the point.
struct Traced {
    x: Vec<Tensor>,
    y: Vec<Tensor>,
    /// Whether something outside of the function is tracked, so that results must be differentiable.
    open: bool,
}

impl Traced {
    fn new(what: &str, f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>, at: &[&Tensor]) -> Result<Traced> {
        let before = Node::newest();
        let own = |(i, x): (usize, &&Tensor)| match x.is_tracked() {
            true => Ok(Node::alias(x)),
            false => x.try_requires_grad().map_err(|e| e.context(format!("{what}: input {i}"))),
        };
        let x = at.iter().enumerate().map(own).collect::<Result<Vec<_>>>()?;
        let y = enable_grad(|| f(&x))?;
        let outside = |y: &Tensor| y.node.as_ref().is_some_and(|n| n.id <= before || !hangs_on(n, before).is_empty());
        let open = is_grad_enabled() && y.iter().any(outside);
        Ok(Traced { x, y, open })
    }
    /// The gradients for these cotangents of the outputs; zeros for an input that takes no part.
    fn pull(&self, cotangents: &[Tensor], how: Backward) -> Result<Vec<Tensor>> {
        let roots: Vec<(Tensor, Tensor)> = self.y.iter().cloned().zip(cotangents.iter().cloned()).collect();
        filled(gradients(&roots, &self.x, how)?, &self.x)
    }
    /// The outputs as the caller is to have them.
    fn outputs(self) -> Vec<Tensor> {
        if self.open { self.y } else { self.y.iter().map(Tensor::detach).collect() }
    }
}

fn how(graph: bool) -> Backward {
    if graph { Backward::graph() } else { Backward::retain() }
}

/// Zeros where there is no gradient.
fn filled(found: Vec<Option<Tensor>>, like: &[Tensor]) -> Result<Vec<Tensor>> {
    let zeros = |x: &Tensor| Tensor::try_zeros(*x.shape(), x.place());
    found.into_iter().zip(like).map(|(g, x)| g.map_or_else(|| zeros(x), Ok)).collect()
}

/// An error unless there is a direction for each tensor, of its shape and dtype.
fn match_up(what: &str, role: &str, given: &[&Tensor], of: &[Tensor]) -> Result<()> {
    if given.len() != of.len() {
        return Err(Error::misuse(format!("{what}: needs {} {role}s; got {}", of.len(), given.len())));
    }
    for (i, (v, x)) in given.iter().zip(of).enumerate() {
        if v.meta() != x.meta() || v.device() != x.device() {
            return Err(Error::misuse(format!(
                "{what}: {role} {i} must be {} {} on {}; got {} {} on {}",
                x.dtype(),
                x.shape(),
                x.device(),
                v.dtype(),
                v.shape(),
                v.device()
            )));
        }
    }
    Ok(())
}

/// Σ ⟨aᵢ, bᵢ⟩, without dimensions.
fn inner(a: &[Tensor], b: &[&Tensor]) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for (a, b) in a.iter().zip(b) {
        let term = a.try_mul(b)?.try_sum()?;
        sum = Some(match sum {
            Some(sum) => sum.try_add(&term)?,
            None => term,
        });
    }
    Ok(sum)
}

/// Outputs y = f(x), and cotangents·Jacobian: a product for each input, zeros for one that takes no part. In PyTorch:
/// `torch.func.vjp`.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::vjp;
/// let (x, u) = (Tensor::from_slice(&[1.0, 2.0], Device::cpu()), Tensor::from_slice(&[1.0, 10.0], Device::cpu()));
/// let (_, back) = vjp(|x| Ok(vec![x[0].square()]), &[&x], &[&u])?;
/// assert_eq!(back[0].to_vec::<f64>()?, [2.0, 40.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn vjp(
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    x: &[&Tensor],
    cotangents: &[&Tensor],
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let mut traced = Traced::new("vjp", f, x)?;
    match_up("vjp", "cotangent", cotangents, &traced.y)?;
    traced.open |= is_grad_enabled() && cotangents.iter().any(|u| u.is_tracked());
    let cotangents: Vec<Tensor> = cotangents.iter().map(|&u| u.clone()).collect();
    let back = traced.pull(&cotangents, how(traced.open))?;
    Ok((traced.outputs(), back))
}

/// Outputs y = f(x), and Jacobian·tangents: a product for each output, zeros for one that does not depend on x. In PyTorch:
/// `torch.func.jvp`.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::jvp;
/// let (x, v) = (Tensor::from_slice(&[1.0, 2.0], Device::cpu()), Tensor::from_slice(&[1.0, 0.5], Device::cpu()));
/// let (_, forward) = jvp(|x| Ok(vec![(&x[0] * &x[0]).sum()]), &[&x], &[&v])?;
/// assert_eq!(forward[0].item::<f64>()?, 4.0); // 2·1·1 + 2·2·0.5
/// # Ok::<(), Error>(())
/// ```
pub fn jvp(
    f: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    x: &[&Tensor],
    tangents: &[&Tensor],
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let mut traced = Traced::new("jvp", f, x)?;
    match_up("jvp", "tangent", tangents, &traced.x)?;
    traced.open |= is_grad_enabled() && tangents.iter().any(|v| v.is_tracked());
    // Any u does: the product is linear in it.
    let u = traced.y.iter().map(|y| Tensor::try_ones(*y.shape(), y.place())?.try_requires_grad());
    let u = u.collect::<Result<Vec<_>>>().map_err(|e| e.context("jvp: an output"))?;
    let back = traced.pull(&u, Backward::graph())?;
    let forward = match enable_grad(|| inner(&back, tangents))? {
        Some(s) if s.is_tracked() => {
            let one = Tensor::try_ones((), s.place())?;
            gradients(&[(s, one)], &u, how(traced.open))?
        }
        _ => vec![None; u.len()],
    };
    let forward = filled(forward, &u)?;
    Ok((traced.outputs(), forward))
}

/// A function's value and Hessian·v, for a function of one element: a product for each input. In PyTorch:
/// `torch.autograd.functional.hvp`.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::hvp;
/// let (x, v) = (Tensor::from_slice(&[1.0, 2.0], Device::cpu()), Tensor::from_slice(&[1.0, 1.0], Device::cpu()));
/// let (_, product) = hvp(|x| Ok(x[0].powf(3.0).sum()), &[&x], &[&v])?;
/// assert_eq!(product[0].to_vec::<f64>()?, [6.0, 12.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn hvp(f: impl FnOnce(&[Tensor]) -> Result<Tensor>, x: &[&Tensor], v: &[&Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    let mut traced = Traced::new("hvp", |x| Ok(vec![f(x)?]), x)?;
    match_up("hvp", "direction", v, &traced.x)?;
    traced.open |= is_grad_enabled() && v.iter().any(|v| v.is_tracked());
    let gradient = traced.pull(&[seed("hvp", &traced.y[0])?], Backward::graph())?;
    let second = match enable_grad(|| inner(&gradient, v))? {
        Some(s) if s.is_tracked() => {
            let one = Tensor::try_ones((), s.place())?;
            gradients(&[(s, one)], &traced.x, how(traced.open))?
        }
        _ => vec![None; x.len()],
    };
    let second = filled(second, &traced.x)?;
    let value = traced.outputs().swap_remove(0);
    Ok((value, second))
}

/// The gradient that a function of one element starts from.
fn seed(what: &str, y: &Tensor) -> Result<Tensor> {
    if y.elements() != 1 {
        return Err(Error::misuse(format!("{what}: the function must give one element; it gave shape {}", y.shape())));
    }
    Tensor::try_ones(*y.shape(), y.place())
}

/// The Jacobian of `f` at `x`: ∂yⱼ/∂xᵢ, of the output's shape followed by the input's. In PyTorch: `torch.func.jacrev`.
///
/// One walk for each element of the output, or of the input where that has fewer.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::jacobian;
/// let x = Tensor::from_slice(&[1.0, 2.0], Device::cpu());
/// let j = jacobian(|x| Ok(x.square()), &x)?;
/// assert_eq!((j.dims().to_vec(), j.to_vec::<f64>()?), (vec![2, 2], vec![2.0, 0.0, 0.0, 4.0]));
/// # Ok::<(), Error>(())
/// ```
pub fn jacobian(f: impl FnOnce(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<Tensor> {
    let traced = Traced::new("jacobian", |x| Ok(vec![f(&x[0])?]), &[x])?;
    let (x, y) = (&traced.x[0], &traced.y[0]);
    let (rows, columns) = (y.elements(), x.elements());
    let flat = if rows <= columns {
        let row = |i| traced.pull(&[unit(y, i)?], how(traced.open))?.swap_remove(0).try_reshape([columns]);
        stacked((0..rows).map(row), y, [0, columns])?
    } else {
        let u = Tensor::try_ones(*y.shape(), y.place())?.try_requires_grad()?;
        let back = traced.pull(std::slice::from_ref(&u), Backward::graph())?.swap_remove(0);
        let column = |i| -> Result<Tensor> {
            let found = if back.is_tracked() {
                gradients(&[(back.clone(), unit(x, i)?)], std::slice::from_ref(&u), how(traced.open))?
            } else {
                vec![None]
            };
            filled(found, std::slice::from_ref(y))?.swap_remove(0).try_reshape([rows])
        };
        stacked((0..columns).map(column), y, [0, rows])?.try_t()?
    };
    flat.try_reshape(joined(y, x))
}

/// The Hessian of a function of one element at `x`: ∂²y/∂xᵢ∂xⱼ, of the input's shape twice. In PyTorch: `torch.func.hessian`.
///
/// One walk for each element of the input.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::hessian;
/// let x = Tensor::from_slice(&[1.0, 2.0], Device::cpu());
/// let h = hessian(|x| Ok(x.prod()), &x)?;
/// assert_eq!(h.to_vec::<f64>()?, [0.0, 1.0, 1.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn hessian(f: impl FnOnce(&Tensor) -> Result<Tensor>, x: &Tensor) -> Result<Tensor> {
    let traced = Traced::new("hessian", |x| Ok(vec![f(&x[0])?]), &[x])?;
    let (x, seed) = (&traced.x[0], seed("hessian", &traced.y[0])?);
    let gradient = traced.pull(&[seed], Backward::graph())?.swap_remove(0);
    let n = x.elements();
    let row = |i| -> Result<Tensor> {
        let found = if gradient.is_tracked() {
            gradients(&[(gradient.clone(), unit(x, i)?)], &traced.x, how(traced.open))?
        } else {
            vec![None]
        };
        filled(found, &traced.x)?.swap_remove(0).try_reshape([n])
    };
    stacked((0..n).map(row), x, [0, n])?.try_reshape(joined(x, x))
}

/// Zeros like `x`, but for a 1 at flat place `i`.
fn unit(x: &Tensor, i: usize) -> Result<Tensor> {
    let n = x.elements();
    let at = Tensor::try_arange(0, n as i64, 1, x.device())?.try_eq_scalar(i as i64)?;
    at.try_to_dtype(x.dtype())?.try_reshape(*x.shape())
}

/// Rows under each other; `empty` if there are none.
fn stacked(rows: impl Iterator<Item = Result<Tensor>>, like: &Tensor, empty: [usize; 2]) -> Result<Tensor> {
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        return Tensor::try_zeros(empty, like.place());
    }
    Tensor::try_stack(&rows.iter().collect::<Vec<_>>(), 0)
}

fn joined(y: &Tensor, x: &Tensor) -> Vec<usize> {
    let dims = |s: &Shape| s.dims().to_vec();
    [dims(y.shape()), dims(x.shape())].concat()
}
