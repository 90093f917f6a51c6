//! How a tensor prints: as NumPy prints an array under `np.set_printoptions(precision=4)`; `{:.8}` is NumPy's own default.
//!
//! The rules are those of NumPy's `arrayprint.py`: the shortest digits that tell a number from its neighbours, at most
//! `precision` of them behind the point; one width for all; exponents where the numbers span more than 1000-fold or leave the
//! dtype's digits; the middle left out beyond 1000 elements; lines of at most 75 characters.

use super::{Tensor, TensorData};
use crate::dtype::DType;
use std::fmt;

/// Beyond this many elements, the middle of each dimension is left out.
const SUMMARIZE_OVER: usize = 1000;
/// How many elements stay at each end then.
const EDGE: usize = 3;
/// Digits behind the point, unless the format asks for another number.
const PRECISION: usize = 4;
const LINE_WIDTH: usize = 75;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = match self.detach().to_data() {
            Ok(data) => data,
            Err(e) => return write!(f, "<{} {} on {}: {e}>", self.dtype(), self.shape(), self.device()),
        };
        let shown = Shown::new(&data, f.precision().unwrap_or(PRECISION));
        f.write_str(&shown.block(0, 0, " ", LINE_WIDTH))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {} on {}", self.dtype(), self.shape(), self.device())?;
        if let Some(op) = self.made_by() {
            write!(f, ", from {op}")?;
        }
        f.write_str(")")
    }
}

/// The places of each dimension that are shown (`None` marks an ellipsis), and how a number is written.
struct Shown<'a> {
    data: &'a TensorData,
    picks: Vec<Vec<Option<usize>>>,
    style: Style,
}

impl<'a> Shown<'a> {
    fn new(data: &'a TensorData, precision: usize) -> Shown<'a> {
        let n: usize = data.shape.iter().product();
        let picks: Vec<Vec<Option<usize>>> = data
            .shape
            .iter()
            .map(|&d| {
                if n > SUMMARIZE_OVER && d > 2 * EDGE {
                    (0..EDGE).map(Some).chain([None]).chain((d - EDGE..d).map(Some)).collect()
                } else {
                    (0..d).map(Some).collect()
                }
            })
            .collect();
        let mut places = vec![0usize];
        for (d, p) in data.shape.iter().zip(&picks) {
            places = places.iter().flat_map(|&at| p.iter().flatten().map(move |i| at * d + i)).collect();
        }
        Shown { style: Style::of(&places, data, precision), data, picks }
    }

    /// The text of what lies at `at` from dimension `dim` on; later lines begin with `indent` and are `width` long.
    fn block(&self, dim: usize, at: usize, indent: &str, width: usize) -> String {
        let rank = self.data.shape.len();
        if dim == rank {
            return self.style.show(self.data, at);
        }
        let (len, mut text) = (self.data.shape[dim], String::new());
        if self.data.shape.contains(&0) {
            return "[]".into();
        }
        let last = self.picks[dim].len() - 1;
        if dim + 1 == rank {
            let mut line = indent.to_owned();
            for (k, pick) in self.picks[dim].iter().enumerate() {
                let word = pick.map_or("...".into(), |i| self.style.show(self.data, at * len + i));
                // A bracket has to fit after the last word, and so after each.
                if line.len() > indent.len() && line.len() + word.len() > width.saturating_sub(1) {
                    text += line.trim_end();
                    text.push('\n');
                    line = indent.to_owned();
                }
                line += &word;
                if k < last {
                    line.push(' ');
                }
            }
            text += &line;
        } else {
            for (k, pick) in self.picks[dim].iter().enumerate() {
                text += indent;
                match pick {
                    Some(i) => text += &self.block(dim + 1, at * len + i, &format!("{indent} "), width - 1),
                    None => text += "...",
                }
                if k < last {
                    // One empty line less for each dimension further in.
                    text += &"\n".repeat(rank - 1 - dim);
                }
            }
        }
        format!("[{}]", &text[indent.len()..])
    }
}

/// One number format for a whole tensor.
#[derive(Clone, Copy)]
enum Style {
    /// Text or whole numbers, all of one width.
    Plain { width: usize },
    /// At most `precision` digits behind the point; `left` characters before it and `right` behind.
    Positional { precision: usize, left: usize, right: usize },
    /// `fraction` digits behind the mantissa's point, `exponent` digits at least.
    Scientific { fraction: usize, exponent: usize, left: usize },
}

impl Style {
    fn of(places: &[usize], data: &TensorData, precision: usize) -> Style {
        let widest = |text: &mut dyn Iterator<Item = usize>| text.max().unwrap_or(0);
        if !data.dtype.is_float() {
            return Style::Plain { width: widest(&mut places.iter().map(|&i| plain(data, i).len())) };
        }
        let finite: Vec<f64> = places.iter().map(|&i| data.f64_at(i)).filter(|x| x.is_finite()).collect();
        // `nan` and `inf` stand in the same columns as the numbers.
        let other =
            widest(&mut places.iter().map(|&i| data.f64_at(i)).filter(|x| !x.is_finite()).map(|x| special(x).len()));
        if finite.is_empty() {
            return Style::Plain { width: other };
        }
        let magnitudes = finite.iter().map(|x| x.abs()).filter(|&x| x > 0.0);
        let (max, min) = magnitudes.fold((0.0f64, f64::INFINITY), |(max, min), x| (max.max(x), min.min(x)));
        let digits = match data.dtype {
            DType::Bf16 => 2,
            DType::F16 => 3,
            DType::F32 => 6,
            _ => 8,
        };
        if max > 0.0 && (max >= 10f64.powi(digits) || min < 1e-4 || max / min > 1000.0) {
            let parts: Vec<[String; 3]> = finite.iter().map(|&x| scientific(x, data.dtype, precision)).collect();
            let part = |i: usize| widest(&mut parts.iter().map(|p| p[i].len()));
            let (fraction, exponent) = (part(1), part(2).saturating_sub(1));
            return Style::Scientific {
                fraction,
                exponent,
                left: part(0).max(other.saturating_sub(fraction + exponent + 3)),
            };
        }
        let parts: Vec<(String, String)> = finite.iter().map(|&x| positional(x, data.dtype, precision)).collect();
        let right = widest(&mut parts.iter().map(|p| p.1.len()));
        let left = widest(&mut parts.iter().map(|p| p.0.len())).max(other.saturating_sub(right + 1));
        Style::Positional { precision, left, right }
    }

