//! Elementwise functions outside the tables: choosing, limiting, numbers as operands, activations with parameters.

use super::{Entry, Fill, Input, input, reals, spreads};
use crate::dtype::DType;
use crate::error::Result;
use crate::functional::dropout::{Dropout, DropoutGrad};
use crate::ops::BinaryOp;
use crate::rng::Key;
use crate::scalar::{Scalar, Slot};
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = choices();
    entries.extend(numbers());
    entries.extend(compared());
    entries.extend(limits());
    entries.extend(activations());
    entries.extend(random());
    entries
}

fn real(shape: &[usize], lo: f64, hi: f64) -> Input {
    input(shape, Fill::Real(lo, hi))
}

fn choices() -> Vec<Entry> {
    let mask = |shape: &[usize]| input(shape, Fill::Bool);
    vec![
        Entry::new("where_", "torch.where", "The first's elements where a condition holds, else the second's.")
            .elementwise()
            .one([vec![mask(&[2, 3])], reals(&[&[2, 3], &[2, 3]])].concat(), |x| x[1].try_where(&x[0], &x[2]))
            .one([vec![mask(&[4, 1])], reals(&[&[2, 1, 3], &[4, 1]])].concat(), |x| x[1].try_where(&x[0], &x[2]))
            .one([vec![mask(&[3])], reals(&[&[], &[2, 3]])].concat(), |x| x[1].try_where(&x[0], &x[2])),
        Entry::new("masked_fill", "torch.Tensor.masked_fill", "A number where a mask holds.")
            .elementwise()
            .one([vec![mask(&[2, 3])], reals(&[&[2, 3]])].concat(), |x| x[1].try_masked_fill(&x[0], 0.5))
            .one([vec![mask(&[4, 1])], reals(&[&[2, 1, 3]])].concat(), |x| x[1].try_masked_fill(&x[0], -1i64)),
        Entry::new("to_dtype", "torch.Tensor.to", "The same numbers in another dtype.")
            .elementwise()
            .one(reals(&[&[2, 3]]), |x| x[0].try_to_dtype(DType::F64)),
    ]
}

fn numbers() -> Vec<Entry> {
    const NUMBERED: [BinaryOp; 12] = [
        BinaryOp::Add,
        BinaryOp::Sub,
        BinaryOp::Mul,
        BinaryOp::Div,
        BinaryOp::Pow,
        BinaryOp::Atan2,
        BinaryOp::Hypot,
        BinaryOp::Maximum,
        BinaryOp::Minimum,
        BinaryOp::LogAddExp,
        BinaryOp::Copysign,
        BinaryOp::Xlogy,
    ];
    let mut right =
        Entry::new("binary_scalar", "torch.add(x, 2.0)", "A function of each element and a number on its right.")
            .elementwise();
    let mut left = Entry::new("scalar_binary", "torch.rsub", "A function of a number and each element.").elementwise();
    for op in NUMBERED {
        right = right.one(vec![real(&[2, 3], 0.4, 3.0)], move |x| x[0].try_binary_scalar(op, 1.7));
        left = left.one(vec![real(&[2, 3], 0.4, 3.0)], move |x| x[0].try_scalar_binary(op, 1.7));
    }
    for op in [BinaryOp::Remainder, BinaryOp::Fmod, BinaryOp::FloorDivide] {
        right = right.one(vec![real(&[2, 3], 3.1, 3.9)], move |x| x[0].try_binary_scalar(op, 1.5));
        left = left.one(vec![real(&[2, 3], 1.1, 1.4)], move |x| x[0].try_scalar_binary(op, 3.5));
    }
    right = right
        .one(vec![real(&[2, 3], 0.4, 3.0)], |x| x[0].try_binary_scalar(BinaryOp::Mul, 3i64))
        .one(vec![real(&[2, 3], 0.4, 3.0)], |x| x[0].try_binary_scalar(BinaryOp::Add, Scalar::Slot(Slot::new(0.25))));
    let mut powf = Entry::new("powf", "torch.pow", "Each element to the power of a number.").elementwise();
    for exponent in [2.0, 3.0, 1.0, 0.0, -2.0] {
        // Whole exponents are right for negative numbers, too.
        powf = powf.one(vec![real(&[2, 3], -2.0, -0.4)], move |x| x[0].try_powf(exponent));
    }
    for exponent in [-1.0, 0.5, 1.5, -0.5, 2.5] {
        powf = powf.one(vec![real(&[2, 3], 0.4, 3.0)], move |x| x[0].try_powf(exponent));
    }
    vec![right, left, powf.one(vec![real(&[2, 3], 0.4, 2.0)], |x| x[0].try_powf(4i64))]
}

type CompareScalar = fn(&Tensor, f64) -> Result<Tensor>;

