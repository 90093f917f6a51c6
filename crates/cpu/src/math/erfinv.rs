//! The inverse error function.

/// The inverse error function: a rational start (M. Giles, 2010), then Newton steps in `f64`.
pub(crate) fn erfinv(y: f64) -> f64 {
    if y.abs() >= 1.0 {
        return if y.abs() == 1.0 { f64::INFINITY.copysign(y) } else { f64::NAN };
    }
    if y.is_nan() {
        return y;
    }
    let w = -((1.0 - y) * (1.0 + y)).ln();
    let horner = |c: &[f64], w: f64| c.iter().fold(0.0, |p, c| p * w + c);
    const CENTRAL: [f64; 9] = [
        2.81022636e-08,
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ];
    const TAIL: [f64; 9] = [
        -0.000200214257,
        0.000100950558,
        0.00134934322,
        -0.00367342844,
        0.00573950773,
        -0.0076224613,
        0.00943887047,
        1.00167406,
        2.83297682,
    ];
    let mut x = if w < 5.0 { horner(&CENTRAL, w - 2.5) } else { horner(&TAIL, w.sqrt() - 3.0) } * y;
    // Two steps suffice in the middle; the start is poor far out, where erfc is flat.
    for _ in 0..6 {
        // In the tails the complement keeps its digits where erf itself is rounded to 1.
        let error = if y.abs() < 0.5 { libm::erf(x) - y } else { (1.0 - y.abs()) - libm::erfc(x.abs()) };
        let error = if y.abs() < 0.5 { error } else { error.copysign(error) * y.signum() };
        x -= error / (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp());
    }
    x
}

#[cfg(test)]
mod tests {
    #[test]
    fn erfinv_inverts_erf() {
        for i in -999..=999 {
            let y = i as f64 / 1000.0;
            assert!((libm::erf(super::erfinv(y)) - y).abs() < 4e-16 * 4.0, "at {y}");
        }
        let far = 1.0 - 1e-12;
        assert!((libm::erfc(super::erfinv(far)) / (1.0 - far) - 1.0).abs() < 1e-9, "in the tail");
    }
}
