//! Uniform, normal and truncated normal numbers on the host, laid out as [`gradus_core::rng`] lays out a device's.

use gradus_core::rng::{self, Key};
use gradus_core::{Error, Result};
use std::f64::consts::PI;

/// Uniform on [low, high).
pub(super) fn uniform(n: usize, low: f64, high: f64, key: &Key) -> Result<Vec<f64>> {
    if !(low.is_finite() && high.is_finite() && low <= high) {
        return Err(Error::misuse(format!("a uniform range needs finite bounds in order; got {low}..{high}")));
    }
    Ok(words(n, key, |w| low + (high - low) * rng::uniform(w) as f64))
}

/// Normal.
pub(super) fn normal(n: usize, mean: f64, std: f64, key: &Key) -> Result<Vec<f64>> {
    check_normal(mean, std)?;
    let mut out = Vec::with_capacity(n.next_multiple_of(4));
    for block in 0..blocks(n) {
        let w = key.block(block);
        for (a, b) in [rng::normal_pair(w[0], w[1]), rng::normal_pair(w[2], w[3])] {
            out.extend([mean + std * a, mean + std * b]);
        }
    }
    out.truncate(n);
    Ok(out)
}

/// Normal, given that it lies in [low, high], by the inverse of the distribution function.
pub(super) fn trunc_normal(n: usize, (mean, std): (f64, f64), (low, high): (f64, f64), key: &Key) -> Result<Vec<f64>> {
    check_normal(mean, std)?;
    // The infinite ends on the wrong side leave nothing to draw; NaN compares false.
    let in_order = low < high && low < f64::INFINITY && high > f64::NEG_INFINITY;
    if !in_order {
        return Err(Error::misuse(format!("a truncated normal needs low < high; got {low} and {high}")));
    }
    if std == 0.0 {
        return Ok(vec![mean.clamp(low, high); n]);
    }
    let (a, b) = ((low - mean) / std, (high - mean) / std);
    // The lower tail is where probabilities keep their digits: an interval above the mean is drawn mirrored.
    let (sign, a, b) = if a > 0.0 { (-1.0, -b, -a) } else { (1.0, a, b) };
    let (from, to) = (cumulative(a), cumulative(b));
    Ok(words(n, key, |w| {
        let u = rng::uniform(w) as f64 + 0.5 / 16_777_216.0; // the middle of its cell: never 0 or 1
        let z = inverse_cumulative(from + u * (to - from)).clamp(a, b);
        (mean + std * sign * z).clamp(low, high)
    }))
}

fn check_normal(mean: f64, std: f64) -> Result<()> {
    if !(mean.is_finite() && std.is_finite() && std >= 0.0) {
        return Err(Error::misuse(format!(
            "a normal distribution needs a finite mean and a std of at least 0; got {mean} and {std}"
        )));
    }
    Ok(())
}

/// One number for each word: word `i % 4` of block `i / 4`.
fn words(n: usize, key: &Key, f: impl Fn(u32) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(n.next_multiple_of(4));
    for block in 0..blocks(n) {
        out.extend(key.block(block).map(&f));
    }
    out.truncate(n);
    out
}

fn blocks(n: usize) -> u32 {
    // 2³⁴ numbers of 8 bytes are more than the shapes of parameters come to.
    n.div_ceil(4).min(u32::MAX as usize) as u32
}

/// Φ(x), the normal distribution function: by its series near 0, by a continued fraction in the tails.
/// (Abramowitz & Stegun, 26.2.11 and 26.2.14.)
fn cumulative(x: f64) -> f64 {
    if x == f64::NEG_INFINITY {
        return 0.0;
    }
    if x > 0.0 {
        return 1.0 - cumulative(-x);
    }
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    let z = -x;
    if z < 3.0 {
        let (mut term, mut sum, mut k) = (z, z, 1.0);
        while term > sum * 1e-17 {
            k += 2.0;
            term *= z * z / k;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    // 1/(z + 1/(z + 2/(z + 3/(z + …)))), from the inside out.
    let fraction = (1..=100).rev().fold(0.0, |f, k| k as f64 / (z + f));
    density / (z + fraction)
}

/// Φ⁻¹(p): the rational approximation of Acklam for a start, and two steps of Halley's method to full precision.
fn inverse_cumulative(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let mut x = start(p);
    for _ in 0..2 {
        let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        if density == 0.0 {
            break; // so far out that the start is the best there is
        }
        let step = (cumulative(x) - p) / density;
        x -= step / (1.0 + x * step / 2.0);
    }
    x
}

/// Φ⁻¹ to 1e-9 (P. J. Acklam, "An algorithm for computing the inverse normal cumulative distribution function", 2003).
fn start(p: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -54.476_098_798_224_06,
        161.585_836_858_040_9,
        -155.698_979_859_886_6,
        66.801_311_887_719_72,
        -13.280_681_552_885_72,
        1.0,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] =
        [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    let at = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        at(&C, q) / at(&D, q)
    } else if p > 1.0 - 0.024_25 {
        -start(1.0 - p)
    } else {
        let q = p - 0.5;
        at(&A, q * q) * q / at(&B, q * q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against values of SciPy's `norm.cdf` (17 digits).
    #[test]
    fn the_distribution_function_has_the_published_values() {
        for (x, p) in [
            (0.0, 0.5),
            (-1.0, 0.158_655_253_931_457_05),
            (-2.0, 0.022_750_131_948_179_212),
            (-3.0, 0.001_349_898_031_630_094_6),
            (-5.0, 2.866_515_718_791_946e-7),
            (-10.0, 7.619_853_024_160_593e-24),
            (1.5, 0.933_192_798_731_141_9),
        ] {
            assert!((cumulative(x) - p).abs() <= 1e-13 * p, "Φ({x}) = {} instead of {p}", cumulative(x));
        }
    }

    #[test]
    fn the_inverse_undoes_the_distribution_function() {
        for i in -80..=50 {
            let x = i as f64 / 10.0;
            let back = inverse_cumulative(cumulative(x));
            // Above 0, 1 − Φ loses digits: that is why intervals there are drawn mirrored.
            let tolerance = if x > 3.0 { 1e-8 } else { 1e-11 };
            assert!((back - x).abs() < tolerance, "{x} came back as {back}");
        }
        assert_eq!(inverse_cumulative(0.0), f64::NEG_INFINITY);
    }
}
