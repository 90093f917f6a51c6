//! Functions of two elements: a row each, with broadcasting and one promotion table.

use crate::autodiff::{Grads, Vjp};
use crate::backend::{Backend, Operand, View};
use crate::dtype::DType;
use crate::error::{Error, Result, or_raise};
use crate::layout::Layout;
use crate::op::{Meta, Metas, Op, Outs, Saves, new, one};
use crate::precision::Autocast;
use crate::scalar::Scalar;
use crate::shape::Shape;
use crate::tensor::Tensor;
use smallvec::smallvec;

/// What a binary op does with the dtype, after promotion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinaryKind {
    /// Any number, and the dtype stays.
    Number,
    /// Computed in floating point; integers become `f32` first.
    Float,
    /// Integers and `bool`.
    Bits,
}

/// A row of the table, for the catalog.
pub(crate) struct Row {
    pub op: BinaryOp,
    pub method: &'static str,
    pub torch: &'static str,
    pub doc: &'static str,
    pub domains: ((f64, f64), (f64, f64)),
    pub run: fn(&Tensor, &Tensor) -> Result<Tensor>,
}

macro_rules! binary_ops {
    ($(
        $(#[doc = $doc:literal])+
        $op:ident => $method:ident | $try_method:ident, $torch:literal, $kind:ident, saves $saves:ident, on ($lo:literal..=$hi:literal, $lo2:literal..=$hi2:literal)
            $(, |$g:ident, $a:ident, $b:ident, $y:ident| ($da:expr, $db:expr))?;
    )*) => {
        /// The functions of two elements.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum BinaryOp {$(
            $(#[doc = $doc])+
            $op,
        )*}

        impl BinaryOp {
            /// Every variant.
            pub const ALL: &'static [BinaryOp] = &[$(BinaryOp::$op),*];
            /// The method's name.
            pub const fn name(self) -> &'static str {
                match self { $(BinaryOp::$op => stringify!($method),)* }
            }
            /// What it does with the dtype.
            pub const fn kind(self) -> BinaryKind {
                match self { $(BinaryOp::$op => BinaryKind::$kind,)* }
            }
            const fn saves(self) -> Saves {
                match self { $(BinaryOp::$op => Saves::$saves,)* }
            }
            /// The gradients; only what the op saves may be asked for.
            #[allow(unused_variables)]
            fn gradients<'t>(self, cx: &'t Vjp<'_>, operand: &dyn Fn(usize) -> &'t Tensor, needs: [bool; 2]) -> [Option<Tensor>; 2] {
                match self { $(BinaryOp::$op => { binary_ops!(@vjp $saves, cx, operand, needs $(, |$g, $a, $b, $y| ($da, $db))?) })* }
            }
        }

        pub(crate) fn rows() -> Vec<Row> {
            vec![$(Row {
                op: BinaryOp::$op,
                method: stringify!($method),
                torch: $torch,
                doc: concat!($($doc, "\n"),+),
                domains: (($lo, $hi), ($lo2, $hi2)),
                run: |a, b| a.$try_method(b),
            }),*]
        }

        impl Tensor {
            crate::fallible! {$(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nThe shapes broadcast, the dtypes promote. In PyTorch: `", $torch, "`.")]
                pub fn $method | $try_method(&self, other: &Tensor) -> Tensor { self.try_binary(BinaryOp::$op, other) }
            )*}
        }
    };
    (@vjp $saves:ident, $cx:ident, $operand:ident, $needs:ident) => { $cx.no_gradient("its results are not continuous in its operands") };
    (@vjp NOTHING, $cx:ident, $operand:ident, $needs:ident, |$g:ident, $a:ident, $b:ident, $y:ident| ($da:expr, $db:expr)) => {{
        let $g = $cx.grad_ref();
        [$needs[0].then(|| $da), $needs[1].then(|| $db)]
    }};
    (@vjp OTHERS, $cx:ident, $operand:ident, $needs:ident, |$g:ident, $a:ident, $b:ident, $y:ident| ($da:expr, $db:expr)) => {{
        let $g = $cx.grad_ref();
        let da = $needs[0].then(|| { let $b = $operand(1); $da });
        [da, $needs[1].then(|| { let $a = $operand(0); $db })]
    }};
    (@vjp INPUTS, $cx:ident, $operand:ident, $needs:ident, |$g:ident, $a:ident, $b:ident, $y:ident| ($da:expr, $db:expr)) => {{
        let ($g, $a, $b) = ($cx.grad_ref(), $operand(0), $operand(1));
        [$needs[0].then(|| $da), $needs[1].then(|| $db)]
    }};
    (@vjp BOTH, $cx:ident, $operand:ident, $needs:ident, |$g:ident, $a:ident, $b:ident, $y:ident| ($da:expr, $db:expr)) => {{
        let ($g, $a, $b, $y) = ($cx.grad_ref(), $operand(0), $operand(1), $cx.y_ref());
        [$needs[0].then(|| $da), $needs[1].then(|| $db)]
    }};
}

