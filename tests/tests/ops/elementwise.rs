//! Functions of elements.

use super::{Outcome, no_word, one};
use gradus_core::ops::BinaryOp;
use gradus_core::{DType, Error, Result, Tensor};
use gradus_tests::golden::{Call, NOT_COMPARED};
use serde_json::Value;

/// A function of two tensors, or of a tensor and a number.
fn two(c: &Call<'_>, op: BinaryOp) -> Result<Tensor> {
    match c.tensor(1, "other") {
        Ok(Some(b)) => c.x(0)?.try_binary(op, &b),
        _ => c.x(0)?.try_binary_scalar(op, c.number(1, "other")?.unwrap_or(f64::NAN)),
    }
}

/// `a + alpha·b`, with the operands in the order given.
fn scaled(a: &Tensor, b: &Tensor, alpha: Option<f64>, op: BinaryOp) -> Result<Tensor> {
    let b = match alpha {
        Some(alpha) if alpha != 1.0 => b.try_binary_scalar(BinaryOp::Mul, alpha)?,
        _ => b.clone(),
    };
    a.try_binary(op, &b)
}

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    unary(name, c).or_else(|| activation(name, c)).or_else(|| binary(name, c)).or_else(|| ternary(name, c))
}

fn unary(name: &str, c: &Call<'_>) -> Outcome {
    let f: fn(&Tensor) -> Result<Tensor> = match name {
        "abs" => |x| x.try_abs(),
        "acos" => |x| x.try_acos(),
        "acosh" => |x| x.try_acosh(),
        "asin" => |x| x.try_asin(),
        "asinh" => |x| x.try_asinh(),
        "atan" => |x| x.try_atan(),
        "atanh" => |x| x.try_atanh(),
        "bitwise_not" => |x| x.try_bit_not(),
        "ceil" => |x| x.try_ceil(),
        "cos" => |x| x.try_cos(),
        "cosh" => |x| x.try_cosh(),
        "angle" => |x| x.try_angle(),
        "deg2rad" => |x| x.try_deg2rad(),
        "digamma" => |x| x.try_digamma(),
        "lgamma" => |x| x.try_lgamma(),
        "sinc" => |x| x.try_sinc(),
        "erf" => |x| x.try_erf(),
        "erfc" => |x| x.try_erfc(),
        "erfinv" => |x| x.try_erfinv(),
        "exp" => |x| x.try_exp(),
        "exp2" => |x| x.try_exp2(),
        "expm1" => |x| x.try_expm1(),
        "floor" => |x| x.try_floor(),
        "frac" => |x| x.try_frac(),
        "isfinite" => |x| x.try_is_finite(),
        "isinf" => |x| x.try_is_inf(),
        "isnan" => |x| x.try_is_nan(),
        "log" => |x| x.try_log(),
        "log10" => |x| x.try_log10(),
        "log1p" => |x| x.try_log1p(),
        "log2" => |x| x.try_log2(),
        "logical_not" => |x| x.try_logical_not(),
        "neg" => |x| x.try_neg(),
        "reciprocal" => |x| x.try_reciprocal(),
        "round" => |x| x.try_round(),
        "rsqrt" => |x| x.try_rsqrt(),
        "sigmoid" => |x| x.try_sigmoid(),
        "sign" => |x| x.try_sign(),
        "sin" => |x| x.try_sin(),
        "sinh" => |x| x.try_sinh(),
        "sqrt" => |x| x.try_sqrt(),
        "square" => |x| x.try_square(),
        "tan" => |x| x.try_tan(),
        "tanh" => |x| x.try_tanh(),
        "trunc" => |x| x.try_trunc(),
        "nn.functional.gelu" if c.word(1, "approximate") == Some("tanh") => |x| x.try_gelu_tanh(),
        "nn.functional.gelu" if matches!(c.arg(1, "approximate"), Value::Null) => |x| x.try_gelu(),
        "nn.functional.gelu" if c.word(1, "approximate") == Some("none") => |x| x.try_gelu(),
        "nn.functional.gelu" => return Some(no_word("approximation", c.word(1, "approximate"))),
        "nn.functional.hardsigmoid" => |x| x.try_hard_sigmoid(),
        "nn.functional.hardswish" => |x| x.try_hard_swish(),
        "nn.functional.logsigmoid" => |x| x.try_log_sigmoid(),
        "nn.functional.mish" => |x| x.try_mish(),
        "nn.functional.relu" => |x| x.try_relu(),
        "nn.functional.relu6" => |x| x.try_relu6(),
        "nn.functional.selu" => |x| x.try_selu(),
        "nn.functional.silu" => |x| x.try_silu(),
        "nn.functional.softsign" => |x| x.try_softsign(),
        "nn.functional.tanhshrink" => |x| x.try_tanhshrink(),
        _ => return None,
    };
    one(c.x(0).and_then(|x| f(&x)))
}

