//! Muon, as PyTorch's `torch.optim.Muon` has it.

use super::{miscounted, settings, told, towards, widened};
use crate::demand::{demand, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::update::{MomentumUpdate, MuonUpdate};
use gradus_core::{DType, Error, Result, Tensor};

/// How the step is scaled to a matrix of so many rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MuonScale {
    /// η·√max(1, rows/columns). In PyTorch: `"original"`.
    #[default]
    Original,
    /// η·0.2·√max(rows, columns): steps of AdamW's size, so that its learning rate and decay can be taken (Liu et al., 2025). In
    /// PyTorch: `"match_rms_adamw"`.
    MatchAdamW,
    /// η·√(rows/columns). In PyTorch: `"spectral_unclamped"`.
    Unclamped,
}

impl MuonScale {
    fn of(self, rows: f64, columns: f64) -> f64 {
        match self {
            MuonScale::Original => (rows / columns).max(1.0).sqrt(),
            MuonScale::MatchAdamW => 0.2 * rows.max(columns).sqrt(),
            MuonScale::Unclamped => (rows / columns).sqrt(),
        }
    }
}

/// Momentum whose step is made orthogonal: b ← μ·b + (1 − μ)·g; p ← (1 − η·λ)·p − η·scale·orthogonal(μ·b + (1 − μ)·g).
///
/// `orthogonal` brings all singular values near 1 by a Newton–Schulz iteration in `bf16` (in `f32` where a device has none): X ←
/// a·X + (b·A + c·A²)·X with A = X·Xᵀ, from X/‖X‖. For matrices alone: give other parameters, embeddings and the last layer
/// another rule by [`Group::rule`](crate::Group::rule).
///
/// ```
/// use gradus_optim::{AdamW, Group, Muon, Rule};
/// let builder = Muon::new(0.02).optimizer().group(Group::matching("*.bias").rule(AdamW::new(3e-4)));
/// ```
///
/// State: `momentum_buffer` (b). Source: Jordan, *Muon: an optimizer for hidden layers in neural networks* (2024), in PyTorch's
/// form. Its defaults: η 1e-3, λ 0.1, μ 0.95, Nesterov's momentum, a, b, c = 3.4445, −4.775, 2.0315, 5 iterations, ε 1e-7.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    learning_rate: f64,
    weight_decay: f64,
    momentum: f64,
    nesterov: bool,
    coefficients: (f64, f64, f64),
    iterations: usize,
    eps: f64,
    scale: MuonScale,
}

impl Muon {
    /// The rule at this learning rate, with PyTorch's defaults for the rest.
    pub fn new(learning_rate: f64) -> Muon {
        Muon {
            learning_rate,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            coefficients: (3.4445, -4.775, 2.0315),
            iterations: 5,
            eps: 1e-7,
            scale: MuonScale::Original,
        }
    }
    /// Takes the buffer alone, without Nesterov's look ahead.
    pub fn without_nesterov(self) -> Muon {
        Muon { nesterov: false, ..self }
    }
    /// a, b and c of the iteration; 3.4445, −4.775 and 2.0315. In PyTorch: `ns_coefficients`.
    pub fn coefficients(self, a: f64, b: f64, c: f64) -> Muon {
        Muon { coefficients: (a, b, c), ..self }
    }
}

settings! { Muon {
    /// λ: the weights shrink by η·λ of themselves at each step; 0.1.
    weight_decay: f64;
    /// μ: how much of the buffer stays at each step; 0.95.
    momentum: f64;
    /// How often the iteration is run; 5. In PyTorch: `ns_steps`.
    iterations: usize;
    /// ε: the smallest norm that a step is divided by; 1e-7.
    eps: f64;
    /// How the step is scaled to the matrix's sides. In PyTorch: `adjust_lr_fn`.
    scale: MuonScale;
} }

impl Muon {
    /// The matrix with its singular values near 1.
    fn orthogonal(&self, g: &Tensor) -> Result<Tensor> {
        let ((a, b, c), device) = (self.coefficients, g.device());
        let tall = g.dims()[0] > g.dims()[1];
        let halves = device.backend().supports(DType::Bf16);
        // Values of bf16, computed with in f32: what PyTorch's products of halves do.
        let rounded = |x: Tensor| if halves { x.try_to_dtype(DType::Bf16)?.try_to_dtype(DType::F32) } else { Ok(x) };
        let added = |x: &Tensor, own: f64, y: &Tensor, other: f64| {
            Tensor::try_compose1(NewtonSchulzSum { own, other, halves }, &[x, y])
        };
        let mut x = rounded(g.try_to_dtype(DType::F32)?)?;
        if tall {
            x = x.try_transpose(0, 1)?;
        }
        let norm = rounded(Tensor::try_global_norm(&[&x])?)?;
        x = if halves {
            rounded(x.try_div(&rounded(norm.try_clamp(Some(self.eps), None)?)?)?)?
        } else {
            Tensor::try_chain([&x, &norm], |[x, norm]| x / norm.maximum(self.eps))?
        };
        for _ in 0..self.iterations {
            let gram = rounded(x.try_matmul(&x.try_transpose(0, 1)?)?)?;
            let mixed = added(&gram, b, &gram.try_matmul(&gram)?, c)?;
            x = added(&x, a, &mixed.try_matmul(&x)?, 1.0)?;
        }
        if tall { x.try_transpose(0, 1) } else { Ok(x) }
    }
}

impl Rule for Muon {
    told!("Muon");
    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["momentum_buffer"]
    }
    fn check(&self) -> Result<()> {
        demand_size(self.name(), "momentum", self.momentum)?;
        demand(self.iterations < 100, self.name(), "the number of iterations", "below 100", self.iterations as f64)?;
        demand_size(self.name(), "eps", self.eps)
    }
    fn check_parameter(&self, param: &Tensor) -> Result<()> {
        if param.rank() == 2 && param.elements() > 0 {
            return Ok(());
        }
        let shape = param.shape();
        Err(Error::misuse(format!(
            "Muon updates matrices; this parameter has shape {shape}: give it another rule with `Group::matching(..).rule(..)`"
        )))
    }
    /// η, μ, 1 − μ, 1 − η·λ.
    fn numbers(&self, at: &At) -> Numbers {
        let momentum = at.momentum.unwrap_or(self.momentum);
        Numbers::from_slice(&[at.learning_rate, momentum, 1.0 - momentum, 1.0 - at.learning_rate * at.weight_decay])
    }
    fn update(&self, call: Call<'_>) -> Result<()> {
        self.check_parameter(call.param)?;
        let ([rate, momentum, gain, decay], [buffer]) = (call.numbers, call.state) else {
            return Err(miscounted(self.name()));
        };
        Tensor::update(&MomentumUpdate { gain: gain.clone() }, &mut [&mut *buffer], &[call.grad])?;
        let direction = match self.nesterov {
            true => towards(&widened(call.grad)?, buffer, momentum)?,
            false => buffer.detach(),
        };
        let (rows, columns) = (call.param.dims()[0] as f64, call.param.dims()[1] as f64);
        let step = self.orthogonal(&direction)?.try_to_dtype(buffer.dtype())?;
        let (learning_rate, decay) = (rate.clone(), decay.clone());
        let op = MuonUpdate { learning_rate, scale: self.scale.of(rows, columns), decay };
        Tensor::update(&op, &mut [call.param], &[&step])
    }
}