/// g where `a` wins, half of it at ties.
fn share(g: &Tensor, wins: &Tensor, ties: &Tensor) -> Tensor {
    let won = g.masked_fill(&wins.logical_not(), 0.0);
    won + (g * 0.5).masked_fill(&ties.logical_not(), 0.0)
}

binary_ops! {
    /// a + b. ∂ = (g, g)
    Add => add | try_add, "torch.add", Number, saves NOTHING, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (g.clone(), g.clone());
    /// a − b. ∂ = (g, −g)
    Sub => sub | try_sub, "torch.sub", Number, saves NOTHING, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (g.clone(), g.neg());
    /// a · b. ∂ = (g·b, g·a)
    Mul => mul | try_mul, "torch.mul", Number, saves OTHERS, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (g * b, g * a);
    /// a / b, in floating point. ∂ = (g/b, −g·a/b²)
    Div => div | try_div, "torch.div", Float, saves INPUTS, on (-3.0..=3.0, 0.5..=3.0), |g, a, b, y| (g / b, (g / b * (a / b)).neg());
    /// aᵇ. ∂ = (g·b·aᵇ⁻¹, g·aᵇ·ln a); the first is 0 where b = 0, the second 0 where a = 0 and b ≥ 0
    Pow => pow | try_pow, "torch.pow", Number, saves BOTH, on (0.3..=3.0, -2.0..=2.0), |g, a, b, y| (
        (g * b * a.pow(&(b - 1.0))).masked_fill(&b.eq_scalar(0.0), 0.0),
        (g * y * a.log()).masked_fill(&a.eq_scalar(0.0).logical_and(&b.ge_scalar(0.0)), 0.0)
    );
    /// The angle of (b, a): atan(a/b) in the right quadrant. ∂ = (g·b, −g·a) / (a² + b²)
    Atan2 => atan2 | try_atan2, "torch.atan2", Float, saves INPUTS, on (0.4..=3.0, 0.4..=3.0), |g, a, b, y| (g * b / (a * a + b * b), (g * a / (a * a + b * b)).neg());
    /// √(a² + b²). ∂ = (g·a/y, g·b/y)
    Hypot => hypot | try_hypot, "torch.hypot", Float, saves BOTH, on (0.4..=3.0, 0.4..=3.0), |g, a, b, y| (g * (a / y), g * (b / y));
    /// The larger one; NaN wins. ∂: g to the larger, half to each at ties
    Maximum => maximum | try_maximum, "torch.maximum", Number, saves INPUTS, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (share(g, &a.gt(b), &a.eq(b)), share(g, &b.gt(a), &a.eq(b)));
    /// The smaller one; NaN wins. ∂: g to the smaller, half to each at ties
    Minimum => minimum | try_minimum, "torch.minimum", Number, saves INPUTS, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (share(g, &a.lt(b), &a.eq(b)), share(g, &b.lt(a), &a.eq(b)));
    /// ln(eᵃ + eᵇ), without overflow. ∂ = (g·eᵃ⁻ʸ, g·eᵇ⁻ʸ)
    LogAddExp => logaddexp | try_logaddexp, "torch.logaddexp", Float, saves INPUTS, on (-3.0..=3.0, -3.0..=3.0), |g, a, b, y| (g * (a - b).sigmoid(), g * (b - a).sigmoid());
    /// |a| with the sign of b. ∂ = (g·sign(a)·sign(b), 0), 0 where a = 0
    Copysign => copysign | try_copysign, "torch.copysign", Float, saves INPUTS, on (0.4..=3.0, -3.0..=3.0), |g, a, b, y| (g * a.sign() * b.ones_like().copysign(b), g.zeros_like());
    /// a modulo b with the sign of b: a − b·⌊a/b⌋. ∂ = (g, −g·⌊a/b⌋)
    Remainder => remainder | try_remainder, "torch.remainder", Number, saves INPUTS, on (3.1..=3.9, 1.1..=1.5), |g, a, b, y| (g.clone(), (g * (a / b).floor()).neg());
    /// a modulo b with the sign of a: a − b·trunc(a/b). ∂ = (g, −g·trunc(a/b))
    Fmod => fmod | try_fmod, "torch.fmod", Number, saves INPUTS, on (3.1..=3.9, 1.1..=1.5), |g, a, b, y| (g.clone(), (g * (a / b).trunc()).neg());
    /// ⌊a/b⌋. ∂ = 0
    FloorDivide => floor_divide | try_floor_divide, "torch.floor_divide", Number, saves NOTHING, on (3.1..=3.9, 1.1..=1.5), |g, a, b, y| (g.zeros_like(), g.zeros_like());
    /// a·ln b, and 0 where a = 0 (unless b is NaN). ∂ = (g·ln b, g·a/b)
    Xlogy => xlogy | try_xlogy, "torch.xlogy", Float, saves INPUTS, on (0.4..=3.0, 0.4..=3.0), |g, a, b, y| (
        (g * b.log()).masked_fill(&a.eq_scalar(0.0).logical_and(&b.le_scalar(0.0)), 0.0), g * a / b
    );
    /// The bits both have.
    BitAnd => bit_and | try_bit_and, "torch.bitwise_and", Bits, saves NOTHING, on (0.0..=9.0, 0.0..=9.0);
    /// The bits either has.
    BitOr => bit_or | try_bit_or, "torch.bitwise_or", Bits, saves NOTHING, on (0.0..=9.0, 0.0..=9.0);
    /// The bits one alone has.
    BitXor => bit_xor | try_bit_xor, "torch.bitwise_xor", Bits, saves NOTHING, on (0.0..=9.0, 0.0..=9.0);
    /// a · 2ᵇ by shifting; 0 where b is not less than the width.
    ShiftLeft => shift_left | try_shift_left, "torch.bitwise_left_shift", Bits, saves NOTHING, on (0.0..=9.0, 0.0..=3.0);
    /// ⌊a / 2ᵇ⌋ by shifting.
    ShiftRight => shift_right | try_shift_right, "torch.bitwise_right_shift", Bits, saves NOTHING, on (0.0..=9.0, 0.0..=3.0);
}

