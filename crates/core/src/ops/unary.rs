//! Functions of one element: a row each. A new one is a row here and a kernel row in each backend.
//!
//! A row gives the variant, the method and its `try_` twin, PyTorch's name, what the dtype does, what the gradient keeps, where
//! the tests sample it, and the gradient in tensors (so that it can be differentiated again).

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, View};
use crate::composite::Composite;
use crate::dtype::DType;
use crate::error::{Error, Result, or_raise};
use crate::op::{Meta, Metas, Op, Outs, Saves, Tensors, new, one};
use crate::precision::Autocast;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// What a unary op does with the dtype.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnaryKind {
    /// Computed in floating point; integers and `bool` become `f32` first.
    Float,
    /// Any number, and the dtype stays.
    Number,
    /// Any dtype in, `bool` out.
    Test,
    /// Integers and `bool`.
    Bits,
}

/// A row of the table, for the catalog.
pub(crate) struct Row {
    pub op: UnaryOp,
    pub method: &'static str,
    pub torch: &'static str,
    pub doc: &'static str,
    pub domain: (f64, f64),
    pub run: fn(&Tensor) -> Result<Tensor>,
}

macro_rules! unary_ops {
    ($(
        $(#[doc = $doc:literal])+
        $op:ident => $method:ident | $try_method:ident, $torch:literal, $kind:ident, saves $saves:ident, on $lo:literal..=$hi:literal
            $(, |$g:ident, $x:ident, $y:ident| $vjp:expr)?;
    )*) => {
        /// The functions of one element.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum UnaryOp {$(
            $(#[doc = $doc])+
            $op,
        )*}

        impl UnaryOp {
            /// Every variant.
            pub const ALL: &'static [UnaryOp] = &[$(UnaryOp::$op),*];
            /// The method's name.
            pub const fn name(self) -> &'static str {
                match self { $(UnaryOp::$op => stringify!($method),)* }
            }
            /// What it does with the dtype.
            pub const fn kind(self) -> UnaryKind {
                match self { $(UnaryOp::$op => UnaryKind::$kind,)* }
            }
            pub(crate) const fn saves(self) -> Saves {
                match self { $(UnaryOp::$op => Saves::$saves,)* }
            }
            /// The gradient, given what the op saves.
            fn gradient(self, g: &Tensor, x: Option<&Tensor>, y: Option<&Tensor>) -> Option<Tensor> {
                match self { $(UnaryOp::$op => unary_ops!(@vjp $saves, g, x, y $(, |$g, $x, $y| $vjp)?),)* }
            }
        }

        pub(crate) fn rows() -> Vec<Row> {
            vec![$(Row {
                op: UnaryOp::$op,
                method: stringify!($method),
                torch: $torch,
                doc: concat!($($doc, "\n"),+),
                domain: ($lo, $hi),
                run: |x| x.$try_method(),
            }),*]
        }

        impl Tensor {
            crate::fallible! {$(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nIn PyTorch: `", $torch, "`.")]
                pub fn $method | $try_method(&self) -> Tensor { self.try_unary(UnaryOp::$op) }
            )*}
        }
    };
    (@vjp $saves:ident, $gv:ident, $xv:ident, $yv:ident) => { { let _ = ($gv, $xv, $yv); None } };
    (@vjp NOTHING, $gv:ident, $xv:ident, $yv:ident, |$g:ident, $x:ident, $y:ident| $vjp:expr) => { { let $g = $gv; let _ = ($xv, $yv); Some($vjp) } };
    (@vjp INPUTS, $gv:ident, $xv:ident, $yv:ident, |$g:ident, $x:ident, $y:ident| $vjp:expr) => { { let ($g, $x) = ($gv, $xv?); let _ = $yv; Some($vjp) } };
    (@vjp OUTPUT, $gv:ident, $xv:ident, $yv:ident, |$g:ident, $x:ident, $y:ident| $vjp:expr) => { { let ($g, $y) = ($gv, $yv?); let _ = $xv; Some($vjp) } };
    (@vjp BOTH, $gv:ident, $xv:ident, $yv:ident, |$g:ident, $x:ident, $y:ident| $vjp:expr) => { { let ($g, $x, $y) = ($gv, $xv?, $yv?); Some($vjp) } };
}

