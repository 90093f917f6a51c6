//! The gamma function's logarithm and its derivative, element by element in `f64`.

use crate::elementwise::map1;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::special::{Lgamma, Polygamma};
use gradus_core::{Buffer, DType, Result, View};
use std::f64::consts::PI;

/// Nanoseconds for an element, about.
const COST: usize = 40;

/// ψ(x): raised to 10 by the recurrence ψ(x + 1) = ψ(x) + 1/x, and from there by the asymptotic series (Abramowitz & Stegun,
/// 6.3.18); below 0 by reflection.
fn digamma(x: f64) -> f64 {
    /// B₂ₖ/2k
    const SERIES: [f64; 7] =
        [1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0, 1.0 / 12.0];
    if x == 0.0 {
        return f64::INFINITY.copysign(-x);
    }
    if x < 0.0 {
        let rest = x - x.round();
        return if rest == 0.0 { f64::NAN } else { digamma(1.0 - x) - PI / (PI * rest).tan() };
    }
    let (mut x, mut y) = (x, 0.0);
    while x < 10.0 {
        y -= 1.0 / x;
        x += 1.0;
    }
    let z = 1.0 / (x * x);
    let series = SERIES.iter().rev().fold(0.0, |s, c| (s + c) * z);
    y + x.ln() - 0.5 / x - series
}

fn mapped(x: View<'_>, f: fn(f64) -> f64) -> Result<Option<Buffer>> {
    Ok(Some(match x.dtype {
        DType::F32 => map1::<f32, f32>(x, COST, move |x, y| {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(f64::from(x)) as f32);
        })?,
        DType::F64 => map1::<f64, f64>(x, COST, move |x, y| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)))?,
        _ => return Ok(None),
    }))
}

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Lgamma>| Ok(mapped(c.x[0], libm::lgamma)?.map(Fused::one)));
    table.register(|c: FusedCall<'_, Polygamma>| match c.op.0 {
        0 => Ok(mapped(c.x[0], digamma)?.map(Fused::one)),
        _ => Ok(None),
    });
}

#[cfg(test)]
mod tests {
    use super::digamma;

    #[test]
    fn digamma_at_known_places() {
        // ψ(1) = −γ, ψ(½) = −γ − 2 ln 2, ψ(−½) = ψ(½) + 2, ψ(10) = H₉ − γ.
        const GAMMA: f64 = 0.577_215_664_901_532_9;
        let h9: f64 = (1..10).map(|k| 1.0 / f64::from(k)).sum();
        let half = -GAMMA - 2.0 * std::f64::consts::LN_2;
        for (x, y) in [(1.0, -GAMMA), (0.5, half), (-0.5, half + 2.0), (10.0, h9 - GAMMA)] {
            // Near a zero of ψ, as at −½, terms of about 2 cancel, here and in the number expected: what is left is as exact as they.
            let scale = if y.abs() < 0.1 { 2.0 } else { y.abs() };
            assert!((digamma(x) - y).abs() <= 4.0 * f64::EPSILON * scale, "at {x}: {} for {y}", digamma(x));
        }
        assert_eq!(digamma(0.0), f64::NEG_INFINITY);
        assert_eq!(digamma(-0.0), f64::INFINITY);
        assert!(digamma(-3.0).is_nan() && digamma(f64::NAN).is_nan());
    }
}
