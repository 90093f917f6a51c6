//! The tables of elementwise ops and reductions: an entry for each row.

use super::{Case, Entry, Fill, case, input};
use crate::ops::{UnaryKind, rows};
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = unary();
    entries.extend(binary());
    entries.extend(compare());
    entries.extend(reduce());
    entries
}

fn unary() -> Vec<Entry> {
    rows::unary()
        .into_iter()
        .map(|row| {
            let (lo, hi) = row.domain;
            let fill =
                if row.op.kind() == UnaryKind::Bits { Fill::Int(lo as i64, hi as i64) } else { Fill::Real(lo, hi) };
            let run = row.run;
            Entry {
                name: row.method,
                torch: row.torch,
                doc: row.doc,
                elementwise: true,
                differentiable: matches!(row.op.kind(), UnaryKind::Float | UnaryKind::Number),
                host: false,
                cases: vec![case(vec![input(&[2, 3], fill)], move |x| Ok(vec![run(&x[0])?]))],
            }
        })
        .collect()
}

fn binary() -> Vec<Entry> {
    use crate::ops::BinaryOp::{BitAnd, BitOr, BitXor, ShiftLeft, ShiftRight};
    rows::binary()
        .into_iter()
        .map(|row| {
            let bits = matches!(row.op, BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight);
            let fill = |(lo, hi): (f64, f64)| if bits { Fill::Int(lo as i64, hi as i64) } else { Fill::Real(lo, hi) };
            let (a, b, run) = (fill(row.domains.0), fill(row.domains.1), row.run);
            Entry {
                name: row.method,
                torch: row.torch,
                doc: row.doc,
                elementwise: true,
                differentiable: !bits,
                host: false,
                cases: vec![
                    case(vec![input(&[2, 3], a), input(&[2, 3], b)], move |x| Ok(vec![run(&x[0], &x[1])?])),
                    case(vec![input(&[2, 1, 3], a), input(&[4, 1], b)], move |x| Ok(vec![run(&x[0], &x[1])?])),
                ],
            }
        })
        .collect()
}

fn compare() -> Vec<Entry> {
    rows::compare()
        .into_iter()
        .map(|row| {
            let run = row.run;
            let fill = Fill::Int(0, 3);
            Entry {
                name: row.method,
                torch: row.torch,
                doc: row.doc,
                elementwise: true,
                differentiable: false,
                host: false,
                cases: vec![case(vec![input(&[4, 3], fill), input(&[3], fill)], move |x| Ok(vec![run(&x[0], &x[1])?]))],
            }
        })
        .collect()
}

fn reduce() -> Vec<Entry> {
    use crate::ops::ReduceOp::{All, Any, Prod};
    rows::reduce()
        .into_iter()
        .map(|row| {
            let (all, dims) = (row.all, row.dims);
            let fill = Fill::Spread(-2.0, 2.0);
            let long = |shape: &[usize], over: &'static [isize]| {
                let run = move |x: &[Tensor]| Ok(vec![dims(&x[0], over, false)?]);
                Case { large: true, ..case(vec![input(shape, fill)], run) }
            };
            // A product of many numbers is 0 or infinite, so only short ones are taken of many.
            let large = match row.op {
                Prod => vec![long(&[9001, 13], &[1])],
                _ => vec![
                    long(&[250_001], &[0]),
                    long(&[613, 401], &[0]),
                    long(&[613, 401], &[1]),
                    long(&[41, 53, 101], &[0, 2]),
                ],
            };
            let small = vec![
                case(vec![input(&[2, 3], fill)], move |x| Ok(vec![all(&x[0])?])),
                case(vec![input(&[2, 3, 2], fill)], move |x| Ok(vec![dims(&x[0], &[1], false)?])),
                case(vec![input(&[2, 3, 2], fill)], move |x| Ok(vec![dims(&x[0], &[0, -1], true)?])),
                case(vec![input(&[], fill)], move |x| Ok(vec![all(&x[0])?])),
            ];
            Entry {
                name: row.op.name(),
                torch: row.torch,
                doc: row.doc,
                elementwise: false,
                differentiable: !matches!(row.op, Any | All),
                host: false,
                cases: [small, large].concat(),
            }
        })
        .collect()
}