/// The shape that two operands broadcast to, or what does not fit.
pub(crate) fn broadcast(a: &Shape, b: &Shape) -> Result<Shape> {
    a.broadcast(b).ok_or_else(|| {
        let lead = a.rank().abs_diff(b.rank());
        let (long, short) = if a.rank() >= b.rank() { (a, b) } else { (b, a) };
        let bad = (0..short.rank()).rev().find(|&i| long[lead + i] != short[i] && long[lead + i] != 1 && short[i] != 1);
        let (i, l) = bad.map_or((0, 0), |i| (i + lead, long[lead + i]));
        Error::misuse(format!(
            "shapes {a} and {b} do not broadcast: at dimension {i} (from the left of the longer) the lengths must be equal or 1; {l} there would take {l} or 1"
        ))
    })
}

fn check(op: BinaryOp, dtype: DType) -> Result<()> {
    match op.kind() {
        BinaryKind::Float if !dtype.is_float() => {
            Err(Error::misuse(format!("needs floating-point tensors, not {dtype}")))
        }
        BinaryKind::Bits if dtype.is_float() => Err(Error::misuse(format!("needs integers or bool, not {dtype}"))),
        BinaryKind::Number if dtype == DType::Bool => Err(Error::misuse("needs numbers, not bool")),
        _ => Ok(()),
    }
}

