//! Functions of one element in `f32` against `f64`: within 4 units in the last place, over the whole range of `f32`.
//!
//! Arguments are bit patterns taken at even steps, so that every binade has its share, subnormals too; and the special values.
//! The reference is the standard library's and `libm`'s `f64`, whose own error is far below. A result that is NaN, infinite or
//! zero has to be so exactly, with its sign. (SiLU, GELU and Mish are products of rounded factors, as in PyTorch, and compared with
//! its numbers.)

use gradus_core::{Result, Tensor};

/// The largest error allowed, in units in the last place.
const ALLOWED: f64 = 4.0;
/// The step between arguments' bit patterns: a prime, so that the last bits vary.
const STEP: usize = 16_411;

type Function = fn(&Tensor) -> Result<Tensor>;
type Reference = fn(f64) -> f64;

/// The distance from the exact value, in units in the last place of `f32` there.
fn ulps(have: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if have.to_bits() == rounded.to_bits() || have.is_nan() && exact.is_nan() {
        return 0.0;
    }
    // An overflow may round either way, within the units allowed; a zero has the exact value's sign.
    if !have.is_finite() && rounded.abs() < f32::MAX * (1.0 - 2e-7) || have.is_nan() != exact.is_nan() {
        return f64::INFINITY;
    }
    if have == 0.0 && have.is_sign_negative() != exact.is_sign_negative() {
        return f64::INFINITY;
    }
    let near = rounded.abs().clamp(f32::MIN_POSITIVE, f32::MAX);
    let unit = f64::from(near) - f64::from(f32::from_bits(near.to_bits() - 1));
    let have = if have.is_finite() { f64::from(have) } else { f64::from(f32::MAX).copysign(f64::from(have)) };
    let exact = exact.clamp(-f64::from(f32::MAX), f64::from(f32::MAX));
    (have - exact).abs() / unit
}

fn arguments(step: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(step).map(f32::from_bits).filter(|x| !x.is_nan()).collect();
    for v in [0.0, f32::MIN_POSITIVE, f32::from_bits(1), 1.0, 0.5, f32::EPSILON, f32::MAX, f32::INFINITY, 88.72, 103.9]
    {
        x.extend([v, -v]);
    }
    x.push(f32::NAN);
    // Where functions bend: densely around 0 and to the ends of the exponential's range.
    x.extend((-110_000..=110_000).map(|i| i as f32 * 1e-3));
    x
}

fn reference_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn reference_softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// The inverse of erf, by halving an interval.
fn reference_erfinv(y: f64) -> f64 {
    match y.abs() {
        a if a > 1.0 || a.is_nan() => return f64::NAN,
        1.0 => return f64::INFINITY.copysign(y),
        a if a < 1e-6 => return y / std::f64::consts::FRAC_2_SQRT_PI, // the next term is y³·0.2
        _ => {}
    }
    let below = |x: f64| if y.abs() < 0.5 { libm::erf(x) < y.abs() } else { libm::erfc(x) > 1.0 - y.abs() };
    let (mut low, mut high) = (0.0, 6.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        *(if below(middle) { &mut low } else { &mut high }) = middle;
    }
    low.copysign(y)
}

