//! The functions of `f32`: polynomials after Cephes (S. L. Moshier), within 2 ulp where measured (see the tests), sine and cosine after
//! FreeBSD's `msun`.

use super::{Float, rounding};

/// Of x = n·π/2 + r with |r| ≤ π/4: sin r, cos r, and n in the last bits. In `f64`, so that r is right near every multiple.
#[inline(always)]
fn quarters(x: f32) -> (f64, f64, u64) {
    const TO_INTEGER: f64 = 6_755_399_441_055_744.0; // 1.5·2⁵²: the nearest integer, in the last bits
    const HALF_PI: f64 = 1.570_796_326_734_125_6; // its first 33 bits: times n, it is exact
    const REST: f64 = 6.077_100_506_506_192e-11;
    let x = f64::from(x);
    let shifted = x * std::f64::consts::FRAC_2_PI + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = (x - n * HALF_PI) - n * REST;
    let z = r * r;
    let p = 2.718_311_493_989_822e-6 * z - 1.983_933_483_609_663_2e-4;
    let p = (p * z + 8.333_329_385_889_463e-3) * z - 0.166_666_666_416_265_24;
    let sin = r * (p * z + 1.0); // −0 stays
    let q = 2.439_044_879_627_741e-5 * z - 1.388_676_377_460_993e-3;
    let q = (q * z + 0.041_666_623_323_739_06) * z - 0.499_999_997_251_031;
    (sin, q * z + 1.0, shifted.to_bits())
}

