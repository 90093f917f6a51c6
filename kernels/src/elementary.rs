//! Elementary functions whose accuracy does not depend on the driver.
//!
//! Vulkan allows `asin` an error of 4·10⁻⁴ and `ln` one of 2⁻²¹ near 1, and has no `log1p` or `expm1`; so the functions whose
//! built-in form is not good to a few 10⁻⁷ are computed here from `exp`, `ln`, `sqrt` and polynomials. The polynomials are
//! those of Cephes (Moshier, single precision) for `asin`, `atan` and `ln`, and Taylor series for the rest.

use cubecl::prelude::*;

/// `eˣ − 1`, relative to its own size also near 0: a Taylor series to the ninth power where |x| < 0.5.
#[cube]
pub fn expm1<F: Float>(x: F) -> F {
    let mut p = F::new(2.7557319e-6);
    p = p * x + F::new(2.4801587e-5);
    p = p * x + F::new(1.984127e-4);
    p = p * x + F::new(1.3888889e-3);
    p = p * x + F::new(8.333334e-3);
    p = p * x + F::new(4.1666668e-2);
    p = p * x + F::new(0.16666667);
    p = p * x + F::new(0.5);
    select(x.abs() < F::new(0.5), x + x * x * p, x.exp() - F::new(1.0))
}

/// `ln(1 + x)`: near 0 by `2·artanh(x / (2 + x))` as an odd series.
#[cube]
pub fn log1p<F: Float>(x: F) -> F {
    let s = x / (F::new(2.0) + x);
    let z = s * s;
    let mut p = F::new(0.22222222);
    p = p * z + F::new(0.2857143);
    p = p * z + F::new(0.4);
    p = p * z + F::new(0.6666667);
    // Larger arguments lose nothing by the addition.
    select(x.abs() < F::new(0.4), F::new(2.0) * s + s * z * p, (F::new(1.0) + x).ln())
}

/// `ln x`, relative to its own size also near 1.
#[cube]
pub fn ln<F: Float>(x: F) -> F {
    let d = x - F::new(1.0);
    select(d.abs() < F::new(0.3), log1p::<F>(d), x.ln())
}

/// `tanh x = (e²ˣ − 1) / (e²ˣ + 1)`, with the numerator exact near 0.
#[cube]
pub fn tanh<F: Float>(x: F) -> F {
    // Beyond 10 the result is ±1 to the last bit, and the exponential stays finite; NaN passes through the clamp's select.
    let a = select(x.abs() > F::new(10.0), F::new(10.0), x.abs());
    let e = expm1::<F>(F::new(2.0) * a);
    let y = e / (e + F::new(2.0));
    select(x == x, select(x < F::new(0.0), -y, select(x == F::new(0.0), x, y)), x)
}

/// `sinh x = (e + e / (e + 1)) / 2` with `e = eˣ − 1`.
#[cube]
pub fn sinh<F: Float>(x: F) -> F {
    let a = x.abs();
    let e = expm1::<F>(a);
    let small = (e + e / (e + F::new(1.0))) * F::new(0.5);
    // Past 80 the exponential is halved in its argument, so that it overflows only where the result does.
    let h = (a * F::new(0.5)).exp();
    let y = select(a > F::new(80.0), h * F::new(0.5) * h, small);
    select(x < F::new(0.0), -y, y)
}

/// `cosh x = (eˣ + e⁻ˣ) / 2`.
#[cube]
pub fn cosh<F: Float>(x: F) -> F {
    let a = x.abs();
    let h = (a * F::new(0.5)).exp();
    let e = a.exp();
    select(a > F::new(80.0), h * F::new(0.5) * h, (e + F::new(1.0) / e) * F::new(0.5))
}

/// `arsinh x = ln1p(|x| + x² / (1 + √(1 + x²)))`, with the sign of x.
#[cube]
pub fn asinh<F: Float>(x: F) -> F {
    let a = x.abs();
    let z = a * a;
    let near = log1p::<F>(a + z / (F::new(1.0) + (F::new(1.0) + z).sqrt()));
    // ln 2|x| where x² would overflow.
    let y = select(a > F::new(1.0e9), a.ln() + F::new(core::f32::consts::LN_2), near);
    select(x < F::new(0.0), -y, y)
}

/// `arcosh x = ln1p(t + √(2t + t²))`, `t = x − 1`.
#[cube]
pub fn acosh<F: Float>(x: F) -> F {
    let t = x - F::new(1.0);
    let near = log1p::<F>(t + (F::new(2.0) * t + t * t).sqrt());
    select(x > F::new(1.0e9), x.ln() + F::new(core::f32::consts::LN_2), near)
}