fn activation(name: &str, c: &Call<'_>) -> Outcome {
    let name = name.strip_prefix("nn.functional.").or((name == "logit").then_some(name))?;
    let f = |i, name, default: f64| Ok::<_, gradus_core::Error>(c.number(i, name)?.unwrap_or(default));
    let y = || {
        let x = c.x(0)?;
        match name {
            "celu" => x.try_celu(f(1, "alpha", 1.0)?),
            "elu" => x.try_elu(f(1, "alpha", 1.0)?),
            "glu" => x.try_glu(c.int(1, "dim")?.unwrap_or(-1)),
            "hardshrink" => x.try_hardshrink(f(1, "lambd", 0.5)?),
            "hardtanh" => x.try_hardtanh(f(1, "min_val", -1.0)?, f(2, "max_val", 1.0)?),
            "leaky_relu" => x.try_leaky_relu(f(1, "negative_slope", 0.01)?),
            "logit" => x.try_logit(c.number(1, "eps")?),
            "prelu" => x.try_prelu(&c.tensor(1, "weight")?.unwrap_or_else(|| x.clone())),
            "softplus" => {
                let (beta, threshold) = (f(1, "beta", 1.0)?, f(2, "threshold", 20.0)?);
                let scaled = x.try_binary_scalar(BinaryOp::Mul, beta)?;
                let soft = scaled.try_clamp(None, Some(threshold))?.try_softplus()? / beta;
                x.try_where(&scaled.try_gt_scalar(threshold)?, &soft)
            }
            "softshrink" => x.try_softshrink(f(1, "lambd", 0.5)?),
            "threshold" => x.try_threshold(f(1, "threshold", 0.0)?, f(2, "value", 0.0)?),
            "dropout" => {
                let p = if c.flag(2, "training", true) { f(1, "p", 0.5)? } else { 0.0 };
                if 0.0 < p && p < 1.0 {
                    return Err(Error::misuse(format!("{NOT_COMPARED}: the mask is a draw of PyTorch's generator")));
                }
                x.try_dropout(p, 1)
            }
            _ => unreachable!("listed below"),
        }
    };
    const NAMES: [&str; 12] = [
        "celu",
        "elu",
        "glu",
        "hardshrink",
        "hardtanh",
        "leaky_relu",
        "logit",
        "prelu",
        "softplus",
        "softshrink",
        "threshold",
        "dropout",
    ];
    if NAMES.contains(&name) { one(y()) } else { None }
}

fn binary(name: &str, c: &Call<'_>) -> Outcome {
    use BinaryOp::*;
    let op = match name {
        "mul" => Mul,
        "div.no_rounding_mode" => Div,
        "pow" => Pow,
        "atan2" => Atan2,
        "hypot" => Hypot,
        "maximum" | "max.binary" => Maximum,
        "minimum" | "min.binary" => Minimum,
        "logaddexp" => LogAddExp,
        "copysign" => Copysign,
        "remainder" => Remainder,
        "fmod" => Fmod,
        "floor_divide" | "div.floor_rounding" => FloorDivide,
        "xlogy" => Xlogy,
        "bitwise_and" => BitAnd,
        "bitwise_or" => BitOr,
        "bitwise_xor" => BitXor,
        _ => return compared(name, c),
    };
    one(two(c, op))
}