impl BinaryOp {
    /// Powers and logarithms keep `f32` under a half precision.
    const fn autocast(self) -> Autocast {
        match self {
            BinaryOp::Pow | BinaryOp::LogAddExp | BinaryOp::Xlogy => Autocast::Full,
            _ => Autocast::Widest,
        }
    }
}

/// A function of two tensors' elements.
#[derive(Clone, Copy, Debug)]
pub struct Binary(pub BinaryOp);

impl Op for Binary {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn autocast(&self) -> Autocast {
        self.0.autocast()
    }
    #[inline]
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        if x[0].dtype != x[1].dtype {
            return Err(Error::misuse("the operands must have one dtype here"));
        }
        check(self.0, x[0].dtype)?;
        if x[0].shape == x[1].shape {
            return Ok(one(x[0].dtype, x[0].shape));
        }
        Ok(one(x[0].dtype, broadcast(&x[0].shape, &x[1].shape)?))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        if x[0].shape() == x[1].shape() {
            return Ok(new(on.binary(self.0, Operand::View(x[0]), Operand::View(x[1]))?));
        }
        let (a, b) = stretched(x)?;
        let view = |i: usize, layout| Operand::View(View { buffer: x[i].buffer, layout, dtype: x[i].dtype });
        Ok(new(on.binary(self.0, view(0, &a), view(1, &b))?))
    }
    fn saves(&self) -> Saves {
        self.0.saves()
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let [a, b] = self.0.gradients(cx, &|i| cx.x_ref(i), [cx.needs(0), cx.needs(1)]);
        Grads::from_buf_and_len([a, b, None], 2)
    }
}

