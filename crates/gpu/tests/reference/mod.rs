//! Plain loops in `f64`, which the kernels are compared with, and the numbers they are given.

use gradus_core::backend::Dims;
use gradus_core::ops::{BinaryOp, ReduceOp, ScatterOp, UnaryOp};
use gradus_core::rng::Key;

/// Numbers drawn from a fixed seed, named in every failure by the test's data.
pub struct Numbers(Key, u32);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(Key::new(seed), 0)
    }
    fn word(&mut self) -> u32 {
        self.1 += 1;
        self.0.block(self.1)[0]
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((self.word() as u64 * n as u64) >> 32) as usize
    }
    pub fn reals(&mut self, n: usize, lo: f64, hi: f64) -> Vec<f32> {
        (0..n).map(|_| (lo + (hi - lo) * f64::from(self.word()) / 4_294_967_296.0) as f32).collect()
    }
}

/// The rule of agreement: 1e-5 of the larger of 1 and the largest number there is.
pub fn assert_close(what: &str, got: &[f32], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let scale = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (&g, &w)) in got.iter().zip(wanted).enumerate() {
        assert!((f64::from(g) - w).abs() <= 1e-5 * scale, "{what}: element {i} is {g}, not {w}");
    }
}

/// From, to.
type Range = (f64, f64);
type F1 = fn(f64) -> f64;
type F2 = fn(f64, f64) -> f64;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// erf by its series, to double precision where it is used (|x| ≤ 4).
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// erf⁻¹ by bisection.
fn erfinv(y: f64) -> f64 {
    let (mut lo, mut hi) = (-4.0, 4.0);
    for _ in 0..80 {
        let mid = 0.5 * (lo + hi);
        if erf(mid) < y { lo = mid } else { hi = mid }
    }
    0.5 * (lo + hi)
}

/// A function of one real, and where to sample it; `None` for tests and bits.
pub fn unary(op: UnaryOp) -> Option<(f64, f64, F1)> {
    use UnaryOp::*;
    Some(match op {
        Neg => (-3.0, 3.0, |x| -x),
        Abs => (-3.0, 3.0, f64::abs),
        Sign => (-3.0, 3.0, f64::signum),
        Floor => (-3.4, 3.4, f64::floor),
        Ceil => (-3.4, 3.4, f64::ceil),
        Round => (-3.4, 3.4, f64::round_ties_even),
        Trunc => (-3.4, 3.4, f64::trunc),
        Frac => (-3.4, 3.4, f64::fract),
        Square => (-3.0, 3.0, |x| x * x),
        Sqrt => (0.0, 100.0, f64::sqrt),
        Rsqrt => (0.01, 10.0, |x| 1.0 / x.sqrt()),
        Reciprocal => (0.1, 10.0, f64::recip),
        Exp => (-20.0, 10.0, f64::exp),
        Exp2 => (-20.0, 10.0, f64::exp2),
        Expm1 => (-3.0, 3.0, f64::exp_m1),
        Log => (0.01, 10.0, f64::ln),
        Log2 => (0.01, 10.0, f64::log2),
        Log10 => (0.01, 10.0, f64::log10),
        Log1p => (-0.9, 5.0, f64::ln_1p),
        Sin => (-10.0, 10.0, f64::sin),
        Cos => (-10.0, 10.0, f64::cos),
        Tan => (-1.2, 1.2, f64::tan),
        Asin => (-1.0, 1.0, f64::asin),
        Acos => (-1.0, 1.0, f64::acos),
        Atan => (-9.0, 9.0, f64::atan),
        Sinh => (-3.0, 3.0, f64::sinh),
        Cosh => (-3.0, 3.0, f64::cosh),
        Tanh => (-5.0, 5.0, f64::tanh),
        Asinh => (-9.0, 9.0, f64::asinh),
        Acosh => (1.0, 9.0, f64::acosh),
        Atanh => (-0.95, 0.95, f64::atanh),
        Erf => (-3.0, 3.0, erf),
        Erfc => (-3.0, 3.0, |x| 1.0 - erf(x)),
        Erfinv => (-0.95, 0.95, erfinv),
        Sigmoid => (-20.0, 20.0, sigmoid),
        LogSigmoid => (-20.0, 20.0, |x| -(-x).exp().ln_1p()),
        Softplus => (-20.0, 20.0, |x| x.exp().ln_1p()),
        Relu => (-3.0, 3.0, |x| x.max(0.0)),
        Relu6 => (-3.0, 9.0, |x| x.clamp(0.0, 6.0)),
        Gelu => (-3.0, 3.0, |x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))),
        GeluTanh => (-4.0, 4.0, |x| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh())),
        Silu => (-9.0, 9.0, |x| x * sigmoid(x)),
        Mish => (-9.0, 9.0, |x| x * x.exp().ln_1p().tanh()),
        Softsign => (-3.0, 3.0, |x| x / (1.0 + x.abs())),
        HardSigmoid => (-4.0, 4.0, |x| (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        HardSwish => (-4.0, 4.0, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        IsNan | IsInf | IsFinite | LogicalNot | BitNot => return None,
    })
}

