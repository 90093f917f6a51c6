//! Making tensors: from data, constants, ranges and random numbers.
//!
//! Constructors take where the tensor is to live: a device (then it is `f32`), or `device.with(dtype)`.

use super::Tensor;
use crate::capture::{self, Ask, Effect, Exchange};
use crate::device::{Device, Place};
use crate::dtype::{DType, Element};
use crate::error::{Error, ErrorKind, Result, or_raise};
use crate::ops::BinaryOp;
use crate::rng::{Distribution, Key, below};
use crate::scalar::Scalar;
use crate::shape::{IntoShape, Shape};
use std::fmt::Debug;

/// The two forms of a constructor: the everyday one, and its `try_` twin.
macro_rules! constructors {
    ($(
        $(#[$meta:meta])*
        pub fn $name:ident | $try_name:ident ($($arg:ident : $ty:ty),* $(,)?) $body:block
    )*) => { impl Tensor {$(
        $(#[$meta])*
        ///
        #[doc = concat!("Panics at the caller's line on misuse; [`", stringify!($try_name), "`](Self::", stringify!($try_name), ") returns the error instead.")]
        #[track_caller]
        pub fn $name($($arg: $ty),*) -> Tensor {
            or_raise(Tensor::$try_name($($arg),*))
        }
        #[doc = concat!("As [`", stringify!($name), "`](Self::", stringify!($name), "), with misuse returned as an error.")]
        pub fn $try_name($($arg: $ty),*) -> Result<Tensor> $body
    )*}};
}

constructors! {
    /// A tensor of `shape` with every element `value`.
    pub fn full | try_full(shape: impl IntoShape, value: impl Into<Scalar>, place: impl Into<Place>) {
        let (shape, place, value) = (shape.into_shape()?, place.into(), value.into());
        let n = sized(&shape, place)?;
        let fill = || place.device.backend().fill(n, place.dtype, &value);
        made(&("full", shape, place, &value), Effect::None, || Ok(Tensor::from_buffer(fill()?, shape, place)))
    }

    /// A tensor of zeros.
    pub fn zeros | try_zeros(shape: impl IntoShape, place: impl Into<Place>) {
        Tensor::try_full(shape, 0i64, place)
    }

    /// A tensor of ones.
    pub fn ones | try_ones(shape: impl IntoShape, place: impl Into<Place>) {
        Tensor::try_full(shape, 1i64, place)
    }

    /// The identity matrix `[n, n]`.
    pub fn eye | try_eye(n: usize, place: impl Into<Place>) {
        let place = place.into();
        sized(&Shape::try_new(&[n, n])?, place)?;
        let i = Tensor::try_count(n, place.device)?;
        i.try_reshape([n, 1])?.try_eq(&i)?.try_to_dtype(place.dtype)
    }

    /// The numbers from `start` up to, not including, `end`, `step` apart.
    pub fn arange | try_arange(start: impl Into<Scalar>, end: impl Into<Scalar>, step: impl Into<Scalar>, place: impl Into<Place>) {
        let (start, end, step, place) = (start.into(), end.into(), step.into(), place.into());
        let (s, e, d) = (start.to_f64(), end.to_f64(), step.to_f64());
        if d == 0.0 || !((e - s) / d).is_finite() {
            return Err(Error::misuse(format!("arange: no finite range goes from {s} to {e} in steps of {d}")));
        }
        let n = ((e - s) / d).ceil().max(0.0);
        let shape = counted(n)?;
        sized(&shape, place)?;
        room(n as usize)?;
        if start.is_int() && step.is_int() {
            // Counted on the device, so that masks made of such numbers can be part of a recorded step.
            let (s, d) = (start.to_i64(), step.to_i64());
            let counted = Tensor::try_ones(shape, place.device.with(DType::I64))?.try_cumsum(0)?;
            let scaled = counted.try_binary_scalar(BinaryOp::Mul, d)?;
            return scaled.try_binary_scalar(BinaryOp::Add, s.wrapping_sub(d))?.try_to_dtype(place.dtype);
        }
        let data: Vec<f64> = (0..n as u64).map(|i| s + i as f64 * d).collect();
        from_f64(data, shape, place)
    }

    /// `n` numbers evenly spaced from `start` to `end`, both included.
    pub fn linspace | try_linspace(start: f64, end: f64, n: usize, place: impl Into<Place>) {
        let (shape, place) = (Shape::try_new(&[n])?, place.into());
        sized(&shape, place)?;
        room(n)?;
        let step = (end - start) / n.saturating_sub(1).max(1) as f64;
        // Counted from the nearer end, so that the last number is `end` itself.
        let at = |i: usize| if i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 };
        let data = if n == 1 { vec![start] } else { (0..n).map(at).collect() };
        from_f64(data, shape, place)
    }

    /// Uniform random numbers on [0, 1). See [`crate::rng`] for the exact bits.
    pub fn rand | try_rand(shape: impl IntoShape, place: impl Into<Place>, key: impl Into<Key>) {
        Tensor::try_random(Distribution::Uniform, shape, place, key)
    }

    /// Normal random numbers with mean 0 and variance 1. See [`crate::rng`].
    pub fn randn | try_randn(shape: impl IntoShape, place: impl Into<Place>, key: impl Into<Key>) {
        Tensor::try_random(Distribution::Normal, shape, place, key)
    }

    /// Random integers from `low` up to, not including, `high`. A device alone means `i64` on it.
    pub fn randint | try_randint(low: i64, high: i64, shape: impl IntoShape, device: Device, key: impl Into<Key>) {
        Tensor::try_random(Distribution::Integers(low, high), shape, device.with(DType::I64), key)
    }

    /// A random order of the numbers below `n`; `i64`. (Fisher–Yates, drawn on the host: the same on every device.)
    pub fn randperm | try_randperm(n: usize, device: Device, key: impl Into<Key>) {
        Tensor::try_from_vec(permutation(n, &key.into()).into_iter().map(|i| i as i64).collect(), [n], device)
    }

    /// Random numbers of a distribution.
    pub fn random | try_random(distribution: Distribution, shape: impl IntoShape, place: impl Into<Place>, key: impl Into<Key>) {
        let (shape, place) = (shape.into_shape()?, place.into());
        let n = sized(&shape, place)?;
        check_distribution(distribution, n)?;
        let key = key.into();
        let draw = || place.device.backend().random(distribution, &key, n, place.dtype);
        made(&("random", shape, place, distribution, &key), Effect::None, || Ok(Tensor::from_buffer(draw()?, shape, place)))
    }
}

impl Tensor {
    /// A tensor of `shape` with these elements, row-major; its dtype is their type. Panics at the caller's line if the
    /// shape does not hold exactly as many.
    #[track_caller]
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl IntoShape, device: Device) -> Tensor {
        or_raise(Tensor::try_from_vec(data, shape, device))
    }
    /// As [`from_vec`](Self::from_vec), with misuse returned as an error.
    #[track_caller]
    pub fn try_from_vec<T: Element>(data: Vec<T>, shape: impl IntoShape, device: Device) -> Result<Tensor> {
        let shape = shape.into_shape()?;
        Tensor::from_bytes(T::bytes(&data), shape, device.with(T::DTYPE))
    }
    /// A one-dimensional tensor with these elements. Panics at the caller's line if the device refuses them.
    #[track_caller]
    pub fn from_slice<T: Element>(data: &[T], device: Device) -> Tensor {
        or_raise(Tensor::from_bytes(
            T::bytes(data),
            Shape::SCALAR.try_insert(0, data.len()).unwrap_or(Shape::SCALAR),
            device.with(T::DTYPE),
        ))
    }
    /// A tensor without dimensions.
    #[track_caller]
    pub fn scalar<T: Element>(x: T, device: Device) -> Tensor {
        or_raise(Tensor::from_bytes(T::bytes(&[x]), Shape::SCALAR, device.with(T::DTYPE)))
    }
    /// A tensor of `shape` from native-endian bytes; an error if the shape does not need exactly as many.
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], shape: Shape, place: Place) -> Result<Tensor> {
        demand_bytes(bytes.len(), &shape, place)?;
        capture::exchange(Exchange::Upload)?;
        let upload = || Ok(Tensor::from_buffer(place.device.backend().upload(place.dtype, bytes)?, shape, place));
        let mut replayed = capture::is_replaying();
        let out = made(&("upload", shape, place), Effect::Upload, || {
            replayed = false;
            upload()
        })?;
        if replayed {
            capture::overwrite_last(bytes)?;
        }
        Ok(out)
    }
    /// As [`from_bytes`](Self::from_bytes), of bytes that lie in pieces, each a whole number of elements: gathered on their way, so that rows
    /// picked from a data set are copied once.
    #[track_caller]
    pub fn from_pieces(pieces: &[&[u8]], shape: Shape, place: Place) -> Result<Tensor> {
        if capture::is_active() {
            return Tensor::from_bytes(&pieces.concat(), shape, place); // a replay writes them in one piece
        }
        if pieces.iter().any(|p| p.len() % place.dtype.size() != 0) {
            return Err(Error::misuse(format!("a piece is not a whole number of {} elements", place.dtype)));
        }
        demand_bytes(pieces.iter().map(|p| p.len()).sum(), &shape, place)?;
        capture::exchange(Exchange::Upload)?;
        Ok(Tensor::from_buffer(place.device.backend().upload_pieces(place.dtype, pieces)?, shape, place))
    }
    /// The numbers from 0 up to, not including, `n`; `i64`. Made by kernels, so that a recorded step may hold it.
    pub(crate) fn try_count(n: usize, device: Device) -> Result<Tensor> {
        Ok(Tensor::try_ones([n], device.with(DType::I64))?.try_cumsum(0)? - 1i64)
    }
    /// Zeros of this tensor's shape, dtype and device.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        Tensor::zeros(*self.shape(), self.place())
    }
    /// Ones of this tensor's shape, dtype and device.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        Tensor::ones(*self.shape(), self.place())
    }
    /// This tensor's shape, dtype and device, with every element `value`.
    #[track_caller]
    pub fn full_like(&self, value: impl Into<Scalar>) -> Tensor {
        Tensor::full(*self.shape(), value, self.place())
    }
}