    fn show(self, data: &TensorData, i: usize) -> String {
        let x = if data.dtype.is_float() { data.f64_at(i) } else { 0.0 };
        let scalar = data.shape.is_empty();
        match self {
            Style::Plain { width } if data.dtype.is_float() => format!("{:>width$}", special(x)),
            Style::Plain { width } => format!("{:>width$}", plain(data, i)),
            Style::Positional { left, right, .. } if !x.is_finite() => format!("{:>1$}", special(x), left + 1 + right),
            Style::Scientific { fraction, exponent, left } if !x.is_finite() => {
                format!("{:>1$}", special(x), left + 1 + fraction + exponent + 2)
            }
            Style::Positional { precision, left, right } => {
                let (whole, part) = positional(x, data.dtype, precision);
                if scalar {
                    format!("{whole}.{}", if part.is_empty() { "0" } else { &part })
                } else {
                    format!("{whole:>left$}.{part:<right$}")
                }
            }
            Style::Scientific { fraction, exponent, left } => {
                let [whole, part, exp] = scientific(x, data.dtype, fraction);
                let (sign, number) = exp.split_at(1);
                format!("{whole:>left$}.{part:0<fraction$}e{sign}{number:0>exponent$}")
            }
        }
    }
}

fn plain(data: &TensorData, i: usize) -> String {
    match data.dtype {
        DType::Bool => if data.bytes[i] != 0 { "True" } else { "False" }.into(),
        _ => data.i64_at(i).to_string(),
    }
}

fn special(x: f64) -> &'static str {
    match (x.is_nan(), x > 0.0) {
        (true, _) => "nan",
        (_, true) => "inf",
        _ => "-inf",
    }
}

/// The digits before and behind the point: the fewest that tell the number from its neighbours, at most `precision` behind.
fn positional(x: f64, dtype: DType, precision: usize) -> (String, String) {
    // The narrow floats are told apart by no more digits than an `f32`.
    let shortest = if dtype == DType::F64 { format!("{x}") } else { format!("{}", x as f32) };
    let (whole, part) = shortest.split_once('.').unwrap_or((&shortest, ""));
    if part.len() <= precision {
        return (whole.into(), part.into());
    }
    let rounded = format!("{x:.precision$}");
    let (whole, part) = rounded.split_once('.').unwrap_or((&rounded, ""));
    (whole.into(), part.trim_end_matches('0').into())
}

/// The mantissa before and behind its point, and the exponent with its sign and at least two digits.
fn scientific(x: f64, dtype: DType, precision: usize) -> [String; 3] {
    let shortest = if dtype == DType::F64 { format!("{x:e}") } else { format!("{:e}", x as f32) };
    let behind = shortest.split_once('e').map_or(0, |(m, _)| m.split_once('.').map_or(0, |(_, part)| part.len()));
    let text = if behind <= precision { shortest } else { format!("{x:.precision$e}") };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, number) = exponent.strip_prefix('-').map_or(("+", exponent), |n| ("-", n));
    [whole.into(), part.trim_end_matches('0').into(), format!("{sign}{number:0>2}")]
}
