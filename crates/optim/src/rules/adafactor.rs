//! Adafactor, as PyTorch's `torch.optim.Adafactor` has it.

use super::{descend, miscounted, operands, settings, store, times, told, towards};
use crate::demand::{demand, demand_positive, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::{DType, Error, Result, Tensor};

/// Adam without momentum, whose mean of squares is kept as a row's and a column's: memory for a matrix grows with its sides, not
/// its area.
///
/// Over the last two dimensions: r ← r + t^c·(row means of g² − r), k likewise for columns, v = r·k / mean(r); a parameter of
/// fewer than two dimensions keeps v itself. With u = g/√v: p ← (1 − η·λ)·p − a·u/max(1, rms(u)/d), where
/// a = max(ε₂, rms(p))·min(η, 1/√t). State: `row_var` and `col_var`, or `variance`. Source: Shazeer & Stern, *Adafactor: adaptive
/// learning rates with sublinear memory cost* (2018), in PyTorch's form. Its defaults: η 1e-2, c −0.8, ε₁ the dtype's machine
/// epsilon, ε₂ 1e-3, d 1, λ 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    learning_rate: f64,
    beta2_decay: f64,
    eps: (Option<f64>, f64),
    clip: f64,
    weight_decay: f64,
    maximize: bool,
}

impl Adafactor {
    /// The rule at this learning rate (the largest relative step), with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Adafactor {
        let eps = (None, 1e-3);
        Adafactor { learning_rate, beta2_decay: -0.8, eps, clip: 1.0, weight_decay: 0.0, maximize: false }
    }
    /// ε₁: the smallest √v (the dtype's machine epsilon), and ε₂: the smallest size that a parameter is taken to have (1e-3).
    pub fn eps(self, eps1: f64, eps2: f64) -> Adafactor {
        Adafactor { eps: (Some(eps1), eps2), ..self }
    }
    fn eps1(&self, dtype: DType) -> f64 {
        self.eps.0.unwrap_or(match dtype {
            DType::F64 => f64::EPSILON,
            DType::F16 => 2f64.powi(-10),
            DType::Bf16 => 2f64.powi(-7),
            _ => f64::from(f32::EPSILON),
        })
    }
}

settings! { Adafactor {
    /// c: the averages take t^c of the new squares; −0.8.
    beta2_decay: f64;
    /// d: the root mean square of u above which a step is scaled down; 1. In PyTorch: `d`.
    clip: f64;
    /// λ: the weights shrink by η·λ of themselves at each step; 0.
    weight_decay: f64;
    /// Climbs instead of descending.
    flag maximize;
} }

/// √(Σx²/n), without dimensions.
fn rms(x: &Tensor) -> Result<Tensor> {
    times(&x.try_norm(2.0, &[], false)?, 1.0 / (x.elements().max(1) as f64).sqrt())
}

impl Rule for Adafactor {
    told!("Adafactor");
    fn slots(&self, param: &Tensor) -> &'static [&'static str] {
        if param.rank() > 1 { &["row_var", "col_var"] } else { &["variance"] }
    }
    fn check(&self) -> Result<()> {
        demand(self.beta2_decay <= 0.0, self.name(), "beta2_decay", "at most 0", self.beta2_decay)?;
        demand_size(self.name(), "eps1", self.eps.0.unwrap_or(0.0))?;
        demand_size(self.name(), "eps2", self.eps.1)?;
        demand_positive(self.name(), "the clipping threshold", self.clip)
    }
    fn start(&self, slot: &str, param: &Tensor, _at: &At) -> Result<Tensor> {
        let mut dims = param.dims().to_vec();
        match (slot, dims.len()) {
            ("row_var", n @ 2..) => dims[n - 1] = 1,
            ("col_var", n @ 2..) => dims[n - 2] = 1,
            _ => {}
        }
        Tensor::try_zeros(dims.as_slice(), param.device().with(super::state_dtype(param)))
    }
    /// t^c, min(η, 1/√t), 1 − η·λ.
    fn numbers(&self, at: &At) -> Numbers {
        let (t, rate) = (at.step as f64, at.learning_rate);
        Numbers::from_slice(&[t.powf(self.beta2_decay), rate.min(1.0 / t.sqrt()), 1.0 - rate * at.weight_decay])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        let (mut p, g) = operands(&call, self.maximize, true)?;
        let [takes, relative, decay] = call.numbers else { return Err(miscounted(self.name())) };
        let eps1 = self.eps1(call.param.dtype());
        let size = times(&rms(&p)?.try_clamp(Some(self.eps.1), None)?, relative)?;
        if call.weight_decay != 0.0 {
            p = times(&p, decay)?;
        }
        let squares = g.try_square()?;
        let variance = match call.state {
            [row, column] => {
                store(row, &towards(row, &squares.try_mean_dims(&[-1], true)?, takes)?)?;
                store(column, &towards(column, &squares.try_mean_dims(&[-2], true)?, takes)?)?;
                // [.., rows, 1] · [.., 1, columns] / [.., 1, 1]
                row.try_mul(column)?.try_div(&row.try_mean_dims(&[-2], true)?.try_clamp(Some(eps1), None)?)?
            }
            [variance] => {
                store(variance, &towards(variance, &squares, takes)?)?;
                variance.detach()
            }
            _ => return Err(miscounted(self.name())),
        };
        let u = variance.try_clamp(Some(eps1 * eps1), None)?.try_rsqrt()?.try_mul(&g)?;
        let excess = times(&rms(&u)?, 1.0 / self.clip)?.try_clamp(Some(1.0), None)?;
        descend(call.param, p, &u.try_mul(&size.try_div(&excess)?)?)
    }
    fn check_parameter(&self, param: &Tensor) -> Result<()> {
        // The mean of no rows is NaN, and would stay so.
        let hollow = param.rank() > 1 && param.elements() == 0;
        if hollow {
            Err(Error::misuse(format!("Adafactor: a parameter of shape {} has no rows", param.shape())))
        } else {
            Ok(())
        }
    }
}