fn compared() -> Vec<Entry> {
    let rows: [(&'static str, &'static str, CompareScalar); 9] = [
        ("eq_scalar", "torch.eq", |x, s| x.try_eq_scalar(s)),
        ("ne_scalar", "torch.ne", |x, s| x.try_ne_scalar(s)),
        ("lt_scalar", "torch.lt", |x, s| x.try_lt_scalar(s)),
        ("le_scalar", "torch.le", |x, s| x.try_le_scalar(s)),
        ("gt_scalar", "torch.gt", |x, s| x.try_gt_scalar(s)),
        ("ge_scalar", "torch.ge", |x, s| x.try_ge_scalar(s)),
        ("logical_and_scalar", "torch.logical_and", |x, s| x.try_logical_and_scalar(s)),
        ("logical_or_scalar", "torch.logical_or", |x, s| x.try_logical_or_scalar(s)),
        ("logical_xor_scalar", "torch.logical_xor", |x, s| x.try_logical_xor_scalar(s)),
    ];
    rows.into_iter()
        .map(|(name, torch, run)| {
            Entry::new(name, torch, "A comparison of each element with a number.")
                .elementwise()
                .without_gradient()
                .one(vec![input(&[4, 3], Fill::Int(0, 3))], move |x| run(&x[0], 1.0))
                .one(reals(&[&[4, 3]]), move |x| run(&x[0], 0.5))
        })
        .collect()
}