/// `artanh x = ln1p(2x / (1 − x)) / 2`.
#[cube]
pub fn atanh<F: Float>(x: F) -> F {
    let a = x.abs();
    let y = F::new(0.5) * log1p::<F>(F::new(2.0) * a / (F::new(1.0) - a));
    select(x < F::new(0.0), -y, y)
}

/// `arcsin x`: a polynomial in x² below ½, and `π/2 − 2 arcsin √((1−x)/2)` above.
#[cube]
pub fn asin<F: Float>(x: F) -> F {
    let a = x.abs();
    let above = a > F::new(0.5);
    let z = select(above, F::new(0.5) * (F::new(1.0) - a), a * a);
    let s = select(above, z.sqrt(), a);
    let mut p = F::new(4.216_32e-2);
    p = p * z + F::new(2.4181312e-2);
    p = p * z + F::new(4.547_002e-2);
    p = p * z + F::new(7.4953004e-2);
    p = p * z + F::new(0.166_667_52);
    let r = p * z * s + s;
    let y = select(above, F::new(core::f32::consts::FRAC_PI_2) - F::new(2.0) * r, r);
    select(x < F::new(0.0), -y, y)
}

/// `arccos x = π/2 − arcsin x`, and `2 arcsin √((1−x)/2)` near 1, where the difference would cancel.
#[cube]
pub fn acos<F: Float>(x: F) -> F {
    let half = F::new(0.5);
    let right = F::new(2.0) * asin::<F>((half * (F::new(1.0) - x)).sqrt());
    let left = F::new(core::f32::consts::PI) - F::new(2.0) * asin::<F>((half * (F::new(1.0) + x)).sqrt());
    let middle = F::new(core::f32::consts::FRAC_PI_2) - asin::<F>(x);
    select(x > half, right, select(x < -half, left, middle))
}

/// `arctan x`: a polynomial on [0, tan π/8], reached by `π/2 − arctan 1/x` and `π/4 + arctan (x−1)/(x+1)`.
#[cube]
pub fn atan<F: Float>(x: F) -> F {
    let a = x.abs();
    let one = F::new(1.0);
    let high = a > F::new(2.414_213_7);
    let middle = a > F::new(0.414_213_57);
    let t = select(high, -one / a, select(middle, (a - one) / (a + one), a));
    let base = select(
        high,
        F::new(core::f32::consts::FRAC_PI_2),
        select(middle, F::new(core::f32::consts::FRAC_PI_4), F::new(0.0)),
    );
    let z = t * t;
    let mut p = F::new(8.053_744_5e-2);
    p = p * z - F::new(0.138_776_85);
    p = p * z + F::new(0.199_777_11);
    p = p * z - F::new(0.333_329_5);
    let y = base + (p * z * t + t);
    select(x < F::new(0.0), -y, y)
}

/// `erf x`: the Taylor series to x¹³ below ½, else `1 − erfc |x|`.
#[cube]
pub fn erf<F: Float>(x: F) -> F {
    let z = x * x;
    let mut p = F::new(1.0683761e-4);
    p = p * z - F::new(7.575757e-4);
    p = p * z + F::new(4.6296296e-3);
    p = p * z - F::new(2.3809524e-2);
    p = p * z + F::new(0.1);
    p = p * z - F::new(0.33333334);
    p = p * z + F::new(1.0);
    let far = F::new(1.0) - erfc_positive::<F>(x.abs());
    let tail = select(x < F::new(0.0), -far, far);
    select(x.abs() < F::new(0.5), F::new(core::f32::consts::FRAC_2_SQRT_PI) * x * p, tail)
}

/// `erfc x = 1 − erf x`, relative to its own size also far from 0.
#[cube]
pub fn erfc<F: Float>(x: F) -> F {
    let y = erfc_positive::<F>(x.abs());
    select(x < F::new(0.0), F::new(2.0) - y, y)
}

