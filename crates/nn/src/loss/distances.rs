//! Losses of the difference of a prediction and a target: a row each.

use super::{Loss, Losses, Reduction, matching, positive};
use crate::Module;
use gradus_core::{Result, Tensor};

/// Losses of the difference d = prediction − target, of one shape: a row gives the type, its options, and the loss of each
/// element.
macro_rules! distances {
    ($($(#[$doc:meta])* $t:ident, $name:literal $({ $(#[$option_doc:meta])* $option:ident = $default:literal })?, |$self:ident, $d:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Module, Clone, Copy, Debug)]
        pub struct $t {
            $($(#[$option_doc])* pub $option: f64,)?
            /// How the elements' losses become one number.
            pub reduction: Reduction,
        }
        impl $t {
            $(
                #[doc = concat!("The mean, with `", stringify!($option), "` as given (PyTorch's default is ", stringify!($default), ").")]
                pub fn new($option: f64) -> $t {
                    $t { $option, reduction: Reduction::Mean }
                }
            )?
            /// With this reduction.
            pub fn reduction(mut self, reduction: Reduction) -> $t {
                self.reduction = reduction;
                self
            }
        }
        impl Default for $t {
            fn default() -> $t {
                $t { $($option: $default,)? reduction: Reduction::Mean }
            }
        }
        impl Loss for $t {
            fn try_losses(&$self, prediction: &Tensor, target: &Tensor) -> Result<Losses> {
                let $d = prediction.try_sub(&matching($name, prediction, target)?)?;
                $body.map(Losses::from)
            }
            fn reduction(&self) -> Reduction {
                self.reduction
            }
        }
    )*};
}

distances! {
    /// d². In PyTorch: `torch.nn.MSELoss`.
    Mse, "mse", |self, d| d.try_square();
    /// |d|. In PyTorch: `torch.nn.L1Loss`.
    L1, "l1", |self, d| d.try_abs();
    /// d²/2 where |d| < delta, else delta·(|d| − delta/2) (Huber, 1964). In PyTorch: `torch.nn.HuberLoss`.
    Huber, "huber" {
        /// Where the square becomes a line; above 0.
        delta = 1.0
    }, |self, d| huber(&d, positive("huber", "delta", self.delta)?);
    /// d²/(2·beta) where |d| < beta, else |d| − beta/2; |d| if beta is 0 (Girshick, 2015). In PyTorch: `torch.nn.SmoothL1Loss`.
    SmoothL1, "smooth_l1" {
        /// Where the square becomes a line; at least 0.
        beta = 1.0
    }, |self, d| match self.beta {
        0.0 => d.try_abs(),
        beta => huber(&d, positive("smooth_l1", "beta", beta)?).map(|y| y / beta),
    };
}

fn huber(d: &Tensor, delta: f64) -> Result<Tensor> {
    let a = d.try_abs()?;
    let line = (&a - delta / 2.0) * delta;
    (d.try_square()? * 0.5).try_where(&a.try_lt_scalar(delta)?, &line)
}