/// The type of calls that make a tensor of no other, in a record.
#[derive(Debug)]
struct Making;

/// Makes a tensor of no other. `what` says all that the call is.
fn made(what: &dyn Debug, effect: Effect, make: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    match capture::ask_as::<Making>(what, &[]) {
        Ask::Eager | Ask::Define => make(),
        Ask::Done(outputs) => outputs?.pop().ok_or_else(|| Error::misuse("a record gave no tensor")),
        Ask::Note(note) => {
            let out = make()?;
            note.gave(std::slice::from_ref(&out), effect);
            Ok(out)
        }
    }
}

/// Number of elements of a shape that the device can hold, or why it cannot.
fn sized(shape: &Shape, place: Place) -> Result<usize> {
    if !place.device.backend().supports(place.dtype) {
        return Err(Error::unsupported(format!("{} has no tensors of {}", place.device, place.dtype)));
    }
    shape.checked_elements(place.dtype.size())
}

/// Whether so many bytes are the elements of a shape.
fn demand_bytes(bytes: usize, shape: &Shape, place: Place) -> Result<()> {
    let (n, size) = (sized(shape, place)?, place.dtype.size());
    if n * size == bytes {
        return Ok(());
    }
    let given = bytes / size;
    Err(Error::misuse(format!("a {} tensor of shape {shape} has {n} elements; {given} were given", place.dtype)))
}