fn limits() -> Vec<Entry> {
    vec![
        Entry::new("clamp", "torch.clamp", "The elements limited to a range.")
            .elementwise()
            .one(spreads(&[&[3, 4]]), |x| x[0].try_clamp(Some(-0.7), Some(0.9)))
            .one(spreads(&[&[3, 4]]), |x| x[0].try_clamp(None, Some(0.9)))
            .one(spreads(&[&[3, 4]]), |x| x[0].try_clamp(Some(-0.7), None)),
        Entry::new("chain", "torch.compile", "Elementwise functions in one pass.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3]]), |x| {
                Tensor::try_chain([&x[0], &x[1]], |[a, b]| (a * b + 1.0).tanh() / (2.0 + b.square()))
            })
            .one(reals(&[&[2, 1, 3], &[4, 1]]), |x| {
                Tensor::try_chain([&x[0], &x[1]], |[a, b]| (a - b).sigmoid() * b - 0.5 / (a.exp() + 1.0))
            })
            .one(reals(&[&[5]]), |x| Tensor::try_chain([&x[0]], |[a]| -a.silu().gelu() + a * a * a))
            // Whose gradient is the definition's: a power's is no short chain.
            .one(spreads(&[&[3, 2], &[3, 2]]), |x| {
                Tensor::try_chain([&x[0], &x[1]], |[a, b]| (a.square() + 1.0).powf(1.5).maximum(b) * b)
            })
            .large(reals(&[&[97, 701], &[701]]), |x| {
                Tensor::try_chain([&x[0], &x[1]], |[a, b]| (a * 0.7 + b).tanh() * (b - a.sin()))
            }),
        Entry::new("lerp", "torch.lerp", "A part of the way from one to the other.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3]]), |x| x[0].try_lerp(&x[1], 0.3))
            .one(reals(&[&[2, 1, 3], &[4, 1]]), |x| x[0].try_lerp(&x[1], 0.3)),
        Entry::new("lerp_tensor", "torch.lerp", "A part of the way from one to the other, the part a tensor.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3], &[2, 3]]), |x| x[0].try_lerp_tensor(&x[1], &x[2]))
            .one(reals(&[&[2, 1, 3], &[4, 1], &[3]]), |x| x[0].try_lerp_tensor(&x[1], &x[2])),
        Entry::new("addcmul", "torch.addcmul", "x + value·a·b.")
            .elementwise()
            .one(reals(&[&[2, 3], &[2, 3], &[2, 3]]), |x| x[0].try_addcmul(&x[1], &x[2], 0.7))
            .one(reals(&[&[2, 1, 3], &[4, 1], &[3]]), |x| x[0].try_addcmul(&x[1], &x[2], -1.5)),
        Entry::new("addcdiv", "torch.addcdiv", "x + value·a/b.")
            .elementwise()
            .one(vec![real(&[2, 3], -2.0, 2.0), real(&[2, 3], -2.0, 2.0), real(&[2, 3], 0.5, 2.0)], |x| {
                x[0].try_addcdiv(&x[1], &x[2], 0.7)
            }),
        Entry::new("logit", "torch.logit", "ln(x / (1 − x)), of x limited to [eps, 1 − eps] where one is given.")
            .elementwise()
            .one(vec![real(&[2, 3], 0.1, 0.9)], |x| x[0].try_logit(None))
            .one(vec![input(&[2, 5], Fill::Spread(0.01, 0.99))], |x| x[0].try_logit(Some(0.15))),
    ]
}

type Activation = fn(&Tensor) -> Result<Tensor>;

fn activations() -> Vec<Entry> {
    let rows: [(&'static str, &'static str, &'static str, &'static [Activation]); 9] = [
        (
            "leaky_relu",
            "torch.nn.functional.leaky_relu",
            "x where x > 0, else slope·x.",
            &[|x| x.try_leaky_relu(0.01), |x| x.try_leaky_relu(0.3)],
        ),
        (
            "elu",
            "torch.nn.functional.elu",
            "x where x > 0, else alpha·(eˣ − 1).",
            &[|x| x.try_elu(1.0), |x| x.try_elu(1.6)],
        ),
        (
            "celu",
            "torch.nn.functional.celu",
            "max(x, 0) + min(alpha·(e^(x/alpha) − 1), 0).",
            &[|x| x.try_celu(1.0), |x| x.try_celu(1.6)],
        ),
        ("selu", "torch.nn.functional.selu", "ELU scaled to keep mean and variance.", &[|x| x.try_selu()]),
        (
            "hardtanh",
            "torch.nn.functional.hardtanh",
            "x limited to a range, without a gradient at its limits.",
            &[|x| x.try_hardtanh(-1.1, 0.8)],
        ),
        ("hardshrink", "torch.nn.functional.hardshrink", "x where |x| > lambda, else 0.", &[|x| x.try_hardshrink(0.5)]),
        ("softshrink", "torch.nn.functional.softshrink", "x moved towards 0 by lambda.", &[|x| x.try_softshrink(0.5)]),
        ("tanhshrink", "torch.nn.functional.tanhshrink", "x − tanh(x).", &[|x| x.try_tanhshrink()]),
        (
            "threshold",
            "torch.nn.functional.threshold",
            "x where x > threshold, else a number.",
            &[|x| x.try_threshold(0.2, -3.0)],
        ),
    ];
    let mut entries: Vec<Entry> = rows
        .into_iter()
        .map(|(name, torch, doc, runs)| {
            runs.iter().fold(Entry::new(name, torch, doc).elementwise(), |entry, run| {
                entry.one(vec![input(&[2, 4], Fill::Spread(-2.6, 2.2))], move |x| run(&x[0]))
            })
        })
        .collect();
    entries.push(
        Entry::new(
            "prelu",
            "torch.nn.functional.prelu",
            "x where x > 0, else w·x, w one number or one for each channel.",
        )
        .one(reals(&[&[2, 3], &[3]]), |x| x[0].try_prelu(&x[1]))
        .one(reals(&[&[2, 3, 2], &[3]]), |x| x[0].try_prelu(&x[1]))
        .one(reals(&[&[5], &[1]]), |x| x[0].try_prelu(&x[1])),
    );
    entries.push(
        Entry::new("glu", "torch.nn.functional.glu", "a·sigmoid(b), a and b the halves of a dimension.")
            .one(reals(&[&[2, 6]]), |x| x[0].try_glu(-1))
            .one(reals(&[&[4, 2, 2]]), |x| x[0].try_glu(0)),
    );
    entries
}

fn random() -> Vec<Entry> {
    vec![
        Entry::new("dropout", "torch.nn.functional.dropout", "Elements zeroed at random, the rest scaled up.")
            .elementwise()
            .one(reals(&[&[4, 5]]), |x| x[0].try_dropout(0.4, Key::new(3).fold("dropout")))
            .one(reals(&[&[4, 5]]), |x| x[0].try_dropout(0.0, 3))
            .one(reals(&[&[4, 5]]), |x| x[0].try_dropout(1.0, 3))
            // Blocks of a kept mask, and a part of one.
            .large(reals(&[&[7, 1111]]), |x| x[0].try_dropout(0.3, 4)),
        Entry::new("dropout_add", "torch.nn.functional.dropout", "dropout(x) + residual.")
            .one(reals(&[&[4, 5], &[4, 5]]), |x| x[0].try_dropout_add(&x[1], 0.4, Key::new(3).fold("dropout")))
            .one(reals(&[&[4, 5], &[4, 5]]), |x| x[0].try_dropout_add(&x[1], 1.0, 3))
            .large(reals(&[&[7, 1111], &[7, 1111]]), |x| x[0].try_dropout_add(&x[1], 0.3, 4)),
        Entry::new("dropout_grad", "torch.native_dropout_backward", "The gradient of dropout.")
            .one(reals(&[&[4, 5]]), |x| dropout_grad(0.0, &x[0]))
            .one(reals(&[&[4, 5]]), |x| dropout_grad(1.0, &x[0])),
    ]
}

/// With nothing dropped, or everything: of 20 elements the first row of sixteen is whole, and the second has four.
fn dropout_grad(p: f64, g: &Tensor) -> Result<Tensor> {
    let words = |n: usize, bits: u32| Tensor::try_full([n], bits, g.device().with(DType::U32));
    let (both, first) = if p == 0.0 { (3, 1) } else { (0, 0) };
    let mask = Tensor::try_cat(&[&words(4, both)?, &words(12, first)?], 0)?;
    Tensor::try_compose1(DropoutGrad(Dropout { p, key: Key::new(3) }), &[g, &mask])
}
