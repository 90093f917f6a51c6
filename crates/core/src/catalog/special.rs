//! Elementwise functions made of others: the gamma function's, limits by tensors, NaN-aware ones, angles.

use super::{Entry, Fill, Input, input, reals};
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = of_one();
    entries.extend(of_two());
    entries.extend(of_more());
    entries
}

fn real(shape: &[usize], lo: f64, hi: f64) -> Input {
    input(shape, Fill::Real(lo, hi))
}

type One = fn(&Tensor) -> Result<Tensor>;
/// Name, PyTorch's name, what it computes, where it is sampled, the call.
type Row = (&'static str, &'static str, &'static str, (f64, f64), One);

fn of_one() -> Vec<Entry> {
    let rows: [Row; 8] = [
        ("sinc", "torch.sinc", "sin(πx)/(πx), 1 at 0.", (-2.0, 2.0), |x| x.try_sinc()),
        ("angle", "torch.angle", "π where x < 0, else 0.", (-2.0, 2.0), |x| x.try_angle()),
        ("deg2rad", "torch.deg2rad", "x·π/180.", (-200.0, 200.0), |x| x.try_deg2rad()),
        ("rad2deg", "torch.rad2deg", "x·180/π.", (-3.0, 3.0), |x| x.try_rad2deg()),
        ("lgamma", "torch.lgamma", "ln |Γ(x)|.", (0.2, 12.0), |x| x.try_lgamma()),
        ("digamma", "torch.digamma", "ψ(x), the derivative of ln Γ(x).", (0.6, 12.0), |x| x.try_digamma()),
        ("polygamma", "torch.polygamma", "ψ⁽ⁿ⁾(x), a derivative of ψ(x).", (0.8, 9.0), |x| x.try_polygamma(2)),
        ("nan_to_num", "torch.nan_to_num", "NaN and infinities replaced by numbers.", (-2.0, 2.0), |x| {
            x.try_nan_to_num(Some(1.0), None, None)
        }),
    ];
    rows.into_iter()
        .map(|(name, torch, doc, (lo, hi), run)| {
            let entry =
                Entry::new(name, torch, doc).elementwise().one(vec![real(&[2, 3], lo, hi)], move |x| run(&x[0]));
            if name == "lgamma" || name == "digamma" {
                // Between the poles.
                entry.one(vec![real(&[2, 3], -1.8, -1.2)], move |x| run(&x[0]))
            } else {
                entry
            }
        })
        .collect()
}

type Two = fn(&Tensor, &Tensor) -> Result<Tensor>;

fn of_two() -> Vec<Entry> {
    let rows: [(&'static str, &'static str, &'static str, Two); 4] = [
        ("fmax", "torch.fmax", "The larger one; a number wins over NaN.", |a, b| a.try_fmax(b)),
        ("fmin", "torch.fmin", "The smaller one; a number wins over NaN.", |a, b| a.try_fmin(b)),
        ("ldexp", "torch.ldexp", "a·2ᵇ.", |a, b| a.try_ldexp(b)),
        ("logaddexp2", "torch.logaddexp2", "log₂(2ᵃ + 2ᵇ), without overflow.", |a, b| a.try_logaddexp2(b)),
    ];
    let mut entries: Vec<Entry> = rows
        .into_iter()
        .map(|(name, torch, doc, run)| {
            Entry::new(name, torch, doc)
                .elementwise()
                .one(reals(&[&[2, 3], &[2, 3]]), move |x| run(&x[0], &x[1]))
                .one(reals(&[&[2, 1, 3], &[4, 1]]), move |x| run(&x[0], &x[1]))
        })
        .collect();
    entries.push(
        Entry::new("heaviside", "torch.heaviside", "0 below 0, 1 above, a given number at 0.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3]]), |x| x[0].try_heaviside(&x[1])),
    );
    entries.push(
        Entry::new("is_close", "torch.isclose", "Whether two numbers are equal but for a tolerance.")
            .elementwise()
            .without_gradient()
            .one(reals(&[&[2, 3], &[2, 3]]), |x| x[0].try_is_close(&x[1], 1e-5, 1.0, false)),
    );
    entries
}

fn of_more() -> Vec<Entry> {
    vec![
        Entry::new("clamp_tensor", "torch.clamp", "The elements limited by tensors.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3], &[2, 3]]), |x| x[0].try_clamp_tensor(Some(&x[1]), Some(&x[2])))
            .one(reals(&[&[2, 1, 3], &[4, 1]]), |x| x[0].try_clamp_tensor(Some(&x[1]), None))
            .one(reals(&[&[2, 1, 3], &[4, 1]]), |x| x[0].try_clamp_tensor(None, Some(&x[1]))),
    ]
}