const FUNCTIONS: &[(&str, Function, Reference)] = &[
    ("sqrt", |x| x.try_sqrt(), f64::sqrt),
    ("rsqrt", |x| x.try_rsqrt(), |x| 1.0 / x.sqrt()),
    ("reciprocal", |x| x.try_reciprocal(), |x| 1.0 / x),
    ("square", |x| x.try_square(), |x| x * x),
    ("exp", |x| x.try_exp(), f64::exp),
    ("exp2", |x| x.try_exp2(), f64::exp2),
    ("expm1", |x| x.try_expm1(), f64::exp_m1),
    ("log", |x| x.try_log(), f64::ln),
    ("log2", |x| x.try_log2(), f64::log2),
    ("log10", |x| x.try_log10(), f64::log10),
    ("log1p", |x| x.try_log1p(), f64::ln_1p),
    ("sin", |x| x.try_sin(), f64::sin),
    ("cos", |x| x.try_cos(), f64::cos),
    ("tan", |x| x.try_tan(), f64::tan),
    ("asin", |x| x.try_asin(), f64::asin),
    ("acos", |x| x.try_acos(), f64::acos),
    ("atan", |x| x.try_atan(), f64::atan),
    ("sinh", |x| x.try_sinh(), f64::sinh),
    ("cosh", |x| x.try_cosh(), f64::cosh),
    ("tanh", |x| x.try_tanh(), f64::tanh),
    ("asinh", |x| x.try_asinh(), libm::asinh),
    ("acosh", |x| x.try_acosh(), libm::acosh),
    ("atanh", |x| x.try_atanh(), libm::atanh),
    ("erf", |x| x.try_erf(), libm::erf),
    ("erfc", |x| x.try_erfc(), libm::erfc),
    ("sigmoid", |x| x.try_sigmoid(), reference_sigmoid),
    ("softplus", |x| x.try_softplus(), reference_softplus),
    ("log_sigmoid", |x| x.try_log_sigmoid(), |x| if x.is_nan() { x } else { x.min(0.0) - (-x.abs()).exp().ln_1p() }),
    ("softsign", |x| x.try_softsign(), |x| x / (1.0 + x.abs())),
    ("lgamma", |x| x.try_lgamma(), libm::lgamma),
];

/// The worst error, and where; errors are listed with their arguments.
fn worst(function: Function, reference: Reference, x: &[f32]) -> (f64, f32, f32, f64) {
    let y = function(&Tensor::from_slice(x, gradus_cpu::device())).and_then(|y| y.to_vec::<f32>());
    let y = y.unwrap_or_else(|e| panic!("{e}"));
    let measured = x.iter().zip(&y).map(|(&x, &y)| {
        let exact = reference(f64::from(x));
        (ulps(y, exact), x, y, exact)
    });
    measured.fold((0.0, 0.0, 0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
}

#[test]
fn functions_in_f32_are_within_four_units_of_f64() {
    let x = arguments(STEP);
    let mut wrong = Vec::new();
    for (name, function, reference) in FUNCTIONS {
        let (ulp, x, have, exact) = worst(*function, *reference, &x);
        println!("{name}: {ulp:.2} ulp at {x:e}");
        if ulp > ALLOWED {
            wrong.push(format!("{name} at {x:e}: {have:e} for {exact:e}, {ulp:.1} ulp"));
        }
    }
    assert!(wrong.is_empty(), "{} functions are not exact:\n  {}", wrong.len(), wrong.join("\n  "));
}

#[test]
fn erfinv_in_f32_is_within_four_units_of_f64() {
    let (ulp, x, have, exact) = worst(|x| x.try_erfinv(), reference_erfinv, &arguments(STEP * 16));
    println!("erfinv: {ulp:.2} ulp at {x:e}");
    assert!(ulp <= ALLOWED, "erfinv at {x:e}: {have:e} for {exact:e}, {ulp:.1} ulp");
}

/// The measure itself: it sees an error of five units, a lost sign of zero, and a NaN in a number's place.
#[test]
fn the_measure_sees_errors() {
    let off = f32::from_bits(1.5f32.to_bits() + 5);
    assert!((4.9..5.1).contains(&ulps(off, 1.5)));
    assert_eq!(ulps(f32::from_bits(3), f64::from(f32::from_bits(1))), 2.0);
    assert!(ulps(0.0, -0.0).is_infinite() && ulps(f32::NAN, 1.0).is_infinite() && ulps(1.0, f64::NAN).is_infinite());
    assert!(ulps(f32::INFINITY, 1e38).is_infinite() && ulps(f32::INFINITY, 1e39) == 0.0);
}