/// A function of two reals, and where to sample each; `None` for bits.
pub fn binary(op: BinaryOp) -> Option<(Range, Range, F2)> {
    use BinaryOp::*;
    let (both, right) = ((-3.0, 3.0), (0.5, 3.0));
    Some(match op {
        Add => (both, both, |a, b| a + b),
        Sub => (both, both, |a, b| a - b),
        Mul => (both, both, |a, b| a * b),
        Div => (both, right, |a, b| a / b),
        Pow => (right, both, f64::powf),
        Atan2 => (both, both, f64::atan2),
        Hypot => (both, both, f64::hypot),
        Maximum => (both, both, f64::max),
        Minimum => (both, both, f64::min),
        LogAddExp => (both, both, |a, b| (a.exp() + b.exp()).ln()),
        Copysign => (both, both, f64::copysign),
        Remainder => ((3.1, 3.9), (1.1, 1.5), |a, b| a - b * (a / b).floor()),
        Fmod => ((-3.9, -3.1), (1.1, 1.5), |a, b| a % b),
        FloorDivide => ((3.1, 3.9), (1.1, 1.5), |a, b| (a / b).floor()),
        Xlogy => (right, right, |a, b| a * b.ln()),
        BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => return None,
    })
}

/// For each element its coordinates, row-major.
fn coordinates(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let n: usize = shape.iter().product();
    (0..n).map(move |mut p| {
        let mut c = vec![0; shape.len()];
        for d in (0..shape.len()).rev() {
            c[d] = p % shape[d];
            p /= shape[d];
        }
        c
    })
}

pub fn reduce(x: &[f32], shape: &[usize], dims: Dims, op: ReduceOp) -> Vec<f64> {
    let kept: Vec<usize> = (0..shape.len()).filter(|&d| !dims.has(d)).collect();
    let outputs: usize = kept.iter().map(|&d| shape[d]).product();
    let mut out: Vec<Vec<f64>> = vec![Vec::new(); outputs];
    for (c, &v) in coordinates(shape).zip(x) {
        out[kept.iter().fold(0, |at, &d| at * shape[d] + c[d])].push(f64::from(v));
    }
    let one = |v: Vec<f64>| match op {
        ReduceOp::Mean => v.iter().sum::<f64>() / v.len() as f64,
        ReduceOp::Max => v.into_iter().fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Min => v.into_iter().fold(f64::INFINITY, f64::min),
        _ => v.iter().sum(),
    };
    out.into_iter().map(one).collect()
}

pub fn first_extreme(row: &[f32], largest: bool) -> usize {
    let mut best = 0;
    for (i, &v) in row.iter().enumerate() {
        let beats = if largest { v > row[best] } else { v < row[best] };
        if beats || v.is_nan() && !row[best].is_nan() {
            best = i;
        }
    }
    best
}

/// The elements of each line along `dim`: where it begins, how far apart they are, how many.
fn lines(shape: &[usize], dim: usize) -> Vec<(usize, usize, usize)> {
    let inner: usize = shape[dim + 1..].iter().product();
    let outer: usize = shape[..dim].iter().product();
    (0..outer * inner).map(|l| (l / inner * inner * shape[dim] + l % inner, inner, shape[dim])).collect()
}

pub fn cumsum(x: &[f32], shape: &[usize], dim: usize) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for (begin, step, n) in lines(shape, dim) {
        let mut sum = 0.0;
        for i in 0..n {
            sum += f64::from(x[begin + i * step]);
            out[begin + i * step] = sum;
        }
    }
    out
}

pub fn argsort(x: &[f32], shape: &[usize], dim: usize, descending: bool) -> Vec<i64> {
    let mut out = vec![0; x.len()];
    for (begin, step, n) in lines(shape, dim) {
        let key = |i: usize| x[begin + i * step];
        let mut order: Vec<usize> = (0..n).collect();
        let ascending = |a: f32, b: f32| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        order.sort_by(|&a, &b| if descending { ascending(key(b), key(a)) } else { ascending(key(a), key(b)) });
        order.into_iter().enumerate().for_each(|(i, place)| out[begin + i * step] = place as i64);
    }
    out
}

pub fn matmul(a: &[f32], b: &[f32], [batch, m, k, n]: [usize; 4]) -> Vec<f64> {
    let mut out = vec![0.0; batch * m * n];
    for t in 0..batch {
        for i in 0..m {
            for p in 0..k {
                let x = f64::from(a[(t * m + i) * k + p]);
                for j in 0..n {
                    out[(t * m + i) * n + j] += x * f64::from(b[(t * k + p) * n + j]);
                }
            }
        }
    }
    out
}

/// Scattering along dimension 1 of three, in `f32` and in the order of the source.
pub fn scatter(base: &[f32], b: [usize; 3], index: &[i64], src: &[f32], s: [usize; 3], op: ScatterOp) -> Vec<f32> {
    let mut out = base.to_vec();
    for (p, c) in coordinates(&s).enumerate() {
        let at = (c[0] * b[1] + index[p] as usize) * b[2] + c[2];
        match op {
            ScatterOp::Add => out[at] += src[p],
            ScatterOp::Set => out[at] = src[p],
        }
    }
    out
}