/// Whether the host has room for `n` numbers of 64 bits, which ranges are made of.
fn room(n: usize) -> Result<()> {
    Vec::<u64>::new()
        .try_reserve_exact(n)
        .map_err(|e| Error::new(ErrorKind::Memory, format!("a range of {n} numbers")).caused_by(e))
}

fn counted(n: f64) -> Result<Shape> {
    if n > isize::MAX as f64 {
        return Err(Error::misuse(format!("a range of {n} numbers is more than an address can count")));
    }
    Shape::try_new(&[n as usize])
}

/// Numbers of the host in the place's dtype.
pub(crate) fn from_f64(data: Vec<f64>, shape: Shape, place: Place) -> Result<Tensor> {
    match place.dtype {
        DType::F64 => Tensor::try_from_vec(data, shape, place.device),
        DType::F32 => Tensor::try_from_vec(data.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape, place.device),
        DType::I64 => Tensor::try_from_vec(data.iter().map(|&x| x as i64).collect::<Vec<_>>(), shape, place.device),
        // `f32` holds what the narrow types can; a device need not have `f64`.
        d => Tensor::try_from_vec(data.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape, place.device)?
            .try_to_dtype(d),
    }
}

fn check_distribution(distribution: Distribution, n: usize) -> Result<()> {
    if n as u64 > 1 << 34 {
        return Err(Error::misuse(format!("one key draws at most 2^34 numbers; asked for {n}")));
    }
    match distribution {
        Distribution::Bernoulli(p) if !(0.0..=1.0).contains(&p) => {
            Err(Error::misuse(format!("a probability lies between 0 and 1; got {p}")))
        }
        Distribution::Integers(low, high) if low >= high || high as i128 - low as i128 > 1 << 32 => {
            Err(Error::misuse(format!("random integers need low < high and at most 2^32 of them; got {low}..{high}")))
        }
        _ => Ok(()),
    }
}

/// A random order of the numbers below `n`, a pure function of the key (Fisher–Yates).
pub fn permutation(n: usize, key: &Key) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let words = key.block(i as u32);
        // Below 2³² choices one word decides; two words would for more.
        let j = if i < u32::MAX as usize {
            below(words[0], i as u64 + 1)
        } else {
            (words[0] as u64 | (words[1] as u64) << 32) % (i as u64 + 1)
        };
        order.swap(i, j as usize);
    }
    order
}
