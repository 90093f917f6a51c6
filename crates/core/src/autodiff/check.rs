//! Gradients against finite differences, for functions of one's own: `gradcheck` and `gradgradcheck`.
//!
//! Every entry of every Jacobian is compared, in `f64`, where central differences are good to about 1e-9 of the values. (The
//! library's own ops are checked over the catalog, with random directions.)

use super::no_grad;
use super::products::vjp;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How gradients are compared with finite differences. The defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradCheck {
    /// By how much an element is moved to either side; 1e-6.
    pub step: f64,
    /// How far a derivative may be off, whatever its size; 1e-5.
    pub absolute: f64,
    /// How far it may be off beside that, in parts of itself; 1e-3.
    pub relative: f64,
}

impl Default for GradCheck {
    fn default() -> GradCheck {
        GradCheck { step: 1e-6, absolute: 1e-5, relative: 1e-3 }
    }
}

/// Compares the gradients of `f` at `x` with central differences. An error names the output, the input, the element and both
/// values. In PyTorch: `torch.autograd.gradcheck`.
///
/// Inputs are `f64`; those of an integer dtype are passed as they are. The function must be a pure one, and smooth at `x`.
///
/// ```
/// use gradus::prelude::*;
/// use gradus::autodiff::{GradCheck, gradcheck, gradgradcheck};
/// let x = Tensor::from_slice(&[0.3, -1.2], Device::cpu());
/// gradcheck(|x| Ok(vec![x[0].tanh()]), &[&x], GradCheck::default())?;
/// gradgradcheck(|x| Ok(vec![x[0].tanh()]), &[&x], GradCheck::default())?;
/// # Ok::<(), Error>(())
/// ```
pub fn gradcheck(f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>, x: &[&Tensor], how: GradCheck) -> Result<()> {
    check("gradcheck", &f, x, how)
}

/// Compares the second derivatives of `f` at `x` with central differences of its gradients: [`gradcheck`] of the function that
/// takes x and a cotangent for each output, and gives the gradients. In PyTorch: `torch.autograd.gradgradcheck`.
pub fn gradgradcheck(f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>, x: &[&Tensor], how: GradCheck) -> Result<()> {
    let outputs = no_grad(|| f(&x.iter().map(|x| x.detach()).collect::<Vec<_>>()))?;
    // Cotangents that differ from each other, so that no two outputs' mistakes cancel.
    let cotangents = outputs.iter().map(|y| {
        let ramp = Tensor::try_arange(0, y.elements() as i64, 1, y.device())?.try_to_dtype(y.dtype())?;
        ramp.try_binary_scalar(crate::ops::BinaryOp::Mul, 0.37)?.try_cos()?.try_reshape(*y.shape())
    });
    let cotangents = cotangents.collect::<Result<Vec<_>>>()?;
    let all: Vec<&Tensor> = x.iter().copied().chain(&cotangents).collect();
    let n = x.len();
    let gradients = |z: &[Tensor]| {
        let floats: Vec<&Tensor> = z[..n].iter().filter(|x| x.dtype().is_float()).collect();
        let with = |own: &[Tensor]| {
            let mut own = own.iter();
            let back = |x: &Tensor| if x.dtype().is_float() { own.next().unwrap_or(x).clone() } else { x.clone() };
            f(&z[..n].iter().map(back).collect::<Vec<_>>())
        };
        Ok(vjp(with, &floats, &z[n..].iter().collect::<Vec<_>>())?.1)
    };
    check("gradgradcheck", &gradients, &all, how)
}

type Function<'f> = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + 'f;

fn check(what: &str, f: &Function<'_>, x: &[&Tensor], how: GradCheck) -> Result<()> {
    let says = |text: String| Error::misuse(format!("{what}: {text}"));
    for (i, x) in x.iter().enumerate().filter(|(_, x)| x.dtype().is_float()) {
        if x.dtype() != DType::F64 {
            return Err(says(format!("input {i} is {}; differences need f64", x.dtype())));
        }
    }
    let x: Vec<Tensor> = x.iter().map(|x| x.detach()).collect();
    let leaves: Vec<Tensor> =
        x.iter().map(|x| if x.dtype().is_float() { x.requires_grad() } else { x.clone() }).collect();
    let wanted: Vec<usize> = (0..x.len()).filter(|&i| x[i].dtype().is_float()).collect();
    let y = super::enable_grad(|| f(&leaves))?;
    for (k, y) in y.iter().enumerate().filter(|(_, y)| y.dtype().is_float()) {
        let by_differences = wanted.iter().map(|&i| differences(f, &x, i, k, how.step)).collect::<Result<Vec<_>>>()?;
        for row in 0..y.elements() {
            let gradients = row_of(y, row, &wanted.iter().map(|&i| leaves[i].clone()).collect::<Vec<_>>())?;
            for ((&i, g), d) in wanted.iter().zip(gradients).zip(&by_differences) {
                for (e, (&g, d)) in g.iter().zip(d).enumerate() {
                    let d = d[row];
                    if !((g - d).abs() <= how.absolute + how.relative * d.abs()) {
                        return Err(says(format!(
                            "element {row} of output {k} by element {e} of input {i}: the gradient is {g:e}, differences give {d:e}"
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The gradients of one element of an output, on the host; zeros where there is none.
fn row_of(y: &Tensor, row: usize, leaves: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    let mut seed = vec![0.0; y.elements()];
    seed[row] = 1.0;
    let seed = Tensor::try_from_vec(seed, *y.shape(), y.device())?.try_to_dtype(y.dtype())?;
    let found = if y.is_tracked() {
        super::engine::gradients(&[(y.clone(), seed)], leaves, super::Backward::retain())?
    } else {
        vec![None; leaves.len()]
    };
    found
        .iter()
        .zip(leaves)
        .map(|(g, x)| g.as_ref().map_or_else(|| Ok(vec![0.0; x.elements()]), Tensor::to_vec))
        .collect()
}

/// Of every element of input `i`, the derivatives of output `k`'s elements by it.
fn differences(f: &Function<'_>, x: &[Tensor], i: usize, k: usize, step: f64) -> Result<Vec<Vec<f64>>> {
    let data: Vec<f64> = x[i].to_vec()?;
    let at = |e: usize, value: f64| -> Result<Vec<f64>> {
        let (mut moved, mut point) = (data.clone(), x.to_vec());
        moved[e] = value;
        point[i] = Tensor::try_from_vec(moved, *x[i].shape(), x[i].device())?;
        no_grad(|| f(&point))?[k].to_vec()
    };
    let slope = |e: usize| -> Result<Vec<f64>> {
        let (high, low) = (data[e] + step, data[e] - step);
        let (up, down) = (at(e, high)?, at(e, low)?);
        Ok(up.iter().zip(&down).map(|(u, d)| (u - d) / (high - low)).collect())
    };
    (0..data.len()).map(slope).collect()
}