/// `erfc x` for x ≥ 0: the Chebyshev fit of Numerical Recipes (`erfcc`), relative error 1.2·10⁻⁷.
#[cube]
fn erfc_positive<F: Float>(x: F) -> F {
    let t = F::new(1.0) / (F::new(1.0) + F::new(0.5) * x);
    let mut p = F::new(0.170_872_77);
    p = p * t - F::new(0.822_152_23);
    p = p * t + F::new(1.488_515_9);
    p = p * t - F::new(1.135_203_98);
    p = p * t + F::new(0.278_868_07);
    p = p * t - F::new(0.186_288_06);
    p = p * t + F::new(0.096_784_18);
    p = p * t + F::new(0.374_091_96);
    p = p * t + F::new(1.000_023_68);
    p = p * t - F::new(1.265_512_23);
    t * (p - x * x).exp()
}

/// `erf⁻¹ x`: the two polynomials of Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), in
/// `w = −ln(1 − x²)`.
#[cube]
pub fn erfinv<F: Float>(x: F) -> F {
    let w = -ln::<F>((F::new(1.0) - x) * (F::new(1.0) + x));
    let a = w - F::new(2.5);
    let mut p = F::new(2.810_226_4e-8);
    p = p * a + F::new(3.432_739_4e-7);
    p = p * a - F::new(3.523_387_7e-6);
    p = p * a - F::new(4.391_506_5e-6);
    p = p * a + F::new(2.185_808_7e-4);
    p = p * a - F::new(1.253_725e-3);
    p = p * a - F::new(4.177_682e-3);
    p = p * a + F::new(0.246_640_73);
    p = p * a + F::new(1.501_409_4);
    let b = w.sqrt() - F::new(3.0);
    let mut q = F::new(-2.002_142_6e-4);
    q = q * b + F::new(1.009_505_6e-4);
    q = q * b + F::new(1.349_343_2e-3);
    q = q * b - F::new(3.673_428_4e-3);
    q = q * b + F::new(5.739_507_7e-3);
    q = q * b - F::new(7.622_461_3e-3);
    q = q * b + F::new(9.438_870_5e-3);
    q = q * b + F::new(1.001_674_06);
    q = q * b + F::new(2.832_976_82);
    let y = x * select(w < F::new(5.0), p, q);
    // At ±1 the logarithm is infinite; so is the result.
    select(x.abs() == F::new(1.0), x / F::new(0.0), y)
}

/// `xʸ` for every sign of x: a negative base needs an integer exponent.
#[cube]
pub fn pow<F: Float>(x: F, y: F) -> F {
    let zero = F::new(0.0);
    let one = F::new(1.0);
    let magnitude = x.abs().powf(y);
    let whole = y == y.floor();
    let half = y * F::new(0.5);
    let odd = whole && !(half == half.floor());
    let signed = select(odd, -magnitude, magnitude);
    let negative = select(whole, signed, (x - x) / (x - x));
    let finite = select(x < zero, negative, magnitude);
    // The built-in may take the logarithm of 0.
    let at_zero = select(y > zero, zero, select(y < zero, one / x.abs(), one));
    let general = select(x == zero, at_zero, finite);
    // x⁰ = 1 and 1ʸ = 1 even for NaN, as IEEE 754 has it.
    let r = select(x == x && y == y, general, x + y);
    select(y == zero || x == one, one, r)
}

/// `x − y·trunc(x/y)`, with the sign of x, exact to the last step: a quotient that was rounded past an integer is put right.
#[cube]
pub fn fmod<F: Float>(x: F, y: F) -> F {
    let a = x.abs();
    let b = y.abs();
    let zero = F::new(0.0);
    let mut r = a - (a / b).trunc() * b;
    r = select(r < zero, r + b, r);
    r = select(r >= b, r - b, r);
    let finite = select(b > F::max_value(), a, r);
    select(x < zero, -finite, finite)
}

/// `x − y·⌊x/y⌋`, with the sign of y.
#[cube]
pub fn remainder<F: Float>(x: F, y: F) -> F {
    let zero = F::new(0.0);
    let r = fmod::<F>(x, y);
    let turned = (r < zero && y > zero) || (r > zero && y < zero);
    select(turned, r + y, r)
}

/// `atan2(y, x)`: the angle of the point (x, y).
#[cube]
pub fn atan2<F: Float>(y: F, x: F) -> F {
    let zero = F::new(0.0);
    let pi = F::new(core::f32::consts::PI);
    let half_pi = F::new(core::f32::consts::FRAC_PI_2);
    let a = atan::<F>(y / x);
    let turned = select(x < zero, select(y < zero, a - pi, a + pi), a);
    let on_axis = select(y > zero, half_pi, select(y < zero, -half_pi, zero));
    let r = select(x == zero, on_axis, turned);
    select(x == x && y == y, r, x + y)
}