const FRAC_2_SQRT_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI;
const FRAC_1_SQRT_2: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// 1/√(2π), the height of the normal density.
const NORMAL_HEIGHT: f64 = 0.398_942_280_401_432_7;
/// √(2/π), of GELU's tanh form.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBE: f64 = 0.044_715;

unary_ops! {
    /// The negative. ∂ = −g
    Neg => neg | try_neg, "torch.neg", Number, saves NOTHING, on -3.0..=3.0, |g, _x, _y| g.neg();
    /// The absolute value. ∂ = g·sign(x), 0 at 0
    Abs => abs | try_abs, "torch.abs", Number, saves INPUTS, on -3.0..=3.0, |g, x, _y| g * x.sign();
    /// −1, 0 or 1, as x is negative, zero or positive; 0 for NaN. ∂ = 0
    Sign => sign | try_sign, "torch.sign", Number, saves NOTHING, on -3.0..=3.0, |g, _x, _y| g.zeros_like();
    /// The largest integer that is not above. ∂ = 0
    Floor => floor | try_floor, "torch.floor", Number, saves NOTHING, on -3.4..=3.4, |g, _x, _y| g.zeros_like();
    /// The smallest integer that is not below. ∂ = 0
    Ceil => ceil | try_ceil, "torch.ceil", Number, saves NOTHING, on -3.4..=3.4, |g, _x, _y| g.zeros_like();
    /// The nearest integer, the even one of two. ∂ = 0
    Round => round | try_round, "torch.round", Number, saves NOTHING, on -3.4..=3.4, |g, _x, _y| g.zeros_like();
    /// The integer part, towards zero. ∂ = 0
    Trunc => trunc | try_trunc, "torch.trunc", Number, saves NOTHING, on -3.4..=3.4, |g, _x, _y| g.zeros_like();
    /// What truncation leaves: x − trunc(x). ∂ = g
    Frac => frac | try_frac, "torch.frac", Float, saves NOTHING, on 0.1..=0.9, |g, _x, _y| g.clone();
    /// The square. ∂ = 2gx
    Square => square | try_square, "torch.square", Number, saves INPUTS, on -3.0..=3.0, |g, x, _y| g * x * 2.0;
    /// The square root. ∂ = g / 2√x
    Sqrt => sqrt | try_sqrt, "torch.sqrt", Float, saves OUTPUT, on 0.1..=4.0, |g, _x, y| g / (y * 2.0);
    /// One over the square root. ∂ = −g·y³/2
    Rsqrt => rsqrt | try_rsqrt, "torch.rsqrt", Float, saves OUTPUT, on 0.2..=4.0, |g, _x, y| g * y * y * y * -0.5;
    /// One over x. ∂ = −g·y²
    Reciprocal => reciprocal | try_reciprocal, "torch.reciprocal", Float, saves OUTPUT, on 0.3..=3.0, |g, _x, y| (g * y * y).neg();
    /// eˣ. ∂ = g·eˣ
    Exp => exp | try_exp, "torch.exp", Float, saves OUTPUT, on -3.0..=3.0, |g, _x, y| g * y;
    /// 2ˣ. ∂ = g·2ˣ·ln 2
    Exp2 => exp2 | try_exp2, "torch.exp2", Float, saves OUTPUT, on -3.0..=3.0, |g, _x, y| g * y * std::f64::consts::LN_2;
    /// eˣ − 1, exact near 0. ∂ = g·eˣ
    Expm1 => expm1 | try_expm1, "torch.expm1", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| g * x.exp();
    /// The natural logarithm. ∂ = g/x
    Log => log | try_log, "torch.log", Float, saves INPUTS, on 0.2..=5.0, |g, x, _y| g / x;
    /// The binary logarithm. ∂ = g / (x ln 2)
    Log2 => log2 | try_log2, "torch.log2", Float, saves INPUTS, on 0.2..=5.0, |g, x, _y| g / (x * std::f64::consts::LN_2);
    /// The decimal logarithm. ∂ = g / (x ln 10)
    Log10 => log10 | try_log10, "torch.log10", Float, saves INPUTS, on 0.2..=5.0, |g, x, _y| g / (x * std::f64::consts::LN_10);
    /// ln(1 + x), exact near 0. ∂ = g / (1 + x)
    Log1p => log1p | try_log1p, "torch.log1p", Float, saves INPUTS, on -0.7..=3.0, |g, x, _y| g / (x + 1.0);
    /// The sine. ∂ = g·cos x
    Sin => sin | try_sin, "torch.sin", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| g * x.cos();
    /// The cosine. ∂ = −g·sin x
    Cos => cos | try_cos, "torch.cos", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| (g * x.sin()).neg();
    /// The tangent. ∂ = g·(1 + y²)
    Tan => tan | try_tan, "torch.tan", Float, saves OUTPUT, on -1.2..=1.2, |g, _x, y| g * (y * y + 1.0);
    /// The inverse sine. ∂ = g / √(1 − x²)
    Asin => asin | try_asin, "torch.asin", Float, saves INPUTS, on -0.8..=0.8, |g, x, _y| g * (1.0 - x * x).rsqrt();
    /// The inverse cosine. ∂ = −g / √(1 − x²)
    Acos => acos | try_acos, "torch.acos", Float, saves INPUTS, on -0.8..=0.8, |g, x, _y| (g * (1.0 - x * x).rsqrt()).neg();
    /// The inverse tangent. ∂ = g / (1 + x²)
    Atan => atan | try_atan, "torch.atan", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| g / (x * x + 1.0);
    /// The hyperbolic sine. ∂ = g·cosh x
    Sinh => sinh | try_sinh, "torch.sinh", Float, saves INPUTS, on -2.0..=2.0, |g, x, _y| g * x.cosh();
    /// The hyperbolic cosine. ∂ = g·sinh x
    Cosh => cosh | try_cosh, "torch.cosh", Float, saves INPUTS, on -2.0..=2.0, |g, x, _y| g * x.sinh();
    /// The hyperbolic tangent. ∂ = g·(1 − y²)
    Tanh => tanh | try_tanh, "torch.tanh", Float, saves OUTPUT, on -3.0..=3.0, |g, _x, y| g * (1.0 - y * y);
    /// The inverse hyperbolic sine. ∂ = g / √(x² + 1)
    Asinh => asinh | try_asinh, "torch.asinh", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| g * (x * x + 1.0).rsqrt();
    /// The inverse hyperbolic cosine. ∂ = g / √(x² − 1)
    Acosh => acosh | try_acosh, "torch.acosh", Float, saves INPUTS, on 1.3..=4.0, |g, x, _y| g * (x * x - 1.0).rsqrt();
    /// The inverse hyperbolic tangent. ∂ = g / (1 − x²)
    Atanh => atanh | try_atanh, "torch.atanh", Float, saves INPUTS, on -0.8..=0.8, |g, x, _y| g / (1.0 - x * x);
    /// The error function. ∂ = g·2/√π·e^(−x²)
    Erf => erf | try_erf, "torch.erf", Float, saves INPUTS, on -2.0..=2.0, |g, x, _y| g * (x * x).neg().exp() * FRAC_2_SQRT_PI;
    /// 1 − erf(x), exact for large x. ∂ = −g·2/√π·e^(−x²)
    Erfc => erfc | try_erfc, "torch.erfc", Float, saves INPUTS, on -2.0..=2.0, |g, x, _y| g * (x * x).neg().exp() * -FRAC_2_SQRT_PI;
    /// The inverse error function. ∂ = g·√π/2·e^(y²)
    Erfinv => erfinv | try_erfinv, "torch.erfinv", Float, saves OUTPUT, on -0.8..=0.8, |g, _x, y| g * (y * y).exp() / FRAC_2_SQRT_PI;
    /// The logistic function 1 / (1 + e⁻ˣ). ∂ = g·y·(1 − y)
    Sigmoid => sigmoid | try_sigmoid, "torch.sigmoid", Float, saves OUTPUT, on -4.0..=4.0, |g, _x, y| g * (y * (1.0 - y));
    /// ln sigmoid(x), without overflow. ∂ = g·sigmoid(−x)
    LogSigmoid => log_sigmoid | try_log_sigmoid, "torch.nn.functional.logsigmoid", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| g * x.neg().sigmoid();
    /// ln(1 + eˣ), without overflow. ∂ = g·sigmoid(x)
    Softplus => softplus | try_softplus, "torch.nn.functional.softplus", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| g * x.sigmoid();
    /// max(x, 0); NaN stays NaN. ∂ = g where y > 0, else 0
    Relu => relu | try_relu, "torch.relu", Number, saves OUTPUT, on -3.0..=3.0, |g, _x, y| g.masked_fill(&y.le_scalar(0.0), 0.0);
    /// min(max(x, 0), 6). ∂ = g where 0 < x < 6, else 0
    Relu6 => relu6 | try_relu6, "torch.nn.functional.relu6", Number, saves INPUTS, on -3.0..=9.0, |g, x, _y| g.masked_fill(&x.le_scalar(0.0).logical_or(&x.ge_scalar(6.0)), 0.0);
    /// x·Φ(x) with the exact normal distribution function: x/2·(1 + erf(x/√2)). ∂ = g·(Φ(x) + x·φ(x))
    Gelu => gelu | try_gelu, "torch.nn.functional.gelu", Float, saves INPUTS, on -3.0..=3.0,
        |g, x, _y| g * (((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5 + x * (x * x * -0.5).exp() * NORMAL_HEIGHT);
    /// GELU's tanh form: x/2·(1 + tanh(√(2/π)·(x + 0.044715x³))). ∂ = g·(½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 3·0.044715x²)), t the tanh
    GeluTanh => gelu_tanh | try_gelu_tanh, "torch.nn.functional.gelu(approximate='tanh')", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| {
        let x2 = x * x;
        let t = (x * (&x2 * GELU_CUBE + 1.0) * GELU_SCALE).tanh();
        g * ((&t + 1.0) * 0.5 + x * (1.0 - &t * &t) * (x2 * (3.0 * GELU_CUBE) + 1.0) * (0.5 * GELU_SCALE))
    };
    /// x·sigmoid(x). ∂ = g·s·(1 + x·(1 − s)), s the sigmoid
    Silu => silu | try_silu, "torch.nn.functional.silu", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| {
        let s = x.sigmoid();
        g * (&s * (x * (1.0 - &s) + 1.0))
    };
    /// x·tanh(softplus(x)). ∂ = g·(t + x·sigmoid(x)·(1 − t²)), t the tanh
    Mish => mish | try_mish, "torch.nn.functional.mish", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| {
        let t = x.softplus().tanh();
        g * (&t + x * x.sigmoid() * (1.0 - &t * &t))
    };
    /// x / (1 + |x|). ∂ = g / (1 + |x|)²
    Softsign => softsign | try_softsign, "torch.nn.functional.softsign", Float, saves INPUTS, on -3.0..=3.0, |g, x, _y| g / (x.abs() + 1.0).square();
    /// min(max(x/6 + ½, 0), 1). ∂ = g/6 where |x| < 3, else 0
    HardSigmoid => hard_sigmoid | try_hard_sigmoid, "torch.nn.functional.hardsigmoid", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| (g / 6.0).masked_fill(&x.abs().ge_scalar(3.0), 0.0);
    /// x·hard_sigmoid(x). ∂ = g·(x/3 + ½) where |x| < 3, 0 where x ≤ −3, else g
    HardSwish => hard_swish | try_hard_swish, "torch.nn.functional.hardswish", Float, saves INPUTS, on -4.0..=4.0, |g, x, _y| {
        let inner = (g * (x / 3.0 + 0.5)).masked_fill(&x.le_scalar(-3.0), 0.0);
        inner.where_(&x.lt_scalar(3.0), g)
    };
    /// Whether it is NaN.
    IsNan => is_nan | try_is_nan, "torch.isnan", Test, saves NOTHING, on -3.0..=3.0;
    /// Whether it is infinite.
    IsInf => is_inf | try_is_inf, "torch.isinf", Test, saves NOTHING, on -3.0..=3.0;
    /// Whether it is neither infinite nor NaN.
    IsFinite => is_finite | try_is_finite, "torch.isfinite", Test, saves NOTHING, on -3.0..=3.0;
    /// Whether it is zero.
    LogicalNot => logical_not | try_logical_not, "torch.logical_not", Test, saves NOTHING, on -3.0..=3.0;
    /// Every bit turned over; for `bool`, the negation.
    BitNot => bit_not | try_bit_not, "torch.bitwise_not", Bits, saves NOTHING, on -9.0..=9.0;
}

impl UnaryOp {
    /// Exponentials, logarithms, and what grows or steepens as they do, keep `f32` under a half precision.
    const fn autocast(self) -> Autocast {
        use UnaryOp::*;
        match self {
            Square | Rsqrt | Reciprocal | Exp | Exp2 | Expm1 | Log | Log2 | Log10 | Log1p | Tan | Asin | Acos
            | Sinh | Cosh | Acosh | Atanh | Erfinv | LogSigmoid | Softplus => Autocast::Full,
            _ => Autocast::Widest,
        }
    }
}

/// A function of each element.
#[derive(Clone, Copy, Debug)]
pub struct Unary(pub UnaryOp);

impl Op for Unary {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn autocast(&self) -> Autocast {
        self.0.autocast()
    }
    #[inline]
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let d = x[0].dtype;
        let out = match self.0.kind() {
            UnaryKind::Float if !d.is_float() => {
                return Err(Error::misuse(format!("needs a floating-point tensor, not {d}")));
            }
            UnaryKind::Number if d == DType::Bool => return Err(Error::misuse("needs numbers, not bool")),
            UnaryKind::Bits if d.is_float() => return Err(Error::misuse(format!("needs integers or bool, not {d}"))),
            UnaryKind::Test => DType::Bool,
            _ => d,
        };
        Ok(one(out, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        Ok(new(on.unary(self.0, x[0])?))
    }
    fn saves(&self) -> Saves {
        self.0.saves()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let saves = self.0.saves();
        if saves == Saves::NOTHING {
            return smallvec![self.0.gradient(cx.grad_ref(), None, None)];
        }
        let (g, gradient) = (cx.grad_ref(), UnaryGrad(self.0));
        let dx = match (saves.has_inputs(), saves.has_outputs()) {
            (true, false) => Tensor::try_compose1(gradient, &[g, cx.x_ref(0)]),
            (false, _) => Tensor::try_compose1(gradient, &[g, cx.y_ref()]),
            (true, true) => Tensor::try_compose1(gradient, &[g, cx.x_ref(0), cx.y_ref()]),
        };
        Grads::from_buf_and_len([Some(or_raise(dx)), None, None], 1)
    }
}

/// The gradient of a unary op: of the output's gradient and what the op saves (the input, the output, or both). Defined by
/// the op's row; a backend may run it in one pass.
#[derive(Clone, Copy, Debug)]
pub struct UnaryGrad(pub UnaryOp);

impl UnaryGrad {
    /// Whether the second input is the op's output (else it is the op's input).
    pub fn takes_output(&self) -> bool {
        self.0.saves() == Saves::OUTPUT
    }
}

impl Composite for UnaryGrad {
    fn name(&self) -> &'static str {
        "unary_grad"
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        let saves = self.0.saves();
        let n = 1 + usize::from(saves.has_input(0)) + usize::from(saves.has_outputs());
        if x.len() != n || x.iter().any(|m| m != &x[0]) {
            return Err(Error::misuse(format!(
                "the gradient of {} needs {n} tensors of one dtype and shape",
                self.0.name()
            )));
        }
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn define(&self, x: &[&Tensor]) -> Result<Tensors> {
        let saves = self.0.saves();
        let input = saves.has_input(0).then(|| x[1]);
        let output = saves.has_outputs().then(|| x[x.len() - 1]);
        match self.0.gradient(x[0], input, output) {
            Some(g) => Ok(smallvec![g]),
            None => Err(Error::misuse(format!("{} has no gradient", self.0.name()))),
        }
    }
}

impl Tensor {
    /// A function of each element; integers become `f32` where it is computed in floating point.
    #[track_caller]
    pub fn try_unary(&self, op: UnaryOp) -> Result<Tensor> {
        if op.kind() == UnaryKind::Float && !self.dtype().is_float() {
            return Tensor::try_apply1(Unary(op), &[&self.try_to_dtype(DType::F32)?]);
        }
        Tensor::try_apply1(Unary(op), &[self])
    }
}
