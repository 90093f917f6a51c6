//! The dice loss (Milletari et al., "V-Net", 2016): how far two regions overlap.

use super::{Loss, Losses, Reduction, matching, misfit, options};
use crate::Module;
use gradus_core::{Result, Tensor};

/// 1 − (2·Σ p·t + smooth)/(Σ p + Σ t + smooth) for probabilities p and targets t `[batch, classes, places..]` of one shape, with
/// sums over the places. Each image's class is an element of the loss, `[batch, classes]`.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::loss::{Dice, Loss};
/// let t = Tensor::ones([1, 1, 4, 4], gradus_cpu::device());
/// assert_eq!(Dice::new().forward(&t, &t).item::<f32>()?, 0.0);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Copy, Debug)]
pub struct Dice {
    /// Keeps empty regions from 0/0.
    pub smooth: f64,
    /// Whether the sums of the denominator are of squares, as in the paper.
    pub squared: bool,
    /// How the elements' losses become one number.
    pub reduction: Reduction,
}

impl Default for Dice {
    fn default() -> Dice {
        Dice { smooth: 1.0, squared: false, reduction: Reduction::Mean }
    }
}

impl Dice {
    /// Smoothed by 1, the mean.
    pub fn new() -> Dice {
        Dice::default()
    }
    options! {
        /// With this number added above and below.
        smooth: f64,
        /// Whether the sums of the denominator are of squares.
        squared: bool,
        /// With this reduction.
        reduction: Reduction
    }
}

impl Loss for Dice {
    fn try_losses(&self, p: &Tensor, target: &Tensor) -> Result<Losses> {
        let t = matching("dice", p, target)?;
        if p.rank() < 3 {
            return Err(misfit("dice", "needs probabilities [batch, classes, places..]", [p, target]));
        }
        let places: Vec<isize> = (2..p.rank() as isize).collect();
        let sum = |x: &Tensor| if self.squared { x.try_square() } else { Ok(x.clone()) }?.try_sum_dims(&places, false);
        let overlap = p.try_mul(&t)?.try_sum_dims(&places, false)? * 2.0 + self.smooth;
        let both = sum(p)?.try_add(&sum(&t)?)? + self.smooth;
        Ok((1.0 - overlap.try_div(&both)?).into())
    }
    fn reduction(&self) -> Reduction {
        self.reduction
    }
}