/// a·b + c: with `FMA` by one instruction, rounded once.
#[inline(always)]
fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x as (1 + q)·2ⁿ: x = n·ln 2 + r with |r| ≤ ln 2/2, q = e^r − 1 by a polynomial. For NaN q is NaN, and n any number.
#[inline(always)]
fn exponential<const FMA: bool>(x: f32) -> (f32, i32) {
    let shifted = madd::<FMA>(x, std::f32::consts::LOG2_E, 12_582_912.0); // the nearest integer, in the last bits
    let n = shifted - 12_582_912.0;
    let r = madd::<FMA>(n, 2.121_944_4e-4, madd::<FMA>(n, -0.693_359_375, x));
    // By pairs: a chain of six would keep the processor waiting.
    let r2 = r * r;
    let (high, low) =
        (madd::<FMA>(1.987_569_15e-4, r, 1.398_199_95e-3), madd::<FMA>(8.333_451_9e-3, r, 4.166_579_6e-2));
    let p = madd::<FMA>(madd::<FMA>(high, r2, low), r2, madd::<FMA>(1.666_666_55e-1, r, 5.000_000_1e-1));
    (madd::<FMA>(p, r2, r), (shifted.to_bits() as i32).wrapping_sub(0x4b40_0000)) // 0x4b400000: 12582912
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

impl Float for f32 {
    rounding!(f32);

    #[inline(always)]
    fn madd<const FMA: bool>(self, b: Self, c: Self) -> Self {
        madd::<FMA>(self, b, c)
    }

    /// e^x, the power of two in two steps, so that subnormals come out right.
    #[inline(always)]
    fn exp<const FMA: bool>(self) -> Self {
        // Beyond these the result is 0 or infinite.
        let x = if self > 89.0 { 89.0 } else { self };
        let x = if x < -104.0 { -104.0 } else { x };
        let (q, n) = exponential::<FMA>(x); // n lies within ±151
        let half = n >> 1;
        let unit = power_of_two(half);
        madd::<FMA>(q, unit, unit) * power_of_two(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn exp_share<const FMA: bool>(self) -> Self {
        let (q, n) = exponential::<FMA>(if self < -87.0 { -87.0 } else { self });
        let unit = power_of_two(n);
        if self < -87.0 { 0.0 } else { madd::<FMA>(q, unit, unit) }
    }
    #[inline(always)]
    fn one_plus_exp<const FMA: bool>(self) -> Self {
        let (q, n) = exponential::<FMA>(if self < -87.0 { -87.0 } else { self });
        let unit = power_of_two(n);
        // The sum of 1 and the unit is exact where e^x has many digits.
        if self > 88.0 { f32::INFINITY } else { madd::<FMA>(q, unit, 1.0 + unit) }
    }

    /// 1/(1 + e^−x), the sum as (q·2ⁿ + 1) + 2ⁿ: rounded once where the quotient is most sensitive to it, and the 1 is not lost in a
    /// large 2ⁿ. Of all numbers, the worst result is 1.9991 ulp off.
    #[inline(always)]
    fn sigmoid<const FMA: bool>(self) -> Self {
        const SCALE: i32 = 64; // so that nothing is subnormal but, perhaps, the result
        const ONE: f32 = 1.0 / (1u128 << SCALE) as f32;
        // Beyond these the result is 1 or 0.
        let x = if self > 43.0 { 43.0 } else { self };
        let x = if x < -104.0 { -104.0 } else { x };
        let (q, n) = exponential::<FMA>(-x);
        let unit = power_of_two(n.wrapping_sub(SCALE));
        ONE / (madd::<FMA>(q, unit, ONE) + unit)
    }

    /// ln x: x = m·2^e with √½ ≤ m < √2, ln m by a polynomial of m − 1.
    #[inline(always)]
    fn ln(self) -> Self {
        let tiny = self < f32::MIN_POSITIVE;
        let x = if tiny { self * 8_388_608.0 } else { self }; // subnormals are scaled by 2^23
        let bits = x.to_bits() as i32;
        let exponent = bits.wrapping_sub(0x3f35_04f3) >> 23; // 0x3f3504f3: √½
        let m = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
        let e = exponent as f32;
        let e = if tiny { e - 23.0 } else { e };
        let r = m - 1.0;
        let z = r * r;
        let p = 7.037_683_6e-2;
        let p = p * r - 1.151_461_03e-1;
        let p = p * r + 1.167_699_87e-1;
        let p = p * r - 1.242_014_08e-1;
        let p = p * r + 1.424_932_28e-1;
        let p = p * r - 1.666_805_77e-1;
        let p = p * r + 2.000_071_48e-1;
        let p = p * r - 2.499_999_4e-1;
        let p = p * r + 3.333_333_1e-1;
        let y = p * r * z + e * -2.121_944_4e-4 - 0.5 * z;
        let y = r + y + e * 0.693_359_375;
        let y = if self == f32::INFINITY { self } else { y };
        let y = if self == 0.0 { f32::NEG_INFINITY } else { y };
        if self < 0.0 || self.is_nan() { f32::NAN } else { y }
    }

    /// Near 0 by a polynomial, else 1 − 2/(e^2|x| + 1) with x's sign.
    #[inline(always)]
    fn tanh<const FMA: bool>(self) -> Self {
        let a = self.abs();
        let z = self * self;
        let p = madd::<FMA>(-5.704_988_7e-3, z, 2.063_908_9e-2);
        let p = madd::<FMA>(p, z, -5.373_971_6e-2);
        let p = madd::<FMA>(p, z, 1.333_144_2e-1);
        let p = madd::<FMA>(p, z, -3.333_328_2e-1);
        let near = madd::<FMA>(self, z * p, self).copysign(self); // −0 stays
        let far = (1.0 - 2.0 / (a + a).one_plus_exp::<FMA>()).copysign(self);
        if a < 0.625 { near } else { far } // NaN goes through
    }

    /// Near 0 by an odd polynomial, else 1 − e^q(|x|) with x's sign. (Polynomials: N. Juffa.)
    #[inline(always)]
    fn erf(self) -> Self {
        let (a, z) = (self.abs(), self * self);
        let p = -5.967_617_03e-4;
        let p = p * z + 4.991_194_23e-3;
        let p = p * z - 2.676_813_49e-2;
        let p = p * z + 1.128_199_25e-1;
        let p = p * z - 3.761_253_36e-1;
        let p = p * z + 1.283_791_66e-1;
        let near = (p * self + self).copysign(self); // −0 stays
        let t = if a > 4.0 { 4.0 } else { a }; // 1 from there on
        let q = (-1.728_534_7e-5 * t + 3.831_971_26e-4) * (t * t) + (-3.883_964_38e-3 * t + 2.425_462_19e-2);
        let q = q * t - 1.067_778_77e-1;
        let q = q * t - 6.348_466_87e-1;
        let q = q * t - 1.287_175_12e-1;
        let far = (1.0 - Float::exp::<false>(q * t - t)).copysign(self);
        let y = if a <= 0.927_734_375 { near } else { far };
        if self.is_nan() { self } else { y }
    }

    /// The share below −|x| is e^(−x²/2)·W(|x|), with W a polynomial of t = 1/(1 + 0.3·|x|) fitted to within 4e-9 of its size up to
    /// |x| = 14, where the exponential has long vanished: one exponential gives both results, and a small share keeps its digits.
    /// Within 8 ulp from −1 on (12 from −5 on, where the exponent's own rounding counts).
    #[inline(always)]
    fn normal<const FMA: bool>(self) -> (Self, Self) {
        let square = self * self * -0.5;
        let density = square.exp_share::<FMA>();
        let t = 1.0 / madd::<FMA>(self.abs(), 0.3, 1.0);
        // By pairs and pairs of pairs: a chain of ten would keep the processor waiting.
        let (t2, t4) = (t * t, (t * t) * (t * t));
        let pair = |b: f32, a: f32| madd::<FMA>(b, t, a);
        let low = madd::<FMA>(pair(7.838_964_5e-2, 1.102_354_2e-1), t2, pair(1.195_718_1e-1, 1.196_866_9e-1));
        let high = madd::<FMA>(pair(-2.282_136_1e-1, 1.917_845_5e-1), t2, pair(-7.942_35e-2, 9.615_684e-2));
        let w = madd::<FMA>(t4, madd::<FMA>(t4, pair(-2.062_347e-2, 1.124_356_2e-1), high), low);
        let tail = density * (w * t);
        (if self > 0.0 { 1.0 - tail } else { tail }, density)
    }

    const LARGEST_ANGLE: f32 = 1_048_576.0;
    #[inline(always)]
    fn sin(self) -> Self {
        let (sin, cos, n) = quarters(self);
        let y = if n & 1 == 0 { sin } else { cos };
        (if n & 2 == 0 { y } else { -y }) as f32
    }
    #[inline(always)]
    fn cos(self) -> Self {
        let (sin, cos, n) = quarters(self);
        let y = if n & 1 == 0 { cos } else { sin };
        (if n.wrapping_add(1) & 2 == 0 { y } else { -y }) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::Float;

    /// Distance in units in the last place of the exact result.
    fn ulps(got: f32, exact: f64) -> f64 {
        if got.is_nan() && exact.is_nan() || got as f64 == exact || (got.is_infinite() && exact as f32 == got) {
            return 0.0;
        }
        let near = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f32::from_bits(near.to_bits() + 1) as f64 - near as f64;
        (got as f64 - exact).abs() / unit
    }

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: std::ops::Range<f32>) -> f64 {
        let n = 400_000;
        (0..=n)
            .map(|i| range.start + (range.end - range.start) * (i as f32 / n as f32))
            .map(|x| ulps(f(x), exact(x as f64)))
            .fold(0.0, f64::max)
    }

    #[test]
    fn angles_are_within_two_ulp_near_every_multiple_of_a_quarter_turn() {
        let most = f32::LARGEST_ANGLE;
        for range in [-7.0..7.0, -2000.0..2000.0, -most..most, most * 0.99..most] {
            let [s, c] = [worst(Float::sin, f64::sin, range.clone()), worst(Float::cos, f64::cos, range.clone())];
            println!("worst ulp over {range:?}: sin {s:.2}, cos {c:.2}");
            assert!(s <= 2.0 && c <= 2.0);
        }
        for n in -500_000..500_000 {
            let x = (f64::from(n) * std::f64::consts::FRAC_PI_2) as f32;
            for (got, exact) in [(Float::sin(x), f64::from(x).sin()), (Float::cos(x), f64::from(x).cos())] {
                assert!(ulps(got, exact) <= 2.0, "at {x}: {got} for {exact}");
            }
        }
        assert!(Float::sin(-0.0f32).is_sign_negative());
    }

    #[test]
    fn f32_functions_are_within_two_ulp() {
        let [e, fused_e] = [Float::exp::<false>, Float::exp::<true>].map(|f| worst(f, f64::exp, -87.0..88.7));
        let [t, fused_t] = [Float::tanh::<false>, Float::tanh::<true>].map(|f| worst(f, f64::tanh, -12.0..12.0));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let [s, fused_s] = [Float::sigmoid::<false>, Float::sigmoid::<true>].map(|f| worst(f, sigmoid, -87.0..40.0));
        let l = worst(Float::ln, f64::ln, 1e-30..40.0);
        let f = worst(Float::erf, libm::erf, -5.0..5.0);
        println!("worst ulp: exp {e:.2}, {fused_e:.2}, ln {l:.2}, tanh {t:.2}, {fused_t:.2}");
        println!("worst ulp: sigmoid {s:.2}, {fused_s:.2}, erf {f:.2}");
        assert!([e, fused_e, l, t, fused_t, s, fused_s, f].iter().all(|&worst| worst <= 2.0));
    }

    #[test]
    fn shares_of_the_normal_distribution_keep_their_digits() {
        keep_their_digits::<false>();
        keep_their_digits::<true>();
    }

    fn keep_their_digits<const FMA: bool>() {
        let share = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let middle = worst(|x| x.normal::<FMA>().0, share, -1.0..9.0);
        let tail = worst(|x| x.normal::<FMA>().0, share, -5.0..-1.0);
        let density = worst(|x| x.normal::<FMA>().1, |x| (-x * x / 2.0).exp(), -1.5..1.5);
        println!("worst ulp: share {middle:.2}, in the tail {tail:.2}, density {density:.2}");
        assert!(middle <= 8.0 && tail <= 12.0 && density <= 2.0, "{middle} {tail} {density}");
        let far = f32::INFINITY;
        assert_eq!(((-far).normal::<FMA>(), far.normal::<FMA>()), ((0.0, 0.0), (1.0, 0.0)));
        assert_eq!(
            (0.0f32.normal::<FMA>(), (-40.0f32).normal::<FMA>(), 40.0f32.normal::<FMA>()),
            ((0.5, 1.0), (0.0, 0.0), (1.0, 0.0))
        );
        assert!(f32::NAN.normal::<FMA>().0.is_nan() && f32::NAN.normal::<FMA>().1.is_nan());
    }

    #[test]
    fn special_values() {
        have_their_values::<false>();
        have_their_values::<true>();
    }

    fn have_their_values<const FMA: bool>() {
        for (x, y) in [
            (f32::INFINITY, f32::INFINITY),
            (f32::NEG_INFINITY, 0.0),
            (0.0, 1.0),
            (200.0, f32::INFINITY),
            (-200.0, 0.0),
        ] {
            assert_eq!(Float::exp::<FMA>(x), y, "exp {x}");
        }
        for (x, y) in [(f32::INFINITY, f32::INFINITY), (0.0, f32::NEG_INFINITY), (-0.0, f32::NEG_INFINITY), (1.0, 0.0)]
        {
            assert_eq!(Float::ln(x), y, "ln {x}");
        }
        assert!(Float::ln(-1.0f32).is_nan() && Float::ln(f32::NAN).is_nan() && Float::exp::<FMA>(f32::NAN).is_nan());
        assert!(Float::tanh::<FMA>(f32::NAN).is_nan() && Float::sigmoid::<FMA>(f32::NAN).is_nan());
        assert_eq!(Float::tanh::<FMA>(f32::INFINITY), 1.0);
        assert_eq!(Float::tanh::<FMA>(-0.0f32).to_bits(), (-0.0f32).to_bits());
        for (x, y) in [(f32::NEG_INFINITY, 0.0), (-105.0, 0.0), (f32::INFINITY, 1.0), (0.0, 0.5)] {
            assert_eq!(Float::sigmoid::<FMA>(x), y, "sigmoid {x}");
        }
        for i in 0..=1200 {
            let x = -0.1 * i as f32;
            let exact = if x < -87.0 { 0.0 } else { f64::from(x).exp() };
            assert!(ulps(Float::exp_share::<FMA>(x), exact) <= 2.0, "the share e^{x}");
        }
        assert!(Float::exp_share::<FMA>(f32::NAN).is_nan());
        assert_eq!(Float::exp_share::<FMA>(f32::NEG_INFINITY), 0.0);
        assert!(Float::gelu_share::<FMA>(f32::NAN).is_nan());
        for (x, y) in [(f32::NEG_INFINITY, 0.0), (-12.0, 0.0), (f32::INFINITY, 1.0), (0.0, 0.5)] {
            assert_eq!(Float::gelu_share::<FMA>(x), y, "the share below {x}");
        }
        assert_eq!((Float::erf(f32::INFINITY), Float::erf(-40.0f32)), (1.0, -1.0));
        assert_eq!(Float::erf(-0.0f32).to_bits(), (-0.0f32).to_bits());
        assert!(Float::erf(f32::NAN).is_nan());
        let share = (-100.0f64).exp() / (1.0 + (-100.0f64).exp());
        assert!(ulps(Float::sigmoid::<FMA>(-100.0f32), share) <= 2.0, "subnormal results of sigmoid");
        assert!(ulps(Float::exp::<FMA>(-100.0f32), (-100.0f64).exp()) <= 2.0, "subnormal results");
        assert!(ulps(Float::ln(1e-40f32), (1e-40f32 as f64).ln()) <= 2.0, "subnormal arguments");
    }
}
