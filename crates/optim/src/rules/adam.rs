//! Adam and AdamW, as PyTorch's `torch.optim.Adam` and `torch.optim.AdamW` have them. They differ in where the weight decay
//! goes: into the gradient (Adam), or onto the weights themselves (AdamW).

use super::miscounted;
use crate::demand::{demand_fraction, demand_size};
use crate::rule::{At, Call, Numbers, Rule};
use gradus_core::functional::update::AdamUpdate;
use gradus_core::{Result, Tensor};

/// What both rules are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moments {
    learning_rate: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
    maximize: bool,
}

impl Moments {
    fn new(learning_rate: f64, weight_decay: f64) -> Moments {
        Moments { learning_rate, betas: (0.9, 0.999), eps: 1e-8, weight_decay, amsgrad: false, maximize: false }
    }
    fn check(&self, owner: &str) -> Result<()> {
        demand_fraction(owner, "beta1", self.betas.0)?;
        demand_fraction(owner, "beta2", self.betas.1)?;
        demand_size(owner, "eps", self.eps)
    }
    fn slots(&self) -> &'static [&'static str] {
        if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
    }
    /// 1 − β₁, η/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ), 1 − η·λ.
    fn numbers(&self, at: &At) -> Numbers {
        let (beta1, beta2) = (at.momentum.unwrap_or(self.betas.0), self.betas.1);
        let t = at.step as f64;
        let step_size = at.learning_rate / (1.0 - beta1.powf(t));
        let rsqrt_bias2 = 1.0 / (1.0 - beta2.powf(t)).sqrt();
        Numbers::from_slice(&[1.0 - beta1, step_size, rsqrt_bias2, 1.0 - at.learning_rate * at.weight_decay])
    }
    fn update(&self, owner: &str, call: Call<'_>, decoupled: bool) -> Result<()> {
        let [one_minus_beta1, step_size, rsqrt_bias2, decay] = call.numbers else { return Err(miscounted(owner)) };
        let decays = call.weight_decay != 0.0;
        let op = AdamUpdate {
            one_minus_beta1: one_minus_beta1.clone(),
            beta2: self.betas.1,
            eps: self.eps,
            step_size: step_size.clone(),
            rsqrt_bias2: rsqrt_bias2.clone(),
            weight_decay: if decoupled { 0.0 } else { call.weight_decay },
            decay: (decoupled && decays).then(|| decay.clone()),
            maximize: self.maximize,
        };
        let x = call.inputs();
        match call.state {
            [m, v] => Tensor::update(&op, &mut [call.param, m, v], &x),
            [m, v, n] => Tensor::update(&op, &mut [call.param, m, v, n], &x),
            _ => Err(miscounted(owner)),
        }
    }
}

macro_rules! adam {
    ($(#[$doc:meta])* $t:ident, $weight_decay:literal, $decoupled:literal, $(#[$decay_doc:meta])*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $t(Moments);

        impl $t {
            /// The rule at this learning rate, with PyTorch's defaults for the rest.
            pub fn new(learning_rate: f64) -> $t {
                $t(Moments::new(learning_rate, $weight_decay))
            }
            /// β₁ and β₂: how much of the averages of the gradient and of its square stays at each step; 0.9 and 0.999.
            pub fn betas(self, beta1: f64, beta2: f64) -> $t {
                $t(Moments { betas: (beta1, beta2), ..self.0 })
            }
            /// ε: added to the denominator; 1e-8.
            pub fn eps(self, eps: f64) -> $t {
                $t(Moments { eps, ..self.0 })
            }
            $(#[$decay_doc])*
            pub fn weight_decay(self, weight_decay: f64) -> $t {
                $t(Moments { weight_decay, ..self.0 })
            }
            /// Divides by the largest v so far (AMSGrad; Reddi, Kale & Kumar, 2018). State: also `max_exp_avg_sq`.
            pub fn amsgrad(self) -> $t {
                $t(Moments { amsgrad: true, ..self.0 })
            }
            /// Climbs instead of descending.
            pub fn maximize(self) -> $t {
                $t(Moments { maximize: true, ..self.0 })
            }
        }

        impl Rule for $t {
            fn name(&self) -> &'static str {
                stringify!($t)
            }
            fn learning_rate(&self) -> f64 {
                self.0.learning_rate
            }
            fn weight_decay(&self) -> f64 {
                self.0.weight_decay
            }
            fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
                self.0.slots()
            }
            fn check(&self) -> Result<()> {
                self.0.check(self.name())
            }
            fn takes_factor(&self) -> bool {
                true
            }
            fn numbers(&self, at: &At) -> Numbers {
                self.0.numbers(at)
            }
            fn update(&self, call: Call<'_>) -> Result<()> {
                self.0.update(self.name(), call, $decoupled)
            }
        }
    };
}

adam! {
    /// Adam: m ← β₁·m + (1 − β₁)·g; v ← β₂·v + (1 − β₂)·g²; p ← p − η·m̂ / (√v̂ + ε), with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ).
    ///
    /// State: `exp_avg` (m) and `exp_avg_sq` (v). t counts the parameter's own updates. Source: Kingma & Ba, *Adam: a method
    /// for stochastic optimization* (2015).
    Adam, 0.0, false,
    /// λ: λ·p is added to the gradient; 0. (For decay apart from the gradient, see [`AdamW`].)
}

adam! {
    /// AdamW: [`Adam`] with p ← (1 − η·λ)·p before each update, in place of a penalty's gradient.
    ///
    /// State: `exp_avg` and `exp_avg_sq`. Source: Loshchilov & Hutter, *Decoupled weight decay regularization* (2019), in
    /// PyTorch's form, in which the decay is multiplied with the learning rate.
    AdamW, 1e-2, true,
    /// λ: the weights shrink by η·λ of themselves at each step; 0.01.
}
