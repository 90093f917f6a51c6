//! How a tensor prints: as NumPy prints an array, with its dtype and device where they are not the usual ones.

use super::{Tensor, TensorData};
use std::fmt;

/// Beyond this many elements, the middle of each dimension is left out.
const SUMMARIZE_OVER: usize = 1000;
/// How many elements stay at each end then.
const EDGE: usize = 3;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = match self.detach().to_data() {
            Ok(data) => data,
            Err(e) => return write!(f, "<{} {} on {}: {e}>", self.dtype(), self.shape(), self.device()),
        };
        let shown = Shown::new(&data, f.precision());
        shown.write(f, 0, 0, 0)
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

/// The elements to be shown, formatted to one width.
struct Shown<'a> {
    shape: &'a [usize],
    text: Vec<String>,
    /// Row-major places of the shown elements are found through this: `None` marks an ellipsis.
    picks: Vec<Vec<Option<usize>>>,
    width: usize,
}

impl<'a> Shown<'a> {
    fn new(data: &'a TensorData, precision: Option<usize>) -> Shown<'a> {
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
        let style = Style::of(places.iter().map(|&i| data.f64_at(i)), data, precision);
        let mut text = vec![String::new(); n.min(places.last().map_or(0, |l| l + 1))];
        for &i in &places {
            text[i] = style.show(data, i);
        }
        let width = text.iter().map(String::len).max().unwrap_or(0);
        Shown { shape: &data.shape, text, picks, width }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, dim: usize, at: usize, indent: usize) -> fmt::Result {
        if dim == self.shape.len() {
            return match self.text.get(at) {
                Some(t) if dim > 0 => write!(f, "{t:>width$}", width = self.width),
                Some(t) => f.write_str(t),
                None => Ok(()),
            };
        }
        f.write_str("[")?;
        let last = dim + 1 == self.shape.len();
        for (k, pick) in self.picks[dim].iter().enumerate() {
            if k > 0 && last {
                f.write_str(" ")?;
            } else if k > 0 {
                // One empty line less for each dimension further in, as NumPy separates its blocks.
                f.write_str(&"\n".repeat(self.shape.len() - 1 - dim))?;
                f.write_str(&" ".repeat(indent + 1))?;
            }
            match pick {
                Some(i) => self.write(f, dim + 1, at * self.shape[dim] + i, indent + 1)?,
                None => f.write_str("...")?,
            }
        }
        f.write_str("]")
    }
}

/// One number format for a whole tensor.
#[derive(Clone, Copy)]
enum Style {
    Bool,
    Int,
    Fixed(usize),
    Scientific(usize),
}

impl Style {
    fn of(shown: impl Iterator<Item = f64>, data: &TensorData, precision: Option<usize>) -> Style {
        if data.dtype == crate::dtype::DType::Bool {
            return Style::Bool;
        }
        if !data.dtype.is_float() {
            return Style::Int;
        }
        let digits = precision.unwrap_or(4);
        let finite: Vec<f64> = shown.filter(|x| x.is_finite()).map(f64::abs).collect();
        let max = finite.iter().copied().fold(0.0, f64::max);
        let min = finite.iter().copied().filter(|&x| x > 0.0).fold(f64::INFINITY, f64::min);
        if max >= 1e8
            || (min < 1e-4 && max > 0.0 && min.is_finite())
            || (min.is_finite() && max / min > 1e3 && max >= 1e4)
        {
            Style::Scientific(digits)
        } else if finite.iter().all(|x| x.fract() == 0.0) && precision.is_none() {
            Style::Fixed(0)
        } else {
            Style::Fixed(digits)
        }
    }

    fn show(self, data: &TensorData, i: usize) -> String {
        let x = data.f64_at(i);
        match self {
            Style::Bool => (x != 0.0).to_string(),
            Style::Int => data.i64_at(i).to_string(),
            _ if x.is_nan() => "nan".into(),
            _ if x.is_infinite() => if x > 0.0 { "inf" } else { "-inf" }.into(),
            Style::Fixed(0) => format!("{x:.0}."),
            Style::Fixed(d) => format!("{x:.d$}"),
            Style::Scientific(d) => {
                // Rust writes 1e-7, NumPy 1e-07.
                let s = format!("{x:.d$e}");
                match s.split_once('e') {
                    Some((m, e)) => match e.strip_prefix('-') {
                        Some(e) => format!("{m}e-{e:0>2}"),
                        None => format!("{m}e+{e:0>2}"),
                    },
                    None => s,
                }
            }
        }
    }
}
