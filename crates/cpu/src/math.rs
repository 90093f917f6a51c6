//! Elementary functions for one element, written without branches so that the loops around them vectorize.
//!
//! Those of `f32` are in [`single`]; functions that are seldom hot go through `f64`. `f64`: the standard library's and `libm`'s.

mod erfinv;
mod single;

pub(crate) use erfinv::erfinv;

/// The functions a float type must offer to the elementwise kernels.
pub(crate) trait Float:
    Copy
    + PartialOrd
    + Send
    + Sync
    + Default
    + 'static
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Rem<Output = Self>
    + std::ops::Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    /// The smallest positive number of full precision; what is smaller costs many times as much to work with.
    const TINY: Self;
    fn abs(self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn round_even(self) -> Self;
    fn copysign(self, s: Self) -> Self;
    /// self·b + c, in `f32` with `FMA` by one instruction, rounded once.
    #[inline(always)]
    fn madd<const FMA: bool>(self, b: Self, c: Self) -> Self {
        self * b + c
    }
    /// e^x. (`FMA`, here and below: whether there is a fused multiply-add to compute it with.)
    fn exp<const FMA: bool>(self) -> Self;
    /// e^x of an x that is not above 0, but for rounding: 0 below e^−87, as befits shares of a sum (subnormal results, and those of −∞,
    /// can take many times as long), and a third less work than [`exp`](Float::exp).
    #[inline(always)]
    fn exp_share<const FMA: bool>(self) -> Self {
        self.exp::<FMA>()
    }
    /// 1 + e^x; ∞ above 88. No more work than [`exp_share`](Float::exp_share).
    #[inline(always)]
    fn one_plus_exp<const FMA: bool>(self) -> Self {
        Self::ONE + self.exp::<FMA>()
    }
    fn ln(self) -> Self;
    fn tanh<const FMA: bool>(self) -> Self;
    fn erf(self) -> Self;
    /// The normal distribution's share below x, and e^(−x²/2).
    fn normal<const FMA: bool>(self) -> (Self, Self);
    /// (1 + tanh u)/2 of u = √(2/π)·(x + 0.044715·x³), as 1/(1 + e^(−2u)), which keeps the digits of small shares.
    fn gelu_share<const FMA: bool>(self) -> Self;
    /// The largest angle, in radians, for which [`sin`](Float::sin) and [`cos`](Float::cos) are made.
    const LARGEST_ANGLE: Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    /// Any function, computed in `f64`.
    fn through(self, f: impl Fn(f64) -> f64) -> Self;

    /// 1/(1 + e^−x).
    fn sigmoid<const FMA: bool>(self) -> Self;
    /// Zero in place of a number too small for full precision.
    #[inline(always)]
    fn flushed(self) -> Self {
        if self.abs() < Self::TINY { Self::ZERO } else { self }
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.partial_cmp(&self).is_none()
    }
}

/// What both types compute alike.
macro_rules! rounding {
    ($t:ty) => {
        #[inline(always)]
        fn gelu_share<const FMA: bool>(self) -> Self {
            const BY: $t = -1.595_769_121_605_730_8;
            1.0 / (self * (self * self).madd::<FMA>(0.044_715 * BY, BY)).one_plus_exp::<FMA>()
        }
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const TINY: Self = <$t>::MIN_POSITIVE;
        #[inline(always)]
        fn abs(self) -> Self {
            <$t>::abs(self)
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            <$t>::sqrt(self)
        }
        #[inline(always)]
        fn floor(self) -> Self {
            <$t>::floor(self)
        }
        #[inline(always)]
        fn ceil(self) -> Self {
            <$t>::ceil(self)
        }
        #[inline(always)]
        fn trunc(self) -> Self {
            <$t>::trunc(self)
        }
        #[inline(always)]
        fn round_even(self) -> Self {
            <$t>::round_ties_even(self)
        }
        #[inline(always)]
        fn copysign(self, s: Self) -> Self {
            <$t>::copysign(self, s)
        }
        #[inline(always)]
        fn through(self, f: impl Fn(f64) -> f64) -> Self {
            f(self as f64) as $t
        }
    };
}

use rounding;

impl Float for f64 {
    rounding!(f64);
    #[inline(always)]
    fn exp<const FMA: bool>(self) -> Self {
        f64::exp(self)
    }
    #[inline(always)]
    fn sigmoid<const FMA: bool>(self) -> Self {
        // For x < 0 the result is e^x/(1 + e^x): 1/(1 + e^−x) would double the error of a large e^−x.
        let e = (-self.abs()).exp();
        (if self < 0.0 { e } else { 1.0 }) / (1.0 + e)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }
    #[inline(always)]
    fn tanh<const FMA: bool>(self) -> Self {
        f64::tanh(self)
    }
    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }
    #[inline(always)]
    fn normal<const FMA: bool>(self) -> (Self, Self) {
        let below = (Float::erf(self * std::f64::consts::FRAC_1_SQRT_2) + 1.0) * 0.5;
        (below, Float::exp::<FMA>(self * self * -0.5))
    }
    const LARGEST_ANGLE: f64 = f64::INFINITY;
    #[inline(always)]
    fn sin(self) -> Self {
        f64::sin(self)
    }
    #[inline(always)]
    fn cos(self) -> Self {
        f64::cos(self)
    }
}