/// The layouts of two views, stretched to their common shape.
pub(crate) fn stretched(x: &[View<'_>]) -> Result<(Layout, Layout)> {
    let shape = broadcast(x[0].shape(), x[1].shape())?;
    Ok((x[0].layout.expand(&shape), x[1].layout.expand(&shape)))
}

/// A function of a tensor's elements and one number.
#[derive(Clone, Debug)]
pub struct BinaryScalar {
    /// The function.
    pub op: BinaryOp,
    /// The number.
    pub scalar: Scalar,
    /// Whether the number is the left operand.
    pub left: bool,
}

impl Op for BinaryScalar {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn autocast(&self) -> Autocast {
        self.op.autocast()
    }
    fn infer(&self, x: &[Meta]) -> Result<Metas> {
        check(self.op, x[0].dtype)?;
        Ok(one(x[0].dtype, x[0].shape))
    }
    fn eval(&self, on: &dyn Backend, x: &[View<'_>]) -> Result<Outs> {
        let (t, s) = (Operand::View(x[0]), Operand::Scalar(self.scalar.clone()));
        Ok(new(if self.left { on.binary(self.op, s, t)? } else { on.binary(self.op, t, s)? }))
    }
    fn saves(&self) -> Saves {
        // The commonest rows need neither operand when one of them is a number.
        match (self.op, self.left) {
            (BinaryOp::Mul, _) | (BinaryOp::Div, false) => Saves::NOTHING,
            _ => self.op.saves(),
        }
    }
    fn vjp(&self, cx: &Vjp<'_>) -> Grads {
        let s = || self.scalar.clone();
        let g = match (self.op, self.left) {
            (BinaryOp::Mul, _) => cx.grad_ref().binary_scalar(BinaryOp::Mul, s()),
            (BinaryOp::Div, false) => cx.grad_ref().binary_scalar(BinaryOp::Div, s()),
            (BinaryOp::Pow, false) => {
                // b·a^(b−1): defined where a is negative and b an integer, too.
                let b = self.scalar.to_f64();
                if b == 0.0 {
                    cx.grad_ref().zeros_like()
                } else {
                    cx.grad_ref() * cx.x_ref(0).binary_scalar(BinaryOp::Pow, b - 1.0) * b
                }
            }
            _ => {
                let place = if self.left { 1 } else { 0 };
                let number = Tensor::full((), s(), cx.device().with(cx.meta(0).dtype));
                let operand = |i: usize| if i == place { cx.x_ref(0) } else { &number };
                let mut needs = [false; 2];
                needs[place] = true;
                let [a, b] = self.op.gradients(cx, &operand, needs);
                return smallvec![if self.left { b } else { a }];
            }
        };
        smallvec![Some(g)]
    }
}

impl Tensor {
    /// A function of two tensors' elements. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn binary(&self, op: BinaryOp, other: &Tensor) -> Tensor {
        or_raise(self.try_binary(op, other))
    }

    /// A function of two tensors' elements: dtypes promote, shapes broadcast.
    #[track_caller]
    pub fn try_binary(&self, op: BinaryOp, other: &Tensor) -> Result<Tensor> {
        let mut dtype = self.dtype();
        if dtype != other.dtype() {
            dtype = dtype.promote(other.dtype());
        }
        if op.kind() == BinaryKind::Float && !dtype.is_float() {
            dtype = DType::F32;
        }
        if dtype == self.dtype() && dtype == other.dtype() {
            return Tensor::try_apply1(Binary(op), &[self, other]);
        }
        Tensor::try_apply1(Binary(op), &[&self.try_to_dtype(dtype)?, &other.try_to_dtype(dtype)?])
    }

    /// A function of each element and a number on its right. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn binary_scalar(&self, op: BinaryOp, scalar: impl Into<Scalar>) -> Tensor {
        or_raise(self.try_binary_scalar(op, scalar))
    }

    /// A function of each element and a number on its right. The number is weak: it never widens a float, and only a
    /// floating-point number turns integers into `f32`.
    #[track_caller]
    pub fn try_binary_scalar(&self, op: BinaryOp, scalar: impl Into<Scalar>) -> Result<Tensor> {
        self.try_with_scalar(op, scalar.into(), false)
    }

    /// A function of a number on the left and each element. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn scalar_binary(&self, op: BinaryOp, scalar: impl Into<Scalar>) -> Tensor {
        or_raise(self.try_scalar_binary(op, scalar))
    }

    /// As [`scalar_binary`](Self::scalar_binary), with misuse returned as an error.
    #[track_caller]
    pub fn try_scalar_binary(&self, op: BinaryOp, scalar: impl Into<Scalar>) -> Result<Tensor> {
        self.try_with_scalar(op, scalar.into(), true)
    }

    #[track_caller]
    fn try_with_scalar(&self, op: BinaryOp, scalar: Scalar, left: bool) -> Result<Tensor> {
        let dtype = weak(self.dtype(), &scalar, op.kind() == BinaryKind::Float);
        let op = BinaryScalar { op, scalar, left };
        if dtype == self.dtype() {
            Tensor::try_apply1(op, &[self])
        } else {
            Tensor::try_apply1(op, &[&self.try_to_dtype(dtype)?])
        }
    }

    crate::fallible! {
        /// Each element to the power of a number. ∂ = g·b·xᵇ⁻¹
        pub fn powf | try_powf<S: Into<Scalar>>(&self, exponent: S) -> Tensor { self.try_binary_scalar(BinaryOp::Pow, exponent) }
    }
}

/// The dtype in which a tensor meets a weak number.
pub(crate) fn weak(tensor: DType, scalar: &Scalar, float_op: bool) -> DType {
    match (tensor, scalar.is_int() && !float_op) {
        (d, _) if d.is_float() => d,
        (DType::Bool, true) => DType::I64,
        (d, true) => d,
        (_, false) => DType::F32,
    }
}