fn compared(name: &str, c: &Call<'_>) -> Outcome {
    let f: fn(&Tensor, &Tensor) -> Result<Tensor> = match name {
        "eq" => |a, b| a.try_eq(b),
        "ne" => |a, b| a.try_ne(b),
        "lt" => |a, b| a.try_lt(b),
        "le" => |a, b| a.try_le(b),
        "gt" => |a, b| a.try_gt(b),
        "ge" => |a, b| a.try_ge(b),
        "logical_and" => |a, b| a.try_logical_and(b),
        "logical_or" => |a, b| a.try_logical_or(b),
        "logical_xor" => |a, b| a.try_logical_xor(b),
        "div.trunc_rounding" => |a, b| a.try_div(b)?.try_trunc(),
        "logaddexp2" => |a, b| a.try_logaddexp2(b),
        "fmax" => |a, b| a.try_fmax(b),
        "fmin" => |a, b| a.try_fmin(b),
        "heaviside" => |a, b| a.try_heaviside(b),
        "ldexp" => |a, b| a.try_ldexp(b),
        "clamp_min" => |a, b| a.try_clamp_tensor(Some(b), None),
        "clamp_max" => |a, b| a.try_clamp_tensor(None, Some(b)),
        _ => return None,
    };
    one(c.x(0).and_then(|a| f(&a, &c.x(1)?)))
}

/// Limits that are numbers or tensors.
fn clamp(c: &Call<'_>) -> Result<Tensor> {
    let x = c.x(0)?;
    let limit = |i, name| c.tensor(i, name);
    match (limit(1, "min"), limit(2, "max")) {
        (Ok(low), Ok(high)) => x.try_clamp_tensor(low.as_ref(), high.as_ref()),
        _ => x.try_clamp(c.number(1, "min")?, c.number(2, "max")?),
    }
}

fn ternary(name: &str, c: &Call<'_>) -> Outcome {
    one(match name {
        "add" => c.x(0).and_then(|a| scaled(&a, &c.x(1)?, c.number(9, "alpha")?, BinaryOp::Add)),
        "sub" => c.x(0).and_then(|a| scaled(&a, &c.x(1)?, c.number(9, "alpha")?, BinaryOp::Sub)),
        "rsub" => c.x(0).and_then(|a| scaled(&c.x(1)?, &a, c.number(9, "alpha")?, BinaryOp::Sub)),
        "addcmul" => c.x(0).and_then(|x| x.try_addcmul(&c.x(1)?, &c.x(2)?, c.number(9, "value")?.unwrap_or(1.0))),
        "addcdiv" => c.x(0).and_then(|x| x.try_addcdiv(&c.x(1)?, &c.x(2)?, c.number(9, "value")?.unwrap_or(1.0))),
        "lerp" => c.x(0).and_then(|x| match c.x(2) {
            Ok(t) => x.try_lerp_tensor(&c.x(1)?, &t),
            Err(_) => x.try_lerp(&c.x(1)?, c.number(2, "weight")?.unwrap_or(f64::NAN)),
        }),
        "where" => c.x(0).and_then(|a| a.try_where(&c.x(1)?, &c.x(2)?)),
        "masked_fill" => c.x(0).and_then(|x| match c.x(2) {
            Ok(value) => value.try_where(&c.x(1)?, &x),
            Err(_) => x.try_masked_fill(&c.x(1)?, c.number(2, "value")?.unwrap_or(f64::NAN)),
        }),
        "clamp" => clamp(c),
        "nan_to_num" => {
            c.x(0).and_then(|x| x.try_nan_to_num(c.number(1, "nan")?, c.number(2, "posinf")?, c.number(3, "neginf")?))
        }
        "isclose" => c.x(0).and_then(|a| {
            let tolerance = |name, default: f64| Ok::<_, Error>(c.number(9, name)?.unwrap_or(default));
            let equal_nan = c.flag(9, "equal_nan", false);
            a.try_is_close(&c.x(1)?, tolerance("rtol", 1e-5)?, tolerance("atol", 1e-8)?, equal_nan)
        }),
        "float_power" => c.x(0).and_then(|x| {
            let x = x.try_to_dtype(DType::F64)?;
            match c.x(1) {
                Ok(b) => x.try_pow(&b.try_to_dtype(DType::F64)?),
                Err(_) => x.try_powf(c.number(1, "exponent")?.unwrap_or(f64::NAN)),
            }
        }),
        _ => return None,
    })
}
